//! TLS between real processes: a farm that serves a certificate, members that join it, clients that
//! trust it or do not, and files that are replaced while it runs.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use darkroom_test_servers::{
    certificates::{Authority, Certificate, Validity},
    process::{Process, free_port},
    redis::Redis,
};
use darkroom_tests::{
    command::{Darkroom, Ended},
    eventually,
    farm::{Farm, Renderer},
    processes::{Coordinator, Settings, program},
};

/// Names of this machine.
const HERE: &str = "DNS:localhost,IP:127.0.0.1";

/// Writes a certificate and its key as `NAME.pem` and `NAME.key`, the key for its owner alone.
fn write(folder: &Path, name: &str, certificate: &Certificate) {
    let key = folder.join(format!("{name}.key"));
    // Beside and renamed, so that nobody reads half a file.
    let put = |path: &Path, text: &str| {
        let beside = path.with_extension("new");
        fs::write(&beside, text).expect("written");
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).expect("made private");
        fs::rename(&beside, path).expect("renamed");
    };
    put(&folder.join(format!("{name}.pem")), &certificate.certificate);
    put(&key, &certificate.key);
}

/// `darkroom` to a farm, trusting this authority.
fn trusting(folder: &Path, authority: &Authority, farm: &str) -> Darkroom {
    Darkroom::new(folder).env("DARKROOM_CA", authority.file()).args(["--farm", farm])
}

fn ended(command: &mut Command) -> Ended {
    let output = command.output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

const SERVED: [(&str, &str); 2] =
    [("DARKROOM_TLS_CERT", "server.pem"), ("DARKROOM_TLS_KEY", "server.key")];

#[test]
fn a_farm_over_tls_renders_and_takes_a_new_certificate_while_it_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let (authority, next) = (Authority::new(), Authority::new());
    write(folder.path(), "server", &authority.sign(HERE, Validity::Now));
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &SERVED);
    let address = farm.address.clone();
    assert!(address.starts_with("https://127.0.0.1:"), "{address}");
    let rendered =
        trusting(folder.path(), &authority, &address).args(["render", "a red circle"]).run();
    assert_eq!(rendered.paths(folder.path()).len(), 1, "{rendered:?}");
    // The farm of the state folder is found with its scheme.
    let found = Darkroom::new(folder.path())
        .env("DARKROOM_STATE", "state")
        .env("DARKROOM_CA", authority.file())
        .args(["--json", "ls"])
        .run();
    assert_eq!(found.json_lines().len(), 1, "{found:?}");

    let refused = Darkroom::new(folder.path()).args(["--farm", &address, "ls"]).run();
    refused.refused(3, &[&address, "signed by an authority", "--ca"]);
    let plainly = address.trim_start_matches("https://");
    let refused = Darkroom::new(folder.path()).args(["--farm", plainly, "ls"]).run();
    refused.refused(3, &["speaks TLS", "https://"]);
    assert!(farm.log().contains("expires soon"), "two days are left: {}", farm.log());

    // An unusable certificate is reported once, and changes nothing.
    fs::write(folder.path().join("server.pem"), "no certificate").expect("written");
    let tells = || farm.log().matches("cannot be used").count();
    eventually("the farm says so", || (tells() == 1).then_some(()));
    assert!(farm.log().contains("which has no certificate"), "{}", farm.log());
    let listed = trusting(folder.path(), &authority, &address).args(["--json", "ls"]).run();
    assert_eq!(listed.json_lines().len(), 1);

    write(folder.path(), "server", &next.sign(HERE, Validity::Now));
    eventually("the new certificate is served", || {
        (trusting(folder.path(), &next, &address).args(["ls"]).run().code == Some(0)).then_some(())
    });
    trusting(folder.path(), &authority, &address).args(["ls"]).run().refused(3, &["authority"]);
    assert_eq!(tells(), 1, "{}", farm.log());
    assert_eq!(farm.stop(), Some(0));
}

#[test]
fn plain_text_beyond_loopback_must_be_asked_for_and_is_warned_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = Darkroom::new(folder.path()).args(["up", "--listen", ":0"]).run();
    refused.refused(2, &["listen is :0", "--tls-cert", "--plaintext", "127.0.0.1"]);
    let refused = ended(
        Command::new(program("darkroom-coordinator"))
            .args(["--listen", "0.0.0.0:0", "--redis", "redis://127.0.0.1:1", "--cascade", "x"])
            .args(["--database", "sqlite:x", "--artifacts", "x"])
            .current_dir(folder.path()),
    );
    refused.refused(2, &["listen is 0.0.0.0:0", "--tls-cert", "--plaintext"]);
    let plainly = [("DARKROOM_PLAINTEXT", "1")];
    let farm = Farm::start_at(folder.path(), Renderer::Fake, &plainly, ":0");
    assert!(farm.log().contains("served in plain text"), "{}", farm.log());
    assert_eq!(farm.stop(), Some(0));
}

