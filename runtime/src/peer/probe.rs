//! Finds out what listens at an address where no farm answered. It sends and reads a few bytes, on
//! at most four short connections.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{Address, answer::shown};

/// Time for connecting, and for each answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time to wait for a server that speaks first.
const FIRST_WORD: Duration = Duration::from_millis(150);
/// Most bytes that are read of an answer.
const MOST: usize = 512;

/// HTTP/2's preface and an empty SETTINGS frame.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Postgres: the request to start TLS.
const POSTGRES: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
/// TLS: a ClientHello of version 1.2 with one cipher suite and no extension.
const TLS: &[u8] =
    b"\x16\x03\x01\0\x2d\x01\0\0\x29\x03\x03darkroom asks what a port serves\0\0\x02\xc0\x2f\x01\0";

/// What listens there, if it is clearly not a gRPC server.
pub(super) async fn look(address: &Address) -> Option<String> {
    let asked = ask(address, HTTP2).await?;
    if let Some(what) = known(&asked) {
        return what;
    }
    // Closed without an answer, like a server that expects another protocol.
    if let Some(answer) = ask(address, POSTGRES).await
        && (answer == b"S" || answer == b"N")
    {
        return Some("a Postgres server listens there".to_owned());
    }
    match ask(address, TLS).await {
        Some(answer) if tls(&answer) => known(&answer).flatten(),
        _ => None,
    }
}

/// What the peer sends, first or in answer to `words`. `None` without a connection.
async fn ask(address: &Address, words: &[u8]) -> Option<Vec<u8>> {
    let connect = TcpStream::connect((address.host.as_str(), address.port));
    let mut stream = timeout(PATIENCE, connect).await.ok()?.ok()?;
    let mut heard = Vec::with_capacity(MOST);
    let first = timeout(FIRST_WORD, (&mut stream).take(MOST as u64).read_buf(&mut heard)).await;
    if matches!(first, Ok(Ok(1..))) {
        return Some(heard);
    }
    let _ = timeout(PATIENCE, stream.write_all(words)).await;
    let _ = timeout(PATIENCE, async {
        // The first read may return only half of a banner. The second read returns the rest, the
        // end, or nothing in time.
        for _ in 0..2 {
            if (&mut stream).take(MOST as u64).read_buf(&mut heard).await.unwrap_or(0) == 0
                || heard.len() >= 9
            {
                break;
            }
        }
    })
    .await;
    Some(heard)
}

fn tls(answer: &[u8]) -> bool {
    matches!(answer, [0x15 | 0x16, 3, ..])
}

/// What an answer tells about its server: `Some(None)` for a server that speaks HTTP/2, `None` if
/// the answer is not known.
fn known(answer: &[u8]) -> Option<Option<String>> {
    let line: &[u8] =
        answer.split(|byte| matches!(byte, b'\r' | b'\n' | 0)).next().unwrap_or_default();
    let begins = |words: &[u8]| {
        answer.get(..words.len()).is_some_and(|start| start.eq_ignore_ascii_case(words))
    };
    let what = if answer.len() >= 9 && answer[3] == 4 && answer[0] == 0 {
        return Some(None);
    } else if tls(answer) {
        "the port speaks TLS; if a farm is there, write https:// before the address".to_owned()
    } else if begins(b"HTTP/") && busy(line) {
        // A proxy that cannot reach a farm now. It may speak HTTP/2 when it can.
        return Some(None);
    } else if begins(b"HTTP/") {
        let server =
            header(answer, b"server").map(|server| format!(" ({server})")).unwrap_or_default();
        format!("a web server listens there{server}, which does not speak HTTP/2 on this port")
    } else if begins(b"<!doctype") || begins(b"<html") {
        "a web server listens there, which does not speak HTTP/2 on this port".to_owned()
    } else if begins(b"-ERR") || begins(b"-NOAUTH") || begins(b"-DENIED") || begins(b"-LOADING") {
        "a Redis server listens there".to_owned()
    } else if begins(b"SSH-") {
        let version = shown(line).map(|version| format!(" ({version})")).unwrap_or_default();
        format!("an SSH server listens there{version}")
    } else if answer.len() >= 5 && answer[3] == 0 && matches!(answer[4], 0x0a | 0xff) {
        "a MySQL server listens there".to_owned()
    } else if begins(b"AMQP") {
        "an AMQP message broker listens there".to_owned()
    } else if begins(b"220") || begins(b"+OK") || begins(b"* OK") {
        "a mail or file server listens there".to_owned()
    } else if answer.is_empty() {
        return None;
    } else {
        match shown(line) {
            Some(words) => format!("something listens there that is not HTTP/2; it says {words:?}"),
            None => "something listens there that is not HTTP/2".to_owned(),
        }
    };
    Some(Some(what))
}

