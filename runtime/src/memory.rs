//! Memory of this process and of the machine.

/// Memory of the machine, and what this process uses of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineMemory {
    /// Resident bytes of this process.
    pub used: u64,
    /// Bytes of the machine.
    pub total: u64,
}

impl MachineMemory {
    /// As the system reports it now; `None` where it does not.
    #[must_use]
    pub fn read() -> Option<Self> {
        let used = bytes(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")?;
        let total = bytes(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")?;
        Some(Self { used, total })
    }
}

/// The value of a line such as `VmRSS:    1024 kB`.
fn bytes(report: &str, key: &str) -> Option<u64> {
    let line = report.lines().find(|line| line.starts_with(key))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_kibibytes_is_read_as_bytes() {
        let report = "Name:\tx\nVmRSS:\t    1024 kB\nMemTotal:       x kB\n";
        assert_eq!(bytes(report, "VmRSS:"), Some(1 << 20));
        assert_eq!(bytes(report, "MemTotal:"), None);
        assert_eq!(bytes(report, "VmHWM:"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_some_of_the_machines_memory() {
        let memory = MachineMemory::read().expect("Linux reports it");
        assert!(memory.used > 1 << 20 && memory.used < memory.total, "{memory:?}");
    }
}
