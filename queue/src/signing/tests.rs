use std::collections::HashMap;

use darkroom_core::{
    digest::Digest,
    failure_code::FailureCode,
    id::{ImageId, JobId, StageName},
};
use uuid::Uuid;

use super::*;
use crate::task::{EncodeBody, Subject, TaskBody};

const NOW: u64 = 1_000_000;
const GRACE: Duration = Duration::from_secs(60);

fn pool_of(stage: &str) -> PoolId {
    pool(stage)
}

fn pool(stage: &str) -> PoolId {
    let stage = StageName::try_from(stage.to_owned()).expect("a stage's name");
    PoolId { stage, digest: Digest::of(b"cascade") }
}

fn task(index: u64) -> Task {
    let image = ImageId { job: JobId(Uuid::from_u128(7)), index };
    let body = EncodeBody { text: format!("text {index}"), prefix: format!("tasks/{index}/") };
    Task {
        key: TaskKey { subject: Subject::Image(image), generation: 1, dispatch: 3 },
        compatibility: "same".to_owned(),
        suspect: false,
        body: TaskBody::Encode(body),
        traceparent: None,
        warrant: None,
        seal: None,
    }
}

fn secret() -> FarmSecret {
    FarmSecret::from_bytes(&[7; 32]).expect("32 bytes")
}

fn signer(secret: &FarmSecret, worker: &str, pools: &[PoolId]) -> Signer {
    let holder =
        Holder { worker: WorkerId(worker.to_owned()), key: "key".to_owned(), expires: NOW };
    let keys = |pool: &PoolId| (pool.clone(), secret.member_keys(&holder, pool));
    let pools: HashMap<_, _> = pools.iter().map(keys).collect();
    Signer::new(Credentials { holder: holder.clone(), pools })
}

fn stored(prefix: &str) -> Outcome {
    let sha256 = Digest::of(b"bytes");
    let artifact = ArtifactRef { key: format!("{prefix}{sha256}.png"), sha256, size: 5 };
    Outcome::Done { artifact, notes: vec!["a note".to_owned()] }
}

/// An honest result of a task.
fn result(secret: &FarmSecret, pool: &PoolId, index: u64) -> TaskResult {
    let mut task = task(index);
    secret.seal(pool, &mut task);
    TaskResult {
        key: task.key,
        worker: WorkerId("w".to_owned()),
        place: "host/cpu".to_owned(),
        device_class: "class".to_owned(),
        alone: false,
        seconds: 0.1 + 0.2,
        batch: 4,
        outcome: stored(task.body.prefix()),
        warrant: task.warrant,
        signature: None,
    }
}

fn signed(secret: &FarmSecret, pool: &PoolId, mut result: TaskResult) -> TaskResult {
    signer(secret, "w", std::slice::from_ref(pool)).sign(pool, &mut result);
    result
}

fn check(result: &TaskResult) -> Result<(), Forged> {
    secret().check(&pool("base"), result, NOW, GRACE)
}

#[test]
fn the_mac_is_hmac_sha256_of_the_fields_digest() {
    // Computed with Python's hmac and hashlib over the same fields.
    let mac = Key([7; 32]).mac(FieldHasher::new("known").field(b"answer"));
    assert_eq!(
        String::from(mac),
        "fd51e809898b25978a5d4a393123d08e7723b367a37c87ee36fb846076213ff8"
    );
}

#[test]
fn an_honest_result_is_believed_also_after_it_went_through_json() {
    let (secret, pool) = (secret(), pool("base"));
    let result = signed(&secret, &pool, result(&secret, &pool, 1));
    assert_eq!(check(&result), Ok(()));
    let text = serde_json::to_string(&result).expect("JSON");
    let read: TaskResult = serde_json::from_str(&text).expect("a result");
    assert_eq!((check(&read), &read), (Ok(()), &result));
}

