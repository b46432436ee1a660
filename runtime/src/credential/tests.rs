//! Where keys come from, and where they go.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use http::HeaderMap;
use tonic::body::Body;
use tower::{BoxError, ServiceExt as _, service_fn, util::BoxCloneSyncService};

use super::*;
use crate::peer::Peers;

const SECRET: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

fn key(id: &str) -> Key {
    format!("dk_{id:0>12}_{SECRET}").parse().expect("a key")
}

fn at(text: &str) -> Addresses {
    Addresses::parse(text).expect("addresses")
}

/// A file with a key that its owner alone can read.
fn file_with(folder: &Path, id: &str) -> PathBuf {
    let path = folder.join(format!("{id}.key"));
    fs::write(&path, format!("{}\n", key(id).expose())).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("closed");
    path
}

/// The ids of the keys for these addresses.
fn ids(credentials: &Credentials, addresses: &Addresses) -> Vec<Option<String>> {
    let id = |used: &Credential| used.key.id().to_string().trim_start_matches('0').to_owned();
    addresses.as_slice().iter().map(|address| credentials.of(address).map(id)).collect()
}

#[test]
fn a_key_comes_from_the_first_place_that_has_one() {
    let folder = tempfile::tempdir().expect("folder");
    let logins = Logins::in_folder(folder.path());
    let farm = at("https://farm:1");
    logins.store(&farm, &key("login")).expect("stored");
    let state = folder.path().join("state");
    fs::create_dir(&state).expect("made");
    StateKey::of(&state).write(&key("state")).expect("written");
    let file = file_with(folder.path(), "file");
    let variable = Given(Some(key("variable").expose().into()));
    for (key_file, given, found, expected) in [
        (Some(file), variable.clone(), Found::State(&state), Some("file")),
        (None, variable.clone(), Found::State(&state), Some("variable")),
        (None, variable, Found::Named, Some("variable")),
        (None, Given::default(), Found::State(&state), Some("state")),
        (None, Given::default(), Found::State(folder.path()), Some("login")),
        (None, Given::default(), Found::Named, Some("login")),
    ] {
        let settings = KeySettings { key_file, given, key_in_plaintext: false };
        let opened = settings.open_with(&farm, found, Some(&logins)).expect("opened");
        assert_eq!(ids(&opened, &farm), [expected.map(str::to_owned)], "{settings:?}");
    }
    let none = KeySettings::default().open_with(&at("farm:1"), Found::Named, Some(&logins));
    assert_eq!(ids(&none.expect("opened"), &at("farm:1")), [None], "https://farm:1 is another");
}

#[test]
fn each_address_gets_the_key_that_was_stored_for_it() {
    let folder = tempfile::tempdir().expect("folder");
    let logins = Logins::in_folder(folder.path());
    logins.store(&at("https://one:1,127.0.0.1:2"), &key("first")).expect("stored");
    logins.store(&at("https://two:1"), &key("second")).expect("stored");
    let all = at("https://one:1,https://two:1,https://three:1,127.0.0.1:2");
    let opened = |logins: &Logins| {
        let opened = KeySettings::default().open_with(&all, Found::Named, Some(logins));
        ids(&opened.expect("opened"), &all)
    };
    let some = |id: &str| Some(id.to_owned());
    assert_eq!(opened(&logins), [some("first"), some("second"), None, some("first")]);
    let removed = logins.remove(&at("https://one:1,https://three:1")).expect("removed");
    assert_eq!(removed, at("https://one:1").as_slice());
    assert_eq!(opened(&logins), [None, some("second"), None, some("first")]);
    assert_eq!(logins.remove(&at("https://one:1")).expect("looked at"), []);
}

