//! What a coordinator tells members that join.

use std::time::Duration;

use darkroom_core::{
    backoff::Backoff,
    digest::Digest,
    error::{self, UserError},
    id::{StageName, WorkerId},
};
use darkroom_proto::{
    status::from_status,
    v1::{JoinRequest, JoinResponse, MemberKind, PoolKeys, members_client::MembersClient},
};
use darkroom_queue::{
    signing::{Credentials, Holder, Key, MemberKeys},
    task::PoolId,
};
use darkroom_runtime::{
    credential,
    peer::{Addresses, Peers, Trouble},
    tls::ClientTls,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, codec::CompressionEncoding};
use uuid::Uuid;

/// Most time for one call.
const CALL: Duration = Duration::from_secs(10);
/// Pauses between two calls.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// A farm, as a coordinator describes it.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) farm: Uuid,
    pub(crate) lease: Duration,
    /// Name and digest; the first is the default.
    pub(crate) cascades: Vec<(String, Digest)>,
    /// What the member signs with.
    pub(crate) credentials: Credentials,
    /// When to join again.
    pub(crate) renew: Duration,
}

/// Who joins.
#[derive(Clone, Debug)]
pub struct Joining {
    /// The worker; new for each process.
    pub worker: WorkerId,
    /// Whether it encodes texts or renders.
    pub kind: Kind,
    /// Only these stages; empty: all of its kind.
    pub stages: Vec<StageName>,
    /// What it computes with.
    pub computes: Computes,
}

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It renders stages.
    Worker,
    /// It encodes texts.
    Encoder,
}

/// What a member computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Computes {
    /// With the cascade's networks, so it needs their files.
    Networks,
    /// It makes up what it stores.
    Nothing,
}

/// The coordinators of a farm, and who joins.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    address: String,
    peers: Peers,
    client: MembersClient<Peers>,
    request: JoinRequest,
}

impl Door {
    pub(crate) fn new(
        address: &str,
        (tls, keys): (Option<ClientTls>, &credential::Credentials),
        joining: &Joining,
        cascades: &[String],
    ) -> Result<Self, UserError> {
        let peers = Peers::connect_with(&Addresses::parse(address)?, tls, keys)?;
        let client = MembersClient::new(peers.clone())
            .accept_compressed(CompressionEncoding::Zstd)
            .accept_compressed(CompressionEncoding::Gzip);
        let kind = match joining.kind {
            Kind::Worker => MemberKind::Worker,
            Kind::Encoder => MemberKind::Encoder,
        };
        let request = JoinRequest {
            worker_id: joining.worker.0.clone(),
            kind: kind.into(),
            cascades: cascades.to_vec(),
            stages: joining.stages.iter().map(ToString::to_string).collect(),
            makes_up: joining.computes == Computes::Nothing,
        };
        Ok(Self { address: address.to_owned(), peers, client, request })
    }

    /// Asks once.
    pub(crate) async fn knock(&self) -> Result<JoinResponse, Status> {
        let mut client = self.client.clone();
        match tokio::time::timeout(CALL, client.join(self.request.clone())).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => {
                Err(Status::deadline_exceeded(format!("no answer within {} s", CALL.as_secs())))
            }
        }
    }

    pub(crate) fn worker(&self) -> WorkerId {
        WorkerId(self.request.worker_id.clone())
    }
}

/// Asks until a coordinator answers, because a worker may be started before it. `None` if `stop`
/// came first.
///
/// A permanent problem ends it: a value that is not an address, a proxy that does not pass the
/// call, a server that is not a coordinator.
pub(crate) async fn ask(door: &Door, stop: &CancellationToken) -> Result<Option<Facts>, UserError> {
    let address = door.address.as_str();
    let mut backoff = PAUSES;
    let mut told = String::new();
    loop {
        let status = match stop.run_until_cancelled(door.knock()).await {
            None => return Ok(None),
            Some(Ok(answer)) => return parse(door.worker(), answer).map(Some),
            Some(Err(status)) => status,
        };
        if let Some(error) = lasting(address, &door.peers, &status) {
            return Err(error);
        }
        if told != status.message() {
            status.message().clone_into(&mut told);
            tracing::warn!(
                address,
                reason = told,
                "no coordinator answers; retrying until one does"
            );
        }
        if stop.run_until_cancelled(tokio::time::sleep(backoff.pause())).await.is_none() {
            return Ok(None);
        }
    }
}

/// Problems that a retry does not solve.
fn lasting(address: &str, peers: &Peers, status: &Status) -> Option<UserError> {
    if let Some(trouble) = Trouble::of(status) {
        return (!trouble.passes()).then(|| trouble.to_user());
    }
    let refusal = from_status(status);
    if matches!(refusal.code, error::Code::Unauthenticated | error::Code::PermissionDenied)
        && refusal.reason != "UNKNOWN"
    {
        return Some(peers.advise(refusal));
    }
    let message = match status.code() {
        Code::Unimplemented => format!(
            "the server at {address} speaks gRPC but is no coordinator of this version (perhaps a worker or an encoder); name \
             a coordinator with --farm, and run the same version everywhere"
        ),
        Code::InvalidArgument | Code::FailedPrecondition => return Some(from_status(status)),
        Code::Unauthenticated | Code::PermissionDenied => format!(
            "the proxy at {address} does not let the call pass to the farm ({}); allow /darkroom.v1.Members/ there, or name a \
             coordinator's own address with --farm",
            status.message()
        ),
        _ => return None,
    };
    Some(UserError::new(error::Code::FailedPrecondition, "NOT_A_FARM", message))
}

/// What a coordinator's answer says.
pub(crate) fn parse(worker: WorkerId, answer: JoinResponse) -> Result<Facts, UserError> {
    let wrong = |what: &str| {
        let message = format!(
            "the coordinator (version {}) does not send its {what}; run the same version everywhere",
            answer.version
        );
        UserError::new(error::Code::FailedPrecondition, "OTHER_VERSION", message)
    };
    let farm = answer.farm_id.parse().map_err(|_| wrong("farm id"))?;
    let lease =
        Duration::try_from_secs_f64(answer.lease_seconds).map_err(|_| wrong("lease time"))?;
    let cascades = answer.cascades.iter().map(|cascade| {
        let digest = cascade.digest.parse().map_err(|_| wrong("cascade digest"))?;
        Ok((cascade.name.clone(), digest))
    });
    let cascades = cascades.collect::<Result<_, UserError>>()?;
    let renew =
        Duration::try_from_secs_f64(answer.renew_seconds).map_err(|_| wrong("time to renew"))?;
    let keys = answer.pools.iter().map(|keys| pool_keys(keys).ok_or_else(|| wrong("keys")));
    let pools = keys.collect::<Result<_, UserError>>()?;
    let holder = Holder { worker, key: answer.key_id.clone(), expires: answer.expires_at };
    Ok(Facts { farm, lease, cascades, credentials: Credentials { holder, pools }, renew })
}

fn pool_keys(keys: &PoolKeys) -> Option<(PoolId, MemberKeys)> {
    let stage = StageName::try_from(keys.stage.clone()).ok()?;
    let pool = PoolId { stage, digest: keys.digest.parse().ok()? };
    let (results, tasks) = (Key::from_bytes(&keys.results_key)?, Key::from_bytes(&keys.tasks_key)?);
    Some((pool, MemberKeys { results, tasks }))
}