#[test]
fn whatever_is_changed_in_a_result_is_found() {
    let (secret, pool) = (secret(), pool("base"));
    let honest = signed(&secret, &pool, result(&secret, &pool, 1));
    type Change = fn(&mut TaskResult);
    let changes: [(&str, Change); 13] = [
        ("image", |r| r.key.subject = Subject::Text(Digest::of(b"x"))),
        ("generation", |r| r.key.generation += 1),
        ("dispatch", |r| r.key.dispatch += 1),
        ("worker", |r| r.worker.0.push('x')),
        ("place", |r| r.place.push('x')),
        ("device class", |r| r.device_class.push('x')),
        ("alone", |r| r.alone = true),
        ("seconds", |r| r.seconds = 0.3),
        ("batch", |r| r.batch = 5),
        ("outcome", |r| {
            r.outcome = Outcome::Failed { code: FailureCode::Panic, message: String::new() };
        }),
        ("warrant", |r| r.warrant = None),
        ("member's key", |r| r.signature.as_mut().expect("signed").key.push('x')),
        ("end of the key", |r| r.signature.as_mut().expect("signed").expires += 1),
    ];
    for (what, change) in changes {
        let mut forged = honest.clone();
        change(&mut forged);
        assert_eq!(check(&forged), Err(Forged::Signature), "{what}");
    }
    let unsigned = TaskResult { signature: None, ..honest.clone() };
    assert_eq!(check(&unsigned), Err(Forged::Unsigned));
    assert_eq!(
        secret.check(&pool_of("sr256"), &honest, NOW, GRACE),
        Err(Forged::Signature),
        "of another pool"
    );
    let other = FarmSecret::fresh().expect("random numbers");
    assert_eq!(other.check(&pool, &honest, NOW, GRACE), Err(Forged::Signature), "another farm");
}

#[test]
fn a_signature_counts_until_its_key_and_the_grace_have_ended() {
    let (secret, pool) = (secret(), pool("base"));
    let result = signed(&secret, &pool, result(&secret, &pool, 1));
    let at = |now| secret.check(&pool, &result, now, GRACE);
    assert_eq!(at(NOW + GRACE.as_secs()), Ok(()));
    assert_eq!(at(NOW + GRACE.as_secs() + 1), Err(Forged::Expired));
}

#[test]
fn an_output_lies_under_the_prefix_of_its_dispatch_and_is_named_by_its_hash() {
    let (secret, pool) = (secret(), pool("base"));
    let with = |outcome: Outcome| {
        let result = TaskResult { outcome, ..result(&secret, &pool, 1) };
        check(&signed(&secret, &pool, result))
    };
    assert_eq!(with(stored("tasks/1/")), Ok(()));
    for prefix in
        ["tasks/2/", "cascades/", "tasks/1/x/", "tasks/1", "/tasks/1/", "tasks/", "../tasks/1/"]
    {
        assert!(matches!(with(stored(prefix)), Err(Forged::Foreign | Forged::Output)), "{prefix}");
    }
    let named = |key: &str, size| {
        let artifact = ArtifactRef { key: key.to_owned(), sha256: Digest::of(b"bytes"), size };
        with(Outcome::Done { artifact, notes: Vec::new() })
    };
    let hash = Digest::of(b"bytes");
    assert_eq!(named(&format!("tasks/1/{hash}.png"), 1), Ok(()));
    for (key, size) in [
        (format!("tasks/1/{hash}.png"), 0),
        (format!("tasks/1/{hash}.png"), MOST_BYTES + 1),
        (format!("tasks/1/{hash}.exe"), 1),
        (format!("tasks/1/{hash}"), 1),
        (format!("tasks/1/{}.png", Digest::of(b"other")), 1),
        ("tasks/1/".to_owned(), 1),
        (String::new(), 1),
    ] {
        assert_eq!(named(&key, size), Err(Forged::Output), "{key} {size}");
    }
}

#[test]
fn a_warrant_is_of_one_dispatch_of_one_task_in_one_pool() {
    let (secret, pool) = (secret(), pool("base"));
    let foreign = [
        (TaskResult { warrant: result(&secret, &pool, 2).warrant, ..result(&secret, &pool, 1) }),
        (TaskResult { warrant: None, ..result(&secret, &pool, 1) }),
        (TaskResult {
            warrant: result(&secret, &pool_of("sr256"), 1).warrant,
            ..result(&secret, &pool, 1)
        }),
        {
            let mut result = result(&secret, &pool, 1);
            result.key.dispatch += 1;
            result
        },
    ];
    for result in foreign {
        assert_eq!(check(&signed(&secret, &pool, result)), Err(Forged::Foreign));
    }
}

