//! One plain request over HTTP.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

/// Status and body of a GET. It is written by hand, so that no client adds credentials.
///
/// # Panics
/// When there is no answer, or it is not HTTP.
#[must_use]
pub fn http_get(url: &str) -> (u16, Vec<u8>) {
    let (host, path) =
        url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a URL");
    let mut stream = TcpStream::connect(host).expect("connects");
    write!(stream, "GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
    let status = str::from_utf8(&answer[9..12]).expect("text").parse().expect("a status");
    (status, answer.split_off(head + 4))
}
