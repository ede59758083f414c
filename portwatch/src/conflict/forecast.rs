//! What would come of a bind() or listen() that nobody has made: the rules, asked about sockets of which
//! not everything is known. Pure.
//!
//! What is not known of a socket is tried both ways. Where that changes the answer, there is none.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    rules::{self, Claim, clash},
    verdict::claim_of_holder,
};
use crate::event::{Doubt, Holder, Overlap, TcpState, Transport};

/// What would come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forecast {
    /// It would work.
    Free,
    /// EADDRINUSE. Places of the sockets that are in the way for certain.
    Taken(Vec<usize>),
    /// It cannot be told. Places of the sockets that may be in the way.
    Doubt(Doubt, Vec<usize>),
}

/// What differs between kernels and matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peculiar {
    /// A TCP socket with a specific v4-mapped address may not see those at IPv4's wildcard: 6.1's stable
    /// series has "tcp: Use bhash2 for v4-mapped-v6 non-wildcard address" (5e07e672412b, 6.1.168) without
    /// "tcp: Save address type in inet_bind2_bucket".
    pub overlooks_mapped: bool,
}

/// Above so many sockets in a slot the kernel looks at shorter lists of UDP sockets, by address
/// (net/ipv4/udp.c, `udp_lib_get_port`), which is not followed here.
const SLOT: usize = 10;

/// What would come of `new`, beside all other sockets on its port.
#[must_use]
pub fn forecast(new: &Claim, holders: &[Holder], kernel: Peculiar) -> Forecast {
    let ways: Vec<Ways> = holders
        .iter()
        .map(|holder| Ways::of(new, holder, kernel))
        .collect();
    let places = |is_one: &dyn Fn(&Ways) -> bool| -> Vec<usize> {
        let all = ways.iter().enumerate();
        all.filter_map(|(at, ways)| is_one(ways).then_some(at))
            .collect()
    };
    let possible = places(&|ways| ways.refused);
    if possible.is_empty() {
        return Forecast::Free;
    }
    let certain = places(&|ways| ways.refused && !ways.shared && !ways.apart);
    let bypass = if new.transport == Transport::Tcp {
        may_pass(new, holders, kernel).then_some(Doubt::Group)
    } else {
        let is_mixed = ways.iter().any(|ways| ways.shared) || holders.len() > SLOT;
        is_mixed.then_some(Doubt::Order)
    };
    match bypass {
        None if certain.is_empty() => Forecast::Doubt(Doubt::Options, possible),
        None => Forecast::Taken(certain),
        Some(_) if certain.is_empty() => Forecast::Doubt(Doubt::Options, possible),
        Some(doubt) => Forecast::Doubt(doubt, possible),
    }
}

/// How a socket on the port may meet a new one; more than one where it is not known well.
#[derive(Clone, Copy, Debug, Default)]
struct Ways {
    /// It is in the way.
    refused: bool,
    /// They share the port by SO_REUSEPORT; of UDP this lets a socket pass without a look at the others.
    shared: bool,
    /// They have nothing to do with each other, or share by SO_REUSEADDR.
    apart: bool,
}

impl Ways {
    fn of(new: &Claim, holder: &Holder, kernel: Peculiar) -> Self {
        let mut ways = Self::default();
        for held in claims(holder) {
            match (clash(new, &held), rules::is_decisive(new, &held)) {
                (Some(_), _) => ways.refused = true,
                (None, true) => ways.shared = true,
                (None, false) => ways.apart = true,
            }
            ways.apart |= kernel.overlooks_mapped && is_overlooked(new, &held);
        }
        ways.apart |= may_be_none(holder);
        ways
    }
}

/// The overlap with a socket whose options are not known, if it is in the way whatever they are.
#[must_use]
pub fn overlap_for_certain(new: &Claim, holder: &Holder) -> Option<Overlap> {
    let claims = claims(holder);
    let clashes = claims.iter().map(|held| clash(new, held));
    let overlaps: Option<Vec<Overlap>> = clashes.map(|found| Some(found?.overlap)).collect();
    overlaps?.first().copied()
}

