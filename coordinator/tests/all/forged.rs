//! Results that somebody wrote into Redis: none commits, and the honest work completes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::support::{Act, Farm, eventually, options, pool, prompt, prompts, spec};
use darkroom_coordinator::Options;
use darkroom_core::{
    artifact::ArtifactRef, digest::Digest, failure_code::FailureCode, id::WorkerId,
};
use darkroom_proto::v1;
use darkroom_queue::{
    redis::{self, RedisQueue},
    signing::{Credentials, FarmSecret, Holder, Signer},
    task::{Outcome, PoolId, Subject, Task, TaskBody, TaskResult},
};
use darkroom_test_servers::redis::Redis;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// A farm on Redis, with a job that is done and one whose image is being rendered or whose text is
/// being encoded.
struct Attacked {
    redis: Redis,
    farm: Farm,
    /// The finished job's image.
    foreign: v1::Image,
    /// The other job.
    job: v1::Job,
    /// Its task, which an honest worker holds.
    task: Task,
    /// What its image waits for meanwhile.
    state: v1::ImageState,
    /// Lets that worker finish.
    go: CancellationToken,
    secret: FarmSecret,
    workers: crate::support::Workers,
}

/// Bytes of what a forged result names: an embedding can have as many.
const SIZE: u64 = 1000;

fn is_render(task: &Task) -> bool {
    matches!(task.body, TaskBody::Render(_))
}

/// With the first task held that is `wanted`.
async fn attacked(wanted: fn(&Task) -> bool) -> Attacked {
    let redis = Redis::start();
    let queue = RedisQueue::connect(&redis.url(), "farm", redis::Options::default()).await;
    let queue = Arc::new(queue.expect("connects"));
    // Nothing expires here, and no sweep takes part.
    let still = Duration::from_secs(3600);
    let options = Options { lease: still, sweep: still, ..options() };
    let mut farm = Farm::on(options, queue).await;
    let honest = farm.work(|_| Act::Done);
    let done = farm.submit(spec(), prompts(1)).await;
    farm.until_ended(&done.id).await;
    honest.stop().await;
    let foreign = farm.images(&done.id).await.remove(0);

    let go = CancellationToken::new();
    let workers = farm.work({
        let go = go.clone();
        move |task| if wanted(task) { Act::Hold(go.clone()) } else { Act::Done }
    });
    let job = farm.submit(v1::JobSpec { seed: Some(99), ..spec() }, vec![prompt("new")]).await;
    let mut task = None;
    eventually("it is held", async || {
        task = workers.ran().into_iter().find(wanted);
        task.is_some()
    })
    .await;
    let secret = farm.store.secret().await.expect("the farm's secret");
    let task = task.expect("held");
    let state = farm.images(&job.id).await.remove(0).state();
    Attacked { redis, farm, foreign, job, task, state, go, secret, workers }
}

impl Attacked {
    /// A success for the held task that names this output.
    fn success(&self, key: &str, sha256: Digest) -> TaskResult {
        self.sized(key, sha256, SIZE)
    }

    fn sized(&self, key: &str, sha256: Digest, size: u64) -> TaskResult {
        let artifact = ArtifactRef { key: key.to_owned(), sha256, size };
        self.reported(Outcome::Done { artifact, notes: Vec::new() })
    }

    /// A success as the honest worker would report it.
    fn own(&self) -> TaskResult {
        let sha256 = Digest::of(b"forged");
        self.success(&format!("{}{sha256}.safetensors", self.task.body.prefix()), sha256)
    }

    fn reported(&self, outcome: Outcome) -> TaskResult {
        TaskResult {
            key: self.task.key,
            worker: WorkerId("mallory-1".to_owned()),
            place: "mallory/cpu".to_owned(),
            device_class: "fake".to_owned(),
            alone: true,
            seconds: 0.5,
            batch: 1,
            outcome,
            warrant: self.task.warrant,
            signature: None,
        }
    }

    /// Signs it as a member of this pool that joined by that name.
    fn signed(&self, name: &str, of: &PoolId, mut result: TaskResult) -> TaskResult {
        let signer: Signer = self.farm.handle.signer(WorkerId(name.to_owned()), vec![of.clone()]);
        signer.sign(of, &mut result);
        result
    }

    /// One XADD, as whoever reaches Redis can send it.
    fn write(&self, pool: &PoolId, result: &TaskResult) {
        let subject = match result.key.subject {
            Subject::Image(image) => format!("i.{}.{}", image.job.0.simple(), image.index),
            Subject::Text(digest) => format!("t.{digest}"),
        };
        let key = format!("{subject}.{}.{}", result.key.generation, result.key.dispatch);
        let body = json!({
            "w": result.worker, "h": result.place, "d": result.device_class, "a": result.alone,
            "s": result.seconds, "b": result.batch, "o": result.outcome, "v": result.warrant,
            "g": result.signature,
        });
        self.add(pool, &["k", &key, "r", &body.to_string()]);
    }

