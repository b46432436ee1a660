//! Measures the stages of a cascade folder and shows where the time goes, one line of JSON per
//! stage: `cargo run -p darkroom-diffusion --example time_stages -- CASCADE_DIR [f32|bf16]
//! [images=N] [warm=STEPS] [pass=IMAGES] [libtorch] [cpu|cuda] [eager]
//! [STAGE:SIZE:STEPS:GUIDANCE[:NOISE_LEVEL]]…`. The first stage makes the smallest picture.
//!
//! The text is made up, because the time does not depend on it. One call before the measured one
//! initialises libtorch. It has one step, or as many as given: CUDA graphs are recorded within the
//! first six.

#![expect(clippy::print_stdout, reason = "an internal tool; nobody closes its output early")]

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use darkroom_diffusion::{
    DeviceChoice, DtypeChoice, HostTensor, LoadOptions, RowInput, Sampler, SamplerSettings,
    Sampling, StageModel, timings,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    // A worker's models live on a separate thread, whose allocator differs from the main thread's.
    std::thread::spawn(time_stages).join().map_err(|_| "the thread panicked")?
}

fn time_stages() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let cascade = arguments.next().ok_or("give a cascade folder")?;
    let (mut options, mut images, mut stages) = (LoadOptions::default(), 1_usize, Vec::new());
    let mut warm_steps = 1;
    for argument in arguments {
        match argument.as_str() {
            "f32" => options.dtype = DtypeChoice::F32,
            "bf16" => options.dtype = DtypeChoice::Bf16,
            "libtorch" => options.libtorch_only = true,
            "eager" => options.eager = true,
            "cpu" => options.device = DeviceChoice::Cpu,
            "cuda" => options.device = DeviceChoice::Cuda(0),
            other => match other.split_once('=') {
                Some(("images", count)) => images = count.parse()?,
                Some(("warm", count)) => warm_steps = count.parse()?,
                Some(("pass", count)) => options.images_per_pass = Some(count.parse()?),
                _ => stages.push(other.to_owned()),
            },
        }
    }
    if stages.is_empty() {
        stages = ["base:64:20:1.5", "sr256:256:4:1:120", "sr1024:1024:4:1:50"]
            .map(str::to_owned)
            .to_vec();
    }
    let mut pictures: Vec<HostTensor> = Vec::new();
    for stage in &stages {
        pictures =
            time_stage(Path::new(&cascade), stage, &options, (images, warm_steps), pictures)?;
    }
    Ok(())
}

fn time_stage(
    cascade: &Path,
    stage: &str,
    options: &LoadOptions,
    (images, warm_steps): (usize, u32),
    below: Vec<HostTensor>,
) -> Result<Vec<HostTensor>, Failure> {
    let parts: Vec<&str> = stage.split(':').collect();
    let [name, size, steps, guidance, rest @ ..] = parts.as_slice() else {
        return Err(format!("{stage}: expected STAGE:SIZE:STEPS:GUIDANCE[:NOISE_LEVEL]").into());
    };
    let begun = Instant::now();
    let model = StageModel::load(&cascade.join(name), name, options)?;
    let load_seconds = begun.elapsed().as_secs_f64();
    let description = model.describe();
    let size: usize = size.parse()?;
    let sampling = Sampling {
        guidance_scale: guidance.parse()?,
        noise_level: rest.first().map(|level| level.parse()).transpose()?,
        ..Sampling::plain(Sampler::DpmSolverPlusPlus, steps.parse()?)
    };
    let settings = SamplerSettings { sampling, width: size, height: size };
    let shape = vec![32, description.text_dim];
    let text = HostTensor { data: vec![0.1; shape.iter().product()], shape };
    let mut below = below.into_iter();
    let rows: Vec<RowInput> = (0..images)
        .map(|index| {
            let made_up = || HostTensor {
                shape: vec![3, size / 4, size / 4],
                data: vec![0.1; 3 * size * size / 16],
            };
            RowInput {
                negative: Some(text.clone()),
                text: text.clone(),
                low_res: description.takes_low_res.then(|| below.next().unwrap_or_else(made_up)),
                init_image: None,
                mask: None,
                seed: index as u64,
            }
        })
        .collect();
    let go = &mut |_| ControlFlow::Continue(());
    let mut warm = settings.clone();
    warm.sampling.steps = warm_steps;
    model.render(&warm, &rows[..1], go)?;
    timings::take();
    let begun = Instant::now();
    let pictures = model.render(&settings, &rows, go)?;
    let seconds = begun.elapsed().as_secs_f64();
    let spent: serde_json::Map<String, serde_json::Value> = timings::take()
        .into_iter()
        .map(|(part, time)| (part.to_owned(), (time.as_secs_f64() / images as f64).into()))
        .collect();
    let line = serde_json::json!({
        "stage": name, "parameters": description.parameters, "load_seconds": load_seconds, "images": images,
        "seconds_per_image": seconds / images as f64, "steps": settings.sampling.steps, "parts": spent,
        "class": model.row_class(), "peak_mib": peak_mib(),
        "graphs": model.graphs().map_or_else(serde_json::Value::from, serde_json::Value::from),
    });
    println!("{line}");
    Ok(pictures)
}

/// The highest memory use of this process so far.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}
