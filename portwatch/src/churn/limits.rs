//! What a network namespace gives: its range and what is kept out of it, and what may be used again.

use std::{net::IpAddr, ops::RangeInclusive};

use crate::event::range;

/// The settings of a network namespace that ports depend on; what could not be read is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `ip_local_port_range`.
    pub range: Option<RangeInclusive<u16>>,
    /// `ip_local_reserved_ports`.
    pub reserved: Option<Vec<RangeInclusive<u16>>>,
    /// `tcp_tw_reuse`: 0 never, 1 for all, 2 over loopback.
    pub tw_reuse: Option<u8>,
    /// `ip_autobind_reuse`, which the kernel has since 5.7.
    pub autobind_reuse: Option<bool>,
    /// Connections in TIME_WAIT, as the kernel itself counts them (`tw` in `/proc/net/sockstat`).
    pub time_wait: Option<u64>,
}

impl Limits {
    /// Ports of a range that are given out; `None` where that is not known. The whole range is that of the
    /// namespace, unless a socket has its own.
    #[must_use]
    pub fn available(&self, own: Option<&RangeInclusive<u16>>) -> Option<u32> {
        u32::try_from(self.given_out(own)?.count()).ok()
    }

    /// Odd and even ones of the same.
    #[must_use]
    pub fn halves(&self, own: Option<&RangeInclusive<u16>>) -> Option<[u32; 2]> {
        let odd = self.given_out(own)?.filter(|port| port % 2 == 1).count();
        let odd = u32::try_from(odd).ok()?;
        Some([odd, self.available(own)? - odd])
    }

    fn given_out(&self, own: Option<&RangeInclusive<u16>>) -> Option<impl Iterator<Item = u16>> {
        let range = self.effective(own)?;
        let reserved = self.reserved.as_ref()?;
        Some(range.filter(|port| !reserved.iter().any(|list| list.contains(port))))
    }

    /// Ports of the namespace's range that are reserved.
    #[must_use]
    pub fn reserved_in_range(&self) -> Option<u32> {
        let size = u32::try_from(self.range.clone()?.count()).ok()?;
        Some(size - self.available(None)?)
    }

    /// The range that a socket is given ports of.
    #[must_use]
    pub fn effective(&self, own: Option<&RangeInclusive<u16>>) -> Option<RangeInclusive<u16>> {
        Some(range::effective(self.range.clone()?, own))
    }

    /// Whether a new connection to that address may take a port that another left in TIME_WAIT, once that is
    /// a second old (net/ipv4/tcp_ipv4.c, `tcp_twsk_unique`).
    #[must_use]
    pub fn reuses_time_wait(&self, peer: Option<IpAddr>) -> Option<bool> {
        Some(match self.tw_reuse? {
            0 => false,
            1 => true,
            _ => peer?.to_canonical().is_loopback(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            range: Some(32_768..=60_999),
            reserved: Some(vec![40_000..=40_009, 8080..=8080]),
            ..Limits::default()
        }
    }

    #[test]
    fn what_is_reserved_is_not_given_out() {
        assert_eq!(limits().available(None), Some(28_222));
        assert_eq!(limits().reserved_in_range(), Some(10));
        assert_eq!(limits().available(Some(&(40_008..=40_011))), Some(2));
        assert_eq!(limits().halves(None), Some([14_111, 14_111]));
        assert_eq!(limits().halves(Some(&(40_009..=40_012))), Some([1, 2]));
        assert_eq!(Limits::default().available(None), None);
    }

    #[test]
    fn time_wait_is_used_again_where_the_sysctl_says_so() {
        let with = |tw_reuse| Limits {
            tw_reuse: Some(tw_reuse),
            ..limits()
        };
        let lo = "127.0.0.1".parse().ok();
        let far = "10.0.0.9".parse().ok();
        assert_eq!(with(0).reuses_time_wait(lo), Some(false));
        assert_eq!(with(1).reuses_time_wait(far), Some(true));
        assert_eq!(with(2).reuses_time_wait(far), Some(false));
        assert_eq!(with(2).reuses_time_wait(lo), Some(true));
        assert_eq!(limits().reuses_time_wait(far), None);
    }
}
