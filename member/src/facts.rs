//! What a coordinator tells those who join.

use std::time::Duration;

use darkroom_core::{
    digest::Digest,
    error::{Code, UserError},
};
use darkroom_proto::v1::{GetFarmRequest, GetFarmResponse, farm_client::FarmClient};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
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
pub(crate) async fn ask(address: &str, stop: &CancellationToken) -> Result<Option<Facts>, UserError> {
    let endpoint = endpoint(address)?;
    let mut pause = Duration::from_millis(100);
    let mut told = false;
    loop {
        let asked = async {
            let mut client = FarmClient::new(endpoint.connect().await.map_err(|error| error.to_string())?);
            let answer = client.get_farm(GetFarmRequest {}).await;
            answer.map_err(|status| status.message().to_owned()).map(tonic::Response::into_inner)
        };
        match stop.run_until_cancelled(asked).await {
            None => return Ok(None),
            Some(Ok(answer)) => return parse(answer).map(Some),
            Some(Err(reason)) if !told => {
                tracing::warn!(address, reason, "no coordinator answers; asking again until one does");
                told = true;
            }
            Some(Err(_)) => {}
        }
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Ok(None);
        }
        pause = (pause * 2).min(MOST_PAUSE);
    }
}

fn endpoint(address: &str) -> Result<Endpoint, UserError> {
    let uri = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(uri).map_err(|_| {
        UserError::invalid("farm", format!("farm is {address:?}; accepted: host:port of a coordinator"))
    })?;
    Ok(endpoint.connect_timeout(CALL).timeout(CALL))
}

fn parse(answer: GetFarmResponse) -> Result<Facts, UserError> {
    let wrong = |what: &str| {
        let message =
            format!("the coordinator (version {}) tells no {what}; run equal versions", answer.version);
        UserError::new(Code::FailedPrecondition, "OTHER_VERSION", message)
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
