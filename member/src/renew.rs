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

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
    };

    use darkroom_core::{
        digest::Digest,
        id::{StageName, WorkerId},
    };
    use darkroom_proto::v1::{
        JoinRequest, JoinResponse, PoolKeys,
        members_server::{Members, MembersServer},
    };
    use darkroom_queue::task::{Outcome, PoolId, Subject, TaskKey, TaskResult};
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;
    use tonic::{Request, Response, Status, transport::Server};

    use super::*;
    use crate::facts::{Computes, Joining, Kind, ask};

    /// Gives keys that end one second later with each join. Every second answer is an error.
    #[derive(Clone, Default)]
    struct Giving(Arc<AtomicU64>);

    #[tonic::async_trait]
    impl Members for Giving {
        async fn join(
            &self,
            request: Request<JoinRequest>,
        ) -> Result<Response<JoinResponse>, Status> {
            assert_eq!(request.into_inner().worker_id, "w-1", "the same worker every time");
            let count = self.0.fetch_add(1, Ordering::SeqCst);
            if count % 2 == 1 {
                return Err(Status::unavailable("away"));
            }
            let keys = PoolKeys {
                stage: "base".to_owned(),
                digest: Digest::of(b"cascade").to_string(),
                results_key: vec![7; 32],
                tasks_key: vec![8; 32],
            };
            Ok(Response::new(JoinResponse {
                farm_id: Uuid::nil().to_string(),
                lease_seconds: 10.0,
                pools: vec![keys],
                expires_at: 1000 + count,
                renew_seconds: 0.5,
                ..JoinResponse::default()
            }))
        }
    }

    fn signed_until(signer: &Signer) -> u64 {
        let stage = StageName::try_from("base".to_owned()).expect("a stage");
        let pool = PoolId { stage, digest: Digest::of(b"cascade") };
        let mut result = TaskResult {
            key: TaskKey { subject: Subject::Text(pool.digest), generation: 0, dispatch: 1 },
            worker: WorkerId("w-1".to_owned()),
            place: String::new(),
            device_class: String::new(),
            alone: true,
            seconds: 0.0,
            batch: 0,
            outcome: Outcome::Interrupted { reason: String::new() },
            warrant: None,
            signature: None,
        };
        signer.sign(&pool, &mut result);
        result.signature.expect("it has keys").expires
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keys_are_renewed_and_the_present_ones_are_used_until_then() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address: SocketAddr = socket.local_addr().expect("an address");
        drop(socket);
        let giving = Giving::default();
        tokio::spawn(
            Server::builder().add_service(MembersServer::new(giving.clone())).serve(address),
        );
        let joining = Joining {
            worker: WorkerId("w-1".to_owned()),
            kind: Kind::Worker,
            stages: Vec::new(),
            computes: Computes::Nothing,
        };
        let keys = darkroom_runtime::credential::Credentials::none();
        let door = Door::new(&address.to_string(), (None, &keys), &joining, &[]);
        let door = door.expect("an address");
        let facts = ask(&door, &CancellationToken::new()).await.expect("joins").expect("joins");
        let signer = Signer::new(facts.credentials);
        assert_eq!(signed_until(&signer), 1000);
        tokio::spawn(keep_renewing(door, signer.clone(), facts.renew));
        let (mut seen, begun) = (vec![1000], Instant::now());
        while seen.len() < 3 {
            assert!(begun.elapsed() < Duration::from_secs(60), "not in time: {seen:?}");
            let now = signed_until(&signer);
            if seen.last() != Some(&now) {
                seen.push(now);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(seen, [1000, 1002, 1004], "an error in between changes nothing");
    }
}
