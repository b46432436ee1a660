//! Commands about the whole farm: its changes, its queue, its past, and what tenants used.

use std::collections::HashMap;

use darkroom_core::{error::UserError, shown::shown};
use darkroom_proto::{json, v1};

use crate::{
    args::{HistoryArgs, Place, UsageArgs, WatchArgs},
    client::{Client, Pages},
    deadline,
    failure::Result,
    farm, output, quotas,
    span::span,
    table::{none, table},
    view,
};

/// `darkroom watch` without a job: until it is interrupted.
pub(crate) async fn watch(place: &Place, args: &WatchArgs, as_json: bool) -> Result<()> {
    if args.images || args.after > 0 {
        let flag = if args.images { "images" } else { "after" };
        let message =
            format!("{flag} is for one job; accepted: {flag} together with the id of a job");
        return Err(UserError::invalid(flag, message));
    }
    let request = v1::WatchFarmRequest {
        tenant: args.tenant.clone().unwrap_or_default(),
        cursor: args.cursor.clone().unwrap_or_default(),
    };
    let mut watch = farm::find(place)?.watch_farm(request);
    let mut known = Known::default();
    let mut workers = None;
    loop {
        let event = watch.next().await?;
        if as_json {
            let deleted = !event.deleted_jobs.is_empty();
            if !event.jobs.is_empty() || deleted || event.workers.is_some() || event.reset {
                output::json(&json::FarmEvent::from(&event))?;
            }
            continue;
        }
        for job in &event.jobs {
            if known.is_news(job) {
                output::line(&view::job_line(job))?;
            }
        }
        for job in &event.deleted_jobs {
            if known.forget(job) {
                output::line(&format!("{} deleted", shown(job)))?;
            }
        }
        if let Some(all) = &event.workers {
            let now = workers_line(&all.workers);
            if workers.as_ref() != Some(&now) {
                output::line(&now)?;
                workers = Some(now);
            }
        }
    }
}

/// Most jobs that a watch remembers.
const MOST: usize = 100_000;
/// Longest id of a job, characters. A farm that lies may send any.
const ID: usize = 36;

/// The jobs that were shown, and their versions. In time there may be any number of jobs, so when
/// [`MOST`] are known, all are forgotten. Some are then shown again.
#[derive(Default)]
struct Known(HashMap<String, u64>);

impl Known {
    /// Whether the job was not shown at this version. From now on it is.
    fn is_news(&mut self, job: &v1::Job) -> bool {
        if job.id.len() > ID {
            return true;
        }
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(job.id.clone(), job.version) != Some(job.version)
    }

    /// Whether the job was shown. From now on it is not.
    fn forget(&mut self, id: &str) -> bool {
        self.0.remove(id).is_some()
    }
}

/// How many workers there are, by state.
fn workers_line(workers: &[v1::Worker]) -> String {
    let mut states: Vec<(&str, usize)> = Vec::new();
    for worker in workers {
        match states.iter_mut().find(|(state, _)| *state == worker.state) {
            Some((_, count)) => *count += 1,
            None => states.push((&worker.state, 1)),
        }
    }
    states.sort_unstable();
    let states: Vec<_> =
        states.iter().map(|(state, count)| format!("{count} {}", shown(state))).collect();
    match states.as_slice() {
        [] => "workers: none".to_owned(),
        states => format!("workers: {}", states.join(", ")),
    }
}

/// `darkroom queue`.
pub(crate) async fn queue(client: &Client, as_json: bool) -> Result<()> {
    let queue = client.queue().await?;
    if as_json {
        return output::json(&json::DescribeQueueResponse::from(&queue));
    }
    let mut rows = vec![
        [
            "STAGE", "CASCADE", "READY", "RUNNING", "QUEUED", "OLDEST", "WORK", "WORKERS", "FILL",
            "PER S",
        ]
        .map(str::to_owned),
    ];
    for pool in &queue.pools {
        rows.push([
            shown(&pool.stage).into_owned(),
            shown(&pool.cascade).into_owned(),
            pool.ready.to_string(),
            pool.leased.to_string(),
            pool.dispatched.saturating_sub(pool.leased).to_string(),
            pool.oldest_seconds.map_or_else(none, span),
            pool.work_seconds.map_or_else(none, span),
            pool.workers.to_string(),
            pool.batch_fill.map_or_else(none, |fill| format!("{:.0} %", fill * 100.0)),
            format!("{:.2}", pool.images_per_second),
        ]);
    }
    table(&rows, 2)
}

