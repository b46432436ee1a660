//! The API does what its description in OpenAPI says: schemathesis tries every route with right and
//! wrong requests, from a fixed seed.

use std::process::Command;

use darkroom_tests::clients::client;

use super::kept;

/// What it leaves alone: streams without an end, a worker that could not be got back, and its own
/// key, without which it would be let in nowhere.
const NOT: [&str; 5] = ["WatchFarm", "WatchJob", "DrainWorker", "RevokeKey", "RotateKey"];

#[test]
fn schemathesis_finds_no_answer_that_the_description_does_not_have() {
    let folder = tempfile::tempdir().expect("folder");
    let (farm, _, key) = kept(folder.path());
    let mut command = Command::new(client("schemathesis"));
    command
        .current_dir(folder.path())
        .arg("run")
        .arg(format!("http://{}/api/v1/openapi.json", farm.address))
        .args(["-H", &format!("Authorization: Bearer {key}")])
        .args(["--seed", "1", "--generation-deterministic", "--max-examples", "12"])
        .args(["--phases", "coverage,fuzzing", "--request-timeout", "60", "--no-color"])
        // The farm refuses more than a schema can say, and says it; and any method but a route's own
        // is refused, which `strange_requests` tests.
        .args(["--exclude-checks", "positive_data_acceptance,unsupported_method"]);
    for operation in NOT {
        command.args(["--exclude-operation-id", operation]);
    }
    let ended = command.output().expect("it runs");
    let told = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{told}\n{}", String::from_utf8_lossy(&ended.stderr));
    assert!(told.contains("Tested: 42"), "not every route was tried: {told}");
    assert!(!told.contains("Authentication failed"), "it was not let in: {told}");
}
