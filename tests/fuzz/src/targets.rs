//! The targets: what is called with bytes, and what must hold then.
//!
//! To add one, write its function in the file of its noun, give it a line in [`ALL`], and put
//! inputs that are accepted into `corpus/NAME/`.

mod captions;
mod cascades;
mod entries;
mod keys;
mod manifests;
mod messages;
#[cfg(feature = "models")]
mod models;
mod pictures;
mod prompts;
#[cfg(feature = "farm")]
mod requests;
mod tensors;
#[cfg(feature = "farm")]
mod web;
mod webhooks;

use std::time::Duration;

use crate::{
    mutation::{Form, Material},
    verdict::Verdict,
};

/// One reader of bytes from outside.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its corpus.
    pub name: &'static str,
    /// Reads an input, and panics if a promise is broken.
    pub run: fn(&[u8]) -> Verdict,
    /// How its inputs are written.
    pub form: Form,
    /// Words and bytes that mean something in them.
    pub words: &'static [&'static [u8]],
    /// Most bytes of an input.
    pub most: usize,
    /// Memory that an empty input may take, KiB.
    pub(crate) memory_kib: usize,
    /// Bytes of memory per byte of input beyond that.
    pub(crate) per_byte: usize,
}

impl Target {
    /// Bytes of memory that an input of this length may take.
    #[must_use]
    pub fn most_memory(&self, length: usize) -> usize {
        (self.memory_kib << 10) + self.per_byte * length
    }

    /// Processor time that an input may take. Generous: it is for what never ends, and for loops
    /// within loops.
    #[must_use]
    pub fn most_time(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// What its mutations take from.
    #[must_use]
    pub fn material<'a>(&self, others: &'a [Vec<u8>]) -> Material<'a> {
        Material { words: self.words, others, most: self.most }
    }
}

/// The target with this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    ALL.iter().find(|target| target.name == name)
}

/// Words of JSON.
const JSON: &[&[u8]] = &[
    b"{", b"}", b"[", b"]", b"null", b"true", b"\"", b"\\u0000", b"\\ud800", b"1e999", b":", b",",
];

