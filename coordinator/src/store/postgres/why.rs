//! Why a Postgres cannot be used, in one sentence that names its address and never a password: the
//! cause, and what would help. Asked before the pool, which repeats what is refused and then only
//! says that time is up.

use std::{io, time::Duration};

use darkroom_core::error::{Code, UserError};
use sqlx::postgres::PgSslMode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{fault, url::Server};

/// Most time to find out what else answers if it is not Postgres.
const LOOK: Duration = Duration::from_secs(1);
/// Reasons: of errors that pass by themselves, and of errors that somebody has to fix.
const UNAVAILABLE: &str = "STORE_UNAVAILABLE";
const UNUSABLE: &str = "STORE_UNUSABLE";

/// An error that passes by itself.
pub(super) fn passes(message: impl Into<String>) -> UserError {
    about_database(Code::Unavailable, UNAVAILABLE, message)
}

/// An error about the database as it is.
pub(super) fn unusable(message: impl Into<String>) -> UserError {
    about_database(Code::FailedPrecondition, UNUSABLE, message)
}

/// An error about the URL as it was given.
fn wrong(message: impl Into<String>) -> UserError {
    about_database(Code::InvalidArgument, UNUSABLE, message)
}

fn about_database(code: Code, reason: &str, message: impl Into<String>) -> UserError {
    UserError { field: Some("database".to_owned()), ..UserError::new(code, reason, message) }
}

/// Nothing came from the server in so long.
pub(super) async fn silent(server: &Server, waited: Duration) -> UserError {
    let seconds = waited.as_secs();
    match stranger(server).await {
        Some(what) => not_postgres(server, what),
        None => passes(format!(
            "Postgres at {server} did not answer within {seconds} s; check the address in --database, the network \
             between, and that the server is not stopped"
        )),
    }
}

/// Why a connection was not made.
pub(super) async fn cannot_connect(server: &Server, error: &sqlx::Error) -> UserError {
    match error {
        sqlx::Error::Database(said) => {
            refused(server, fault::state(error).as_deref(), said.message())
        }
        sqlx::Error::Tls(said) => no_tls(server, &said.to_string()),
        sqlx::Error::Io(error) => unreachable(server, error).await,
        sqlx::Error::Protocol(said) => ended(server, said).await,
        sqlx::Error::PoolTimedOut => passes(format!(
            "all of this coordinator's connections to Postgres at {server} are in use, or it gives no further one"
        )),
        error => unusable(format!("Postgres at {server} cannot be used: {error}")),
    }
}

/// What the server itself said.
fn refused(server: &Server, state: Option<&str>, said: &str) -> UserError {
    let (user, database) = (server.user(), server.database());
    let pooler_is_full = said.contains("no more connections allowed");
    match state.unwrap_or("") {
        "28P01" => wrong(format!(
            "Postgres at {server} refuses the password of user {user:?}; check user and password in --database (special \
             characters in them are written %40, %2F and so on)"
        )),
        "28000" if said.contains("pg_hba.conf") => {
            let tls =
                if said.contains("no encryption") { ", or with TLS (sslmode=require)" } else { "" };
            unusable(format!(
                "Postgres at {server} does not let user {user:?} into database {database:?} from here ({said}); add a \
                 line to its pg_hba.conf, or connect as somebody else{tls}"
            ))
        }
        "28000" => wrong(format!(
            "Postgres at {server} does not let user {user:?} in ({said}); check the user in --database, and the \
             server's pg_hba.conf"
        )),
        "3D000" => no_database(server),
        _ if said.starts_with("no such database") => no_database(server),
        "42501" => unusable(format!(
            "Postgres at {server} does not let user {user:?} use database {database:?} ({said}); let it: GRANT CONNECT ON \
             DATABASE … TO …"
        )),
        "53300" => out_of_connections(server, said),
        _ if pooler_is_full => out_of_connections(server, said),
        "57P03" if said.contains("shutting down") => shuts_down(server),
        "57P01" | "57P02" => shuts_down(server),
        "57P03" => passes(format!(
            "Postgres at {server} takes no connections yet ({said}); it is starting or recovering, try again in a moment"
        )),
        "25006" => read_only(server),
        "0A000" if said.contains("unsupported frontend protocol") => {
            unusable(format!("Postgres at {server} is too old for this Darkroom ({said})"))
        }
        state if ["08", "53", "57", "58"].iter().any(|class| state.starts_with(class)) => {
            passes(format!(
                "Postgres at {server} does not take the connection now ({said}; SQLSTATE {state})"
            ))
        }
        state => unusable(format!(
            "Postgres at {server} does not take the connection ({said}; SQLSTATE {state})"
        )),
    }
}

