//! The queue, the farm's history, and the tenants' usage.

use darkroom_core::{
    digest::{Digest, FieldHasher},
    error::UserError,
    id::StageName,
};
use darkroom_farm_api::{Caller, Scope};
use darkroom_proto::v1;
use prost::Message as _;

use super::{
    Farm,
    access::{Reach, tenant_filter},
    convert,
    listing::bad_token,
    refused,
    tokens::Tokens,
    validate::{MAX_TENANT, limit},
};
use crate::{
    error::Error,
    pools::{self, PoolWork},
    store::{
        history::{HistoryQuery, HistoryRow, MINUTE, UsageQuery, UsageRow},
        limits::timestamp,
    },
};

/// Most points of one pool in an answer.
const MOST_STEPS: i64 = 1440;
/// Most points of all pools in an answer.
const MOST_POINTS: u32 = 20_000;
/// Longest period of a request, in seconds; longer than the history is kept.
const LONGEST: i64 = 10 * 366 * 86_400;
/// End of the year 9999, seconds since 1970.
const LAST_SECOND: i64 = 253_402_300_799;
/// Default period, in seconds.
const HOUR: i64 = 3600;
/// Default number of days.
const DAYS: i64 = 30;
const DAY_MS: i64 = 86_400_000;
/// Default and largest number of entries of a page of tenants' days.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

impl Farm {
    pub(super) async fn queue(
        &self,
        caller: &Caller,
        _request: v1::DescribeQueueRequest,
    ) -> Result<v1::DescribeQueueResponse, Error> {
        let reach = Reach::of(caller).map_err(refused)?;
        let pools = pools::describe(&self.shared, self.front.as_ref()).await?;
        let mut pools: Vec<_> = pools.into_iter().map(pool).collect();
        if reach != Reach::Everyone {
            pools.iter_mut().for_each(hide_single_jobs);
        }
        Ok(v1::DescribeQueueResponse { pools })
    }

    pub(super) async fn history(
        &self,
        caller: &Caller,
        request: v1::FarmHistoryRequest,
    ) -> Result<v1::FarmHistoryResponse, Error> {
        caller.needs(Scope::Operate).map_err(refused)?;
        let now = self.front.clock_ms().await?.div_euclid(1000);
        let query = history_query(&request, now).map_err(refused)?;
        let rows = self.front.history(&query).await?;
        if rows.len() > MOST_POINTS as usize {
            let message = format!(
                "the answer has more than {MOST_POINTS} points; name a stage or a cascade, or ask for larger steps"
            );
            return Err(refused(UserError::invalid("step_seconds", message)));
        }
        let mut pools: Vec<v1::PoolHistory> = Vec::new();
        for row in rows {
            let (stage, digest) =
                (row.work.pool.stage.to_string(), row.work.pool.digest.to_string());
            let known = pools
                .last_mut()
                .filter(|last| last.stage == stage && last.cascade_digest == digest);
            match known {
                Some(pool) => pool.points.push(point(&row)),
                None => pools.push(v1::PoolHistory {
                    stage,
                    cascade_digest: digest,
                    points: vec![point(&row)],
                }),
            }
        }
        Ok(v1::FarmHistoryResponse { pools })
    }

    pub(super) async fn usage(
        &self,
        caller: &Caller,
        request: v1::ListUsageRequest,
    ) -> Result<v1::ListUsageResponse, Error> {
        let tenant = tenant_filter(caller, "tenant", &request.tenant).map_err(refused)?;
        let tokens = UsageTokens::of(&request, tenant.as_deref(), self.tokens().await?);
        let of = tenant.clone().filter(|_| request.page_token.is_empty());
        let standing = match of {
            Some(tenant) => Some(self.front.standing(&tenant).await?),
            None => None,
        };
        let now_ms = self.front.clock_ms().await?;
        let query = usage_query(request, tenant, &tokens, now_ms).map_err(refused)?;
        let wanted = query.limit as usize;
        let more = UsageQuery { limit: query.limit + 1, ..query };
        let mut rows = self.front.usage(&more).await?;
        let more = rows.len() > wanted;
        rows.truncate(wanted);
        let token = rows.last().filter(|_| more);
        let token = token.map_or_else(String::new, |row| tokens.token(&row.day, &row.tenant));
        let days = rows.into_iter().map(day).collect();
        let (quotas, usage) = standing.unzip();
        Ok(v1::ListUsageResponse {
            days,
            next_page_token: token,
            quotas: quotas.map(convert::quotas),
            usage: usage.map(convert::usage),
        })
    }
}

/// Sums over a whole pool stay: they say how long the queue is, and not whose it is. The age of the
/// oldest task is that of one job.
fn hide_single_jobs(pool: &mut v1::QueuePool) {
    pool.oldest_seconds = None;
}

/// The tokens of one listing of tenants' days: `{day}.{tenant}` continues after an entry.
pub(super) struct UsageTokens<'a> {
    listing: Digest,
    tokens: &'a Tokens,
}

