//! The servers of the URL, and the one that takes writes now. It is searched when the store is
//! opened, and again whenever it fails.
//!
//! If several take writes, the one on the newest timeline is chosen. Every promotion raises the
//! timeline. So an old primary that comes back gets no writes while its successor can be reached. A
//! server with another database is never chosen.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use darkroom_core::error::{Code, UserError};
use futures::future::join_all;
use sqlx::{ConnectOptions as _, PgConnection, PgPool};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    Options, session,
    session::Facts,
    url::{Server, Target},
    why,
};

/// How often the chosen server is asked whether it still takes writes, if there are others.
const ASK: Duration = Duration::from_millis(500);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(3);
/// How often all servers are checked although the chosen one works.
const LOOK_ROUND: Duration = Duration::from_secs(10);

/// The servers of one URL, with the one in use.
#[derive(Debug)]
pub(super) struct Servers {
    target: Target,
    options: Options,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    chosen: usize,
    /// The database, once it is known.
    identity: Option<String>,
    /// The newest timeline that was seen.
    timeline: u32,
    switched: Instant,
    /// The pools that must follow a switch.
    pools: Vec<PgPool>,
    keeper: Option<JoinHandle<()>>,
}

/// A server that was reached.
struct Reached {
    index: usize,
    connection: PgConnection,
    facts: Facts,
    identity: String,
    timeline: u32,
}

/// A server that takes writes, and a connection to it.
pub(super) struct Found {
    pub(super) connection: PgConnection,
    pub(super) facts: Facts,
    pub(super) identity: String,
}

impl Servers {
    pub(super) fn new(target: Target, options: Options) -> Self {
        let state = State {
            chosen: 0,
            identity: None,
            timeline: 0,
            switched: Instant::now(),
            pools: Vec::new(),
            keeper: None,
        };
        Self { target, options, state: Mutex::new(state) }
    }

    /// Longest time to connect to a server.
    pub(super) fn patience(&self) -> Duration {
        self.target.connect
    }

    /// The server that takes writes, as last known.
    pub(super) fn chosen(&self) -> &Server {
        let chosen = self.state().chosen;
        self.target.servers.get(chosen).unwrap_or(&self.target.servers[0])
    }

    /// Whether a connection of this age leads to a server that is no longer the chosen one.
    pub(super) fn left_since(&self, age: Duration) -> bool {
        self.target.servers.len() > 1 && age > self.state().switched.elapsed()
    }

    /// Finds the server to write to.
    ///
    /// # Errors
    /// Why there is none, with the cause of each server.
    pub(super) async fn find(&self) -> Result<Found, UserError> {
        let looks = (0..self.target.servers.len()).map(|index| self.look(index));
        let looked = join_all(looks).await;
        let (mut reached, mut failed) = (Vec::new(), Vec::new());
        for (server, looked) in self.target.servers.iter().zip(looked) {
            match looked {
                Ok(found) => reached.push(found),
                Err(error) => failed.push((server, error)),
            }
        }
        self.same_database(&mut reached, &mut failed)?;
        let (chosen, timeline) = self.known();
        // A standby is a copy, and not to be written to; nor is a primary that another one has
        // replaced.
        let (mut writable, standing): (Vec<Reached>, Vec<Reached>) =
            reached.into_iter().partition(|one| {
                !one.facts.read_only && (one.timeline == 0 || one.timeline >= timeline)
            });
        let newest = writable.iter().map(|one| one.timeline).max();
        let rank = |one: &Reached| (Some(one.timeline) != newest, one.index != chosen, one.index);
        for one in standing {
            let Some(server) = self.target.servers.get(one.index) else { continue };
            let error = if one.facts.read_only {
                why::read_only(server)
            } else {
                why::unusable(format!(
                    "{server} is a primary that another server has replaced (its timeline is {}, and {timeline} was \
                     seen); make it a standby of the new one, or take it out of --database",
                    one.timeline
                ))
            };
            failed.push((server, error));
            session::end(one.connection).await;
        }
        writable.sort_by_key(rank);
        let mut writable = writable.into_iter();
        let Some(best) = writable.next() else {
            return Err(none_of(failed, self.target.servers.len()));
        };
        for other in writable {
            if let Some(server) = self.target.servers.get(other.index) {
                tracing::warn!(%server, "a second Postgres of the list takes writes: one of the two is to be a standby");
            }
            session::end(other.connection).await;
        }
        self.choose(&best);
        Ok(Found { connection: best.connection, facts: best.facts, identity: best.identity })
    }

    /// Connects to one server and asks what it is.
    async fn look(&self, index: usize) -> Result<Reached, UserError> {
        let Some(server) = self.target.servers.get(index) else {
            return Err(why::unusable("there is no such server"));
        };
        let several = self.target.servers.len() > 1;
        let asking = async {
            let mut connection = server.options.connect().await?;
            let facts = session::ask(&mut connection).await?;
            let fit = facts.check(server, self.options.wanted).and_then(|()| {
                if facts.read_only && !several { Err(why::read_only(server)) } else { Ok(()) }
            });
            if let Err(error) = fit {
                session::end(connection).await;
                return Ok(Err(error));
            }
            let identity = session::identity(&mut connection).await;
            Ok::<_, sqlx::Error>(Ok((connection, facts, identity)))
        };
        let (connection, facts, identity) = match timeout(self.target.connect, asking).await {
            Ok(Ok(asked)) => asked?,
            Ok(Err(error)) => return Err(why::cannot_connect(server, &error).await),
            Err(_) => return Err(why::silent(server, self.target.connect).await),
        };
        let (identity, timeline) = identity.map_err(|error| {
            why::unusable(format!(
                "Postgres at {server} does not say which database it is ({error}); let user {:?} call pg_control_system()",
                server.user()
            ))
        })?;
        Ok(Reached { index, connection, facts, identity, timeline })
    }

