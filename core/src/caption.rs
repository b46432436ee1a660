//! DeepFloyd IF's cleaning of captions, as diffusers' `IFPipeline` does it with BeautifulSoup and ftfy.
//!
//! IF was trained on captions that had gone through this, so that its pipelines send prompts through it too. A text
//! loses links, markup, nicknames, CJK ideographs, file names, article numbers and shop talk; dashes, quotes and
//! brackets are levelled. The steps, their order and their quirks are the reference's; `tools/reference/captions.py`
//! runs it and writes the table that the tests hold this against.
//!
//! Limits: of ftfy's repair of wrongly decoded text, only UTF-8 read as Windows-1252 in sequences of three and four bytes
//! is undone (lower-casing has already ruined those of two), and of those that lost a byte the ones that end in a blank;
//! its heuristics and other code pages are not there (`repair`). Markup is read as Python 3.11 reads it; later versions
//! differ in unfinished comments and in `<script>` (`markup`). Python's and this program's Unicode tables may be of
//! different years.

mod markup;
mod repair;

use std::sync::LazyLock;

use fancy_regex::{Regex, RegexBuilder};

/// A pattern and what stands in for what it finds.
struct Step {
    pattern: Regex,
    instead: &'static str,
}

/// A caption after one round of cleaning.
#[must_use]
pub fn clean(caption: &str) -> String {
    let mut text = strip(&percent_decoded(caption)).to_lowercase();
    text = text.replace("<person>", "person");
    text = apply(text, &LINKS);
    text = markup::text(&text);
    text = apply(text, &PUNCTUATION);
    if text.matches(['-', '_']).count() > 3 {
        text = text.replace(['-', '_'], " ");
    }
    text = repair::repair(&text);
    text = markup::unescape(&markup::unescape(&text));
    strip(&apply(text, &SHOP_TALK)).to_owned()
}

fn apply(text: String, steps: &[Step]) -> String {
    steps.iter().fold(text, |text, step| match step.pattern.try_replacen(&text, 0, step.instead) {
        Ok(replaced) => replaced.into_owned(),
        Err(_) => text,
    })
}

/// `+` is a blank and `%41` an A; bytes that are no UTF-8 become U+FFFD, in each run of ASCII by itself.
fn percent_decoded(text: &str) -> String {
    let text = text.replace('+', " ");
    if !text.contains('%') {
        return text;
    }
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let ascii = rest.find(|c: char| !c.is_ascii()).unwrap_or(rest.len());
        decoded.push_str(&String::from_utf8_lossy(&percent_bytes(&rest.as_bytes()[..ascii])));
        let other = rest[ascii..].find(|c: char| c.is_ascii()).map_or(rest.len(), |length| ascii + length);
        decoded.push_str(&rest[ascii..other]);
        rest = &rest[other..];
    }
    decoded
}

fn percent_bytes(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut position = 0;
    while position < text.len() {
        let digits = text.get(position + 1..position + 3).filter(|_| text[position] == b'%');
        let byte = digits
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(text[position]));
        position += if byte.is_some() { 3 } else { 1 };
    }
    bytes
}

