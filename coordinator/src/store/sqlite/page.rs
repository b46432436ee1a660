//! Indexes of a job's images in some states.

use sqlx::{QueryBuilder, Sqlite};

use super::{
    Error,
    both::page::{Images, StateWalk},
};

impl Images<'_> {
    /// Merges one index scan per state and stage. So it reads little more than it returns, even if
    /// there are many other images in between.
    pub(super) async fn by_state(&mut self, walk: &StateWalk<'_>) -> Result<Vec<i64>, Error> {
        let StateWalk { states, from, limit } = *walk;
        let stages: i64 =
            sqlx::query_scalar("SELECT count(*) FROM job_stages WHERE job = ?1 AND stage >= 0")
                .bind(self.seq)
                .fetch_one(&mut *self.tx)
                .await?;
        let mut walks: QueryBuilder<Sqlite> = QueryBuilder::new("");
        for (place, (state, stage)) in
            states.iter().flat_map(|state| (0..stages).map(move |stage| (state, stage))).enumerate()
        {
            walks.push(if place == 0 { "" } else { " UNION ALL " });
            walks.push("SELECT idx FROM images WHERE job = ").push_bind(self.seq);
            walks.push(" AND state = ").push_bind(state.name());
            walks.push(" AND stage = ").push_bind(stage);
            walks.push(" AND idx >= ").push_bind(from);
        }
        walks.push(" ORDER BY idx LIMIT ").push_bind(limit);
        Ok(walks.build_query_scalar().fetch_all(&mut *self.tx).await?)
    }
}
