//! What a process has in memory.

use std::fs;

use anyhow::{Context as _, Result};

/// Resident memory, kB.
#[derive(Debug, PartialEq)]
pub(crate) struct Resident {
    /// Now.
    pub(crate) all: u64,
    /// Of that, mappings of BPF maps: the ring's pages, which the kernel owns.
    pub(crate) maps: u64,
}

impl Resident {
    /// Of a process.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        Ok(Self::read(&fs::read_to_string(format!(
            "/proc/{pid}/smaps"
        ))?))
    }

    fn read(smaps: &str) -> Self {
        let mut sums = Self { all: 0, maps: 0 };
        let mut of_map = false;
        for line in smaps.lines() {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or_default();
            if !first.ends_with(':') {
                of_map = line.contains("bpf-map") || line.contains("bpf_map");
            } else if first == "Rss:" {
                let size: u64 = words.next().and_then(|kb| kb.parse().ok()).unwrap_or(0);
                sums.all += size;
                sums.maps += if of_map { size } else { 0 };
            }
        }
        sums
    }
}

/// The most it ever had, kB.
pub(super) fn peak(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next());
    Ok(peak.context("no VmHWM")?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_told_from_the_rest() {
        let smaps = "\
55d0-55d1 r-xp 00000000 00:01 7   /bin/portwatch\nSize:  8 kB\nRss:  400 kB\nPss:  400 kB\n\
7f00-7f01 rw-s 00000000 00:0e 9   anon_inode:bpf-map\nRss:  4 kB\nVmFlags: rd wr sh\n\
7f01-7f02 r--s 00001000 00:0e 9   anon_inode:bpf-map\nRss:  96 kB\n\
7ffe-7fff rw-p 00000000 00:00 0   [stack]\nRss:  12 kB\n";
        assert_eq!(
            Resident::read(smaps),
            Resident {
                all: 512,
                maps: 100
            }
        );
    }
}