fn no_database(server: &Server) -> UserError {
    let database = server.database();
    let message = format!(
        "Postgres at {server} has no database {database:?}; create it (createdb {database}), or correct --database"
    );
    about_database(Code::NotFound, UNUSABLE, message)
}

fn out_of_connections(server: &Server, said: &str) -> UserError {
    passes(format!(
        "Postgres at {server} has no connection left ({said}); raise its limit, or give each coordinator fewer with \
         --database-connections"
    ))
}

fn shuts_down(server: &Server) -> UserError {
    passes(format!("Postgres at {server} is shutting down; try again when it runs"))
}

/// A standby, or a server that was told to take no writes.
pub(super) fn read_only(server: &Server) -> UserError {
    unusable(format!(
        "database {:?} at {server} is read-only (a standby?); name the primary in --database, or all servers \
         (host1,host2)",
        server.database()
    ))
}

fn no_tls(server: &Server, said: &str) -> UserError {
    let mode = server.tls();
    if said.contains("does not support TLS") {
        return wrong(format!(
            "Postgres at {server} offers no TLS, and sslmode is {mode}; turn it on there (ssl = on), or use \
             sslmode=prefer"
        ));
    }
    if let Some(error) = certificate(server, said) {
        return error;
    }
    wrong(format!(
        "no TLS connection to Postgres at {server} with sslmode {mode} ({said}); check the server's certificate, and \
         sslrootcert in --database"
    ))
}

/// What is wrong with the server's certificate, if that is what rustls says.
fn certificate(server: &Server, said: &str) -> Option<UserError> {
    let said = said.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let told = |what: &str| format!("the certificate of Postgres at {server} {what}");
    // Another authority of the same name signs so that nothing fits.
    if has(&["unknownissuer", "unknown issuer", "badsignature"]) {
        return Some(wrong(told(
            "is signed by nobody who is trusted here; name the file of its authority with sslrootcert in --database",
        )));
    }
    if has(&["not valid for name", "notvalidforname"]) {
        return Some(wrong(told(
            "is for another host; name the server in --database as its certificate does, or let it be any host's with \
             sslmode=verify-ca",
        )));
    }
    if has(&["expired"]) {
        return Some(unusable(told(
            "has expired; have it renewed, or correct the clock of this machine",
        )));
    }
    if has(&["not valid yet", "notvalidyet"]) {
        return Some(unusable(told(
            "is not valid yet; correct the clock of this machine, or have another made",
        )));
    }
    if has(&["causedasendentity"]) {
        return Some(unusable(told(
            "is an authority's (CA:TRUE), which no server's may be; have one made for the server",
        )));
    }
    None
}

