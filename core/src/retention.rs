//! How long what jobs and users have stored is kept.
//!
//! Without a policy it is kept for ever; a new record has one for previews and one for files. A
//! policy applies to jobs that have ended, and to what no job needs, so it never removes work under
//! way.

use std::{fmt, str::FromStr, time::Duration};

use crate::{error::UserError, job_state::JobState};

/// How long a result may still be believed after its worker got its keys, beside a lease: what is
/// removed sooner could belong to work that was under way a moment ago.
pub const BELIEVED: Duration = Duration::from_secs(12 * 3600 + 600);
/// Longest time that a policy may name.
pub const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// What a policy removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// The whole job: its rows, pictures and manifests.
    Jobs,
    /// The final pictures. The job stays, and a retry renders them again.
    Pictures,
    /// What the stages before the last one have stored. A small preview of each stays.
    Intermediates,
    /// Embeddings of texts that no job needs any more.
    Embeddings,
    /// Uploaded pictures that no job of their tenant uses.
    Inputs,
    /// Previews and sheets. They are made again when somebody looks. Of a removed intermediate the
    /// smallest preview stays.
    Previews,
    /// Files that say nothing of their end themselves, and batches that have ended. What an open
    /// batch reads stays.
    Files,
}

impl Subject {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Jobs,
        Self::Pictures,
        Self::Intermediates,
        Self::Embeddings,
        Self::Inputs,
        Self::Previews,
        Self::Files,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Pictures => "pictures",
            Self::Intermediates => "intermediates",
            Self::Embeddings => "embeddings",
            Self::Inputs => "inputs",
            Self::Previews => "previews",
            Self::Files => "files",
        }
    }

    /// Whether a policy on it says how the jobs ended.
    #[must_use]
    pub fn is_of_jobs(self) -> bool {
        match self {
            Self::Jobs | Self::Pictures | Self::Intermediates => true,
            Self::Embeddings | Self::Inputs | Self::Previews | Self::Files => false,
        }
    }

    /// Whether a tenant can have a policy of its own on it.
    #[must_use]
    pub fn is_of_tenants(self) -> bool {
        match self {
            Self::Jobs | Self::Pictures | Self::Intermediates | Self::Inputs | Self::Files => true,
            Self::Embeddings | Self::Previews => false,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Subject {
    type Err = UserError;

    fn from_str(name: &str) -> Result<Self, UserError> {
        Self::ALL.into_iter().find(|subject| subject.name() == name).ok_or_else(|| {
            let accepted = "jobs, pictures, intermediates, embeddings, inputs, previews, files";
            UserError::invalid("subject", format!("subject is {name:?}; accepted: {accepted}"))
        })
    }
}

/// What a policy is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// The tenant; empty: every tenant without a policy of its own.
    pub tenant: String,
    /// What it removes.
    pub subject: Subject,
    /// How the jobs ended; `None` for what belongs to no job: embeddings, inputs, previews
    /// and files.
    pub outcome: Option<JobState>,
}

impl Scope {
    /// Checks that a policy can be about this.
    ///
    /// # Errors
    /// If it would remove work under way, or its parts do not fit together.
    pub fn check(&self) -> Result<(), UserError> {
        let subject = self.subject;
        if !self.tenant.is_empty() && !subject.is_of_tenants() {
            let message = format!(
                "tenant is set for {subject}; accepted: none, because tenants may share them"
            );
            return Err(UserError::invalid("tenant", message));
        }
        match (subject.is_of_jobs(), self.outcome) {
            (false, None) => Ok(()),
            (false, Some(_)) => {
                let message = format!(
                    "outcome is set for {subject}; accepted: none, because they belong to no job"
                );
                Err(UserError::invalid("outcome", message))
            }
            (true, Some(state)) if state.terminal() => Ok(()),
            (true, Some(state)) => {
                let message = format!(
                    "outcome is {state}, and such a policy would remove running work; accepted: done, failed, cancelled"
                );
                Err(UserError::invalid("outcome", message))
            }
            (true, None) => Err(UserError::invalid(
                "outcome",
                "outcome is missing; accepted: done, failed, cancelled",
            )),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.subject)?;
        if let Some(outcome) = self.outcome {
            write!(f, " of {outcome} jobs")?;
        }
        if !self.tenant.is_empty() {
            write!(f, " of tenant {:?}", self.tenant)?;
        }
        Ok(())
    }
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What it is about.
    pub scope: Scope,
    /// How long it is kept: after the job ended; after the text was last needed, or the picture
    /// last uploaded or used; after the preview was made, or the file stored; after the batch
    /// ended. `None`: for ever.
    pub keep: Option<Duration>,
}

impl Policy {
    /// Checks a policy for a farm whose leases last so long.
    ///
    /// # Errors
    /// If it is about work under way, or is shorter than work may still be believed.
    pub fn check(&self, lease: Duration) -> Result<(), UserError> {
        self.scope.check()?;
        let Some(keep) = self.keep else { return Ok(()) };
        let shortest = lease.saturating_add(BELIEVED);
        if (shortest..=LONGEST).contains(&keep) {
            return Ok(());
        }
        let message = format!(
            "seconds is {}; accepted: {} (the longest lease plus the time for which results are believed) to {}, or 0 to keep for ever",
            keep.as_secs(),
            shortest.as_secs() + u64::from(shortest.subsec_nanos() > 0),
            LONGEST.as_secs()
        );
        Err(UserError::invalid("seconds", message))
    }

    /// The policy as it is told where it removed something.
    #[must_use]
    pub fn told(&self) -> String {
        match self.keep {
            Some(keep) => format!("the retention of {}: {} s", self.scope, keep.as_secs()),
            None => format!("the retention of {}: for ever", self.scope),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(subject: Subject, outcome: Option<JobState>, seconds: u64) -> Policy {
        let scope = Scope { tenant: String::new(), subject, outcome };
        Policy {
            scope,
            keep: Some(seconds).filter(|seconds| *seconds > 0).map(Duration::from_secs),
        }
    }

    #[test]
    fn a_policy_is_about_jobs_that_have_ended() {
        for state in JobState::ALL {
            let checked = policy(Subject::Pictures, Some(state), 0).check(Duration::ZERO);
            assert_eq!(checked.is_ok(), state.terminal(), "{state}: {checked:?}");
        }
        let running = policy(Subject::Jobs, Some(JobState::Active), 0).check(Duration::ZERO);
        let message = running.expect_err("running work").message;
        assert!(message.contains("would remove running work; accepted: done"), "{message}");
        policy(Subject::Jobs, None, 0).check(Duration::ZERO).expect_err("no outcome");
    }

    #[test]
    fn what_belongs_to_no_job_has_no_outcome_and_what_tenants_share_no_tenant() {
        for subject in Subject::ALL.into_iter().filter(|subject| !subject.is_of_jobs()) {
            let all = policy(subject, None, 0);
            all.check(Duration::ZERO).expect("a policy");
            let of_jobs = policy(subject, Some(JobState::Done), 0).check(Duration::ZERO);
            let refused = of_jobs.expect_err("no job");
            assert_eq!(refused.field.as_deref(), Some("outcome"), "{refused}");
            let checked = Scope { tenant: "t".to_owned(), ..all.scope }.check();
            match checked {
                Ok(()) => assert!(matches!(subject, Subject::Inputs | Subject::Files)),
                Err(refused) => assert_eq!(refused.field.as_deref(), Some("tenant"), "{refused}"),
            }
        }
    }

    #[test]
    fn nothing_is_removed_while_its_result_may_still_come() {
        let lease = Duration::from_millis(10_500);
        for (seconds, fits) in
            [(0, true), (1, false), (43_810, false), (43_811, true), (u64::MAX, false)]
        {
            let checked = policy(Subject::Jobs, Some(JobState::Done), seconds).check(lease);
            assert_eq!(checked.is_ok(), fits, "{seconds}: {checked:?}");
        }
        let short = policy(Subject::Jobs, Some(JobState::Done), 60).check(lease);
        let message = short.expect_err("too short").message;
        assert!(
            message.starts_with("seconds is 60; accepted: 43811 (the longest lease"),
            "{message}"
        );
    }

    #[test]
    fn a_policy_says_what_it_is() {
        let mut policy = policy(Subject::Pictures, Some(JobState::Failed), 90_000);
        assert_eq!(policy.told(), "the retention of pictures of failed jobs: 90000 s");
        policy.scope.tenant = "a".to_owned();
        assert_eq!(
            policy.told(),
            "the retention of pictures of failed jobs of tenant \"a\": 90000 s"
        );
        for subject in Subject::ALL {
            assert_eq!(subject.name().parse(), Ok(subject));
        }
        "rows".parse::<Subject>().expect_err("no subject");
    }
}
