//! The last stage's pictures in the format that their task names.

use darkroom_artifacts::picture::{Difference, decode};
use darkroom_core::{
    output::{Format, OutputRequest},
    picture_text,
};
use darkroom_queue::{TaskQueue as _, task::TaskBody};
use darkroom_worker::FakeOptions;

use super::{Farm, artifact};

#[tokio::test]
async fn pictures_are_stored_as_their_task_says_and_used_again() {
    let mut farm = Farm::start(FakeOptions::default()).await;
    let (base, last) = (farm.pool("base"), farm.pool("sr256"));
    farm.queue.add(&base, vec![farm.task(0, 0, None)]).await.unwrap();
    let low_res = artifact(&farm.results(&base, 1).await[&0]);
    let mut plain = None;
    for (index, text) in (1..).zip(["png", "png:0", "png:9", "webp", "jpeg:95", "jpeg:50"]) {
        let output = text.parse::<OutputRequest>().unwrap().resolve("output").unwrap();
        farm.settings.output = output;
        let task = || {
            let mut task = farm.task(1, index, Some(low_res.clone()));
            if let TaskBody::Render(body) = &mut task.body {
                body.seed = 7;
            }
            task
        };
        farm.queue.add(&last, vec![task()]).await.unwrap();
        let first = farm.results(&last, 1).await.remove(&index).unwrap();
        let stored = artifact(&first);
        assert_eq!(Format::of_key(&stored.key), Some(output.format()), "{}", stored.key);
        let bytes = farm.artifacts.get(&stored).await.unwrap();
        assert_eq!(Format::of_bytes(&bytes), Some(output.format()), "{text}");
        let picture = decode(&bytes).unwrap();
        assert_eq!(picture.text(picture_text::PROMPT), Some("ein Kreis"), "{text}");
        assert_eq!(picture.text(picture_text::DEVICE_CLASS), Some("fake"), "{text}");
        let plain = plain.get_or_insert_with(|| picture.rgb.clone());
        let difference = Difference::of(plain, &picture.rgb);
        let lossy = output.format() == Format::Jpeg;
        assert_eq!(difference.different > 0, lossy, "{text}: {difference:?}");

        let mut once_more = task();
        once_more.key.dispatch = 2;
        farm.queue.add(&last, vec![once_more]).await.unwrap();
        let again = farm.results(&last, 1).await.remove(&index).unwrap();
        assert_eq!(
            (artifact(&again), again.seconds),
            (stored, 0.0),
            "{text}: nothing was rendered"
        );
        assert_eq!(again.device_class, "fake", "read out of the {text}");
    }
    farm.end().await;
}
