//! Keys of clients between real processes: where they come from, what a farm says of them, and that
//! nobody sees them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use darkroom_test_servers::{
    process::{Process, free_port},
    redis::Redis,
};
use darkroom_tests::{
    command::{Darkroom, Ended},
    eventually,
    farm::{Farm, Renderer},
    processes::{Settings, health},
};

/// A farm that asks for keys, on `folder/state`.
fn keyed(folder: &Path) -> Farm {
    Farm::start_with(folder, Renderer::Fake, &[("DARKROOM_OPEN", "")])
}

/// The file with a farm's own key.
fn own_key(folder: &Path) -> PathBuf {
    folder.join("state/farm.key")
}

/// A command to a farm with its own key.
fn operator<'a>(
    folder: &Path,
    farm: &Farm,
    arguments: impl IntoIterator<Item = &'a str>,
) -> Darkroom {
    farm.command(arguments).env("DARKROOM_KEY_FILE", own_key(folder))
}

/// A new key of this farm, whole.
fn created(folder: &Path, farm: &Farm, arguments: &[&str]) -> String {
    let made = operator(folder, farm, [&["key", "create"], arguments].concat()).run();
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(made.stderr.contains("shown only now"), "{made:?}");
    made.stdout.trim().to_owned()
}

fn id(key: &str) -> &str {
    key.split('_').nth(1).expect("an id")
}

fn secret(key: &str) -> &str {
    key.split('_').nth(2).expect("a secret")
}

/// Whose answer does not have the secret.
fn silent(ended: &Ended, key: &str) {
    let whole = format!("{}{}", ended.stdout, ended.stderr);
    assert!(!whole.contains(secret(key)), "the secret is shown: {ended:?}");
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("there").permissions().mode() & 0o777
}

/// Has the form of a key, and is nobody's.
const NOBODYS: &str = "dk_000000000000_0000000000000000000000000000000000000000000";

#[test]
fn a_farm_on_this_machine_serves_its_own_commands_and_refuses_strangers() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let farm = keyed(path);
    let found = || Darkroom::new(path).args(["--state", "state"]);
    assert_eq!(found().args(["render", "a red circle", "-n", "2"]).run().paths(path).len(), 2);
    assert_eq!(found().args(["--json", "ls"]).run().json_lines().len(), 1);
    assert_eq!(mode(&own_key(path)), 0o600);

    let login = format!("`darkroom login --farm {}`", farm.address);
    farm.command(["ls"])
        .run()
        .refused(3, &["asks for a key", &login, "DARKROOM_KEY", "--key-file"]);
    let stranger = farm.command(["ls"]).env("DARKROOM_KEY", NOBODYS).run();
    stranger.refused(3, &["does not accept the key 000000000000 from DARKROOM_KEY", "revoked"]);
    silent(&stranger, NOBODYS);
    assert_eq!(operator(path, &farm, ["ls"]).run().code, Some(0));

    let key = fs::read_to_string(own_key(path)).expect("a key").trim().to_owned();
    assert!(!farm.log().contains(secret(&key)), "{}", farm.log());
    assert_eq!(farm.stop(), Some(0));
    let farm = keyed(path);
    assert_eq!(operator(path, &farm, ["ls"]).run().code, Some(0), "the key stays");
    assert_eq!(farm.stop(), Some(0));
    // A farm that is open asks nobody.
    let farm = Farm::start(path, Renderer::Fake);
    assert_eq!(farm.command(["ls"]).run().code, Some(0));
    assert_eq!(found().args(["ls"]).run().code, Some(0));
    assert_eq!(farm.command(["ls"]).env("DARKROOM_KEY", NOBODYS).run().code, Some(0));
}

