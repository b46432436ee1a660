//! Scripts rely on the output of `--json`, so it must not change by a byte.

use std::collections::BTreeMap;

use darkroom_proto::{
    json::{Cascade, ForecastJobResponse, GetFarmResponse, Image, Job, WatchEvent, Worker},
    v1,
};
use serde::Serialize;

/// One document a line, each after its name.
const PRINTED: &str = include_str!("printed.txt");

fn printed(name: &str) -> &'static str {
    let line = PRINTED.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no document {name}"))
}

fn check(name: &str, document: &impl Serialize) {
    assert_eq!(serde_json::to_string(document).expect("JSON"), printed(name), "{name}");
}

fn time(seconds: i64, nanos: i32) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos })
}

fn duration(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos })
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn stage_settings() -> v1::StageSettings {
    v1::StageSettings {
        stage: "base".to_owned(),
        sampler: Some("ddpm".to_owned()),
        steps: Some(27),
        guidance_scale: Some(7.5),
        noise_level: Some(20),
        preset: Some("smart27".to_owned()),
        timesteps: vec![999, 500, 0],
        spacing: Some("leading".to_owned()),
        eta: Some(0.25),
        guidance_schedule: Some("constant".to_owned()),
        thresholding: Some("dynamic:99.5:1.5".to_owned()),
        strength: Some(0.7),
        cache_interval: Some(2),
    }
}

fn settings() -> v1::Settings {
    v1::Settings {
        size: 256,
        stages: vec![
            stage_settings(),
            v1::StageSettings { stage: "sr256".to_owned(), ..v1::StageSettings::default() },
        ],
        width: 320,
        height: 256,
        start: v1::Start::Picture.into(),
        start_stage: "sr256".to_owned(),
        fit: v1::Fit::Pad.into(),
        output: Some(v1::Output {
            format: v1::PictureFormat::Jpeg.into(),
            quality: Some(85),
            ..v1::Output::default()
        }),
    }
}

fn forecast() -> v1::Forecast {
    v1::Forecast {
        at: time(1_764_378_001, 500_000_000),
        stages: vec![v1::StageForecast {
            stage: "base".to_owned(),
            images: 3,
            seconds_per_image: Some(1.5),
            device_seconds: Some(4.5),
            seconds: Some(2.25),
            classes: vec![v1::ClassForecast {
                device_class: "cpu".to_owned(),
                workers: 2,
                seconds_per_image: Some(1.5),
            }],
        }],
        device_seconds: Some(4.5),
        seconds: None,
    }
}

fn job() -> v1::Job {
    v1::Job {
        id: "0190b5a0-0000-7000-8000-000000000001".to_owned(),
        spec: Some(v1::JobSpec {
            client_request_id: "request".to_owned(),
            cascade: "demo".to_owned(),
            name: "tea \"towels\"".to_owned(),
            tenant: "default".to_owned(),
            priority: v1::Priority::Interactive.into(),
            settings: Some(settings()),
            images_per_prompt: 2,
            seed: Some(1 << 53),
            deadline: time(1_764_378_600, 0),
            max_workers: 4,
            max_failed_images: Some(0),
            no_reuse: false,
            labels: BTreeMap::new(),
        }),
        state: v1::JobState::Active.into(),
        cascade_digest: "ab12".to_owned(),
        created_at: time(1_764_378_000, 250_000_000),
        finished_at: time(1_764_378_100, 0),
        images: 4,
        images_done: 1,
        images_dead: 2,
        images_cancelled: 3,
        stages: vec![v1::StageProgress {
            stage: "base".to_owned(),
            done: 1,
            dispatched: 2,
            total: 4,
            images_per_second: 0.5,
            stopped: 1,
        }],
        waiting_for: "no worker serves sr256".to_owned(),
        eta: duration(90, 500_000_000),
        pictures_removed_at: None,
        pictures_removed_by: String::new(),
        version: 7,
        generation: 1,
        manifest: v1::ManifestState::Written.into(),
        manifest_key: "manifests/1".to_owned(),
        manifest_sha256: "cd34".to_owned(),
        notes: texts(&["image 0: the word \u{201c}zebrä\u{201d} is unknown"]),
        effective_settings: Some(settings()),
        end_code: "deadline".to_owned(),
        end_reason: "its deadline passed".to_owned(),
        deadline_missed_by: duration(12, 0),
        tasks_ahead: 5,
        forecast: Some(forecast()),
        first_forecast: Some(v1::Forecast { seconds: Some(2.25), ..forecast() }),
        forecast_check: Some(v1::ForecastCheck {
            stages: vec![v1::StageCheck {
                stage: "base".to_owned(),
                images: 4,
                forecast_device_seconds: 4.5,
                device_seconds: 5.0,
            }],
            forecast_device_seconds: 4.5,
            device_seconds: 5.0,
            device_seconds_ratio: Some(1.25),
            forecast_seconds: Some(2.25),
            seconds: Some(3.0),
            seconds_ratio: None,
        }),
        device_seconds: 6.25,
    }
}

