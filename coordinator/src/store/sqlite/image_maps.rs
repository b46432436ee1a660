//! The states of all images of a job, read off an index alone.

use darkroom_core::{id::JobId, image_state::ImageState};
use sqlx::SqliteConnection;

use super::{
    Error,
    both::{
        deleted_jobs::not_found,
        image_maps::{ChangedRow, Changes},
    },
    rows::{column, number, parse, to_json},
};
use crate::store::image_map::{MapPart, MapRun};

/// Runs of images with the same state and stage in a range of indexes, in any order. Reads the
/// index `images_by_state` only, not the images' rows.
pub(super) const RUNS: &str =
    "SELECT state, stage, min(idx) AS first, count(*) AS count
     FROM (SELECT i.state, i.stage, i.idx,
                  i.idx - row_number() OVER (PARTITION BY i.state, i.stage ORDER BY i.idx) AS island
           FROM json_each(?4) AS s
           CROSS JOIN job_stages AS g ON g.job = ?1 AND g.stage >= 0
           CROSS JOIN images AS i INDEXED BY images_by_state
               ON i.job = ?1 AND i.state = s.value AND i.stage = g.stage AND i.idx >= ?2 AND i.idx < ?3)
     GROUP BY state, stage, island";

/// Runs of a part of a job's images, in any order.
pub(super) async fn part(
    tx: &mut SqliteConnection,
    job: JobId,
    (first, end): (u64, u64),
) -> Result<(MapPart, Vec<MapRun>), Error> {
    let (seq, part) = read_job(&mut *tx, job).await?;
    let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(RUNS)
        .bind(seq)
        .bind(column(first))
        .bind(column(end))
        .bind(to_json(&ImageState::ALL.map(ImageState::name))?)
        .fetch_all(&mut *tx)
        .await?;
    let run = |(state, stage, first, count): (String, i64, i64, i64)| {
        let (state, stage) = (parse(&state)?, number(stage)?);
        Ok(MapRun { first: number(first)?, count: number(count)?, state, stage })
    };
    Ok((part, rows.into_iter().map(run).collect::<Result<_, Error>>()?))
}

/// Images that changed after a version; `None` if they are more than `most`.
pub(super) async fn changes(
    tx: &mut SqliteConnection,
    job: JobId,
    (after, most): (u64, u32),
) -> Result<Changes, Error> {
    let (seq, part) = read_job(&mut *tx, job).await?;
    let rows: Vec<ChangedRow> = sqlx::query_as(
        "SELECT idx, state, stage FROM images WHERE job = ?1 AND version > ?2
         ORDER BY version, idx LIMIT ?3",
    )
    .bind(seq)
    .bind(column(after))
    .bind(i64::from(most) + 1)
    .fetch_all(&mut *tx)
    .await?;
    Ok(Some((part, rows)).filter(|(_, rows)| rows.len() <= most as usize))
}

/// A job's `seq`, and its map without runs.
async fn read_job(tx: &mut SqliteConnection, job: JobId) -> Result<(i64, MapPart), Error> {
    let found: Option<(i64, i64, i64)> = sqlx::query_as(
        "SELECT seq, version, images FROM jobs WHERE id = ?1 AND state <> 'receiving' AND deleted_ms IS NULL",
    )
    .bind(job.to_string())
    .fetch_optional(&mut *tx)
    .await?;
    let Some((seq, version, images)) = found else { return Err(not_found(tx, job).await) };
    let (version, images) = (number(version)?, number(images)?);
    Ok((seq, MapPart { version, images, runs: Vec::new() }))
}

#[cfg(test)]
mod tests {
    use sqlx::Row as _;

    use super::{super::SqliteStore, *};

    #[tokio::test]
    async fn a_map_is_read_off_the_index_without_the_images_rows() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SqliteStore::open(&folder.path().join("farm.sqlite")).await.expect("opens");
        let explain = format!("EXPLAIN QUERY PLAN {RUNS}");
        let plan: Vec<String> = sqlx::query(sqlx::AssertSqlSafe(explain))
            .bind(1)
            .bind(0)
            .bind(65_536)
            .bind("[]")
            .fetch_all(&store.readers)
            .await
            .expect("a plan")
            .iter()
            .map(|row| row.get("detail"))
            .collect();
        let images: Vec<_> = plan.iter().filter(|line| line.contains(" i ")).collect();
        let expected = "SEARCH i USING COVERING INDEX images_by_state \
                        (job=? AND state=? AND stage=? AND idx>? AND idx<?)";
        assert_eq!(images, [expected], "{plan:#?}");
    }
}
