//! Users' pictures: they are read at the stage's size, they are part of what decides a picture, and
//! if they are lost, no worker is to blame.

use darkroom_artifacts::picture::{self, encode_rgb};
use darkroom_core::{extent::Extent, fit::Fit};
use darkroom_queue::task::Fitting;

use super::*;

async fn sent(farm: &Farm, edge: u32, value: u8) -> ArtifactRef {
    let rgb = vec![value; 3 * (edge * edge) as usize];
    let png = encode_rgb(edge, edge, &rgb, &[]).unwrap();
    farm.artifacts.put_content("inputs/", picture::EXTENSION, png.into()).await.unwrap()
}

/// A task that starts from a picture.
fn task(farm: &Farm, index: u64, image: &ArtifactRef, mask: Option<&ArtifactRef>) -> Task {
    changed(farm.task(0, index, None), |body| {
        body.settings.sampling.strength = Some(0.5);
        (body.image, body.mask) = (Some(image.clone()), mask.cloned());
        body.seed = 1;
    })
}

fn changed(mut task: Task, change: impl FnOnce(&mut RenderBody)) -> Task {
    let TaskBody::Render(body) = &mut task.body else { panic!("renders") };
    change(body);
    task
}

#[tokio::test]
async fn pictures_and_masks_decide_what_comes_of_a_task() {
    let farm = Farm::start(FakeOptions::default()).await;
    let base = farm.pool("base");
    let (cat, dog) = (sent(&farm, 32, 10).await, sent(&farm, 32, 200).await);
    let white = sent(&farm, 32, 255).await;
    let tasks = vec![
        task(&farm, 0, &cat, None),
        task(&farm, 1, &cat, None),
        task(&farm, 2, &dog, None),
        task(&farm, 3, &cat, Some(&white)),
        changed(task(&farm, 4, &cat, None), |body| {
            body.settings.extent = Some(Extent { width: 16, height: 8 })
        }),
    ];
    farm.queue.add(&base, tasks).await.unwrap();
    let results = farm.results(&base, 5).await;
    let outputs: Vec<_> = results.values().map(|result| artifact(result).sha256).collect();
    assert_eq!(outputs[0], outputs[1], "the same twice");
    for other in &outputs[2..] {
        assert_ne!(outputs[0], *other);
    }
    let wide = farm.artifacts.get(&artifact(&results[&4])).await.unwrap();
    assert_eq!(FloatTensor::from_bytes(&wide).unwrap().0.shape, [3, 8, 16], "height before width");
    farm.end().await;
}

#[tokio::test]
async fn a_low_resolution_picture_takes_the_place_of_the_stage_before() {
    let farm = Farm::start(FakeOptions::default()).await;
    let last = farm.pool("sr256");
    let (cat, dog) = (sent(&farm, 8, 10).await, sent(&farm, 8, 200).await);
    let from = |index: u64, image: &ArtifactRef| {
        changed(farm.task(1, index, None), |body| {
            body.image = Some(image.clone());
            body.seed = 1;
        })
    };
    farm.queue.add(&last, vec![from(0, &cat), from(1, &dog)]).await.unwrap();
    let results = farm.results(&last, 2).await;
    assert_ne!(artifact(&results[&0]).sha256, artifact(&results[&1]).sha256);
    farm.end().await;
}

#[tokio::test]
async fn a_picture_that_is_lost_or_damaged_fails_its_image_with_what_to_do() {
    let farm = Farm::start(FakeOptions::default()).await;
    let base = farm.pool("base");
    let (lost, kept) = (sent(&farm, 32, 10).await, sent(&farm, 32, 11).await);
    farm.artifacts.delete(&lost.key).await.unwrap();
    let text = farm
        .artifacts
        .put_content("inputs/", "png", Bytes::from_static(b"no picture"))
        .await
        .unwrap();
    let tasks =
        vec![task(&farm, 0, &lost, None), task(&farm, 1, &text, None), task(&farm, 2, &kept, None)];
    farm.queue.add(&base, tasks).await.unwrap();
    let results = farm.results(&base, 3).await;
    assert_eq!(code(&results[&0]), "input_lost");
    let Outcome::Failed { message, .. } = &results[&0].outcome else { panic!("failed") };
    assert!(message.contains("send it again and retry the job"), "{message}");
    assert_eq!(code(&results[&1]), "invalid_input");
    artifact(&results[&2]);
    farm.end().await;
}

#[tokio::test]
async fn a_picture_of_another_shape_is_fitted_where_the_task_says_how() {
    let farm = Farm::start(FakeOptions::default()).await;
    let base = farm.pool("base");
    let (width, height) = (48, 32);
    let rgb: Vec<u8> = (0..width * height).flat_map(|at| [(at % width * 5) as u8, 0, 0]).collect();
    let wide = encode_rgb(width, height, &rgb, &[]).unwrap();
    let wide =
        farm.artifacts.put_content("inputs/", picture::EXTENSION, wide.into()).await.unwrap();
    // The same picture, cut by hand.
    let middle: Vec<u8> = rgb.chunks(3 * 48).flat_map(|row| row[3 * 8..3 * 40].to_vec()).collect();
    let middle = encode_rgb(32, 32, &middle, &[]).unwrap();
    let middle =
        farm.artifacts.put_content("inputs/", picture::EXTENSION, middle.into()).await.unwrap();
    let fitted = |index, image: &ArtifactRef, fit: Fit| {
        changed(task(&farm, index, image, None), |body| {
            body.fit = Some(Fitting { fit, extent: body.settings.extent() });
        })
    };
    let tasks = vec![
        fitted(0, &wide, Fit::Crop),
        fitted(1, &middle, Fit::Crop),
        fitted(2, &wide, Fit::Pad),
        fitted(3, &wide, Fit::Stretch),
        // A job from before fits existed, whose pictures have the right shape.
        task(&farm, 4, &middle, None),
    ];
    farm.queue.add(&base, tasks).await.unwrap();
    let results = farm.results(&base, 5).await;
    let outputs: Vec<_> = results.values().map(|result| artifact(result).sha256).collect();
    assert_eq!((outputs[0], outputs[4]), (outputs[1], outputs[1]), "the middle of it");
    assert_ne!(outputs[2], outputs[0]);
    assert_ne!(outputs[3], outputs[0]);
    assert_ne!(outputs[3], outputs[2]);
    farm.end().await;
}
