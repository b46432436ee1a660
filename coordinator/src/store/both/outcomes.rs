//! Applying results and losses.

use std::collections::HashSet;

use async_trait::async_trait;
use darkroom_queue::task::{PoolId, TaskKey};

use super::{Error, Record, retried, worker_health};
use crate::store::{
    cause::Cause,
    records::{Committed, Dispatched, Onward, Release, Report, Term},
    roles::Outcomes,
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
            let causes: Vec<_> = reports.iter().map(Cause::reported).collect();
            let mut tx = self.begin_write().await?;
            if let Some(Onward { term, .. }) = onward.first() {
                self.check_term(&mut tx, *term).await?;
            }
            let mut outcomes = self.settle(&mut tx, pool, &causes, onward).await?;
            tx.commit().await?;
            let dispatched = std::mem::take(&mut outcomes.dispatched);
            Ok((outcomes.into(), dispatched))
        })
        .await
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
            let outcomes = self.settle(&mut tx, pool, &causes, &[]).await?;
            tx.commit().await?;
            Ok(outcomes.into())
        })
        .await
    }
}