fn image() -> v1::Image {
    v1::Image {
        job_id: "0190b5a0-0000-7000-8000-000000000001".to_owned(),
        index: 3,
        prompt: "a red circle".to_owned(),
        negative: "blur".to_owned(),
        seed: 41,
        state: v1::ImageState::Done.into(),
        stage: "sr256".to_owned(),
        generation: 1,
        dispatches: 2,
        failures: 1,
        error_code: "OOM".to_owned(),
        error: "out of memory".to_owned(),
        key: "images/ab".to_owned(),
        size_bytes: 1234,
        sha256: "ef56".to_owned(),
        device_class: "cpu-avx512".to_owned(),
        picture_removed_at: None,
        version: 9,
        stage_seconds: vec![v1::StageSeconds {
            stage: "base".to_owned(),
            seconds: 0.75,
            worker: "w1".to_owned(),
        }],
        image: "aa".to_owned(),
        mask: "bb".to_owned(),
        style: "oil".to_owned(),
        custom_id: "first".to_owned(),
        labels: BTreeMap::from([
            ("b".to_owned(), "2".to_owned()),
            ("a".to_owned(), "1".to_owned()),
        ]),
        line: 17,
        format: v1::PictureFormat::Jpeg.into(),
        settings: None,
    }
}

fn link() -> v1::SignImageResponse {
    v1::SignImageResponse {
        url: "https://storage/x?y=z".to_owned(),
        expires_at: time(1_764_381_600, 0),
        size_bytes: 1234,
        sha256: "ef56".to_owned(),
        format: v1::PictureFormat::Jpeg.into(),
    }
}

fn worker() -> v1::Worker {
    v1::Worker {
        id: "worker-1".to_owned(),
        host: "node7".to_owned(),
        device: "cuda:0".to_owned(),
        device_class: "h200".to_owned(),
        cascade_digest: "ab12".to_owned(),
        stages: vec![v1::WorkerStage {
            stage: "base".to_owned(),
            batch_cap: 8,
            seconds_per_image: 0.125,
            running: 3,
            mean_batch: 6.5,
        }],
        last_seen: time(1_764_378_002, 0),
        tasks_leased: 3,
        tasks_done: 40,
        busy: 0.5,
        state: "set aside".to_owned(),
        aside_reason: "it failed at three images".to_owned(),
        aside_until: time(1_764_378_300, 0),
        trouble: "storage answers 503".to_owned(),
        memory: Some(v1::DeviceMemory { used_bytes: 1 << 30, total_bytes: 1 << 40 }),
        tasks_failed: 2,
        blamed_images: 1,
        version: "0.1.0".to_owned(),
    }
}

fn cascade() -> v1::Cascade {
    let stage = v1::CascadeStage {
        name: "base".to_owned(),
        size: 64,
        defaults: Some(stage_settings()),
        size_multiple: 8,
        train_timesteps: 1000,
        noise_timesteps: 1000,
    };
    v1::Cascade {
        name: "demo".to_owned(),
        digest: "ab12".to_owned(),
        description: "circles and squares".to_owned(),
        stages: vec![
            stage,
            v1::CascadeStage { name: "sr256".to_owned(), size: 256, ..v1::CascadeStage::default() },
        ],
    }
}

fn farm() -> v1::GetFarmResponse {
    v1::GetFarmResponse {
        farm_id: "0190b5a0-0000-4000-8000-00000000000f".to_owned(),
        lease_seconds: 10.0,
        cascades: vec![cascade()],
        version: "0.1.0".to_owned(),
        jobs_overlooked: 1,
        troubles: vec!["dispatch: the queue cannot be reached".to_owned()],
        coordinators: vec![v1::Coordinator {
            id: "coordinator-1".to_owned(),
            leads: true,
            last_seen: time(1_764_378_002, 0),
            answers: true,
        }],
        storage: "s3://pictures/farm".to_owned(),
    }
}

fn dry_run() -> v1::ForecastJobResponse {
    v1::ForecastJobResponse {
        forecast: Some(forecast()),
        images: 3,
        effective_settings: Some(settings()),
        cascade_digest: "ab12".to_owned(),
        notes: Vec::new(),
    }
}

#[test]
fn documents_are_printed_as_ever() {
    check("job", &Job::from(job()));
    check("bare-job", &Job::from(v1::Job::default()));
    check("image", &Image::from(image()));
    check("bare-image", &Image::from(v1::Image::default()));
    check("linked-image", &Image::from(image()).linked(&link()));
    check("workers", &[worker(), v1::Worker::default()].map(Worker::from));
    check("farm", &GetFarmResponse::from(farm()));
    check("cascades", &[cascade()].map(Cascade::from));
    check("dry-run", &ForecastJobResponse::from(dry_run()));
    check("bare-dry-run", &ForecastJobResponse::from(v1::ForecastJobResponse::default()));
    let event = v1::WatchEvent {
        job: Some(v1::Job::default()),
        images: vec![image()],
        version: 9,
        end: true,
    };
    // The command line sorts the keys of documents that it puts together.
    check("watch", &serde_json::to_value(WatchEvent::from(event)).expect("JSON"));
}
