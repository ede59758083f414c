//! What would come of a bind() that nobody has made.

use std::ops::RangeInclusive;

use super::{Endpoint, Errno, Explanation, Family, Listing, PortFacts, Socket, Transport};

/// What would come of it (`check.outcome`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It would work.
    Free,
    /// It would be refused.
    Refused(Errno),
    /// It cannot be told.
    Unknown(Doubt),
}

impl Outlook {
    /// The name in the output: that of the event it would be.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "success",
            Self::Refused(_) => "failure",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// Why it cannot be told (`check.doubt`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Doubt {
    /// It depends on options of sockets that could not be read.
    Options,
    /// It depends on what the kernel remembers of those that shared the port by SO_REUSEPORT before
    /// (`struct inet_bind_bucket`), which it tells nobody.
    Group,
    /// Of UDP sockets, some share the port and some do not, and the one that the kernel meets first
    /// decides.
    Order,
    /// A port that is free is tried or not by where the kernel begins to look, which is by chance.
    Chance,
    /// Sockets may be there that could not be seen.
    Unseen,
    /// Whether the address can be used.
    Address,
    /// Whether the asker may have a port that needs a privilege.
    Privilege,
}

impl Doubt {
    /// The name in the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Options => "options",
            Self::Group => "group",
            Self::Order => "order",
            Self::Chance => "chance",
            Self::Unseen => "unseen",
            Self::Address => "address",
            Self::Privilege => "privilege",
        }
    }
}

/// A bind() that was asked about, with the answer and names.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// Transport.
    pub transport: Transport,
    /// Family of the socket.
    pub family: Family,
    /// What would be asked for; without a port if any would do.
    pub local: Endpoint,
    /// Name and class of the port.
    pub facts: PortFacts,
    /// Name of the device that the socket would be bound to.
    pub interface: Option<String>,
    /// Options, owner and network namespace of the socket.
    pub socket: Socket,
    /// The answer.
    pub outlook: Outlook,
    /// Why, where it would not work or cannot be told.
    pub explanation: Option<Explanation>,
    /// The owners of the port were looked at.
    pub sought: bool,
    /// Sockets that have the port too and do not listen yet: if one does first, listen() fails.
    pub rivals: Vec<Listing>,
    /// Paths of what should be there and is not known.
    pub missing: Vec<&'static str>,
}

/// A range of ports that is to be given out by somebody else than the kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedRange {
    /// The range.
    pub range: RangeInclusive<u16>,
    /// `ip_local_port_range`: what the kernel gives out.
    pub ephemeral: RangeInclusive<u16>,
    /// `ip_local_reserved_ports`: what it does not give out all the same, sorted.
    pub reserved: Vec<RangeInclusive<u16>>,
    /// Sockets that are on ports of the range now.
    pub sockets: Vec<Listing>,
    /// The network namespace.
    pub netns: Option<u32>,
    /// It is not the one that this process is in.
    pub elsewhere: bool,
    /// Sockets may be there that are bound and do not listen, and could not be seen.
    pub may_hide: bool,
}

impl CheckedRange {
    /// Whether nothing is in the way of the range, now or later.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.given_out().is_empty() && self.sockets.is_empty()
    }

    /// The ports of the range that the kernel may give to anybody who asks for none.
    #[must_use]
    pub fn given_out(&self) -> Vec<RangeInclusive<u16>> {
        let low = *self.range.start().max(self.ephemeral.start());
        let high = *self.range.end().min(self.ephemeral.end());
        let mut rest = Vec::new();
        // Wider than a port, so that there is one behind the last.
        let mut next = u32::from(low);
        for list in &self.reserved {
            let start = u32::from(*list.start()).min(u32::from(high) + 1);
            rest.extend(range(next, start));
            next = next.max(u32::from(*list.end()) + 1);
        }
        rest.extend(range(next, u32::from(high) + 1));
        rest
    }

    /// What `ip_local_reserved_ports` has to be so that the kernel leaves the range alone: what it is, and
    /// the range.
    #[must_use]
    pub fn remedy(&self) -> Vec<RangeInclusive<u16>> {
        let mut lists: Vec<_> = self.reserved.clone();
        lists.push(self.range.clone());
        lists.sort_by_key(|list| *list.start());
        let mut merged: Vec<RangeInclusive<u16>> = Vec::new();
        for list in lists {
            match merged.last_mut() {
                Some(last) if u32::from(*list.start()) <= u32::from(*last.end()) + 1 => {
                    *last = *last.start()..=*last.end().max(list.end());
                }
                _ => merged.push(list),
            }
        }
        merged
    }
}

