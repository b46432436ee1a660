//! What the lines of a batch's file become: which of them share a job, and which are refused.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::{Answer, Caller, batches::Batch};
use futures::{Stream, StreamExt as _};

use super::{
    super::{
        form::Inputs,
        models::Models,
        order::{Delivery, Order},
    },
    line::Line,
    lines::{lines, whole},
    progress::{Fault, Group, Key, MOST_FAULTS, Progress, Start},
};
use crate::site::Site;

/// Most requests of a batch.
const MOST: u64 = 50_000;
/// Most pictures of a batch in base64, which are in the file of its results.
const MOST_INLINE: u64 = 1_000;
/// Lines between two moments at which other tasks may run.
const AT_ONCE: u64 = 64;

/// A batch that is being worked on, with the rights of whoever began it.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) site: Arc<Site>,
    pub(super) caller: Caller,
    pub(super) batch: Batch,
}

/// A line of the file, as the batch takes it.
pub(super) struct Read {
    /// Its number in the file.
    pub(super) number: u64,
    /// The client's own name for it.
    pub(super) custom_id: String,
    /// What it asks for, with the job that it belongs to; or why it is refused alone.
    pub(super) request: Answer<Request>,
}

/// A request of a job.
pub(super) struct Request {
    pub(super) key: Key,
    pub(super) order: Order,
    pub(super) inputs: Inputs,
}

impl Work {
    /// Reads the lines of the file. `models` gives the digest of the cascade that each model is.
    pub(super) async fn lines(
        &self,
        models: BTreeMap<String, String>,
    ) -> Answer<impl Stream<Item = (u64, Answer<Read>)> + Send + Unpin + 'static> {
        let farm = &self.site.batches;
        let (file, parts) = farm.read_file(&self.caller, self.batch.input, 0).await?;
        let parts = whole(parts, file.bytes);
        let route = self.batch.endpoint.clone();
        let read = lines(parts).map(move |(number, line)| {
            let read = line.and_then(|line| Line::read(&line, &route));
            (number, read.map(|line| Read::of(number, line, &models)))
        });
        // Reading a line never waits, so nobody else would run during the whole file.
        Ok(Box::pin(read.then(|(number, read)| async move {
            if number % AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
            (number, read)
        })))
    }

    /// Reads the whole file. The inner `Err` says why the batch is refused.
    pub(super) async fn plan(&self) -> Answer<Result<Progress, Vec<Fault>>> {
        let models = Models::of(&self.site, &self.caller).await?;
        let digests = models.digests();
        let mut lines = self.lines(digests.clone()).await?;
        let mut plan = Plan::default();
        while let Some((number, read)) = lines.next().await {
            let read = match read {
                Ok(read) => read,
                Err(error) if error.code == Code::InvalidArgument => {
                    plan.fault(error, Some(number));
                    continue;
                }
                Err(error) => return Err(error),
            };
            plan.add(read);
            if plan.is_full || plan.faults.len() >= MOST_FAULTS {
                break;
            }
        }
        Ok(plan.finish(digests))
    }
}

impl Read {
    fn of(number: u64, line: Line, models: &BTreeMap<String, String>) -> Self {
        let Line { custom_id, order } = line;
        let request = order.and_then(|(order, inputs)| {
            let cascade = models.get(&order.model).ok_or_else(|| unknown(&order.model))?;
            let start = match (inputs.image.is_empty(), inputs.mask.is_empty()) {
                (true, _) => Start::Noise,
                (false, true) => Start::Picture,
                (false, false) => Start::Masked,
            };
            let key = Key { cascade: cascade.clone(), start };
            Ok(Request { key, order, inputs })
        });
        Self { number, custom_id, request }
    }
}

fn unknown(model: &str) -> UserError {
    let model = crate::words::told(model);
    let message = format!(
        "model is {model:?}, which this farm did not have when the batch began; accepted: one that \
         GET /v1/models lists"
    );
    let error = UserError::new(Code::NotFound, "MODEL_NOT_FOUND", message);
    UserError { field: Some("model".to_owned()), ..error }
}

/// A file that is being read.
#[derive(Default)]
struct Plan {
    total: u64,
    refused: u64,
    inline: u64,
    names: HashSet<String>,
    models: BTreeSet<String>,
    groups: BTreeMap<Key, (u64, u64)>,
    /// It has so many requests that the rest is not worth reading.
    is_full: bool,
    faults: Vec<Fault>,
}

impl Plan {
    fn fault(&mut self, error: UserError, line: Option<u64>) {
        self.total += 1;
        self.faults.push(Fault::of(error, line));
    }

