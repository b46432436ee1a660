//! First forecasts, the real costs, and the speeds of devices.

use darkroom_coordinator::store::forecast::StageRate;
use darkroom_core::{
    forecast::{Forecast, StageSpent, StageWork},
    id::JobId,
};
use uuid::Uuid;

use super::{
    bench::{Bench, STAGES},
    samples::done,
};

fn forecast(seconds_per_image: f64) -> Forecast {
    let work = |stage: &str| StageWork {
        stage: stage.to_owned(),
        remaining: 2,
        seconds_per_image: Some(seconds_per_image),
        workers: 1,
    };
    Forecast::new(&STAGES.map(work), 1, 1.0)
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn the_first_forecast_is_kept_and_what_the_job_took_beside_it(bench: &Bench) {
    let job = bench.submit(&["one"], 2).await;
    let late = bench.submit(&["one"], 1).await;
    assert_eq!(bench.store.job(job).await.expect("there").forecast, None);
    assert_eq!(
        bench.store.without_forecast(1).await.expect("lists").len(),
        1,
        "no more than asked for"
    );
    let mut without = bench.store.without_forecast(9).await.expect("lists");
    without.sort_unstable();
    assert_eq!(without, [job, late]);

    assert!(bench.store.keep_forecast(job, &forecast(1.5)).await.expect("keeps"));
    assert!(
        !bench.store.keep_forecast(job, &forecast(9.0)).await.expect("asks"),
        "the first one stays"
    );
    assert!(!bench.store.keep_forecast(JobId(Uuid::now_v7()), &forecast(1.0)).await.expect("asks"));
    assert_eq!(bench.other.without_forecast(9).await.expect("lists"), [late]);
    let record = bench.other.job(job).await.expect("there");
    let kept = record.forecast.expect("kept");
    assert_eq!((kept.forecast, kept.spent), (forecast(1.5), None));
    assert!(
        kept.at_ms >= record.created_ms && kept.at_ms <= record.now_ms,
        "by the record's clock"
    );

    bench.encode(job).await;
    for stage in STAGES {
        for task in bench.dispatch(stage, job, 2).await {
            bench.commit(stage, task.key, done(stage)).await;
        }
    }
    let spent =
        STAGES.map(|stage| StageSpent { stage: stage.to_owned(), images: 2, device_seconds: 3.25 });
    bench.store.note_spent(job, &spent).await.expect("notes");
    let kept = bench.other.job(job).await.expect("there").forecast.expect("kept");
    assert_eq!((kept.forecast, kept.spent.as_deref()), (forecast(1.5), Some(spent.as_slice())));

    bench.store.note_spent(late, &spent).await.expect("there is nothing to compare with");
    assert_eq!(bench.store.job(late).await.expect("there").forecast, None);
    bench.store.cancel(late).await.expect("cancels");
    assert!(!bench.store.keep_forecast(late, &forecast(1.0)).await.expect("asks"), "it has ended");
    assert_eq!(bench.store.without_forecast(9).await.expect("lists"), []);
    bench.settle().await;
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn how_fast_a_class_of_device_was_is_known_to_every_process(bench: &Bench) {
    let rate = |stage: &str, device_class: &str, seconds_per_pass| StageRate {
        pool: bench.pool(stage),
        device_class: device_class.to_owned(),
        seconds_per_pass,
    };
    assert_eq!(bench.store.rates().await.expect("reads"), []);
    let first = [rate("base", "cpu", 1.0), rate("base", "gpu", 0.125), rate("encode", "cpu", 0.5)];
    bench.store.note_rates(&first).await.expect("notes");
    assert_eq!(bench.other.rates().await.expect("reads"), first);
    bench.other.note_rates(&[rate("base", "gpu", 0.25)]).await.expect("notes");
    bench.other.note_rates(&[]).await.expect("nothing is nothing");
    let after = [rate("base", "cpu", 1.0), rate("base", "gpu", 0.25), rate("encode", "cpu", 0.5)];
    assert_eq!(bench.store.rates().await.expect("reads"), after, "the others stay");
}
