//! Over TLS, as a user of the server's access list: certificates of an authority of one's own, made here, and what is said
//! of one that is not trusted or of a user who may not.

use std::{io::Write as _, path::PathBuf, process::Stdio};

use darkroom_queue::{TaskQueue as _, conformance::pool, redis::RedisQueue, task::Completion};
use darkroom_test_servers::{process::free_port, redis::Redis};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::{PATIENCE, add, complete, eventually, lease, options};

/// Tells the child where to go.
const URL: &str = "DARKROOM_TEST_URL";
/// Password of the server's user, and how an address writes it.
const PASSWORD: [&str; 2] = ["p@ss:w/rd?#%", "p%40ss%3Aw%2Frd%3F%23%25"];
/// What a user must be allowed, as README.md says.
const RIGHTS: [&str; 4] = ["~darkroom:*", "+@all", "-@dangerous", "+info"];

#[tokio::test(flavor = "multi_thread")]
async fn a_user_completes_a_task_over_tls() {
    if !has_tls() {
        return;
    }
    let authority = Authority::new("a");
    let server = authority.serve("127.0.0.1", &[]);
    server.add_user("darkroom", &RIGHTS);
    assert_eq!(outcome(&server.url("rediss", "darkroom"), &authority).await, "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_completes_a_task_over_tls_in_a_cluster() {
    if !has_tls() {
        return;
    }
    let authority = Authority::new("a");
    let bus = format!("cluster-port {}", free_port());
    let server = authority.serve("127.0.0.1", &["cluster-enabled yes", "tls-cluster yes", &bus]);
    server.add_user("darkroom", &RIGHTS);
    server.redis.must(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let is_up = async || server.redis.must(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
    eventually("the cluster is up", is_up).await;
    let url = server.url("rediss+cluster", "darkroom");
    assert_eq!(outcome(&url, &authority).await, "completed");
    let (other, address) = (Authority::new("b"), server.address());
    assert_eq!(outcome(&url, &other).await, untrusted(&address, "UnknownIssuer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_trusted_is_refused() {
    if !has_tls() {
        return;
    }
    let (authority, other) = (Authority::new("a"), Authority::new("b"));
    let server = authority.serve("127.0.0.1", &[]);
    server.add_user("darkroom", &RIGHTS);
    let (url, address) = (server.url("rediss", "darkroom"), server.address());
    assert_eq!(outcome(&url, &other).await, untrusted(&address, "UnknownIssuer"));

    let elsewhere = authority.serve("127.0.0.2", &[]);
    let said = outcome(&elsewhere.url("rediss", "darkroom"), &authority).await;
    let start = format!("Redis at {} has a certificate that is not trusted (", elsewhere.address());
    assert!(said.starts_with(&start) && said.contains("not valid for name \"127.0.0.1\""), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_unknown_or_may_not_is_refused_over_tls() {
    if !has_tls() {
        return;
    }
    let authority = Authority::new("a");
    let server = authority.serve("127.0.0.1", &[]);
    server.add_user("darkroom", &RIGHTS);
    server.add_user("reader", &["~darkroom:*", "+@read"]);
    // May call a script, and not what is in it.
    server.add_user("caller", &["~darkroom:*", "+@all", "-@dangerous"]);
    let right = server.url("rediss", "darkroom");
    let wrong = right.replace(PASSWORD[1], "wrong");
    let urls = ["nobody", "reader", "caller"].map(|user| server.url("rediss", user));
    for url in urls.iter().chain([&wrong]) {
        let said = outcome(url, &authority).await;
        let start = format!("Redis at {} refuses the user or password: ", server.address());
        assert!(said.starts_with(&start) && !said.contains(PASSWORD[0]), "{url}: {said}");
    }
    assert_eq!(outcome(&right, &authority).await, "completed");
}

/// Whether the server that is installed was built with TLS; says so where it was not.
fn has_tls() -> bool {
    let knows = Redis::start().must(&["CONFIG", "GET", "tls-port"]) != "*0";
    if !knows {
        // Not by a macro, whose words are kept back for a test that passes.
        let _ = writeln!(std::io::stderr(), "skipped: the Redis server installed here was built without TLS");
    }
    knows
}

fn untrusted(address: &str, flaw: &str) -> String {
    format!(
        "Redis at {address} has a certificate that is not trusted ({flaw}); trusted are the system's authorities, or in \
         their place those in the PEM file that SSL_CERT_FILE names"
    )
}

/// An authority that signs certificates, and the folder with its files.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        let authority = Self {
            issuer: Issuer::new(params, key),
            folder: tempfile::Builder::new().prefix("darkroom-tls-").tempdir().expect("a temporary folder"),
        };
        authority.write("ca.pem", &certificate.pem());
        authority
    }

    /// Starts a server that shows a certificate for `host`.
    fn serve(&self, host: &str, settings: &[&str]) -> Server {
        let mut params = CertificateParams::new([host.to_owned()]).expect("a name or an address");
        params.distinguished_name.push(DnType::CommonName, host);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let port = free_port();
        let own = [
            format!("tls-port {port}"),
            format!("tls-ca-cert-file {}", self.file("ca.pem").display()),
            format!("tls-cert-file {}", self.write("server.pem", &certificate.pem()).display()),
            format!("tls-key-file {}", self.write("server.key", &key.serialize_pem()).display()),
            "tls-auth-clients no".to_owned(),
        ];
        let settings: Vec<&str> = own.iter().map(String::as_str).chain(settings.iter().copied()).collect();
        Server { redis: Redis::start_with(&settings), port }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.file(name);
        std::fs::write(&file, text).expect("the file can be written");
        file
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A server that speaks TLS on a port of its own; the test itself talks to the other one.
struct Server {
    redis: Redis,
    port: u16,
}

impl Server {
    fn add_user(&self, name: &str, rights: &[&str]) {
        let password = format!(">{}", PASSWORD[0]);
        self.redis.must(&[&["ACL", "SETUSER", name, "on", &password], rights].concat());
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn url(&self, scheme: &str, user: &str) -> String {
        format!("{scheme}://{user}:{}@{}", PASSWORD[1], self.address())
    }
}

/// What becomes of a task at this address, in a process that trusts one authority: which it trusts is read from its
/// environment, and a test cannot change its own.
async fn outcome(url: &str, trusted: &Authority) -> String {
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "tls::child", "--nocapture"])
        .env(URL, url)
        .env("SSL_CERT_FILE", trusted.file("ca.pem"))
        .env_remove("SSL_CERT_DIR")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, child).await.expect("in time").expect("it can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    let outcome = text.lines().find_map(|line| line.strip_prefix("outcome: "));
    outcome.unwrap_or_else(|| panic!("the child said nothing: {output:?}")).to_owned()
}

/// The other process; nothing in a run of its own.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(url) = std::env::var(URL) else { return };
    let outcome = match RedisQueue::connect(&url, "farm", options()).await {
        Ok(queue) => complete_one(&queue).await,
        Err(error) if error.retryable() => format!("to be tried again: {error}"),
        Err(error) => error.to_string(),
    };
    println!("\noutcome: {outcome}");
}

async fn complete_one(queue: &RedisQueue) -> String {
    let pool = pool("base");
    queue.claim_farm("database").await.expect("claimed");
    add(queue, &pool, 0..1).await;
    let leases = lease(queue, &pool, "w", 1).await;
    assert_eq!(complete(queue, &pool, &leases).await, [Completion::Recorded]);
    let results = queue.results(&pool, "committer", 1, PATIENCE).await.expect("read");
    queue.acknowledge(&pool, &[results[0].id.clone()]).await.expect("acknowledged");
    assert_eq!(queue.entries(&pool).await.expect("listed"), []);
    "completed".to_owned()
}
