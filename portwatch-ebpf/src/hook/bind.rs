//! bind().

use portwatch_ebpf::abi::{
    config::detail,
    record::{SocketRecord, flags, op, present},
};

use super::{Backend, Far, Returned, common, taken, timed};
use crate::{
    diagnose::{note, say},
    emit::{self, Entry},
    filter,
    kernel::{
        generation::Generation as _,
        image,
        memory::{Memory as _, Ptr, detailed, number, offset, set},
        owners::asked,
        request::Request,
        sock::{self, Kind},
        task::{self, Caller},
    },
};

/// EACCES
const EACCES: u32 = 13;
/// EADDRINUSE
pub(crate) const EADDRINUSE: u32 = 98;

/// A bind() has returned. After a failure the socket no longer holds what was asked for
/// (net/ipv4/af_inet.c, `__inet_bind`), so `request` reads the caller's sockaddr.
#[inline(always)]
pub(crate) fn returned<B: Backend>(
    sk: Ptr,
    returned: Returned,
    request: impl FnOnce() -> Option<&'static Request>,
) {
    if returned.is_neither() {
        return;
    }
    let error = returned.error();
    let Some(kind) = Kind::of::<B::Memory>(sk) else {
        return;
    };
    if error == 0 {
        worked::<B>(sk, kind, returned, request);
    } else {
        refused_kind::<B>(sk, kind, returned, request);
    }
}

/// A bind() has failed.
#[inline(always)]
pub(crate) fn refused<B: Backend>(
    sk: Ptr,
    returned: Returned,
    request: impl FnOnce() -> Option<&'static Request>,
) {
    if let Some(kind) = Kind::of::<B::Memory>(sk) {
        refused_kind::<B>(sk, kind, returned, request);
    }
}

/// The same, of a socket of that kind.
#[inline(always)]
fn refused_kind<B: Backend>(
    sk: Ptr,
    kind: Kind,
    returned: Returned,
    request: impl FnOnce() -> Option<&'static Request>,
) {
    if is_wanted::<B>(sk, kind, returned.error())
        && let Some(request) = request()
    {
        failed::<B>(sk, kind, returned, request);
    }
}

/// Whether the filters let it pass, as far as they do not look at the port.
#[inline(always)]
fn is_wanted<B: Backend>(sk: Ptr, kind: Kind, error: u32) -> bool {
    filter::op(op::BIND)
        && filter::outcome(error)
        && kind.wanted()
        && filter::caller()
        && filter::netns::<B::Memory>(sk)
        // A bind has no peer.
        && filter::no_peer()
}

#[inline(always)]
fn worked<B: Backend>(
    sk: Ptr,
    kind: Kind,
    returned: Returned,
    request: impl FnOnce() -> Option<&'static Request>,
) {
    let now = emit::now();
    let Some(caller) = Caller::get() else {
        return;
    };
    taken::by::<B>(sk, &caller, now);
    if !is_wanted::<B>(sk, kind, 0) {
        return;
    }
    let port = sock::port::<B::Memory>(sk);
    if !filter::local_port(port) {
        return;
    }
    image::announce::<B::Generation>(&caller);
    let may_share = sock::common_flags::<B::Memory>(sk) & flags::REUSEPORT != 0
        && sock::chose_port::<B::Memory>(sk);
    if may_share {
        let address = sock::local_words::<B::Memory>(sk, kind.family);
        send_owners::<B>(sk, kind, port, address, 0);
    }
    let Some(mut entry) = Entry::reserve() else {
        return;
    };
    let record = entry.record();

    common::<B>(record, op::BIND, sk, kind, &caller);
    if may_share && !detailed(detail::REST) {
        sock::shares::<B::Memory>(record, sk);
    }
    sock::local::<B::Memory>(record, sk, kind.family);
    if port == 0 {
        // IP_BIND_ADDRESS_NO_PORT: the port comes with connect().
        record.present &= !present::LOCAL_PORT;
    } else if kernel_chose::<B>(sk, kind, request) {
        set(&mut record.flags, flags::AUTO_PORT);
    }
    timed(record, now, returned.started);

    entry.submit();
}

/// Whether the kernel chose the port of a bind that worked.
#[inline(always)]
fn kernel_chose<B: Backend>(
    sk: Ptr,
    kind: Kind,
    request: impl FnOnce() -> Option<&'static Request>,
) -> bool {
    if kind.is_tcp() || kind.is_udp() {
        return !sock::chose_port::<B::Memory>(sk);
    }
    // SCTP binds by itself and does not note what the caller named (net/sctp/socket.c, sctp_bind).
    request().is_some_and(|request| request.port() == 0)
}

#[inline(always)]
fn failed<B: Backend>(sk: Ptr, kind: Kind, returned: Returned, request: &Request) {
    let port = request.port();
    if !filter::local_port(port) {
        return;
    }
    let now = emit::now();
    let Some(caller) = Caller::get() else {
        return;
    };
    image::announce::<B::Generation>(&caller);
    let address = request.words();
    explain::<B>(sk, kind, returned, port, address);
    let Some(mut entry) = Entry::reserve() else {
        return;
    };
    let record = entry.record();

    common::<B>(record, op::BIND, sk, kind, &caller);
    record.error = returned.error();
    record.bound_port = sock::port::<B::Memory>(sk);
    record.own_range = sock::own_range::<Far<B>>(sk);
    if record.error == EACCES {
        let user_ns = Far::<B>::load(sock::net::<B::Memory>(sk), offset!(net_user_ns));
        set(&mut record.flags, caller.task.may_bind_low(user_ns));
    }
    if !detailed(detail::REST) {
        sock::shares::<B::Memory>(record, sk);
        // A parent that has the port is no second run.
        caller.relate(&mut record.task, &mut record.present);
    }
    // Who may not is a part of the answer.
    record.task.uid = task::uid();
    if returned.refused_by_policy {
        set(&mut record.flags, flags::REFUSED_BY_POLICY);
    }
    asked(record, request);
    timed(record, now, returned.started);

    entry.submit();
}

/// Sends the owners of the port when it is in use. `address`: the one asked for, as its two words in
/// memory, IPv4 in the first half of the first. Who refuses by policy may say so too (bpf_set_retval()), and has not
/// looked who has the port.
#[inline(always)]
pub(crate) fn explain<B: Backend>(
    sk: Ptr,
    kind: Kind,
    returned: Returned,
    port: u16,
    address: [u64; 2],
) {
    if returned.error() == EADDRINUSE && !returned.refused_by_policy {
        send_owners::<B>(sk, kind, port, address, asked::REFUSED);
    }
}

/// Sends the owners of a port. `refused`: [`asked::REFUSED`], or 0.
#[inline(always)]
fn send_owners<B: Backend>(sk: Ptr, kind: Kind, port: u16, address: [u64; 2], refused: u64) {
    if port != 0 && (kind.is_tcp() || kind.is_udp()) {
        let [first, second] = address;
        let of = if kind.is_tcp() { asked::TCP } else { 0 };
        B::Generation::send_owners(number(sk), u64::from(port) | of | refused, first, second);
        say(note::OWNERS, u64::from(port));
    }
}

/// Writes the address that was asked for as the local end.
#[inline(always)]
fn asked(record: &mut SocketRecord, request: &Request) {
    if let Some(family) = request.address(&mut record.local_address) {
        record.address_family = family;
        set(&mut record.present, present::LOCAL_ADDRESS);
    }
    if request.has_port() {
        record.local_port = request.port();
        set(&mut record.present, present::LOCAL_PORT);
        if request.port() == 0 {
            set(&mut record.flags, flags::AUTO_PORT);
        }
    }
}
