//! The custom ids of a submit so far, so that one given twice is refused with both prompts named.
//!
//! What is stored is checked by the record, chunk against chunk; here one message is enough. What is not stored, a
//! forecast, is checked here as a whole, by the ids' hashes.

use std::collections::HashMap;

use darkroom_core::{digest::Digest, error::UserError, label::Naming};

use crate::store::custom_id::{Holder, taken};

/// Who has which custom id.
#[derive(Default)]
pub(super) struct CustomIds {
    holders: HashMap<[u8; 16], Holder>,
    /// Ids of earlier messages count too.
    pub(super) across: bool,
}

impl CustomIds {
    /// Another message begins.
    pub(super) fn begin(&mut self) {
        if !self.across {
            self.holders.clear();
        }
    }

    /// Adds the prompt at a position, if it has an id that no other one has.
    pub(super) fn add(&mut self, position: u64, naming: &Naming) -> Result<(), UserError> {
        let Some(id) = &naming.custom_id else { return Ok(()) };
        let mut hash = [0; 16];
        hash.copy_from_slice(&Digest::of(id.as_bytes()).0[..16]);
        let holder = Holder::of(position, naming);
        match self.holders.insert(hash, holder) {
            None => Ok(()),
            Some(other) => Err(taken(id, holder, other)),
        }
    }
}
