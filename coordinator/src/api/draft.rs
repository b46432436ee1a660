//! Checking prompts beside the calls: thousands of texts take a while to prepare, and nobody else's call waits for them.

use darkroom_proto::v1;

use super::{Farm, inputs::Inputs, refused, validate::Draft};
use crate::{service::Error, store::records::NewPrompt};

impl Farm {
    /// [`Draft::add`] on a thread of its own. Only so many are at work at a time; the others wait their turn. It ends early
    /// when the coordinator stops, or when the caller is gone.
    pub(super) async fn add_prompts(
        &self,
        mut draft: Draft,
        prompts: Vec<v1::Prompt>,
        inputs: Inputs,
    ) -> Result<(Draft, Vec<NewPrompt>), Error> {
        let turn = self.shared.preparing.clone().acquire_owned().await.map_err(Error::other)?;
        let stop = self.shared.stop.child_token();
        let unless_gone = stop.clone().drop_guard();
        let added = tokio::task::spawn_blocking(move || {
            let added = draft.add(prompts, &inputs, &stop);
            drop(turn);
            added.map(|prompts| (draft, prompts))
        });
        let added = added.await.map_err(Error::other)?;
        drop(unless_gone);
        added.map_err(refused)
    }
}
