//! Where Redis is: one server, a cluster, or the server that Sentinels call the master.

use std::{fmt, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, RedisResult, Value,
    aio::MultiplexedConnection,
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
};

use super::{address::shown, sentinel::Sentinels, start_error::StartError};

/// A parsed address.
#[derive(Clone)]
pub(super) enum Target {
    Server(Box<Client>),
    Cluster(Vec<redis::ConnectionInfo>),
    Sentinels(Box<Sentinels>),
}

/// One connection, or one per node of a cluster. Clones share it.
#[derive(Clone)]
pub(super) enum Channel {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, StartError> {
        if url.starts_with("rediss") {
            // A program that links both providers of rustls must choose one. Choosing a second time
            // is no error.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let refused = |error: redis::RedisError| StartError::Url(error.to_string());
        if let Some((scheme, rest)) = url.split_once("+sentinel://") {
            return Ok(Self::Sentinels(Box::new(Sentinels::parse(scheme, rest)?)));
        }
        let Some((scheme, rest)) = url.split_once("+cluster://") else {
            return Ok(Self::Server(Box::new(Client::open(url).map_err(refused)?)));
        };
        // User and password are written once, before the first node, and apply to all nodes.
        let (user, nodes) = rest.rsplit_once('@').map_or(("", rest), |(user, nodes)| (user, nodes));
        let at = if user.is_empty() { "" } else { "@" };
        let nodes = nodes.trim_end_matches('/').split(',');
        let nodes = nodes.map(|node| format!("{scheme}://{user}{at}{node}").into_connection_info());
        Ok(Self::Cluster(nodes.collect::<RedisResult<_>>().map_err(refused)?))
    }

    /// Connects. The caller limits the time of commands.
    pub(super) async fn connect(&self, within: Duration) -> RedisResult<Channel> {
        match self {
            Self::Server(client) => server(client, within).await,
            Self::Sentinels(sentinels) => server(&sentinels.master().await?, within).await,
            Self::Cluster(nodes) => {
                let client = cluster(nodes, within)?;
                Ok(Channel::Cluster(client.get_async_connection().await?))
            }
        }
    }
}

async fn server(client: &Client, within: Duration) -> RedisResult<Channel> {
    // Its own limit for answers is shorter than a blocking read.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(within))
        .set_response_timeout(None);
    Ok(Channel::Server(client.get_multiplexed_async_connection_with_config(&config).await?))
}

fn cluster(nodes: &[redis::ConnectionInfo], within: Duration) -> RedisResult<ClusterClient> {
    // The client itself retries when slots move, within the caller's time limit.
    ClusterClientBuilder::new(nodes.to_vec())
        .connection_timeout(within)
        .response_timeout(Duration::from_secs(3600))
        .retries(3)
        .build()
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(client) => f.write_str(&shown(client.get_connection_info().addr())),
            Self::Cluster(nodes) => {
                let nodes: Vec<String> = nodes.iter().map(|node| shown(node.addr())).collect();
                f.write_str(&nodes.join(","))
            }
            Self::Sentinels(sentinels) => sentinels.fmt(f),
        }
    }
}

impl Channel {
    pub(super) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Server(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }
}
