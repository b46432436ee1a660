//! Tests with the demo cascade's real models.

use std::{path::Path, time::Instant};

use darkroom_artifacts::CascadeBundle;
use darkroom_diffusion::{DeviceChoice, DtypeChoice};

use super::*;
use crate::{
    batch::{self, Caps},
    renderer::{Machine, Renderer as _},
    served::served,
    torch_renderer::TorchRenderer,
};

fn demo() -> Vec<Served> {
    let bundle =
        CascadeBundle::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo")).unwrap();
    served(&[], &[bundle]).unwrap()
}

fn options() -> LoadOptions {
    LoadOptions { device: DeviceChoice::Cpu, dtype: DtypeChoice::F32, ..LoadOptions::default() }
}

fn stages(cache: &ModelCache) -> Vec<&str> {
    cache.loaded().iter().map(|pool| pool.stage.as_str()).collect()
}

#[test]
fn the_least_recently_used_model_goes_when_another_needs_its_place() {
    let demo = demo();
    let pool =
        |name: &str| &demo.iter().find(|stage| stage.pool.stage.as_str() == name).unwrap().pool;
    let bytes = |name: &str| {
        let stage = demo.iter().find(|stage| stage.pool.stage.as_str() == name).unwrap();
        weights_memory(&stage.folder, &options()).unwrap()
    };
    // The base model is by far the largest. It fits beside either of the others, but not beside
    // both.
    let budget = bytes("base") + bytes("sr256").max(bytes("sr1024"));
    let mut cache = ModelCache::survey(&demo, options(), Some(budget)).unwrap();
    cache.fill().unwrap();
    assert_eq!(
        stages(&cache),
        ["sr256", "sr1024"],
        "later stages first, and the base does not fit beside both"
    );
    let name = |model: &StageModel| Ok(model.describe().name);
    assert_eq!(cache.run(pool("base"), name).unwrap(), "base");
    assert_eq!(stages(&cache), ["sr1024", "base"]);
    assert_eq!(cache.run(pool("sr1024"), name).unwrap(), "sr1024");
    assert_eq!(cache.run(pool("sr256"), name).unwrap(), "sr256");
    assert_eq!(stages(&cache), ["sr1024", "sr256"], "the base was used longest ago");
    let mut roomy = ModelCache::survey(&demo, options(), None).unwrap();
    roomy.fill().unwrap();
    assert_eq!(stages(&roomy), ["base", "sr256", "sr1024"]);
}

#[test]
fn a_model_that_cannot_fit_is_refused_with_both_sizes() {
    let machine = Machine {
        device: Some("cpu".to_owned()),
        dtype: Some("f32".to_owned()),
        model_memory: Some(5 << 20),
        ..Machine::default()
    };
    let error = TorchRenderer::load(&demo(), &machine).err().unwrap();
    assert_eq!(error.code, Code::FailedPrecondition);
    for part in ["stage sr256 needs", "models may take 5.0 MiB", "--model-memory-mib"] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
}

#[test]
fn for_want_of_memory_idle_models_go_before_the_batch_is_given_up() {
    let demo = demo();
    let mut cache = ModelCache::survey(&demo, options(), None).unwrap();
    cache.fill().unwrap();
    let pool = &demo[0].pool;
    let full = || RenderError::OutOfMemory("no memory".to_owned());
    let mut calls = 0;
    let result = cache.run(pool, |model| {
        calls += 1;
        if calls == 1 { Err(full()) } else { Ok(model.describe().name) }
    });
    assert_eq!((result.unwrap().as_str(), calls), (pool.stage.as_str(), 2));
    assert_eq!(stages(&cache), [pool.stage.as_str()]);
    calls = 0;
    let result = cache.run(pool, |_| {
        calls += 1;
        Err::<(), _>(full())
    });
    assert!(matches!(result, Err(RenderError::OutOfMemory(_))));
    assert_eq!(calls, 1, "nothing is left to drop");
    assert_eq!(stages(&cache), [pool.stage.as_str()]);
}

#[test]
fn a_stage_that_nothing_is_known_of_is_tried() {
    let machine = Machine {
        device: Some("cpu".to_owned()),
        dtype: Some("f32".to_owned()),
        ..Machine::default()
    };
    let demo: Vec<Served> = demo().into_iter().filter(|stage| stage.size == 64).collect();
    let mut renderer = TorchRenderer::load(&demo, &machine).unwrap();
    assert_eq!(renderer.trial(&demo[0], 1).unwrap(), None, "a CPU is not asked");
    let mut renderer = renderer.with_trials();
    let mut caps = Caps::new(None, None);
    let mut tried = Vec::new();
    batch::try_out(&mut caps, ("base", batch::Room::by_rule(64)), Instant::now(), |rows| {
        tried.push(rows);
        renderer.trial(&demo[0], rows)
    });
    assert_eq!(tried.first(), Some(&1));
    assert!(!caps.is_open("base"), "a batch has been measured");
}
