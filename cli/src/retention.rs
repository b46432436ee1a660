//! `darkroom retention` and `darkroom clean`.

use darkroom_core::{error::UserError, retention::Subject, shown::shown};
use darkroom_proto::{
    json::{self, Named as _},
    v1,
};

use crate::{
    args::{CleanArgs, Place, RetentionCommand, RetentionSetArgs},
    client::Client,
    deadline,
    failure::Result,
    farm,
    keys::{find, named},
    output,
    table::{none, table},
};

/// The word for no limit in time.
const FOREVER: &str = "forever";
/// How a job may have ended.
const OUTCOMES: [v1::JobState; 3] =
    [v1::JobState::Done, v1::JobState::Failed, v1::JobState::Cancelled];
const HEADINGS: [&str; 4] = ["TENANT", "SUBJECT", "OUTCOME", "KEPT"];

/// Runs one of the commands about retention.
pub(crate) async fn run(command: &RetentionCommand, place: &Place, as_json: bool) -> Result<()> {
    let policies = match command {
        RetentionCommand::Set(args) => {
            let requests = requests(args)?;
            set(&farm::find(place)?, requests).await?
        }
        RetentionCommand::List { tenant } => {
            let tenant = tenant.as_deref().unwrap_or_default();
            farm::find(place)?.retention(tenant).await?.policies
        }
    };
    if as_json {
        return policies
            .into_iter()
            .try_for_each(|policy| output::json(&json::RetentionPolicy::from(policy)));
    }
    if policies.is_empty() {
        return output::line("no policies; everything is kept until it is deleted");
    }
    let rows = policies.iter().map(row);
    let rows: Vec<_> = std::iter::once(HEADINGS.map(str::to_owned)).chain(rows).collect();
    table(&rows, 4)
}

async fn set(
    client: &Client,
    requests: Vec<v1::SetRetentionRequest>,
) -> Result<Vec<v1::RetentionPolicy>> {
    let mut policies = Vec::with_capacity(requests.len());
    for request in requests {
        policies.push(client.set_retention(request).await?);
    }
    Ok(policies)
}

/// A request for each outcome.
fn requests(args: &RetentionSetArgs) -> Result<Vec<v1::SetRetentionRequest>> {
    let subject = find("subject", &args.subject, &named::<v1::RetentionSubject>())?;
    let seconds = seconds(&args.seconds)?;
    let known = OUTCOMES.map(|state| (i32::from(state), state.name()));
    let outcome = |name: &String| find("outcome", name, &known);
    let mut outcomes: Vec<i32> = args.outcome.iter().map(outcome).collect::<Result<_>>()?;
    if outcomes.is_empty() {
        let is_of_jobs = args.subject.parse::<Subject>().is_ok_and(Subject::is_of_jobs);
        outcomes = if is_of_jobs { OUTCOMES.map(i32::from).to_vec() } else { vec![0] };
    }
    let tenant = args.tenant.clone().unwrap_or_default();
    let request =
        |outcome| v1::SetRetentionRequest { tenant: tenant.clone(), subject, outcome, seconds };
    Ok(outcomes.into_iter().map(request).collect())
}

fn seconds(text: &str) -> Result<u64> {
    if text == FOREVER {
        return Ok(0);
    }
    let span = deadline::span(text).filter(|span| span.as_secs() > 0 && span.subsec_nanos() == 0);
    span.map(|span| span.as_secs()).ok_or_else(|| {
        let message =
            format!("seconds is {text:?}; accepted: a span like 12h or 30d, or {FOREVER}");
        UserError::invalid("seconds", message)
    })
}

fn row(policy: &v1::RetentionPolicy) -> [String; 4] {
    let tenant = match policy.tenant.as_str() {
        "" => none(),
        tenant => shown(tenant).into_owned(),
    };
    let outcome = if policy.outcome == 0 { none() } else { policy.outcome().name().to_owned() };
    [tenant, policy.subject().name().to_owned(), outcome, kept(policy.seconds)]
}

