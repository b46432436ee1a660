//! A command that runs with a Postgres server to share.

use std::process::Command;

use darkroom_test_servers::{postgres::SHARED, process::listens};

#[test]
fn a_command_finds_the_server_which_ends_with_it_and_its_status_is_passed_on() {
    let program = env!("CARGO_BIN_EXE_with-postgres");
    let script = format!(
        "port=${{{SHARED}%% *}}
         exec 3<>/dev/tcp/127.0.0.1/$port || exit 1
         echo $port
         exit 7"
    );
    let mut command = Command::new(program);
    // A run of tests may have a server of its own, which is not meant here.
    command.env_remove(SHARED).args(["bash", "-c", &script]);
    let done = command.output().expect("it runs");
    assert_eq!(done.status.code(), Some(7), "{}", String::from_utf8_lossy(&done.stderr));
    let port = String::from_utf8_lossy(&done.stdout).trim().parse().expect("a port");
    assert!(!listens(port), "the server has ended");

    let missing = Command::new(program).env_remove(SHARED).arg("no-such-program").output();
    let missing = missing.expect("it runs");
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("cannot run no-such-program"));
}
