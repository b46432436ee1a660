//! Servers between a client and its farm: real proxies that cut, restart and refuse, and servers
//! that are not farms.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use darkroom_test_servers::{
    haproxy::Haproxy,
    nginx::Nginx,
    postgres::Postgres,
    process::{Process, find_program, free_port, listens, tied},
    proxy::Proxy,
    redis::Redis,
};
use darkroom_tests::{
    command::{Darkroom, Ended},
    eventually,
    farm::{Farm, Renderer},
};
use tempfile::TempDir;

/// `darkroom` with this value of `--farm`.
fn to(address: &str, arguments: &[&str]) -> Darkroom {
    let folder = std::env::temp_dir();
    Darkroom::new(&folder).args(["--farm", address]).args(arguments)
}

fn at(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn port_of(farm: &Farm) -> u16 {
    farm.address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

fn start(folder: &TempDir) -> Farm {
    Farm::start_with(folder.path(), Renderer::Fake, &[("DARKROOM_FAKE_STEP_MS", "200")])
}

/// A job that does not change, because it is paused.
fn quiet_job(farm: &Farm) -> String {
    let submitted = farm.command(["--json", "submit", "a red circle", "-n", "20"]).run().json();
    let id = submitted["job"]["id"].as_str().expect("an id").to_owned();
    succeeds(&farm.command(["pause", &id]).run());
    id
}

fn succeeds(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// Starts `darkroom watch`, and waits for its first event.
fn watch(address: &str, job: &str, folder: &Path) -> Process {
    let mut command = Command::new(darkroom_tests::binary());
    command.args(["--farm", address, "--json", "watch", job]);
    let log = folder.join(format!("watch-{}.log", free_port()));
    let mut process = Process::spawn(command, &log);
    let told = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("\"version\""));
    process.wait_until("an event came", told);
    process
}

/// Checks that the watch reports the job's end, and reported no problem before.
fn ends_with_the_job(mut watch: Process, farm: &Farm, job: &str) {
    succeeds(&farm.command(["cancel", job]).run());
    assert_eq!(watch.wait(), Some(3), "{}", watch.log_text());
    let text = watch.log_text();
    assert!(text.contains("JOB_CANCELLED") && text.contains("\"end\":true"), "{text}");
}

#[test]
fn a_watch_goes_on_through_a_haproxy_that_cuts_what_is_quiet() {
    let folder = tempfile::tempdir().expect("a folder");
    let farm = start(&folder);
    let proxy = Haproxy::start(port_of(&farm), Duration::from_millis(300));
    let job = quiet_job(&farm);
    let watch = watch(&at(proxy.port()), &job, folder.path());
    let cuts = || proxy.log_text().matches("/darkroom.v1.Farm/WatchJob").count();
    eventually("it was cut three times", || (cuts() >= 3).then_some(()));
    ends_with_the_job(watch, &farm, &job);
}

#[test]
fn a_watch_goes_on_through_an_nginx_that_restarts() {
    let folder = tempfile::tempdir().expect("a folder");
    let farm = start(&folder);
    let passing = Nginx::passing_to(port_of(&farm));
    let mut proxy = Nginx::start(&passing);
    let job = quiet_job(&farm);
    let mut watch = watch(&at(proxy.port()), &job, folder.path());
    proxy.kill();
    proxy.restart_with("return 502;");
    eventually("it asked nginx without a farm", || {
        proxy.log_text().contains("\" 502 ").then_some(())
    });
    assert!(watch.runs(), "{}", watch.log_text());
    proxy.restart_with(&passing);
    ends_with_the_job(watch, &farm, &job);
}

#[test]
fn a_call_waits_for_the_farm_behind_an_nginx() {
    let folder = tempfile::tempdir().expect("a folder");
    let farm = start(&folder);
    // First, the farm behind it is gone: nginx answers 502. Then it is busy: nginx answers 503 and
    // asks to wait a second.
    let mut proxy = Nginx::start(&Nginx::passing_to(free_port()));
    let mut call = to(&at(proxy.port()), &["--json", "cascades"]).start();
    eventually("it got a 502", || proxy.log_text().contains("\" 502 ").then_some(()));
    proxy.restart_with("add_header Retry-After 1 always; return 503;");
    eventually("it got a 503", || proxy.log_text().contains("\" 503 ").then_some(()));
    assert!(!call.ended());
    proxy.restart_with(&Nginx::passing_to(port_of(&farm)));
    assert!(call.wait().stdout.contains("demo"));
}

#[test]
fn what_an_nginx_refuses_is_told_with_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let farm = start(&folder);
    let mut proxy = Nginx::start("return 401;");
    let address = at(proxy.port());
    let named = format!("{address} (nginx/");
    for (status, words) in [
        (401, "asks for a login"),
        (403, "forbids the call"),
        (404, "no farm behind this address"),
        (405, "does not take gRPC"),
        (500, "answers HTTP 500"),
    ] {
        proxy.restart_with(&format!("return {status};"));
        to(&address, &["cascades"]).run().refused(3, &[&named, words, &status.to_string()]);
    }
    proxy.restart_with("return 302 https://elsewhere.example/;");
    to(&address, &["cascades"])
        .run()
        .refused(3, &[&named, "redirects to https://elsewhere.example/"]);
    proxy.restart_with("location / { default_type text/html; return 200 hello; }");
    to(&address, &["cascades"]).run().refused(3, &[&named, "web server"]);

    // A body that nginx refuses as too large while it is being sent.
    proxy.restart_with(&format!("client_max_body_size 20k; {}", Nginx::passing_to(port_of(&farm))));
    let lines = "a red circle above a blue square, on a sunny day in a wide and green field\n"
        .repeat(40_000);
    std::fs::write(folder.path().join("large.txt"), &lines).expect("written");
    std::fs::write(folder.path().join("small.txt"), &lines[..lines.len() / 80]).expect("written");
    for batch in ["small.txt", "large.txt"] {
        let batch = folder.path().join(batch).display().to_string();
        let refused = to(&address, &["submit", "--batch", &batch]).run();
        refused.refused(3, &[&named, "HTTP 413", "client_max_body_size"]);
    }
    let jobs = farm.command(["--json", "ls"]).run().json_lines();
    assert!(jobs.iter().all(|job| job["images_done"] == 0), "no job was submitted: {jobs:?}");
}

#[test]
fn a_submit_whose_answer_is_lost_makes_one_job() {
    let folder = tempfile::tempdir().expect("a folder");
    let farm = start(&folder);
    let proxy = Proxy::start(port_of(&farm));
    // The limit is after the connection's preface and settings. So the call reaches the farm, but
    // its answer is lost.
    proxy.lose_replies_after_bytes(Some(1_200));
    let prompt = "a red circle ".repeat(200);
    let submit = to(&at(proxy.port()), &["--json", "submit", &prompt]).start();
    let jobs = || farm.command(["--json", "ls"]).run().json_lines();
    eventually("the farm has the job", || (jobs().len() == 1).then_some(()));
    proxy.lose_replies_after_bytes(None);
    let submitted = submit.wait().json();
    assert_eq!(submitted["existed"], true, "{submitted}");
    assert_eq!(jobs().len(), 1);
}

#[test]
fn servers_that_are_no_farm_are_named() {
    let (redis, postgres) = (Redis::start(), Postgres::shared());
    let web = Nginx::start_with_http1("return 200 hello;");
    let tls = Tls::start();
    let (guarded, ssh) =
        (Redis::start_with_password("s3cret"), Banner::start("SSH-2.0-OpenSSH_9.2p1\r\n"));
    for (port, words) in [
        (redis.port(), "a Redis server"),
        (guarded.port(), "a Redis server"),
        (postgres.port(), "a Postgres server"),
        (web.port(), "a web server listens there (nginx/"),
        (tls.port, "speaks TLS"),
        (ssh.port, "an SSH server"),
    ] {
        let start = Instant::now();
        let address = at(port);
        to(&address, &["cascades"])
            .run()
            .refused(3, &[&format!("{address} is no farm"), words, "--farm"]);
        assert!(start.elapsed() < Duration::from_secs(10), "{words}: {:?}", start.elapsed());
    }
    // In a list of addresses, they are skipped.
    let folder = tempfile::tempdir().expect("a folder");
    let farm = start(&folder);
    let several = format!("{},{},{}", at(redis.port()), at(tls.port), farm.address);
    assert!(to(&several, &["cascades"]).run().stdout.contains("demo"));
}

#[test]
fn a_list_of_addresses_goes_on_to_one_that_works_and_stays_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let farm = start(&folder);
    let (dead, other) = (free_port(), free_port());
    // Nobody answers at the last address, so it must not be reached.
    let several = format!("{},http://{},192.0.2.1:7878", at(dead), farm.address);
    let start = Instant::now();
    assert!(to(&several, &["cascades"]).run().stdout.contains("demo"));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    // Tested by name, because the first address of localhost may be an IPv6 address where nobody
    // listens.
    let named = format!("localhost:{}", port_of(&farm));
    assert!(to(&named, &["cascades"]).run().stdout.contains("demo"));

    let both = format!("{},{}", at(dead), at(other));
    to(&both, &["cascades"]).run().refused(
        4,
        &[
            &format!("{} (connection refused)", at(dead)),
            &format!("{} (connection refused)", at(other)),
        ],
    );

    // A watch changes to the second address when the first is cut.
    let (first, second) = (Proxy::start(port_of(&farm)), Proxy::start(port_of(&farm)));
    let job = quiet_job(&farm);
    let watch = watch(&format!("{},{}", at(first.port()), at(second.port())), &job, folder.path());
    assert_eq!((first.accepted(), second.accepted()), (1, 0));
    first.cut();
    eventually("it uses the other address", || (second.accepted() == 1).then_some(()));
    ends_with_the_job(watch, &farm, &job);
}

/// A server that sends one text to every client, and reads nothing.
struct Banner {
    port: u16,
}

impl Banner {
    fn start(banner: &'static str) -> Self {
        use std::io::Write as _;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for mut stream in listener.incoming().flatten() {
                let _ = stream.write_all(banner.as_bytes());
                open.push(stream);
            }
        });
        Self { port }
    }
}

/// OpenSSL's test server.
struct Tls {
    port: u16,
    _process: Process,
    _folder: TempDir,
}

impl Tls {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let openssl =
            find_program(&["openssl"], &[], "openssl").unwrap_or_else(|error| panic!("{error}"));
        let made = Command::new(&openssl)
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"])
            .args(["-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(folder.path())
            .output()
            .expect("openssl runs");
        assert!(made.status.success(), "{made:?}");
        let port = free_port();
        let mut command = tied(openssl);
        command
            .args(["s_server", "-quiet", "-www", "-key", "key.pem", "-cert", "cert.pem"])
            .args(["-accept", &port.to_string()])
            .current_dir(folder.path());
        let mut process = Process::spawn(command, &folder.path().join("log"));
        process.wait_until("it listened", || listens(port));
        Self { port, _process: process, _folder: folder }
    }
}
