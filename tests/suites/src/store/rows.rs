//! When the rows of each table go. A table without a rule here fails a backend's test, so whoever
//! adds one must say it.

/// When rows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goes {
    /// With their job, at the latest.
    WithTheirJob,
    /// When no job or batch needs them, after a policy.
    Unused,
    /// At an age, or when they were added up.
    After(&'static str),
    /// Never, but there are few: one for each of these.
    Few(&'static str),
    /// Never: the reason.
    Never(&'static str),
}

/// The tables of all backends.
pub const ROWS: &[(&str, Goes)] = &[
    ("attempts", Goes::WithTheirJob),
    ("audit", Goes::Never("who did what must stay known")),
    ("batches", Goes::Unused),
    ("cascades", Goes::Few("cascade that was ever served")),
    ("coordinators", Goes::After("an hour")),
    ("deleted_jobs", Goes::After("30 days")),
    ("deleted_usage", Goes::Few("tenant and day that is kept")),
    ("dispatched_texts", Goes::Few("text with a worker")),
    ("embeddings", Goes::Unused),
    ("farm", Goes::Few("farm")),
    ("files", Goes::Unused),
    ("history", Goes::After("the time for which history is kept")),
    ("image_blocks", Goes::WithTheirJob),
    ("image_changes", Goes::WithTheirJob),
    ("image_commands", Goes::WithTheirJob),
    ("images", Goes::WithTheirJob),
    ("inputs", Goes::Never("only coordinators of a version before add rows")),
    ("job_forecasts", Goes::WithTheirJob),
    ("job_inputs", Goes::WithTheirJob),
    ("job_notes", Goes::WithTheirJob),
    ("job_paces", Goes::WithTheirJob),
    ("job_progress", Goes::WithTheirJob),
    ("job_stages", Goes::WithTheirJob),
    ("job_texts", Goes::WithTheirJob),
    ("job_variants", Goes::WithTheirJob),
    ("jobs", Goes::WithTheirJob),
    ("keys", Goes::Never("the audit names them")),
    ("leadership", Goes::Few("farm")),
    ("outputs", Goes::WithTheirJob),
    ("prompts", Goes::WithTheirJob),
    ("removals", Goes::After("two days after the object was deleted")),
    ("retention", Goes::Few("policy")),
    ("spared_deaths", Goes::After("a day")),
    ("spreading_texts", Goes::After("the prompts have learnt of the text's end")),
    ("stage_rates", Goes::Few("stage and class of devices")),
    ("stored_bytes", Goes::Few("tenant")),
    ("submitted_days", Goes::After("the time for which usage is kept")),
    ("tenant_inputs", Goes::Unused),
    ("tenants", Goes::Few("tenant")),
    ("text_notes", Goes::WithTheirJob),
    ("unused_texts", Goes::Unused),
    ("usage_days", Goes::After("the time for which usage is kept")),
    ("usage_log", Goes::After("the leader has added them up")),
    ("webhook_events", Goes::After("a day after it was delivered, 7 days after it was given up")),
    ("webhooks", Goes::Few("webhook, of which a tenant has 20 at most")),
    ("work_log", Goes::After("the leader has added them up")),
    ("worker_drains", Goes::After("a time")),
    ("worker_failures", Goes::After("the time for which failures count")),
    ("workers_aside", Goes::After("a day")),
];

/// Those of a backend's tables that no rule says when their rows go.
#[must_use]
pub fn without_a_rule(tables: &[String]) -> Vec<&String> {
    let is_ruled = |table: &&String| ROWS.iter().any(|(name, _)| name == table);
    // What the migrations note about themselves.
    let is_own = |table: &&String| table.starts_with("_sqlx") || table.starts_with("sqlite_");
    tables.iter().filter(|table| !is_ruled(table) && !is_own(table)).collect()
}

/// Tables that are empty when all jobs are gone and all policies over.
pub fn empty_at_the_end() -> impl Iterator<Item = &'static str> {
    let goes = |of: &Goes| matches!(of, Goes::WithTheirJob | Goes::Unused);
    ROWS.iter().filter(move |(_, of)| goes(of)).map(|(name, _)| *name)
}
