//! What a batch's runner notes between its steps, in the batch's row.

use std::collections::BTreeMap;

use darkroom_core::error::{Code, UserError};
use darkroom_proto::{problem::Problem, v1};
use serde::{Deserialize, Serialize};

/// Most errors that a refused batch tells.
pub(super) const MOST_FAULTS: usize = 20;

/// The notes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// How many requests the file has.
    pub(super) total: u64,
    /// How many of them are refused alone.
    pub(super) refused: u64,
    /// Requests that the farm refused when their job was submitted. They count as refused, and no
    /// longer in their group.
    #[serde(default)]
    pub(super) refusals: Vec<Refusal>,
    /// The digest of the cascade that each model is.
    pub(super) models: BTreeMap<String, String>,
    /// The jobs that the others became, in the order in which they are submitted.
    pub(super) jobs: Vec<Group>,
    /// Requests with a picture each, once the results are written.
    pub(super) completed: Option<u64>,
    /// Why the batch failed.
    pub(super) faults: Vec<Fault>,
    /// Why its jobs are not accepted yet, or why its last step could not be done.
    pub(super) waiting_for: Option<String>,
    /// Its time was over before its jobs had ended.
    pub(super) expired: bool,
    /// Ids of the files of its results, from the moment on when they are about to be written.
    pub(super) output: Option<uuid::Uuid>,
    pub(super) errors: Option<uuid::Uuid>,
}

/// A request because of which the farm refuses a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blamed {
    pub(super) line: u64,
    pub(super) pictures: u64,
}

/// Requests that the farm refused for one reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) fault: Fault,
    /// Their lines; a batch of 50,000 may have them all here.
    pub(super) lines: Vec<u64>,
}

/// The requests of a batch that share a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Group {
    #[serde(flatten)]
    pub(super) key: Key,
    pub(super) requests: u64,
    pub(super) pictures: u64,
    /// The job's id, once it is accepted.
    pub(super) job: Option<String>,
    /// Why the farm refuses the job for good.
    #[serde(default)]
    pub(super) refused: Option<Fault>,
}

/// What the requests of a job have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Key {
    /// The digest of the cascade.
    pub(super) cascade: String,
    pub(super) start: Start,
}

/// What pictures start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Start {
    Noise,
    Picture,
    Masked,
}

/// Why a batch, a job of it or a single request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fault {
    /// The status that a route would answer with.
    #[serde(default)]
    status: u16,
    pub(super) code: String,
    pub(super) message: String,
    pub(super) param: Option<String>,
    /// The line in the file, from 1; none if no single line is wrong.
    pub(super) line: Option<u64>,
}

impl Fault {
    pub(super) fn of(error: UserError, line: Option<u64>) -> Self {
        // Shortened, because notes are bounded.
        let problem = Problem::from(&error);
        let code = problem.reason.to_lowercase();
        Self { status: problem.status, code, message: problem.detail, param: problem.field, line }
    }

    /// The same about this line.
    pub(super) fn at(self, line: Option<u64>) -> Self {
        Self { line, ..self }
    }

    /// As the error of the request in this line.
    pub(super) fn error(&self, line: u64) -> UserError {
        let code = match self.status {
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::NotFound,
            409 => Code::FailedPrecondition,
            _ => Code::InvalidArgument,
        };
        let error = UserError::new(code, &self.code.to_uppercase(), self.message.clone());
        match self.line {
            Some(other) if other != line => {
                let said = &self.message;
                let message =
                    format!("the job of this request was refused because of line {other}: {said}");
                UserError { message, ..error }
            }
            _ => UserError { field: self.param.clone(), ..error },
        }
    }
}

