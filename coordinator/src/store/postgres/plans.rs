//! Facts about a job that never change and that every commit needs: its row's number, its settings,
//! its prompts' own settings, and the pools of its stages. They are cached, so that a commit need
//! not read them under the job's lock.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use darkroom_core::{
    guard::{Guard, stands},
    id::JobId,
    settings::Settings,
};
use darkroom_queue::task::PoolId;
use uuid::Uuid;

use super::{
    Error, Tx,
    rows::{digest, from_json, stage_name},
};
use crate::store::{
    row::row,
    variants::{self, Known},
};

/// Most cached settings, of jobs and prompts together. The cache is emptied when it is full.
const MOST: usize = 4096;

/// Facts about a job that never change.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) seq: i64,
    pub(super) id: JobId,
    settings: Settings,
    /// Settings of prompts, by the number of their variant.
    variants: Known,
    /// The pools that its images pass, in order.
    pools: Vec<PoolId>,
}

impl Plan {
    /// The settings of images: the job's, or those of a variant.
    pub(super) fn settings(&self, variant: Option<i32>) -> Result<&Settings, Error> {
        match variant {
            None => Ok(&self.settings),
            Some(variant) => Ok(variants::of(&self.variants, variant.into())?),
        }
    }

    /// The number of its cached settings.
    fn weight(&self) -> usize {
        1 + self.variants.len()
    }

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

/// The cache.
#[derive(Debug, Default)]
pub(super) struct KnownPlans(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    plans: HashMap<Uuid, Arc<Plan>>,
    weight: usize,
}

row! {
    struct PlanRow {
        seq: i64,
        id: Uuid,
        settings: String,
        names: Vec<String>,
        pools: Vec<Vec<u8>>,
        /// More of its prompts are to come, perhaps with other settings.
        receiving: bool,
        variants: Vec<i64>,
        variant_settings: Vec<String>,
    }
}

impl KnownPlans {
    /// The plans of jobs by id; those that are not there are left out.
    pub(super) async fn by_id(&self, tx: &mut Tx, ids: &[Uuid]) -> Result<Plans, Error> {
        let (mut plans, mut unknown) = (Plans::new(), Vec::new());
        {
            let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for id in ids {
                match known.plans.get(id) {
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
                           ORDER BY s.stage) AS pools,
                    j.state = 'receiving' AS receiving,
                    ARRAY (SELECT v.variant::bigint FROM job_variants AS v WHERE v.job = j.seq
                           ORDER BY v.variant) AS variants,
                    ARRAY (SELECT v.settings FROM job_variants AS v WHERE v.job = j.seq
                           ORDER BY v.variant) AS variant_settings
             FROM jobs AS j WHERE j.id = ANY ($1)",
        )
        .bind(ids)
        .fetch_all(&mut **tx)
        .await?;
        let mut plans = Plans::new();
        let mut complete = Vec::with_capacity(rows.len());
        for row in rows {
            let receiving = row.receiving;
            let plan = Arc::new(plan(row)?);
            plans.insert(plan.seq, Arc::clone(&plan));
            if !receiving || !stands(Guard::PlanWhole) {
                complete.push(plan);
            }
        }
        let weight: usize = complete.iter().map(|plan| plan.weight()).sum();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.weight + weight > MOST {
            *known = Remembered::default();
        }
        known.weight += weight;
        known.plans.extend(complete.into_iter().map(|plan| (plan.id.0, plan)));
        Ok(plans)
    }
}

fn plan(row: PlanRow) -> Result<Plan, Error> {
    let pools = row.names.into_iter().zip(&row.pools).map(|(name, pool)| {
        let stage = stage_name(name)?;
        Ok(PoolId { stage, digest: digest(pool)? })
    });
    let of_prompts = row.variants.into_iter().zip(row.variant_settings).collect();
    Ok(Plan {
        seq: row.seq,
        id: JobId(row.id),
        settings: from_json(&row.settings)?,
        variants: variants::known(of_prompts)?,
        pools: pools.collect::<Result<_, Error>>()?,
    })
}