/// The ports from one on to before another.
fn range(from: u32, before: u32) -> Option<RangeInclusive<u16>> {
    let last = before.checked_sub(1)?;
    (from <= last).then_some(u16::try_from(from).ok()?..=u16::try_from(last).ok()?)
}

/// The list that keeps the kernel from giving ports out. The kernel takes a comma at the end of what is
/// written there, but not at its beginning, so that what is there is appended, be it nothing
/// (kernel/sysctl.c, `proc_do_large_bitmap`).
pub const RESERVED_PORTS: &str = "net.ipv4.ip_local_reserved_ports";

/// A list of ports as the kernel writes it: `8080,9000-9100`.
#[must_use]
pub fn port_list(ranges: &[RangeInclusive<u16>]) -> String {
    let part = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
        (one, other) if one == other => one.to_string(),
        (low, high) => format!("{low}-{high}"),
    };
    ranges.iter().map(part).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checked(range: RangeInclusive<u16>, reserved: Vec<RangeInclusive<u16>>) -> CheckedRange {
        CheckedRange {
            range,
            ephemeral: 32_768..=60_999,
            reserved,
            sockets: Vec::new(),
            netns: None,
            elsewhere: false,
            may_hide: false,
        }
    }

    #[test]
    fn what_is_given_out_is_what_is_not_reserved() {
        for (range, reserved, rest, remedy) in [
            (30_000..=32_767, vec![], "", "30000-32767"),
            (30_000..=32_768, vec![], "32768", "30000-32768"),
            (
                40_000..=40_009,
                vec![8080..=8080, 40_002..=40_003, 40_009..=50_000],
                "40000-40001,40004-40008",
                "8080,40000-50000",
            ),
            (40_000..=40_009, vec![40_000..=40_009], "", "40000-40009"),
            (61_000..=65_535, vec![], "", "61000-65535"),
            (1..=65_535, vec![1..=65_535], "", "1-65535"),
            (8080..=8080, vec![8081..=8082], "", "8080-8082"),
        ] {
            let checked = checked(range, reserved);
            assert_eq!(port_list(&checked.given_out()), rest, "{checked:?}");
            assert_eq!(port_list(&checked.remedy()), remedy, "{checked:?}");
            assert_eq!(checked.is_clear(), rest.is_empty());
        }
    }

    proptest! {
        #[test]
        fn each_port_is_judged_as_if_it_were_alone(
            ends in (any::<u16>(), any::<u16>()),
            edges in prop::collection::btree_set(any::<u16>(), 0..8),
        ) {
            let range = ends.0.min(ends.1)..=ends.0.max(ends.1);
            let edges: Vec<u16> = edges.into_iter().collect();
            let reserved: Vec<_> = edges.chunks_exact(2).map(|pair| pair[0]..=pair[1]).collect();
            let checked = checked(range.clone(), reserved.clone());
            let (rest, remedy) = (checked.given_out(), checked.remedy());
            let within = |lists: &[RangeInclusive<u16>], port| lists.iter().any(|list| list.contains(&port));
            for port in 0..=u16::MAX {
                let is_reserved = within(&reserved, port);
                let expected = range.contains(&port) && checked.ephemeral.contains(&port) && !is_reserved;
                prop_assert_eq!(within(&rest, port), expected, "{}", port);
                prop_assert_eq!(within(&remedy, port), is_reserved || range.contains(&port), "{}", port);
            }
        }
    }
}
