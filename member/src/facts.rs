//! What a coordinator tells those who join.

use std::time::Duration;

use darkroom_core::{
    digest::Digest,
    error::{self, UserError},
};
use darkroom_proto::v1::{GetFarmRequest, GetFarmResponse, farm_client::FarmClient};
use darkroom_runtime::peer::{Addresses, Peers, Trouble};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, codec::CompressionEncoding};
use uuid::Uuid;

/// Longest time one question may take.
const CALL: Duration = Duration::from_secs(10);
/// Longest pause between two questions.
const MOST_PAUSE: Duration = Duration::from_secs(5);

/// A farm, as a coordinator tells it.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) farm: Uuid,
    pub(crate) lease: Duration,
    /// Name and digest; the first is the default.
    pub(crate) cascades: Vec<(String, Digest)>,
}

/// Asks until a coordinator answers: a worker may well be started before it. `None` when `stop` came first.
///
/// What does not pass by itself ends it: a value that is no address, a proxy that does not let the call through, a server
/// that is no coordinator.
pub(crate) async fn ask(address: &str, stop: &CancellationToken) -> Result<Option<Facts>, UserError> {
    let peers = Peers::connect(&Addresses::parse(address)?)?;
    let mut client = FarmClient::new(peers)
        .accept_compressed(CompressionEncoding::Zstd)
        .accept_compressed(CompressionEncoding::Gzip);
    let mut pause = Duration::from_millis(100);
    let mut told = String::new();
    loop {
        let asked = tokio::time::timeout(CALL, client.get_farm(GetFarmRequest {}));
        let status = match stop.run_until_cancelled(asked).await {
            None => return Ok(None),
            Some(Ok(Ok(answer))) => return parse(answer.into_inner()).map(Some),
            Some(Ok(Err(status))) => status,
            Some(Err(_)) => Status::deadline_exceeded(format!("no answer within {} s", CALL.as_secs())),
        };
        if let Some(error) = lasting(address, &status) {
            return Err(error);
        }
        if told != status.message() {
            status.message().clone_into(&mut told);
            tracing::warn!(address, reason = told, "no coordinator answers; asking again until one does");
        }
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Ok(None);
        }
        pause = (pause * 2).min(MOST_PAUSE);
    }
}

/// What will be the same the next time.
fn lasting(address: &str, status: &Status) -> Option<UserError> {
    if let Some(trouble) = Trouble::of(status) {
        return (!trouble.passes()).then(|| trouble.to_user());
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
        let message =
            format!("the coordinator (version {}) tells no {what}; run equal versions", answer.version);
        UserError::new(error::Code::FailedPrecondition, "OTHER_VERSION", message)
    };
    let farm = answer.farm_id.parse().map_err(|_| wrong("farm id"))?;
    let lease = Duration::try_from_secs_f64(answer.lease_seconds).map_err(|_| wrong("lease time"))?;
    let cascades = answer.cascades.iter().map(|cascade| {
        let digest = cascade.digest.parse().map_err(|_| wrong("cascade digest"))?;
        Ok((cascade.name.clone(), digest))
    });
    let cascades = cascades.collect::<Result<_, UserError>>()?;
    Ok(Facts { farm, lease, cascades })
}
