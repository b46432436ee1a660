//! File descriptors: as many as the system grants, and some kept back for the process's own work.
//!
//! A server whose connections may take every descriptor cannot open a file, a database connection or a socket of its own
//! any more. So connections get a share, and the rest is reserved.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that connections leave to the process's own work: files, databases, object storage.
const RESERVED: u64 = 256;

/// Raises the soft limit to the hard one, and gives the limit that holds then. Where that is refused, what was stays.
pub fn raise() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return RESERVED * 4 };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        return hard;
    }
    soft
}

/// How many of `limit` descriptors connections may take: all but the reserve, or half where there are few.
#[must_use]
pub fn for_connections(limit: u64) -> usize {
    let share = limit.saturating_sub(RESERVED).max(limit / 2);
    usize::try_from(share).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_descriptors_are_always_left() {
        assert_eq!(for_connections(1024), 768);
        assert_eq!(for_connections(256), 128);
        assert_eq!(for_connections(0), 1);
        assert_eq!(for_connections(1 << 20), (1 << 20) - 256);
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let raised = raise();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
        assert_eq!((soft, raised), (hard, hard));
    }
}
