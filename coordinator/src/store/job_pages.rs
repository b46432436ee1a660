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
        // Each state is read separately, and the rows of all of them count.
        let reads = u32::try_from(self.query.states.len()).unwrap_or(u32::MAX).max(1);
        loop {
            limit = limit.min(self.left / reads);
            if limit == 0 {
                return Ok(Some(JobPosition::After(seq)));
            }
            let heads = self.heads(Beyond { seq, oldest_first, limit }).await?;
            for head in &heads {
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
            }
            if heads.len() < limit as usize {
                return Ok(None);
            }
            limit = CHUNK.max(limit);
        }
    }

    /// The next jobs in all requested states. Counts the rows that it reads.
    async fn heads(&mut self, beyond: Beyond) -> Result<Vec<JobHead>, Error> {
        if self.query.states.is_empty() {
            let through = self.query.tenant.as_deref().map_or(Through::Everyone, Through::Tenant);
            let heads = self.rows.heads(through, beyond).await?;
            self.count(heads.len());
            return Ok(heads);
        }
        let mut heads = Vec::new();
        for state in &self.query.states {
            heads.extend(self.rows.heads(Through::State(state.name()), beyond).await?);
        }
        self.count(heads.len());
        heads.sort_unstable_by_key(|head| if beyond.oldest_first { head.seq } else { -head.seq });
        heads.dedup_by_key(|head| head.seq);
        heads.truncate(beyond.limit as usize);
        Ok(heads)
    }

    fn count(&mut self, rows: usize) {
        self.left = self.left.saturating_sub(u32::try_from(rows).unwrap_or(u32::MAX));
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

#[cfg(test)]
mod tests {
    use darkroom_core::{job_filter::JobFilter, job_state::JobState};

    use super::*;

    const JOBS: i64 = 25_000;
    const STATES: [JobState; 5] =
        [JobState::Active, JobState::Paused, JobState::Done, JobState::Failed, JobState::Cancelled];

    fn state(seq: i64) -> &'static str {
        STATES[usize::try_from(seq).expect("positive") % STATES.len()].name()
    }

    /// Jobs that are looked for.
    const WANTED: [i64; 3] = [JOBS, 12_345, 1];

    /// Jobs without prompts. Their states take turns.
    #[derive(Default)]
    struct Jobs {
        /// Heads that were read since the last page.
        read: usize,
        /// The jobs of all pages.
        found: Vec<i64>,
    }

    #[async_trait]
    impl JobRows for Jobs {
        async fn heads(
            &mut self,
            through: Through<'_>,
            beyond: Beyond,
        ) -> Result<Vec<JobHead>, Error> {
            let Through::State(wanted) = through else { panic!("through a state") };
            assert!(!beyond.oldest_first);
            let seqs = (1..beyond.seq.min(JOBS + 1)).rev().filter(|seq| state(*seq) == wanted);
            let head = |seq: i64| JobHead {
                seq,
                tenant: "default".to_owned(),
                state: state(seq).to_owned(),
                created_ms: 0,
                name: if WANTED.contains(&seq) { "wanted" } else { "other" }.to_owned(),
                labels: None,
            };
            let heads: Vec<_> = seqs.take(beyond.limit as usize).map(head).collect();
            self.read += heads.len();
            Ok(heads)
        }

        async fn texts(&mut self, _: i64, _: i64, _: u32) -> Result<Vec<JobText>, Error> {
            Ok(Vec::new())
        }

        async fn read(&mut self, seqs: &[i64]) -> Result<Vec<JobRecord>, Error> {
            self.found.extend(seqs);
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn a_page_of_several_states_reads_no_more_rows_than_one_of_a_single_state() {
        let mut jobs = Jobs::default();
        let mut query = JobQuery {
            tenant: None,
            states: STATES.to_vec(),
            filter: JobFilter::new(Default::default(), "wanted", "").expect("a filter"),
            created_from_ms: None,
            created_to_ms: None,
            oldest_first: false,
            from: None,
            limit: 100,
        };
        let mut pages = 0;
        loop {
            jobs.read = 0;
            let page = page(&mut jobs, &query).await.expect("lists");
            assert!(jobs.read <= LOOKED_AT as usize, "{} rows", jobs.read);
            pages += 1;
            let Some(next) = page.next else { break };
            query.from = Some(next);
        }
        assert!(pages > 1, "one page looked at all jobs");
        assert_eq!(jobs.found, WANTED);
    }
}