/// See [`Peculiar::overlooks_mapped`].
fn is_overlooked(new: &Claim, held: &Claim) -> bool {
    let is_mapped = matches!(new.address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    new.transport == Transport::Tcp
        && is_mapped
        && !new.address.to_canonical().is_unspecified()
        && held.address.to_canonical() == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
}

/// All that a socket may claim, as far as it is known.
fn claims(holder: &Holder) -> Vec<Claim> {
    let options = &holder.socket.options;
    let Some((claim, _)) = claim_of_holder(holder) else {
        return Vec::new();
    };
    let mut claims = vec![Claim {
        reuseaddr: options.reuseaddr.unwrap_or_default(),
        reuseport: options.reuseport.unwrap_or_default(),
        ..claim
    }];
    let mut vary = |is_known: bool, other: fn(Claim) -> Claim| {
        if !is_known {
            let others: Vec<Claim> = claims.iter().copied().map(other).collect();
            claims.extend(others);
        }
    };
    vary(options.reuseaddr.is_some(), |claim| Claim {
        reuseaddr: !claim.reuseaddr,
        ..claim
    });
    vary(options.reuseport.is_some(), |claim| Claim {
        reuseport: !claim.reuseport,
        ..claim
    });
    vary(
        options.v6only.is_some() || !claim.address.is_ipv6(),
        |claim| Claim {
            v6only: !claim.v6only,
            ..claim
        },
    );
    claims
}

/// A request for a connection is listed like a socket and does not have the port; one that came with
/// data (TCP Fast Open) does.
fn may_be_none(holder: &Holder) -> bool {
    let is_request = matches!(
        holder.state,
        TcpState::SynReceived | TcpState::NewSynReceived
    );
    is_request && holder.socket.inode.is_none()
}

/// Whether the kernel may remember sockets with SO_REUSEPORT that let `new` pass without a look at the
/// owners of the port (`sk_reuseport_match`).
///
/// Whoever takes the port without SO_REUSEPORT, or for another user, makes it forget those before. So
/// nothing is remembered if there is such an owner, and nobody whom `new` could follow can have come
/// after it.
fn may_pass(new: &Claim, holders: &[Holder], kernel: Peculiar) -> bool {
    let is_seal = |holder: &Holder| {
        let claims = claims(holder);
        let took_it = |held: &Claim| matches!(held.state, TcpState::Closed | TcpState::Listen);
        let forgets = |held: &Claim| !held.reuseport || held.uid != new.uid;
        !claims.is_empty()
            && claims.iter().all(|held| {
                took_it(held)
                    && forgets(held)
                    && predecessors(new, held).all(|other| {
                        let is_seen = !(kernel.overlooks_mapped && is_overlooked(&other, held));
                        is_seen && clash(&other, held).is_some()
                    })
            })
    };
    new.reuseport && !holders.iter().any(is_seal)
}

/// Every socket that could have taken the port beside `held` and let `new` follow.
fn predecessors(new: &Claim, held: &Claim) -> impl Iterator<Item = Claim> {
    let (new, held) = (*new, *held);
    let addresses = [
        new.address,
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        IpAddr::V6(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()),
    ];
    // None, the one of either, and another: of the latter there is enough in a number that nobody has.
    let devices = [None, new.device, held.device, Some(u32::MAX)];
    addresses
        .into_iter()
        .flat_map(move |address| devices.map(|device| (address, device)))
        .flat_map(|place| [(place, false), (place, true)])
        .flat_map(|place| [(place, false), (place, true)])
        .map(move |(((address, device), v6only), reuseaddr)| Claim {
            address,
            device,
            v6only: v6only && address.is_ipv6(),
            reuseaddr,
            reuseport: true,
            state: TcpState::Closed,
            ..new
        })
        .filter(move |other| rules::leads(other, &new))
}

/// Places of the sockets beside which `new` may be bound, until one of the two listens: then the other
/// cannot.
#[must_use]
pub fn rivals(new: &Claim, holders: &[Holder]) -> Vec<usize> {
    let is_rival = |holder: &Holder| {
        let listening = |held: Claim| Claim {
            state: TcpState::Listen,
            ..held
        };
        holder.state == TcpState::Closed
            && claims(holder)
                .into_iter()
                .any(|held| clash(new, &held).is_none() && clash(new, &listening(held)).is_some())
    };
    if new.transport != Transport::Tcp {
        return Vec::new();
    }
    let all = holders.iter().enumerate();
    all.filter_map(|(at, holder)| is_rival(holder).then_some(at))
        .collect()
}
