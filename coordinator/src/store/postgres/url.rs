//! The job store's URL: one server, or several of which one takes writes.
//!
//! `postgres://user:password@one:5432,two:5433/database?target_session_attrs=read-write`, as libpq
//! understands it. We parse it ourselves, because sqlx supports one host only. Each server becomes
//! sqlx's options. Errors name parameters; they show a value only if it cannot contain a secret.

use std::{fmt, str::FromStr, time::Duration};

use darkroom_core::error::UserError;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// Default time to connect to one server.
const CONNECT: Duration = Duration::from_secs(5);
/// Most servers of one URL.
const MOST: usize = 16;
/// Statements that a connection keeps prepared.
const STATEMENTS: usize = 300;
/// Default `application_name` in the server's views.
const NAME: &str = "darkroom";
const FORM: &str = "postgres://user:password@host:port/database";

/// The parsed URL.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) servers: Vec<Server>,
    /// Longest time to connect to one of them.
    pub(super) connect: Duration,
}

/// One server and how to connect to it. Its `Debug` shows no password.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) options: PgConnectOptions,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where it is: `host:port`, `[::1]:port`, or the path of its socket.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (self.options.get_host(), self.options.get_port());
        match self.socket() {
            Some(folder) => write!(f, "{folder}/.s.PGSQL.{port}"),
            None if host.contains(':') => write!(f, "[{host}]:{port}"),
            None => write!(f, "{host}:{port}"),
        }
    }
}

impl Server {
    /// The folder of its socket, if it is reached through one.
    pub(super) fn socket(&self) -> Option<String> {
        match self.options.get_socket() {
            Some(folder) => Some(folder.to_string_lossy().into_owned()),
            None => Some(self.options.get_host())
                .filter(|host| host.starts_with('/'))
                .map(str::to_owned),
        }
    }

    pub(super) fn user(&self) -> &str {
        self.options.get_username()
    }

    pub(super) fn database(&self) -> &str {
        self.options.get_database().unwrap_or(self.options.get_username())
    }

    /// Its `sslmode`, as a URL spells it.
    pub(super) fn tls(&self) -> &'static str {
        match self.options.get_ssl_mode() {
            PgSslMode::Disable => "disable",
            PgSslMode::Allow => "allow",
            PgSslMode::Prefer => "prefer",
            PgSslMode::Require => "require",
            PgSslMode::VerifyCa => "verify-ca",
            PgSslMode::VerifyFull => "verify-full",
        }
    }
}

/// The parts of a URL before they are put together.
#[derive(Default)]
struct Parts {
    hosts: Vec<String>,
    ports: Vec<Option<u16>>,
    /// Parameters for sqlx, in its spelling.
    told: Vec<(String, String)>,
    connect: Option<Duration>,
}

