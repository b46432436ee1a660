//! Starts from a given picture: what is kept, what is repainted, the same bytes in any batch, and
//! refused inputs.

use std::ops::ControlFlow;

use darkroom_diffusion::{
    DtypeChoice, HostTensor, RenderError, RowInput, Sampler, SamplerSettings, StageModel,
};

use super::rendering::{bits, render, row, settings, stage, with};

const SAMPLERS: [Sampler; 3] = [Sampler::DpmSolverPlusPlus, Sampler::Ddim, Sampler::Ddpm];

/// Settings, and a row with its own picture to start from.
fn start(model: &StageModel, sampler: Sampler, seed: u64) -> (SamplerSettings, RowInput) {
    let settings = with(&settings(model, sampler, 2.0), |sampling| {
        (sampling.steps, sampling.strength) = (4, Some(0.5));
    });
    let count = 3 * settings.height * settings.width;
    let data = (0..count).map(|index| ((index as f32 + seed as f32 * 91.0) * 0.11).sin()).collect();
    let init_image = HostTensor { shape: vec![3, settings.height, settings.width], data };
    (settings, RowInput { init_image: Some(init_image), ..row(model, seed) })
}

/// Repaints every pixel for which `white` is true.
fn mask(settings: &SamplerSettings, white: impl Fn(usize) -> f32) -> Option<HostTensor> {
    let data = (0..settings.height * settings.width).map(white).collect();
    Some(HostTensor { shape: vec![1, settings.height, settings.width], data })
}

#[test]
fn an_image_has_the_same_bytes_alone_and_in_any_batch_with_pictures_and_masks() {
    for (cascade, name) in [("example", "base"), ("deep", "sr"), ("deep", "efficient")] {
        for (dtype, sampler) in [
            (DtypeChoice::F32, Sampler::Ddpm),
            (DtypeChoice::F32, Sampler::DpmSolverPlusPlus),
            (DtypeChoice::Bf16, Sampler::Ddim),
        ] {
            let model = stage(cascade, name, dtype);
            let (settings, _) = start(&model, sampler, 0);
            let mut rows: Vec<RowInput> =
                (0..4).map(|seed| start(&model, sampler, seed).1).collect();
            rows[1].mask = mask(&settings, |pixel| (pixel % 3 == 0) as u8 as f32);
            rows[3].mask = mask(&settings, |pixel| (pixel % 32 < 20) as u8 as f32);
            let all = render(&model, &settings, &rows);
            for (index, together) in all.iter().enumerate() {
                let alone = render(&model, &settings, &rows[index..=index]);
                assert_eq!(
                    bits(&alone[0]),
                    bits(together),
                    "{cascade}/{name} {sampler:?} row {index} alone"
                );
            }
            rows.reverse();
            let others = render(&model, &settings, &rows);
            assert_eq!(
                bits(&others[2]),
                bits(&all[1]),
                "{cascade}/{name} {sampler:?} in another batch"
            );
        }
    }
}

#[test]
fn kept_pixels_come_out_as_they_were_given_and_the_others_do_not() {
    let model = stage("example", "base", DtypeChoice::F32);
    for sampler in SAMPLERS {
        let (settings, mut row) = start(&model, sampler, 3);
        let repaint = |pixel: usize| pixel % 32 >= 11;
        row.mask = mask(&settings, |pixel| repaint(pixel) as u8 as f32);
        let [picture] = render(&model, &settings, std::slice::from_ref(&row)).try_into().unwrap();
        let given = row.init_image.unwrap();
        let plane = settings.width * settings.height;
        let mut changed = 0;
        for (index, (got, given)) in picture.data.iter().zip(&given.data).enumerate() {
            if repaint(index % plane) {
                changed += usize::from(got != given);
            } else {
                assert_eq!(got.to_bits(), given.to_bits(), "{sampler:?} value {index}");
            }
        }
        assert!(changed > plane, "{sampler:?}: {changed} values changed");
    }
}

#[test]
fn a_mask_counts_as_its_nearer_end() {
    let model = stage("example", "base", DtypeChoice::F32);
    let (settings, row) = start(&model, Sampler::Ddpm, 5);
    let with = |white: fn(usize) -> f32| {
        let row = RowInput { mask: mask(&settings, white), ..row.clone() };
        bits(&render(&model, &settings, &[row])[0])
    };
    let hard = with(|pixel| (pixel % 2) as f32);
    assert_eq!(with(|pixel| if pixel % 2 == 1 { 0.5 } else { 0.49 }), hard);
    assert_eq!(
        with(|_| 1.0),
        bits(&render(&model, &settings, std::slice::from_ref(&row))[0]),
        "an all-white mask is like no mask"
    );
    assert_ne!(with(|_| 1.0), hard);
}

