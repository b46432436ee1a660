//! Waiting work of the pools, their history, and the tenants' usage.

use std::time::Duration;

use async_trait::async_trait;

use crate::store::{
    error::Error,
    history::{Depth, HistoryQuery, HistoryRow, RecentWork, Sizes, UsageQuery, UsageRow},
    records::Term,
};

/// Waiting work of the pools, their history, and the tenants' usage.
#[async_trait]
pub trait History: Send + Sync + 'static {
    /// The record's clock, milliseconds since 1970.
    async fn clock_ms(&self) -> Result<i64, Error>;

    /// Waiting and running work of every pool that has some.
    async fn depths(&self) -> Result<Vec<Depth>, Error>;

    /// The work done since the beginning of the previous minute.
    async fn recent_work(&self) -> Result<RecentWork, Error>;

    /// Adds the sums of results to their minutes and their tenants' days, and records the pools'
    /// sizes in this minute's rows, if that was not done yet. Returns how long this minute still
    /// lasts. [`Error::NotLeading`] if the term has ended.
    async fn note_history(&self, term: Term, sizes: &[Sizes]) -> Result<Duration, Error>;

    /// The history of pools, ordered by pool and time. It includes results that were not added up
    /// yet.
    async fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryRow>, Error>;

    /// Deletes rows of pools older than `pools`, and days of tenants older than `days`.
    /// [`Error::NotLeading`] if the term has ended.
    async fn prune_history(&self, term: Term, pools: Duration, days: Duration)
    -> Result<(), Error>;

    /// Tenants' days, newest first, then by tenant. It includes results that were not added up yet.
    async fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageRow>, Error>;
}
