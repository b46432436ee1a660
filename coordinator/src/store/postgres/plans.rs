//! What never changes of a job and every commit needs: its row's number, its settings and the pools of its stages.
//! Remembered, so that a commit under the job's lock does not ask for it again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use darkroom_core::{
    id::{JobId, StageName},
    settings::Settings,
};
use darkroom_queue::task::PoolId;
use uuid::Uuid;

use super::{
    Error, Tx,
    rows::{digest, from_json},
};

/// Jobs remembered at most; then all are forgotten.
const MOST: usize = 4096;

/// What never changes of a job.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) seq: i64,
    pub(super) id: JobId,
    pub(super) settings: Settings,
    /// The pools that its images pass, in order.
    pools: Vec<PoolId>,
}

impl Plan {
    /// The pool of a stage.
    pub(super) fn pool(&self, stage: usize) -> Option<&PoolId> {
        self.pools.get(stage)
    }

    /// Which of its stages a pool runs.
    pub(super) fn stage(&self, pool: &PoolId) -> Option<usize> {
        self.pools.iter().position(|of| of == pool)
    }
}

/// The plans of some jobs, by `seq`.
pub(super) type Plans = BTreeMap<i64, Arc<Plan>>;

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct KnownPlans(Mutex<HashMap<Uuid, Arc<Plan>>>);

#[derive(sqlx::FromRow)]
struct PlanRow {
    seq: i64,
    id: Uuid,
    settings: String,
    names: Vec<String>,
    pools: Vec<Vec<u8>>,
}

impl KnownPlans {
    /// The plans of jobs by id; those that are not there are left out.
    pub(super) async fn by_id(&self, tx: &mut Tx, ids: &[Uuid]) -> Result<Plans, Error> {
        let (mut plans, mut unknown) = (Plans::new(), Vec::new());
        {
            let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for id in ids {
                match known.get(id) {
                    Some(plan) => drop(plans.insert(plan.seq, Arc::clone(plan))),
                    None => unknown.push(*id),
                }
            }
        }
        if !unknown.is_empty() {
            plans.extend(self.read(tx, &unknown).await?);
        }
        Ok(plans)
    }

    async fn read(&self, tx: &mut Tx, ids: &[Uuid]) -> Result<Plans, Error> {
        let rows: Vec<PlanRow> = sqlx::query_as(
            "SELECT j.seq, j.id, j.settings,
                    ARRAY (SELECT s.name FROM job_stages AS s WHERE s.job = j.seq AND s.stage >= 0
                           ORDER BY s.stage) AS names,
                    ARRAY (SELECT s.pool FROM job_stages AS s WHERE s.job = j.seq AND s.stage >= 0
                           ORDER BY s.stage) AS pools
             FROM jobs AS j WHERE j.id = ANY ($1)",
        )
        .bind(ids)
        .fetch_all(&mut **tx)
        .await?;
        let plans: Vec<Arc<Plan>> =
            rows.into_iter().map(|row| plan(row).map(Arc::new)).collect::<Result<_, _>>()?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() + plans.len() > MOST {
            known.clear();
        }
        known.extend(plans.iter().map(|plan| (plan.id.0, Arc::clone(plan))));
        Ok(plans.into_iter().map(|plan| (plan.seq, plan)).collect())
    }
}

fn plan(row: PlanRow) -> Result<Plan, Error> {
    let pools = row.names.into_iter().zip(&row.pools).map(|(name, pool)| {
        let stage = StageName::try_from(name).map_err(|_| Error::Corrupt("stage name".to_owned()))?;
        Ok(PoolId { stage, digest: digest(pool)? })
    });
    Ok(Plan {
        seq: row.seq,
        id: JobId(row.id),
        settings: from_json(&row.settings)?,
        pools: pools.collect::<Result<_, Error>>()?,
    })
}