#[test]
fn a_failure_needs_a_signature_and_no_warrant() {
    let (secret, pool) = (secret(), pool("base"));
    let outcome = Outcome::Failed { code: FailureCode::Panic, message: "it broke".to_owned() };
    let failed = TaskResult { outcome, warrant: None, ..result(&secret, &pool, 1) };
    assert_eq!(check(&failed), Err(Forged::Unsigned));
    assert_eq!(check(&signed(&secret, &pool, failed)), Ok(()));
}

#[test]
fn a_worker_takes_tasks_that_its_farm_sealed_for_its_pool_and_no_others() {
    let (secret, base, sr256) = (secret(), pool("base"), pool("sr256"));
    let signer = signer(&secret, "w", &[base.clone(), sr256.clone()]);
    let mut honest = task(1);
    assert!(!signer.accepts(&base, &honest), "without a seal");
    secret.seal(&base, &mut honest);
    assert!(signer.accepts(&base, &honest));
    let text = serde_json::to_string(&honest).expect("JSON");
    assert!(signer.accepts(&base, &serde_json::from_str(&text).expect("a task")));
    assert!(!signer.accepts(&sr256, &honest), "sealed for another pool");
    assert!(!signer.accepts(&pool("sr1024"), &honest), "a pool without keys");
    let changes: [fn(&mut Task); 6] = [
        |task| task.key.dispatch += 1,
        |task| task.suspect = true,
        |task| task.compatibility.push('x'),
        |task| task.warrant = None,
        |task| {
            let TaskBody::Encode(body) = &mut task.body else { panic!("a text") };
            body.text.push('x');
        },
        |task| {
            let TaskBody::Encode(body) = &mut task.body else { panic!("a text") };
            body.prefix = "tasks/2/".to_owned();
        },
    ];
    for (position, change) in changes.into_iter().enumerate() {
        let mut forged = honest.clone();
        change(&mut forged);
        assert!(!signer.accepts(&base, &forged), "change {position}");
    }
    assert!(Signer::default().accepts(&base, &task(1)), "without a farm nothing is checked");
}

#[test]
fn a_renewal_reaches_every_clone() {
    let (secret, pool) = (secret(), pool("base"));
    let signer = signer(&secret, "w", std::slice::from_ref(&pool));
    let clone = signer.clone();
    let holder =
        Holder { worker: WorkerId("w".to_owned()), key: "key".to_owned(), expires: NOW + 9 };
    let keys = secret.member_keys(&holder, &pool);
    signer.renew(Credentials { holder, pools: HashMap::from([(pool.clone(), keys)]) });
    let mut result = result(&secret, &pool, 1);
    clone.sign(&pool, &mut result);
    assert_eq!(result.signature.as_ref().expect("signed").expires, NOW + 9);
    assert_eq!(check(&result), Ok(()));
}

#[test]
fn keys_are_not_printed() {
    let (secret, pool) = (secret(), pool("base"));
    let signer = signer(&secret, "w", std::slice::from_ref(&pool));
    let holder = Holder { worker: WorkerId("w".to_owned()), key: String::new(), expires: 1 };
    let printed = format!("{secret:?} {signer:?} {:?}", secret.member_keys(&holder, &pool));
    assert!(!printed.contains("7, 7") && !printed.contains("0707"), "{printed}");
}

#[test]
fn a_seal_on_a_text_is_of_its_purpose_its_text_and_its_farm() {
    let seal = secret().seal_text("link", b"picture 1");
    assert_eq!(seal, secret().seal_text("link", b"picture 1"));
    let other = FarmSecret::from_bytes(&[8; 32]).expect("32 bytes");
    for changed in [
        secret().seal_text("session", b"picture 1"),
        secret().seal_text("link", b"picture 2"),
        // The border between the two counts.
        secret().seal_text("linkp", b"icture 1"),
        other.seal_text("link", b"picture 1"),
    ] {
        assert_ne!(changed, seal);
    }
}
