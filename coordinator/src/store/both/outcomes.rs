//! Applying results and losses.

use std::collections::{BTreeMap, HashMap, HashSet};

use async_trait::async_trait;
use darkroom_core::id::ImageId;
use darkroom_queue::task::{PoolId, TaskKey};

use super::{
    super::outcomes::settle_images, Error, Record, Tx, attempts, removal, retried,
    texts::settle_texts, worker_health,
};
use crate::store::{
    cause::{Bulk, Cause, Settled},
    judged_images::{self, JudgedImage, Judgement},
    missing::Missing,
    records::{Committed, Dispatched, Onward, Release, Report, Term},
    roles::Outcomes,
    spent::Spent,
};

#[async_trait]
impl Outcomes for Record {
    async fn commit(&self, pool: &PoolId, reports: &[Report]) -> Result<Committed, Error> {
        Ok(self.commit_onward(pool, reports, &[]).await?.0)
    }

    async fn commit_onward(
        &self,
        pool: &PoolId,
        reports: &[Report],
        onward: &[Onward],
    ) -> Result<(Committed, Vec<(PoolId, Dispatched)>), Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            if let Some(Onward { term, .. }) = onward.first() {
                self.check_term(&mut tx, *term).await?;
            }
            let leaving = removal::leaving_among(&mut tx, reports).await?;
            let causes: Vec<_> =
                reports.iter().map(|report| Cause::believed(report, &leaving)).collect();
            let bulk = Bulk { pool, causes: &causes, onward };
            let mut outcomes = self.settle(&mut tx, bulk).await?;
            tx.commit().await?;
            let dispatched = std::mem::take(&mut outcomes.dispatched);
            Ok((outcomes.into(), dispatched))
        })
        .await
    }

    async fn leaving_under(&self, prefixes: &[String]) -> Result<HashMap<String, u64>, Error> {
        removal::leaving_under(self, prefixes).await
    }

    async fn release(
        &self,
        term: Term,
        pool: &PoolId,
        tasks: &[TaskKey],
        why: &Release,
    ) -> Result<Committed, Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            self.check_term(&mut tx, term).await?;
            let spared = match why {
                Release::HostDied(_) => worker_health::spare(&mut tx, pool, tasks).await?,
                _ => HashSet::new(),
            };
            let causes: Vec<_> =
                tasks.iter().map(|key| Cause::released(*key, why, &spared)).collect();
            let bulk = Bulk { pool, causes: &causes, onward: &[] };
            let outcomes = self.settle(&mut tx, bulk).await?;
            tx.commit().await?;
            Ok(outcomes.into())
        })
        .await
    }
}

impl Record {
    /// Applies what happened to tasks of a pool.
    async fn settle(&self, tx: &mut Tx, bulk: Bulk<'_>) -> Result<Settled, Error> {
        if bulk.pool.stage.is_encode() {
            settle_texts(self, tx, bulk).await
        } else {
            settle_images(self, tx, bulk).await
        }
    }
}

/// Judges causes, and writes the worker health and the attempts that follow from them. Also returns
/// the sums over the results of each job.
pub(in super::super) async fn judge<'a>(
    tx: &mut Tx,
    images: &mut HashMap<ImageId, JudgedImage<'a>>,
    causes: &[Cause<'a>],
    missing: &mut Missing,
) -> Result<(Judgement<'a>, BTreeMap<i64, Spent>), Error> {
    let judgement = judged_images::judge(images, causes, missing);
    let seq = |id: &ImageId| images.get(id).map(|image| image.row.0);
    let spent = Spent::by_job(causes, &judgement.fates, seq);
    worker_health::write(tx, &judgement.worker_health).await?;
    attempts::write(tx, &judgement.attempts).await?;
    Ok((judgement, spent))
}
