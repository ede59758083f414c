//! connect(), from the call to the moment it is established or refused.
//!
//! TCP: an attempt begins when the socket enters SYN_SENT, in the caller's context, and ends when it
//! leaves it, in whatever context the answer arrives. In between the event waits in `CONNECTING`,
//! complete but for its outcome, so that it names the caller and nobody else. Calls that never get
//! as far as SYN_SENT are told when they return.

use portwatch_ebpf::abi::record::{SocketRecord, flags, loss, op, present};

use super::{Backend, Returned, common, timed, unknown};
use crate::{
    emit::{self, Entry},
    filter,
    kernel::{
        image,
        memory::{Memory, Ptr, config, offset, set},
        request::Request,
        sock::{self, Kind},
        syscall,
        task::{self, Caller, Current},
    },
    state::{self, CONNECTING, phase},
};

/// Dissolves an association. Also what an unreadable address counts as.
const AF_UNSPEC: u16 = 0;

/// What an errno of connect() means: a table for the reason that `sock::PROTOCOLS` is one.
#[expect(clippy::indexing_slicing, reason = "evaluated when it is compiled")]
#[unsafe(no_mangle)]
static MEANINGS: [u8; 1024] = {
    let mut table = [0u8; 1024];
    let mut number = 0;
    while number < table.len() {
        table[number] = match number {
            // EINTR, EALREADY, EINPROGRESS; ERESTARTSYS to ERESTARTNOHAND and ERESTART_RESTARTBLOCK
            // (include/linux/errno.h)
            4 | 114 | 115 | 512..=516 => GOES_ON,
            // ECONNABORTED, ECONNRESET, ETIMEDOUT, ECONNREFUSED
            103 | 104 | 110 | 111 => ANSWER,
            _ => 0,
        };
        number += 1;
    }
    table
};

/// The attempt goes on although the call has returned.
const GOES_ON: u8 = 1;
/// An answer (or the lack of one), never the call itself, brings this errno.
const ANSWER: u8 = 2;

#[inline(always)]
fn meaning(error: u32) -> u8 {
    MEANINGS
        .get(error as usize & (MEANINGS.len() - 1))
        .copied()
        .unwrap_or(0)
}

/// Whether the attempt goes on although the call has returned.
#[inline(always)]
fn goes_on(error: u32) -> bool {
    meaning(error) & GOES_ON != 0
}

/// Whether an errno comes from an answer (or the lack of one), never from the call itself.
#[inline(always)]
pub(crate) fn is_answer(error: u32) -> bool {
    meaning(error) & ANSWER != 0
}

/// A TCP socket has entered SYN_SENT. Its peer is known, its port not yet.
#[inline(always)]
pub(crate) fn begins<B: Backend>(sk: Ptr) {
    if !filter::op(op::CONNECT) {
        return;
    }
    let Some(kind) = Kind::of::<B::Memory>(sk) else {
        return;
    };
    // The outer socket of MPTCP changes state too; the attempt is the inner one's.
    if !kind.is_tcp() || kind.is_mptcp() || !kind.wanted() {
        return;
    }
    if !filter::caller() || !filter::netns::<B::Memory>(sk) {
        return;
    }
    let peer = u16::from_be(B::Memory::load::<u16>(sk, offset!(skc_dport)));
    if !filter::peer_port(peer) {
        return;
    }
    let caller = Caller::get();
    image::announce::<B::Repeat>(&caller);
    let Some(attempt) = state::scratch() else {
        return;
    };
    attempt.phase = if return_is_seen() {
        phase::CALLING
    } else {
        phase::RETURNED
    };
    attempt.reserved = 0;
    let record = &mut attempt.record;
    common::<B>(record, op::CONNECT, sk, kind, &caller);
    sock::peer::<B::Memory>(record, sk, kind.family);
    if !sock::chose_port::<B::Memory>(sk) {
        set(&mut record.flags, flags::AUTO_PORT);
    }
    record.time = emit::now();
    #[expect(
        clippy::needless_borrows_for_generic_args,
        reason = "without it 200 bytes are copied to the stack"
    )]
    let inserted = CONNECTING.insert(key::<B::Memory>(sk), &*attempt, 0);
    if inserted.is_err() {
        emit::lost(loss::TABLE_FULL);
    }
}

/// Whether the return of the call that begins an attempt will be seen. Through io_uring, or by a send
/// that connects on its way, there is no connect() to return from.
#[inline(always)]
fn return_is_seen() -> bool {
    config!(connect_returns_by_syscall) == 0 || syscall::is_connect(Current::get().syscall())
}

/// A TCP socket has gone from SYN_SENT to SYN_RECV: both ends connect at once, or a socket to itself
/// (RFC 9293, 3.5). Only then do changes from SYN_RECV, which every accepted connection goes through,
/// need a look.
#[inline(always)]
pub(crate) fn meets<B: Backend>(sk: Ptr) {
    if filter::op(op::CONNECT) && CONNECTING.get_ptr(key::<B::Memory>(sk)).is_some() {
        state::note_meeting();
    }
}

