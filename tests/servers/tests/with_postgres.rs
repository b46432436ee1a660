//! A command that runs with a Postgres server to share.

use std::process::Command;

use darkroom_test_servers::{
    postgres::{Postgres, SHARED},
    process::listens,
};

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

#[test]
fn databases_of_processes_that_have_ended_are_dropped_and_the_others_stay() {
    let server = Postgres::start_to_share();
    let own = server.create_database();
    let own = own.rsplit('/').next().expect("a URL ends with its database");
    let of_ended = format!("farm_1_{}_0", ended_process());
    for name in [&of_ended, "farm_of_somebody", "farm"] {
        server.sql("postgres", &format!("CREATE DATABASE {name}"));
    }
    assert_eq!(server.drop_databases_of_ended_processes(), Ok(1));
    let left = server.sql("postgres", "SELECT datname FROM pg_database WHERE NOT datistemplate");
    let mut left: Vec<_> = left.lines().filter(|name| *name != "postgres").collect();
    left.sort_unstable();
    assert_eq!(left, ["farm", own, "farm_of_somebody"]);

    // The server of a whole run does so by itself.
    let script = format!(
        "port=${{{SHARED}%% *}}
         ask() {{ \"$PSQL\" -XqAt -h 127.0.0.1 -p $port -d postgres -c \"$1\"; }}
         ask 'CREATE DATABASE {of_ended}' || exit 2
         for try in {{1..200}}; do
             found=$(ask \"SELECT count(*) FROM pg_database WHERE datname = '{of_ended}'\") || exit 3
             if [ \"$found\" = 0 ]; then exit 7; fi
             sleep 0.1
         done"
    );
    let done = Command::new(env!("CARGO_BIN_EXE_with-postgres"))
        .env_remove(SHARED)
        .env("PSQL", server.program("psql"))
        .env("PGUSER", Postgres::USER)
        .env("PGPASSWORD", Postgres::PASSWORD)
        .args(["bash", "-c", &script])
        .output()
        .expect("it runs");
    assert_eq!(done.status.code(), Some(7), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Process id of a process that has ended.
fn ended_process() -> u32 {
    let mut process = Command::new("true").spawn().expect("it starts");
    process.wait().expect("it ends");
    process.id()
}
