//! URLs that may contain a password: used in full, shown without it.
//!
//! Everybody on a machine can read the command lines of its processes. So a URL can also come from
//! the environment, or, as `@FILE`, from a file.

use std::{fmt, path::Path, str::FromStr};

use crate::{files, terminal::shown_path};

/// Most bytes of a file with a URL.
const MOST: u64 = 64 << 10;

/// A URL of a database, a queue or a storage. Its `Debug` never shows user, password or query.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl {
    url: String,
    /// Whether the URL itself was given, and not a file.
    given: bool,
}

impl SecretUrl {
    /// The URL as it was given, with the password: for connecting, not for logs.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.url
    }

    /// Whether the given value itself contains a password: it is not in a file, but
    /// behind the user, or in the query.
    #[must_use]
    pub fn shows_password(&self) -> bool {
        if !self.given {
            return false;
        }
        let (url, query) = self.url.split_once('?').unwrap_or((&self.url, ""));
        let url = url.split_once("://").map_or(url, |(_, rest)| rest);
        let user = url.rsplit_once('@').map_or("", |(user, _)| user);
        user.split_once(':').is_some_and(|(_, password)| !password.is_empty())
            || query.split('&').any(|pair| {
                pair.split_once('=').is_some_and(|(key, value)| {
                    !value.is_empty() && ["password", "sslpassword"].contains(&key)
                })
            })
    }
}

impl FromStr for SecretUrl {
    type Err = String;

    /// The URL itself, or `@FILE` for the only line of a file.
    fn from_str(text: &str) -> Result<Self, String> {
        let Some(file) = text.strip_prefix('@') else {
            return Ok(Self { url: text.to_owned(), given: true });
        };
        let path = Path::new(file);
        let failed = |why: String| format!("the file {} {why}", shown_path(path));
        let bytes =
            files::read(path, MOST).map_err(|error| failed(format!("is not read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|_| failed("is not UTF-8".to_owned()))?;
        let url = text.trim();
        if url.is_empty() || url.contains(['\n', '\r']) {
            return Err(failed("does not hold one URL; accepted: one line".to_owned()));
        }
        Ok(Self { url: url.to_owned(), given: false })
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.split('?').next().unwrap_or_default();
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
            let url: SecretUrl = url.parse().expect("a URL");
            assert_eq!(format!("{url:?}"), shown);
            assert!(!format!("{url:?}").contains("s3cr"));
        }
    }

    #[test]
    fn passwords_are_found_wherever_a_url_has_them() {
        for (url, has) in [
            ("postgres://user:s3cr@t/x@host:5432/farm", true),
            ("rediss://:s3cr@host/3", true),
            ("postgres://host/farm?user=u&password=s3cr", true),
            ("postgres://user@host:5432/farm", false),
            ("postgres://user:@host/farm", false),
            ("redis://127.0.0.1:6379", false),
            ("postgres://a:1,b:2/farm", false),
            ("sqlite:farm.sqlite", false),
        ] {
            let parsed: SecretUrl = url.parse().expect("a URL");
            assert_eq!(parsed.shows_password(), has, "{url}");
        }
    }

    #[test]
    fn a_url_comes_from_a_file_that_has_only_that() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("database");
        let at = format!("@{}", file.to_str().expect("UTF-8"));
        std::fs::write(&file, "postgres://user:s3cr@host/farm\n").expect("written");
        let url: SecretUrl = at.parse().expect("a URL");
        assert_eq!(url.expose(), "postgres://user:s3cr@host/farm");
        assert!(!url.shows_password() && !format!("{url:?}").contains("s3cr"));
        for (content, says) in [("", "one line"), ("a\nb", "one line"), ("\u{0}\n\n", "")] {
            std::fs::write(&file, content).expect("written");
            match at.parse::<SecretUrl>() {
                Err(error) => assert!(error.contains(says) && !error.contains("s3cr"), "{error}"),
                Ok(url) => assert_eq!(url.expose(), content.trim()),
            }
        }
        std::fs::remove_file(&file).expect("removed");
        assert!(at.parse::<SecretUrl>().expect_err("absent").contains("is not read"));
        assert!("@/dev/zero".parse::<SecretUrl>().expect_err("a device").contains("a device"));
    }
}
