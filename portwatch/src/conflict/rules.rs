//! The kernel's rules of sharing a port, for TCP and UDP over IPv4 and IPv6.
//!
//! [`clash`] says whether two sockets may have the same port, and by which rule not. [`Port`] adds
//! what goes beyond pairs: the kernel's memory of who took a port, which lets some sockets pass without
//! comparing them with each owner. `cargo xtask test` compares both with the running kernel.
//!
//! Sources: net/ipv4/inet_connection_sock.c (`inet_rcv_saddr_equal`, `inet_bind_conflict`,
//! `inet_csk_get_port`, `sk_reuseport_match`, `inet_csk_update_fastreuse`), net/ipv4/udp.c
//! (`udp_lib_lport_inuse`).

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::event::{Overlap, Reason, TcpState, Transport};

/// A socket on a port, as far as the kernel compares it with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Transport.
    pub transport: Transport,
    /// Local address: of an IPv4 socket IPv4, of an IPv6 socket IPv6, v4-mapped ones too.
    pub address: IpAddr,
    /// IPV6_V6ONLY as getsockopt() says. That bind() of a specific address sets it is known here, of
    /// connections it is not: one that was accepted at `::` has a specific address without it.
    pub v6only: bool,
    /// Index of the interface it is bound to (SO_BINDTODEVICE, or a link-local address' scope).
    pub device: Option<u32>,
    /// SO_REUSEADDR
    pub reuseaddr: bool,
    /// SO_REUSEPORT
    pub reuseport: bool,
    /// Owner. Before Linux 6.17 that of the file, and root where there is none: of connections that
    /// nobody has accepted yet and of those that are closed and still end (`sock_i_uid`, `sk_uid`).
    pub uid: u32,
    /// TCP state; of UDP sockets and of one that only wants to bind, any but LISTEN and TIME_WAIT.
    pub state: TcpState,
}

/// That two sockets may not share a port, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clash {
    /// How their addresses overlap.
    pub overlap: Overlap,
    /// What kept them from sharing the port all the same.
    pub reason: Reason,
    /// Whether a bound device took part: one of them has one, and it did not keep them apart.
    pub device: bool,
}

/// Whether `new`, which binds or listens, may not have the port that `held` has, and why.
/// `None`: they may share it, or are none of each other's business.
#[must_use]
pub fn clash(new: &Claim, held: &Claim) -> Option<Clash> {
    if new.transport != held.transport || !same_device(new, held) {
        return None;
    }
    let overlap = overlap(new, held)?;
    let reason = if shares_by_reuseaddr(new, held) || shares_by_reuseport(new, held) {
        return None;
    } else {
        reason(new, held)
    };
    Some(Clash {
        overlap,
        reason,
        device: new.device.is_some() || held.device.is_some(),
    })
}

/// Whether two sockets meet on a port: then they may have to share it.
#[must_use]
pub fn meet(new: &Claim, held: &Claim) -> bool {
    new.transport == held.transport && same_device(new, held) && overlap(new, held).is_some()
}

/// Whether `udp_lib_lport_inuse` looks no further than `held`: they meet, and do not share by
/// SO_REUSEADDR.
#[must_use]
pub fn is_decisive(new: &Claim, held: &Claim) -> bool {
    meet(new, held) && !shares_by_reuseaddr(new, held)
}

/// Whether `new` may follow `last`, the one with SO_REUSEPORT that the kernel remembers of the port
/// (`sk_reuseport_match`).
#[must_use]
pub fn leads(last: &Claim, new: &Claim) -> bool {
    new.reuseport && last.uid == new.uid && covers(last, new)
}

/// `inet_bind_conflict`, `udp_lib_lport_inuse`: sockets on two devices never meet; one without a
/// device is on all.
fn same_device(new: &Claim, held: &Claim) -> bool {
    match (new.device, held.device) {
        (Some(new), Some(held)) => new == held,
        _ => true,
    }
}

/// `inet_bind_conflict`: `sk->sk_reuse && sk2->sk_reuse && sk2->sk_state != TCP_LISTEN`;
/// `udp_lib_lport_inuse`: `!sk2->sk_reuse || !sk->sk_reuse`.
fn shares_by_reuseaddr(new: &Claim, held: &Claim) -> bool {
    new.reuseaddr && held.reuseaddr && !listens(held)
}

