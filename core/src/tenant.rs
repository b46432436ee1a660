//! Names of tenants.

use crate::error::UserError;

/// Longest name, characters.
pub const MAX_NAME: usize = 64;

/// Checks a new tenant's name. Only these characters are accepted, so that no two names look alike
/// (Cyrillic letters, full-width letters), and none is shown in another order than it has (marks of
/// direction).
///
/// # Errors
/// One sentence that names the field and what is accepted.
pub fn check(field: &str, name: &str) -> Result<(), UserError> {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    let begins = name.chars().next().is_some_and(|first| first.is_ascii_alphanumeric());
    if begins && name.len() <= MAX_NAME && name.chars().all(is_plain) {
        return Ok(());
    }
    let shown: String = name.chars().take(MAX_NAME).collect();
    Err(UserError::invalid(
        field,
        format!(
            "{field} is {shown:?}; accepted: up to {MAX_NAME} of a-z, A-Z, 0-9, '-', '_' and '.', \
             beginning with a letter or a digit"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_like_others_are_refused() {
        for name in ["default", "a", "Team-7", "studio_2.lighting", "7up"] {
            check("tenant", name).unwrap_or_else(|error| panic!("{error}"));
        }
        for name in [
            "",
            "\u{202e}toidi",
            "\u{430}dmin",
            "ａdmin",
            "admin\u{200b}",
            "ad\u{2066}min",
            "a b",
            "a/b",
            "a\nb",
            "-a",
            ".a",
            "é",
            "e\u{301}",
            &"a".repeat(65),
            &"\u{1f600}".repeat(10_000),
        ] {
            let error = check("tenant", name).expect_err(name);
            assert_eq!(error.field.as_deref(), Some("tenant"));
            assert!(error.message.len() < 2000 && error.message.contains("accepted: "), "{error}");
            assert!(!error.message.contains('\u{202e}') && !error.message.contains('\u{200b}'));
        }
    }
}