    fn add(&self, pool: &PoolId, fields: &[&str]) {
        let stream = format!("darkroom:{{farm:{}@{}}}:results", pool.stage, pool.digest);
        self.redis.must(&[&["XADD", &stream, "*"], fields].concat());
    }

    /// Signs what the honest worker would report, with keys of this secret that end then.
    fn signed_with(&self, secret: &FarmSecret, pool: &PoolId, expires: u64) -> TaskResult {
        let mut result = self.own();
        let holder = Holder { worker: result.worker.clone(), key: String::new(), expires };
        let keys = secret.member_keys(&holder, pool);
        let pools = [(pool.clone(), keys)].into();
        Signer::new(Credentials { holder, pools }).sign(pool, &mut result);
        result
    }

    /// Writes each, and waits until it is counted as not believed, for its reason.
    async fn discards(&self, results: &[(PoolId, TaskResult, &'static str)]) {
        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        for (pool, result, reason) in results {
            self.write(pool, result);
            *expected.entry(reason).or_default() += 1;
            eventually(&format!("{expected:?}"), async || {
                self.farm.handle.counters().discarded() == expected
            })
            .await;
        }
    }

    /// The job ends as if nothing had happened.
    async fn completes(mut self) {
        let before = self.farm.images(&self.job.id).await.remove(0);
        assert_eq!(before.state(), self.state, "nothing moved it");
        self.go.cancel();
        let job = self.farm.until_ended(&self.job.id).await;
        assert_eq!((job.state(), job.images_done), (v1::JobState::Done, 1));
        let image = self.farm.images(&self.job.id).await.remove(0);
        assert_ne!(image.key, self.foreign.key);
        assert_eq!(image.failures, 0, "no failure was believed");
        self.workers.stop().await;
        self.farm.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_no_member_signed_commit_nothing() {
    let attacked = attacked(is_render).await;
    let base = pool("base");
    let hash = |key: &str| -> Digest {
        let file = key.rsplit('/').next().expect("a file");
        file.split('.').next().expect("a hash").parse().unwrap_or(Digest::of(b"x"))
    };
    let foreign = attacked.foreign.key.clone();
    let missing = format!("{}{}.png", attacked.task.body.prefix(), Digest::of(b"missing"));
    let cascade = format!("cascades/{}.toml", Digest::of(b"cascade"));
    let unsigned = [
        attacked.success(&foreign, hash(&foreign)),
        attacked.success(&cascade, hash(&cascade)),
        attacked.success(&missing, hash(&missing)),
        attacked.own(),
        attacked
            .reported(Outcome::Failed { code: FailureCode::Panic, message: "forged".to_owned() }),
        attacked.reported(Outcome::Interrupted { reason: "forged".to_owned() }),
        attacked.reported(Outcome::InputMissing { key: foreign.clone() }),
    ];
    let mut results: Vec<(PoolId, TaskResult, &str)> =
        unsigned.into_iter().map(|result| (base.clone(), result, "unsigned")).collect();
    let own = || attacked.own();
    let renamed = |mut result: TaskResult| {
        result.worker = WorkerId("alice-1".to_owned());
        result
    };
    let replayed = |mut result: TaskResult| {
        result.key.dispatch += 1;
        result
    };
    let expired = attacked.signed_with(&attacked.secret, &base, 1000);
    let stranger = attacked.signed_with(&FarmSecret::fresh().expect("random"), &base, u64::MAX);
    let of_sr256 = attacked.signed("mallory-1", &pool("sr256"), own());
    results.extend([
        (base.clone(), renamed(attacked.signed("mallory-1", &base, own())), "signature_wrong"),
        (base.clone(), of_sr256, "signature_wrong"),
        (base.clone(), replayed(attacked.signed("mallory-1", &base, own())), "signature_wrong"),
        (base.clone(), stranger, "signature_wrong"),
        (base.clone(), expired, "signature_expired"),
        (pool("sr256"), attacked.signed("mallory-1", &base, own()), "signature_wrong"),
    ]);
    attacked.discards(&results).await;
    attacked.completes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_cannot_choose_where_an_output_lies_or_finish_another_dispatch() {
    let attacked = attacked(is_render).await;
    let base = pool("base");
    let hash = Digest::of(b"forged");
    let signed = |result| attacked.signed("mallory-1", &base, result);
    let at = |prefix: &str| signed(attacked.success(&format!("{prefix}{hash}.safetensors"), hash));
    let older = |dispatch: u64| {
        // As it was signed and sealed when that dispatch ran.
        let mut task = attacked.task.clone();
        task.key.dispatch = dispatch;
        attacked.secret.seal(&base, &mut task);
        signed(TaskResult { key: task.key, warrant: task.warrant, ..attacked.own() })
    };
    let foreign: Digest = {
        let (_, file) = attacked.foreign.key.rsplit_once('/').expect("a file");
        file.split('.').next().expect("a hash").parse().expect("a hash")
    };
    let renumbered = {
        let mut result = attacked.own();
        result.key.dispatch += 1;
        signed(result)
    };
    let results = [
        (signed(attacked.success(&attacked.foreign.key, foreign)), "output_foreign"),
        (at("cascades/"), "output_foreign"),
        (at("tasks/"), "output_foreign"),
        (at(&format!("{}x/", attacked.task.body.prefix())), "output_foreign"),
        (at(&format!("../{}", attacked.task.body.prefix())), "output_foreign"),
        (signed(TaskResult { warrant: None, ..attacked.own() }), "output_foreign"),
        (renumbered, "output_foreign"),
        (signed(attacked.success("", hash)), "output_malformed"),
        (signed(attacked.success(&attacked.foreign.key, hash)), "output_malformed"),
        (older(attacked.task.key.dispatch - 1), "stale_dispatch"),
        (older(attacked.task.key.dispatch + 1), "stale_dispatch"),
    ];
    attacked.discards(&results.map(|(result, reason)| (base.clone(), result, reason))).await;
    attacked.completes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedding_that_somebody_forged_is_used_for_no_image() {
    let attacked = attacked(|task| !is_render(task)).await;
    let encode = pool("encode");
    let hash = Digest::of(b"forged");
    let prefix = attacked.task.body.prefix();
    let of_picture: Digest = {
        let (_, file) = attacked.foreign.key.rsplit_once('/').expect("a file");
        file.split('.').next().expect("a hash").parse().expect("a hash")
    };
    let signed = |result| attacked.signed("mallory-1", &encode, result);
    let at = |key: &str| signed(attacked.success(key, hash));
    let sized = |size| signed(attacked.sized(&format!("{prefix}{hash}.safetensors"), hash, size));
    let older = |dispatch: u64| {
        // As it was signed and sealed when that dispatch ran.
        let mut task = attacked.task.clone();
        task.key.dispatch = dispatch;
        attacked.secret.seal(&encode, &mut task);
        signed(TaskResult { key: task.key, warrant: task.warrant, ..attacked.own() })
    };
    let renamed = TaskResult { worker: WorkerId("alice-1".to_owned()), ..signed(attacked.own()) };
    let lost = attacked.reported(Outcome::InputMissing { key: attacked.foreign.key.clone() });
    let failed = Outcome::Failed { code: FailureCode::Panic, message: "forged".to_owned() };
    let stranger = attacked.signed_with(&FarmSecret::fresh().expect("random"), &encode, u64::MAX);
    let expired = attacked.signed_with(&attacked.secret, &encode, 1000);
    let other_pool = attacked.signed("mallory-1", &pool("base"), attacked.own());
    let dispatch = attacked.task.key.dispatch;
    // Each of the 20 tokens has at least one number of 4 bytes, and at most 65,536.
    let most = 20 * 4 * 65_536 + (1 << 20);
    let results = [
        (attacked.own(), "unsigned"),
        (attacked.success(&attacked.foreign.key, of_picture), "unsigned"),
        (attacked.reported(failed), "unsigned"),
        (lost, "unsigned"),
        (renamed, "signature_wrong"),
        (other_pool, "signature_wrong"),
        (stranger, "signature_wrong"),
        (expired, "signature_expired"),
        (signed(attacked.success(&attacked.foreign.key, of_picture)), "output_foreign"),
        (at(&format!("cascades/{hash}.safetensors")), "output_foreign"),
        (at(&format!("{prefix}x/{hash}.safetensors")), "output_foreign"),
        (at(&format!("{prefix}{hash}.png")), "output_malformed"),
        (at(&format!("{prefix}{of_picture}.safetensors")), "output_malformed"),
        (sized(0), "output_malformed"),
        (sized(79), "output_malformed"),
        (sized(most + 1), "output_malformed"),
        (sized(u64::MAX), "output_malformed"),
        (older(dispatch - 1), "stale_dispatch"),
        (older(dispatch + 1), "stale_dispatch"),
    ];
    attacked.discards(&results.map(|(result, reason)| (encode.clone(), result, reason))).await;
    attacked.completes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_result_is_not_believed_runs_again_at_no_cost() {
    let redis = Redis::start();
    let queue = RedisQueue::connect(&redis.url(), "farm", redis::Options::default()).await;
    let mut farm = Farm::on(options(), Arc::new(queue.expect("connects"))).await;
    // As an older worker does it: it reports without a signature.
    let workers = farm.work(|task| match (&task.body, task.key.dispatch) {
        (TaskBody::Render(body), 1) if body.settings.stage.as_str() == "base" => Act::Unsigned,
        _ => Act::Done,
    });
    let job = farm.submit(spec(), prompts(1)).await;
    let job = farm.until_ended(&job.id).await;
    assert_eq!((job.state(), job.images_done), (v1::JobState::Done, 1));
    assert_eq!(farm.images(&job.id).await[0].failures, 0);
    assert_eq!(farm.handle.counters().discarded().get("unsigned"), Some(&1));
    workers.stop().await;
    farm.shutdown().await;
}
