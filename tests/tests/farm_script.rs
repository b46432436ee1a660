//! `tools/farm.sh`: the servers it starts are closed to the other users of the machine.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

struct Servers {
    folder: tempfile::TempDir,
    redis: u16,
    postgres: u16,
}

impl Servers {
    fn start() -> Self {
        let port = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            (listener.local_addr().expect("bound").port(), listener)
        };
        let (redis, _held) = port();
        let (postgres, _held_too) = port();
        drop((_held, _held_too));
        let servers = Self { folder: tempfile::tempdir().expect("a folder"), redis, postgres };
        servers.script("servers");
        servers
    }

    fn script(&self, what: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/farm.sh");
        let mut command = Command::new("bash");
        command.arg(script).arg(what);
        command.env("FARM_FOLDER", self.folder.path());
        command
            .env("FARM_REDIS_PORT", self.redis.to_string())
            .env("FARM_POSTGRES_PORT", self.postgres.to_string());
        let done = command.output().expect("bash runs");
        assert!(done.status.success(), "{what}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn sql(&self, role: &str, passwords: Option<&Path>, statement: &str) -> Output {
        let mut command = Command::new("psql");
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.postgres.to_string(),
            "-U",
            role,
            "-d",
            "darkroom",
            "-wtAc",
            statement,
        ]);
        command.env_remove("PGPASSWORD").env("PGPASSFILE", passwords.unwrap_or(Path::new("/none")));
        command.output().expect("psql runs")
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.script("stop");
        // Where the servers' own users keep their parts when root runs them.
        for name in ["postgres", "redis"] {
            if let Ok(folder) =
                fs::read_to_string(self.folder.path().join("run").join(format!("{name}.folder")))
            {
                let _ = fs::remove_dir_all(folder.trim());
            }
        }
    }
}

#[test]
fn the_servers_of_make_farm_are_closed_to_other_users_of_the_machine() {
    let servers = Servers::start();
    let secrets = servers.folder.path().join("secrets");
    let passwords = secrets.join("pgpass");

    for role in ["darkroom", "admin", "postgres"] {
        assert!(!servers.sql(role, None, "SELECT 1").status.success(), "{role} without a password");
    }
    let role = "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication FROM pg_roles WHERE rolname = current_user";
    let answer = servers.sql("darkroom", Some(&passwords), role);
    assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), "f", "{answer:?}");
    let shell = servers.sql("darkroom", Some(&passwords), "COPY (SELECT 1) TO PROGRAM 'id'");
    assert!(!shell.status.success(), "no shell for the farm's role");
    let table = servers.sql("darkroom", Some(&passwords), "CREATE TABLE mine (id int)");
    assert!(table.status.success(), "{table:?}");

    let mut redis = TcpStream::connect(("127.0.0.1", servers.redis)).expect("connect");
    redis.write_all(b"PING\r\n").expect("sent");
    let mut answer = [0; 7];
    redis.read_exact(&mut answer).expect("answered");
    assert_eq!(&answer, b"-NOAUTH");

    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(servers.folder.path()), 0o700);
    let mut words = Vec::new();
    for name in ["admin", "postgres", "redis"] {
        assert_eq!(mode(&secrets.join(name)), 0o600);
        words.push(fs::read_to_string(secrets.join(name)).expect("a password").trim().to_owned());
    }
    for process in fs::read_dir("/proc").expect("processes").flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        assert!(!words.iter().any(|word| line.contains(word)), "a password on a command line: {line}");
    }
    for name in ["postgres", "redis"] {
        let pid =
            fs::read_to_string(servers.folder.path().join("run").join(format!("{name}.pid"))).expect("a pid");
        let pid = pid.split_whitespace().next().expect("a number").to_owned();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let user = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("a user");
        assert!(!user.split_whitespace().any(|id| id == "0"), "{name} runs as root");
    }

    // Stopped and started again, the same passwords hold.
    servers.script("stop");
    servers.script("servers");
    assert!(servers.sql("darkroom", Some(&passwords), "DROP TABLE mine").status.success());
}
