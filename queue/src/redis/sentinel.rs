//! Sentinels: servers that watch a Redis and its replicas and know which of them is the master now.
//!
//! They are asked for every new connection, shared or dedicated, so that a failover is handled like
//! any lost connection. Before the named server is used, it is asked for its role: during a
//! failover the Sentinels may still name the old master.

use std::fmt;

use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, RedisResult,
    TlsMode,
    sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
};

use super::{address::shown, start_error::StartError};

/// Where the Sentinels are, and which master they watch.
#[derive(Clone)]
pub(super) struct Sentinels {
    nodes: Vec<ConnectionInfo>,
    master: String,
    server: SentinelNodeConnectionInfo,
}

impl Sentinels {
    /// Parses what follows `redis+sentinel://` or `rediss+sentinel://`:
    /// `[user:password@]host[:port],…/master[/number][?sentinel_user=…&sentinel_password=…]`. User,
    /// password and number are those of the server. The default port is 26379.
    pub(super) fn parse(scheme: &str, rest: &str) -> Result<Self, StartError> {
        let refused = |error: redis::RedisError| StartError::Url(error.to_string());
        let unclear = |what: &str| StartError::Url(what.to_owned());
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (format!("{user}@"), rest),
            None => (String::new(), rest),
        };
        let (nodes, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (master, number) = path.split_once('/').unwrap_or((path, ""));
        if master.is_empty() {
            return Err(unclear(
                "the name of the master that the Sentinels watch is missing after their addresses",
            ));
        }
        // The server's own address is not known yet. Any host works for parsing user, password and
        // number.
        let server =
            format!("{scheme}://{user}server/{number}").into_connection_info().map_err(refused)?;
        let own = own_login(query)?;
        let mut sentinels = Vec::new();
        for node in nodes.split(',') {
            if node.is_empty() {
                return Err(unclear("the address of a Sentinel is empty"));
            }
            let node = if has_port(node) { node.to_owned() } else { format!("{node}:26379") };
            let info = format!("{scheme}://{node}").into_connection_info().map_err(refused)?;
            sentinels.push(info.set_redis_settings(own.clone()));
        }
        let secure = matches!(server.addr(), ConnectionAddr::TcpTls { .. });
        let mut info = SentinelNodeConnectionInfo::default()
            .set_redis_connection_info(server.redis_settings().clone());
        if secure {
            info = info.set_tls_mode(TlsMode::Secure);
        }
        Ok(Self { nodes: sentinels, master: master.to_owned(), server: info })
    }

    /// A client of the master, whose role has been checked.
    pub(super) async fn master(&self) -> RedisResult<Client> {
        let mut client = SentinelClient::build(
            self.nodes.clone(),
            self.master.clone(),
            Some(self.server.clone()),
            SentinelServerType::Master,
        )?;
        client.async_get_client().await
    }
}

/// User and password of the Sentinels themselves.
fn own_login(query: &str) -> Result<RedisConnectionInfo, StartError> {
    let mut login = RedisConnectionInfo::default();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        login = match name.as_ref() {
            "sentinel_user" => login.set_username(value),
            "sentinel_password" => login.set_password(value),
            name => {
                return Err(StartError::Url(format!(
                    "the option {name:?} is not known; \
                     accepted after '?': sentinel_user, sentinel_password"
                )));
            }
        };
    }
    Ok(login)
}

fn has_port(node: &str) -> bool {
    match node.rsplit_once(']') {
        Some((_, after)) => after.starts_with(':'),
        None => node.contains(':'),
    }
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<String> = self.nodes.iter().map(|node| shown(node.addr())).collect();
        write!(f, "{} of the Sentinels at {}", self.master, nodes.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(rest: &str) -> Result<String, String> {
        match Sentinels::parse("redis", rest) {
            Ok(sentinels) => Ok(sentinels.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn an_address_is_read_and_shown_without_its_passwords() {
        for (rest, says) in [
            ("a,b:1,[::1]/farm", "farm of the Sentinels at a:26379,b:1,[::1]:26379"),
            (
                "u:p%40ss@a:26380/farm/3?sentinel_password=secret",
                "farm of the Sentinels at a:26380",
            ),
        ] {
            assert_eq!(parsed(rest).as_deref(), Ok(says));
        }
        let sentinels =
            Sentinels::parse("redis", "u:p%40ss@a/farm/3?sentinel_user=s&sentinel_password=x%26y");
        let sentinels = sentinels.map_err(|error| error.to_string()).expect("understood");
        let own = sentinels.nodes[0].redis_settings();
        assert_eq!((own.username(), own.password(), own.db()), (Some("s"), Some("x&y"), 0));
    }

    #[test]
    fn an_address_that_lacks_something_is_refused_by_what_it_lacks() {
        for (rest, says) in [
            ("a:1", "name of the master"),
            ("a:1/", "name of the master"),
            ("a,,b/farm", "is empty"),
            ("a/farm?password=x", "sentinel_password"),
            ("a/farm/x", "number"),
        ] {
            let error = parsed(rest).expect_err(rest);
            assert!(error.contains(says), "{rest}: {error}");
        }
    }
}
