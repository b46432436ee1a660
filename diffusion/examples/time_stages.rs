//! Times one image through the stages of a cascade folder: `cargo run -p darkroom-diffusion --example time_stages --
//! CASCADE_DIR [f32|bf16] [STAGE:SIZE:STEPS:GUIDANCE[:NOISE_LEVEL]]…`, the first stage making the smallest picture.
//! Text is random: the time does not depend on it.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use darkroom_diffusion::{DtypeChoice, HostTensor, LoadOptions, RowInput, SamplerSettings, StageModel};

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // A worker's models live on a thread of their own, whose allocator differs from the main thread's.
    std::thread::spawn(time_stages).join().map_err(|_| "the thread panicked")?
}

fn time_stages() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let cascade = arguments.next().ok_or("give a cascade folder")?;
    let dtype = match arguments.next().as_deref() {
        Some("f32") => DtypeChoice::F32,
        Some("bf16") => DtypeChoice::Bf16,
        _ => DtypeChoice::Auto,
    };
    let mut stages: Vec<String> = arguments.collect();
    if stages.is_empty() {
        stages = ["base:64:20:3", "sr256:256:4:1:50", "sr1024:1024:4:1:50"].map(str::to_owned).to_vec();
    }
    let mut picture: Option<HostTensor> = None;
    for stage in &stages {
        let parts: Vec<&str> = stage.split(':').collect();
        let [name, size, steps, guidance, rest @ ..] = parts.as_slice() else {
            return Err(format!("{stage}: expected STAGE:SIZE:STEPS:GUIDANCE[:NOISE_LEVEL]").into());
        };
        let begun = Instant::now();
        let options = LoadOptions { dtype, ..LoadOptions::default() };
        let model = StageModel::load(&Path::new(&cascade).join(name), name, &options)?;
        let description = model.describe();
        let loaded = begun.elapsed();
        let size: usize = size.parse()?;
        let settings = SamplerSettings {
            steps: steps.parse()?,
            guidance_scale: guidance.parse()?,
            noise_level: rest.first().map(|level| level.parse()).transpose()?,
            width: size,
            height: size,
            ..SamplerSettings::default()
        };
        let shape = vec![32, description.text_dim];
        let text = HostTensor { data: vec![0.1; shape.iter().product()], shape };
        let row = RowInput {
            negative: Some(text.clone()),
            text,
            low_res: picture.take(),
            init_image: None,
            mask: None,
            seed: 1,
        };
        let begun = Instant::now();
        let mut marks = Vec::new();
        let pictures = model.render(&settings, &[row], &mut |_| {
            marks.push(begun.elapsed().as_millis());
            ControlFlow::Continue(())
        })?;
        println!(
            "{name}: {} parameters, loaded in {loaded:.0?}, rendered in {:.0?}, steps done at {marks:?} ms, {}",
            description.parameters,
            begun.elapsed(),
            model.row_class()
        );
        picture = pictures.into_iter().next();
    }
    Ok(())
}