/// A TCP socket has left SYN_SENT: established, or closed with or without an error.
#[inline(always)]
pub(crate) fn ends<B: Backend>(sk: Ptr, established: bool) {
    if !filter::op(op::CONNECT) {
        return;
    }
    let key = key::<B::Memory>(sk);
    let Some(attempt) = CONNECTING.get_ptr_mut(key) else {
        return;
    };
    // SAFETY: an entry of our map. The socket is locked by whoever changes its state, so nobody else
    // handles this attempt now.
    let attempt = unsafe { &mut *attempt };
    if attempt.phase == phase::TOLD {
        return;
    }
    let error = if established {
        0
    } else {
        B::Memory::load::<u32>(sk, offset!(sk_err))
    };
    let closed = !established && error == 0;
    if closed && attempt.phase == phase::CALLING {
        // The call itself fails right now; its return knows why.
        local_of_failure::<B>(&mut attempt.record, sk);
        return;
    }
    let record = &mut attempt.record;
    if established {
        let family = record.family;
        sock::local::<B::Memory>(record, sk, family);
    } else {
        local_of_failure::<B>(record, sk);
    }
    record.error = error;
    if closed {
        unknown(record);
    }
    tell(record);
    if attempt.phase == phase::CALLING {
        attempt.phase = phase::TOLD;
    } else {
        let _ = CONNECTING.remove(key);
    }
}

/// The local end of an attempt that failed: the port is already given back (`skc_num` is 0), the
/// number survives in `inet_sport`.
#[inline(always)]
fn local_of_failure<B: Backend>(record: &mut SocketRecord, sk: Ptr) {
    let family = record.family;
    sock::local::<B::Memory>(record, sk, family);
    record.local_port = sock::source_port(sk);
    if record.local_port == 0 {
        record.present &= !present::LOCAL_PORT;
    }
}

/// Hands over a finished attempt, if the filters that need its outcome let it pass.
#[inline(always)]
fn tell(record: &mut SocketRecord) {
    let failed = record.error;
    if !filter::outcome(failed) {
        return;
    }
    if !filter::local_port(record.local_port) {
        return;
    }
    let started = record.time;
    timed(record, emit::now(), started);
    emit::stamp(record);
    emit::copy(record);
}

/// A connect() of a TCP socket has returned. `retry`: the socket was already connecting when it was
/// called, and the attempt is told by the call that began it.
#[inline(always)]
pub(crate) fn stream_returned<B: Backend>(
    sk: Ptr,
    returned: Returned,
    retry: bool,
    request: impl FnOnce() -> Option<&'static Request>,
) {
    if !filter::op(op::CONNECT) {
        return;
    }
    let error = returned.error();
    let key = key::<B::Memory>(sk);
    if let Some(attempt) = CONNECTING.get_ptr_mut(key) {
        // SAFETY: an entry of our map; the socket is locked, or the call on it is over.
        let attempt = unsafe { &mut *attempt };
        if attempt.phase == phase::TOLD {
            let _ = CONNECTING.remove(key);
            // One whose return was missed says nothing about a later call on the same memory.
            if attempt.record.task.tid == task::ids().tid {
                return;
            }
        } else if error == 0 || goes_on(error) {
            attempt.phase = phase::RETURNED;
            return;
        } else if attempt.phase == phase::CALLING {
            let record = &mut attempt.record;
            record.error = error;
            tell(record);
            let _ = CONNECTING.remove(key);
            return;
        } else {
            return;
        }
    }
    if error == 0 || goes_on(error) || retry {
        return;
    }
    if let Some(request) = request() {
        never_began::<B>(sk, returned, request);
    }
}

/// A connect() that failed before anything was sent, or one of a datagram socket.
#[inline(always)]
fn never_began<B: Backend>(sk: Ptr, returned: Returned, request: &Request) {
    let Some(kind) = Kind::of::<B::Memory>(sk) else {
        return;
    };
    if !kind.wanted() || !filter::caller() || !filter::netns::<B::Memory>(sk) {
        return;
    }
    if request.family() == AF_UNSPEC {
        return;
    }
    let error = returned.error();
    if !filter::outcome(error) || !filter::peer_port(request.port()) {
        return;
    }
    let port = sock::port::<B::Memory>(sk);
    if !filter::local_port(port) {
        return;
    }
    let caller = Caller::get();
    image::announce::<B::Repeat>(&caller);
    let Some(mut entry) = Entry::reserve() else {
        return;
    };
    let record = entry.record();

    common::<B>(record, op::CONNECT, sk, kind, &caller);
    sock::local::<B::Memory>(record, sk, kind.family);
    if port == 0 {
        record.present &= !present::LOCAL_PORT;
    }
    if error == 0 {
        sock::peer::<B::Memory>(record, sk, kind.family);
    } else if let Some(family) = request.address(&mut record.peer_address) {
        record.peer_port = request.port();
        set(&mut record.present, present::PEER);
        if record.address_family != family {
            // A caller that mixes up families; one field tells the family of both ends.
            record.address_family = family;
            record.present &= !present::LOCAL_ADDRESS;
        }
    }
    record.error = error;
    if returned.refused_by_policy {
        set(&mut record.flags, flags::REFUSED_BY_POLICY);
    }
    if !sock::chose_port::<B::Memory>(sk) {
        set(&mut record.flags, flags::AUTO_PORT);
    }
    timed(record, emit::now(), returned.started);

    entry.submit();
}

/// A connect() of a datagram socket has returned: its outcome is known at once.
#[inline(always)]
pub(crate) fn datagram_returned<B: Backend>(
    sk: Ptr,
    returned: Returned,
    request: impl FnOnce() -> Option<&'static Request>,
) {
    if !filter::op(op::CONNECT) {
        return;
    }
    if let Some(request) = request() {
        never_began::<B>(sk, returned, request);
    }
}

/// A connect() was refused before the socket layer's own code ran.
#[inline(always)]
pub(crate) fn refused<B: Backend>(
    sk: Ptr,
    returned: Returned,
    request: impl FnOnce() -> Option<&'static Request>,
) {
    datagram_returned::<B>(sk, returned, request);
}

/// Attempts are kept under the socket the program holds: MPTCP's inner socket and the outer one name
/// the same attempt.
#[inline(always)]
fn key<M: Memory>(sk: Ptr) -> u64 {
    sock::held::<M>(sk) as u64
}
