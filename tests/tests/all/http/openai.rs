//! OpenAI's own Python client against a farm: it works as it is.

use std::process::Command;

use darkroom_tests::clients::client;

use super::kept;

#[test]
fn openais_python_client_makes_edits_streams_retries_and_batches_pictures() {
    let folder = tempfile::tempdir().expect("folder");
    let (farm, _, key) = kept(folder.path());
    let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("openai");
    let ended = Command::new(client("python"))
        .current_dir(tests)
        .args(["-B", "-m", "unittest", "-v", "test_images", "test_batches"])
        .env("DARKROOM_URL", format!("http://{}", farm.address))
        .env("DARKROOM_KEY", key)
        .env_remove("DARKROOM_SLOW")
        .output()
        .expect("Python runs");
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{told}\n{}", farm.log());
    assert!(told.contains("OK (skipped=4)"), "all but the slow ones ran: {told}");
}
