//! Renews a member's keys long before they end. While no coordinator answers, the member goes on
//! with the keys that it has.

use std::time::Duration;

use darkroom_core::backoff::varied;
use darkroom_queue::signing::Signer;
use tokio::time::sleep;
use uuid::Uuid;

use crate::facts::{Door, parse};

/// Shortest time between two renewals, whatever a coordinator says.
const SHORTEST: Duration = Duration::from_secs(1);
/// Time between two attempts while nobody answers.
const AGAIN: Duration = Duration::from_secs(60);

/// Asks for new keys after each `renew`, for ever.
pub(crate) async fn keep_renewing(door: Door, signer: Signer, mut renew: Duration) {
    loop {
        // So that members that started together do not ask together.
        sleep(varied(renew.max(SHORTEST), Uuid::new_v4().as_u128())).await;
        let answer = door.knock().await.map_err(|status| status.message().to_owned());
        let facts =
            answer.and_then(|answer| parse(door.worker(), answer).map_err(|error| error.message));
        match facts {
            Ok(facts) => {
                signer.renew(facts.credentials);
                renew = facts.renew;
                tracing::debug!("new keys");
            }
            Err(reason) => {
                tracing::warn!(reason, "no new keys yet; the present ones still count");
                renew = renew.min(AGAIN);
            }
        }
    }
}
