//! How much of the disk a farm in this process may use.

use clap::Args;
#[cfg(feature = "embedded")]
use darkroom_coordinator::Budget;
use darkroom_runtime::disk::{ByteLimit, ByteSize};

/// The group of these flags in the help.
const DISK: &str = "Disk";

/// The budget of those who name none: 20 GiB.
#[cfg(feature = "embedded")]
const USUAL: u64 = 20 << 30;

/// How much of the disk a farm in this process may use.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct DiskArgs {
    /// Most disk space for what the farm stores, like 20GiB, or none for no limit. Above it,
    /// outputs of earlier stages of ended jobs are removed, oldest jobs first, then previews;
    /// pictures stay [default: 20GiB]
    #[arg(long, env = "DARKROOM_DISK_BUDGET", value_name = "SIZE|none", help_heading = DISK)]
    pub(crate) disk_budget: Option<ByteLimit>,
    /// Above the disk budget, also remove finished pictures when nothing else is left, those of the
    /// oldest jobs first. Their jobs say so, and `retry --lost` renders them again
    #[arg(long, env = "DARKROOM_DISK_BUDGET_PICTURES", help_heading = DISK)]
    pub(crate) disk_budget_pictures: bool,
    /// Disk space that must stay free, like 500MiB; 0: none. With less, work waits until there is
    /// room [default: 1GiB, or 2 % of the disk if that is less, but at least 8MiB]
    #[arg(long, env = "DARKROOM_DISK_FLOOR", value_name = "SIZE", help_heading = DISK)]
    pub(crate) disk_floor: Option<ByteSize>,
}

#[cfg(feature = "embedded")]
impl DiskArgs {
    /// The budget; none if there is no limit.
    pub(crate) fn budget(&self) -> Option<Budget> {
        let bytes = match self.disk_budget {
            None => USUAL,
            Some(ByteLimit::Bytes(size)) => size.0,
            Some(ByteLimit::None) => return None,
        };
        Some(Budget { bytes, pictures: self.disk_budget_pictures })
    }
}
