//! Rendering: the same bytes alone and in any batch, stopping, and invalid inputs.

use std::ops::ControlFlow;

use darkroom_diffusion::{
    DeviceChoice, DtypeChoice, GuidanceSchedule, HostTensor, LoadOptions, RenderError, RowInput,
    Sampler, SamplerSettings, Sampling, StageModel, TextEncoder,
};

use super::fixture;

fn options(dtype: DtypeChoice) -> LoadOptions {
    LoadOptions { device: DeviceChoice::Cpu, dtype, ..LoadOptions::default() }
}

pub(super) fn stage(cascade: &str, name: &str, dtype: DtypeChoice) -> StageModel {
    load(cascade, name, &options(dtype))
}

fn load(cascade: &str, name: &str, options: &LoadOptions) -> StageModel {
    StageModel::load(&fixture(cascade).join(name), name, options).unwrap()
}

/// Made-up values that differ from row to row.
fn values(shape: [usize; 2], seed: u64) -> HostTensor {
    let count = shape.iter().product::<usize>();
    let data = (0..count).map(|index| ((index as f32 + seed as f32 * 7.3) * 0.37).sin()).collect();
    HostTensor { shape: shape.to_vec(), data }
}

pub(super) fn row(model: &StageModel, seed: u64) -> RowInput {
    let description = model.describe();
    let low_res = description.takes_low_res.then(|| {
        let HostTensor { data, .. } = values([3, 8 * 12], seed);
        HostTensor { shape: vec![3, 8, 12], data }
    });
    RowInput {
        text: values([10, description.text_dim], seed),
        negative: Some(values([10, description.text_dim], seed + 100)),
        low_res,
        init_image: None,
        mask: None,
        seed,
    }
}

pub(super) fn settings(
    model: &StageModel,
    sampler: Sampler,
    guidance_scale: f64,
) -> SamplerSettings {
    let noise_level = model.describe().takes_low_res.then_some(30);
    let sampling = Sampling { guidance_scale, noise_level, ..Sampling::plain(sampler, 3) };
    SamplerSettings { sampling, width: 32, height: 16 }
}

/// The same settings with another sampling.
pub(super) fn with(
    settings: &SamplerSettings,
    change: impl FnOnce(&mut Sampling),
) -> SamplerSettings {
    let mut settings = settings.clone();
    change(&mut settings.sampling);
    settings
}

pub(super) fn render(
    model: &StageModel,
    settings: &SamplerSettings,
    rows: &[RowInput],
) -> Vec<HostTensor> {
    model.render(settings, rows, &mut |_| ControlFlow::Continue(())).unwrap()
}

pub(super) fn bits(picture: &HostTensor) -> Vec<u32> {
    picture.data.iter().map(|value| value.to_bits()).collect()
}

const STAGES: [(&str, &str); 4] =
    [("example", "base"), ("example", "sr1"), ("deep", "sr"), ("deep", "efficient")];

#[test]
fn an_image_has_the_same_bytes_alone_and_in_any_batch() {
    for libtorch_only in [false, true] {
        for (cascade, name) in STAGES {
            for dtype in [DtypeChoice::F32, DtypeChoice::Bf16] {
                let model = load(cascade, name, &LoadOptions { libtorch_only, ..options(dtype) });
                let case = format!("{cascade}/{name} {dtype:?}, libtorch only: {libtorch_only}");
                let rows: Vec<RowInput> = (0..5).map(|seed| row(&model, seed)).collect();
                let turns = GuidanceSchedule::Oscillating { first: 1, low: 1.0 };
                for (sampler, guidance, guidance_schedule, cache_interval) in [
                    (Sampler::DpmSolverPlusPlus, 3.0, GuidanceSchedule::Constant, 1),
                    (Sampler::Ddpm, 1.0, GuidanceSchedule::Constant, 1),
                    (Sampler::Ddim, 3.0, GuidanceSchedule::Constant, 2),
                    (Sampler::SdeDpmSolverPlusPlus, 3.0, turns, 1),
                ] {
                    let settings = with(&settings(&model, sampler, guidance), |sampling| {
                        sampling.steps = 2;
                        sampling.guidance_schedule = guidance_schedule;
                        sampling.cache_interval = cache_interval;
                    });
                    let all = render(&model, &settings, &rows);
                    for (index, together) in all.iter().enumerate() {
                        assert_eq!(together.shape, [3, 16, 32]);
                        let alone = render(&model, &settings, &rows[index..=index]);
                        assert_eq!(bits(&alone[0]), bits(together), "{case}, row {index} alone");
                    }
                    let reversed: Vec<RowInput> = rows.iter().rev().cloned().collect();
                    let others = render(&model, &settings, &reversed);
                    assert_eq!(bits(&others[4]), bits(&all[0]), "{case}, in another batch");
                    assert_ne!(bits(&all[0]), bits(&all[1]), "rows differ");
                }
            }
        }
    }
}