/// `inet_bind_conflict`: both have SO_REUSEPORT, and `sk2->sk_state == TCP_TIME_WAIT ||
/// uid_eq(uid, sk_uid(sk2))`; `udp_lib_lport_inuse` likewise.
fn shares_by_reuseport(new: &Claim, held: &Claim) -> bool {
    new.reuseport && held.reuseport && (held.state == TcpState::TimeWait || new.uid == held.uid)
}

fn listens(claim: &Claim) -> bool {
    claim.state == TcpState::Listen
}

/// What kept two sockets with overlapping addresses from sharing: the least that would have to be
/// different. Of a listener SO_REUSEADDR never is: it does not count there.
fn reason(new: &Claim, held: &Claim) -> Reason {
    let listens = listens(held);
    match (
        (new.reuseaddr, new.reuseport),
        (held.reuseaddr, held.reuseport),
    ) {
        ((_, true), (_, true)) => Reason::ReuseportUid,
        ((true, false), (false, true)) | ((false, true), (true, false)) => Reason::ReuseMismatch,
        ((_, true), (held_addr, false)) if held_addr || listens || !new.reuseaddr => {
            Reason::ReuseportMissingHolder
        }
        ((new_addr, false), (_, true)) if new_addr || listens || !held.reuseaddr => {
            Reason::ReuseportMissingSelf
        }
        ((false, false), (false, false)) => Reason::NoReuse,
        _ if listens => Reason::ReuseListening,
        ((true, _), _) => Reason::ReuseMissingHolder,
        ((false, _), _) => Reason::ReuseMissingSelf,
    }
}

/// How the kernel sees an address of an IPv6 socket (`ipv6_addr_type`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Any,
    Mapped(Ipv4Addr),
    Specific(Ipv6Addr),
}

fn type_of(address: IpAddr) -> Type {
    match address {
        IpAddr::V4(v4) => Type::Mapped(v4),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => Type::Mapped(v4),
            None if v6.is_unspecified() => Type::Any,
            None => Type::Specific(v6),
        },
    }
}

/// Whether a socket takes no IPv4 packets (`ipv6_only_sock`). The kernel sets the option itself when
/// it binds a specific address (net/ipv6/af_inet6.c, `__inet6_bind`), not when it connects from one.
fn only_ipv6(claim: &Claim) -> bool {
    let by_bind = || {
        matches!(claim.state, TcpState::Closed | TcpState::Listen)
            && matches!(type_of(claim.address), Type::Specific(_))
    };
    claim.address.is_ipv6() && (claim.v6only || by_bind())
}

/// Whether the addresses overlap (`inet_rcv_saddr_equal(new, held, true)`), and how.
#[must_use]
pub fn overlap(new: &Claim, held: &Claim) -> Option<Overlap> {
    match (new.address, type_of(new.address), type_of(held.address)) {
        (IpAddr::V4(own), _, other) => match other {
            // `ipv4_rcv_saddr_equal`
            _ if only_ipv6(held) => None,
            Type::Mapped(other) => overlap_v4(own, other),
            Type::Any => Some(Overlap::DualStack),
            // A connection. Its `sk_rcv_saddr` is LOOPBACK4_IPV6, 127.0.0.6, which 0.0.0.0 covers;
            // 127.0.0.6 itself is left out: since 6.1 the kernel does not look there (`bhash2`).
            Type::Specific(_) => own.is_unspecified().then_some(Overlap::DualStack),
        },
        // `ipv6_rcv_saddr_equal`
        (_, Type::Mapped(own), Type::Mapped(other)) => {
            (!only_ipv6(held)).then(|| overlap_v4(own, other)).flatten()
        }
        (_, Type::Any, Type::Any) => Some(Overlap::Exact),
        (_, Type::Mapped(_), Type::Any) => (!only_ipv6(held)).then_some(Overlap::DualStack),
        (_, Type::Any, Type::Mapped(_)) => (!only_ipv6(new)).then_some(Overlap::DualStack),
        (_, Type::Any, Type::Specific(_)) | (_, Type::Specific(_), Type::Any) => {
            Some(Overlap::Wildcard)
        }
        (_, Type::Specific(own), Type::Specific(other)) => (own == other).then_some(Overlap::Exact),
        (_, Type::Specific(_), Type::Mapped(_)) | (_, Type::Mapped(_), Type::Specific(_)) => None,
    }
}

fn overlap_v4(own: Ipv4Addr, other: Ipv4Addr) -> Option<Overlap> {
    if own == other {
        Some(Overlap::Exact)
    } else if own.is_unspecified() || other.is_unspecified() {
        Some(Overlap::Wildcard)
    } else {
        None
    }
}

