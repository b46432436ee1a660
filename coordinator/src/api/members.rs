//! Members that join: what they must know of the farm, and the keys that they sign with.

use darkroom_core::{
    error::{Code, UserError},
    id::WorkerId,
};
use darkroom_farm_api::Caller;
use darkroom_proto::v1;
use darkroom_queue::{signing::Credentials, task::PoolId};

use super::{Farm, refused};
use crate::{error::Error, tasks::Cascades, trust::KEYS};

/// Longest id of a worker, bytes.
const LONGEST_ID: usize = 300;

impl Farm {
    pub(super) async fn member(
        &self,
        caller: &Caller,
        request: v1::JoinRequest,
    ) -> Result<v1::JoinResponse, Error> {
        let worker = worker(&request.worker_id).map_err(refused)?;
        if request.makes_up && !self.shared.options.makes_up {
            return Err(refused(made_up()));
        }
        let pools = wanted(&self.shared.cascades, &request).map_err(refused)?;
        let key = caller.key().unwrap_or_default();
        let Credentials { holder, pools } = self.shared.trust.credentials(worker, key, &pools);
        let keys = pools.into_iter().map(|(pool, keys)| v1::PoolKeys {
            stage: pool.stage.to_string(),
            digest: pool.digest.to_string(),
            results_key: keys.results.expose().to_vec(),
            tasks_key: keys.tasks.expose().to_vec(),
        });
        let cascades = self.shared.cascades.iter().map(|(digest, cascade)| v1::JoinedCascade {
            name: cascade.spec.name.clone(),
            digest: digest.to_string(),
        });
        tracing::info!(worker = %holder.worker, key = holder.key, "a member joined");
        Ok(v1::JoinResponse {
            farm_id: self.front.farm_id().await?.to_string(),
            lease_seconds: self.shared.lease().await?.as_secs_f64(),
            cascades: cascades.collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pools: keys.collect(),
            key_id: holder.key,
            expires_at: holder.expires,
            renew_seconds: (KEYS / 2).as_secs_f64(),
        })
    }
}

fn worker(id: &str) -> Result<WorkerId, UserError> {
    let fits = (1..=LONGEST_ID).contains(&id.len()) && !id.chars().any(char::is_control);
    if fits {
        return Ok(WorkerId(id.to_owned()));
    }
    let shown: String = id.chars().take(64).collect();
    let message = format!(
        "worker_id is {shown:?}; accepted: 1 to {LONGEST_ID} bytes without control characters"
    );
    Err(UserError::invalid("worker_id", message))
}

fn made_up() -> UserError {
    let message = "this member makes up what it stores, and the farm has real models; start it \
        without `--renderer fake`, or let it join a farm with fakes";
    UserError::new(Code::FailedPrecondition, "MAKES_UP", message)
}

/// The pools of the kind, cascades and stages that a member asks for.
fn wanted(cascades: &Cascades, request: &v1::JoinRequest) -> Result<Vec<PoolId>, UserError> {
    let encodes = match request.kind() {
        v1::MemberKind::Worker => false,
        v1::MemberKind::Encoder => true,
        v1::MemberKind::Unspecified => {
            let message = format!("kind is {}; accepted: worker, encoder", request.kind);
            return Err(UserError::invalid("kind", message));
        }
    };
    let mut digests = Vec::new();
    for name in &request.cascades {
        let (digest, cascade) =
            cascades.find(name).filter(|_| !name.is_empty()).ok_or_else(|| {
                let names = cascades.iter().map(|(_, cascade)| cascade.spec.name.as_str());
                let names = names.collect::<Vec<_>>().join(", ");
                UserError::invalid("cascade", format!("cascade is {name:?}; this farm has {names}"))
            })?;
        digests.extend([digest, cascade.encoder_digest()]);
    }
    let mut pools = cascades.pools();
    pools.retain(|pool| pool.stage.is_encode() == encodes);
    for stage in &request.stages {
        if !pools.iter().any(|pool| pool.stage.as_str() == stage) {
            let mut there: Vec<_> = pools.iter().map(|pool| pool.stage.as_str()).collect();
            there.sort_unstable();
            there.dedup();
            let message = format!("stage is {stage:?}; accepted: {}", there.join(", "));
            return Err(UserError::invalid("stages", message));
        }
    }
    pools.retain(|pool| {
        let named = request.stages.is_empty()
            || request.stages.iter().any(|stage| pool.stage.as_str() == stage);
        named && (digests.is_empty() || digests.contains(&pool.digest))
    });
    Ok(pools)
}
