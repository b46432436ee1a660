//! The rules of recording, tested on the CPU. A twin of CUDA's recorder computes a pass again on
//! the recording's own tensors. If a replay then gives an ordinary pass's bits, the pass depends on
//! nothing else.

use std::path::Path;

use darkroom_core::sampling::{GuidanceSchedule, Sampler, Sampling};
use tch::Device;

use super::*;
use crate::denoise::{Denoiser, Start};
use crate::device::{DeviceChoice, DtypeChoice, LoadOptions};
use crate::stage::StageModel;

/// Replaces CUDA's recorder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Twin {
    /// Replays by computing again.
    Again,
    /// Replays by returning the values from the time of recording, as if something of that pass
    /// were frozen in it.
    Frozen,
    /// Does not record.
    Refusing,
    /// Records, but does not replay.
    Breaking,
}

impl Twin {
    pub(super) fn record<T>(self, pass: impl FnOnce() -> Torch<T>) -> Result<T, String> {
        if self == Self::Refusing {
            return Err("an operation is not permitted while recording".to_owned());
        }
        pass().map_err(|error| error.to_string())
    }

    pub(super) fn replay(
        self,
        pass: impl FnOnce() -> Torch<(Tensor, Tensor)>,
        (output, deep): (&mut Tensor, &mut Tensor),
    ) -> Result<(), String> {
        match self {
            Self::Frozen => Ok(()),
            Self::Breaking => Err("an illegal memory access was encountered".to_owned()),
            Self::Again | Self::Refusing => {
                let (new_output, new_deep) = pass().map_err(|error| error.to_string())?;
                let copied = output.f_copy_(&new_output).and_then(|()| deep.f_copy_(&new_deep));
                copied.map_err(|error| error.to_string())
            }
        }
    }
}

fn graphs(twin: Twin) -> Graphs {
    Graphs { recorder: Recorder::Test(twin), state: RefCell::default() }
}

fn kept(graphs: &Graphs) -> usize {
    graphs.state.borrow().kept.len()
}

fn has_given_up(graphs: &Graphs) -> bool {
    graphs.state.borrow().given_up.is_some()
}

fn model(stage: &str, dtype: DtypeChoice, libtorch_only: bool) -> StageModel {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(stage);
    let options =
        LoadOptions { device: DeviceChoice::Cpu, dtype, libtorch_only, ..LoadOptions::default() };
    StageModel::load(&folder, "stage", &options).unwrap()
}

/// Two batches of two images each take the same steps in parallel; some steps are guided, and some
/// reuse features. Returns the results.
fn sampled(model: &StageModel, graphs: Option<&Graphs>, size: i64, seed: i64) -> Vec<Tensor> {
    let _no_grad = tch::no_grad_guard();
    let sampling = Sampling {
        guidance_scale: 3.0,
        guidance_schedule: GuidanceSchedule::Steps { from: 0.0, to: 50.0 },
        cache_interval: 2,
        ..Sampling::plain(Sampler::Ddim, 14)
    };
    let plan = model.plan(&sampling).unwrap();
    let described = model.describe();
    tch::manual_seed(seed);
    let normal = |shape: [i64; 3]| {
        Tensor::randn([2, shape[0], shape[1], shape[2]], (Kind::Float, Device::Cpu))
    };
    let text = || normal([1, 7, described.text_dim as i64]).squeeze_dim(1);
    let start = || Start {
        text: text(),
        negative: Some(text()),
        low_res: described.takes_low_res.then(|| normal([3, size, size])),
        noise_level: model.class_label(described.takes_low_res.then_some(9)),
        x: normal([3, size, size]),
        mask: None,
    };
    let mut denoisers: Vec<Denoiser<'_>> = (0..2)
        .map(|_| {
            let denoiser = Denoiser::new(model.network(), &plan, &start()).unwrap();
            match graphs {
                Some(graphs) => denoiser.with_graphs(graphs),
                None => denoiser,
            }
        })
        .collect();
    for index in 0..plan.timesteps.len() {
        for denoiser in &mut denoisers {
            let output = denoiser.predict(index).unwrap();
            denoiser.advance(index, &output, || Ok(Tensor::new())).unwrap();
        }
    }
    denoisers.iter().map(|denoiser| denoiser.x().shallow_clone()).collect()
}