impl<'a> UsageTokens<'a> {
    pub(super) fn of(
        request: &v1::ListUsageRequest,
        tenant: Option<&str>,
        tokens: &'a Tokens,
    ) -> Self {
        // A listing without days goes on after midnight, so the days asked for are part of it, and
        // not those that they stand for.
        let asked =
            v1::ListUsageRequest { page_size: 0, page_token: String::new(), ..request.clone() };
        let listing = FieldHasher::new("list-usage/1")
            .field(tenant.unwrap_or_default().as_bytes())
            .field(&asked.encode_to_vec())
            .finish();
        Self { listing, tokens }
    }

    pub(super) fn token(&self, day: &str, tenant: &str) -> String {
        self.tokens.seal(&self.listing, &format!("{day}.{tenant}"))
    }

    fn read(&self, token: &str) -> Result<Option<(String, String)>, UserError> {
        if token.is_empty() {
            return Ok(None);
        }
        let opened = self.tokens.open(&self.listing, token);
        let position = opened.as_deref().and_then(|opened| opened.split_once('.'));
        let (day, tenant) = position.ok_or_else(|| bad_token(token))?;
        Ok(Some((day.to_owned(), tenant.to_owned())))
    }
}

fn pool(work: PoolWork) -> v1::QueuePool {
    v1::QueuePool {
        stage: work.sizes.pool.stage.to_string(),
        cascade_digest: work.sizes.pool.digest.to_string(),
        cascade: work.cascade,
        ready: work.sizes.ready,
        dispatched: work.sizes.dispatched,
        leased: work.sizes.leased,
        oldest_seconds: work.sizes.oldest_ms.map(seconds),
        work_seconds: work.work_seconds,
        workers: work.sizes.workers,
        batch_fill: work.batch_fill,
        images_per_second: work.rate,
    }
}

fn point(row: &HistoryRow) -> v1::HistoryPoint {
    v1::HistoryPoint {
        at: Some(timestamp(row.at * 1000)),
        done: row.work.done,
        failed: row.work.failed,
        device_seconds: row.work.device_seconds,
        batches: row.work.batches,
        reused: row.reused,
        minutes: row.minutes,
        ready: row.ready,
        dispatched: row.dispatched,
        leased: row.leased,
        workers: row.workers,
        oldest_seconds: row.oldest_ms.map(seconds),
    }
}

fn day(row: UsageRow) -> v1::TenantDay {
    v1::TenantDay {
        tenant: row.tenant,
        day: row.day,
        device_seconds: row.device_seconds,
        tasks_done: row.done,
        tasks_failed: row.failed,
    }
}

#[expect(clippy::cast_precision_loss, reason = "an age in milliseconds")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

pub(super) fn history_query(
    request: &v1::FarmHistoryRequest,
    now: i64,
) -> Result<HistoryQuery, UserError> {
    let time = |field: &str, time: Option<&prost_types::Timestamp>| match time {
        Some(time) if !(0..=LAST_SECOND).contains(&time.seconds) => {
            let message = format!(
                "{field} is {} s since 1970; accepted: a time in the years 1970 to 9999",
                time.seconds
            );
            Err(UserError::invalid(field, message))
        }
        time => Ok(time.map(|time| time.seconds)),
    };
    let (from, to) = (time("from", request.from.as_ref())?, time("to", request.to.as_ref())?);
    let step = match request.step_seconds {
        0 => MINUTE,
        step if i64::from(step) % MINUTE == 0 => i64::from(step),
        step => {
            let message = format!("step_seconds is {step}; accepted: a multiple of 60");
            return Err(UserError::invalid("step_seconds", message));
        }
    };
    // The current minute is included by default.
    let to = to.map_or_else(|| minute(now) + MINUTE, minute);
    let from = minute(from.unwrap_or(to - HOUR));
    if from >= to || to - from > LONGEST {
        let message = format!(
            "from is {} and to is {}; accepted: an earlier and a later time, at most ten years apart",
            timestamp(from * 1000),
            timestamp(to * 1000)
        );
        return Err(UserError::invalid("from", message));
    }
    let steps = (to - from + step - 1) / step;
    if steps > MOST_STEPS {
        let message = format!(
            "step_seconds is {step}, which makes {steps} points; accepted: at most {MOST_STEPS}, so ask for larger steps or \
             a shorter time"
        );
        return Err(UserError::invalid("step_seconds", message));
    }
    let stage = match request.stage.as_str() {
        "" => None,
        name => Some(
            StageName::try_from(name.to_owned())
                .map_err(|error| UserError { field: Some("stage".to_owned()), ..error })?,
        ),
    };
    let digest = match request.cascade_digest.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| {
            let shown: String = text.chars().take(80).collect();
            let message = format!("cascade_digest is {shown:?}; accepted: 64 hexadecimal digits");
            UserError::invalid("cascade_digest", message)
        })?),
    };
    Ok(HistoryQuery { from, to, step, stage, digest, limit: MOST_POINTS + 1 })
}

