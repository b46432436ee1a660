//! Rows of jobs that have ended: copies of one job that the store made itself, with objects, texts
//! and times of their own.

use std::path::PathBuf;

use futures::TryStreamExt as _;
use sqlx::{AssertSqlSafe, PgConnection, SqliteConnection};

use crate::Failure;

/// The tenant of the copies.
pub(crate) const TENANT: &str = "studio";
/// Ids of copied texts begin here, so that they meet no other's.
const TEXTS: i64 = 1_000_000;
/// One job in so many has an image whose outputs are those of others of the same day.
pub(crate) const REUSING: i64 = 10;

/// A connection to the record beside the farm's own.
pub(crate) enum Record {
    Sqlite(SqliteConnection, PathBuf),
    Postgres(PgConnection),
}

/// The names of objects, and what lies under them.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) intermediate: String,
    pub(crate) picture: String,
    pub(crate) embedding: String,
    pub(crate) manifest: String,
}

/// The job that is copied: its row's number, and the rows of the text that each copy has for
/// itself and of the one that it shares.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Template {
    job: i64,
    own: i64,
    shared: i64,
}

/// Jobs to make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    /// The number of the first one, counted from 1.
    pub(crate) first: i64,
    pub(crate) jobs: i64,
    pub(crate) day: i64,
    /// When they end: at this time and within so long after it, milliseconds.
    pub(crate) at_ms: i64,
    pub(crate) within_ms: i64,
}

impl Record {
    fn is_sqlite(&self) -> bool {
        matches!(self, Self::Sqlite(..))
    }

    async fn run(&mut self, statements: String) -> Result<(), Failure> {
        let statements = AssertSqlSafe(statements);
        match self {
            Self::Sqlite(connection, _) => {
                sqlx::raw_sql(statements).execute(connection).await?;
            }
            Self::Postgres(connection) => {
                sqlx::raw_sql(statements).execute(connection).await?;
            }
        }
        Ok(())
    }

    /// One column of all rows, as text.
    pub(crate) async fn column(&mut self, query: &str) -> Result<Vec<String>, Failure> {
        let query = AssertSqlSafe(query.to_owned());
        Ok(match self {
            Self::Sqlite(connection, _) => sqlx::query_scalar(query).fetch_all(connection).await?,
            Self::Postgres(connection) => sqlx::query_scalar(query).fetch_all(connection).await?,
        })
    }