#[test]
fn the_weaker_the_closer() {
    let model = stage("example", "base", DtypeChoice::F32);
    for sampler in SAMPLERS {
        let (settings, row) = start(&model, sampler, 8);
        let given = row.init_image.clone().unwrap();
        let distance = |strength| {
            let settings = with(&settings, |sampling| {
                (sampling.steps, sampling.strength) = (50, Some(strength));
            });
            let pictures = render(&model, &settings, std::slice::from_ref(&row));
            let differences =
                pictures[0].data.iter().zip(&given.data).map(|(a, b)| f64::from((a - b).abs()));
            differences.sum::<f64>() / given.data.len() as f64
        };
        let (weak, strong) = (distance(0.02), distance(0.5));
        assert!(weak < 0.25 && weak < strong, "{sampler:?}: {weak} and {strong}");
    }
}

#[test]
fn only_the_last_steps_run_and_are_reported() {
    let model = stage("example", "base", DtypeChoice::F32);
    let (settings, row) = start(&model, Sampler::Ddim, 1);
    let settings =
        with(&settings, |sampling| (sampling.steps, sampling.strength) = (10, Some(0.39)));
    let mut heard = Vec::new();
    let _ = model.render(&settings, &[row], &mut |report| {
        heard.push((report.step, report.steps, report.timestep));
        ControlFlow::Continue(())
    });
    assert_eq!(heard, [(1, 3, 200), (2, 3, 100), (3, 3, 0)]);
}

#[test]
fn the_noise_of_a_given_picture_is_not_that_of_a_new_one() {
    let model = stage("example", "base", DtypeChoice::F32);
    let (settings, row) = start(&model, Sampler::Ddpm, 1);
    let grey = HostTensor {
        data: vec![0.0; row.init_image.as_ref().unwrap().data.len()],
        ..row.init_image.clone().unwrap()
    };
    let from_grey = with(&settings, |sampling| {
        (sampling.strength, sampling.timesteps) = (Some(1.0), vec![999, 500, 0]);
    });
    let from_noise = with(&from_grey, |sampling| sampling.strength = None);
    let one = render(&model, &from_grey, &[RowInput { init_image: Some(grey), ..row.clone() }]);
    let other = render(&model, &from_noise, &[RowInput { init_image: None, ..row }]);
    let apart =
        one[0].data.iter().zip(&other[0].data).filter(|(a, b)| (*a - *b).abs() > 1e-3).count();
    assert!(apart > one[0].data.len() / 2, "{apart} values differ");
}

#[test]
fn what_does_not_fit_is_refused_in_a_sentence() {
    let model = stage("example", "base", DtypeChoice::F32);
    type Change = fn(&mut SamplerSettings, &mut RowInput);
    let cases: [(&str, Change); 11] = [
        ("strength: 0; accepted: above 0, up to 1", |settings, _| {
            settings.sampling.strength = Some(0.0)
        }),
        ("strength: 1.5; accepted: above 0, up to 1", |settings, _| {
            settings.sampling.strength = Some(1.5)
        }),
        (
            "strength: 0.2 leaves none of 4 steps; accepted: at least one step's share, 1/4",
            |settings, _| settings.sampling.strength = Some(0.2),
        ),
        ("init_image: accepted only with a strength", |settings, _| {
            settings.sampling.strength = None
        }),
        ("init_image: needed where there is a strength", |_, row| row.init_image = None),
        ("init_image: shape [3, 4, 2] with 24 values; expected [3, 16, 32]", |_, row| {
            row.init_image = Some(HostTensor { shape: vec![3, 4, 2], data: vec![0.0; 24] });
        }),
        ("init_image: holds 1.5; accepted: values from -1 to 1", |_, row| {
            row.init_image.as_mut().unwrap().data[7] = 1.5;
        }),
        ("init_image: holds NaN; accepted: values from -1 to 1", |_, row| {
            row.init_image.as_mut().unwrap().data[7] = f32::NAN;
        }),
        ("mask: accepted only with a picture to keep, init_image", |settings, row| {
            row.mask = mask(settings, |_| 1.0);
            (settings.sampling.strength, row.init_image) = (None, None);
        }),
        ("mask: shape [1, 2, 2] with 4 values; expected [1, 16, 32]", |_, row| {
            row.mask = Some(HostTensor { shape: vec![1, 2, 2], data: vec![0.0; 4] });
        }),
        ("mask: holds 255; accepted: values from 0 to 1", |settings, row| {
            row.mask = mask(settings, |_| 255.0);
        }),
    ];
    for (expected, change) in cases {
        let (mut settings, mut row) = start(&model, Sampler::Ddim, 1);
        change(&mut settings, &mut row);
        match model.render(&settings, &[row], &mut |_| ControlFlow::Continue(())) {
            Err(error @ RenderError::Invalid { .. }) => assert_eq!(error.to_string(), expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}
