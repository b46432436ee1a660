//! Every target, for a short time: the corpora and the inputs that once broke a promise as they
//! are, and a few thousand mutated ones. `make fuzz` tries more.

use darkroom_fuzz::{
    corpus,
    drive::{self, End, Options},
    measure,
    targets::{self, Target},
    verdict::Verdict,
};

/// Mutated inputs of a target.
const COUNT: u64 = 2000;

fn short(name: &str) -> &'static Target {
    let target = targets::find(name).expect("a target");
    match drive::run(target, &Options { count: COUNT, seed: 1, latest: None }) {
        Ok(tally) => assert!(tally.files > 0 && tally.accepted > 0, "{tally:?}"),
        Err(End::Io(error)) => panic!("{error}"),
        Err(End::Failed(failure)) => {
            let path = std::env::temp_dir().join(format!("fuzz-{name}-{}", std::process::id()));
            std::fs::write(&path, &failure.input).expect("written");
            panic!("{}\nmake fuzz ARGS='check {name} {}'", failure.why, path.to_string_lossy());
        }
    }
    target
}

macro_rules! targets {
    ($($(#[$only:meta])* $test:ident: $name:literal,)*) => {
        $($(#[$only])*
        #[test]
        fn $test() {
            short($name);
        })*

        #[test]
        fn every_target_has_a_test_here() {
            let there: Vec<_> = targets::ALL.iter().map(|target| target.name).collect();
            assert_eq!([$($(#[$only])* $name),*].as_slice(), there);
        }
    };
}

targets! {
    requests: "requests",
    answers: "answers",
    json_requests: "json-requests",
    statuses: "statuses",
    #[cfg(feature = "farm")]
    checks: "checks",
    #[cfg(feature = "farm")]
    page_tokens: "page-tokens",
    #[cfg(feature = "farm")]
    queries: "queries",
    #[cfg(feature = "farm")]
    forms: "forms",
    #[cfg(feature = "farm")]
    masks: "masks",
    #[cfg(feature = "farm")]
    routes: "routes",
    prompts: "prompts",
    captions: "captions",
    pictures: "pictures",
    inputs: "inputs",
    cascades: "cascades",
    #[cfg(feature = "models")]
    networks: "networks",
    #[cfg(feature = "models")]
    schedulers: "schedulers",
    #[cfg(feature = "models")]
    tokenizers: "tokenizers",
    #[cfg(feature = "models")]
    sentencepiece: "sentencepiece",
    #[cfg(feature = "models")]
    weights: "weights",
    tensors: "tensors",
    keys: "keys",
    webhooks: "webhooks",
    manifests: "manifests",
    entries: "entries",
    cards: "cards",
}

#[test]
fn inputs_of_the_corpora_are_accepted_unless_their_name_says_otherwise() {
    let mut bytes = 0;
    for target in targets::ALL {
        for input in corpus::of(target.name).expect("a corpus") {
            let name = input.path.to_string_lossy().into_owned();
            if name.contains("/regressions/") {
                continue;
            }
            bytes += input.bytes.len();
            let is_refused =
                name.rsplit('/').next().is_some_and(|file| file.starts_with("refused"));
            let verdict = measure::run(target, &input.bytes).expect(&name);
            assert_eq!(matches!(verdict, Verdict::Refused(_)), is_refused, "{name}: {verdict:?}");
        }
    }
    assert!(bytes < 200_000, "the corpora have {bytes} bytes; keep them small");
}