    /// Removes servers with another database than the known one. If none is known yet, all must
    /// have the same.
    fn same_database<'a>(
        &'a self,
        reached: &mut Vec<Reached>,
        failed: &mut Vec<(&'a Server, UserError)>,
    ) -> Result<(), UserError> {
        let servers = &self.target.servers;
        let known = self.state().identity.clone();
        let Some(expected) =
            known.clone().or_else(|| reached.first().map(|first| first.identity.clone()))
        else {
            return Ok(());
        };
        let strange: Vec<usize> =
            reached.iter().filter(|one| one.identity != expected).map(|one| one.index).collect();
        for server in strange.iter().filter_map(|index| servers.get(*index)) {
            let error = why::unusable(format!(
                "{server} holds another database than the other servers in --database: they are to be one primary and its \
                 standbys"
            ));
            if known.is_none() {
                return Err(error);
            }
            failed.push((server, error));
        }
        reached.retain(|one| one.identity == expected);
        Ok(())
    }

    fn known(&self) -> (usize, u32) {
        let state = self.state();
        (state.chosen, state.timeline)
    }

    /// Switches the pools to a server. Connections to another server are closed when they are
    /// returned.
    fn choose(&self, best: &Reached) {
        let mut state = self.state();
        state.timeline = state.timeline.max(best.timeline);
        let first = state.identity.is_none();
        state.identity.get_or_insert_with(|| best.identity.clone());
        if state.chosen == best.index {
            return;
        }
        state.chosen = best.index;
        state.switched = Instant::now();
        let Some(server) = self.target.servers.get(best.index) else { return };
        for pool in &state.pools {
            pool.set_connect_options(server.options.clone());
        }
        drop(state);
        if !first {
            tracing::warn!(%server, "writes to another Postgres from now on");
        }
    }

    /// Adds a pool, which will follow every switch. The first pool starts the watch of the servers.
    pub(super) fn serve(self: &Arc<Self>, pool: &PgPool) {
        let mut state = self.state();
        state.pools.push(pool.clone());
        if self.target.servers.len() > 1 && state.keeper.is_none() {
            state.keeper = Some(tokio::spawn(keep(Arc::clone(self))));
        }
    }

    /// Removes a pool. After the last one the watch ends.
    pub(super) fn leave(&self, pool: &PgPool) {
        let mut state = self.state();
        let options = std::ptr::from_ref(pool.options());
        state.pools.retain(|one| !std::ptr::eq(one.options(), options));
        if state.pools.is_empty()
            && let Some(keeper) = state.keeper.take()
        {
            keeper.abort();
        }
    }

    /// Why no connection can be opened now; `None` if one can.
    pub(super) async fn diagnose(&self) -> Option<UserError> {
        let found = match self.find().await {
            Ok(found) => found,
            Err(error) => return Some(error),
        };
        let mut connection = found.connection;
        let prepared = session::prepare(&mut connection, self.chosen(), &self.options).await;
        session::end(connection).await;
        match prepared {
            Ok(()) => None,
            Err(error) => Some(error.told(self.chosen()).await),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches the chosen server and looks for another one when it fails.
async fn keep(servers: Arc<Servers>) {
    let mut kept: Option<PgConnection> = None;
    let mut looked = Instant::now();
    let mut told = false;
    loop {
        sleep(ASK).await;
        let well = match &mut kept {
            Some(connection) => {
                matches!(timeout(ANSWER, session::writable(connection)).await, Ok(Ok(true)))
            }
            None => false,
        };
        if well && looked.elapsed() < LOOK_ROUND {
            continue;
        }
        looked = Instant::now();
        match servers.find().await {
            Ok(found) => {
                kept = Some(found.connection);
                told = false;
            }
            Err(error) => {
                kept = None;
                if !told {
                    tracing::error!(error = %error.message, "no Postgres takes writes; it is looked for");
                }
                told = true;
            }
        }
    }
}

fn none_of(mut failed: Vec<(&Server, UserError)>, servers: usize) -> UserError {
    if servers == 1
        && let Some((_, error)) = failed.pop()
    {
        return error;
    }
    let each: Vec<&str> = failed.iter().map(|(_, error)| error.message.as_str()).collect();
    let each = each.join("; ");
    // A promotion may be under way.
    let standby = failed.iter().any(|(_, error)| error.message.contains("read-only"));
    let passes = standby || failed.iter().any(|(_, error)| error.code == Code::Unavailable);
    let message = format!("none of the {servers} servers in --database takes writes: {each}");
    if passes { why::passes(message) } else { why::unusable(message) }
}
