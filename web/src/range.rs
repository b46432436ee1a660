//! The part of a file that a request wants (RFC 9110 §14).

use http::{HeaderMap, Method, header, request::Parts};

/// What a request wants of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it: there is no range, or none that is understood, or one of another file.
    All,
    /// From this byte on, to that one if it is there.
    From(u64, Option<u64>),
    /// This many bytes at its end.
    Last(u64),
}

/// Bytes of a file; at least one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) length: u64,
}

/// The file has none of the bytes that are wanted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Beyond;

impl Wanted {
    /// What a request asks for of the file with this tag. Several ranges at once are answered with
    /// the whole file, which a server may do. Ranges are for GET alone.
    pub(crate) fn of(asked: &Parts, tag: &str) -> Self {
        if asked.method == Method::GET { Self::by(&asked.headers, tag) } else { Self::All }
    }

    fn by(headers: &HeaderMap, tag: &str) -> Self {
        if headers.get(header::IF_RANGE).is_some_and(|of| of.as_bytes() != tag.as_bytes()) {
            return Self::All;
        }
        let mut ranges = headers.get_all(header::RANGE).iter();
        let (Some(range), None) = (ranges.next(), ranges.next()) else { return Self::All };
        let range = range.to_str().ok().and_then(|range| range.trim().strip_prefix("bytes="));
        let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
            return Self::All;
        };
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().unwrap_or(u64::MAX))
        };
        match (number(first), number(last)) {
            (None, Some(bytes)) if first.is_empty() => Self::Last(bytes),
            (Some(first), None) if last.is_empty() => Self::From(first, None),
            (Some(first), Some(last)) if first <= last => Self::From(first, Some(last)),
            _ => Self::All,
        }
    }

    /// The bytes of a file of this size; `None`: all of it.
    ///
    /// # Errors
    /// [`Beyond`] if the file has none of them.
    pub(crate) fn within(self, size: u64) -> Result<Option<Range>, Beyond> {
        let (first, length) = match self {
            Self::All => return Ok(None),
            Self::From(first, last) if first < size => {
                let last = last.unwrap_or(u64::MAX).min(size - 1);
                (first, last - first + 1)
            }
            Self::Last(bytes) if bytes > 0 && size > 0 => {
                let length = bytes.min(size);
                (size - length, length)
            }
            _ => return Err(Beyond),
        };
        Ok(Some(Range { first, length }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_range_means_the_whole_file() {
        let wanted = |ranges: &[&str]| {
            let mut headers = HeaderMap::new();
            for range in ranges {
                headers.append(header::RANGE, range.parse().expect("a header"));
            }
            Wanted::by(&headers, "\"x\"")
        };
        for none in [
            &[][..],
            &[""],
            &["bytes"],
            &["bytes=-"],
            &["bytes=a-b"],
            &["bytes=5-2"],
            &["bytes=0-1,3-4"],
            &["items=0-1"],
            &["bytes=0-1", "bytes=2-3"],
            &["bytes=+1-2"],
        ] {
            assert_eq!(wanted(none), Wanted::All, "{none:?}");
        }
        let huge = "bytes=99999999999999999999-";
        assert_eq!(wanted(&[huge]).within(10), Err(Beyond));
        assert_eq!(wanted(&["bytes=0-"]).within(0), Err(Beyond));
    }
}
