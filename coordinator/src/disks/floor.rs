//! The floor of a disk: how much must stay free on it. Pure arithmetic.
//!
//! Below the floor nothing is dispatched. What is under way then still has the floor to be stored
//! and committed in.

use darkroom_runtime::{
    disk::{ByteSize, Space},
    state_dir::LEAST_FREE_BYTES,
};

/// Without a setting, this much must stay free, or this share of the disk if that is less.
const FLOOR: u64 = 1 << 30;
const SHARE: u64 = 50;
/// So many files must be possible, or the same share of the disk's files.
const FILES: u64 = 1000;
/// A disk that was full counts as full until this share of the floor is free above it. Otherwise
/// each stored picture would stop dispatch, and each deleted one would start it again.
const ABOVE: u64 = 10;

/// How much must stay free on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Floor {
    bytes: u64,
    files: u64,
}

/// What a disk lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    Bytes { free: u64, needed: u64 },
    Files { free: u64, needed: u64 },
}

impl Floor {
    /// The floor of a disk. `asked` is the setting; 0 turns it off.
    pub(super) fn of(asked: Option<u64>, space: &Space) -> Self {
        if asked == Some(0) {
            return Self { bytes: 0, files: 0 };
        }
        let usual = || (space.total_bytes / SHARE).clamp(LEAST_FREE_BYTES, FLOOR);
        Self { bytes: asked.unwrap_or_else(usual), files: (space.total_files / SHARE).min(FILES) }
    }

    /// What the disk lacks. If it was full before, it lacks what is needed to go on.
    pub(super) fn lack(self, space: &Space, full_before: bool) -> Option<Lack> {
        let needed =
            |floor: u64| if full_before { floor.saturating_add(floor / ABOVE) } else { floor };
        let (bytes, files) = (needed(self.bytes), needed(self.files));
        if space.free_bytes < bytes {
            return Some(Lack::Bytes { free: space.free_bytes, needed: bytes });
        }
        if space.total_files > 0 && space.free_files < files {
            return Some(Lack::Files { free: space.free_files, needed: files });
        }
        None
    }

    /// Bytes that outputs of dispatched tasks may take. Half of the floor stays for the record, for
    /// manifests, and for outputs that are larger than expected.
    pub(super) fn room(self, space: &Space) -> u64 {
        if self.bytes == 0 { u64::MAX } else { space.free_bytes.saturating_sub(self.bytes / 2) }
    }
}

impl Lack {
    /// Whether its sentence would differ much from that of another lack. A sentence that changes
    /// with every byte would be told again and again.
    pub(super) fn is_much_like(self, other: Self) -> bool {
        match (self, other) {
            (Self::Bytes { free, needed }, Self::Bytes { free: before, .. }) => {
                free.abs_diff(before) <= needed / ABOVE
            }
            (Self::Files { .. }, Self::Files { .. }) => true,
            _ => false,
        }
    }
}

impl std::fmt::Display for Lack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes { free, needed } => {
                write!(f, "{} free, {} needed", ByteSize(*free), ByteSize(*needed))
            }
            Self::Files { free, needed } => {
                write!(f, "room for {free} more files, {needed} needed")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn space(free_bytes: u64, total_bytes: u64) -> Space {
        Space { free_bytes, total_bytes, free_files: 0, total_files: 0 }
    }

    #[test]
    fn a_floor_is_a_share_of_the_disk_and_at_most_a_gibibyte() {
        let floor = |total, asked| Floor::of(asked, &space(0, total)).bytes;
        assert_eq!(floor(1000 * GIB, None), GIB);
        assert_eq!(floor(10 * GIB, None), 10 * GIB / 50);
        assert_eq!(floor(64 * MIB, None), LEAST_FREE_BYTES, "a commit needs this much");
        assert_eq!(floor(1000 * GIB, Some(5 * GIB)), 5 * GIB);
    }

    #[test]
    fn a_disk_is_full_below_the_floor_and_until_there_is_more_than_the_floor() {
        let floor = Floor::of(Some(100 * MIB), &space(0, GIB));
        let lacks = |free, before| floor.lack(&space(free, GIB), before).is_some();
        assert!(!lacks(100 * MIB, false) && lacks(100 * MIB - 1, false));
        assert!(lacks(110 * MIB - 1, true) && !lacks(110 * MIB, true));
        let lack = floor.lack(&space(99 * MIB, GIB), false).expect("full");
        assert_eq!(lack.to_string(), "99 MiB free, 100 MiB needed");
        let lack = floor.lack(&space(99 * MIB, GIB), true).expect("full");
        assert_eq!(lack.to_string(), "99 MiB free, 110 MiB needed");
    }

    #[test]
    fn a_disk_without_room_for_files_is_full_too_and_one_without_a_limit_is_not() {
        let files = |free_files, total_files| {
            let space = Space { free_files, total_files, ..space(GIB, 2 * GIB) };
            Floor::of(None, &space).lack(&space, false)
        };
        assert_eq!(files(0, 0), None, "no limit");
        assert_eq!(files(1000, 1_000_000), None);
        assert_eq!(files(999, 1_000_000), Some(Lack::Files { free: 999, needed: 1000 }));
        assert_eq!(files(20, 1000), None, "a small disk");
    }

    #[test]
    fn nothing_is_full_without_a_floor() {
        let full = Space { free_files: 0, total_files: 100_000, ..space(0, GIB) };
        let floor = Floor::of(Some(0), &full);
        assert_eq!((floor.lack(&full, false), floor.room(&full)), (None, u64::MAX));
    }

    #[test]
    fn a_sentence_stays_while_little_changes() {
        let bytes = |free| Lack::Bytes { free, needed: 100 * MIB };
        assert!(bytes(50 * MIB).is_much_like(bytes(59 * MIB)));
        assert!(!bytes(50 * MIB).is_much_like(bytes(80 * MIB)));
        assert!(!bytes(50 * MIB).is_much_like(Lack::Files { free: 1, needed: 2 }));
    }
}
