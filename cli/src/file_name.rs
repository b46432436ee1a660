//! Which file names a picture can have on Linux, macOS and Windows alike, on whatever system this
//! runs, because files are copied.

use darkroom_core::{label::is_unprintable, prompt::is_ignorable};
use unicode_normalization::UnicodeNormalization as _;

/// Longest file name, extension included: bytes on Linux, UTF-16 units on macOS (decomposed) and
/// Windows.
const MAX_LENGTH: usize = 255;
/// Device names on Windows, with any extension.
const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];

/// A form that is equal for names that are the same file on some file system.
pub(crate) fn folded(name: &str) -> String {
    let visible: String = name.nfd().filter(|c| !is_ignorable(*c)).collect();
    visible.to_lowercase().to_uppercase().to_lowercase().nfd().collect()
}

/// Why a character cannot be part of a file name.
pub(crate) fn forbidden(c: char) -> Option<String> {
    match c {
        '/' | '\\' => {
            Some(format!("{c:?}, which separates folders; accepted: names of files in one folder"))
        }
        '<' | '>' | ':' | '"' | '|' | '?' | '*' => Some(format!(
            "{c:?}, which Windows does not allow in file names; accepted: other characters"
        )),
        '\u{200B}' | '\u{FEFF}' => {
            Some(format!("U+{:04X}, which cannot be seen; accepted: other characters", c as u32))
        }
        c if is_unprintable(c) => {
            Some(format!("U+{:04X}, which cannot be printed; accepted: other characters", c as u32))
        }
        _ => None,
    }
}

/// Why a name cannot be a file's: what stands before the dot, and the extension behind it.
pub(crate) fn unfit(stem: &str, extension: &str) -> Option<String> {
    if stem.is_empty() {
        return Some("with nothing before the extension".to_owned());
    }
    if let Some(why) = stem.chars().find_map(forbidden) {
        let why = why.split_once(';').map_or(why.as_str(), |(why, _)| why).to_owned();
        return Some(format!("with {why}"));
    }
    let first = stem.chars().next().filter(|c| matches!(c, '.' | '-') || c.is_whitespace());
    if let Some(first) = first {
        return Some(format!(
            "which begins with {first:?}: programs do not read that as a file's name"
        ));
    }
    let last = stem.chars().next_back().filter(|c| *c == '.' || c.is_whitespace());
    if let Some(last) = last {
        return Some(format!("which ends with {last:?} before its extension: Windows drops that"));
    }
    let device = stem.split('.').next().unwrap_or(stem).trim_end();
    if is_device(device) {
        return Some(format!("and {device} is a device on Windows"));
    }
    let behind = 1 + extension.len();
    let bytes = stem.len() + behind;
    let units = stem.nfd().map(char::len_utf16).sum::<usize>() + behind;
    (bytes.max(units) > MAX_LENGTH)
        .then(|| format!("which takes {} bytes, more than {MAX_LENGTH}", bytes.max(units)))
}

fn is_device(name: &str) -> bool {
    let name = name.to_uppercase();
    let numbered = |port: &str| {
        name.strip_prefix(port).is_some_and(|number| {
            let mut chars = number.chars();
            matches!((chars.next(), chars.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
        })
    };
    DEVICES.contains(&name.as_str()) || numbered("COM") || numbered("LPT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_files_on_some_system_is_told_why() {
        let long = "x".repeat(252);
        let decomposed = "\u{390}".repeat(84);
        for (stem, word) in [
            ("", "nothing before"),
            ("a/b", "'/'"),
            ("..", "'.'"),
            (".hidden", "'.'"),
            ("-rf", "'-'"),
            (" a", "' '"),
            ("a ", "' '"),
            ("a.", "'.'"),
            ("a\u{A0}", "'\\u{a0}'"),
            ("a:b", "':'"),
            ("C:\\x", "':'"),
            ("a\\b", "'\\\\'"),
            ("a*", "'*'"),
            ("a\"b", "'\"'"),
            ("a<b", "'<'"),
            ("a>b", "'>'"),
            ("a?b", "'?'"),
            ("a|b", "'|'"),
            ("CON", "CON is a device"),
            ("nul", "nul is a device"),
            ("Aux.tar", "Aux is a device"),
            ("com1", "com1 is a device"),
            ("LPT9 .x", "LPT9 is a device"),
            ("COM\u{B9}", "COM\u{B9} is a device"),
            ("conin$", "conin$ is a device"),
            ("a\u{0}", "U+0000"),
            ("a\u{7F}", "U+007F"),
            ("a\u{85}b", "U+0085"),
            ("a\u{2028}b", "U+2028"),
            ("a\u{202E}b", "U+202E"),
            ("a\u{200B}b", "U+200B"),
            (long.as_str(), "256 bytes"),
            (decomposed.as_str(), "256 bytes"),
        ] {
            let why = unfit(stem, "png").expect(stem);
            assert!(why.contains(word), "{why}: {word}");
        }
        let longest = "x".repeat(251);
        for stem in [
            longest.as_str(),
            "CONSOLE",
            "COM10",
            "com",
            "a.b",
            "~a",
            "a'b",
            "\u{1F468}\u{200D}\u{1F469}",
            "\u{6F22}",
        ] {
            assert_eq!(unfit(stem, "png"), None);
        }
        assert!(unfit(&longest, "webp").is_some_and(|why| why.contains("256 bytes")));
    }

    #[test]
    fn what_is_one_file_on_some_system_folds_to_one_name() {
        for (one, other) in [
            ("a", "a"),
            ("Cat", "cAT"),
            ("caf\u{E9}", "cafe\u{301}"),
            ("CAF\u{C9}", "cafe\u{301}"),
            ("stra\u{DF}e", "STRASSE"),
            ("\u{212A}", "k"),
            ("\u{1E9E}", "ss"),
            ("a\u{FE0F}", "a"),
            ("\u{391}\u{3A3}", "\u{3B1}\u{3C2}"),
        ] {
            assert_eq!(folded(one), folded(other), "{one} {other}");
        }
        let apart = ["a", "b", "a-1", "\u{E4}", "\u{6F22}", "\u{5B57}"];
        for (position, one) in apart.iter().enumerate() {
            assert!(
                apart[position + 1..].iter().all(|other| folded(one) != folded(other)),
                "{one}"
            );
        }
    }
}
