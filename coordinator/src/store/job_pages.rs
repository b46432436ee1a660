//! A page of jobs: which of them are read, in which order, and where the next page continues. A
//! backend reads the rows.
//!
//! Names, labels and texts are matched here and not in SQL, as for images. A page reads at most
//! [`LOOKED_AT`] jobs and prompts together, and says where it stopped, which may be within a job.

use std::collections::HashMap;

use async_trait::async_trait;
use darkroom_core::job_filter::Verdict;

use super::{
    Error,
    columns::{column, number, parse},
    records::{JobPage, JobPosition, JobQuery, JobRecord, labels_from_json},
    roles::LOOKED_AT,
    row::row,
};

/// Rows per statement while it is not known how many of them match.
const CHUNK: u32 = 500;

row! {
    /// The parts of a job that a listing checks.
    pub(super) struct JobHead {
        pub(super) seq: i64,
        tenant: String,
        state: String,
        created_ms: i64,
        name: String,
        labels: Option<String>,
    }
}

row! {
    /// The parts of a prompt that a search checks.
    pub(super) struct JobText {
        position: i64,
        text: String,
        custom_id: Option<String>,
    }
}

/// Where to search for jobs. Each uses one index.
#[derive(Clone, Copy, Debug)]
pub(super) enum Through<'a> {
    /// All jobs.
    Everyone,
    /// Jobs of a tenant.
    Tenant(&'a str),
    /// Jobs in a state.
    State(&'a str),
}

/// At most this many jobs beyond a `seq`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beyond {
    pub(super) seq: i64,
    pub(super) oldest_first: bool,
    pub(super) limit: u32,
}

/// The rows of jobs, as of one moment.
#[async_trait]
pub(super) trait JobRows: Send {
    /// Accepted jobs in order.
    async fn heads(&mut self, through: Through<'_>, beyond: Beyond) -> Result<Vec<JobHead>, Error>;

    /// At most this many of a job's prompts from a position on.
    async fn texts(&mut self, job: i64, position: i64, limit: u32) -> Result<Vec<JobText>, Error>;

    /// The jobs with these `seq`, in any order.
    async fn read(&mut self, seqs: &[i64]) -> Result<Vec<JobRecord>, Error>;
}

/// A page of jobs.
pub(super) async fn page(rows: &mut dyn JobRows, query: &JobQuery) -> Result<JobPage, Error> {
    let mut search = Search { rows, query, left: LOOKED_AT, found: Vec::new() };
    let next = search.run().await?;
    let Search { rows, found, .. } = search;
    let mut jobs: HashMap<i64, JobRecord> =
        rows.read(&found).await?.into_iter().map(|job| (job.seq, job)).collect();
    Ok(JobPage { jobs: found.iter().filter_map(|seq| jobs.remove(seq)).collect(), next })
}

struct Search<'a> {
    rows: &'a mut dyn JobRows,
    query: &'a JobQuery,
    /// Number of rows that may still be read.
    left: u32,
    /// `seq` of the jobs of the page.
    found: Vec<i64>,
}

impl Search<'_> {
    /// Fills the page; returns where the next one continues.
    async fn run(&mut self) -> Result<Option<JobPosition>, Error> {
        let oldest_first = self.query.oldest_first;
        let (mut seq, mut within) = match self.query.from {
            None if oldest_first => (i64::MIN, None),
            None => (i64::MAX, None),
            Some(JobPosition::After(seq)) => (seq, None),
            // The job itself is read once more.
            Some(JobPosition::Within(seq, prompt)) => {
                let before =
                    if oldest_first { seq.saturating_sub(1) } else { seq.saturating_add(1) };
                (before, Some((seq, column(prompt))))
            }
        };
        let mut limit = self.query.limit + 1;
        while self.left > 0 {
            limit = limit.min(self.left);
            let heads = self.heads(Beyond { seq, oldest_first, limit }).await?;
            for head in &heads {
                self.left = self.left.saturating_sub(1);
                let first = within.take().filter(|(of, _)| *of == head.seq).map(|(_, first)| first);
                let is_meant = match self.verdict(head)? {
                    Verdict::No => false,
                    Verdict::Yes => true,
                    Verdict::AskPrompts => match self.has_text(head.seq, first.unwrap_or(0)).await?
                    {
                        Asked::Has(has) => has,
                        Asked::Stopped(prompt) => {
                            return Ok(Some(JobPosition::Within(head.seq, number(prompt)?)));
                        }
                    },
                };
                if is_meant && self.found.len() == self.query.limit as usize {
                    return Ok(Some(JobPosition::After(seq)));
                }
                seq = head.seq;
                if is_meant {
                    self.found.push(seq);
                }
                if self.left == 0 {
                    return Ok(Some(JobPosition::After(seq)));
                }
            }
            if heads.len() < limit as usize {
                return Ok(None);
            }
            limit = CHUNK.max(limit);
        }
        Ok(Some(JobPosition::After(seq)))
    }

    /// The next jobs in all requested states.
    async fn heads(&mut self, beyond: Beyond) -> Result<Vec<JobHead>, Error> {
        if self.query.states.is_empty() {
            let through = self.query.tenant.as_deref().map_or(Through::Everyone, Through::Tenant);
            return self.rows.heads(through, beyond).await;
        }
        let mut heads = Vec::new();
        for state in &self.query.states {
            heads.extend(self.rows.heads(Through::State(state.name()), beyond).await?);
        }
        heads.sort_unstable_by_key(|head| if beyond.oldest_first { head.seq } else { -head.seq });
        heads.dedup_by_key(|head| head.seq);
        heads.truncate(beyond.limit as usize);
        Ok(heads)
    }

    fn verdict(&self, head: &JobHead) -> Result<Verdict, Error> {
        let query = self.query;
        let is_of = query.tenant.as_ref().is_none_or(|tenant| *tenant == head.tenant)
            && (query.states.is_empty() || query.states.contains(&parse(&head.state)?))
            && query.created_from_ms.is_none_or(|from| head.created_ms >= from)
            && query.created_to_ms.is_none_or(|to| head.created_ms < to);
        if !is_of {
            return Ok(Verdict::No);
        }
        Ok(query.filter.accepts(&head.name, &labels_from_json(head.labels.as_deref())?))
    }

    /// Whether this prompt of a job, or a later one, has the text.
    async fn has_text(&mut self, job: i64, mut position: i64) -> Result<Asked, Error> {
        while self.left > 0 {
            let limit = CHUNK.min(self.left);
            let texts = self.rows.texts(job, position, limit).await?;
            for text in &texts {
                self.left -= 1;
                if self.query.filter.accepts_prompt(&text.text, text.custom_id.as_deref()) {
                    return Ok(Asked::Has(true));
                }
                position = text.position + 1;
            }
            if texts.len() < limit as usize {
                return Ok(Asked::Has(false));
            }
        }
        Ok(Asked::Stopped(position))
    }
}

/// The result of searching a job's prompts.
enum Asked {
    /// Whether one of them has the text.
    Has(bool),
    /// Not known, because no more rows may be read. The next prompt is at this position.
    Stopped(i64),
}
