//! The reference's original patterns, on a regex engine with look-around. `links` and `patterns`
//! must give the same results. Only for tests, on short texts.

use std::sync::LazyLock;

use fancy_regex::{Regex, RegexBuilder};

/// A pattern and its replacement.
pub(super) struct Step {
    pattern: Regex,
    instead: &'static str,
}

impl Step {
    pub(super) fn apply(&self, text: &str) -> String {
        self.pattern.try_replacen(text, 0, self.instead).expect("short texts").into_owned()
    }
}

/// A pattern. `W`, `S`, `D` and `B` in double angle brackets stand for Python's `\w`, `\s`, `\d`
/// and `\b`: words consist of letters and numbers of all kinds, without combining marks.
fn step((pattern, instead): (&str, &'static str)) -> Option<Step> {
    let pattern = pattern
        .replace("«B»", r"(?:(?<=[«W»])(?![«W»])|(?<![«W»])(?=[«W»]))")
        .replace("«W»", r"\p{L}\p{N}_")
        .replace("«S»", r"\s\x1c-\x1f")
        .replace("«D»", r"\p{Nd}");
    let pattern = RegexBuilder::new(&pattern).backtrack_limit(usize::MAX).build().ok()?;
    Some(Step { pattern, instead })
}

pub(super) static LINKS: LazyLock<Vec<Step>> = LazyLock::new(|| {
    let ends = r"[a-zA-Z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[«W»/-]*«B»/?(?!@)";
    ["https?:", "www:"]
        .map(|start| format!(r"«B»(?:{start}(?:/{{1,3}}|[a-zA-Z0-9%])|{ends})"))
        .iter()
        .filter_map(|pattern| step((pattern, "")))
        .collect()
});

pub(super) static PUNCTUATION: LazyLock<Vec<Step>> = LazyLock::new(|| {
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
        // Addresses, article numbers, line ends written out, hash numbers, long numbers, file
        // names.
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

pub(super) static SHOP_TALK: LazyLock<Vec<Step>> = LazyLock::new(|| {
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
