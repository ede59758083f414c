//! Who gave a port back: which of the kernel programs' notes of closed sockets fit what was in the way.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use crate::event::{Closer, Event, Holder, Last};

/// TCP_TIMEWAIT_LEN (include/net/tcp.h).
const TIME_WAIT: Duration = Duration::from_secs(60);

/// How long before the call a socket was closed at most that was in its way and is gone: closing takes
/// less, but a thread may be preempted on its way.
const JUST_BEFORE: Duration = Duration::from_millis(10);

/// Who closed a connection that was in the way at `now` though no process had it open; of TIME_WAIT, that
/// ends at `expires`, if that is known. Both CLOCK_BOOTTIME, ns.
///
/// A note is about whatever had these ends last, and its connection may have been shut down before it was
/// closed: then the note is that of an earlier connection, whose own TIME_WAIT had to pass in between. From
/// close() to TIME_WAIT the kernel waits for the peer as long as that (`tcp_fin_timeout`).
#[must_use]
pub fn left_by(holder: &Holder, now: u64, expires: Option<u64>) -> Option<&Closer> {
    let entered = expires.map_or(now, |expires| expires.saturating_sub(nanos(TIME_WAIT)));
    let closer = holder.closer.as_ref()?;
    (closer.time_boot <= now && closer.time_boot > entered.saturating_sub(nanos(TIME_WAIT)))
        .then_some(closer)
}

/// Who closed a listening or bound socket on the port while the call was on its way.
#[must_use]
pub fn just_closed_by(event: &Event) -> Option<&Closer> {
    let began = event
        .time_boot
        .saturating_sub(event.duration.unwrap_or_default());
    let Last { closer, addresses } = event.conflict.as_ref()?.last.as_deref()?;
    let is_recent = closer.time_boot >= began.saturating_sub(nanos(JUST_BEFORE));
    let v6only = event.socket.options.v6only == Some(true);
    (is_recent && may_overlap(event.local.address?, v6only, *addresses)).then_some(closer)
}

/// Whether a socket with that local address, folded, may have been in the way of one that asks for
/// another. What it has in the lower half is not its own: it had no peer.
fn may_overlap(asked: IpAddr, v6only: bool, folded: u64) -> bool {
    let asked = match asked {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(asked, IpAddr::V4),
        IpAddr::V4(_) => asked,
    };
    // 0.0.0.0 or ::, and nobody noted whether that was for IPv6 only.
    if folded == 0 {
        return true;
    }
    match (asked, unfolded4(folded)) {
        (IpAddr::V4(asked), Some(had)) => {
            asked.is_unspecified() || had.is_unspecified() || asked == had
        }
        (IpAddr::V4(_), None) => false,
        (IpAddr::V6(asked), Some(_)) => asked.is_unspecified() && !v6only,
        (IpAddr::V6(asked), None) => asked.is_unspecified() || fold6(asked) == folded,
    }
}

/// The IPv4 address of a word, be it that of an IPv4 socket or, mapped, that of an IPv6 one.
fn unfolded4(folded: u64) -> Option<Ipv4Addr> {
    let own = ((folded >> 32) as u32, folded as u32);
    let prefix = fold6(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped());
    let mapped = (folded ^ prefix).rotate_left(32);
    let mapped = ((mapped >> 32) as u32, mapped as u32);
    [mapped, own]
        .into_iter()
        .find(|(_, rest)| *rest == 0)
        .map(|(address, _)| Ipv4Addr::from(address.to_ne_bytes()))
}

/// The word of an IPv4 address, as [`LastRecord`] says.
///
/// [`LastRecord`]: portwatch_ebpf::abi::record::LastRecord::addresses
#[cfg(test)]
fn fold4(address: Ipv4Addr) -> u64 {
    u64::from(u32::from_ne_bytes(address.octets())) << 32
}

fn fold6(address: Ipv6Addr) -> u64 {
    let bits = u128::from_ne_bytes(address.octets());
    // The halves change places where the first one in memory is the upper one: XORed it is the same.
    ((bits >> 64) as u64 ^ bits as u64).rotate_left(32)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::{
        event::{Kind, Task},
        sample::conflict::held,
    };

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn what_was_closed_at_another_address_was_not_in_the_way() {
        let word = |text: &str| match text.parse().unwrap() {
            IpAddr::V4(four) => fold4(four),
            IpAddr::V6(six) => fold6(six),
        };
        for (asked, closed, expected) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("127.0.0.1", "0.0.0.0", true),
            ("127.0.0.1", "::", true),
            ("0.0.0.0", "127.0.0.2", true),
            ("::", "127.0.0.2", true),
            ("::1", "::1", true),
            ("::1", "fe80::1", false),
            ("::1", "127.0.0.1", false),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("::ffff:127.0.0.1", "127.0.0.1", true),
            ("::ffff:127.0.0.1", "127.0.0.2", false),
            ("127.0.0.1", "::ffff:0.0.0.0", true),
            ("::1", "::ffff:0.0.0.0", false),
            ("0.0.0.0", "::1", false),
            ("::ffff:0.0.0.0", "::1", false),
            ("::ffff:0.0.0.0", "127.0.0.2", true),
        ] {
            assert_eq!(
                may_overlap(asked.parse().unwrap(), false, word(closed)),
                expected,
                "{asked} {closed}"
            );
        }
        let any = "::".parse().unwrap();
        assert!(may_overlap(any, true, word("::1")));
        assert!(!may_overlap(any, true, word("127.0.0.1")));
        assert!(!may_overlap(any, true, word("::ffff:127.0.0.1")));
    }

    #[test]
    fn an_earlier_connection_with_the_same_ends_left_nothing() {
        let now = 1_000 * SECOND;
        let at = |seconds: u64, remaining: Option<u64>| {
            let holder = held(Kind::TimeWait, "127.0.0.1:80")
                .holder(|holder| {
                    holder.closer = Some(Box::new(Closer {
                        task: Task::default(),
                        time_boot: now - seconds * SECOND,
                    }));
                })
                .culprit
                .holder;
            left_by(&holder, now, remaining.map(|left| now + left * SECOND)).is_some()
        };
        // It has entered TIME_WAIT 14 s ago.
        assert!(at(14, Some(46)));
        // Its peer took its time.
        assert!(at(70, Some(46)));
        assert!(!at(75, Some(46)), "an earlier one");
        assert!(at(59, None));
        assert!(!at(60, None));
        let later = held(Kind::TimeWait, "127.0.0.1:80").holder(|holder| {
            holder.closer = Some(Box::new(Closer {
                task: Task::default(),
                time_boot: now + 1,
            }));
        });
        assert_eq!(left_by(&later.culprit.holder, now, None), None);
    }
}