#[test]
fn a_key_that_everybody_may_read_is_warned_of_and_a_wrong_one_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    write(folder.path(), "server", &authority.sign(HERE, Validity::Now));
    let key = folder.path().join("server.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("opened");
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &SERVED);
    assert!(farm.log().contains("chmod 600") && farm.log().contains("0644"), "{}", farm.log());
    assert_eq!(farm.stop(), Some(0));
    fs::write(&key, authority.sign(HERE, Validity::Now).key).expect("written");
    let up = || Darkroom::new(folder.path()).args(["up", "--listen", "127.0.0.1:0"]);
    let refused = SERVED.iter().fold(up(), |up, (name, value)| up.env(name, value)).run();
    refused.refused(2, &["tls-key is server.key", "is not the key of tls-cert server.pem"]);
}

#[test]
fn members_join_over_tls_with_certificates_and_a_stranger_is_told() {
    let redis = Redis::start();
    let settings = Settings::small(&redis);
    let folder = settings.folder.path();
    let (authority, clients) = (Authority::new(), Authority::new());
    write(folder, "server", &authority.sign(HERE, Validity::Now));
    write(folder, "member", &clients.sign_client("/CN=worker-1", Validity::Now));
    let client_ca = clients.file().display().to_string();
    let tls =
        ["--tls-cert", "server.pem", "--tls-key", "server.key", "--tls-client-ca", &client_ca];
    let coordinator = Coordinator::start_with(&settings, &tls);
    let farm = format!("https://localhost:{}", coordinator.port);
    let member = |name: &str, ca: &Authority, pair: [&str; 2]| {
        let mut command = settings.member_of(name, &farm);
        command.arg("--ca").arg(ca.file()).args([
            "--client-cert",
            pair[0],
            "--client-key",
            pair[1],
        ]);
        command
    };
    let good = ["member.pem", "member.key"];
    let start = |name: &str| {
        let log = folder.join(format!("{name}-{}.log", free_port()));
        Process::spawn(member(name, &authority, good), &log)
    };
    let _members = ["darkroom-encoder", "darkroom-worker"].map(start);
    let job = trusting(folder, &authority, &farm)
        .args(["--json", "submit", "a red circle", "-n", "2"])
        .run()
        .json();
    let id = job["job"]["id"].as_str().expect("an id").to_owned();
    let watched = trusting(folder, &authority, &farm).args(["watch", &id]).run();
    assert_eq!(watched.code, Some(0), "{watched:?}");

    let stranger = ended(&mut member("darkroom-worker", &clients, good));
    stranger.refused(3, &[&farm, "signed by an authority", "--ca"]);
    write(folder, "wrong", &authority.sign_client("/CN=worker-1", Validity::Now));
    let wrong = ["wrong.pem", "wrong.key"];
    let unknown = ended(&mut member("darkroom-worker", &authority, wrong));
    unknown.refused(3, &[&farm, "does not accept the client certificate", "authority"]);
    let mixed = ended(&mut member("darkroom-encoder", &authority, ["member.pem", "wrong.key"]));
    mixed.refused(2, &["client-key is wrong.key", "is not the key of client-cert member.pem"]);
}

/// What `openssl` says of the certificate that is served on this port: whether it is of this
/// authority and for this machine, and which protocol is spoken.
fn served_on(port: u16, authority: &Authority) -> Ended {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-alpn", "h2"]);
    openssl.args(["-verify_return_error", "-verify_ip", "127.0.0.1", "-CAfile"]);
    ended(openssl.arg(authority.file()).stdin(Stdio::null()))
}

/// The line that each change leaves in the log.
fn audit_lines(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("audit.action=")).collect()
}

