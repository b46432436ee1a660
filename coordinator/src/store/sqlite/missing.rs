//! Produces inputs again that a worker did not find.

use std::collections::BTreeMap;

use darkroom_core::text_state::TextEvent;

use super::{Error, Tx, both::missing::forget_outputs, rows::Prompts, texts};
use crate::store::missing::Missing;

/// Deletes outputs and marks texts as wanted, so that the missing inputs are produced again.
pub(super) async fn forget(tx: &mut Tx, missing: &Missing, prompts: &Prompts) -> Result<(), Error> {
    forget_outputs(tx, missing.stale()).await?;
    texts::change(tx, &missing.lost(), &TextEvent::Lost).await?;
    let mut waiting: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (job, prompt) in missing.waiting().filter_map(|image| prompts.get(image)) {
        waiting.entry(*job).or_default().push(*prompt);
    }
    for (job, prompts) in waiting {
        texts::want_again(tx, job, &prompts).await?;
    }
    Ok(())
}
