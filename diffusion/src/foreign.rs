//! Recognises files that are not what their names say, and names of files that are not complete.
//!
//! Downloads break off, browsers save error pages under the requested name, and version control
//! leaves small notes in place of large files. Each is recognised by its first bytes or its name,
//! and the error says what to do.

use std::path::{Path, PathBuf};

use darkroom_core::shown::shown_path;

/// What a file is, judged by its first hundred bytes or so; `None` if it is none of the usual wrong
/// files.
pub(crate) fn describe(bytes: &[u8]) -> Option<String> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let begins = |word: &str| {
        text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
    };
    let what = if bytes.is_empty() {
        "it is empty: a download that did not begin, or a file that was not fetched; fetch it again"
    } else if begins("version https://git-lfs") || begins("version https://hawser") {
        "it is a Git LFS pointer, in the place of a file that was not fetched; `git lfs pull` fetches it"
    } else if begins("/annex/objects/") || begins("../.git/annex/") || begins(".git/annex/") {
        "it is a git-annex pointer, in the place of a file that was not fetched; `git annex get` fetches it"
    } else if ["<!doctype html", "<html", "<head", "<body", "<?xml", "<error"]
        .into_iter()
        .any(begins)
    {
        "it is an HTML page, such as a server sends in the place of a file (an error, or a login); fetch it again"
    } else if bytes.starts_with(b"PK\x03\x04") {
        "it is a zip archive, as PyTorch's pickled weights are; it is not opened"
    } else if bytes.starts_with(b"\x1f\x8b\x08") {
        "it is compressed with gzip; unpack it"
    } else if bytes.starts_with(b"\x28\xb5\x2f\xfd") {
        "it is compressed with zstd; unpack it"
    } else if bytes.starts_with(b"GGUF") {
        "it is a GGUF file; accepted: safetensors"
    } else if bytes.starts_with(b"\x89HDF") {
        "it is an HDF5 file; accepted: safetensors"
    } else if bytes.starts_with(&[0; 16]) {
        "it begins with zeros: room that a download has taken and not filled; fetch it again"
    } else {
        return short_text(text);
    };
    Some(what.to_owned())
}

/// A line of words where a file should be: the answer of a server.
fn short_text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() < 512)?;
    let line = text.lines().next()?.trim();
    let is_words = line.chars().next().is_some_and(char::is_alphabetic)
        && line.contains(' ')
        && !text.chars().any(|c| c.is_control() && !c.is_whitespace());
    is_words
        .then(|| format!("it is a text, perhaps what a server answered: {line:?}; fetch it again"))
}

/// Extensions of unfinished files of downloading programs.
const UNFINISHED: [&str; 11] = [
    "incomplete",
    "crdownload",
    "part",
    "partial",
    "download",
    "downloading",
    "aria2",
    "!ut",
    "opdownload",
    "tmp",
    "filepart",
];

/// The program's extension, if a download is not finished.
pub(crate) fn unfinished(name: &str) -> Option<&'static str> {
    let (stem, ending) = name.rsplit_once('.')?;
    let found = UNFINISHED.into_iter().find(|known| ending.eq_ignore_ascii_case(known));
    found.filter(|_| !stem.is_empty())
}

/// Whether a browser or a file manager numbered it as a copy: `name (1).safetensors`, `name -
/// Copy.safetensors`.
pub(crate) fn is_copy(name: &str) -> bool {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem).trim_end();
    let numbered = stem.strip_suffix(')').and_then(|stem| stem.rsplit_once('(')).is_some_and(
        |(before, number)| {
            !before.is_empty()
                && !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
        },
    );
    let lower = stem.to_lowercase();
    let mut words = lower.rsplitn(2, ' ');
    let (last, before) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    numbered
        || lower.ends_with(" - copy")
        || lower.ends_with(" copy")
        || (before.ends_with(" copy") && last.bytes().all(|byte| byte.is_ascii_digit()))
        || lower.starts_with("copy of ")
}

/// The control file of an unfinished download, beside the file that it fills.
pub(crate) fn control_file(path: &Path) -> Option<PathBuf> {
    ["aria2", "part", "crdownload", "partial"].iter().find_map(|ending| {
        let mut name = path.file_name()?.to_owned();
        name.push(format!(".{ending}"));
        let beside = path.with_file_name(name);
        beside.symlink_metadata().is_ok().then_some(beside)
    })
}

/// The target of a link that leads nowhere.
pub(crate) fn dangling(path: &Path) -> Option<String> {
    let is_link = path.symlink_metadata().is_ok_and(|found| found.file_type().is_symlink());
    if !is_link || path.exists() {
        return None;
    }
    let target = std::fs::read_link(path).ok()?;
    let place = path.parent().unwrap_or(Path::new("")).join(&target);
    let mut unfinished = place.file_name()?.to_owned();
    unfinished.push(".incomplete");
    let unfinished = place.with_file_name(unfinished);
    let target = shown_path(&target);
    Some(if unfinished.exists() {
        format!(
            "it is a link to {target}, whose download is not finished ({} lies there); fetch it again",
            shown_path(&unfinished)
        )
    } else if target.contains("annex/objects") {
        format!(
            "it is a link of git-annex to {target}, which is not there; `git annex get` fetches it"
        )
    } else {
        format!(
            "it is a link to {target}, which is not there; fetch it again, or copy folders with what their links point to (cp -rL)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_unfinished_downloads_and_copies_are_known() {
        for (name, ending) in [
            ("model.safetensors.incomplete", Some("incomplete")),
            ("Unconfirmed 41.crdownload", Some("crdownload")),
            ("model.safetensors.PART", Some("part")),
            ("model.safetensors.aria2", Some("aria2")),
            ("model.safetensors", None),
            (".part", None),
            ("part", None),
        ] {
            assert_eq!(unfinished(name), ending, "{name}");
        }
        for (name, expected) in [
            ("model (1).safetensors", true),
            ("model(12).safetensors", true),
            ("model - Copy.safetensors", true),
            ("model copy 2.safetensors", true),
            ("Copy of model.safetensors", true),
            ("model.safetensors", false),
            ("model (new).safetensors", false),
            ("(1).safetensors", false),
            ("scopy.safetensors", false),
            ("model-00001-of-00002.safetensors", false),
        ] {
            assert_eq!(is_copy(name), expected, "{name}");
        }
    }

    #[test]
    fn strangers_are_told_by_their_first_bytes_and_others_are_left_alone() {
        for (bytes, words) in [
            (&b""[..], "empty"),
            (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            (b"/annex/objects/SHA256E-s9--1.safetensors\n", "git annex get"),
            (b"\n  <!doctype HTML><p>Sign in", "HTML page"),
            (b"<?xml version=\"1.0\"?><Error>AccessDenied</Error>", "HTML page"),
            (b"PK\x03\x04..", "zip"),
            (b"GGUF\x03\0\0\0", "GGUF"),
            (&[0; 64], "zeros"),
            (b"Invalid username or password.", "Invalid username"),
        ] {
            let said = describe(bytes).unwrap_or_default();
            assert!(said.contains(words), "{words}: {said}");
        }
        for bytes in
            [&b"{\"a\": 1}"[..], b"\x40\0\0\0\0\0\0\0{\"a\"", b"word", b"\x0a\x0d\x0a\x05<unk>"]
        {
            assert_eq!(describe(bytes), None, "{bytes:?}");
        }
    }
}
