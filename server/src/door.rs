//! Who is let in: whoever has a key, or everybody.

use std::path::PathBuf;

use clap::{Args, builder::BoolishValueParser};
use darkroom_coordinator::{
    Error,
    store::{Store, keys::KeyQuery},
};
use darkroom_core::error::{Code, UserError};

use crate::first_key;

/// Whether callers need keys. Flags of a coordinator.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct DoorSettings {
    /// Let everybody who reaches the port do everything, without keys: for one machine, and for
    /// networks where everybody may
    #[arg(long, env = "DARKROOM_OPEN", value_parser = BoolishValueParser::new(), help_heading = HEADING)]
    open: bool,
    /// Make the farm's first key, with scopes admin and operate, and write it to this new file,
    /// which only you can read. Nothing is made if the farm has an admin key already
    #[arg(long, env = "DARKROOM_FIRST_KEY_FILE", value_name = "FILE", help_heading = HEADING)]
    first_key_file: Option<PathBuf>,
}

/// The heading of the help for these flags.
const HEADING: &str = "Keys";

/// Who is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Everybody.
    Open,
    /// Whoever has a key.
    Kept,
}

impl DoorSettings {
    /// Refuses settings that contradict each other.
    pub(crate) fn check(&self) -> Result<(), UserError> {
        if self.open && self.first_key_file.is_some() {
            return Err(UserError::invalid(
                "open",
                "open and first-key-file are both set; accepted: one of them, because an open \
                 farm needs no keys",
            ));
        }
        Ok(())
    }

    /// Decides, and makes the first key if that is wanted. `beyond_loopback` says whether other
    /// machines can reach the port.
    ///
    /// # Errors
    /// One sentence, if nobody could be let in.
    pub(crate) async fn decide(
        &self,
        store: &dyn Store,
        beyond_loopback: bool,
    ) -> Result<Door, UserError> {
        self.check()?;
        if self.open {
            if beyond_loopback {
                tracing::warn!(
                    "this farm is open and other machines can reach it: anybody there can do \
                     everything; start it without --open to require keys"
                );
            }
            return Ok(Door::Open);
        }
        let ended = match &self.first_key_file {
            Some(file) => first_key::make(store, file).await?,
            None => None,
        };
        let live = KeyQuery { limit: 1, ..KeyQuery::default() };
        if store.list_keys(&live).await.map_err(told)?.is_empty() {
            return Err(ended.unwrap_or_else(|| {
                UserError::new(
                    Code::FailedPrecondition,
                    "NO_KEYS",
                    "the farm has no key, so nobody could call it; accepted: --first-key-file FILE, \
                     which makes the first key, or --open for a farm without keys",
                )
            }));
        }
        if let Some(ended) = ended {
            // Whoever has another key goes on working through a restart.
            tracing::error!("{ended}");
        } else if !store.has_admin_key().await.map_err(told)? {
            tracing::warn!(
                "no key of this farm has scope admin, so nobody can make or revoke keys; start a \
                 coordinator with --first-key-file FILE to get one"
            );
        }
        Ok(Door::Kept)
    }
}

fn told(error: impl Into<Error>) -> UserError {
    let error = error.into();
    error.log();
    error.to_user()
}