/// A port of a network namespace, and what the kernel remembers of the sockets that took it
/// (`struct inet_bind_bucket`). Only TCP has such a memory.
///
/// `fastreuse` is not here: where it lets a socket pass, the pairs do too. Nor is FASTREUSEPORT_ANY,
/// which no port has since Linux 6.8: to `inet_csk_update_fastreuse` even the first socket is not alone,
/// because `tb->bhash2` has it already. Before, it let in a socket that only clashes with a connection
/// accepted by another user.
#[derive(Clone, Debug, Default)]
pub struct Port {
    /// The socket to which others with SO_REUSEPORT are compared before all owners are
    /// (FASTREUSEPORT_STRICT, `fastuid`, `fast_*`); none if the last one to take the port had no
    /// SO_REUSEPORT.
    group: Option<Claim>,
}

impl Port {
    /// Whether `new` may take the port, or listen on it, beside its `owners`, newest first (without
    /// itself); if not, the places in `owners` of those it clashes with.
    ///
    /// # Errors
    /// The owners in the way; never none.
    pub fn admits(&self, new: &Claim, owners: &[Claim]) -> Result<(), Vec<(usize, Clash)>> {
        let clashes: Vec<_> = owners
            .iter()
            .enumerate()
            .filter_map(|(at, held)| Some((at, clash(new, held)?)))
            .collect();
        if clashes.is_empty() || self.lets_pass(new, owners) {
            Ok(())
        } else {
            Err(clashes)
        }
    }

    /// Whether `new` passes though it may clash with an owner.
    fn lets_pass(&self, new: &Claim, owners: &[Claim]) -> bool {
        if new.transport != Transport::Tcp {
            return passes_udp(new, owners);
        }
        self.group_takes(new)
    }

    /// `sk_reuseport_match`
    fn group_takes(&self, new: &Claim) -> bool {
        self.group.is_some_and(|last| leads(&last, new))
    }

    /// `claim` has taken the port, or listens on it, beside `others` (`inet_csk_update_fastreuse`).
    pub fn taken(&mut self, claim: &Claim, others: usize) {
        // One that listens has the port already.
        let fresh = others == 0 && !listens(claim);
        if !claim.reuseport {
            self.group = None;
        } else if fresh || !self.group_takes(claim) {
            self.group = Some(*claim);
        }
    }
}

/// `udp_lib_lport_inuse` looks no further than the first socket that overlaps without SO_REUSEADDR.
/// With more than ten sockets in its slot the kernel looks at shorter lists (`udp_lib_lport_inuse2`),
/// one for each address, which is not followed here.
fn passes_udp(new: &Claim, owners: &[Claim]) -> bool {
    in_slot(owners)
        .find(|held| is_decisive(new, held))
        .is_none_or(|held| shares_by_reuseport(new, held))
}

/// UDP sockets in the order of their hash slot, from newest first: IPv6 sockets with SO_REUSEPORT are
/// added at its end, all others at its head (include/net/sock.h, `sk_add_node_rcu`).
fn in_slot(owners: &[Claim]) -> impl Iterator<Item = &Claim> {
    let at_end = |held: &&Claim| held.reuseport && held.address.is_ipv6();
    let head = owners.iter().filter(move |held| !at_end(held));
    head.chain(owners.iter().rev().filter(at_end))
}

/// `sk_reuseport_match`: addresses overlap as ever, but a wildcard counts only on the side of the one
/// that is remembered.
fn covers(last: &Claim, new: &Claim) -> bool {
    match overlap(last, new) {
        None => false,
        Some(Overlap::Exact) => true,
        // ::ffff:0.0.0.0 is the wildcard of IPv4, and of nothing to `ipv6_rcv_saddr_equal`; 0.0.0.0
        // equals the IPv4 address that `::` has.
        Some(Overlap::Wildcard | Overlap::DualStack) => {
            is_any(last.address)
                && !(is_mapped(last.address) && matches!(type_of(new.address), Type::Any))
        }
    }
}

fn is_mapped(address: IpAddr) -> bool {
    address.is_ipv6() && matches!(type_of(address), Type::Mapped(_))
}

fn is_any(address: IpAddr) -> bool {
    match type_of(address) {
        Type::Any => true,
        Type::Mapped(v4) => v4.is_unspecified(),
        Type::Specific(_) => false,
    }
}
