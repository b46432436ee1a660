//! URLs that may hold a password: used as they are, shown without it.

use std::fmt;

/// A URL of a database, a queue or a storage. Its `Debug` never shows user, password or query.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// The URL as it was given, password included: for connecting, not for logs.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.0.split('?').next().unwrap_or_default();
        let shown = match (url.split_once("://"), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, place))) => format!("{scheme}://…@{place}"),
            (None, Some((_, place))) => format!("…@{place}"),
            (_, None) => url.to_owned(),
        };
        f.write_str(&shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            ("postgres://user:s3cr@t/x@host:5432/farm", "postgres://…@host:5432/farm"),
            ("rediss://:s3cr@host/3", "rediss://…@host/3"),
            ("postgres://host/farm?user=u&password=s3cr", "postgres://host/farm"),
            ("user:s3cr@host", "…@host"),
            ("sqlite:farm.sqlite", "sqlite:farm.sqlite"),
            ("/mnt/artifacts", "/mnt/artifacts"),
        ] {
            let url = SecretUrl::from(url.to_owned());
            assert_eq!(format!("{url:?}"), shown);
            assert!(!format!("{url:?}").contains("s3cr"));
        }
    }
}