#[test]
fn a_login_stores_a_key_that_the_farm_accepts_until_the_logout() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let farm = keyed(path);
    let key = created(path, &farm, &["--tenant", "studio", "--scope", "submit"]);
    let stored = path.join("config/darkroom/keys.json");

    let refused = farm.command(["login"]).input(NOBODYS.as_bytes()).run();
    refused.refused(3, &["does not accept the key 000000000000", "`darkroom login`"]);
    let half = &key[..key.len() - 1];
    let refused = farm.command(["login"]).input(half.as_bytes()).run();
    refused.refused(2, &["is no key; accepted: dk_ID_SECRET"]);
    silent(&refused, half);
    for nothing in ["", " \n"] {
        let refused = farm.command(["login"]).input(nothing.as_bytes()).run();
        refused.refused(2, &["no key was given; accepted: dk_ID_SECRET"]);
    }
    Darkroom::new(path).args(["login"]).input(key.as_bytes()).run().refused(2, &["--farm"]);
    assert!(!stored.exists(), "what is refused is not stored");

    let login = farm.command(["--json", "login"]).input(format!("{key}\n").as_bytes()).run();
    silent(&login, &key);
    assert_eq!(login.json()["key"], id(&key));
    assert_eq!((mode(stored.parent().expect("a folder")), mode(&stored)), (0o700, 0o600));
    let listed = farm.command(["--json", "ls"]).run();
    assert_eq!(listed.json_lines().len(), 0, "{listed:?}");
    let refused = farm.command(["workers"]).run();
    refused.refused(3, &["needs scope operate", id(&key), "`darkroom login`", "ask whoever runs"]);

    let logout = farm.command(["--json", "logout"]).run();
    assert_eq!(logout.json()["removed"][0], farm.address.as_str());
    farm.command(["ls"]).run().refused(3, &["asks for a key"]);
    assert_eq!(farm.command(["logout"]).run().code, Some(0), "once more");

    // A key that is for something else than jobs is the farm's too.
    for scope in ["admin", "member"] {
        let other = created(path, &farm, &["--scope", scope]);
        let login = farm.command(["login"]).input(other.as_bytes()).run();
        assert_eq!(login.code, Some(0), "{login:?}");
    }
}

#[test]
fn a_login_on_a_terminal_does_not_show_what_is_typed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let farm = keyed(path);
    let key = created(path, &farm, &["--tenant", "studio", "--scope", "read"]);
    fs::write(path.join("typed"), format!("{key}\n")).expect("written");
    // What is typed before the prompt, the terminal itself would show.
    let script = r#"mkfifo keyboard
script -qefc "$1 --farm $FARM login" /dev/null <keyboard >screen &
exec 3>keyboard
until grep -q "Key for" screen; do sleep 0.05; done
sleep 1
cat typed >&3
wait $!
code=$?
cat screen
exit $code"#;
    let login = Darkroom::under(script, path).env("FARM", &farm.address).run();
    assert_eq!(login.code, Some(0), "{login:?}");
    assert!(login.stdout.contains(&format!("Key for {}: ", farm.address)), "{login:?}");
    assert!(login.stdout.contains(&format!("the key {} for", id(&key))), "{login:?}");
    silent(&login, &key);
    assert_eq!(farm.command(["ls"]).run().code, Some(0), "it is stored");
}

#[test]
fn the_first_place_that_has_a_key_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let farm = keyed(path);
    let key = created(path, &farm, &["--tenant", "studio", "--scope", "read"]);
    let file = path.join("nobodys.key");
    fs::write(&file, NOBODYS).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("closed");
    let found = || Darkroom::new(path).args(["--state", "state", "ls"]);
    let refused = |command: Darkroom, source: &str| {
        command.run().refused(3, &["does not accept the key 000000000000", source]);
    };
    refused(found().env("DARKROOM_KEY", &key).env("DARKROOM_KEY_FILE", &file), "nobodys.key");
    refused(found().env("DARKROOM_KEY", &key).args(["--key-file", "nobodys.key"]), "nobodys.key");
    refused(found().env("DARKROOM_KEY", NOBODYS), "DARKROOM_KEY");
    let login = farm.command(["login"]).input(key.as_bytes()).run();
    assert_eq!(login.code, Some(0), "{login:?}");
    refused(farm.command(["ls"]).env("DARKROOM_KEY", NOBODYS), "DARKROOM_KEY");
    // The key of the folder may do more than the one that is stored.
    assert_eq!(found().run().code, Some(0));
    let workers = Darkroom::new(path).args(["--state", "state", "workers"]).run();
    assert_eq!(workers.code, Some(0), "{workers:?}");
    assert_eq!(farm.command(["ls"]).run().code, Some(0));
    assert_eq!(farm.command(["ls"]).env("DARKROOM_KEY", "").run().code, Some(0), "empty is unset");
}

