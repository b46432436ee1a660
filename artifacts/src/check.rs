//! Checks a store before a service starts to use it: one sentence now is better than a fault in
//! every task.

use chrono::{DateTime, TimeDelta, Utc};
use darkroom_core::error::{Code, UserError};
use object_store::{
    Error, ObjectStore, ObjectStoreExt, PutOptions, PutPayload, PutResult, path::Path,
};
use uuid::Uuid;

use crate::{
    answer::{Answer, io_kind, spell},
    blob::{ArtifactStore, Backend, Creation, Credentials, read::at_most},
    open::FIELD,
};

/// A folder's clock only decides which files are old, and a week is old. Nothing is signed for it.
const MAX_CLOCK_DIFFERENCE_OF_A_FOLDER: TimeDelta = TimeDelta::days(1);
/// A larger difference between the clocks is reported; S3 refuses requests beyond 15 minutes.
const MAX_CLOCK_DIFFERENCE: TimeDelta = TimeDelta::minutes(5);

/// The store's error codes for credentials that are unknown or expired.
const OF_CREDENTIALS: [&str; 10] = [
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "ExpiredToken",
    "TokenRefreshRequired",
    "NotSignedUp",
    "InvalidSecurity",
    "AuthorizationHeaderMalformed",
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
];

/// The step of the check.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Write,
    Read,
    Delete,
}

impl ArtifactStore {
    /// Writes, reads and deletes a small probe with a unique name.
    ///
    /// If the storage keeps versions of deleted objects, one probe is written once and stays. From
    /// then on it is read, and written again on condition that it is absent, which the storage must
    /// refuse. So no versions pile up. The clocks are then compared only when the probe is really
    /// written; S3 itself refuses requests if the clocks differ a lot.
    ///
    /// # Errors
    /// One sentence: the endpoint cannot be reached, there is no such bucket, the credentials are
    /// wrong, the bucket may not be written to or read, the store has no conditional create, the
    /// clocks are too far apart (of a folder, that is only warned of), the disk is full.
    pub async fn check(&self) -> Result<(), UserError> {
        let backend = self.backend();
        if keeps_versions(backend).await? {
            return look_at_kept(backend).await;
        }
        let probe = Path::from(format!("probes/{}", Uuid::new_v4()));
        let result = try_out(backend, &probe).await;
        if result.is_err() {
            // In case it was written; the first error is the important one.
            let _ = backend.store.delete(&probe).await;
        }
        result
    }
}

/// The one probe that stays in storage that keeps versions.
const KEPT: &str = "probes/kept";

/// Whether the storage keeps versions: then it returns a version for each write. Asked once.
async fn keeps_versions(backend: &Backend) -> Result<bool, UserError> {
    if let Some(known) = backend.versions.get() {
        return Ok(*known);
    }
    let probe = Path::from(KEPT);
    let keeps = match stored_version(backend, &probe).await? {
        Some(versioned) => versioned,
        None => {
            let written = write_kept(backend, &probe).await;
            match written {
                Ok(result) if result.version.is_some() => true,
                Ok(_) => {
                    backend
                        .store
                        .delete(&probe)
                        .await
                        .map_err(|error| explain(backend, Step::Delete, &error))?;
                    false
                }
                // Another process was faster, and may have deleted it since.
                Err(Error::AlreadyExists { .. }) => {
                    stored_version(backend, &probe).await?.unwrap_or_default()
                }
                Err(error) => return Err(explain(backend, Step::Write, &error)),
            }
        }
    };
    Ok(*backend.versions.get_or_init(|| keeps))
}

/// Whether the probe that stays has a version; `None` if it does not exist.
async fn stored_version(backend: &Backend, probe: &Path) -> Result<Option<bool>, UserError> {
    match backend.store.head(probe).await {
        Ok(found) => Ok(Some(found.version.is_some())),
        // For any other error, the write gives a better message.
        Err(_) => Ok(None),
    }
}

async fn write_kept(backend: &Backend, probe: &Path) -> Result<PutResult, Error> {
    let mode = PutOptions::from(backend.creation.mode());
    backend.store.put_opts(probe, PutPayload::from(KEPT), mode).await
}

async fn look_at_kept(backend: &Backend) -> Result<(), UserError> {
    let probe = Path::from(KEPT);
    let found = match backend.store.get(&probe).await {
        Err(Error::NotFound { .. }) => {
            write_kept(backend, &probe)
                .await
                .map_err(|error| explain(backend, Step::Write, &error))?;
            return Ok(());
        }
        found => found.map_err(|error| explain(backend, Step::Read, &error))?,
    };
    let bytes = at_most(found, KEPT.len() as u64).await;
    let bytes = bytes.map_err(|error| explain(backend, Step::Read, &error))?;
    if bytes != KEPT {
        return Err(unfaithful(backend));
    }
    if backend.creation == Creation::Replaces {
        // Every write would create a version.
        return Ok(());
    }
    match write_kept(backend, &probe).await {
        Err(Error::AlreadyExists { .. }) => Ok(()),
        Ok(_) => Err(unconditional(backend)),
        Err(error) => Err(explain(backend, Step::Write, &error)),
    }
}

fn unfaithful(backend: &Backend) -> UserError {
    problem(
        backend,
        Code::FailedPrecondition,
        "ARTIFACTS_UNFAITHFUL",
        "returned other bytes than were written",
    )
}