#[test]
fn a_key_is_sent_over_tls_or_to_this_machine_and_elsewhere_only_when_asked() {
    let given = Given(Some(key("x").expose().into()));
    let settings = |key_in_plaintext| KeySettings {
        given: given.clone(),
        key_in_plaintext,
        ..KeySettings::default()
    };
    for safe in ["https://farm:1", "127.0.0.1:1", "[::1]:1", "localhost:1", "[::ffff:127.0.0.1]:1"]
    {
        settings(false).open_with(&at(safe), Found::Named, None).expect(safe);
    }
    for unsafe_one in ["farm:1", "10.0.0.1:1", "https://farm:1,10.0.0.1:2", "http://farm:1"] {
        let refused = settings(false).open_with(&at(unsafe_one), Found::Named, None);
        let refused = refused.expect_err(unsafe_one);
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::InvalidArgument, "KEY_IN_PLAINTEXT")
        );
        assert!(refused.message.contains("write https://"), "{refused}");
        assert!(!refused.message.contains(SECRET), "{refused}");
        settings(true).open_with(&at(unsafe_one), Found::Named, None).expect("asked for");
    }
    // A stored key is no exception, and the farm of a state folder is on this machine.
    let folder = tempfile::tempdir().expect("folder");
    let logins = Logins::in_folder(folder.path());
    logins.store(&at("farm:1"), &key("x")).expect("stored");
    let none = KeySettings::default();
    none.open_with(&at("farm:1"), Found::Named, Some(&logins)).expect_err("plain text");
    StateKey::of(folder.path()).write(&key("state")).expect("written");
    none.open_with(&at("127.0.0.1:1"), Found::State(folder.path()), None).expect("here");
    none.open_with(&at("192.0.2.1:1"), Found::State(folder.path()), None).expect_err("elsewhere");
}

#[test]
fn what_is_no_key_is_refused_and_not_repeated() {
    let folder = tempfile::tempdir().expect("folder");
    let almost = format!("dk_000000000000_{}", &SECRET[1..]);
    let whole = key("x").expose();
    for wrong in [
        almost.as_str(),
        "dk_0",
        "secret",
        &format!("{whole}{whole}"),
        &format!("{whole}\n{whole}"),
    ] {
        let given = KeySettings { given: Given(Some(wrong.into())), ..KeySettings::default() };
        let refused = given.open_with(&at("localhost:1"), Found::Named, None).expect_err(wrong);
        assert!(refused.message.contains("DARKROOM_KEY has a value that is no key"), "{refused}");
        assert!(!refused.message.contains(wrong), "{refused}");

        let path = folder.path().join("key");
        fs::write(&path, wrong).expect("written");
        let named = KeySettings { key_file: Some(path), ..KeySettings::default() };
        let refused = named.open_with(&at("localhost:1"), Found::Named, None).expect_err(wrong);
        assert!(
            refused.message.contains("does not hold a key; accepted: dk_ID_SECRET"),
            "{refused}"
        );
        assert!(!refused.message.contains(wrong), "{refused}");
        assert_eq!(refused.field.as_deref(), Some("key-file"));
    }
    for (path, says) in [
        (folder.path().to_owned(), "it is a folder"),
        ("/dev/zero".into(), "it is a device"),
        (folder.path().join("absent"), "cannot be read"),
    ] {
        let named = KeySettings { key_file: Some(path), ..KeySettings::default() };
        let refused = named.open_with(&at("localhost:1"), Found::Named, None).expect_err(says);
        assert!(refused.message.contains(says), "{refused}");
    }
    let path = folder.path().join("large");
    fs::write(&path, format!("{whole}{}", " ".repeat(5000))).expect("written");
    let (large, _) = (file::read(&path).expect_err("too large"), ());
    assert!(large.message.contains("at most 4096 bytes"), "{large}");
}

#[test]
fn a_file_that_everybody_can_read_is_warned_of() {
    let folder = tempfile::tempdir().expect("folder");
    let path = file_with(folder.path(), "x");
    let settings = KeySettings { key_file: Some(path.clone()), ..KeySettings::default() };
    let warning = || {
        let opened = settings.open_with(&at("localhost:1"), Found::Named, None).expect("opened");
        opened.warning().map(str::to_owned)
    };
    assert_eq!(warning(), None);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("opened");
    let warned = warning().expect("a warning");
    assert!(
        warned.contains("(mode 0644); run `chmod 600`") && !warned.contains(SECRET),
        "{warned}"
    );
}

