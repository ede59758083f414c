//! The verdict on a refused call: what was in the way, from the event and the owners that came with it.

#[cfg(test)]
mod tests;

use super::{
    forecast::overlap_for_certain,
    rules::{Claim, Clash, clash},
};
use crate::event::{
    Backend, Conflict, Culprit, Errno, Event, Holder, Kind, Op, Outcome, TcpState, Transport,
    Verdict,
};

/// Judges a failure that the contract explains; `None` of any other event. `unprivileged_start` is
/// `net.ipv4.ip_unprivileged_port_start` of the network namespace, and asked only where permission was
/// refused.
#[must_use]
pub fn judge(
    event: &Event,
    backend: Backend,
    unprivileged_start: impl FnOnce() -> Option<u16>,
) -> Option<Verdict> {
    let Outcome::Failure(Errno(errno)) = event.outcome else {
        return None;
    };
    let kind = match (errno.cast_signed(), event.op) {
        // It asks for no address and no port.
        (_, Op::Accept) => return None,
        // A security module or cgroup program may choose any of them.
        (libc::EADDRINUSE | libc::EAGAIN | libc::EADDRNOTAVAIL | libc::EACCES | libc::EPERM, _)
            if event.refused_by_policy =>
        {
            Kind::Policy
        }
        (libc::EADDRINUSE, Op::Bind | Op::Listen) if event.local.port.is_some() => {
            return Some(in_use(event));
        }
        (libc::EADDRINUSE, Op::Bind | Op::Listen | Op::Autobind) => Kind::Exhausted,
        (libc::EAGAIN, Op::Autobind) => Kind::Exhausted,
        // net/ipv4/af_inet.c, `inet_dgram_connect`
        (libc::EAGAIN, Op::Connect) if event.transport == Transport::Udp && event.auto_port => {
            Kind::Exhausted
        }
        (libc::EADDRNOTAVAIL, Op::Connect) if event.no_port_left => Kind::Exhausted,
        (libc::EADDRNOTAVAIL, Op::Bind) => Kind::NotLocal,
        // One whose length alone is wrong is refused before that (net/ipv4/af_inet.c, `inet_bind_sk`).
        (libc::EINVAL, Op::Bind)
            if event.bound_port.is_some()
                && event.local.address.is_some()
                && !event.refused_by_policy =>
        {
            Kind::AlreadyBound
        }
        (libc::EACCES, Op::Bind) => forbidden(event, backend, unprivileged_start()),
        // No part of the socket layer says so by itself.
        (libc::EACCES, Op::Listen) | (libc::EPERM, _) => Kind::Policy,
        (
            libc::EADDRINUSE | libc::EAGAIN | libc::EADDRNOTAVAIL | libc::EINVAL | libc::EACCES,
            _,
        ) => Kind::Unknown,
        _ => return None,
    };
    Some(without_sockets(kind))
}

fn without_sockets(kind: Kind) -> Verdict {
    Verdict {
        kind,
        overlap: None,
        reason: None,
        device: None,
        culprits: Vec::new(),
        total: 0,
        truncated: false,
    }
}

/// bind() was refused with EACCES: by `inet_bind` because of the port (net/ipv4/af_inet.c), by a
/// security module before that, or by a cgroup program inside, which may choose the errno (5.17).
fn forbidden(event: &Event, backend: Backend, start: Option<u16>) -> Kind {
    let Some(port) = event.local.port else {
        // Port 0 needs no privilege.
        return Kind::Policy;
    };
    match (start.map(|start| port < start), event.may_bind_low) {
        (Some(false), _) | (_, Some(true)) => Kind::Policy,
        (Some(true), Some(false)) => Kind::Privileged,
        // Where a module's refusal would have been seen, it was none.
        (Some(true), None) if backend != Backend::RawTp => Kind::Privileged,
        _ => Kind::Unknown,
    }
}

/// A port was in use: which of its owners were in the way.
fn in_use(event: &Event) -> Verdict {
    let Some(conflict) = &event.conflict else {
        return without_sockets(Kind::Unknown);
    };
    let Conflict {
        holders,
        total,
        truncated,
        rest_apart: _, // see `is_whole`
        connect_only,
        last: _, // asked of what is gone: see `departure`
    } = conflict;
    let own = claim_of(event);
    let mut device = false;
    let is_late = |holder: &&Holder| came_later(holder, event);
    let is_doubtful = |holder: &Holder| {
        own.as_ref()
            .is_some_and(|own| depends_on_kernel(own, holder))
    };
    let mut culprits: Vec<Culprit> = holders
        .iter()
        .filter(|holder| !is_late(holder) && !is_doubtful(holder))
        .filter_map(|holder| {
            let (mut culprit, by_device) = culprit(own.as_ref(), holder, *connect_only)?;
            if culprit.kind == Kind::Unknown && is_child(holder, holders) {
                culprit.kind = Kind::Accepted;
            }
            device |= by_device;
            Some(culprit)
        })
        .collect();
    culprits.sort_by_key(|culprit| (culprit.kind, culprit.holder.socket.cookie));
    let kind = match culprits.first() {
        Some(first) => first.kind,
        // All that was there is known, and nothing of it is in the way any more.
        None if own.is_some()
            && conflict.is_whole()
            && !holders
                .iter()
                .any(|holder| is_late(&holder) || is_doubtful(holder)) =>
        {
            Kind::Gone
        }
        None => Kind::Unknown,
    };
    Verdict {
        kind,
        overlap: culprits.first().and_then(|first| first.overlap),
        reason: culprits.first().and_then(|first| first.reason),
        device: (!culprits.is_empty()).then_some(device),
        total: *total,
        truncated: *truncated,
        culprits,
    }
}

