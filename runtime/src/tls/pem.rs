//! Reads certificates and keys from PEM files, and says in one sentence what is wrong with one.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use darkroom_core::{error::UserError, shown::shown_path};
use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::files;

/// Most bytes of such a file: a bundle of every public authority has 300 KB.
const MOST: u64 = 4 << 20;
/// Operators are warned of a certificate that has this long left.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);
/// The bit of a file that everybody may read.
const OTHERS: u32 = 0o004;

/// A file that a setting names, and its bytes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Named {
    setting: &'static str,
    path: PathBuf,
    bytes: Vec<u8>,
    /// The file's permissions.
    mode: u32,
}

impl Named {
    pub(super) fn read(setting: &'static str, path: &Path) -> Result<Self, UserError> {
        match files::read_with_mode(path, MOST) {
            Ok((bytes, mode)) => Ok(Self { setting, path: path.to_owned(), bytes, mode }),
            Err(unread) => Err(wrong(setting, path, &format!("which cannot be read: {unread}"))),
        }
    }

    /// Its certificates, in the order of the file; at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, UserError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        match found {
            Err(_) => Err(self.wrong("which is damaged: it is not PEM; accepted: a PEM file")),
            Ok(none) if none.is_empty() && self.has("PRIVATE KEY") => Err(self.wrong(
                "which has a key and no certificate; accepted: a PEM file with BEGIN CERTIFICATE",
            )),
            Ok(none) if none.is_empty() => {
                Err(self
                    .wrong("which has no certificate; accepted: a PEM file with BEGIN CERTIFICATE"))
            }
            Ok(found) => {
                for certificate in &found {
                    if X509Certificate::from_der(certificate).is_err() {
                        return Err(self.wrong("which has a damaged certificate"));
                    }
                }
                Ok(found)
            }
        }
    }

    /// Its certificates, as authorities to trust.
    pub(super) fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, UserError> {
        let found = self.certificates()?;
        let mut tried = RootCertStore::empty();
        for certificate in &found {
            if tried.add(certificate.clone()).is_err() {
                return Err(self.wrong("which has a certificate that cannot be an authority's"));
            }
        }
        Ok(found)
    }

    /// Its private key.
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, UserError> {
        match PrivateKeyDer::from_pem_slice(&self.bytes) {
            _ if self.is_encrypted() => Err(self.wrong(&format!(
                "whose key has a password; accepted: a key without one, as `openssl pkey -in {} -out NEW` writes it",
                shown_path(&self.path)
            ))),
            Ok(key) => Ok(key),
            Err(pem::Error::NoItemsFound) if self.has("CERTIFICATE") => Err(self
                .wrong("which has a certificate and no key; accepted: a PEM file with PRIVATE KEY")),
            Err(pem::Error::NoItemsFound) => {
                Err(self.wrong("which has no key; accepted: a PEM file with PRIVATE KEY"))
            }
            Err(_) => Err(self.wrong("which is damaged: it is not PEM; accepted: a PEM file")),
        }
    }

    /// Logs a warning if other users can read the key.
    pub(super) fn warn_if_others_may_read(&self) {
        if self.mode & OTHERS != 0 {
            tracing::warn!(
                setting = self.setting,
                path = %shown_path(&self.path),
                mode = format!("{:04o}", self.mode & 0o7777),
                "every user of this machine can read the key; run `chmod 600` on it"
            );
        }
    }

    /// Logs that the first certificate is over, or soon, or not valid yet.
    pub(super) fn warn_of_dates(&self) {
        let Ok(found) = self.certificates() else { return };
        let Some((_, certificate)) =
            found.first().and_then(|first| X509Certificate::from_der(first).ok())
        else {
            return;
        };
        let (from, until) = (certificate.validity().not_before, certificate.validity().not_after);
        let now = SystemTime::now();
        let (from, until) = (moment(from.timestamp()), moment(until.timestamp()));
        let (setting, path) = (self.setting, shown_path(&self.path));
        if now > until {
            let until = date(until);
            tracing::warn!(setting, %path, until, "the certificate has expired; clients refuse it");
        } else if now < from {
            let from = date(from);
            tracing::warn!(setting, %path, from, "the certificate is not valid yet; clients refuse it");
        } else if now + SOON > until {
            let until = date(until);
            tracing::warn!(setting, %path, until, "the certificate expires soon");
        }
    }

    /// A refusal of this file.
    pub(super) fn wrong(&self, why: &str) -> UserError {
        wrong(self.setting, &self.path, why)
    }

    /// The file, for another file's sentence.
    pub(super) fn shown(&self) -> String {
        format!("{} {}", self.setting, shown_path(&self.path))
    }

    fn has(&self, words: &str) -> bool {
        let begin = words.as_bytes();
        self.bytes.windows(begin.len()).any(|window| window == begin)
    }

    fn is_encrypted(&self) -> bool {
        self.has("BEGIN ENCRYPTED PRIVATE KEY") || self.has("Proc-Type: 4,ENCRYPTED")
    }
}

fn wrong(setting: &str, path: &Path, why: &str) -> UserError {
    UserError::invalid(setting, format!("{setting} is {}, {why}", shown_path(path)))
}

fn moment(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let moved = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    moved.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A date for people, in UTC. Any year: certificates may have dates far away.
pub(super) fn date(moment: SystemTime) -> String {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // After the year 9999, which HTTP's dates cannot write.
    if since.as_secs() >= 253_402_300_800 {
        return "a date after the year 9999".to_owned();
    }
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since)
}
