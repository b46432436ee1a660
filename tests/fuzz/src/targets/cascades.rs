//! `cascade.toml`.

use darkroom_core::{
    cascade::CascadeSpec,
    settings::{Settings, SettingsRequest},
};

use super::messages::refusal;
use crate::verdict::Verdict;

/// A cascade's file.
pub(super) fn cascades(data: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(data) else { return Verdict::accepted("no text") };
    let spec = match CascadeSpec::parse(text) {
        Ok(spec) => spec,
        Err(error) => return refusal(&error, data),
    };
    let written = toml::to_string(&spec).expect("a spec has a TOML");
    match CascadeSpec::parse(&written) {
        Ok(again) => assert_eq!(again, spec, "{written}"),
        Err(error) => panic!("what we write is refused: {error}: {written}"),
    }
    // What is accepted can be rendered with, or says why not.
    if let Err(error) = Settings::resolve(&SettingsRequest::default(), &spec) {
        refusal(&error, data);
    }
    Verdict::accepted(spec.stages.len())
}