/// Whether a port was in use, and of its owners only such were handed over as are not in the way.
#[must_use]
pub fn is_undecided(event: &Event) -> bool {
    let refused = Outcome::Failure(Errno(libc::EADDRINUSE.unsigned_abs()));
    event.outcome == refused
        && matches!(event.op, Op::Bind | Op::Listen)
        && event
            .conflict
            .as_ref()
            .is_some_and(|conflict| !conflict.is_whole())
        && claim_of(event).is_some()
        && in_use(event).culprits.is_empty()
}

/// Whether a socket got the port after the call was refused, while its owners were still to be looked at;
/// or at the same moment, which cannot be told apart.
fn came_later(holder: &Holder, event: &Event) -> bool {
    holder
        .taker
        .as_ref()
        .is_some_and(|taker| taker.time_boot > event.time_boot)
}

/// What the refused socket claimed; `None` where that is not known.
#[must_use]
pub fn claim_of(event: &Event) -> Option<Claim> {
    let options = &event.socket.options;
    Some(Claim {
        transport: event.transport,
        address: event.local.address?,
        v6only: options.v6only.unwrap_or_default(),
        device: event.socket.device,
        reuseaddr: options.reuseaddr?,
        reuseport: options.reuseport?,
        uid: event.socket.uid?,
        state: TcpState::Closed,
    })
}

/// Whether a connection without a file is in the way on some kernels only: before Linux 6.17 it counts as
/// root's (`sock_i_uid`), whoever its owner is.
fn depends_on_kernel(own: &Claim, holder: &Holder) -> bool {
    let Some((claim, true)) = claim_of_holder(holder) else {
        return false;
    };
    let of_root = Claim { uid: 0, ..claim };
    holder.socket.inode.is_none() && clash(own, &claim).is_some() != clash(own, &of_root).is_some()
}

/// What a socket on the port claims, and whether its options are known.
#[must_use]
pub fn claim_of_holder(holder: &Holder) -> Option<(Claim, bool)> {
    let options = &holder.socket.options;
    let known = options.reuseaddr.zip(options.reuseport);
    let (reuseaddr, reuseport) = known.unwrap_or_default();
    let claim = Claim {
        transport: holder.transport,
        address: holder.local.address?,
        v6only: options.v6only.unwrap_or_default(),
        device: holder.socket.device,
        reuseaddr,
        reuseport,
        // That of TIME_WAIT sockets is not kept, and the kernel does not ask for it.
        uid: holder.socket.uid.unwrap_or_default(),
        // What is left of a connection is to the rules as in TIME_WAIT.
        state: if holder.remnant {
            TcpState::TimeWait
        } else {
            holder.state
        },
    };
    Some((claim, known.is_some()))
}

/// Whether a connection came from one of the listeners on its port, which the kernel's programs do not see
/// where the backlog is 0. Where the two could not have the port each by itself, it did: connect() passes
/// over a port that is bound (net/ipv4/inet_hashtables.c, `__inet_hash_connect`), and bind() would have
/// been refused beside the connection.
fn is_child(connection: &Holder, holders: &[Holder]) -> bool {
    let Some((held, true)) = claim_of_holder(connection) else {
        return false;
    };
    holders
        .iter()
        .filter(|other| other.state == TcpState::Listen)
        .filter_map(claim_of_holder)
        .any(|(listener, is_known)| is_known && clash(&listener, &held).is_some())
}

/// A holder as a culprit, if it is one, and whether a device took part.
fn culprit(own: Option<&Claim>, holder: &Holder, connect_only: bool) -> Option<(Culprit, bool)> {
    let own = own?;
    let (claim, is_known) = claim_of_holder(holder)?;
    let (overlap, reason, device) = if is_known {
        let Clash {
            overlap,
            reason,
            device,
        } = clash(own, &claim)?;
        (overlap, Some(reason), device)
    } else {
        // One that only sock_diag knows of: it is in the way if it is whatever its options are.
        let device = own.device.is_some() || claim.device.is_some();
        (overlap_for_certain(own, holder)?, None, device)
    };
    let culprit = Culprit {
        kind: kind_of(holder, connect_only),
        overlap: Some(overlap),
        reason,
        holder: holder.clone(),
    };
    Some((culprit, device))
}

/// What a socket on a port is. `connect_only`: all on the port got it from connect().
#[must_use]
pub fn kind_of(holder: &Holder, connect_only: bool) -> Kind {
    if holder.of_kernel {
        return Kind::Kernel;
    }
    match holder.state {
        TcpState::Listen => Kind::Listener,
        TcpState::Closed | TcpState::BoundInactive => Kind::Bound,
        // A UDP socket with a peer: a client took its port for that.
        TcpState::Established if holder.transport != Transport::Tcp && holder.chose_port => {
            Kind::Bound
        }
        TcpState::Established if holder.accepted => Kind::Accepted,
        TcpState::Established if holder.transport != Transport::Tcp => Kind::Client,
        // A port that was named, or whose taking was seen, is not one that a listener passed on.
        TcpState::Established if holder.chose_port || holder.taker.is_some() || connect_only => {
            Kind::Client
        }
        // From a listener with a backlog of 0, or of a client that called bind() before the trace.
        TcpState::Established => Kind::Unknown,
        TcpState::SynSent => Kind::Client,
        TcpState::SynReceived | TcpState::NewSynReceived => Kind::Accepted,
        TcpState::TimeWait => Kind::TimeWait,
        TcpState::FinWait1
        | TcpState::FinWait2
        | TcpState::CloseWait
        | TcpState::LastAck
        | TcpState::Closing => Kind::Closing,
    }
}
