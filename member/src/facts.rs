//! What a coordinator tells members that join.

use std::time::Duration;

use darkroom_core::{
    backoff::Backoff,
    digest::Digest,
    error::{self, UserError},
};
use darkroom_proto::{
    status::from_status,
    v1::{GetFarmRequest, GetFarmResponse, farm_client::FarmClient},
};
use darkroom_runtime::{
    credential::Credentials,
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
}

/// Asks until a coordinator answers, because a worker may be started before it. `None` if `stop`
/// came first.
///
/// A permanent problem ends it: a value that is not an address, a proxy that does not pass the
/// call, a server that is not a coordinator.
pub(crate) async fn ask(
    address: &str,
    tls: Option<ClientTls>,
    keys: &Credentials,
    stop: &CancellationToken,
) -> Result<Option<Facts>, UserError> {
    let peers = Peers::connect_with(&Addresses::parse(address)?, tls, keys)?;
    let mut client = FarmClient::new(peers.clone())
        .accept_compressed(CompressionEncoding::Zstd)
        .accept_compressed(CompressionEncoding::Gzip);
    let mut backoff = PAUSES;
    let mut told = String::new();
    loop {
        let asked = tokio::time::timeout(CALL, client.get_farm(GetFarmRequest {}));
        let status = match stop.run_until_cancelled(asked).await {
            None => return Ok(None),
            Some(Ok(Ok(answer))) => return parse(answer.into_inner()).map(Some),
            Some(Ok(Err(status))) => status,
            Some(Err(_)) => {
                Status::deadline_exceeded(format!("no answer within {} s", CALL.as_secs()))
            }
        };
        if let Some(error) = lasting(address, &peers, &status) {
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
            "the server at {address} speaks gRPC but is no coordinator (perhaps a worker or an encoder); name a coordinator \
             with --farm"
        ),
        Code::Unauthenticated | Code::PermissionDenied => format!(
            "the proxy at {address} does not let the call pass to the farm ({}); allow /darkroom.v1.Farm/ there, or name a \
             coordinator's own address with --farm",
            status.message()
        ),
        _ => return None,
    };
    Some(UserError::new(error::Code::FailedPrecondition, "NOT_A_FARM", message))
}

fn parse(answer: GetFarmResponse) -> Result<Facts, UserError> {
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
    Ok(Facts { farm, lease, cascades })
}