/// Whether an HTTP/1 status line means "try again".
fn busy(line: &[u8]) -> bool {
    let status = line.split(|byte| *byte == b' ').nth(1);
    status.is_some_and(|status| matches!(status, b"429" | b"502" | b"503" | b"504"))
}

/// A header of an HTTP/1 answer, if it is printable.
fn header(answer: &[u8], name: &[u8]) -> Option<String> {
    answer.split(|byte| *byte == b'\n').find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?.trim_ascii();
        found.eq_ignore_ascii_case(name).then(|| shown(value)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn servers_are_known_by_their_first_words() {
        for (answer, what) in [
            (&b"-ERR unknown command 'PRI'"[..], "Redis"),
            (b"-NOAUTH Authentication required.\r\n", "Redis"),
            (b"-DENIED Redis is running in protected mode", "Redis"),
            (
                b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
                "SSH server listens there (SSH-2.0-OpenSSH_9.2p1 Debian-2)",
            ),
            (b"HTTP/1.1 400 Bad Request\r\nServer: nginx/1.22.1\r\n\r\n", "(nginx/1.22.1)"),
            (b"HTTP/1.0 400 Bad request\r\nSERVER:\x1b[31m\r\n", "web server listens there, which"),
            (b"<!DOCTYPE HTML>\n<html>", "web server"),
            (b"\x15\x03\x01\0\x02\x02\x46", "TLS"),
            (b"\x4a\0\0\0\x0a8.0.36\0", "MySQL"),
            (b"AMQP\0\0\x09\x01", "AMQP"),
            (b"220 mail.example.org ESMTP", "mail"),
            (b"ERROR\r\nERROR\r\n", "it says \"ERROR\""),
            (b"\xff\xfe\xfd", "not HTTP/2"),
        ] {
            let said = known(answer).flatten().expect(what);
            assert!(said.contains(what), "{said} should say {what}");
            assert!(said.is_ascii() && !said.contains(char::is_control), "{said}");
        }
        assert_eq!(known(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64"), Some(None), "HTTP/2");
        assert_eq!(known(b""), None);
        assert_eq!(
            known(b"HTTP/1.0 503 Service Unavailable\r\n\r\n"),
            Some(None),
            "it may be temporary"
        );
    }

    #[test]
    fn the_words_for_tls_have_the_lengths_that_they_say() {
        assert_eq!(usize::from(TLS[4]), TLS.len() - 5);
        assert_eq!(usize::from(TLS[8]), TLS.len() - 9);
    }

    /// A peer that handles every connection with `treat`, and its address.
    async fn peer<F>(treat: impl Fn(TcpStream) -> F + Send + 'static) -> Address
    where
        F: Future<Output = ()> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                treat(stream).await;
            }
        });
        Address { host: "127.0.0.1".to_owned(), port, tls: false }
    }

    #[tokio::test]
    async fn a_peer_that_says_nothing_or_too_much_is_left_soon() {
        let closing = peer(async |stream| drop(stream)).await;
        let flooding =
            peer(async |mut stream| while stream.write_all(&[0xff; 4096]).await.is_ok() {}).await;
        let nobody = Address { host: "127.0.0.1".to_owned(), port: 1, tls: false };
        let start = std::time::Instant::now();
        assert_eq!(look(&closing).await, None);
        assert!(look(&flooding).await.is_some_and(|what| what.contains("not HTTP/2")));
        assert_eq!(look(&nobody).await, None);
        assert!(start.elapsed() < Duration::from_secs(8));
    }
}