#[test]
fn a_key_is_made_listed_rotated_and_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let farm = keyed(path);
    let admin = |arguments: &[&str]| operator(path, &farm, arguments.iter().copied()).run();
    let key = created(path, &farm, &["--tenant", "studio", "--scope", "submit", "--label", "Ana"]);
    let listed = admin(&["--json", "key", "list", "--tenant", "studio"]);
    silent(&listed, &key);
    let listed = listed.json_lines();
    assert_eq!((listed.len(), &listed[0]["id"]), (1, &id(&key).into()));
    assert_eq!((&listed[0]["label"], &listed[0]["scopes"][0]), (&"Ana".into(), &"submit".into()));
    assert!(!listed[0]["expires"].is_null(), "90 days unless it is said otherwise: {listed:?}");
    let table = admin(&["key", "list"]);
    assert!(table.stdout.contains(id(&key)) && table.stdout.contains("LAST USED"), "{table:?}");

    let rotated = admin(&["--json", "key", "rotate", id(&key), "--out", "new.key"]);
    let document = rotated.json();
    assert!(document.get("secret").is_none() && document["path"] == "new.key", "{document}");
    assert_eq!(document["old"]["id"], id(&key));
    assert_eq!(mode(&path.join("new.key")), 0o600);
    let new = fs::read_to_string(path.join("new.key")).expect("a key").trim().to_owned();
    silent(&rotated, &new);
    for works in [&key, &new] {
        assert_eq!(farm.command(["ls"]).env("DARKROOM_KEY", works).run().code, Some(0));
    }
    admin(&["key", "rotate", id(&key), "--out", "new.key"]).refused(3, &["new.key, which exists"]);
    assert_eq!(fs::read_to_string(path.join("new.key")).expect("there").trim(), new);

    let ended = admin(&["key", "revoke", id(&new)]);
    assert!(ended.stdout.contains("is revoked"), "{ended:?}");
    eventually("the key is refused", || {
        let ended = farm.command(["ls"]).env("DARKROOM_KEY", &new).run();
        (ended.code == Some(3)).then_some(())
    });
    // A whole key in the place of its id is not repeated.
    for wrong in [
        admin(&["key", "revoke", &key]),
        admin(&["key", "rotate", &key]),
        admin(&["audit", "--key", &key]),
    ] {
        wrong.refused(2, &["is not the id of a key; accepted: the 12 letters and digits"]);
        silent(&wrong, &key);
    }
    for refused in [
        admin(&["key", "create", "--tenant", "studio", "--scope", "write"]),
        admin(&["key", "create", "--scope", "read", "--expires", "soon"]),
        admin(&["key", "rotate", id(&key), "--keep", "x"]),
        admin(&["tenant", "set", "studio", "--sharing", "some"]),
        admin(&["tenant", "set", "studio", "--max-waiting", "-1"]),
        admin(&["ls", "--limit", "-1"]),
    ] {
        refused.refused(2, &["; accepted: "]);
    }

    let set = admin(&["--json", "tenant", "set", "studio", "--sharing", "sealed"]).json();
    assert_eq!((&set["name"], &set["sharing"]), (&"studio".into(), &"sealed".into()));
    assert!(admin(&["tenant", "show", "studio"]).stdout.contains("sealed"));
    let shown = admin(&["tenant", "show", "studio", "--audit"]).stdout;
    assert!(shown.contains("key.rotate") && shown.contains("tenant.set"), "{shown}");
    let shown = admin(&["--json", "tenant", "show", "studio", "--audit"]).json_lines();
    assert_eq!((&shown[0]["name"], &shown[1]["action"]), (&"studio".into(), &"tenant.set".into()));
    admin(&["tenant", "set", "studio", "--max-waiting", "9"]);
    let used = admin(&["--json", "usage", "--tenant", "studio"]).json_lines();
    let standing = used.last().expect("the quotas");
    assert_eq!(standing["quotas"]["images_waiting"], 9, "{standing}");
    assert_eq!(standing["usage"]["images_waiting"], 0, "{standing}");
    assert_eq!(admin(&["--json", "tenant", "list"]).json_lines().len(), 1);
    let audit = admin(&["--json", "audit", "--since", "1h"]).json_lines();
    let actions: Vec<_> = audit.iter().map(|entry| entry["action"].clone()).collect();
    assert!(actions.contains(&"key.rotate".into()) && actions[0] == "tenant.set", "{audit:?}");
    assert_eq!(admin(&["--json", "audit", "--limit", "1"]).json_lines().len(), 1);
    let nobody = admin(&["--json", "audit", "--key", id(NOBODYS)]);
    assert_eq!(nobody.json_lines().len(), 0, "{nobody:?}");
}