#[test]
fn members_of_a_farm_with_keys_join_by_certificate_and_may_do_nothing_else() {
    let redis = Redis::start();
    let settings = Settings::small(&redis);
    let folder = settings.folder.path();
    let (authority, clients) = (Authority::new(), Authority::new());
    write(folder, "server", &authority.sign(HERE, Validity::Now));
    for name in ["worker-1", "encoder-1", "stranger"] {
        write(folder, name, &clients.sign_client(&format!("/CN={name}"), Validity::Now));
    }
    let port = free_port();
    let farm = format!("https://localhost:{port}");
    let mut command = settings.coordinator(port);
    command.env_remove("DARKROOM_OPEN").args(["--first-key-file", "first.key"]);
    command.args(["--tls-cert", "server.pem", "--tls-key", "server.key", "--tls-client-ca"]);
    command.arg(clients.file());
    let mut coordinator = Process::spawn(command, &folder.join("coordinator.log"));
    let by = |who: &[&str], arguments: &[&str]| {
        trusting(folder, &authority, &farm).args(who).args(arguments).run()
    };
    let admin = |arguments: &[&str]| by(&["--key-file", "first.key"], arguments);
    let studio = |arguments: &[&str]| by(&["--key-file", "studio.key"], arguments);
    let serves =
        || folder.join("first.key").exists() && admin(&["--json", "cascades"]).code == Some(0);
    assert!(coordinator.comes_to("serving", serves), "{}", coordinator.log_text());
    for name in ["worker-1", "encoder-1"] {
        let subject = format!("CN={name}");
        let made = admin(&["key", "create", "--scope", "member", "--certificate", &subject]);
        assert_eq!(made.code, Some(0), "{made:?}");
    }
    let create = ["key", "create", "--tenant", "studio", "--scope", "submit", "--out"];
    let made = admin(&[&create[..], &["studio.key"]].concat());
    assert_eq!(made.code, Some(0), "{made:?}");

    let member = |program: &str, name: &str| {
        let mut command = settings.member_of(program, &farm);
        command.arg("--ca").arg(authority.file());
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        command.args(["--client-cert", &certificate, "--client-key", &key]);
        command
    };
    let members = [("darkroom-encoder", "encoder-1"), ("darkroom-worker", "worker-1")];
    let members = members.map(|(program, name)| {
        let (mut command, port) = (member(program, name), free_port());
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        command.args(["--tls-cert", "server.pem", "--tls-key", "server.key"]);
        (port, Process::spawn(command, &folder.join(format!("{name}.log"))))
    });
    let submitted = studio(&["--json", "submit", "a red circle", "-n", "2"]).json();
    let id = submitted["job"]["id"].as_str().expect("an id").to_owned();
    let watched = studio(&["watch", &id]);
    let logs = || members.each_ref().map(|(_, process)| process.log_text());
    assert_eq!(watched.code, Some(0), "{watched:?} {:?}", logs());

    // The ports of the members speak TLS too.
    for (port, process) in &members {
        eventually("the member's certificate is served", || {
            (served_on(*port, &authority).code == Some(0)).then_some(())
        });
        let served = served_on(*port, &authority);
        assert!(served.stdout.contains("ALPN protocol: h2"), "{served:?}");
        let other = served_on(*port, &clients);
        assert_ne!(other.code, Some(0), "{other:?} {}", process.log_text());
    }

    // The certificate of a member is good for nothing else, and another one for nothing at all.
    let as_member = ["--client-cert", "worker-1.pem", "--client-key", "worker-1.key"];
    for (scope, call) in [
        ("read", &["ls"][..]),
        ("operate", &["workers"]),
        ("admin", &["key", "list"]),
        ("admin", &["audit"]),
    ] {
        by(&as_member, call).refused(3, &[&format!("needs scope {scope}")]);
    }
    let as_stranger = ["--client-cert", "stranger.pem", "--client-key", "stranger.key"];
    by(&as_stranger, &["ls"]).refused(3, &["key"]);
    ended(&mut member("darkroom-worker", "stranger")).refused(3, &["key"]);

    // The audit says from where, and the log has a line for each of its rows.
    let rows = admin(&["--json", "audit"]).json_lines();
    let of = |action: &'static str| rows.iter().filter(move |row| row["action"] == action);
    let called: Vec<_> = of("key.create").chain(of("job.submit")).collect();
    assert_eq!(of("job.submit").count(), 1, "{rows:?}");
    assert_eq!(called.iter().filter(|row| row["peer"] == "127.0.0.1").count(), 4, "{rows:?}");
    let log = coordinator.log_text();
    assert_eq!(audit_lines(&log).len(), rows.len(), "{rows:?} {log}");
    for row in &rows {
        let text = |name: &str| row[name].as_str().expect("a text").to_owned();
        let (action, target) = (text("action"), text("target"));
        let is_its = |line: &&&str| {
            line.contains(&format!("audit.action=\"{action}\""))
                && line.contains(&format!("audit.target={target}"))
        };
        assert_eq!(audit_lines(&log).iter().filter(is_its).count(), 1, "{row} {log}");
    }
}

#[test]
fn the_authority_of_the_documentation_works() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tls.md");
    let page = fs::read_to_string(page).expect("the page");
    let (_, rest) = page.split_once("```bash\n").expect("the lines");
    let (lines, _) = rest.split_once("```").expect("their end");
    assert_eq!(lines.lines().count(), 5, "the page promises five lines");
    let mut bash = Command::new("bash");
    let made = bash.args(["-euc", lines]).current_dir(folder.path()).output().expect("bash runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let settings = [
        ("DARKROOM_TLS_CERT", "farm.pem"),
        ("DARKROOM_TLS_KEY", "farm.key"),
        ("DARKROOM_TLS_CLIENT_CA", "ca.pem"),
    ];
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &settings);
    for by in [&[][..], &["--client-cert", "worker.pem", "--client-key", "worker.key"]] {
        let listed = Darkroom::new(folder.path())
            .args(["--farm", &farm.address, "--ca", "ca.pem"])
            .args(by.iter().copied())
            .args(["--json", "cascades"])
            .run();
        assert_eq!(listed.code, Some(0), "{listed:?}");
    }
    assert!(!farm.log().contains("chmod"), "the keys are private: {}", farm.log());
    assert_eq!(farm.stop(), Some(0));
}
