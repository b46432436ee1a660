//! The custom ids of a submit so far, so that a duplicate is refused with the names of both
//! prompts.
//!
//! For a stored job, the record compares the chunks, so only one message is checked here. A
//! forecast is not stored, so its first 262,144 ids are remembered here, by their hashes. The
//! submit finds a duplicate that a forecast misses.

use std::collections::HashMap;

use darkroom_core::{digest::Digest, error::UserError, label::Naming};

use crate::store::custom_id::{Holder, taken};

/// Most ids that are remembered of earlier messages: 17 MiB.
const MOST: usize = 1 << 18;

/// The custom ids and their prompts.
#[derive(Default)]
pub(super) struct CustomIds {
    holders: HashMap<[u8; 16], Holder>,
    /// Ids of earlier messages are checked too.
    pub(super) across: bool,
}

impl CustomIds {
    /// How many are remembered.
    pub(super) fn kept(&self) -> usize {
        self.holders.len()
    }

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
        if let Some(other) = self.holders.get(&hash) {
            return Err(taken(id, holder, *other));
        }
        if self.holders.len() < MOST {
            self.holders.insert(hash, holder);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_without_end_take_bounded_memory() {
        let mut ids = CustomIds { across: true, ..CustomIds::default() };
        let named =
            |number: usize| Naming { custom_id: Some(number.to_string()), ..Naming::default() };
        for number in 0..MOST + 10 {
            ids.begin();
            ids.add(number as u64, &named(number)).expect("each has its own");
        }
        assert_eq!(ids.kept(), MOST);
        ids.add(0, &named(MOST - 1)).expect_err("the last one that is remembered");
        ids.add(0, &named(MOST + 1)).expect("beyond what is remembered");
    }
}