/// Reads a URL.
///
/// # Errors
/// One sentence about the field `database`, without the password.
pub(super) fn parse(url: &str) -> Result<Target, UserError> {
    let rest = ["postgres://", "postgresql://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    let rest = rest.ok_or_else(|| refused("it names another kind of store", FORM))?;
    if rest.chars().any(|c| c.is_control()) {
        return Err(refused("it holds a control character", FORM));
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    if path.contains(['@', '#'])
        || query.contains('#')
        || (query.contains('@') && !authority.contains('@'))
    {
        return Err(refused(
            "a /, ?, # or @ stands where none can",
            "a password with these written as %2F, %3F, %23 and %40",
        ));
    }
    let mut parts = Parts::default();
    let hosts = match authority.rsplit_once('@') {
        None => authority,
        Some((userinfo, hosts)) => {
            let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
            parts.tell("user", &decoded("the user", user)?);
            parts.tell("password", &decoded("the password", password)?);
            hosts
        }
    };
    if !hosts.is_empty() {
        for host in hosts.split(',') {
            let (host, port) = host_and_port(host)?;
            parts.hosts.push(host);
            parts.ports.push(port);
        }
    }
    parts.tell("dbname", &decoded("the database", path.strip_prefix('/').unwrap_or(path))?);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = decoded("a parameter", key)?;
        let value = decoded(&key, value)?;
        parts.parameter(&key, &value)?;
    }
    parts.target()
}

impl Parts {
    /// An empty value means the same as none, as in libpq.
    fn tell(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.told.push((key.to_owned(), value.to_owned()));
        }
    }

    fn parameter(&mut self, key: &str, value: &str) -> Result<(), UserError> {
        let one_of = |values: &[&str]| {
            let good = value.is_empty() || values.contains(&value);
            good.then_some(())
                .ok_or_else(|| refused(&format!("{key} is {value:?}"), &values.join(", ")))
        };
        match key {
            "host" | "hostaddr" if !value.is_empty() => {
                self.hosts = value.split(',').map(|host| unbracketed(host).to_owned()).collect();
            }
            "port" if !value.is_empty() => {
                self.ports = value.split(',').map(port).collect::<Result<_, _>>()?;
            }
            "target_session_attrs" => one_of(&["read-write", "primary", "any"])?,
            "load_balance_hosts" => one_of(&["disable"])?,
            "gssencmode" => one_of(&["disable", "prefer"])?,
            "channel_binding" => one_of(&["disable", "prefer"])?,
            "sslmode" => {
                one_of(&["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])?;
                self.tell(key, value);
            }
            // Without it, the system's certificates are used anyway.
            "sslrootcert" if value == "system" => {}
            "user" | "password" | "dbname" | "application_name" | "options" | "sslrootcert"
            | "sslcert" | "sslkey" => self.tell(key, value),
            "connect_timeout" => {
                let seconds: i64 = value.parse().map_err(|_| {
                    refused(&format!("connect_timeout is {value:?}"), "whole seconds")
                })?;
                // In libpq, 0 and less means no limit. That suits a person, not a service.
                self.connect = u64::try_from(seconds)
                    .ok()
                    .filter(|&seconds| seconds > 0)
                    .map(|seconds| Duration::from_secs(seconds.clamp(2, 300)));
            }
            // These values change nothing for us.
            "host"
            | "hostaddr"
            | "port"
            | "fallback_application_name"
            | "tcp_user_timeout"
            | "sslsni"
            | "sslcompression" => {}
            key if key.starts_with("keepalives") => {}
            key => {
                return Err(refused(
                    &format!("it has a parameter {key:?}, which is not known"),
                    "host, port, user, password, dbname, sslmode, sslrootcert, sslcert, sslkey, application_name, \
                     options, connect_timeout, target_session_attrs",
                ));
            }
        }
        Ok(())
    }

    fn target(self) -> Result<Target, UserError> {
        let ports = match (self.ports.as_slice(), self.hosts.len().max(1)) {
            ([], hosts) => vec![None; hosts],
            (&[port], hosts) => vec![port; hosts],
            (ports, hosts) if ports.len() == hosts => ports.to_vec(),
            (ports, hosts) => {
                let counts = format!("it has {hosts} hosts and {} ports", ports.len());
                return Err(refused(&counts, "one port for all, or one for each host"));
            }
        };
        if ports.len() > MOST {
            return Err(refused(
                &format!("it has {} hosts", ports.len()),
                &format!("at most {MOST}"),
            ));
        }
        let mut hosts: Vec<Option<String>> = self.hosts.into_iter().map(Some).collect();
        if hosts.is_empty() {
            // sqlx's own: PGHOST, the usual folder of sockets, or this machine.
            hosts.push(None);
        }
        let server = |(host, port): (Option<String>, Option<u16>)| {
            let mut url = format!("postgres:///?application_name={NAME}&");
            let told = self.told.iter().map(|(key, value)| (key.as_str(), value.clone()));
            let place = host.map(|host| ("host", host)).into_iter();
            let port = port.map(|port| ("port", port.to_string()));
            for (key, value) in told.chain(place).chain(port) {
                url += &format!("{key}={}&", encoded(&value));
            }
            let options = PgConnectOptions::from_str(&url)
                .map_err(|error| refused(&error.to_string(), FORM))?;
            // A pooler refuses a connection with settings that it does not know. This setting
            // changes nothing for us.
            let options = options.extra_float_digits(None).statement_cache_capacity(STATEMENTS);
            Ok(Server { options })
        };
        let servers = hosts.into_iter().zip(ports).map(server).collect::<Result<_, UserError>>()?;
        Ok(Target { servers, connect: self.connect.unwrap_or(CONNECT) })
    }
}

fn refused(why: &str, accepted: &str) -> UserError {
    UserError::invalid(
        "database",
        format!("the job store's URL cannot be read: {why}; accepted: {accepted}"),
    )
}

/// `host`, `host:port`, `[::1]:port`, `%2Frun%2Fpostgresql`.
fn host_and_port(text: &str) -> Result<(String, Option<u16>), UserError> {
    let (host, number) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) =
                rest.split_once(']').ok_or_else(|| refused("a [ is not closed", "[::1]:5432"))?;
            if !(rest.is_empty() || rest.starts_with(':')) {
                return Err(refused("something follows a ]", "[::1]:5432"));
            }
            (host, rest.strip_prefix(':').unwrap_or(""))
        }
        None if text.matches(':').count() > 1 => {
            return Err(refused(
                "a host has several colons",
                "an IPv6 address in brackets ([::1]:5432), a password's @ written %40",
            ));
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let host = decoded("a host", host)?;
    if host.is_empty() || host.chars().any(|c| c.is_whitespace()) {
        return Err(refused("a host is empty or holds a space", FORM));
    }
    Ok((host, port(number)?))
}

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Errors do not show a wrong port, because it may be a part of the password.
fn port(text: &str) -> Result<Option<u16>, UserError> {
    match text {
        "" => Ok(None),
        text => match text.parse() {
            Ok(port @ 1..) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(Some(port)),
            _ => Err(refused(
                "a port is none",
                "1 to 65535 (and a password's special characters as %40, %2F and so on)",
            )),
        },
    }
}

/// Undoes `%40` and the like.
fn decoded(what: &str, text: &str) -> Result<String, UserError> {
    let wrong =
        || refused(&format!("{what} holds a % that begins no character"), "% written as %25");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or_else(wrong)?;
        let digits = std::str::from_utf8(digits)
            .ok()
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        bytes
            .push(digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or_else(wrong)?);
        rest = after;
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    if text.contains('\0') { Err(wrong()) } else { Ok(text) }
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(url: &str) -> Vec<String> {
        let target = parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        target.servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_way_to_name_servers_is_read() {
        for (url, expected) in [
            ("postgres://u:p@db/farm", &["db:5432"][..]),
            ("postgresql://u:p@db:6543/farm", &["db:6543"]),
            (
                "postgres://u:p@one:5432,two:5433/farm?target_session_attrs=read-write",
                &["one:5432", "two:5433"],
            ),
            (
                "postgres://u:p@one,two,three/farm?port=7000",
                &["one:7000", "two:7000", "three:7000"],
            ),
            (
                "postgres://u:p@[::1]:5433,[fe80::1%25eth0]/farm",
                &["[::1]:5433", "[fe80::1%eth0]:5432"],
            ),
            ("postgres://u:p@%2Frun%2Fpostgresql:5433/farm", &["/run/postgresql/.s.PGSQL.5433"]),
            ("postgres://u:p@/farm?host=/run/postgresql", &["/run/postgresql/.s.PGSQL.5432"]),
            ("postgres:///farm?host=a,b&port=1,2&user=u", &["a:1", "b:2"]),
            ("postgres:///farm?host=[::1],::2&port=1", &["[::1]:1", "[::2]:1"]),
            ("postgres://u@a:,b:/farm?keepalives_idle=3&gssencmode=disable", &["a:5432", "b:5432"]),
        ] {
            assert_eq!(servers(url), expected, "{url}");
        }
    }

    #[test]
    fn users_passwords_and_databases_arrive_whole_and_are_not_shown() {
        let target =
            parse("postgres://me%40corp:a%20p:@%2F%25%26+%3D@one,two/my%20farm?connect_timeout=9")
                .expect("a URL");
        assert_eq!(target.connect, Duration::from_secs(9));
        for server in &target.servers {
            assert_eq!((server.user(), server.database()), ("me@corp", "my farm"));
            // sqlx gives no password back but in its URL.
            let url = sqlx::ConnectOptions::to_url_lossy(&server.options).to_string();
            assert!(url.contains(":a%20p%3A%40%2F%25%26%2B%3D@"), "{url}");
        }
        assert!(!format!("{target:?}").contains("a p"), "{target:?}");
    }

    #[test]
    fn what_cannot_be_read_is_refused_in_a_sentence_without_the_password() {
        for (url, said) in [
            ("mysql://u:s3cret@db/farm", "another kind of store"),
            ("postgres://u:s3cret/x@db/farm", "%2F"),
            ("postgres://u:s3cret?x@db/farm", "%2F"),
            ("postgres://u:s3cret#x@db/farm", "%23"),
            ("postgres://u:s3cret%zz@db/farm", "%25"),
            ("postgres://u:s3cret@db:65536/farm", "1 to 65535"),
            ("postgres://u:s3cret@db:0/farm", "1 to 65535"),
            ("postgres://u:s3cret@db:x/farm", "1 to 65535"),
            ("postgres://u:s3cret@::1:5432/farm", "in brackets"),
            ("postgres://u:s3cret@[::1/farm", "not closed"),
            ("postgres://u:s3cret@one,,two/farm", "a host is empty"),
            ("postgres://u:s3cret@one,two,three/farm?port=1,2", "3 hosts and 2 ports"),
            (
                "postgres://u:s3cret@db/farm?target_session_attrs=standby",
                "read-write, primary, any",
            ),
            ("postgres://u:s3cret@db/farm?sslmode=sometimes", "verify-full"),
            ("postgres://u:s3cret@db/farm?pgbouncer=true", "\"pgbouncer\", which is not known"),
            ("postgres://u:s3cret@db/farm?passwd=s3cret", "\"passwd\", which is not known"),
            ("postgres://u:s3cret@db/farm?channel_binding=require", "disable, prefer"),
            ("postgres://u:s3cret@db/farm?connect_timeout=soon", "whole seconds"),
            ("postgres://u:s3cret@db/fa\nrm", "control character"),
        ] {
            let error = parse(url).expect_err(url);
            assert_eq!(
                (error.field.as_deref(), error.code.exit_code()),
                (Some("database"), 2),
                "{url}"
            );
            let message = error.message;
            assert!(message.contains(said) && message.contains("accepted:"), "{url}: {message}");
            assert!(!message.contains("s3cret") && !message.contains('\n'), "{url}: {message}");
        }
    }
}
