//! Checks prompts on separate threads, because preparing thousands of texts takes a while and must
//! not delay other calls.

use darkroom_proto::v1;

use super::{Farm, inputs::Inputs, refused, validate::Draft};
use crate::{error::Error, store::records::NewPrompt};

impl Farm {
    /// Runs [`Draft::add`] on a separate thread. The number of running ones is limited; others
    /// wait. It ends early if the coordinator stops or the caller is gone.
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