    /// Looks at one column of all rows, as text.
    pub(crate) async fn each(
        &mut self,
        query: &str,
        mut look: impl FnMut(String),
    ) -> Result<(), Failure> {
        let query = AssertSqlSafe(query.to_owned());
        match self {
            Self::Sqlite(connection, _) => {
                let mut rows = sqlx::query_scalar(query).fetch(connection);
                while let Some(value) = rows.try_next().await? {
                    look(value);
                }
            }
            Self::Postgres(connection) => {
                let mut rows = sqlx::query_scalar(query).fetch(connection);
                while let Some(value) = rows.try_next().await? {
                    look(value);
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn number(&mut self, query: &str) -> Result<i64, Failure> {
        let query = AssertSqlSafe(query.to_owned());
        Ok(match self {
            Self::Sqlite(connection, _) => sqlx::query_scalar(query).fetch_one(connection).await?,
            Self::Postgres(connection) => sqlx::query_scalar(query).fetch_one(connection).await?,
        })
    }

    /// Bytes that the record takes on disk: its file, and that of SQLite's log.
    pub(crate) async fn bytes(&mut self) -> Result<(u64, u64), Failure> {
        if let Self::Sqlite(_, path) = self {
            let size = |path: PathBuf| std::fs::metadata(path).map_or(0, |file| file.len());
            return Ok((size(path.clone()), size(path.with_extension("sqlite-wal"))));
        }
        let bytes = self.number("SELECT pg_database_size(current_database())").await?;
        Ok((u64::try_from(bytes)?, 0))
    }

    /// Does what Postgres does by itself in the course of a day.
    pub(crate) async fn tidy(&mut self) -> Result<(), Failure> {
        if self.is_sqlite() { Ok(()) } else { self.run("VACUUM ANALYZE".to_owned()).await }
    }

    /// Rows of every table.
    pub(crate) async fn rows(&mut self) -> Result<Vec<(String, i64)>, Failure> {
        let tables = self.column(if self.is_sqlite() {
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name"
        } else {
            "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1"
        });
        let mut rows = Vec::new();
        for table in tables.await? {
            rows.push((
                table.clone(),
                self.number(&format!("SELECT count(*) FROM {table}")).await?,
            ));
        }
        Ok(rows)
    }

    /// Looks at a job of two prompts: the text of the first one is the job's own, that of the
    /// second is shared.
    pub(crate) async fn template(&mut self) -> Result<Template, Failure> {
        let temporary = if self.is_sqlite() { "INTEGER" } else { "BIGINT" };
        self.run(format!(
            "CREATE TEMP TABLE copies (seq {temporary} PRIMARY KEY, id TEXT, at_ms {temporary}, own {temporary},
                                       shared {temporary}, again {temporary})"
        ))
        .await?;
        let job = self.number("SELECT max(seq) FROM jobs").await?;
        let mut texts = Vec::new();
        for position in [0, 1] {
            let text = format!(
                "SELECT text_embedding FROM prompts WHERE job = {job} AND position = {position}"
            );
            texts.push(self.number(&text).await?);
        }
        Ok(Template { job, own: texts[0], shared: texts[1] })
    }

    /// The columns of a table, with what a copy has in them.
    async fn columns(
        &mut self,
        table: &str,
        copied: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(String, String), Failure> {
        let columns = self
            .column(&if self.is_sqlite() {
                format!("SELECT name FROM pragma_table_xinfo('{table}') WHERE hidden = 0 ORDER BY cid")
            } else {
                format!(
                    "SELECT column_name::text FROM information_schema.columns
                     WHERE table_schema = 'public' AND table_name = '{table}' AND is_generated = 'NEVER'
                     ORDER BY ordinal_position"
                )
            })
            .await?;
        let value = |column: &String| copied(column).unwrap_or_else(|| format!("t.{column}"));
        let values: Vec<String> = columns.iter().map(value).collect();
        Ok((columns.join(", "), values.join(", ")))
    }

    async fn copy(
        &mut self,
        table: &str,
        of: &str,
        copied: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), Failure> {
        let (columns, values) = self.columns(table, copied).await?;
        let own = if self.is_sqlite() { "" } else { "OVERRIDING SYSTEM VALUE " };
        self.run(format!(
            "INSERT INTO {table} ({columns}) {own}SELECT {values} FROM copies AS c CROSS JOIN {table} AS t WHERE {of}"
        ))
        .await
    }

    /// Makes jobs of ten images each. Afterwards the table `copies` has them.
    pub(crate) async fn make(
        &mut self,
        template: &Template,
        batch: &Batch,
        names: &Names,
    ) -> Result<(), Failure> {
        let begin = if self.is_sqlite() { "BEGIN IMMEDIATE" } else { "BEGIN" };
        self.run(begin.to_owned()).await?;
        self.list_copies(template, batch).await?;
        self.copy_texts(template, batch, names).await?;
        let is_sqlite = self.is_sqlite();
        let Template { job, own, shared } = *template;
        let time = |ms: &str| {
            if is_sqlite {
                ms.to_owned()
            } else {
                format!("'epoch'::timestamptz + ({ms}) * interval '1 millisecond'")
            }
        };
        let id = if is_sqlite { "c.id" } else { "c.id::uuid" };
        let none = |column: &str| match column {
            "seq" => Some("c.seq".to_owned()),
            "id" => Some(id.to_owned()),
            "tenant" => Some(format!("'{TENANT}'")),
            "created_ms" | "created_at" => Some(time("c.at_ms - 600000")),
            "touched_ms" => Some("c.at_ms".to_owned()),
            "finished_ms" | "finished_at" => Some(time("c.at_ms")),
            "manifest" => Some("'written'".to_owned()),
            "manifest_key" => Some(format!("'manifests/' || c.id || '/1/{}'", names.manifest)),
            "prune_from" => Some("NULL".to_owned()),
            _ => None,
        };
        self.copy("jobs", &format!("t.seq = {job}"), &none).await?;
        let tables = self.column(if is_sqlite {
            "SELECT m.name FROM sqlite_master AS m
             WHERE m.type = 'table' AND EXISTS (SELECT 1 FROM pragma_table_info(m.name) WHERE name = 'job')
             ORDER BY m.name"
        } else {
            "SELECT table_name::text FROM information_schema.columns
             WHERE table_schema = 'public' AND column_name = 'job' ORDER BY 1"
        });
        let random = random(is_sqlite);
        for table in tables.await? {
            let text = |column: &str| {
                format!(
                    "CASE t.{column} WHEN {own} THEN c.own WHEN {shared} THEN c.shared ELSE t.{column} END"
                )
            };
            let key = format!(
                "'tasks/' || CASE WHEN c.again <> 0 AND t.idx = 0
                                  THEN '{:060}' || CASE t.stage WHEN 0 THEN '0000' ELSE '0001' END ELSE {random} END
                 || CASE t.stage WHEN 0 THEN '/{}' ELSE '/{}' END",
                batch.day, names.intermediate, names.picture
            );
            let copied = |column: &str| match (table.as_str(), column) {
                (_, "job") => Some("c.seq".to_owned()),
                (_, "tenant") => Some(format!("'{TENANT}'")),
                ("outputs", "key") => Some(key.clone()),
                (_, "text_embedding" | "embedding") => Some(text(column)),
                _ => None,
            };
            self.copy(&table, &format!("t.job = {job}"), &copied).await?;
        }
        self.run("COMMIT".to_owned()).await
    }

    async fn list_copies(&mut self, template: &Template, batch: &Batch) -> Result<(), Failure> {
        let Batch { first, jobs, day, at_ms, within_ms } = *batch;
        let (start, end) = (template.job + first, template.job + first + jobs - 1);
        let (numbers, id) = if self.is_sqlite() {
            (
                format!(
                    "(WITH RECURSIVE n (seq) AS (SELECT {start} UNION ALL SELECT seq + 1 FROM n WHERE seq < {end}) SELECT seq FROM n)"
                ),
                "'00000000-0000-7000-8000-' || printf('%012x', n.seq)",
            )
        } else {
            (
                format!("(SELECT seq FROM generate_series({start}::bigint, {end}) AS n (seq))"),
                "'00000000-0000-7000-8000-' || lpad(to_hex(n.seq), 12, '0')",
            )
        };
        // Two texts a job at most, and one a day. That of the day comes after the day's jobs.
        let shared = TEXTS / 2 + day;
        self.run(format!(
            "DELETE FROM copies;
             INSERT INTO copies (seq, id, at_ms, own, shared, again)
             SELECT n.seq, {id}, {at_ms} + (n.seq - {start}) * {within_ms} / {jobs}, {TEXTS} + n.seq, {shared},
                    CASE WHEN n.seq % {REUSING} = 0 THEN 1 ELSE 0 END
             FROM {numbers} AS n"
        ))
        .await
    }

    /// The text of each job, and that of the day.
    async fn copy_texts(
        &mut self,
        template: &Template,
        batch: &Batch,
        names: &Names,
    ) -> Result<(), Failure> {
        let is_sqlite = self.is_sqlite();
        let shared = TEXTS / 2 + batch.day;
        for (column, of, once) in [
            ("own", template.own, String::new()),
            (
                "shared",
                template.shared,
                format!(
                    " AND c.seq = (SELECT min(seq) FROM copies)
                      AND NOT EXISTS (SELECT 1 FROM embeddings WHERE id = {shared})"
                ),
            ),
        ] {
            let hex = |id: &str| {
                if is_sqlite {
                    format!("printf('%064x', {id})")
                } else {
                    format!("lpad(to_hex({id}), 64, '0')")
                }
            };
            let hex = hex(&format!("c.{column}"));
            let digest = if is_sqlite { hex.clone() } else { format!("decode({hex}, 'hex')") };
            let copied = |name: &str| match name {
                "id" => Some(format!("c.{column}")),
                "digest" => Some(digest.clone()),
                "prepared" => Some(format!("t.prepared || c.{column}")),
                "key" => Some(format!("'embeddings/e/' || {hex} || '/{}'", names.embedding)),
                _ => None,
            };
            self.copy("embeddings", &format!("t.id = {of}{once}"), &copied).await?;
        }
        Ok(())
    }
}

/// 64 random hexadecimal digits.
fn random(is_sqlite: bool) -> &'static str {
    if is_sqlite {
        "lower(hex(randomblob(32)))"
    } else {
        "encode(sha256(uuid_send(gen_random_uuid())), 'hex')"
    }
}