/// Every target.
pub const ALL: &[Target] = &[
    // Calls of the farm.
    Target {
        name: "requests",
        run: messages::requests,
        form: Form::Message(messages::request_types),
        words: &[],
        most: 16 << 10,
        memory_kib: 256,
        // An empty prompt has two bytes in a message and about 650 in memory, in a list that is
        // copied as it doubles.
        per_byte: 1200,
    },
    Target {
        name: "answers",
        run: messages::answers,
        form: Form::Message(messages::answer_types),
        words: &[],
        most: 16 << 10,
        memory_kib: 256,
        per_byte: 2500,
    },
    Target {
        name: "json-requests",
        run: messages::json_requests,
        form: Form::Entry,
        words: JSON,
        most: 8 << 10,
        memory_kib: 256,
        per_byte: 700,
    },
    Target {
        name: "statuses",
        run: messages::statuses,
        form: Form::Wire,
        words: &[
            b"type.googleapis.com/google.rpc.RetryInfo",
            b"type.googleapis.com/google.rpc.BadRequest",
        ],
        most: 8 << 10,
        memory_kib: 256,
        per_byte: 100,
    },
    #[cfg(feature = "farm")]
    Target {
        name: "checks",
        run: requests::checks,
        form: Form::Message(requests::types),
        words: &[],
        most: 16 << 10,
        memory_kib: 1024,
        // An empty prompt has two bytes in a message and about 650 in memory, in a list that is
        // copied as it doubles.
        per_byte: 1200,
    },
    #[cfg(feature = "farm")]
    Target {
        name: "page-tokens",
        run: requests::page_tokens,
        form: Form::Bytes,
        words: &[
            b".",
            b"i",
            b"v",
            b"c.",
            b"l.",
            b"18446744073709551615",
            b"+1",
            b"\xd9\xa1",
            b"2026-01-31.",
        ],
        most: 300,
        memory_kib: 128,
        per_byte: 100,
    },
    #[cfg(feature = "farm")]
    Target {
        name: "queries",
        run: web::queries,
        form: Form::Bytes,
        words: &[
            b"&",
            b"=",
            b"%3D",
            b"%00",
            b"%1B",
            b"+",
            b"state=done",
            b"label=a%3Db",
            b"page_size=",
            b"18446744073709551616",
            b"1e400",
            b"2026-01-31T12:00:00Z",
            b"true",
        ],
        most: 4 << 10,
        memory_kib: 256,
        per_byte: 1000,
    },
    #[cfg(feature = "farm")]
    Target {
        name: "forms",
        run: web::forms,
        form: Form::Bytes,
        words: &[
            b"\r\n",
            b"--b",
            b"--b--",
            b"content-disposition: form-data; name=\"prompt\"",
            b"content-disposition: form-data; name=\"image[]\"; filename=\"a.png\"",
            b"content-type: image/png",
            b"filename*=UTF-8''a",
            b"n",
            b"size",
            b"1024x1024",
        ],
        most: 8 << 10,
        memory_kib: 512,
        per_byte: 1000,
    },
    #[cfg(feature = "farm")]
    Target {
        name: "masks",
        run: web::masks,
        form: Form::Picture,
        words: &[b"tRNS", b"PLTE", b"VP8L", b"ALPH"],
        most: 8 << 10,
        memory_kib: 1 << 20,
        per_byte: 2000,
    },
    #[cfg(feature = "farm")]
    Target {
        name: "routes",
        run: web::routes,
        form: Form::Bytes,
        words: &[
            b"\n",
            b"POST ",
            b"/api/v1/jobs",
            b"/v1/images/edits",
            b"/links/x",
            b"host: localhost",
            b"origin: http://localhost",
            b"sec-fetch-site: cross-site",
            b"content-type: application/jsonl",
            b"[::1]:80",
            b"@",
        ],
        most: 2 << 10,
        memory_kib: 128,
        per_byte: 300,
    },
    // Files of users.
    Target {
        name: "prompts",
        run: prompts::prompts,
        form: Form::Prompts,
        words: &[
            b"\n",
            b"\r\n",
            b"\r",
            b",",
            b";",
            b"\t",
            b"\"",
            b"\"\"",
            b"\xef\xbb\xbf",
            b"\xff\xfe",
            b"\xfe\xff",
            b"\0",
            b"prompt,",
            b"custom_id",
            b"settings.base.steps",
            b"{\"prompt\":",
            b"{\"annotations\":[",
            b"\"caption\":",
            b"\"image_id\":",
            b"#",
            b"\xe2\x80\xa8",
            b"\x1f\x8b\x08",
            b"\x28\xb5\x2f\xfd",
        ],
        most: 8 << 10,
        // A decoder of zstd reserves its window.
        memory_kib: 24 << 10,
        per_byte: 200,
    },
    Target {
        name: "captions",
        run: captions::captions,
        form: Form::Bytes,
        words: &[
            b"<",
            b">",
            b"</",
            b"<a href=",
            b"&amp;",
            b"&#x41;",
            b"https://",
            b"www.",
            b".jpg",
            b"@",
            b"#123",
            b"\\n",
            b"\"",
            b"'",
            b"&quot",
            b"1.2.3.4",
            b"\xe7\x8b\x97",
            b"...",
            b"--",
            b"_",
            b"(",
            b"[",
            b"{",
        ],
        most: 8 << 10,
        memory_kib: 4 << 10,
        per_byte: 2000,
    },
    Target {
        name: "pictures",
        run: pictures::pictures,
        form: Form::Picture,
        words: &[
            b"darkroom.prompt",
            b"parameters",
            b"Darkroom\0",
            b"UNICODE\0",
            b"Exif\0\0",
            b"MM\0*",
            b"II*\0",
            b"\x87\x69",
        ],
        most: 8 << 10,
        // As many pixels as a header may claim.
        memory_kib: 1 << 20,
        per_byte: 2000,
    },
    Target {
        name: "inputs",
        run: pictures::inputs,
        form: Form::Picture,
        words: &[b"Exif\0\0", b"MM\0*", b"II*\0", b"\x01\x12\0\x03", b"ICC_PROFILE\0", b"sRGB"],
        most: 8 << 10,
        memory_kib: 1 << 20,
        per_byte: 2000,
    },
    // Models.
    Target {
        name: "cascades",
        run: cascades::cascades,
        form: Form::Toml,
        words: &[
            b"[[stages]]",
            b"[encoder]",
            b"\"",
            b"'''",
            b"\n",
            b"= ",
            b"nan",
            b"1979-05-27",
            b"\xef\xbb\xbf",
        ],
        most: 8 << 10,
        memory_kib: 1024,
        per_byte: 300,
    },
    #[cfg(feature = "models")]
    Target {
        name: "networks",
        run: models::networks,
        form: Form::Entry,
        words: JSON,
        most: 8 << 10,
        memory_kib: 4 << 10,
        per_byte: 300,
    },
    #[cfg(feature = "models")]
    Target {
        name: "schedulers",
        run: models::schedulers,
        form: Form::Json,
        words: JSON,
        most: 8 << 10,
        // A million timesteps, three times over.
        memory_kib: 128 << 10,
        per_byte: 300,
    },
    #[cfg(feature = "models")]
    Target {
        name: "tokenizers",
        run: models::tokenizers,
        form: Form::Json,
        words: JSON,
        most: 16 << 10,
        memory_kib: 16 << 10,
        per_byte: 2000,
    },
    #[cfg(feature = "models")]
    Target {
        name: "sentencepiece",
        run: models::sentencepiece,
        form: Form::Wire,
        words: &[b"\xe2\x96\x81", b"</s>", b"<unk>", b"<0x00>", b"<pad>"],
        most: 16 << 10,
        memory_kib: 8 << 10,
        per_byte: 500,
    },
    #[cfg(feature = "models")]
    Target {
        name: "weights",
        run: models::weights,
        form: Form::Tensors,
        words: &[
            b"\"dtype\"",
            b"F32",
            b"BF16",
            b"\"shape\"",
            b"data_offsets",
            b"__metadata__",
            b"18446744073709551615",
        ],
        most: 8 << 10,
        memory_kib: 20 << 10,
        per_byte: 300,
    },
    Target {
        name: "tensors",
        run: tensors::tensors,
        form: Form::Tensors,
        words: &[
            b"\"dtype\"",
            b"F32",
            b"F16",
            b"\"shape\"",
            b"data_offsets",
            b"__metadata__",
            b"darkroom",
            b"tensor",
        ],
        most: 8 << 10,
        memory_kib: 256,
        per_byte: 300,
    },
    Target {
        name: "keys",
        run: keys::keys,
        form: Form::Bytes,
        words: &[b"dk_", b"_", b" ", b"\n", b"Bearer "],
        most: 256,
        memory_kib: 256,
        per_byte: 300,
    },
    Target {
        name: "webhooks",
        run: webhooks::webhooks,
        form: Form::Bytes,
        words: &[
            b"http://",
            b"https://",
            b"@",
            b":",
            b"[::1]",
            b"127.1",
            b"0x7f",
            b"#",
            b"?",
            b"%",
            b"xn--",
            b"::ffff:",
            b"wh_",
        ],
        most: 3 << 10,
        memory_kib: 256,
        per_byte: 300,
    },
    // What lies in storage and in the queue.
    Target {
        name: "manifests",
        run: manifests::manifests,
        form: Form::Manifest,
        words: JSON,
        most: 8 << 10,
        memory_kib: 1024,
        per_byte: 300,
    },
    Target {
        name: "entries",
        run: entries::entries,
        form: Form::Entry,
        words: &[b"\n", b"i.", b"t.", b".", b"r\n", b"s\n", b"18446744073709551616"],
        most: 8 << 10,
        memory_kib: 256,
        per_byte: 300,
    },
    Target {
        name: "cards",
        run: entries::cards,
        form: Form::Json,
        words: JSON,
        most: 8 << 10,
        memory_kib: 256,
        per_byte: 300,
    },
];

#[cfg(all(test, feature = "farm", feature = "models"))]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_folders_and_each_occurs_once() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|target| target.name).collect();
        assert_eq!(names.len(), ALL.len());
        for folder in [crate::corpus::corpora(), crate::corpus::regressions()] {
            for found in std::fs::read_dir(folder).unwrap() {
                let found = found.unwrap();
                if found.file_type().unwrap().is_dir() {
                    let name = found.file_name().into_string().unwrap();
                    assert!(names.contains(name.as_str()), "{name} is the corpus of no target");
                }
            }
        }
    }

    #[test]
    fn each_has_a_program_for_libfuzzer() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/Cargo.toml");
        let manifest: toml::Table = std::fs::read_to_string(file).unwrap().parse().unwrap();
        let programs = manifest["bin"].as_array().unwrap();
        let names: Vec<_> = programs.iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ALL.iter().map(|target| target.name).collect::<Vec<_>>());
    }
}