#[test]
fn stored_keys_are_their_owners_alone_and_links_are_not_followed() {
    let mode =
        |path: &Path| fs::symlink_metadata(path).expect("there").permissions().mode() & 0o777;
    let folder = tempfile::tempdir().expect("folder");
    let logins = Logins::in_folder(&folder.path().join("new"));
    logins.store(&at("farm:1"), &key("x")).expect("stored");
    let inside = folder.path().join("new/darkroom");
    assert_eq!((mode(&inside), mode(&logins.path())), (0o700, 0o600));
    assert_eq!(fs::read_dir(&inside).expect("read").count(), 1, "no draft stays");

    // A folder that was open is closed.
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o755)).expect("opened");
    logins.store(&at("farm:2"), &key("x")).expect("stored");
    assert_eq!(mode(&inside), 0o700);

    let outside = folder.path().join("outside");
    fs::rename(logins.path(), &outside).expect("moved");
    std::os::unix::fs::symlink(&outside, logins.path()).expect("a link");
    let before = fs::read(&outside).expect("there");
    for refused in [
        logins.find(&at("farm:1").as_slice()[0]).map(drop),
        logins.store(&at("farm:1"), &key("y")),
        logins.remove(&at("farm:1")).map(drop),
    ] {
        let refused = refused.expect_err("a link").message;
        assert!(refused.contains("is a link; put a file in its place"), "{refused}");
    }
    assert_eq!(fs::read(&outside).expect("there"), before);

    let elsewhere = Logins::in_folder(&folder.path().join("linked"));
    fs::create_dir(folder.path().join("linked")).expect("made");
    std::os::unix::fs::symlink(&inside, folder.path().join("linked/darkroom")).expect("a link");
    let refused = elsewhere.store(&at("farm:1"), &key("y")).expect_err("a link").message;
    assert!(refused.contains("is a link; put a folder in its place"), "{refused}");
}

#[test]
fn a_damaged_file_of_logins_is_refused_without_its_keys() {
    let folder = tempfile::tempdir().expect("folder");
    let logins = Logins::in_folder(folder.path());
    logins.store(&at("farm:1"), &key("x")).expect("stored");
    let whole = fs::read_to_string(logins.path()).expect("there");
    let find = || logins.find(&at("farm:1").as_slice()[0]);
    for (damaged, says) in [
        (whole[..whole.len() - 4].to_owned(), "is damaged in line"),
        (format!("{{\"farms\": \"{SECRET}\"}}"), "is damaged in line 1"),
        (whole.replace("dk_", "dk-"), "has something for farm:1 that is no key"),
        (" ".repeat(2 << 20), "is not a file of at most 1048576 bytes"),
    ] {
        fs::write(logins.path(), damaged).expect("written");
        let refused = find().expect_err(says).message;
        assert!(refused.contains(says) && !refused.contains(SECRET), "{refused}");
    }
    fs::remove_file(logins.path()).expect("removed");
    fs::create_dir(logins.path()).expect("a folder");
    find().expect_err("a folder");
}