#[test]
fn a_key_that_ends_soon_is_warned_of_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let farm = keyed(path);
    for (expires, says) in [
        ("10d", Some("ends in 9 days; `darkroom key rotate")),
        ("2d", Some("ends in 1 day, and then the farm refuses every call")),
        ("20d", None),
        ("never", None),
    ] {
        let key = created(path, &farm, &["--scope", "operate", "--expires", expires]);
        for command in [&["ls"][..], &["workers"], &["--json", "queue"]] {
            let ended = farm.command(command.iter().copied()).env("DARKROOM_KEY", &key).run();
            assert_eq!(ended.code, Some(0), "{ended:?}");
            let warnings: Vec<_> =
                ended.stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
            assert_eq!(warnings.len(), usize::from(says.is_some()), "{expires}: {ended:?}");
            assert!(says.is_none_or(|says| warnings[0].contains(says)), "{ended:?}");
        }
    }
}

#[test]
fn a_key_goes_to_another_machine_in_plain_text_only_when_that_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    // An address of nobody: a call would take long to fail.
    let elsewhere = "192.0.2.1:7878";
    let plainly = |arguments: &[&str]| {
        Darkroom::new(path).env("DARKROOM_KEY", NOBODYS).args(["--farm", elsewhere]).args(arguments)
    };
    let says = ["plain text", "write https://192.0.2.1:7878", "key-in-plaintext"];
    let refused = plainly(&["ls"]).run();
    refused.refused(2, &says);
    silent(&refused, NOBODYS);
    let login = Darkroom::new(path).args(["--farm", elsewhere, "login"]);
    login.input(NOBODYS.as_bytes()).run().refused(2, &says);
    let malformed = Darkroom::new(path).env("DARKROOM_KEY", &NOBODYS[1..]);
    let refused = malformed.args(["--farm", elsewhere, "ls"]).run();
    refused.refused(2, &["DARKROOM_KEY has a value that is no key; accepted: dk_ID_SECRET"]);
    silent(&refused, NOBODYS);
}

#[test]
fn a_file_with_a_key_that_everybody_can_read_is_warned_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let farm = keyed(path);
    let file = path.join("open.key");
    let key = fs::read(own_key(path)).expect("a key");
    fs::write(&file, key).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("opened");
    let warned = farm.command(["--key-file", "open.key", "ls"]).run();
    assert_eq!(warned.code, Some(0), "{warned:?}");
    assert!(warned.stderr.contains("warning: every user of this machine can read"), "{warned:?}");
    assert!(warned.stderr.contains("open.key (mode 0644); run `chmod 600`"), "{warned:?}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("closed");
    let quiet = farm.command(["--key-file", "open.key", "ls"]).run();
    assert!(quiet.code == Some(0) && quiet.stderr.is_empty(), "{quiet:?}");
}