/// A time as a person would say it.
fn kept(seconds: u64) -> String {
    for (unit, letter) in [(86_400, 'd'), (3600, 'h'), (60, 'm')] {
        if seconds > 0 && seconds.is_multiple_of(unit) {
            return format!("{}{letter}", seconds / unit);
        }
    }
    if seconds == 0 { FOREVER.to_owned() } else { format!("{seconds}s") }
}

/// `darkroom clean`.
pub(crate) async fn clean(args: &CleanArgs, place: &Place, as_json: bool) -> Result<()> {
    let CleanArgs { dry_run, orphans, remove, restored } = *args;
    let request = v1::CleanFarmRequest { dry_run, orphans, remove, restored };
    let answer = farm::find(place)?.clean(request).await?;
    if as_json {
        return output::json(&json::CleanFarmResponse::from(answer));
    }
    for due in &answer.due {
        let policy = due.policy.clone().unwrap_or_default();
        let [tenant, subject, outcome, kept] = row(&policy);
        let more = if due.at_least { "at least " } else { "" };
        output::line(&format!(
            "{subject} ({outcome}, tenant {tenant}, kept {kept}): {more}{} to remove, {} bytes",
            due.count, due.bytes
        ))?;
    }
    if !dry_run {
        output::line(&format!(
            "deleted by policies: {} jobs, {} outputs, {} texts, {} inputs, {} previews and sheets, {} files, {} batches; rows of {} images and {} jobs removed; {} objects deleted, {} failed",
            answer.expired_jobs,
            answer.outputs,
            answer.texts,
            answer.inputs,
            answer.previews,
            answer.files,
            answer.batches,
            answer.images,
            answer.jobs,
            answer.deleted,
            answer.failed
        ))?;
    }
    for of in &answer.orphans {
        output::line(&format!(
            "orphans: {} objects of kind {}, {} bytes",
            of.objects,
            shown(&of.kind),
            of.bytes
        ))?;
    }
    if orphans && answer.orphans.is_empty() && !answer.orphans_at_least {
        output::line("orphans: none older than a week")?;
    }
    if answer.orphans_at_least {
        let more = if remove { "; the same command goes on from there" } else { "" };
        output::line(&format!(
            "orphans: not all objects in storage could be looked at in time{more}"
        ))?;
    }
    output::line(&format!("{} objects have yet to be checked or deleted", answer.waiting))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_is_shown() {
        for (text, known) in
            [("30d", 2_592_000), ("12h", 43_200), ("90m", 5400), ("61s", 61), (FOREVER, 0)]
        {
            assert_eq!(seconds(text).expect(text), known);
            assert_eq!(kept(known), text);
        }
        for text in ["", "0s", "-1d", "soon", "1.5s"] {
            let refused = seconds(text).expect_err(text);
            assert!(refused.message.contains("accepted: a span like 12h"), "{refused}");
        }
    }

    #[test]
    fn without_an_outcome_a_policy_is_about_all_of_them() {
        let args = |subject: &str, outcome: &[&str]| RetentionSetArgs {
            subject: subject.to_owned(),
            seconds: "30d".to_owned(),
            outcome: outcome.iter().map(|name| (*name).to_owned()).collect(),
            tenant: None,
        };
        assert_eq!(requests(&args("jobs", &[])).expect("requests").len(), 3);
        for subject in ["embeddings", "inputs", "previews", "files"] {
            assert_eq!(requests(&args(subject, &[])).expect("requests").len(), 1, "{subject}");
        }
        assert_eq!(requests(&args("pictures", &["failed"])).expect("requests").len(), 1);
        let refused = requests(&args("jobs", &["active"])).expect_err("running work");
        assert_eq!(refused.field.as_deref(), Some("outcome"));
        requests(&args("rows", &[])).expect_err("no subject");
    }
}
