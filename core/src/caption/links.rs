//! Links: text that begins with a scheme, and text that ends in a well-known domain.
//!
//! The reference's pattern is
//! `\b(?:https?:(?:\/{1,3}|[a-zA-Z0-9%])|[a-zA-Z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b\/?(?!@))`,
//! and the same with `www:`. A regex engine tries the second half again at every position of a long
//! run of letters and dashes. Here each run is read once.

/// Domains that make a link.
const DOMAINS: [&str; 8] = ["com", "co", "ru", "net", "org", "edu", "gov", "it"];

/// The text without links that begin with one of `schemes`, and without links that have a domain.
pub(super) fn removed(text: &str, schemes: &[&str]) -> String {
    let mut kept = String::with_capacity(text.len());
    let (mut at, mut copied) = (0, 0);
    let mut run = Run::default();
    while at < text.len() {
        let length = text[at..].chars().next().map_or(1, char::len_utf8);
        let end = if is_boundary(text, at) {
            with_scheme(text, at, schemes).or_else(|| run.with_domain(text, at))
        } else {
            None
        };
        if let Some(end) = end {
            kept.push_str(&text[copied..at]);
            copied = end;
            at = end;
        } else {
            at += length;
        }
    }
    kept.push_str(&text[copied..]);
    kept
}

/// Python's `\w`.
fn is_word(c: char) -> bool {
    static WORD: std::sync::LazyLock<Option<regex::Regex>> =
        std::sync::LazyLock::new(|| regex::Regex::new(r"\A[\p{L}\p{N}_]\z").ok());
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || c == '_';
    }
    let mut buffer = [0; 4];
    WORD.as_ref().is_some_and(|word| word.is_match(c.encode_utf8(&mut buffer)))
}

/// Python's `\b`.
fn is_boundary(text: &str, at: usize) -> bool {
    let before = text[..at].chars().next_back().is_some_and(is_word);
    let after = text[at..].chars().next().is_some_and(is_word);
    before != after
}

/// The end of a link that begins with a scheme.
fn with_scheme(text: &str, at: usize, schemes: &[&str]) -> Option<usize> {
    let rest = &text[at..];
    let scheme = schemes.iter().find(|scheme| rest.starts_with(**scheme))?;
    let after = &rest[scheme.len()..];
    let slashes = after.bytes().take(3).take_while(|byte| *byte == b'/').count();
    let more = match slashes {
        0 => usize::from(after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '%')),
        slashes => slashes,
    };
    (more > 0).then(|| at + scheme.len() + more)
}

/// A run of letters, digits, dots and dashes, and its last dot that a domain follows.
#[derive(Default)]
struct Run {
    end: usize,
    /// The dot, and the end of a link that contains it.
    last: Option<(usize, usize)>,
}

impl Run {
    /// The end of a link that begins here and has a domain.
    fn with_domain(&mut self, text: &str, at: usize) -> Option<usize> {
        let in_run = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        if at >= self.end {
            let length = text.as_bytes()[at..].iter().take_while(|byte| in_run(byte)).count();
            self.end = at + length;
            let dots = (at..self.end).rev().filter(|place| text.as_bytes()[*place] == b'.');
            self.last = dots.filter_map(|dot| Some((dot, end_of_link(text, dot)?))).next();
        }
        // Something must be before the dot.
        self.last.filter(|(dot, _)| *dot > at).map(|(_, end)| end)
    }
}

/// The end of a link whose domain follows `dot`, if there is one.
fn end_of_link(text: &str, dot: usize) -> Option<usize> {
    let rest = &text[dot + 1..];
    // The link ends at the same place for a longer and a shorter domain, because it continues to
    // the end of the word.
    let domain = DOMAINS.iter().find(|domain| rest.starts_with(**domain))?;
    let begin = dot + 1 + domain.len();
    let tail = |c: char| is_word(c) || matches!(c, '/' | '-');
    let mut end = begin + text[begin..].find(|c| !tail(c)).unwrap_or(text.len() - begin);
    loop {
        if is_boundary(text, end) {
            let slash = usize::from(text[end..].starts_with('/'));
            let free = |at: usize| !text[at..].starts_with('@');
            if let Some(at) = [end + slash, end].into_iter().find(|at| free(*at)) {
                return Some(at);
            }
        }
        if end == begin {
            return None;
        }
        end -= text[..end].chars().next_back().map_or(1, char::len_utf8);
    }
}
