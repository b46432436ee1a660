//! A PgBouncer in front of a Postgres server.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
};

use tempfile::TempDir;

use crate::{
    postgres::{Postgres, unprivileged},
    process::{Process, find_program, free_port, listens, tied},
};

/// A running pooler; it ends with the handle.
#[derive(Debug)]
pub struct PgBouncer {
    _process: Process,
    _folder: TempDir,
    port: u16,
}

impl PgBouncer {
    /// Starts a pooler for `server` on a free port of loopback, with these settings
    /// (`"pool_mode=session"`). It accepts everybody, as the server's superuser.
    ///
    /// # Panics
    /// When PgBouncer is not installed, or does not start; a test cannot go on without it.
    #[must_use]
    pub fn start(server: &Postgres, settings: &[&str]) -> Self {
        let folder =
            tempfile::Builder::new().prefix("darkroom-pgbouncer-").tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        let port = free_port();
        let file = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={} user={} password='{}'\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\n{}\n",
            server.port(),
            Postgres::USER,
            Postgres::PASSWORD,
            settings.join("\n")
        );
        fs::write(&file, text).expect("the settings are written");
        let program = find_program(&["pgbouncer"], &["/usr/sbin".into()], "pgbouncer");
        let mut command = tied(program.unwrap_or_else(|error| panic!("{error}")));
        command.arg(&file).current_dir(folder.path());
        if let Some((user, group)) = unprivileged() {
            command.uid(user.as_raw()).gid(group.as_raw());
        }
        let mut process = Process::spawn(command, &folder.path().join("log"));
        process.wait_until("ready", || listens(port));
        Self { _process: process, _folder: folder, port }
    }

    /// URL of a database of the server, through the pooler.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://somebody@127.0.0.1:{}/{database}", self.port)
    }
}
