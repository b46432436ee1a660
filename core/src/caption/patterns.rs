//! The patterns of the cleaning. Their time grows linearly with the length of a text.
//!
//! The reference's patterns use look-around to find word boundaries. Python's words consist of
//! letters and numbers of all kinds, without combining marks. A regex engine with look-around tries
//! again at every position, and a text of 4,000 characters can keep it busy for seconds. Here a
//! pattern names the characters at its edges instead. They are part of the match but not of the
//! replaced group, and the next search begins right after that group.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// A pattern and its replacement.
pub(super) struct Step {
    /// The first group that matched is replaced.
    pattern: Regex,
    /// Whether the match has a character before that group.
    looks_back: bool,
    /// `$2` stands for group 2.
    instead: &'static str,
}

impl Step {
    /// The text with every match of the pattern replaced.
    pub(super) fn apply(&self, text: &str) -> String {
        let mut replaced = String::with_capacity(text.len());
        let (mut kept, mut from) = (0, 0);
        while let Some(found) = self.pattern.captures_at(text, from) {
            let Some(group) = found.iter().skip(1).flatten().next() else { break };
            replaced.push_str(&text[kept..group.start()]);
            replaced.push_str(&instead(self.instead, &found));
            kept = group.end();
            // The replaced text may end in the character that the next match begins with. No
            // pattern replaces an empty match.
            let last = text[..kept].chars().next_back().map_or(0, char::len_utf8);
            from = if self.looks_back { kept - last } else { kept };
        }
        replaced.push_str(&text[kept..]);
        replaced
    }
}

fn instead(template: &str, found: &Captures<'_>) -> String {
    template.replace("$2", found.get(2).map_or("", |group| group.as_str()))
}

/// A pattern. `W`, `S` and `D` in double angle brackets stand for Python's `\w`, `\s` and `\d`. `‹`
/// at the beginning stands for the start of a word, `›` for the end of a word. The group `(1:…)` is
/// replaced; without one, everything except these boundaries.
fn step((pattern, instead): (&str, &'static str)) -> Option<Step> {
    let marked = pattern.contains("(1:");
    let looks_back = pattern.starts_with('‹') || pattern.starts_with("[«W»](1:");
    let inner = pattern.trim_start_matches('‹').trim_end_matches('›');
    let pattern =
        if marked { pattern.to_owned() } else { pattern.replace(inner, &format!("({inner})")) };
    let pattern = pattern
        .replace("(1:", "(")
        .replace('‹', r"(?:\A|[^«W»])")
        .replace('›', r"(?:\z|[^«W»])")
        .replace("«W»", r"\p{L}\p{N}_")
        .replace("«S»", r"\s\x1c-\x1f")
        .replace("«D»", r"\p{Nd}");
    Some(Step { pattern: Regex::new(&pattern).ok()?, looks_back, instead })
}

pub(super) static PUNCTUATION: LazyLock<Vec<Step>> = LazyLock::new(|| {
    [
        // Nicknames.
        ("@[«W»]+", ""),
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
        ("#[«D»]{1,3}›", ""),
        ("#[«D»]{5,}›", ""),
        ("‹[«D»]{6,}›", ""),
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
        ("‹[a-zA-Z]{1,3}[«D»]{3,15}›", ""),
        ("‹[a-zA-Z]+[«D»]+[a-zA-Z]+›", ""),
        ("‹[«D»]+[a-zA-Z]+[«D»]+›", ""),
        ("(?:worldwide[«S»]+)?(?:free[«S»]+)?shipping", ""),
        ("(?:free[«S»])?download(?:[«S»]free)?", ""),
        ("‹click[«S»](?:for|on)[«S»][«W»]+", ""),
        ("‹(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)(?:[«S»]images?)?", ""),
        ("‹page[«S»]+[«D»]+›", ""),
        ("‹[«D»]*[a-zA-Z]+[«D»]+[a-zA-Z]+[«D»]+[a-zA-Z«D»]*›", " "),
        // Sizes; a last dot belongs to the size if a word follows it.
        (
            r"‹(?:(1:[«D»]+\.?[«D»]*[xх×][«D»]+\.[«D»]+)›|(1:[«D»]+\.?[«D»]*[xх×][«D»]+\.)[«W»]|(1:[«D»]+\.?[«D»]*[xх×][«D»]+)›)",
            "",
        ),
        // Blanks before a colon count if a word ends before them.
        ("[«W»](1:[«S»]+:[«S»]+)", ": "),
        ("(1:([^«D»][,./]))[«W»]", "$2 "),
        ("[«S»]+", " "),
        (r#"\A(1:["']([\s\S]+)["'])\z"#, "$2"),
        (r"\A['_,\-:;]", ""),
        (r"['_,\-:+]\z", ""),
        (r"\A\.[^«S»]+\z", ""),
    ]
    .into_iter()
    .filter_map(step)
    .collect()
});
