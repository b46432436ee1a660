//! `darkroom login` and `darkroom logout`: the key for a farm, stored for the user.

use std::io::{self, IsTerminal as _, Read as _};

use console::Term;
use darkroom_core::{
    error::{Code, UserError},
    key::Key,
};
use darkroom_runtime::{
    credential::{Credential, Credentials, Logins, Source},
    peer::Addresses,
    terminal::shown_path,
};
use serde_json::json;

use crate::{
    args::Place,
    client::Client,
    failure::{self, Result},
    output,
};

/// Most bytes of standard input that are read for a key.
const MOST: u64 = 4 << 10;

/// Stores a key once the farm has accepted it.
pub(crate) async fn login(place: &Place, as_json: bool) -> Result<()> {
    let addresses = named(place)?;
    let logins = logins()?;
    // Refused before the key is asked for.
    addresses.secure(&place.tls)?;
    let asked = addresses.clone();
    let key = tokio::task::spawn_blocking(move || read(&asked)).await;
    let key = key.map_err(failure::internal)??;
    let credential = Credential { key, source: Source::Login };
    for address in addresses.as_slice() {
        place.key.allow(address, &credential)?;
    }
    let keys = Credentials::own(&addresses, &credential).telling(|end| output::warn(&end.sentence));
    match Client::new(&addresses, &place.tls, &keys)?.farm().await {
        Ok(_) => {}
        // The farm knows the key, but the key does not allow this call.
        Err(refusal) if refusal.reason == "SCOPE" => {}
        Err(refusal) => return Err(refusal),
    }
    logins.store(&addresses, &credential.key)?;
    let (id, path) = (credential.key.id().to_string(), logins.path());
    if as_json {
        let document = json!({"farm": addresses.to_string(), "key": id});
        return output::json(&output::with_path(document, "path", &path));
    }
    output::line(&format!("the key {id} for {addresses} is stored in {}", shown_path(&path)))
}

/// Forgets the key that was stored for a farm.
pub(crate) fn logout(place: &Place, as_json: bool) -> Result<()> {
    let addresses = named(place)?;
    let removed = logins()?.remove(&addresses)?;
    if as_json {
        let removed: Vec<_> = removed.iter().map(ToString::to_string).collect();
        return output::json(&json!({"removed": removed}));
    }
    if removed.is_empty() {
        return output::line(&format!("no key was stored for {addresses}"));
    }
    for address in removed {
        output::line(&format!(
            "the key for {address} is no longer stored; the farm accepts it until it is revoked"
        ))?;
    }
    Ok(())
}

fn named(place: &Place) -> Result<Addresses> {
    match &place.farm {
        Some(farm) => Addresses::parse(farm),
        None => Err(UserError::invalid(
            "farm",
            "farm is not given; accepted: --farm host:port or https://host:port (the farm on --state needs no login)",
        )),
    }
}

fn logins() -> Result<Logins> {
    Logins::of_user().ok_or_else(|| {
        UserError::new(
            Code::FailedPrecondition,
            "NO_HOME",
            "there is no folder to store the key in; set HOME or XDG_CONFIG_HOME, or keep the key in a file for --key-file",
        )
    })
}

/// The key from the terminal, without showing it, or from standard input.
fn read(addresses: &Addresses) -> Result<Key> {
    let unreadable = |error: io::Error| failure::file("stdin", "read", "-".as_ref(), &error);
    let text = if io::stdin().is_terminal() {
        // It reads nothing where it cannot write.
        let terminal = if io::stderr().is_terminal() { Term::stderr() } else { Term::stdout() };
        terminal.write_str(&format!("Key for {addresses}: ")).map_err(unreadable)?;
        terminal.read_secure_line().map_err(unreadable)?
    } else {
        let mut text = String::new();
        io::stdin().lock().take(MOST).read_to_string(&mut text).map_err(unreadable)?;
        text
    };
    let given = text.trim();
    given.parse().map_err(|_| {
        let is = if given.is_empty() { "no key was given" } else { "what was given is no key" };
        let message = format!("{is}; accepted: dk_ID_SECRET, as `darkroom key create` prints it");
        UserError::invalid("key", message)
    })
}