/// White space as Python has it: Unicode's, and the four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// A pattern in which `W`, `S`, `D` and `B` in double angle brackets stand for what Python's `\w`, `\s`, `\d` and `\b`
/// mean: its words take letters and numbers of all kinds but no combining marks.
fn step((pattern, instead): (&str, &'static str)) -> Option<Step> {
    let pattern = pattern
        .replace("«B»", r"(?:(?<=[«W»])(?![«W»])|(?<![«W»])(?=[«W»]))")
        .replace("«W»", r"\p{L}\p{N}_")
        .replace("«S»", r"\s\x1c-\x1f")
        .replace("«D»", r"\p{Nd}");
    let pattern = RegexBuilder::new(&pattern).backtrack_limit(usize::MAX).build().ok()?;
    Some(Step { pattern, instead })
}

static LINKS: LazyLock<Vec<Step>> = LazyLock::new(|| {
    let ends = r"[a-zA-Z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[«W»/-]*«B»/?(?!@)";
    ["https?:", "www:"]
        .map(|start| format!(r"«B»(?:{start}(?:/{{1,3}}|[a-zA-Z0-9%])|{ends})"))
        .iter()
        .filter_map(|pattern| step((pattern, "")))
        .collect()
});

static PUNCTUATION: LazyLock<Vec<Step>> = LazyLock::new(|| {
    [
        // Nicknames.
        ("@[«W»]+«B»", ""),
        // CJK strokes to ideographs.
        (r"[\x{31c0}-\x{4dbf}]+", ""),
        (r"[\x{4dc0}-\x{4dff}]+", ""),
        (r"[\x{4e00}-\x{9fff}]+", ""),
        // Dashes and quotes of all kinds.
        (
            r"[\x{002D}\x{058A}\x{05BE}\x{1400}\x{1806}\x{2010}-\x{2015}\x{2E17}\x{2E1A}\x{2E3A}\x{2E3B}\x{2E40}\x{301C}\x{3030}\x{30A0}\x{FE31}\x{FE32}\x{FE58}\x{FE63}\x{FF0D}]+",
            "-",
        ),
        ("[`´\u{ab}\u{bb}“”¨]", "\""),
        ("[‘’]", "'"),
        ("&quot;?", ""),
        ("&amp", ""),
        // Addresses, article numbers, line ends written out, hash numbers, long numbers, file names.
        (r"[«D»]{1,3}\.[«D»]{1,3}\.[«D»]{1,3}\.[«D»]{1,3}", " "),
        (r"[«D»]:[«D»][«D»][«S»]+\z", ""),
        (r"\\n", " "),
        ("#[«D»]{1,3}«B»", ""),
        ("#[«D»]{5,}«B»", ""),
        ("«B»[«D»]{6,}«B»", ""),
        (r"[^«S»]+\.(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)", ""),
        // Runs of quotes and dots, brackets and signs.
        ("[\"']{2,}", "\""),
        (r"\.{2,}", " "),
        (r"[#®•©™&@·º½¾¿¡§~)(\]\[}{|\\/*]+", " "),
        (r"[«S»]+\.[«S»]+", " "),
    ]
    .into_iter()
    .filter_map(step)
    .collect()
});

static SHOP_TALK: LazyLock<Vec<Step>> = LazyLock::new(|| {
    [
        ("«B»[a-zA-Z]{1,3}[«D»]{3,15}«B»", ""),
        ("«B»[a-zA-Z]+[«D»]+[a-zA-Z]+«B»", ""),
        ("«B»[«D»]+[a-zA-Z]+[«D»]+«B»", ""),
        ("(worldwide[«S»]+)?(free[«S»]+)?shipping", ""),
        ("(free[«S»])?download([«S»]free)?", ""),
        ("«B»click«B»[«S»](?:for|on)[«S»][«W»]+", ""),
        ("«B»(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)([«S»]images?)?", ""),
        ("«B»page[«S»]+[«D»]+«B»", ""),
        ("«B»[«D»]*[a-zA-Z]+[«D»]+[a-zA-Z]+[«D»]+[a-zA-Z«D»]*«B»", " "),
        (r"«B»[«D»]+\.?[«D»]*[xх×][«D»]+\.?[«D»]*«B»", ""),
        ("«B»[«S»]+:[«S»]+", ": "),
        ("([^«D»][,./])«B»", "$1 "),
        ("[«S»]+", " "),
        (r#"\A["']([\s\S]+)["']\z"#, "$1"),
        (r"\A['_,\-:;]", ""),
        (r"['_,\-:+]\z", ""),
        (r"\A\.[^«S»]+\z", ""),
    ]
    .into_iter()
    .filter_map(step)
    .collect()
});

#[cfg(test)]
mod tests;
