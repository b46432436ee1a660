//! File descriptors: as many as the system allows, with some reserved for the process's own work.
//!
//! If connections could use every descriptor, the server could no longer open its own files,
//! database connections or sockets. So connections get a share, and the rest is reserved.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that are reserved for the process's own work: files, databases, object storage.
const RESERVED: u64 = 256;

/// Raises the soft limit to the hard limit, and returns the limit that then applies. If the system
/// refuses, the limit stays as it was.
pub fn raise() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return RESERVED * 4 };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        return hard;
    }
    soft
}

/// How many of `limit` descriptors connections may use: all but the reserve, or half if there are
/// few.
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
