//! TLS as servers and clients of the farm speak it: trust, files that are replaced, and the limits
//! on connections, which must hold before and after the handshake.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use darkroom_proto::{
    FILE_DESCRIPTOR_SET,
    v1::{
        EncodeRequest, EncodeResponse,
        encoder_client::EncoderClient,
        encoder_server::{Encoder, EncoderServer},
    },
};
use darkroom_runtime::{
    peer::{Addresses, Kind, Peers, Trouble},
    server::{self, Options},
    tls::{ClientCertificate, ClientSettings, Fault, Privacy, ServerSettings},
};
use darkroom_test_servers::certificates::{Authority, Certificate, Validity};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, service::Routes};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// Most time that anything here may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// Names of this machine.
const HERE: &str = "DNS:localhost,IP:127.0.0.1";
/// A call that is let through at once.
const FREE: usize = usize::MAX >> 4;

/// Tells every caller whose certificate it has shown.
#[derive(Clone)]
struct Who {
    open: Arc<Semaphore>,
    inside: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl Encoder for Who {
    async fn encode(
        &self,
        request: Request<EncodeRequest>,
    ) -> Result<Response<EncodeResponse>, Status> {
        let client = request.extensions().get::<Arc<ClientCertificate>>();
        let who = client.map_or_else(|| "nobody".to_owned(), |client| client.subject.clone());
        self.inside.fetch_add(1, Ordering::SeqCst);
        drop(self.open.acquire().await.map_err(|_| Status::internal("closed"))?);
        self.inside.fetch_sub(1, Ordering::SeqCst);
        Ok(Response::new(EncodeResponse { encoder_digest: who, ..Default::default() }))
    }
}

/// Files of certificates, and the settings that name them.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("written");
        path
    }

    /// A server's settings with this certificate. Call it again to replace the files.
    fn serve(&self, certificate: &Certificate) -> ServerSettings {
        ServerSettings {
            tls_cert: Some(self.write("server.pem", &certificate.certificate)),
            tls_key: Some(self.write("server.key", &certificate.key)),
            ..ServerSettings::default()
        }
    }

    /// A client's settings with this certificate.
    fn show(&self, certificate: &Certificate, trusted: &Authority) -> ClientSettings {
        ClientSettings {
            client_cert: Some(self.write("client.pem", &certificate.certificate)),
            client_key: Some(self.write("client.key", &certificate.key)),
            ..trust(trusted)
        }
    }
}

fn trust(authority: &Authority) -> ClientSettings {
    ClientSettings { ca: Some(authority.file()), ..ClientSettings::default() }
}

struct Server {
    address: SocketAddr,
    who: Who,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<Result<(), server::Error>>,
}

impl Server {
    async fn start(settings: &ServerSettings) -> Self {
        Self::start_with(settings, FREE, |_| {}).await
    }

    async fn start_with(
        settings: &ServerSettings,
        open: usize,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let who = Who { open: Arc::new(Semaphore::new(open)), inside: Arc::default() };
        let privacy = settings.open().expect("usable");
        let listen = "127.0.0.1:0".parse().expect("an address");
        let listener = server::listen(&listen, &privacy).await.expect("listen");
        let address = listener.address();
        let mut options = Options::new(FILE_DESCRIPTOR_SET, &["darkroom.v1.Encoder"]);
        options.drain = Duration::from_millis(100);
        change(&mut options);
        let stop = CancellationToken::new();
        let routes = Routes::new(EncoderServer::new(who.clone()));
        let (_, serving) =
            server::serve(listener, routes, options, stop.clone()).await.expect("serve");
        Self { address, who, stop, serving: tokio::spawn(serving) }
    }