#[test]
fn the_key_of_a_state_folder_is_its_owners_alone_and_no_link_is_followed() {
    let folder = tempfile::tempdir().expect("folder");
    let state = StateKey::of(folder.path());
    assert!(state.read().expect("looked at").is_none());
    for id in ["first", "second"] {
        state.write(&key(id)).expect("written");
        let read = state.read().expect("read").expect("there");
        assert_eq!(read.expose(), key(id).expose());
        let mode = fs::metadata(state.path()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    let outside = file_with(folder.path(), "outside");
    fs::remove_file(state.path()).expect("removed");
    std::os::unix::fs::symlink(&outside, state.path()).expect("a link");
    state.read().expect_err("a link");
    state.write(&key("third")).expect("written in place of the link");
    let kept = fs::read_to_string(&outside).expect("there");
    assert_eq!(kept.trim(), key("outside").expose());
    for wrong in ["", "text"] {
        fs::write(state.path(), wrong).expect("written");
        let refused = state.read().expect_err("no key").message;
        assert!(refused.contains("farm.key does not hold a key"), "{refused}");
    }
}

#[test]
fn nothing_shows_a_key() {
    let given = Given(Some(key("x").expose().into()));
    let settings = KeySettings { given, ..KeySettings::default() };
    let opened = settings.open_with(&at("localhost:1"), Found::Named, None).expect("opened");
    let header = opened.of(&at("localhost:1").as_slice()[0]).expect("a key").header();
    assert_eq!(header.as_bytes(), format!("Bearer {}", key("x").expose()).as_bytes());
    assert!(header.is_sensitive());
    for shown in [format!("{settings:?}"), format!("{opened:?}"), format!("{header:?}")] {
        assert!(!shown.contains(SECRET) && !shown.contains(&SECRET[..8]), "{shown}");
    }
}

#[test]
fn each_refusal_of_a_farm_says_what_to_do_next() {
    let farm = at("https://farm:1");
    let address = &farm.as_slice()[0];
    let with = |source| Credential { key: key("x"), source };
    let said = |reason: &str, used: Option<&Credential>| {
        advise(UserError::new(Code::Unauthenticated, reason, "no"), address, used).message
    };
    let login = "run `darkroom login --farm https://farm:1`";
    assert!(said("NO_KEY", None).contains(login));
    let bound = "no key of this farm belongs to the client certificate";
    let bound = UserError::new(Code::Unauthenticated, "NO_KEY", bound);
    let sentence = advise(bound, address, None).message;
    assert!(sentence.contains("--certificate SUBJECT") && sentence.contains(login), "{sentence}");
    let stored = with(Source::Login);
    for reason in ["UNKNOWN_KEY", "EXPIRED_KEY", "MALFORMED_KEY"] {
        let sentence = said(reason, Some(&stored));
        assert!(sentence.contains(login) && sentence.contains("00000000000x"), "{sentence}");
        assert!(!sentence.contains(SECRET), "{sentence}");
        assert!(said(reason, Some(&with(Source::Variable))).contains("set another key there"));
    }
    assert!(said("SCOPE", Some(&stored)).starts_with("no; the key is from `darkroom login`: ask "));
    assert_eq!(said("SOMETHING_ELSE", Some(&stored)), "no");
}

#[test]
fn the_end_of_a_key_is_warned_of_fourteen_days_before_and_louder_three_days_before() {
    let day = 24 * 3600;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 * day);
    let used = Credential { key: key("x"), source: Source::Login };
    let ending = |seconds: u64| {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(&seconds.to_string()).expect("digits");
        headers.insert("darkroom-key-expires", value);
        Ending::of(&headers, now, &used).map(|ending| (ending.urgent, ending.sentence))
    };
    assert_eq!(ending(1_014 * day + 1), None);
    let (urgent, sentence) = ending(1_014 * day).expect("soon");
    assert!(!urgent && sentence.contains("ends in 14 days; `darkroom key rotate"), "{sentence}");
    assert!(!ending(1_003 * day + 1).expect("soon").0);
    let (urgent, sentence) = ending(1_003 * day).expect("soon");
    assert!(urgent && sentence.contains("ends in 3 days, and then"), "{sentence}");
    assert!(ending(1_000 * day + 5).expect("soon").1.contains("in less than a day"));
    assert!(ending(999 * day).expect("over").0);
    assert_eq!(ending(u64::MAX), None);
}

#[tokio::test]
async fn every_call_shows_the_key_for_its_address_and_its_end_is_told_once() {
    static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let folder = tempfile::tempdir().expect("folder");
    let logins = Logins::in_folder(folder.path());
    logins.store(&at("localhost:1"), &key("one")).expect("stored");
    let all = at("localhost:1,localhost:2");
    let keys = KeySettings::default().open_with(&all, Found::Named, Some(&logins));
    let keys = keys.expect("opened").telling(|end| {
        TOLD.lock().expect("no panic before").push(end.sentence.clone());
    });
    let seen = Arc::new(Mutex::new(Vec::new()));
    let callers = all.as_slice().iter().map(|address| {
        let (seen, port) = (Arc::clone(&seen), address.port);
        let caller = service_fn(move |request: http::Request<Body>| {
            let shown = request.headers().get("authorization").cloned();
            seen.lock().expect("no panic before").push((port, shown));
            let answer = http::Response::builder()
                .header("content-type", "application/grpc")
                .header("darkroom-key-expires", "5")
                .header("grpc-status", "14");
            std::future::ready(Ok::<_, BoxError>(answer.body(Body::empty()).expect("an answer")))
        });
        (address.clone(), BoxCloneSyncService::new(caller))
    });
    let peers = Peers::over_with(callers.collect(), &keys);
    for _ in 0..4 {
        let request = http::Request::new(Body::empty());
        peers.clone().oneshot(request).await.expect("an answer");
    }
    let seen = seen.lock().expect("no panic before").clone();
    let expected = format!("Bearer {}", key("one").expose());
    assert_eq!(seen.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [1, 2, 1, 2]);
    for (port, shown) in seen {
        let text = shown.as_ref().map(|value| value.to_str().expect("ASCII"));
        assert_eq!(text, (port == 1).then_some(expected.as_str()));
        assert!(shown.is_none_or(|value| value.is_sensitive()));
    }
    let told = TOLD.lock().expect("no panic before");
    assert!(told.len() == 1 && told[0].contains("one"), "{told:?}");
}