fn size_of(model: &StageModel) -> i64 {
    model.describe().size_multiple.max(16) as i64
}

#[test]
fn replayed_passes_give_the_bits_of_ordinary_ones() {
    for (stage, dtype, libtorch_only) in [
        ("example/base", DtypeChoice::F32, true),
        ("example/sr1", DtypeChoice::Bf16, true),
        ("deep/base", DtypeChoice::Bf16, false),
        ("odd/efficient", DtypeChoice::Bf16, true),
    ] {
        let model = model(stage, dtype, libtorch_only);
        let (graphs, size) = (graphs(Twin::Again), size_of(&model));
        for seed in 0..2 {
            let plain = sampled(&model, None, size, seed);
            assert_eq!(
                sampled(&model, Some(&graphs), size, seed),
                plain,
                "{stage}, {dtype:?}, seed {seed}"
            );
        }
        assert!(!has_given_up(&graphs), "{stage}: no recording differed");
        assert_eq!(
            kept(&graphs),
            4,
            "{stage}: guided or not, with its own features or another step's"
        );
        assert!(graphs.state.borrow().kept.iter().all(|recorded| recorded.checks_left == 0));
    }
}

#[test]
fn a_recording_that_fails_or_differs_is_the_last_and_costs_no_bits() {
    let model = model("example/base", DtypeChoice::F32, true);
    let plain = sampled(&model, None, 16, 3);
    for twin in [Twin::Frozen, Twin::Refusing, Twin::Breaking] {
        let graphs = graphs(twin);
        assert_eq!(sampled(&model, Some(&graphs), 16, 3), plain, "{twin:?}");
        assert!(has_given_up(&graphs), "{twin:?}");
        assert_eq!(kept(&graphs), 0, "{twin:?}");
        assert!(!graphs.kept().unwrap_err().is_empty(), "it says why");
    }
}

#[test]
fn few_shapes_are_kept_and_none_of_large_pictures() {
    let model = model("example/base", DtypeChoice::F32, true);
    let graphs = graphs(Twin::Again);
    for size in [16, 24, 32] {
        let plain = sampled(&model, None, size, 1);
        assert_eq!(sampled(&model, Some(&graphs), size, 1), plain);
        assert_eq!(kept(&graphs), MOST);
        assert!(graphs.state.borrow().counted.len() <= MOST_COUNTED);
    }
    let sizes: Vec<i64> =
        graphs.state.borrow().kept.iter().map(|recorded| recorded.shape.x[3]).collect();
    assert_eq!(sizes, [32; MOST], "the least recently used was dropped");
    assert!(pixels(&Tensor::zeros([8, 3, 64, 64], (Kind::Float, Device::Cpu))) <= MOST_PIXELS);
    assert!(pixels(&Tensor::zeros([1, 6, 1024, 1024], (Kind::Float, Device::Cpu))) > MOST_PIXELS);
}

#[test]
fn for_want_of_memory_recordings_go_for_good() {
    let model = model("example/base", DtypeChoice::F32, true);
    let graphs = graphs(Twin::Again);
    assert!(!graphs.give_back(), "nothing to give");
    let plain = sampled(&model, None, 16, 1);
    assert_eq!(sampled(&model, Some(&graphs), 16, 1), plain);
    assert!(graphs.give_back());
    assert_eq!(sampled(&model, Some(&graphs), 16, 1), plain);
    assert_eq!(kept(&graphs), 0);
    assert!(!graphs.give_back());
}

#[test]
fn on_a_cpu_nothing_is_recorded() {
    let model = model("example/base", DtypeChoice::F32, true);
    let graphs = Graphs::new(model.placement(), false);
    assert_eq!(sampled(&model, Some(&graphs), 16, 1), sampled(&model, None, 16, 1));
    assert_eq!(kept(&graphs) + graphs.state.borrow().counted.len(), 0);
    assert_eq!(graphs.kept().unwrap_err(), "it is not on a GPU");
}
