//! What bind() asks before it looks at other sockets (net/ipv4/af_inet.c, `__inet_bind`;
//! net/ipv6/af_inet6.c, `__inet6_bind`). Pure.

use std::net::IpAddr;

use super::rules::Claim;
use crate::event::{Doubt, Errno, Outlook, Transport};

/// What is known of the place where it is asked; `None` is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ground {
    /// `net.ipv4.ip_unprivileged_port_start`
    pub unprivileged_start: Option<u16>,
    /// Whether the asker has CAP_NET_BIND_SERVICE in the network namespace.
    pub may_bind_low: Option<bool>,
    /// Whether the address is one that a socket may have.
    pub is_usable: Option<bool>,
}

/// Whether `new` gets as far as the other sockets on `port`.
#[must_use]
pub fn admission(new: &Claim, port: u16, ground: &Ground) -> Outlook {
    let steps = match new.address {
        IpAddr::V4(_) => [address(ground), privilege(port, ground)],
        IpAddr::V6(_) => [privilege(port, ground), address(ground)],
    };
    let is_nonsense = nonsense(new);
    // That of multicasts comes first of all, the others after the privilege.
    let of_multicast = matches!(new.address, IpAddr::V6(address) if address.is_multicast());
    let invalid = Outlook::Refused(errno(libc::EINVAL));
    if is_nonsense && of_multicast {
        return invalid;
    }
    let [first, second] = steps;
    match first {
        Outlook::Free if is_nonsense => invalid,
        Outlook::Free => second,
        first => first,
    }
}

fn errno(number: i32) -> Errno {
    Errno(number.unsigned_abs())
}

/// Requests that make no sense whatever the place: IPv6 ones only.
fn nonsense(new: &Claim) -> bool {
    let IpAddr::V6(address) = new.address else {
        return false;
    };
    let is_mapped = address.to_ipv4_mapped().is_some();
    // `__ipv6_addr_needs_scope_id`
    let scope = address.octets()[1] & 0xf;
    let needs_device =
        address.is_unicast_link_local() || (address.is_multicast() && (scope == 1 || scope == 2));
    (is_mapped && new.v6only)
        || (address.is_multicast() && new.transport == Transport::Tcp)
        || (needs_device && new.device.is_none())
}

fn address(ground: &Ground) -> Outlook {
    match ground.is_usable {
        Some(true) => Outlook::Free,
        Some(false) => Outlook::Refused(errno(libc::EADDRNOTAVAIL)),
        None => Outlook::Unknown(Doubt::Address),
    }
}

fn privilege(port: u16, ground: &Ground) -> Outlook {
    let is_low = ground.unprivileged_start.map(|start| port < start);
    match (is_low, ground.may_bind_low) {
        _ if port == 0 => Outlook::Free,
        (Some(false), _) | (_, Some(true)) => Outlook::Free,
        (Some(true), Some(false)) => Outlook::Refused(errno(libc::EACCES)),
        _ => Outlook::Unknown(Doubt::Privilege),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;
    use crate::event::TcpState;

    const GROUND: Ground = Ground {
        unprivileged_start: Some(1024),
        may_bind_low: Some(false),
        is_usable: Some(true),
    };

    fn claim(address: &str) -> Claim {
        Claim {
            transport: Transport::Tcp,
            address: address.parse().unwrap(),
            v6only: false,
            device: None,
            reuseaddr: false,
            reuseport: false,
            uid: 1000,
            state: TcpState::Closed,
        }
    }

    fn refused(number: i32) -> Outlook {
        Outlook::Refused(errno(number))
    }

    #[test]
    fn low_ports_need_a_capability() {
        let new = claim("0.0.0.0");
        let at = |port, ground: Ground| admission(&new, port, &ground);
        assert_eq!(at(1023, GROUND), refused(libc::EACCES));
        assert_eq!(at(1024, GROUND), Outlook::Free);
        assert_eq!(at(0, GROUND), Outlook::Free);
        let able = Ground {
            may_bind_low: Some(true),
            ..GROUND
        };
        assert_eq!(at(1, able), Outlook::Free);
        let unsure = Ground {
            may_bind_low: None,
            ..GROUND
        };
        assert_eq!(at(1, unsure), Outlook::Unknown(Doubt::Privilege));
        assert_eq!(at(1024, unsure), Outlook::Free);
        let no_limit = Ground {
            unprivileged_start: None,
            ..GROUND
        };
        assert_eq!(at(8080, no_limit), Outlook::Unknown(Doubt::Privilege));
    }

    #[test]
    fn the_families_ask_in_different_orders() {
        let foreign = Ground {
            is_usable: Some(false),
            ..GROUND
        };
        let at = |address: &str| admission(&claim(address), 80, &foreign);
        assert_eq!(at("192.0.2.1"), refused(libc::EADDRNOTAVAIL));
        assert_eq!(at("2001:db8::1"), refused(libc::EACCES));
        let unsure = Ground {
            is_usable: None,
            ..GROUND
        };
        assert_eq!(
            admission(&claim("192.0.2.1"), 8080, &unsure),
            Outlook::Unknown(Doubt::Address)
        );
    }

    #[test]
    fn what_makes_no_sense_is_invalid() {
        let at = |new: Claim| admission(&new, 8080, &GROUND);
        let only = |address| Claim {
            v6only: true,
            ..claim(address)
        };
        assert_eq!(at(only("::ffff:127.0.0.1")), refused(libc::EINVAL));
        assert_eq!(at(only("::1")), Outlook::Free);
        assert_eq!(at(claim("fe80::1")), refused(libc::EINVAL));
        let scoped = Claim {
            device: Some(2),
            ..claim("fe80::1")
        };
        assert_eq!(at(scoped), Outlook::Free);
        assert_eq!(at(claim("ff05::1")), refused(libc::EINVAL));
        let udp = Claim {
            transport: Transport::Udp,
            ..claim("ff05::1")
        };
        assert_eq!(at(udp), Outlook::Free);
        assert_eq!(at(claim("224.0.0.1")), Outlook::Free);
    }
}