/// `darkroom history`.
pub(crate) async fn history(place: &Place, args: &HistoryArgs, as_json: bool) -> Result<()> {
    let request = v1::FarmHistoryRequest {
        from: args.since.as_deref().map(|text| deadline::past("since", text)).transpose()?,
        to: args.until.as_deref().map(|text| deadline::past("until", text)).transpose()?,
        stage: args.stage.clone().unwrap_or_default(),
        cascade_digest: args.cascade_digest.clone().unwrap_or_default(),
        step_seconds: args.step.as_deref().map(deadline::step_seconds).transpose()?.unwrap_or(0),
    };
    let history = farm::find(place)?.history(request).await?;
    if as_json {
        return output::json(&json::FarmHistoryResponse::from(&history));
    }
    let mut rows = vec![
        [
            "FROM",
            "STAGE",
            "CASCADE",
            "DONE",
            "FAILED",
            "REUSED",
            "MODEL TIME",
            "READY",
            "RUNNING",
            "WORKERS",
            "OLDEST",
        ]
        .map(str::to_owned),
    ];
    for pool in &history.pools {
        let digest = pool.cascade_digest.get(..12).unwrap_or(&pool.cascade_digest);
        let mean = |size: Option<f64>| size.map_or_else(none, |size| format!("{size:.1}"));
        for point in &pool.points {
            rows.push([
                point.at.as_ref().map_or_else(none, ToString::to_string),
                shown(&pool.stage).into_owned(),
                shown(digest).into_owned(),
                point.done.to_string(),
                point.failed.to_string(),
                if pool.stage == "encode" { point.reused.to_string() } else { String::new() },
                span(point.device_seconds),
                mean(point.ready),
                mean(point.leased),
                mean(point.workers),
                point.oldest_seconds.map_or_else(none, span),
            ]);
        }
    }
    table(&rows, 3)
}

/// `darkroom usage`.
pub(crate) async fn usage(place: &Place, args: &UsageArgs, as_json: bool) -> Result<()> {
    let day = |flag, day: &Option<String>| {
        day.as_deref().map_or(Ok(String::new()), |day| deadline::day(flag, day))
    };
    let (since, until) = (day("since", &args.since)?, day("until", &args.until)?);
    let client = farm::find(place)?;
    let mut rows =
        vec![["DAY", "TENANT", "MODEL SECONDS", "STAGES DONE", "FAILED"].map(str::to_owned)];
    let (mut pages, mut token, mut standing) = (Pages::default(), String::new(), None);
    loop {
        let request = v1::ListUsageRequest {
            tenant: args.tenant.clone().unwrap_or_default(),
            from_day: since.clone(),
            to_day: until.clone(),
            page_size: 1000,
            page_token: token,
        };
        let page = client.usage(request).await?;
        // Of one tenant, what it may use comes with the first page.
        standing = standing.or(page.quotas.zip(page.usage));
        for day in &page.days {
            if as_json {
                output::json(&json::TenantDay::from(day))?;
                continue;
            }
            rows.push([
                shown(&day.day).into_owned(),
                shown(&day.tenant).into_owned(),
                format!("{:.1}", day.device_seconds),
                day.tasks_done.to_string(),
                day.tasks_failed.to_string(),
            ]);
        }
        match pages.next(page.next_page_token)? {
            Some(next) => token = next,
            None => break,
        }
    }
    if as_json {
        // After the days, as in the table.
        let Some((quotas, usage)) = standing else { return Ok(()) };
        let (quotas, usage) = (Some(quotas), Some(usage));
        let standing = v1::ListUsageResponse { quotas, usage, ..Default::default() };
        return output::json(&json::ListUsageResponse::from(&standing));
    }
    table(&rows, 2)?;
    let (quotas, usage) = standing.unwrap_or_default();
    quotas::lines(&quotas, &usage).iter().try_for_each(|line| output::line(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_shown_once_a_version_and_those_of_a_farm_that_lies_take_bounded_memory() {
        let job = |id: String, version| v1::Job { id, version, ..Default::default() };
        let mut known = Known::default();
        let id = || "0190a000-0000-7000-8000-000000000000".to_owned();
        assert!(known.is_news(&job(id(), 1)) && !known.is_news(&job(id(), 1)));
        assert!(known.is_news(&job(id(), 2)));
        assert!(known.forget(&id()) && !known.forget(&id()));
        for number in 0..MOST + 10 {
            assert!(known.is_news(&job(number.to_string(), 1)));
        }
        assert!(known.0.len() <= MOST, "{}", known.0.len());
        assert!(!known.is_news(&job((MOST + 9).to_string(), 1)), "the last ones are known");
        let long = "x".repeat(10_000);
        assert!(known.is_news(&job(long.clone(), 1)) && known.is_news(&job(long.clone(), 1)));
        assert!(!known.forget(&long));
    }

    #[test]
    fn workers_are_counted_by_state() {
        let worker = |state: &str| v1::Worker { state: state.to_owned(), ..Default::default() };
        assert_eq!(workers_line(&[]), "workers: none");
        let workers = ["working", "draining", "working"].map(worker);
        assert_eq!(workers_line(&workers), "workers: 1 draining, 2 working");
    }
}
