//! The custom ids of a submit so far, so that a duplicate is refused with the names of both
//! prompts.
//!
//! For a stored job, the record compares the chunks, so only one message is checked here. A
//! forecast is not stored, so it is checked here as a whole, by the ids' hashes.

use std::collections::HashMap;

use darkroom_core::{digest::Digest, error::UserError, label::Naming};

use crate::store::custom_id::{Holder, taken};

/// The custom ids and their prompts.
#[derive(Default)]
pub(super) struct CustomIds {
    holders: HashMap<[u8; 16], Holder>,
    /// Ids of earlier messages are checked too.
    pub(super) across: bool,
}

impl CustomIds {
    /// Begins another message.
    pub(super) fn begin(&mut self) {
        if !self.across {
            self.holders.clear();
        }
    }

    /// Adds the prompt at a position. Refuses a custom id that another prompt has.
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