    fn add(&mut self, read: Read) {
        let wrong =
            |reason: &str, message: String| UserError::new(Code::InvalidArgument, reason, message);
        let line = Some(read.number);
        if self.total >= MOST {
            let message =
                format!("the file has more than {MOST} requests; accepted: at most {MOST}");
            self.fault(wrong("TOO_MANY_REQUESTS", message), line);
            self.is_full = true;
            return;
        }
        if !self.names.insert(read.custom_id.clone()) {
            let name = crate::words::told(&read.custom_id);
            let message = format!(
                "custom_id is {name:?}, as in a line before; accepted: another in each line"
            );
            self.fault(wrong("DUPLICATE_CUSTOM_ID", message), line);
            return;
        }
        self.total += 1;
        match read.request {
            Err(_) => self.refused += 1,
            Ok(Request { key, order, .. }) => {
                self.models.insert(order.model.clone());
                let pictures = u64::from(order.pictures);
                if order.delivery == Delivery::Inline {
                    self.inline += pictures;
                    if self.inline > MOST_INLINE && self.inline - pictures <= MOST_INLINE {
                        let message = format!(
                            "response_format is \"b64_json\" for more than {MOST_INLINE} pictures; \
                             accepted: url, which is a batch's default, or fewer pictures"
                        );
                        self.total -= 1;
                        self.fault(UserError::invalid("response_format", message), line);
                    }
                }
                let group = self.groups.entry(key).or_default();
                group.0 += 1;
                group.1 += pictures;
            }
        }
    }

    fn finish(mut self, mut models: BTreeMap<String, String>) -> Result<Progress, Vec<Fault>> {
        // A farm may have many, and a batch names few of them.
        models.retain(|name, _| self.models.contains(name));
        if self.total == 0 {
            let message = "the file has no request; accepted: one JSON object in each line";
            let error = UserError::new(Code::InvalidArgument, "EMPTY_FILE", message);
            self.faults.push(Fault::of(error, None));
        }
        if !self.faults.is_empty() {
            return Err(self.faults);
        }
        let group = |(key, (requests, pictures))| Group {
            key,
            requests,
            pictures,
            job: None,
            refused: None,
        };
        Ok(Progress {
            total: self.total,
            refused: self.refused,
            models,
            jobs: self.groups.into_iter().map(group).collect(),
            ..Default::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(lines: &[&str]) -> Result<Progress, Vec<Fault>> {
        let models = [("", "d1"), ("demo", "d1"), ("big", "d2")];
        let models: BTreeMap<_, _> =
            models.into_iter().map(|(name, digest)| (name.to_owned(), digest.to_owned())).collect();
        let mut plan = Plan::default();
        for (number, body) in (1..).zip(lines) {
            let text = format!(
                r#"{{"custom_id": "r{number}", "method": "POST",
                     "url": "/v1/images/generations", "body": {body}}}"#
            );
            let line = Line::read(&text, "/v1/images/generations").expect("a line");
            plan.add(Read::of(number, line, &models));
        }
        plan.finish(models)
    }

    #[test]
    fn requests_of_one_cascade_share_a_job_and_refused_ones_have_none() {
        let progress = plan(&[
            r#"{"prompt": "a"}"#,
            r#"{"prompt": "b", "model": "big", "n": 3}"#,
            r#"{"prompt": "c", "model": "demo", "n": 2}"#,
            r#"{"prompt": "d", "model": "gone"}"#,
            r#"{"prompt": ""}"#,
        ])
        .expect("a plan");
        assert_eq!((progress.total, progress.refused), (5, 2));
        let jobs: Vec<_> = progress
            .jobs
            .iter()
            .map(|group| (group.key.cascade.as_str(), group.requests, group.pictures))
            .collect();
        assert_eq!(jobs, [("d1", 2, 3), ("d2", 1, 3)]);
    }

    #[test]
    fn a_file_without_requests_or_with_a_name_twice_is_refused() {
        let faults = plan(&[]).expect_err("empty");
        assert_eq!((faults.len(), faults[0].code.as_str()), (1, "empty_file"));
        let mut plan = Plan::default();
        for number in 1..=3 {
            let order = Err(UserError::invalid("n", "n is 0"));
            plan.add(Read { number, custom_id: "a".to_owned(), request: order });
        }
        let faults = plan.finish(BTreeMap::new()).expect_err("twice");
        assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [Some(2), Some(3)]);
        assert!(faults[0].message.starts_with("custom_id is \"a\", as in a line before"));
    }

    #[test]
    fn pictures_in_base64_are_bounded_and_links_are_not() {
        let inline = r#"{"prompt": "a", "n": 10, "response_format": "b64_json"}"#;
        let linked = r#"{"prompt": "a", "n": 10}"#;
        plan(&[inline; 100]).expect("a thousand pictures");
        plan(&[linked; 200]).expect("links");
        let faults = plan(&[inline; 102]).expect_err("too many");
        assert_eq!((faults.len(), faults[0].line), (1, Some(101)));
        assert_eq!(faults[0].param.as_deref(), Some("response_format"));
    }

    #[test]
    fn reading_stops_after_the_most_requests() {
        let mut plan = Plan { total: MOST, ..Default::default() };
        let request = || Err(UserError::invalid("n", "n is 0"));
        plan.add(Read { number: MOST + 1, custom_id: "a".into(), request: request() });
        assert!(plan.is_full, "nothing more is read");
        let faults = plan.finish(BTreeMap::new()).expect_err("too many");
        assert_eq!((faults.len(), faults[0].code.as_str()), (1, "too_many_requests"));
    }
}
