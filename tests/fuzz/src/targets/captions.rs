//! Texts as they are prepared for the encoder; one preparation cleans captions with many patterns.

use darkroom_core::{
    label::check_custom_id,
    prompt::{TextPreparation, check_prepared, check_prompt},
    shown::{is_hidden, shown},
    tenant,
};

use super::messages::{Rough as _, refusal};
use crate::verdict::Verdict;

/// A text, prepared in each of the three ways.
pub(super) fn captions(data: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(data);
    assert!(!shown(&text).chars().any(is_hidden), "a hidden character is shown");
    for checked in [tenant::check("tenant", &text), check_custom_id("custom_id", &text)] {
        if let Err(error) = checked {
            refusal(&error, data);
        }
    }
    if let Err(error) = check_prompt("text", &text) {
        return refusal(&error, data);
    }
    let mut shape = String::new();
    for way in [TextPreparation::None, TextPreparation::LowercaseStrip, TextPreparation::IfClean] {
        match way.prepare("text", &text) {
            Ok(prepared) => {
                assert!(prepared.len() <= 16 * text.len() + 64, "it grows to {}", prepared.len());
                if let Err(error) = check_prepared("text", way, &prepared) {
                    refusal(&error, data);
                    shape += "blank ";
                }
                shape += &format!("{} ", prepared.len().ilog2_or_zero());
            }
            Err(error) => {
                refusal(&error, data);
                shape += "refused ";
            }
        }
    }
    Verdict::accepted(shape)
}
