//! Retention policies, and the call that makes the cleaner work now.

use std::{sync::atomic::Ordering, time::Duration};

use darkroom_core::{
    error::UserError,
    job_state::JobState,
    retention::{Policy, Scope, Subject},
    tenant,
};
use darkroom_proto::v1;

use super::{convert, farm::Farm, refused};
use crate::{
    cleaner,
    error::Error,
    old_previews::{Fate, old_previews},
    store::{records::Term, removal::Due},
};

impl Farm {
    pub(super) async fn set_policy(
        &self,
        request: v1::SetRetentionRequest,
    ) -> Result<v1::RetentionPolicy, Error> {
        let policy = policy(&request).map_err(refused)?;
        policy.check(self.shared.lease().await?).map_err(refused)?;
        let changed = self.front.set_retention(&policy).await?;
        self.call.tell_changed(changed);
        self.shared.events.clean.notify_one();
        Ok(message(&policy))
    }

    pub(super) async fn kept(
        &self,
        request: v1::GetRetentionRequest,
    ) -> Result<v1::GetRetentionResponse, Error> {
        let mut policies = self.front.retention().await?;
        if !request.tenant.is_empty() {
            let own: Vec<Scope> = policies
                .iter()
                .filter(|policy| policy.scope.tenant == request.tenant)
                .map(|policy| Scope { tenant: String::new(), ..policy.scope.clone() })
                .collect();
            policies.retain(|policy| {
                let is_farms = policy.scope.tenant.is_empty();
                policy.scope.tenant == request.tenant || is_farms && !own.contains(&policy.scope)
            });
        }
        Ok(v1::GetRetentionResponse { policies: policies.iter().map(message).collect() })
    }

    pub(super) async fn clean(
        &self,
        request: v1::CleanFarmRequest,
    ) -> Result<v1::CleanFarmResponse, Error> {
        check(&request).map_err(refused)?;
        let (shared, store) = (&self.shared, self.front.as_ref());
        let limit = shared.options.clean_call;
        let mut answer = v1::CleanFarmResponse::default();
        if request.orphans {
            let term = if request.remove { Some(self.leading().await?) } else { None };
            let orphans = cleaner::orphans(shared, store, term, limit).await?;
            answer.orphans_at_least = orphans.at_least;
            let objects = |(kind, of): (_, cleaner::Objects)| v1::OrphanObjects {
                kind: format!("{kind}"),
                objects: of.count,
                bytes: of.bytes,
            };
            answer.orphans = orphans.by_kind.into_iter().map(objects).collect();
            answer.orphans.retain(|of| of.objects > 0);
        }
        if request.dry_run {
            let now = store.clock_ms().await?;
            answer.due = store.due(now).await?.iter().map(due).collect();
            let time = (Duration::ZERO, limit);
            let previews = old_previews(shared, store, Fate::Counted, time).await?;
            answer.due.extend(previews.as_ref().map(due));
        } else {
            if request.restored {
                self.leading().await?;
                shared.restored.store(true, Ordering::Relaxed);
            }
            let cleaned = cleaner::clean(shared, store, (Duration::ZERO, limit)).await?;
            answer.expired_jobs = cleaned.expired;
            (answer.jobs, answer.images) = (cleaned.jobs, cleaned.images);
            (answer.outputs, answer.texts) = (cleaned.outputs, cleaned.texts);
            (answer.inputs, answer.previews) = (cleaned.inputs, cleaned.previews);
            (answer.files, answer.batches) = (cleaned.files, cleaned.batches);
            (answer.deleted, answer.failed) = (cleaned.deleted, cleaned.failed);
        }
        let leavings = store.leavings().await?;
        answer.waiting = leavings.candidates + leavings.marked;
        Ok(answer)
    }
}

impl Farm {
    /// The term of this coordinator, or the refusal of what only the leader may do.
    async fn leading(&self) -> Result<Term, Error> {
        self.shared.lead().await?.ok_or_else(|| refused(cleaner::not_leading()))
    }
}

/// What a policy is about, for the audit.
pub(super) fn scope_of(policy: &v1::RetentionPolicy) -> String {
    let scope = v1::SetRetentionRequest {
        tenant: policy.tenant.clone(),
        subject: policy.subject,
        outcome: policy.outcome,
        seconds: policy.seconds,
    };
    self::policy(&scope).map_or_else(|_| String::new(), |policy| policy.scope.to_string())
}

fn check(request: &v1::CleanFarmRequest) -> Result<(), UserError> {
    if request.remove && !request.orphans {
        let message = "remove is true, and orphans is not; accepted: both, or neither";
        return Err(UserError::invalid("remove", message));
    }
    for (field, given) in [("remove", request.remove), ("restored", request.restored)] {
        if given && request.dry_run {
            let message = format!("{field} is true, and so is dry_run; accepted: one of the two");
            return Err(UserError::invalid(field, message));
        }
    }
    Ok(())
}

