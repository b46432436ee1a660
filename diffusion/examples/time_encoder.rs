//! Measures a text encoder: `cargo run -p darkroom-diffusion --example time_encoder --
//! TEXT_ENCODER_DIR TOKENIZER_DIR LENGTH f32|bf16 TEXTS_FILE SECONDS [OUT]`. Prints one JSON
//! object: texts per second, positions per second (padding is computed too), memory. `OUT` gets the
//! first text's embedding, little-endian f32.
//!
//! If `SECONDS` is 0, every line of the file is encoded once, in batches of 256, and memory is
//! printed on the way: it must not grow with the number of texts.

#![expect(clippy::print_stdout, reason = "an internal tool; nobody closes its output early")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Instant;

use darkroom_diffusion::{DtypeChoice, LoadOptions, TextEncoder};

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Texts per call.
const BATCH: usize = 256;

fn main() -> Result<(), Fault> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [encoder, tokenizer, length, dtype, texts, seconds, rest @ ..] = arguments.as_slice()
    else {
        return Err(
            "give TEXT_ENCODER_DIR TOKENIZER_DIR LENGTH f32|bf16 TEXTS_FILE SECONDS [OUT]".into()
        );
    };
    let dtype = if dtype == "bf16" { DtypeChoice::Bf16 } else { DtypeChoice::F32 };
    let (length, seconds): (usize, f64) = (length.parse()?, seconds.parse()?);
    let options = LoadOptions { dtype, ..LoadOptions::default() };
    let begun = Instant::now();
    let encoder = TextEncoder::load(Path::new(encoder), Path::new(tokenizer), length, &options)?;
    let loaded = begun.elapsed().as_secs_f64();
    let lines = BufReader::new(std::fs::File::open(texts)?).lines();
    if seconds == 0.0 {
        return stream(&encoder, lines);
    }
    let texts: Vec<String> = lines.collect::<Result<_, _>>()?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let first = encoder.encode(&texts[..1])?;
    if let Some(out) = rest.first() {
        let bytes: Vec<u8> =
            first[0].embedding.data.iter().flat_map(|value| value.to_le_bytes()).collect();
        std::fs::write(out, bytes)?;
    }
    // Once before the clock starts, because libtorch initialises itself in the first call.
    encoder.encode(&texts[..texts.len().min(8)])?;
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed().as_secs_f64() < seconds {
        count += encoder.encode(&texts)?.len();
    }
    let per_second = count as f64 / begun.elapsed().as_secs_f64();
    println!(
        "{{\"texts\": {count}, \"texts_per_second\": {per_second:.3}, \"positions_per_second\": {:.1}, \
         \"loaded_seconds\": {loaded:.2}, \"peak_mib\": {:.1}, \"class\": \"{}\"}}",
        per_second * length as f64,
        memory("VmHWM"),
        encoder.row_class()
    );
    Ok(())
}

fn stream(
    encoder: &TextEncoder,
    lines: impl Iterator<Item = std::io::Result<String>>,
) -> Result<(), Fault> {
    let (begun, mut count, mut told) = (Instant::now(), 0_usize, 1000);
    let mut batch = Vec::with_capacity(BATCH);
    let mut lines = lines.peekable();
    while let Some(line) = lines.next() {
        batch.push(line?);
        if batch.len() < BATCH && lines.peek().is_some() {
            continue;
        }
        let texts: Vec<&str> = batch.iter().map(String::as_str).collect();
        count += encoder.encode(&texts)?.len();
        batch.clear();
        if count >= told || lines.peek().is_none() {
            let seconds = begun.elapsed().as_secs_f64();
            println!(
                "{{\"texts\": {count}, \"resident_mib\": {:.1}, \"seconds\": {seconds:.1}}}",
                memory("VmRSS")
            );
            told *= 4;
        }
    }
    Ok(())
}

/// A line of this process's status, MiB; 0 if there is none.
fn memory(what: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_default();
    let kib: f64 = line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0.0);
    kib / 1024.0
}
