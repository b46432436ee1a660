//! `darkroom model tokenize`: the ids from a cascade's tokenizer, line by line, for comparison with
//! another tokenizer.

use std::{
    io::{self, BufRead as _},
    path::Path,
};

use darkroom_artifacts::CascadeBundle;
use darkroom_core::error::{Code, UserError};
use darkroom_diffusion::Tokenizer;

use crate::{
    args::TokenizeArgs,
    failure::{self, Result},
    output,
};

/// Tokenizes standard input. Lines end at `
/// `; no other character is removed.
pub(crate) fn tokenize(args: &TokenizeArgs, as_json: bool) -> Result<()> {
    let bundle = CascadeBundle::describe(&args.cascade)?;
    let encoder = &bundle.cascade().spec.encoder;
    let folder = args.cascade.join(&encoder.tokenizer);
    // Padding is not printed, so its id does not matter.
    let tokenizer =
        Tokenizer::load(&folder, Some(encoder.max_length as usize), 0).map_err(|error| {
            let mut failure = UserError::new(
                Code::FailedPrecondition,
                "BROKEN_CASCADE",
                failure::with_causes(&error),
            );
            failure.field = Some("cascade".to_owned());
            failure
        })?;
    for (position, line) in io::stdin().lock().split(b'\n').enumerate() {
        let line = line.map_err(|error| failure::file("stdin", "read", Path::new("-"), &error))?;
        let mut text = read(line, as_json, position + 1)?;
        if args.prepare {
            text = encoder.text_preparation.prepare(&format!("line {}", position + 1), &text)?;
        }
        let ids = tokenizer.ids(&text, args.whole).map_err(failure::internal)?;
        if as_json {
            output::json(&ids)?;
        } else {
            output::line(&ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "))?;
        }
    }
    Ok(())
}

fn read(line: Vec<u8>, as_json: bool, number: usize) -> Result<String> {
    let refuse =
        |what: &str| UserError::invalid("stdin", format!("line {number}: it is not {what}"));
    if as_json {
        return serde_json::from_slice(&line)
            .map_err(|_| refuse("a JSON string; accepted: one \"text\" per line"));
    }
    String::from_utf8(line).map_err(|_| refuse("UTF-8; accepted: UTF-8 text"))
}
