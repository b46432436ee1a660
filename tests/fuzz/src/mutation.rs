//! Changes inputs at random, in ways that reach deep: most know the format, and put right what a
//! reader checks first (lengths, checksums, compression).
//!
//! The same seed and corpus give the same changes.

pub mod bytes;
mod chunks;
mod json;
mod lines;
mod material;
mod message;
mod packed;
mod png;
mod tensors;
mod wire;

use mutatis::{Candidates, Mutate, Result, Rng, Session};

pub use material::Material;
pub use message::Messages;

/// How the inputs of a target are written.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// Bytes or text without a form that pays; the words are tried in it.
    Bytes,
    /// One JSON document.
    Json,
    /// JSON documents, one a line.
    JsonLines,
    /// The same as a manifest: the last line has the hash of those before it.
    Manifest,
    /// Two lines as they are, then a JSON document.
    Entry,
    /// One TOML document.
    Toml,
    /// A number that names the type, then a message of that type.
    Message(fn() -> &'static Messages),
    /// A message of an unknown type.
    Wire,
    /// A PNG, JPEG or WebP.
    Picture,
    /// A safetensors file.
    Tensors,
    /// A byte of options, then a file of prompts, perhaps compressed.
    Prompts,
}

/// Changes an input in one to six places.
///
/// # Panics
/// Never: there is always a mutation that applies.
pub fn change(session: &mut Session, form: Form, material: &Material<'_>, input: &mut Vec<u8>) {
    let mut mutator = Mutator(form, *material);
    let rounds = 1 + session.generate::<u8>().unwrap_or_default() % 3;
    for _ in 0..rounds {
        session.mutate_with(&mut mutator, input).expect("some mutation always applies");
        input.truncate(material.most);
    }
}

/// The mutations of one material.
#[derive(Debug)]
pub struct Mutator<'a>(pub Form, pub Material<'a>);

impl Mutate<Vec<u8>> for Mutator<'_> {
    fn mutate(&mut self, candidates: &mut Candidates<'_>, input: &mut Vec<u8>) -> Result<()> {
        let Self(form, material) = *self;
        // A share of changes knows no form: forms are broken too.
        candidates.mutation(|context| {
            bytes::change(context.rng(), &material, input);
            Ok(())
        })?;
        candidates.mutation_group(4, |context, _| {
            let rng = context.rng();
            if !formed(rng, form, &material, input) {
                bytes::change(rng, &material, input);
            }
            Ok(())
        })
    }
}

/// A change that keeps the form; false if the input does not have it.
fn formed(rng: &mut Rng, form: Form, material: &Material<'_>, input: &mut Vec<u8>) -> bool {
    let changed = match form {
        Form::Bytes => None,
        Form::Json => json::document(rng, material, input),
        Form::JsonLines => lines::documents(rng, material, input),
        Form::Manifest => lines::manifest(rng, material, input),
        Form::Entry => lines::entry(rng, material, input),
        Form::Toml => json::toml(rng, material, input),
        Form::Message(messages) => messages().change(rng, material, input),
        Form::Wire => wire::change(rng, material, input),
        Form::Picture => png::change(rng, material, input)
            .or_else(|| chunks::jpeg(rng, material, input))
            .or_else(|| chunks::webp(rng, material, input)),
        Form::Tensors => tensors::change(rng, material, input),
        Form::Prompts => packed::change(rng, material, input),
    };
    changed.map(|changed| *input = changed).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets;

    #[test]
    fn the_same_seed_makes_the_same_inputs() {
        for target in targets::ALL {
            let others: Vec<Vec<u8>> =
                crate::corpus::of(target.name).unwrap().into_iter().map(|one| one.bytes).collect();
            let made = |seed| {
                let material = target.material(&others);
                let mut session = Session::new().seed(seed);
                let mut input = others.first().cloned().unwrap_or_default();
                for _ in 0..50 {
                    change(&mut session, target.form, &material, &mut input);
                }
                input
            };
            assert_eq!(made(1), made(1), "{}", target.name);
            assert_ne!(made(1), made(2), "{}", target.name);
        }
    }
}
