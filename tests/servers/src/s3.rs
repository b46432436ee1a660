//! An S3 server over HTTP, with faults on demand.
//!
//! The server is `s3s-fs`: real signatures, real conditional writes, real multipart uploads, files
//! in a folder. A layer in front of it makes a conditional create atomic, as it is on S3, and
//! injects [`faults`]. It runs on a thread of the test, or as a separate process (the program
//! `test-s3`), which accepts faults at [`CONTROL`].

pub mod faults;
mod short_keys;

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::{runtime, sync::oneshot, task::JoinSet};

pub use self::faults::CONTROL;
use self::{
    faults::{Faults, Front, Rule},
    short_keys::{ShortKeys, short},
};
use crate::process::free_port;

/// Region in the server's URL.
const REGION: &str = "us-east-1";

/// Options of a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of all buckets; created if absent.
    pub folder: PathBuf,
    /// Port of loopback.
    pub port: u16,
    /// Name of the only bucket; created if absent.
    pub bucket: String,
    /// The only access key that is accepted.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
}

/// A running server; it ends with its handle.
#[derive(Debug)]
pub struct S3 {
    options: Options,
    faults: Arc<Faults>,
    server: Option<Server>,
    _folder: Option<tempfile::TempDir>,
}

#[derive(Debug)]
struct Server {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl S3 {
    /// Starts a server on a free port. Dropping the handle removes its folder.
    ///
    /// # Panics
    /// When it cannot be started; a test cannot go on without it.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = Options {
            folder: folder.path().to_owned(),
            port: free_port(),
            bucket: "darkroom".to_owned(),
            access_key: "test-access-key".to_owned(),
            secret_key: "test-secret-key".to_owned(),
        };
        let mut server = Self::start_with(options).expect("an S3 server");
        server._folder = Some(folder);
        server
    }

    /// Starts a server with these options.
    ///
    /// # Errors
    /// When the folder cannot be created or the port is taken.
    pub fn start_with(options: Options) -> io::Result<Self> {
        std::fs::create_dir_all(options.folder.join(&options.bucket))?;
        let mut server = Self { options, faults: Arc::default(), server: None, _folder: None };
        server.begin()?;
        Ok(server)
    }

    /// The faults, which the test may change at any time.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The server's address, as `http://address:port`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.options.port)
    }

    /// The bucket as an artifacts URL, without credentials.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_under("")
    }

    /// As [`url`](Self::url), with a prefix in the bucket.
    #[must_use]
    pub fn url_under(&self, prefix: &str) -> String {
        let bucket = &self.options.bucket;
        format!(
            "s3://{bucket}/{prefix}?endpoint={}&region={REGION}&allow_http=true",
            self.endpoint()
        )
    }

    /// The bucket through a proxy that listens on another port of loopback.
    #[must_use]
    pub fn url_through(&self, port: u16) -> String {
        self.url().replace(&self.endpoint(), &format!("http://{}:{port}", Ipv4Addr::LOCALHOST))
    }

    /// The port that the server listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.options.port
    }

    /// The credentials as the environment variables that S3 clients read.
    #[must_use]
    pub fn environment(&self) -> [(String, String); 2] {
        [
            ("AWS_ACCESS_KEY_ID".to_owned(), self.options.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), self.options.secret_key.clone()),
        ]
    }

    /// The file of a key of the bucket, for tests that damage it.
    #[must_use]
    pub fn file(&self, key: &str) -> PathBuf {
        self.bucket_folder().join(short(key))
    }

    /// The folder behind the bucket; without it, the bucket does not exist.
    #[must_use]
    pub fn bucket_folder(&self) -> PathBuf {
        self.options.folder.join(&self.options.bucket)
    }

    /// Ends the server like a crash: connections break, requests stay unanswered, and files stay.
    ///
    /// # Panics
    /// When the server's thread panicked.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            let _ = server.stop.send(());
            server.thread.join().expect("the server's thread");
        }
    }

    /// Starts it again, on the same port and with the same files.
    ///
    /// # Panics
    /// When the port was taken meanwhile.
    pub fn restart(&mut self) {
        self.stop();
        self.begin().expect("the S3 server starts again");
    }

    fn begin(&mut self) -> io::Result<()> {
        let listener = listen(self.options.port)?;
        let files = FileSystem::new(&self.options.folder)
            .map_err(|error| io::Error::other(format!("{error:?}")))?;
        let mut service = S3ServiceBuilder::new(ShortKeys(files, self.options.folder.clone()));
        service.set_auth(SimpleAuth::from_single(
            self.options.access_key.clone(),
            self.options.secret_key.clone(),
        ));
        let front =
            Front::new(service.build(), Arc::clone(&self.faults), self.options.folder.clone());
        let runtime =
            runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("s3".to_owned()).spawn(move || {
            runtime.block_on(serve(listener, front, stopped));
            runtime.shutdown_background();
        })?;
        self.server = Some(Server { stop, thread });
        Ok(())
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            let _ = server.stop.send(());
            let _ = server.thread.join();
        }
    }
}

/// Replaces the fault rules of a server in another process, which listens on `port` of loopback.
///
/// # Errors
/// When it does not answer, or does not accept the rules.
pub fn control(port: u16, rules: &[Rule]) -> io::Result<()> {
    let body: String = rules.iter().map(|rule| format!("{rule}\n")).collect();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let length = body.len();
    write!(
        stream,
        "POST {CONTROL} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") {
        return Ok(());
    }
    Err(io::Error::other(format!("the S3 server refuses the rules: {answer}")))
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(listener: TcpListener, front: Front, mut stopped: oneshot::Receiver<()>) {
    let listener =
        tokio::net::TcpListener::from_std(listener).expect("a listener that does not block");
    let front = Arc::new(front);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = &mut stopped => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        let front = Arc::clone(&front);
        let service = hyper::service::service_fn(move |request| Arc::clone(&front).answer(request));
        connections.spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