impl Progress {
    /// The notes in a batch's row; none of a batch that has none yet.
    pub(super) fn read(text: &str) -> Result<Self, UserError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(text).map_err(|error| {
            tracing::error!(%error, "the notes of a batch cannot be read");
            let message = "the notes of the batch cannot be read; the farm's log may say why; \
                           please report this";
            UserError::new(Code::Internal, "INTERNAL", message)
        })
    }

    /// Notes that the farm refuses requests of a job, so that the job is submitted without them.
    pub(super) fn refuse_alone(&mut self, job: usize, blamed: &[Blamed], error: &UserError) {
        let fault = Fault::of(error.clone(), None);
        let group = &mut self.jobs[job];
        for one in blamed {
            group.requests = group.requests.saturating_sub(1);
            group.pictures = group.pictures.saturating_sub(one.pictures);
            self.refused += 1;
        }
        if group.requests == 0 {
            group.refused = Some(fault.clone());
        }
        self.refusals.push(Refusal { fault, lines: blamed.iter().map(|one| one.line).collect() });
    }

    /// Why requests were refused alone, by line.
    pub(super) fn refused_lines(&self) -> BTreeMap<u64, &Fault> {
        let mut faults = BTreeMap::new();
        for Refusal { fault, lines } in &self.refusals {
            faults.extend(lines.iter().map(|line| (*line, fault)));
        }
        faults
    }

    /// How many requests are done and how many failed, by what its jobs say. Exact once the results
    /// are written, and before that if each request has one picture.
    pub(super) fn counts(&self, jobs: &[v1::Job]) -> (u64, u64) {
        if let Some(completed) = self.completed {
            return (completed, self.total.saturating_sub(completed));
        }
        let of = |group: &Group, images: u64| match group.pictures {
            0 => 0,
            pictures => images.min(pictures) * group.requests / pictures,
        };
        let job = |group: &Group| jobs.iter().find(|job| group.job.as_deref() == Some(&job.id));
        let of_refused_jobs = self.jobs.iter().filter(|group| group.refused.is_some());
        let refused = self.refused + of_refused_jobs.map(|group| group.requests).sum::<u64>();
        let pairs = self.jobs.iter().filter_map(|group| Some((group, job(group)?)));
        pairs.fold((0, refused), |(done, failed), (group, job)| {
            (done + of(group, job.images_done), failed + of(group, job.images_dead))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(job: &str, requests: u64, pictures: u64) -> Group {
        let key = Key { cascade: "d1".into(), start: Start::Noise };
        Group { key, requests, pictures, job: Some(job.into()), refused: None }
    }

    #[test]
    fn notes_are_read_as_they_are_written() {
        assert_eq!(Progress::read(""), Ok(Progress::default()));
        let error = UserError::invalid("n", "n is 0");
        let progress = Progress {
            total: 7,
            jobs: vec![group("j1", 2, 2)],
            faults: vec![Fault::of(error, Some(3))],
            output: Some(uuid::Uuid::now_v7()),
            ..Default::default()
        };
        let told = progress.faults[0].error(3);
        assert_eq!((told.code, told.message.as_str()), (Code::InvalidArgument, "n is 0"));
        assert_eq!(told.field.as_deref(), Some("n"));
        let told = progress.faults[0].error(4);
        let of_another = "the job of this request was refused because of line 3: n is 0";
        assert_eq!((told.field, told.message.as_str()), (None, of_another));
        let text = serde_json::to_string(&progress).expect("JSON");
        assert_eq!(Progress::read(&text), Ok(progress));
        Progress::read("{").expect_err("no notes");
    }

    #[test]
    fn requests_are_counted_by_their_pictures() {
        let job = |id: &str, done, dead| v1::Job {
            id: id.into(),
            images_done: done,
            images_dead: dead,
            ..Default::default()
        };
        let mut progress = Progress {
            total: 8,
            refused: 1,
            jobs: vec![group("j1", 4, 4), group("j2", 3, 6)],
            ..Default::default()
        };
        assert_eq!(progress.counts(&[]), (0, 1));
        let refused = Some(Fault::of(UserError::invalid("size", "size is 1x1"), Some(7)));
        progress.jobs.push(Group { job: None, refused, ..group("", 2, 2) });
        assert_eq!(progress.counts(&[]), (0, 3), "with those of a refused job");
        progress.jobs.pop();
        assert_eq!(progress.counts(&[job("j1", 2, 1), job("j2", 5, 1)]), (4, 2));
        progress.completed = Some(6);
        assert_eq!(progress.counts(&[]), (6, 2), "what the results say");
    }
}
