//! From rows of the programs' table to pools of ports.

use std::{
    cmp::Ordering,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use portwatch_ebpf::abi::churn::{Counts, Key, how};

use super::figures::{Scope, Use};
use crate::event::{Errno, Transport};

/// AF_INET6 (include/linux/socket.h)
const AF_INET6: u16 = 10;

/// A row, as far as it is somebody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is about.
    pub key: Key,
    /// Name of the process, NUL-padded.
    pub comm: [u8; 16],
    /// Its id; 0 where it is not known.
    pub pid: u32,
    /// When it started, CLOCK_BOOTTIME, ns.
    pub started: u64,
    /// Id of its cgroup; 0 where it is not known.
    pub cgroup: u64,
}

impl Entry {
    /// The name of the process.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        let end = self.comm.iter().position(|&byte| byte == 0);
        let name = &self.comm[..end.unwrap_or(self.comm.len())];
        (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
    }
}

/// The table that the programs count in.
pub trait Table {
    /// Rows there are.
    fn len(&self) -> u32;
    /// The first rows that are for single tuples; those before are sums.
    fn first(&self) -> u32;
    /// What a row is about.
    fn entry(&self, index: u32) -> Option<Entry>;
    /// Its counters.
    fn counts(&self, index: u32) -> Counts;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The address of a key.
#[must_use]
pub fn address(family: u16, words: [u64; 2]) -> IpAddr {
    let mut bytes = [0; 16];
    for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    if family == AF_INET6 {
        Ipv6Addr::from(bytes).into()
    } else {
        let [a, b, c, d, ..] = bytes;
        Ipv4Addr::new(a, b, c, d).into()
    }
}

/// What the ports of a row are short of.
#[must_use]
pub const fn scope(key: &Key) -> Scope {
    if key.how == how::CONNECT {
        Scope::Tuple
    } else {
        Scope::Address
    }
}

/// The transport of a row.
#[must_use]
pub const fn transport(key: &Key) -> Transport {
    match key.transport {
        17 => Transport::Udp,
        136 => Transport::UdpLite,
        _ => Transport::Tcp,
    }
}

/// The peer of a tuple.
#[must_use]
pub fn peer(key: &Key) -> Option<(IpAddr, u16)> {
    (scope(key) == Scope::Tuple).then(|| (address(key.family, key.peer), key.peer_port))
}

/// The range of the socket itself.
#[must_use]
pub const fn own_range(key: &Key) -> Option<RangeInclusive<u16>> {
    if key.range == 0 {
        return None;
    }
    Some(key.range as u16..=(key.range >> 16) as u16)
}

/// What a caller is told that finds no port.
#[must_use]
pub fn errno(key: &Key) -> Errno {
    Errno(
        match key.how {
            how::CONNECT => libc::EADDRNOTAVAIL,
            how::AUTOBIND => libc::EAGAIN,
            _ => libc::EADDRINUSE,
        }
        .unsigned_abs(),
    )
}

/// Orders rows so that those of one pool stand together.
#[must_use]
pub fn by_pool(one: &Key, other: &Key) -> Ordering {
    let rank = |key: &Key| {
        (
            key.netns,
            key.transport,
            scope(key),
            key.family,
            key.local,
            key.peer,
            key.peer_port,
            key.range,
        )
    };
    rank(one).cmp(&rank(other))
}

/// What has happened between two readings of a row, and what is held at the second.
#[must_use]
pub fn used(before: &Counts, now: &Counts) -> Use {
    Use {
        held: held(now),
        waiting: now.waited.saturating_sub(now.ended),
        taken: now.taken.wrapping_sub(before.taken),
        given: now.given.wrapping_sub(before.given),
        waited: now.waited.wrapping_sub(before.waited),
        failed: now.failed.wrapping_sub(before.failed),
    }
}

/// Ports that are held.
#[must_use]
pub const fn held(counts: &Counts) -> u64 {
    (counts.taken + counts.found).saturating_sub(counts.given)
}

/// Odd ones of them.
#[must_use]
pub const fn held_odd(counts: &Counts) -> u64 {
    counts.odd.saturating_sub(counts.odd_given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_has_them() {
        let v4 = u64::from(u32::from_ne_bytes([10, 0, 0, 9]));
        assert_eq!(address(2, [v4, 0]).to_string(), "10.0.0.9");
        let one = u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(address(AF_INET6, [0, one]).to_string(), "::1");
    }

    #[test]
    fn what_is_held_is_never_less_than_nothing() {
        let counts = Counts {
            taken: 3,
            found: 1,
            given: 5,
            ..Counts::default()
        };
        assert_eq!(held(&counts), 0);
    }
}