/// The policy that a request asks for.
fn policy(request: &v1::SetRetentionRequest) -> Result<Policy, UserError> {
    let subject = match v1::RetentionSubject::try_from(request.subject) {
        Ok(v1::RetentionSubject::Jobs) => Subject::Jobs,
        Ok(v1::RetentionSubject::Pictures) => Subject::Pictures,
        Ok(v1::RetentionSubject::Intermediates) => Subject::Intermediates,
        Ok(v1::RetentionSubject::Embeddings) => Subject::Embeddings,
        Ok(v1::RetentionSubject::Inputs) => Subject::Inputs,
        Ok(v1::RetentionSubject::Previews) => Subject::Previews,
        Ok(v1::RetentionSubject::Files) => Subject::Files,
        Ok(v1::RetentionSubject::Unspecified) | Err(_) => {
            let message = format!(
                "subject is {}; accepted: jobs, pictures, intermediates, embeddings, inputs, previews, files",
                request.subject
            );
            return Err(UserError::invalid("subject", message));
        }
    };
    if !request.tenant.is_empty() {
        tenant::check("tenant", &request.tenant)?;
    }
    let outcome = match v1::JobState::try_from(request.outcome) {
        Ok(v1::JobState::Unspecified) => None,
        Ok(v1::JobState::Done) => Some(JobState::Done),
        Ok(v1::JobState::Failed) => Some(JobState::Failed),
        Ok(v1::JobState::Cancelled) => Some(JobState::Cancelled),
        Ok(v1::JobState::Active) => Some(JobState::Active),
        Ok(v1::JobState::Paused) => Some(JobState::Paused),
        Ok(v1::JobState::Receiving) => Some(JobState::Receiving),
        Err(_) => {
            let message =
                format!("outcome is {}; accepted: done, failed, cancelled", request.outcome);
            return Err(UserError::invalid("outcome", message));
        }
    };
    let scope = Scope { tenant: request.tenant.clone(), subject, outcome };
    let keep = Some(request.seconds).filter(|seconds| *seconds > 0).map(Duration::from_secs);
    Ok(Policy { scope, keep })
}

fn message(policy: &Policy) -> v1::RetentionPolicy {
    let subject = match policy.scope.subject {
        Subject::Jobs => v1::RetentionSubject::Jobs,
        Subject::Pictures => v1::RetentionSubject::Pictures,
        Subject::Intermediates => v1::RetentionSubject::Intermediates,
        Subject::Embeddings => v1::RetentionSubject::Embeddings,
        Subject::Inputs => v1::RetentionSubject::Inputs,
        Subject::Previews => v1::RetentionSubject::Previews,
        Subject::Files => v1::RetentionSubject::Files,
    };
    v1::RetentionPolicy {
        tenant: policy.scope.tenant.clone(),
        subject: subject.into(),
        outcome: policy.scope.outcome.map_or(0, |outcome| convert::job_state(outcome) as i32),
        seconds: policy.keep.map_or(0, |keep| keep.as_secs()),
    }
}

fn due(due: &Due) -> v1::DueRemoval {
    let Due { policy, count, bytes, at_least } = due;
    let (count, bytes, at_least) = (*count, *bytes, *at_least);
    v1::DueRemoval { policy: Some(message(policy)), count, bytes, at_least }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_come_back_as_they_were_set() {
        for (subject, outcome) in [(1, 4), (2, 5), (3, 6), (4, 0), (5, 0), (6, 0), (7, 0)] {
            let request = v1::SetRetentionRequest {
                tenant: if outcome > 0 { "t".to_owned() } else { String::new() },
                subject,
                outcome,
                seconds: 100_000,
            };
            let set = policy(&request).expect("a policy");
            set.check(Duration::from_secs(10)).expect("it fits");
            let told = message(&set);
            assert_eq!((told.subject, told.outcome), (subject, outcome));
            assert_eq!((told.tenant.as_str(), told.seconds), (request.tenant.as_str(), 100_000));
            assert_eq!(scope_of(&told), set.scope.to_string());
        }
    }

    #[test]
    fn what_is_no_policy_is_refused_by_its_field() {
        let good = v1::SetRetentionRequest { subject: 1, outcome: 4, ..Default::default() };
        for (request, field) in [
            (v1::SetRetentionRequest { subject: 0, ..good.clone() }, "subject"),
            (v1::SetRetentionRequest { subject: 99, ..good.clone() }, "subject"),
            (v1::SetRetentionRequest { outcome: 99, ..good.clone() }, "outcome"),
            (v1::SetRetentionRequest { tenant: "a\u{202e}b".to_owned(), ..good }, "tenant"),
        ] {
            let refused = policy(&request).expect_err(field);
            assert_eq!(refused.field.as_deref(), Some(field), "{refused}");
        }
        let both = v1::CleanFarmRequest { dry_run: true, restored: true, ..Default::default() };
        assert_eq!(check(&both).expect_err("both").field.as_deref(), Some("restored"));
        let alone = v1::CleanFarmRequest { remove: true, ..Default::default() };
        assert_eq!(check(&alone).expect_err("alone").field.as_deref(), Some("remove"));
    }
}
