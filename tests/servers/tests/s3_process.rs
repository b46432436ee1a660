//! The S3 server as a separate process, and its faults over HTTP.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
};

use darkroom_test_servers::{
    process::{Process, free_port, listens},
    s3::{
        control,
        faults::{Fault, Rule, Which},
    },
};

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn a_process_serves_a_bucket_and_takes_faults() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let mut command = Command::new(env!("CARGO_BIN_EXE_test-s3"));
    command
        .arg(folder.path().join("buckets"))
        .args([&port.to_string(), "darkroom"])
        .envs([("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")]);
    let mut server = Process::spawn(command, &folder.path().join("log"));
    server.wait_until("listening", || listens(port));

    assert!(
        get(port, "/darkroom/x").starts_with("HTTP/1.1 403"),
        "a read without a signature is refused"
    );
    assert!(get(port, "/elsewhere/x").contains("NoSuchBucket"));
    control(port, &[Rule::next(Fault::Status(503), 1).on(Which::Reads)]).expect("a rule");
    assert!(get(port, "/-/faults").contains("status:503 which=reads when=next:1"));
    assert!(get(port, "/darkroom/x").starts_with("HTTP/1.1 503"));
    assert!(get(port, "/darkroom/x").starts_with("HTTP/1.1 403"), "only the next request");
    control(port, &[]).expect("no rules");
    assert!(get(port, "/-/faults").contains("1 struck"));
    assert!(!server.log_text().contains("secret"), "{}", server.log_text());
}
