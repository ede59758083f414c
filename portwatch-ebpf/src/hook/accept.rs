//! accept(): a connection that came in gets a process.

use portwatch_ebpf::abi::record::op;

use super::{Backend, Far, Returned, common, taken, timed};
use crate::{
    emit::{self, Entry},
    filter,
    kernel::{
        image,
        memory::{Ptr, number_in},
        sock::{self, Kind},
        task::Caller,
    },
};

/// include/uapi/asm-generic/errno-base.h
const EINTR: u32 = 4;
/// Likewise.
const EAGAIN: u32 = 11;
/// include/linux/errno.h: the first of those that no program gets to see, of calls that a signal has
/// interrupted and that are begun again.
const ERESTARTSYS: u32 = 512;

/// A connection has got the struct socket of whoever accepts it (include/net/sock.h, `sock_graft`), in
/// that task, which has slept until then.
#[inline(always)]
pub(crate) fn accepted<B: Backend>(sk: Ptr, started: u64) {
    let Some(kind) = Kind::of::<B::Memory>(sk) else {
        return;
    };
    if filter::op(op::RELEASE) {
        taken::by_caller::<B>(sk);
    }
    tell::<B>(sk, kind, 0, started);
}

/// An accept() on a listener has failed. Nothing was there, or nothing came in time, is no failure that is
/// told: programs that do not block ask all the time.
#[inline(always)]
pub(crate) fn failed<B: Backend>(listener: Ptr, returned: Returned) {
    let error = returned.error();
    if error == 0 || error == EINTR || error == EAGAIN || error >= ERESTARTSYS {
        return;
    }
    if let Some(kind) = Kind::of::<B::Memory>(listener)
        && !kind.is_udp()
    {
        tell::<B>(listener, kind, error, returned.started);
    }
}

#[inline(always)]
fn tell<B: Backend>(sk: Ptr, kind: Kind, error: u32, started: u64) {
    if !filter::op(op::ACCEPT) || !filter::outcome(error) {
        return;
    }
    if !kind.wanted() || !filter::caller() || !filter::netns::<B::Memory>(sk) {
        return;
    }
    // An MPTCP socket gets its addresses later than the TCP socket inside (6.1, net/mptcp/protocol.c,
    // mptcp_stream_accept).
    let ends = sock::acting::<Far<B>>(number_in(B::ROOM, sk) as Ptr);
    let mut port = sock::port::<Far<B>>(ends);
    if port == 0 {
        // The peer has reset it while it waited for this: it is off the port, whose number survives.
        port = sock::source_port::<Far<B>>(ends);
    }
    if !filter::local_port(port) || !filter::peer_port(sock::peer_port::<Far<B>>(ends)) {
        return;
    }
    let now = emit::now();
    let Some(caller) = Caller::get() else {
        return;
    };
    image::announce::<B::Generation>(&caller);
    let Some(mut entry) = Entry::reserve() else {
        return;
    };
    let record = entry.record();

    common::<B>(record, op::ACCEPT, sk, kind, &caller);
    sock::local::<Far<B>>(record, ends, kind.family);
    record.local_port = port;
    if error == 0 {
        sock::peer::<Far<B>>(record, ends, kind.family);
    }
    record.error = error;
    timed(record, now, started);

    entry.submit();
}