#[test]
fn nobody_sees_a_key_in_the_list_of_processes_or_in_a_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let trace = [("DARKROOM_OPEN", ""), ("DARKROOM_LOG", "trace")];
    let farm = Farm::start_with(path, Renderer::Fake, &trace);
    let key = fs::read_to_string(own_key(path)).expect("a key").trim().to_owned();
    let login = farm.command(["login"]).input(key.as_bytes()).run();
    assert_eq!(login.code, Some(0), "{login:?}");
    let ways: [(&[&str], &str, &str); 3] = [
        (&["watch"], "DARKROOM_KEY", &key),
        (&["--key-file", "state/farm.key", "watch"], "DARKROOM_LOG", "trace"),
        (&["watch"], "DARKROOM_LOG", "trace"),
    ];
    for (arguments, name, value) in ways {
        let command = farm.command(arguments.iter().copied()).env("DARKROOM_LOG", "trace");
        let watch = command.env(name, value).start();
        let flags = format!("/proc/{}/cmdline", watch.pid());
        // It has none for a moment while its program starts.
        let line = (0..500).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            let line = String::from_utf8(fs::read(&flags).expect("it runs")).expect("text");
            Some(line).filter(|line| line.contains("watch"))
        });
        let line = line.expect("its flags");
        assert!(!line.contains(secret(&key)), "{line}");
        // Long enough for a connection and an answer, also where much else runs.
        std::thread::sleep(std::time::Duration::from_secs(3));
        watch.signal(nix::sys::signal::Signal::SIGTERM);
        let ended = watch.wait();
        assert!(ended.stderr.contains("h2") || ended.stderr.contains("TRACE"), "{ended:?}");
        silent(&ended, &key);
    }
    assert!(farm.log().contains("TRACE"), "{}", farm.log());
    assert!(!farm.log().contains(secret(&key)), "the farm's log has its key");
    let stored = fs::read_to_string(path.join("config/darkroom/keys.json")).expect("stored");
    assert!(stored.contains(secret(&key)), "the test looks for the right text");
}

#[test]
fn a_member_with_a_wrong_key_is_told_at_once() {
    let redis = Redis::start();
    let settings = Settings::small(&redis);
    let (port, first) = (free_port(), settings.folder.path().join("first.key"));
    let mut command = settings.coordinator(port);
    command.env_remove("DARKROOM_OPEN").arg("--first-key-file").arg(&first);
    let mut coordinator = Process::spawn(command, &settings.folder.path().join("coordinator.log"));
    assert!(coordinator.comes_to("serving", || health(port, "").is_some()));
    let farm = format!("127.0.0.1:{port}");
    for (name, program) in [("worker", "darkroom-worker"), ("encoder", "darkroom-encoder")] {
        for (key, says) in [(None, "asks for a key"), (Some(NOBODYS), "from DARKROOM_KEY")] {
            let mut command = settings.member_of(program, &farm);
            if name == "worker" {
                command.args(["--stage", "base"]);
            }
            if let Some(key) = key {
                command.env("DARKROOM_KEY", key);
            }
            let ended = command.output().expect("it runs");
            let text = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.code(), Some(3), "{text}");
            assert!(text.contains("error: ") && text.contains(says), "{text}");
            assert!(!text.contains(secret(NOBODYS)), "{text}");
        }
    }
    let elsewhere = settings.member_of("darkroom-encoder", "192.0.2.1:7878");
    let mut elsewhere = elsewhere;
    let ended = elsewhere.env("DARKROOM_KEY_FILE", &first).output().expect("it runs");
    let text = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(2) && text.contains("write https://"), "{text}");
}
