//! Which farm a command uses: the one that is named, or the one that runs on this machine's state
//! folder.

use std::path::Path;

use darkroom_core::error::{Code, UserError};
use darkroom_runtime::{credential::Found, peer::Addresses, state_dir, terminal::shown_path};

use crate::{args::Place, client::Client, failure::Result, output};

/// The farm for a command. If there is none, the error says how to start one.
pub(crate) fn find(place: &Place) -> Result<Client> {
    running(place)?.ok_or_else(|| none(&place.state))
}

/// The farm for a command, if one is named or runs.
pub(crate) fn running(place: &Place) -> Result<Option<Client>> {
    if let Some(address) = &place.farm {
        return connect(address, place, Found::Named).map(Some);
    }
    let running = state_dir::running(&place.state).map_err(|error| {
        let mut failure =
            UserError::new(Code::FailedPrecondition, "STATE_FOREIGN", error.to_string());
        failure.field = Some("state".to_owned());
        failure
    })?;
    match running {
        Some(farm) => match farm.address {
            Some(address) => connect(&address, place, Found::State(&place.state)).map(Some),
            None => Err(UserError::new(
                Code::Unavailable,
                "FARM_STARTING",
                format!(
                    "the farm of process {} on {} is starting; run the command again in a moment",
                    farm.pid,
                    shown_path(&place.state)
                ),
            )),
        },
        None => Ok(None),
    }
}

fn connect(address: &str, place: &Place, found: Found<'_>) -> Result<Client> {
    let addresses = Addresses::parse(address)?;
    let keys = place.key.open(&addresses, found)?.telling(|end| output::warn(&end.sentence));
    if let Some(warning) = keys.warning() {
        output::warn(warning);
    }
    Client::new(&addresses, &place.tls, &keys)
}

pub(crate) fn none(state: &Path) -> UserError {
    UserError::new(
        Code::Unavailable,
        "NO_FARM",
        format!(
            "no farm runs on the state folder {}; start one with `darkroom up`, or name one with --farm",
            shown_path(state)
        ),
    )
}