fn minute(seconds: i64) -> i64 {
    seconds.div_euclid(MINUTE) * MINUTE
}

pub(super) fn usage_query(
    request: v1::ListUsageRequest,
    tenant: Option<String>,
    tokens: &UsageTokens<'_>,
    now_ms: i64,
) -> Result<UsageQuery, UserError> {
    limit("tenant", &request.tenant, MAX_TENANT)?;
    let after = tokens.read(&request.page_token)?;
    let day = |field: &str, text: String, default_ms: i64| match text.as_str() {
        "" => Ok(day_of(default_ms)),
        _ if is_day(&text) => Ok(text),
        _ => {
            let shown: String = text.chars().take(80).collect();
            let message = format!("{field} is {shown:?}; accepted: a day such as 2026-01-31");
            Err(UserError::invalid(field, message))
        }
    };
    let limit = match request.page_size {
        0 => PAGE,
        size @ 1..=MAX_PAGE => size,
        size => {
            let message =
                format!("page_size is {size}; accepted: 1 to {MAX_PAGE}, or 0 for {PAGE}");
            return Err(UserError::invalid("page_size", message));
        }
    };
    Ok(UsageQuery {
        tenant,
        from: day("from_day", request.from_day, now_ms - DAYS * DAY_MS)?,
        to: day("to_day", request.to_day, now_ms)?,
        after,
        limit,
    })
}

/// The day (UTC) of a time, as 2026-01-31.
fn day_of(ms: i64) -> String {
    timestamp(ms).to_string().chars().take(10).collect()
}

/// Whether a text is a day as [`day_of`] writes it.
fn is_day(text: &str) -> bool {
    let shape = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    shape && format!("{text}T00:00:00Z").parse::<prost_types::Timestamp>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    #[test]
    fn a_history_is_of_the_last_hour_by_minutes_unless_it_is_said_otherwise() {
        let now = 1_764_378_030;
        let query = history_query(&v1::FarmHistoryRequest::default(), now).expect("fine");
        assert_eq!((query.from, query.to, query.step), (1_764_374_460, 1_764_378_060, 60));
        let request = v1::FarmHistoryRequest {
            from: time(90),
            to: time(86_400 * 7),
            step_seconds: 600,
            stage: "base".to_owned(),
            ..Default::default()
        };
        let query = history_query(&request, now).expect("1,008 steps");
        assert_eq!((query.from, query.to, query.step), (60, 604_800, 600));
        let wrong = |request: v1::FarmHistoryRequest, field: &str| {
            let error = history_query(&request, now).expect_err(field);
            assert_eq!(error.field.as_deref(), Some(field), "{error}");
        };
        wrong(v1::FarmHistoryRequest { step_seconds: 360, ..request.clone() }, "step_seconds");
        wrong(v1::FarmHistoryRequest { step_seconds: 90, ..request.clone() }, "step_seconds");
        wrong(v1::FarmHistoryRequest { from: time(604_800), ..request.clone() }, "from");
        wrong(v1::FarmHistoryRequest { stage: "no stage".to_owned(), ..request.clone() }, "stage");
        let short = v1::FarmHistoryRequest { cascade_digest: "ab".to_owned(), ..request };
        wrong(short, "cascade_digest");
    }

    #[test]
    fn days_are_checked_and_default_to_the_last_thirty() {
        let sealing = Tokens::new([1; 32]);
        let usage = |request: v1::ListUsageRequest, tenant: Option<&str>, now_ms| {
            let tokens = UsageTokens::of(&request, tenant, &sealing);
            usage_query(request, tenant.map(str::to_owned), &tokens, now_ms)
        };
        let query = usage(v1::ListUsageRequest::default(), None, 1_764_378_030_000).expect("fine");
        assert_eq!((query.from.as_str(), query.to.as_str()), ("2025-10-30", "2025-11-29"));
        for wrong in ["2025-13-01", "2025-02-30", "25-01-01", "2025-1-011", "2025-01-01 ", "x"] {
            let request = v1::ListUsageRequest { from_day: wrong.to_owned(), ..Default::default() };
            let error = usage(request, None, 0).expect_err(wrong);
            assert_eq!(error.field.as_deref(), Some("from_day"), "{error}");
        }
        let asked = v1::ListUsageRequest::default();
        let page_token = UsageTokens::of(&asked, Some("a.b"), &sealing).token("2025-11-29", "a.b");
        let request = v1::ListUsageRequest { page_token, page_size: 7, ..asked };
        let query = usage(request.clone(), Some("a.b"), 0).expect("a token");
        assert_eq!(query.after, Some(("2025-11-29".to_owned(), "a.b".to_owned())));
        for tenant in [None, Some("b")] {
            let error = usage(request.clone(), tenant, 0).expect_err("another listing's");
            assert_eq!(error.field.as_deref(), Some("page_token"), "{error}");
        }
        let plain = v1::ListUsageRequest { page_token: "2025-11-29.a.b".to_owned(), ..request };
        usage(plain, Some("a.b"), 0).expect_err("not sealed");
    }
}
