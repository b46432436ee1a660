//! Runs a command with a Postgres server that all tests it starts share, and ends with the command's
//! status: `with-postgres COMMAND [ARGUMENTS]`.

#![expect(clippy::print_stderr, reason = "an internal tool; nobody closes its output early")]

use std::{
    env,
    process::{Command, ExitCode},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use darkroom_test_servers::postgres::{Postgres, SHARED};

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: with-postgres COMMAND [ARGUMENTS]");
        return ExitCode::from(2);
    };
    let server = Postgres::start_to_share();
    let done = thread::scope(|scope| {
        let (ended, end) = channel();
        scope.spawn(|| sweep(&server, end));
        let done = Command::new(&program).args(arguments).env(SHARED, server.shared_as()).status();
        drop(ended);
        done
    });
    match done.map(|status| status.code().and_then(|code| u8::try_from(code).ok())) {
        Ok(code) => code.map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            eprintln!("with-postgres: cannot run {}: {error}", program.display());
            ExitCode::FAILURE
        }
    }
}

/// Until the command ends, drops databases that ended tests left behind, so the disk need not hold
/// those of a whole run.
fn sweep(server: &Postgres, end: Receiver<()>) {
    while end.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
        if let Err(error) = server.drop_databases_of_ended_processes() {
            eprintln!("with-postgres: databases of ended tests stay: {error}");
        }
    }
}

const PAUSE: Duration = Duration::from_secs(5);