/// A step with weight 1 has the shape of an unguided stage's step, so it has the same bits.
#[test]
fn a_step_outside_the_interval_is_a_step_of_an_unguided_stage() {
    for (cascade, name) in [("example", "base"), ("deep", "efficient")] {
        let model = stage(cascade, name, DtypeChoice::Bf16);
        let rows = [row(&model, 1), row(&model, 2)];
        let unguided = settings(&model, Sampler::Ddim, 1.0);
        // 666, 333, 0: no timestep is inside.
        let guided = |from, to| {
            with(&unguided, |sampling| {
                sampling.guidance_scale = 4.0;
                sampling.guidance_schedule = GuidanceSchedule::Timesteps { from, to };
            })
        };
        let (outside, inside) = (guided(900, 999), guided(300, 400));
        let of = |settings: &SamplerSettings| {
            render(&model, settings, &rows).iter().map(bits).collect::<Vec<_>>()
        };
        assert_eq!(of(&outside), of(&unguided));
        assert_ne!(of(&inside), of(&unguided));
        let one_step = with(&inside, |sampling| sampling.timesteps = vec![333]);
        let all =
            with(&one_step, |sampling| sampling.guidance_schedule = GuidanceSchedule::Constant);
        assert_eq!(of(&one_step), of(&all));
    }
}

#[test]
fn an_image_has_the_same_bytes_for_any_number_of_threads() {
    for (cascade, name) in STAGES {
        for dtype in [DtypeChoice::F32, DtypeChoice::Bf16] {
            let rendered: Vec<(String, Vec<Vec<u32>>)> = [1, 3]
                .iter()
                .map(|threads| {
                    let model = load(
                        cascade,
                        name,
                        &LoadOptions { threads: Some(*threads), ..options(dtype) },
                    );
                    let rows = [row(&model, 1), row(&model, 2)];
                    // Large enough that layers are split, and libtorch's own operations too.
                    let SamplerSettings { sampling, .. } =
                        with(&settings(&model, Sampler::DpmSolverPlusPlus, 3.0), |sampling| {
                            sampling.steps = 1
                        });
                    let settings = SamplerSettings { sampling, width: 64, height: 64 };
                    (model.row_class(), render(&model, &settings, &rows).iter().map(bits).collect())
                })
                .collect();
            // If the class names the threads, it promises nothing for other numbers of threads.
            if rendered.iter().all(|(class, _)| !class.contains("threads")) {
                assert!(
                    rendered.windows(2).all(|pair| pair[0] == pair[1]),
                    "{cascade}/{name} {dtype:?}"
                );
            }
        }
    }
}

#[test]
fn the_kernels_draw_what_libtorch_draws() {
    for (cascade, name) in STAGES {
        let pictures = |dtype, libtorch_only| {
            let model = load(cascade, name, &LoadOptions { libtorch_only, ..options(dtype) });
            let settings = settings(&model, Sampler::DpmSolverPlusPlus, 2.0);
            render(&model, &settings, &[row(&model, 1), row(&model, 2)])
        };
        let off = |a: &[HostTensor], b: &[HostTensor]| {
            let pairs = a.iter().zip(b).flat_map(|(a, b)| a.data.iter().zip(&b.data));
            let off: Vec<f32> = pairs.map(|(a, b)| (a - b).abs()).collect();
            (off.iter().copied().fold(0.0, f32::max), off.iter().sum::<f32>() / off.len() as f32)
        };
        let exact = pictures(DtypeChoice::F32, true);
        let (worst, _) = off(&pictures(DtypeChoice::F32, false), &exact);
        assert!(worst < 1e-3, "{cascade}/{name}: {worst}");
        // In bf16 both differ from the exact result; our kernels round less often.
        let (_, ours) = off(&pictures(DtypeChoice::Bf16, false), &exact);
        let (_, libtorchs) = off(&pictures(DtypeChoice::Bf16, true), &exact);
        assert!(ours < 1.2 * libtorchs + 1e-4, "{cascade}/{name}: {ours} against {libtorchs}");
    }
}

#[test]
fn a_text_has_the_same_embedding_alone_and_with_others() {
    let folder = fixture("example");
    for dtype in [DtypeChoice::F32, DtypeChoice::Bf16] {
        let load = || {
            TextEncoder::load(
                &folder.join("text_encoder"),
                &folder.join("tokenizer"),
                12,
                &options(dtype),
            )
        };
        let encoder = load().unwrap();
        let texts = [
            "a red circle",
            "",
            "the dog on a bike in the snow above a blue square and 3 circles",
            "狗 dog",
        ];
        let all = encoder.encode(&texts).unwrap();
        for (text, together) in texts.iter().zip(&all) {
            assert_eq!(together.embedding.shape, [12, encoder.dimension()]);
            let alone = encoder.encode(&[text]).unwrap();
            assert_eq!(bits(&alone[0].embedding), bits(&together.embedding), "{text} {dtype:?}");
        }
        assert!(all[2].truncated_tokens > 0 && all[0].truncated_tokens == 0);
        assert_eq!(all[3].unknown_words, ["狗"]);
    }
}

