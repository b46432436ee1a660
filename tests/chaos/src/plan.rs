//! The order and times of faults, drawn from a seed so that a run can be repeated.

use std::time::Duration;

use fastrand::Rng;

/// A part of the farm that uses servers over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// The coordinators.
    Coordinators,
    /// The encoders.
    Encoders,
    /// The workers.
    Workers,
}

/// A server that a party talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    /// The queue.
    Redis,
    /// The record.
    Postgres,
    /// The artifacts.
    Storage,
    /// The coordinators, which encoders and workers ask when they join the farm.
    Coordinators,
}

/// A connection that can be cut.
pub const LINKS: [(Party, Server); 9] = [
    (Party::Coordinators, Server::Redis),
    (Party::Coordinators, Server::Postgres),
    (Party::Coordinators, Server::Storage),
    (Party::Encoders, Server::Redis),
    (Party::Encoders, Server::Storage),
    (Party::Workers, Server::Redis),
    (Party::Workers, Server::Storage),
    (Party::Encoders, Server::Coordinators),
    (Party::Workers, Server::Coordinators),
];

/// How object storage misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StorageFault {
    /// Answers 503.
    Errors,
    /// Does not answer.
    Silence,
    /// Ends bodies too early.
    ShortBodies,
    /// Has no space left: every write is refused.
    Full,
}

/// Where a farm keeps its artifacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Storage {
    /// On an S3 server, behind proxies like every server.
    S3,
    /// In a folder, which may become full. A folder needs no signatures, so workers' clocks may be
    /// wrong.
    Folder,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// SIGKILL of one process, which is started again.
    Kill(Party),
    /// SIGSTOP for longer than a lease, then SIGCONT.
    Freeze(Party),
    /// SIGKILL of the leader.
    KillLeader,
    /// SIGSTOP of the leader until another coordinator leads and for longer than its term, then
    /// SIGCONT.
    FreezeLeader,
    /// The leader is cut off from a server until another coordinator leads.
    IsolateLeader(Server),
    /// The artifacts' disk is full for a while.
    FullDisk,
    /// SIGTERM to every worker and encoder, several times; new ones replace them.
    TermStorm,
    /// FLUSHALL.
    FlushRedis,
    /// SIGKILL of Redis, which is started again empty.
    KillRedis,
    /// Redis is set back to the oldest snapshot that is kept, up to some minutes old.
    OldRedis,
    /// SIGKILL of Postgres, started again.
    KillPostgres,
    /// Object storage misbehaves for a while.
    Storage(StorageFault),
    /// A connection is cut for a while. If it is one to the coordinators, a process is killed too,
    /// so that it has to join over it.
    Cut(Party, Server),
    /// A connection stays open and carries nothing for a while. A process is killed as in
    /// [`Self::Cut`].
    Stall(Party, Server),
}

impl Fault {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Kill(party) => format!("kill {party:?}").to_lowercase(),
            Self::Freeze(party) => format!("freeze {party:?}").to_lowercase(),
            Self::KillLeader => "kill leader".to_owned(),
            Self::FreezeLeader => "freeze leader".to_owned(),
            Self::IsolateLeader(server) => format!("isolate leader-{server:?}").to_lowercase(),
            Self::FullDisk => "full disk".to_owned(),
            Self::TermStorm => "term storm".to_owned(),
            Self::FlushRedis => "flush redis".to_owned(),
            Self::KillRedis => "kill redis".to_owned(),
            Self::OldRedis => "old redis snapshot".to_owned(),
            Self::KillPostgres => "kill postgres".to_owned(),
            Self::Storage(fault) => format!("storage {fault:?}").to_lowercase(),
            Self::Cut(party, server) => format!("cut {party:?}-{server:?}").to_lowercase(),
            Self::Stall(party, server) => format!("stall {party:?}-{server:?}").to_lowercase(),
        }
    }

    /// Every fault that is possible with artifacts kept there, once.
    #[must_use]
    pub fn all(kind: Storage) -> Vec<Self> {
        let parties = [Party::Coordinators, Party::Encoders, Party::Workers];
        let storage = [
            StorageFault::Errors,
            StorageFault::Silence,
            StorageFault::ShortBodies,
            StorageFault::Full,
        ];
        let mut all = vec![
            Self::KillLeader,
            Self::FreezeLeader,
            Self::IsolateLeader(Server::Redis),
            Self::IsolateLeader(Server::Postgres),
            Self::TermStorm,
            Self::FlushRedis,
            Self::KillRedis,
            Self::OldRedis,
            Self::KillPostgres,
        ];
        all.extend(parties.map(Self::Kill));
        all.extend(parties.map(Self::Freeze));
        let links = LINKS
            .into_iter()
            .filter(|(_, server)| kind == Storage::S3 || *server != Server::Storage);
        all.extend(links.clone().map(|(party, server)| Self::Cut(party, server)));
        all.extend(links.map(|(party, server)| Self::Stall(party, server)));
        match kind {
            Storage::S3 => all.extend(storage.map(Self::Storage)),
            Storage::Folder => all.push(Self::FullDisk),
        }
        all
    }
}

/// A fault and the pause before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Time without a fault before it.
    pub pause: Duration,
    /// The fault.
    pub fault: Fault,
}

/// An endless sequence of faults: all of [`Fault::all`] in an order that the seed decides, then
/// again in another order. The old snapshot of Redis comes last each time, so that it is as old as
/// possible.
#[derive(Debug)]
pub struct Plan {
    rng: Rng,
    faults: Vec<Fault>,
    next: Vec<Fault>,
    longest_pause: Duration,
}

impl Plan {
    /// A plan over some faults.
    ///
    /// # Panics
    /// If there are none.
    #[must_use]
    pub fn new(seed: u64, faults: &[Fault], longest_pause: Duration) -> Self {
        assert!(!faults.is_empty(), "a plan needs faults");
        Self { rng: Rng::with_seed(seed), faults: faults.to_vec(), next: Vec::new(), longest_pause }
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.next.is_empty() {
            self.next.clone_from(&self.faults);
            self.rng.shuffle(&mut self.next);
            // Faults are taken from the end.
            self.next.sort_by_key(|fault| *fault != Fault::OldRedis);
        }
        let pause = self.longest_pause.mul_f64(self.rng.f64());
        self.next.pop().map(|fault| Step { pause, fault })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_plan_is_decided_by_its_seed_and_goes_through_every_fault() {
        let all = Fault::all(Storage::S3);
        let count = all.len();
        let steps = |seed| {
            Plan::new(seed, &all, Duration::from_secs(1)).take(2 * count).collect::<Vec<_>>()
        };
        assert_eq!(steps(7), steps(7));
        assert_ne!(steps(7), steps(8));
        let first: HashSet<Fault> = steps(7)[..count].iter().map(|step| step.fault).collect();
        assert_eq!(first.len(), count);
        assert_eq!(steps(7)[count - 1].fault, Fault::OldRedis, "the oldest snapshot");
    }
}
