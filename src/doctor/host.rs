//! The machine's cores and memory.

use std::{fs, num::NonZero, thread};

use serde::Serialize;

/// Main memory in bytes; none where the system does not tell.
#[derive(Debug, Serialize)]
pub struct HostMemory {
    pub total: Option<u64>,
    pub available: Option<u64>,
}

/// Cores that this process may use.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// The machine's memory, cut to the limit of the process's container.
pub fn memory() -> HostMemory {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let limit = container_limit();
    let field = |name| meminfo(&info, name).map(|bytes| limit.map_or(bytes, |limit| bytes.min(limit)));
    HostMemory { total: field("MemTotal:"), available: field("MemAvailable:") }
}

fn container_limit() -> Option<u64> {
    fs::read_to_string("/sys/fs/cgroup/memory.max").ok()?.trim().parse().ok()
}

fn meminfo(text: &str, name: &str) -> Option<u64> {
    let kibibytes = text.lines().find_map(|l| l.strip_prefix(name))?.trim().strip_suffix("kB")?;
    kibibytes.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::meminfo;

    #[test]
    fn meminfo_is_in_kibibytes() {
        let text = "MemTotal:       24610676 kB\nMemFree:  1 kB\nMemAvailable:   123 kB\n";
        assert_eq!(meminfo(text, "MemTotal:"), Some(24_610_676 * 1024));
        assert_eq!(meminfo(text, "MemAvailable:"), Some(123 * 1024));
        assert_eq!(meminfo("MemTotal: many kB", "MemTotal:"), None);
    }
}
