//! TLS, with a user of the server's access list. The certificates come from an authority made here.
//! Also the errors for an untrusted certificate and for a user without permission.

use std::{io::Write as _, path::PathBuf, process::Stdio};

use darkroom_queue::{TaskQueue as _, redis::RedisQueue, task::Completion};
use darkroom_suites::queue::pool;
use darkroom_test_servers::{process::free_port, redis::Redis};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;
use tokio::process::Command;

use super::support::{PATIENCE, add, complete, eventually, lease, options};

/// Tells the child process where to connect.
const URL: &str = "DARKROOM_TEST_URL";
/// Password of the server's user, plain and as part of an address.
const PASSWORD: [&str; 2] = ["p@ss:w/rd?#%", "p%40ss%3Aw%2Frd%3F%23%25"];
/// The permissions that a user needs, as README.md lists them.
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
    assert!(
        said.starts_with(&start) && said.contains("not valid for name \"127.0.0.1\""),
        "{said}"
    );
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
    // May run a script, but not the commands inside it.
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

/// Whether the installed server was built with TLS. Prints a note if it was not.
fn has_tls() -> bool {
    let knows = Redis::start().must(&["CONFIG", "GET", "tls-port"]) != "*0";
    if !knows {
        // Not printed with a macro, because its output is hidden when a test passes.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: the Redis server installed here was built without TLS"
        );
    }
    knows
}

fn untrusted(address: &str, flaw: &str) -> String {
    format!(
        "Redis at {address} has a certificate that is not trusted ({flaw}); \
         accepted: a certificate of the system's authorities, or, if SSL_CERT_FILE is set, of \
         those in that PEM file"
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
            folder: tempfile::Builder::new()
                .prefix("darkroom-tls-")
                .tempdir()
                .expect("a temporary folder"),
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
            format!("tls-ca-cert-file {}", self.file("ca.pem").to_str().expect("UTF-8")),
            format!(
                "tls-cert-file {}",
                self.write("server.pem", &certificate.pem()).to_str().expect("UTF-8")
            ),
            format!(
                "tls-key-file {}",
                self.write("server.key", &key.serialize_pem()).to_str().expect("UTF-8")
            ),
            "tls-auth-clients no".to_owned(),
        ];
        let settings: Vec<&str> =
            own.iter().map(String::as_str).chain(settings.iter().copied()).collect();
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

/// A server that speaks TLS on its own port; the test itself talks to the other port.
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

/// What happens to a task at this address in a process that trusts one authority. The authority
/// comes from the environment, which a test cannot change in its own process.
async fn outcome(url: &str, trusted: &Authority) -> String {
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "redis::tls::child", "--nocapture"])
        .env(URL, url)
        .env("SSL_CERT_FILE", trusted.file("ca.pem"))
        .env_remove("SSL_CERT_DIR")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output =
        tokio::time::timeout(PATIENCE, child).await.expect("in time").expect("it can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    let outcome = text.lines().find_map(|line| line.strip_prefix("outcome: "));
    outcome.unwrap_or_else(|| panic!("the child said nothing: {output:?}")).to_owned()
}

/// The child process; does nothing in a normal run.
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