async fn unreachable(server: &Server, error: &io::Error) -> UserError {
    use io::ErrorKind as Kind;
    if server.socket().is_some() {
        return match error.kind() {
            Kind::NotFound => passes(format!(
                "there is no socket {server}; check its folder and port in --database, and that Postgres runs"
            )),
            Kind::PermissionDenied => {
                unusable(format!("this user may not open the socket {server}; let it"))
            }
            Kind::ConnectionRefused => passes(format!(
                "nobody listens on the socket {server}; start Postgres, or check --database"
            )),
            _ => passes(format!("Postgres at {server} cannot be reached ({error})")),
        };
    }
    match error.kind() {
        Kind::ConnectionRefused => passes(format!(
            "nothing listens at {server}, where Postgres should be; start it, or correct host and port in --database"
        )),
        Kind::UnexpectedEof
        | Kind::ConnectionReset
        | Kind::BrokenPipe
        | Kind::ConnectionAborted => ended(server, &error.to_string()).await,
        // It is a file that was not found, not a host.
        Kind::NotFound => wrong(format!(
            "a file of certificates for Postgres at {server} is not there; check sslrootcert, sslcert and sslkey in --database"
        )),
        // rustls reports errors about certificates with this kind.
        Kind::InvalidData if !matches!(server.options.get_ssl_mode(), PgSslMode::Disable) => {
            // Anything that answers our request for TLS with an S can cause the same error.
            match stranger(server).await {
                Some(what) => not_postgres(server, what),
                None => no_tls(server, &error.to_string()),
            }
        }
        Kind::TimedOut | Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => {
            passes(format!("{server}, where Postgres should be, cannot be reached ({error})"))
        }
        _ => match resolved(server).await {
            Some(error) => unknown_host(server, &error),
            None => passes(format!("Postgres at {server} cannot be reached ({error})")),
        },
    }
}

/// The error for a connection that ended without an answer from Postgres.
async fn ended(server: &Server, said: &str) -> UserError {
    match stranger(server).await {
        Some(what) => not_postgres(server, what),
        None => passes(format!(
            "who answers at {server} ends the connection at once ({said}); a Postgres that stops, a proxy whose Postgres is \
             gone, or no Postgres at all"
        )),
    }
}

/// Why the host has no address, if that is so.
async fn resolved(server: &Server) -> Option<io::Error> {
    let place = (server.options.get_host().to_owned(), server.options.get_port());
    tokio::net::lookup_host(place).await.err()
}

fn unknown_host(server: &Server, error: &io::Error) -> UserError {
    let host = server.options.get_host();
    // A name server that is out of reach says so; any other says that there is no such name.
    if error.to_string().contains("Temporary") {
        return passes(format!(
            "host {host:?} cannot be looked up now ({error}); try again in a moment"
        ));
    }
    wrong(format!("host {host:?} is not known ({error}); check the host in --database"))
}

fn not_postgres(server: &Server, what: &str) -> UserError {
    wrong(format!(
        "what answers at {server} is {what}, not Postgres; check host and port in --database"
    ))
}

/// Who else answers there. A line of HTTP makes each of those say something by which it is known; a
/// Postgres closes.
async fn stranger(server: &Server) -> Option<&'static str> {
    if server.socket().is_some() {
        return None;
    }
    let place = (server.options.get_host().to_owned(), server.options.get_port());
    let ask = async {
        let mut stream = TcpStream::connect(place).await?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        let mut answer = vec![0; 16];
        let mut filled = 0;
        while let Some(room) = answer.get_mut(filled..).filter(|room| !room.is_empty()) {
            match stream.read(room).await {
                Ok(read @ 1..) => filled += read,
                _ => break,
            }
            if filled >= 5 {
                break;
            }
        }
        answer.truncate(filled);
        Ok::<_, io::Error>(answer)
    };
    let answer = timeout(LOOK, ask).await.ok()?.ok()?;
    match answer.as_slice() {
        [b'H', b'T', b'T', b'P', ..] => Some("an HTTP server"),
        [b'+' | b'-', ..] => Some("a Redis"),
        // The settings frame that an HTTP/2 server begins with.
        [0, 0, _, 4, ..] => Some("an HTTP/2 server (a coordinator?)"),
        [0x15, 3, ..] => Some("a TLS server"),
        [b'S', b'S', b'H', ..] => Some("an SSH server"),
        [_, 0, 0, 0, 10, ..] => Some("a MySQL or MariaDB"),
        [] => None,
        [b'E', ..] => None,
        _ => Some("something that speaks another protocol"),
    }
}