async fn try_out(backend: &Backend, probe: &Path) -> Result<(), UserError> {
    let failed = |step| move |error| explain(backend, step, &error);
    let mode = || PutOptions::from(backend.creation.mode());
    let payload = PutPayload::from(probe.as_ref().to_owned());
    backend.store.put_opts(probe, payload.clone(), mode()).await.map_err(failed(Step::Write))?;
    if backend.creation == Creation::IfAbsent {
        match backend.store.put_opts(probe, payload, mode()).await {
            Err(Error::AlreadyExists { .. }) => {}
            Ok(_) => return Err(unconditional(backend)),
            Err(error) => return Err(explain(backend, Step::Write, &error)),
        }
    }
    let found = backend.store.get(probe).await.map_err(failed(Step::Read))?;
    let written = found.meta.last_modified;
    let length = probe.as_ref().len() as u64;
    let bytes = at_most(found, length).await.map_err(failed(Step::Read))?;
    if bytes != probe.as_ref() {
        return Err(unfaithful(backend));
    }
    check_clock(backend, written)?;
    backend.store.delete(probe).await.map_err(failed(Step::Delete))
}

fn check_clock(backend: &Backend, written: DateTime<Utc>) -> Result<(), UserError> {
    let ahead = written - Utc::now();
    if ahead.abs() <= MAX_CLOCK_DIFFERENCE {
        return Ok(());
    }
    let wrong = clock(backend, Some(ahead));
    if backend.folder.is_some() && ahead.abs() <= MAX_CLOCK_DIFFERENCE_OF_A_FOLDER {
        tracing::warn!("{}", wrong.message);
        return Ok(());
    }
    Err(wrong)
}

fn explain(backend: &Backend, step: Step, error: &Error) -> UserError {
    let answer = Answer::of(error);
    let said = &answer.sentence;
    let precondition =
        |reason, what: String| problem(backend, Code::FailedPrecondition, reason, &what);
    if answer.is_of_clock() {
        return clock(backend, answer.clock_ahead);
    }
    if answer.is_of_bucket() || matches!(error, Error::NotFound { .. }) && step == Step::Write {
        let bucket = backend.bucket.as_deref().unwrap_or_default();
        let what =
            format!("cannot be used: there is no bucket {bucket:?}; create it, or correct the URL");
        return precondition("ARTIFACTS_NO_BUCKET", what);
    }
    if answer.is(&OF_CREDENTIALS) || matches!(error, Error::Unauthenticated { .. }) {
        return precondition(
            "ARTIFACTS_CREDENTIALS",
            format!(
                "refused the credentials ({said}); check the key and its secret in the environment"
            ),
        );
    }
    let io = io_kind(error);
    if answer.is_of_space() || io == Some(std::io::ErrorKind::StorageFull) {
        return problem(
            backend,
            Code::ResourceExhausted,
            "ARTIFACTS_NO_SPACE",
            "has no space left",
        );
    }
    let denied = Some(std::io::ErrorKind::PermissionDenied);
    if matches!(error, Error::PermissionDenied { .. }) || io == denied {
        let (reason, what) = match step {
            Step::Write => ("ARTIFACTS_READ_ONLY", "may not be written to"),
            Step::Read => ("ARTIFACTS_UNREADABLE", "may be written to but not read"),
            Step::Delete => {
                ("ARTIFACTS_NO_DELETE", "may be written to and read but nothing may be deleted")
            }
        };
        let whose = if backend.bucket.is_some() { " with these credentials" } else { "" };
        return precondition(reason, format!("{what}{whose} ({said})"));
    }
    if step == Step::Write
        && (answer.status == Some(501) || matches!(error, Error::NotImplemented { .. }))
    {
        return unconditional(backend);
    }
    if backend.credentials == Credentials::Missing && answer.status.is_none() {
        let what = format!(
            "cannot be reached, or there are no credentials: AWS_ACCESS_KEY_ID is not set and no \
             instance role answers ({said})"
        );
        return problem(backend, Code::Unavailable, "ARTIFACTS_UNREACHABLE", &what);
    }
    if backend.bucket.is_none() {
        return problem(
            backend,
            Code::Unavailable,
            "ARTIFACTS_UNUSABLE",
            &format!("cannot be used: {said}"),
        );
    }
    problem(
        backend,
        Code::Unavailable,
        "ARTIFACTS_UNREACHABLE",
        &format!("cannot be reached: {said}"),
    )
}

fn clock(backend: &Backend, ahead: Option<TimeDelta>) -> UserError {
    let by = ahead.map_or_else(String::new, |ahead| {
        let direction = if ahead > TimeDelta::zero() { "behind" } else { "ahead of" };
        format!(": this machine's is {} {direction} the store's", spell(ahead))
    });
    let what = format!("has another time of day than this machine{by}; set the clock right");
    problem(backend, Code::FailedPrecondition, "ARTIFACTS_CLOCK", &what)
}

fn unconditional(backend: &Backend) -> UserError {
    problem(
        backend,
        Code::FailedPrecondition,
        "ARTIFACTS_NO_CONDITIONAL_CREATE",
        "does not support conditional creates (If-None-Match); if you have no better store, add \
         conditional_put=disabled to the URL",
    )
}

fn problem(backend: &Backend, code: Code, reason: &str, what: &str) -> UserError {
    let message = format!("the artifact store {} {what}", backend.name);
    UserError { field: Some(FIELD.to_owned()), ..UserError::new(code, reason, message) }
}

#[cfg(test)]
mod tests;