    fn farm(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    fn peers(&self, settings: &ClientSettings) -> Peers {
        peers(&self.farm(), settings)
    }

    /// Whom a new connection is for; what is wrong if there is none.
    async fn ask(&self, settings: &ClientSettings) -> Result<String, Kind> {
        ask(&self.farm(), settings).await
    }

    async fn end(self) {
        self.stop.cancel();
        self.serving.await.expect("joined").expect("ended well");
    }
}

fn peers(farm: &str, settings: &ClientSettings) -> Peers {
    let addresses = Addresses::parse(farm).expect("an address");
    Peers::connect(&addresses, settings).expect("usable settings")
}

async fn ask(farm: &str, settings: &ClientSettings) -> Result<String, Kind> {
    let mut client = EncoderClient::new(peers(farm, settings));
    let asked = tokio::time::timeout(PATIENCE, client.encode(EncodeRequest::default()));
    match asked.await.expect("answered") {
        Ok(answer) => Ok(answer.into_inner().encoder_digest),
        Err(status) => {
            let trouble = Trouble::of(&status).unwrap_or_else(|| panic!("{status:?}"));
            Err(trouble.at[0].1.clone())
        }
    }
}

/// A TLS connection that is not the farm's client.
async fn connect(server: &Server, authority: &Authority, alpn: &[u8]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(authority.file()).expect("PEM");
    roots.add(certificate).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(server.address).await.expect("connect");
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS")
}

async fn is_closed(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.expect("it is closed")
        {
            Ok(0) | Err(_) => return true,
            Ok(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_tls_is_answered_and_every_wrong_certificate_has_its_sentence() {
    let (authority, other) = (Authority::new(), Authority::named("other"));
    let same_name = Authority::new();
    let files = Files::new();
    let sign = |names, validity| files.serve(&authority.sign(names, validity));

    let server = Server::start(&sign(HERE, Validity::Now)).await;
    assert_eq!(server.ask(&trust(&authority)).await, Ok("nobody".to_owned()));
    let by_number = format!("https://{}", server.address);
    assert_eq!(ask(&by_number, &trust(&authority)).await, Ok("nobody".to_owned()));
    for stranger in [trust(&other), trust(&same_name), ClientSettings::default()] {
        assert_eq!(server.ask(&stranger).await, Err(Kind::Tls(Fault::UnknownAuthority)));
    }
    server.end().await;

    let server = Server::start(&sign(HERE, Validity::Over)).await;
    let fault = server.ask(&trust(&authority)).await.expect_err("over");
    assert!(
        matches!(&fault, Kind::Tls(Fault::Expired { until, .. }) if until.contains("31 Dec 2020")),
        "{fault:?}"
    );
    server.end().await;

    let server = Server::start(&sign(HERE, Validity::ToCome)).await;
    let fault = server.ask(&trust(&authority)).await.expect_err("to come");
    assert!(
        matches!(&fault, Kind::Tls(Fault::NotYetValid { from, .. }) if from.contains("Jan 2120")),
        "{fault:?}"
    );
    server.end().await;

    let server = Server::start(&sign("DNS:farm.example.org,IP:10.0.0.1", Validity::Now)).await;
    let fault = server.ask(&trust(&authority)).await.expect_err("another name");
    let Kind::Tls(fault @ Fault::WrongName { .. }) = &fault else { panic!("{fault:?}") };
    let text = fault.to_string();
    for words in ["not for localhost but for farm.example.org, 10.0.0.1;", "--farm"] {
        assert!(text.contains(words), "{text}");
    }
    server.end().await;

    let own = authority.own();
    let server = Server::start(&files.serve(&own)).await;
    let fault = server.ask(&trust(&authority)).await.expect_err("no server's");
    assert_eq!(fault, Kind::Tls(Fault::OwnAuthority));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_plain_text_that_meet_are_told_apart() {
    let authority = Authority::new();
    let files = Files::new();
    let server = Server::start(&files.serve(&authority.sign(HERE, Validity::Now))).await;
    let plainly = ask(&server.address.to_string(), &ClientSettings::default()).await;
    assert!(
        matches!(&plainly, Err(Kind::Stranger(what)) if what.contains("https://")),
        "{plainly:?}"
    );
    let mut browser = TcpStream::connect(server.address).await.expect("connect");
    browser.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    browser.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("Use https://"), "{answer}");
    let mut browser = connect(&server, &authority, b"http/1.1").await;
    browser.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    browser.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 426 ") && answer.contains("needs HTTP/2"), "{answer}");
    server.end().await;

    let plain = Server::start(&ServerSettings::default()).await;
    assert_eq!(plain.ask(&trust(&authority)).await, Err(Kind::Tls(Fault::PlainText)));
    plain.end().await;
    let closing = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let farm = format!("https://{}", closing.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = closing.accept().await {
            drop(stream);
        }
    });
    let ended = ask(&farm, &trust(&authority)).await.expect_err("no farm");
    assert_eq!(ended, Kind::Tls(Fault::Ended));
    assert!(ended.passes(), "a farm may have been starting");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_told_to_the_service_and_a_wrong_one_is_refused() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let other = Authority::named("other");
    let files = Files::new();
    let mut settings = files.serve(&authority.sign(HERE, Validity::Now));
    settings.tls_client_ca = Some(clients.file());
    let server = Server::start(&settings).await;
    assert_eq!(server.ask(&trust(&authority)).await, Ok("nobody".to_owned()));
    let known = clients.sign_client("/O=Studio/CN=worker-1", Validity::Now);
    let shown = files.show(&known, &authority);
    assert_eq!(server.ask(&shown).await, Ok("O=Studio,CN=worker-1".to_owned()));
    let refused = [
        (other.sign_client("/CN=worker-1", Validity::Now), "does not know its authority"),
        (authority.sign_client("/CN=worker-1", Validity::Now), "another authority of that name"),
        (clients.sign_client("/CN=worker-1", Validity::Over), "expired"),
        (clients.sign(HERE, Validity::Now), "not for a client"),
    ];
    for (certificate, why) in refused {
        let fault = server.ask(&files.show(&certificate, &authority)).await.expect_err(why);
        assert!(
            matches!(&fault, Kind::Tls(Fault::RefusesCertificate(said)) if said.contains(why)),
            "{why}: {fault:?}"
        );
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_files_are_served_without_a_restart_and_unusable_ones_are_not() {
    let (first, second, third) = (Authority::new(), Authority::new(), Authority::new());
    let files = Files::new();
    let mut settings = files.serve(&first.sign(HERE, Validity::Now));
    let client_ca = files.write("clients.pem", "");
    fs::copy(first.file(), &client_ca).expect("copied");
    settings.tls_client_ca = Some(client_ca.clone());
    let server = Server::start(&settings).await;
    let mut open = EncoderClient::new(server.peers(&trust(&first)));
    open.encode(EncodeRequest::default()).await.expect("answered");

    files.serve(&second.sign(HERE, Validity::Now));
    let served = async |authority: &Authority| {
        let until = async {
            while server.ask(&trust(authority)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, until).await.expect("the new certificate is served");
    };
    served(&second).await;
    assert_eq!(server.ask(&trust(&first)).await, Err(Kind::Tls(Fault::UnknownAuthority)));
    open.encode(EncodeRequest::default()).await.expect("an open connection goes on");

    // A certificate whose key has not come yet changes nothing, and neither do files that are
    // gone; the client authority beside them has changed too, and is not taken alone.
    let next = third.sign(HERE, Validity::Now);
    files.write("server.pem", &next.certificate);
    fs::copy(third.file(), &client_ca).expect("copied");
    let by_third = files.show(&third.sign_client("/CN=worker-3", Validity::Now), &second);
    let looks = tokio::time::Instant::now() + Duration::from_millis(2500);
    while tokio::time::Instant::now() < looks {
        assert_eq!(server.ask(&trust(&second)).await, Ok("nobody".to_owned()));
        let refused = server.ask(&by_third).await;
        assert!(matches!(refused, Err(Kind::Tls(Fault::RefusesCertificate(_)))), "{refused:?}");
    }
    files.write("server.key", &next.key);
    served(&third).await;
    let shown = ClientSettings { ca: Some(third.file()), ..by_third };
    assert_eq!(server.ask(&shown).await, Ok("CN=worker-3".to_owned()));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_handshakes_leave_places_and_are_closed_in_time() {
    let authority = Authority::new();
    let files = Files::new();
    let settings = files.serve(&authority.sign(HERE, Validity::Now));
    let server = Server::start_with(&settings, FREE, |options| options.connections = 20).await;
    let mut half = Vec::new();
    for number in 0..100 {
        let mut stream = TcpStream::connect(server.address).await.expect("connect");
        // Nothing, the beginning of a ClientHello, or one that announces more than it sends.
        let words: &[u8] =
            [&b""[..], b"\x16\x03\x01", b"\x16\x03\x01\x40\0\x01\0\x3f\xfc\x03\x03"][number % 3];
        stream.write_all(words).await.expect("sent");
        half.push(stream);
    }
    for _ in 0..30 {
        assert_eq!(server.ask(&trust(&authority)).await, Ok("nobody".to_owned()));
    }
    for stream in half.iter_mut().take(80) {
        assert!(is_closed(stream).await);
    }
    server.end().await;

    let brief = |options: &mut Options| options.handshake = Duration::from_millis(300);
    let server = Server::start_with(&settings, FREE, brief).await;
    let mut silent = TcpStream::connect(server.address).await.expect("connect");
    let mut begun = TcpStream::connect(server.address).await.expect("connect");
    begun.write_all(b"\x16\x03\x01").await.expect("sent");
    assert!(is_closed(&mut silent).await && is_closed(&mut begun).await);
    // TLS is agreed on, and then nothing is said.
    let mut agreed = connect(&server, &authority, b"h2").await;
    assert!(is_closed(&mut agreed).await);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_http2_hold_over_tls() {
    let authority = Authority::new();
    let files = Files::new();
    let settings = files.serve(&authority.sign(HERE, Validity::Now));
    let server = Server::start_with(&settings, 1, |options| options.streams = 10).await;
    let mut client = EncoderClient::new(server.peers(&trust(&authority)));
    // After the first answer, the client knows how many calls it may have.
    client.encode(EncodeRequest::default()).await.expect("answered");
    let mut long = Request::new(EncodeRequest::default());
    long.metadata_mut().insert("x-long", "x".repeat(9 << 10).parse().expect("ASCII"));
    let refused = client.encode(long).await.expect_err("headers beyond 8 KiB");
    assert_ne!(refused.code(), Code::Ok);
    let closed = server.who.open.acquire().await.expect("open");
    closed.forget();
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.encode(EncodeRequest::default()).await })
        })
        .collect();
    let inside = || server.who.inside.load(Ordering::SeqCst);
    let waiting = async {
        while inside() < 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("ten are inside");
    let mut another = HealthClient::new(server.peers(&trust(&authority)));
    another.check(HealthCheckRequest::default()).await.expect("another connection has room");
    assert_eq!(inside(), 10);
    server.who.open.add_permits(FREE);
    for call in calls {
        call.await.expect("joined").expect("answered");
    }
    server.end().await;
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_refused_by_name() {
    let authority = Authority::new();
    let files = Files::new();
    let good = authority.sign(HERE, Validity::Now);
    let other = authority.sign(HERE, Validity::Now);
    let cert = files.write("server.pem", &good.certificate);
    let key = files.write("server.key", &good.key);
    let encrypted = good.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let broken = good.certificate.replace("MII", "AII");
    let of = |cert: Option<&PathBuf>, key: Option<&PathBuf>, ca: Option<&PathBuf>| ServerSettings {
        tls_cert: cert.cloned(),
        tls_key: key.cloned(),
        tls_client_ca: ca.cloned(),
        plaintext: false,
    };
    let write = |name: &str, text: &str| files.write(name, text);
    let nowhere = files.folder.path().join("nowhere");
    for (settings, field, words) in [
        (of(Some(&cert), None, None), "tls-key", "tls-cert is set without tls-key"),
        (of(None, Some(&key), None), "tls-cert", "tls-key is set without tls-cert"),
        (of(None, None, Some(&cert)), "tls-client-ca", "set without tls-cert"),
        (of(Some(&nowhere), Some(&key), None), "tls-cert", "No such file"),
        (of(Some(&cert), Some(&nowhere), None), "tls-key", "No such file"),
        (of(Some(&key), Some(&key), None), "tls-cert", "has a key and no certificate"),
        (of(Some(&cert), Some(&cert), None), "tls-key", "has a certificate and no key"),
        (of(Some(&write("empty", "")), Some(&key), None), "tls-cert", "has no certificate"),
        (of(Some(&cert), Some(&write("empty", "")), None), "tls-key", "has no key"),
        (of(Some(&write("broken", &broken)), Some(&key), None), "tls-cert", "damaged"),
        (of(Some(&cert), Some(&write("encrypted", &encrypted)), None), "tls-key", "openssl pkey"),
        (of(Some(&cert), Some(&write("old", old)), None), "tls-key", "has a password"),
        (
            of(Some(&cert), Some(&write("other", &other.key)), None),
            "tls-key",
            "is not the key of tls-cert",
        ),
        (of(Some(&cert), Some(&key), Some(&key)), "tls-client-ca", "has a key and no certificate"),
    ] {
        let error = settings.open().expect_err(words);
        assert_eq!(error.field.as_deref(), Some(field), "{error}");
        assert!(error.message.contains(words), "{words:?} is not in {}", error.message);
        assert!(!error.message.contains('\n'), "{error}");
    }
    let both = ServerSettings { plaintext: true, ..of(Some(&cert), Some(&key), None) };
    assert!(both.open().expect_err("both").message.contains("one of them"));
    let plain = ServerSettings { plaintext: true, ..ServerSettings::default() };
    assert!(matches!(plain.open(), Ok(Privacy::Plaintext)));

    let client =
        |farm: &str, ca: Option<&PathBuf>, cert: Option<&PathBuf>, key: Option<&PathBuf>| {
            let settings = ClientSettings {
                ca: ca.cloned(),
                client_cert: cert.cloned(),
                client_key: key.cloned(),
            };
            Addresses::parse(farm).expect("an address").secure(&settings).map(|tls| tls.is_some())
        };
    let farm = "https://farm:7878";
    for (opened, field, words) in [
        (client(farm, Some(&nowhere), None, None), "ca", "No such file"),
        (client(farm, Some(&key), None, None), "ca", "has a key and no certificate"),
        (client(farm, None, Some(&cert), None), "client-key", "set without client-key"),
        (client(farm, None, Some(&cert), Some(&cert)), "client-key", "no key"),
        (client("farm:7878", Some(&cert), None, None), "farm", "write https://farm:7878"),
        (client("farm:7878", None, Some(&cert), Some(&key)), "farm", "leave client-cert out"),
    ] {
        let error = opened.expect_err(words);
        assert_eq!(error.field.as_deref(), Some(field), "{error}");
        assert!(error.message.contains(words), "{words:?} is not in {}", error.message);
    }
    assert_eq!(client(farm, Some(&cert), Some(&cert), Some(&key)), Ok(true));
    assert_eq!(client("127.0.0.1:7878", Some(&cert), None, None), Ok(false));
}