#[test]
fn bf16_pictures_are_close_to_f32_pictures() {
    let (exact, rough) =
        (stage("example", "sr2", DtypeChoice::F32), stage("example", "sr2", DtypeChoice::Bf16));
    let settings = settings(&exact, Sampler::DpmSolverPlusPlus, 2.0);
    let rows = [row(&exact, 1)];
    let (exact, rough) = (render(&exact, &settings, &rows), render(&rough, &settings, &rows));
    let worst =
        exact[0].data.iter().zip(&rough[0].data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst > 0.0 && worst < 0.1, "{worst}");
}

#[test]
fn a_render_reports_each_step_and_stops_when_told() {
    let model = stage("example", "base", DtypeChoice::F32);
    let settings = settings(&model, Sampler::Ddim, 2.0);
    let mut heard = Vec::new();
    let rows = [row(&model, 1), row(&model, 2)];
    let stopped = model.render(&settings, &rows, &mut |report| {
        heard.push((report.step, report.steps, report.timestep));
        if report.step == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(RenderError::Interrupted)));
    assert_eq!(heard, [(1, 3, 666), (2, 3, 333)]);
}

#[test]
fn no_rows_make_no_pictures() {
    let model = stage("example", "base", DtypeChoice::F32);
    assert!(render(&model, &settings(&model, Sampler::Ddim, 2.0), &[]).is_empty());
}

#[test]
fn inputs_that_do_not_fit_are_refused_by_name() {
    let (base, sr) =
        (stage("example", "base", DtypeChoice::F32), stage("example", "sr1", DtypeChoice::F32));
    type Change = fn(&mut SamplerSettings, &mut RowInput);
    let cases: [(&StageModel, &str, Change); 14] = [
        (&base, "width", |settings, _| settings.width = 17),
        (&base, "height", |settings, _| settings.height = 0),
        (&base, "guidance_scale", |settings, _| settings.sampling.guidance_scale = f64::NAN),
        (&base, "noise_level", |settings, _| settings.sampling.noise_level = Some(1)),
        (&sr, "noise_level", |settings, _| settings.sampling.noise_level = None),
        (&sr, "noise_level", |settings, _| settings.sampling.noise_level = Some(1000)),
        (&base, "text", |_, row| row.text.shape[1] += 1),
        (&base, "text", |_, row| row.text.data.truncate(3)),
        (&base, "negative", |_, row| row.negative = None),
        (&base, "negative", |settings, row| {
            settings.sampling.guidance_scale = 1.0;
            settings.sampling.guidance_schedule =
                GuidanceSchedule::Oscillating { first: 1, low: 2.0 };
            row.negative = None;
        }),
        (&base, "negative", |_, row| {
            row.negative = Some(HostTensor { shape: vec![1, 32], data: vec![0.0; 32] })
        }),
        (&base, "low_res", |_, row| {
            row.low_res = Some(HostTensor { shape: vec![3, 1, 1], data: vec![0.0; 3] })
        }),
        (&sr, "low_res", |_, row| row.low_res = None),
        (&sr, "low_res", |_, row| {
            row.low_res = Some(HostTensor { shape: vec![1, 2, 2], data: vec![0.0; 4] })
        }),
    ];
    for (model, expected, change) in cases {
        let (mut settings, mut row) = (settings(model, Sampler::Ddim, 2.0), row(model, 1));
        change(&mut settings, &mut row);
        match model.render(&settings, &[row], &mut |_| ControlFlow::Continue(())) {
            Err(RenderError::Invalid { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn a_row_that_is_not_a_number_is_named() {
    let model = stage("example", "base", DtypeChoice::F32);
    let settings = settings(&model, Sampler::DpmSolverPlusPlus, 2.0);
    let mut rows = [row(&model, 1), row(&model, 2)];
    rows[1].text.data[0] = f32::NAN;
    let result = model.render(&settings, &rows, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(result, Err(RenderError::NonFinite { row: 1 })), "{result:?}");
}

#[test]
fn a_stage_says_what_it_is() {
    let model = stage("deep", "efficient", DtypeChoice::F32);
    let description = model.describe();
    assert_eq!(description.class, "EfficientUNet2DModel");
    assert_eq!(
        (description.in_channels, description.out_channels, description.text_dim),
        (6, 3, 64)
    );
    assert_eq!((description.default_width, description.size_multiple), (32, 8));
    assert_eq!((description.dtype.as_str(), description.device.as_str()), ("f32", "cpu"));
    assert!(description.takes_low_res && description.parameters > 10_000);
    assert!(
        model.row_class().starts_with("cpu/") && model.row_class().contains("/f32/"),
        "{}",
        model.row_class()
    );
}
