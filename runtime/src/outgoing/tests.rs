//! Requests to servers of these tests, on loopback.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use http::HeaderMap;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// What a server of these tests sends, and what it got.
struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
    got: tokio::sync::mpsc::Receiver<String>,
}

/// Answers each connection with these bytes, and then with `endless` without end. Without the first,
/// or if the second is empty, nothing more comes.
async fn serve(answer: &'static str, endless: Option<&'static str>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (connections, (told, got)) = (Arc::<AtomicUsize>::default(), tokio::sync::mpsc::channel(8));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let told = told.clone();
            tokio::spawn(async move {
                let mut read = Vec::new();
                while !read.ends_with(b"the body") {
                    if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
                let _ = told.send(String::from_utf8_lossy(&read).into_owned()).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                if answer.is_empty() || endless == Some("") {
                    std::future::pending::<()>().await;
                }
                while let Some(more) = endless {
                    if stream.write_all(more.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Server { port, connections, got }
}

impl Server {
    fn at(&self, host: &str) -> Target {
        Target::parse("url", &format!("http://{host}:{}/path?q=1", self.port)).expect("an address")
    }
}

async fn send(
    target: &Target,
    allowed: AllowedAddresses,
    limit: Duration,
) -> Result<StatusCode, Error> {
    let headers = HeaderMap::from_iter([(header::USER_AGENT, HeaderValue::from_static("test"))]);
    post(target, allowed, headers, Bytes::from_static(b"the body"), limit).await
}

#[tokio::test]
async fn a_body_is_sent_and_the_status_comes_back() {
    let mut server = serve("HTTP/1.1 204 No Content\r\n\r\n", None).await;
    let target = server.at("127.0.0.1");
    let status = send(&target, AllowedAddresses::Anywhere, LIMIT).await.expect("answered");
    assert_eq!(status, StatusCode::NO_CONTENT);
    let got = server.got.recv().await.expect("a request").to_lowercase();
    assert!(got.starts_with("post /path?q=1 http/1.1\r\n"), "{got}");
    for line in [
        &format!("host: 127.0.0.1:{}", server.port),
        "user-agent: test",
        "content-length: 8",
        "connection: close",
    ] {
        assert!(got.contains(&format!("\r\n{line}\r\n")), "{line}: {got}");
    }
}

#[tokio::test]
async fn nothing_connects_to_an_address_that_is_not_allowed_whatever_its_name() {
    let server = serve("HTTP/1.1 200 OK\r\n\r\n", None).await;
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1"] {
        let target = server.at(host);
        let error = send(&target, AllowedAddresses::Public, LIMIT).await.expect_err(host);
        assert!(matches!(error, Error::NotAllowed(_)), "{host}: {error}");
    }
    // What a name resolves to at this moment counts, and only what is allowed is tried.
    let target = server.at("rebound.example.com");
    let loopback = SocketAddr::from(([127, 0, 0, 1], server.port));
    let mapped: SocketAddr = format!("[::ffff:127.0.0.1]:{}", server.port).parse().expect("one");
    let error = connect(&target, AllowedAddresses::Public, &[loopback, mapped])
        .await
        .expect_err("loopback");
    let said = error.to_string();
    assert!(said.contains("rebound.example.com") && !said.contains("127.0.0.1"), "{said}");
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
    connect(&target, AllowedAddresses::Anywhere, &[loopback]).await.expect("allowed");
}

#[tokio::test]
async fn a_name_without_an_address_is_told() {
    let target = Target::parse("url", "http://nowhere.invalid/").expect("an address");
    let error = send(&target, AllowedAddresses::Public, LIMIT).await.expect_err("no address");
    assert!(matches!(error, Error::NoAddress(_)), "{error}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_leads_nowhere() {
    let other = serve("HTTP/1.1 200 OK\r\n\r\n", None).await;
    let answer = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:{}/\r\ncontent-length: 0\r\n\r\n",
        other.port
    );
    let server = serve(Box::leak(answer.into_boxed_str()), None).await;
    let target = server.at("127.0.0.1");
    let status = send(&target, AllowedAddresses::Anywhere, LIMIT).await.expect("answered");
    assert_eq!(status, StatusCode::TEMPORARY_REDIRECT);
    let counts = [&server, &other].map(|server| server.connections.load(Ordering::SeqCst));
    assert_eq!(counts, [1, 0]);
}

#[tokio::test]
async fn an_answer_without_end_is_read_as_far_as_it_should_go() {
    // A body.
    let server =
        serve("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n", Some("0123456789")).await;
    let began = Instant::now();
    let status =
        send(&server.at("127.0.0.1"), AllowedAddresses::Anywhere, LIMIT).await.expect("answered");
    assert_eq!(status, StatusCode::OK);
    assert!(began.elapsed() < LIMIT / 2, "{:?}", began.elapsed());
    // A body that never goes on.
    let server = serve("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Some("")).await;
    let status =
        send(&server.at("127.0.0.1"), AllowedAddresses::Anywhere, LIMIT).await.expect("answered");
    assert_eq!(status, StatusCode::OK);
    // A head that never ends, and a header line that never ends.
    for more in ["x-header: 1\r\n", "x"] {
        let server = serve("HTTP/1.1 200 OK\r\nx: ", Some(more)).await;
        let refused = send(&server.at("127.0.0.1"), AllowedAddresses::Anywhere, LIMIT).await;
        assert!(matches!(refused, Err(Error::Broken(..))), "{refused:?}");
    }
}

#[tokio::test]
async fn whoever_does_not_answer_or_is_no_server_is_told() {
    let silent = serve("", None).await;
    let limit = Duration::from_millis(300);
    let error = send(&silent.at("127.0.0.1"), AllowedAddresses::Anywhere, limit)
        .await
        .expect_err("silence");
    assert!(matches!(error, Error::TimedOut(..)), "{error}");
    let strange = serve("220 mail.example.com ESMTP\r\n", None).await;
    let error =
        send(&strange.at("127.0.0.1"), AllowedAddresses::Anywhere, LIMIT).await.expect_err("mail");
    assert!(matches!(error, Error::Broken(..)), "{error}");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    let target = Target::parse("url", &format!("http://127.0.0.1:{port}/")).expect("an address");
    let error = send(&target, AllowedAddresses::Anywhere, LIMIT).await.expect_err("nobody");
    assert_eq!(
        error.to_string(),
        format!("127.0.0.1:{port} cannot be connected to: the connection was refused")
    );
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn only_a_server_is_trusted_that_an_authority_vouches_for_by_its_name() {
    use darkroom_test_servers::certificates::{Authority, Validity};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

    let authority = Authority::new();
    let signed = authority.sign("DNS:localhost", Validity::Now);
    let chain = CertificateDer::pem_slice_iter(signed.certificate.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).expect("a key");
    let server = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ));
    let server = server.with_safe_default_protocol_versions().expect("versions");
    let server = server.with_no_client_auth().with_single_cert(chain, key).expect("a server");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The handshake fails if the client does not trust this server.
            let _ = acceptor.accept(stream).await;
        }
    });
    let roots = |authority: &Authority| {
        let mut roots = rustls::RootCertStore::empty();
        let own = CertificateDer::from_pem_slice(authority.own().certificate.as_bytes());
        roots.add(own.expect("a certificate")).expect("an authority");
        roots
    };
    let connect = async |host: &str, roots: rustls::RootCertStore| {
        let target = Target::parse("url", &format!("https://{host}:{port}/")).expect("an address");
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
        tls::connect_as(&target, stream, tls::config(roots)).await.map(drop)
    };
    connect("localhost", roots(&authority)).await.expect("vouched for");
    for (host, roots) in [
        ("localhost", roots(&Authority::new())),
        ("farm.localhost", roots(&authority)),
        ("127.0.0.1", roots(&authority)),
        ("localhost", rustls::RootCertStore::empty()),
    ] {
        let error = connect(host, roots).await.expect_err(host);
        assert!(matches!(error, Error::Untrusted(..)), "{host}: {error}");
    }
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn a_server_without_tls_is_told() {
    let plain = serve("HTTP/1.1 200 OK\r\n\r\n", None).await;
    let url = format!("https://127.0.0.1:{}/", plain.port);
    let target = Target::parse("url", &url).expect("an address");
    let error = tokio::time::timeout(
        LIMIT,
        send(&target, AllowedAddresses::Anywhere, Duration::from_secs(2)),
    );
    let error = error.await.expect("in time").expect_err("no TLS");
    assert!(matches!(error, Error::Untrusted(..) | Error::TimedOut(..)), "{error}");
}

#[tokio::test]
async fn a_connection_to_an_own_address_is_told_from_others() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("an address");
    let stream = TcpStream::connect(address).await.expect("connects");
    assert!(is_own(&stream), "both ends are this machine's");
    // Another address of this machine stands for another machine.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.2:0".parse().expect("an address")).expect("binds");
    let other = socket.connect(address).await.expect("connects");
    assert!(!is_own(&other));
}
