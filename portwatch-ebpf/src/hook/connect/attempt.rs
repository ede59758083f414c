//! Attempts whose outcome is open.

use portwatch_ebpf::abi::record::{SocketRecord, flags, loss, op};

use super::{Backend, Far, errno::is_answer, note, put_port, told};
use crate::{
    emit, filter,
    hook::{common, timed, unknown},
    kernel::{
        image,
        memory::{Memory, Ptr, config, offset, set},
        sock::{self, Kind},
        syscall,
        task::{Caller, Current},
    },
    state::{
        attempts::{CONNECTING, ever, happened, note_of, outcome, phase, remember},
        scratch,
    },
};

/// A TCP socket has entered SYN_SENT. Its peer is known, its port not yet.
#[inline(always)]
pub(crate) fn begins<B: Backend>(sk: Ptr) {
    if !filter::op(op::CONNECT) {
        return;
    }
    if happened::<{ ever::WAITED }>() {
        // What an earlier socket at this address has left, if its end was missed.
        let _ = CONNECTING.remove(sk as u64);
    }
    if config!(connect_returns_by_syscall) == 0 {
        return;
    }
    let Some(kind) = Kind::of::<B::Memory>(sk) else {
        return;
    };
    // The outer socket of MPTCP changes state too; the attempt is the inner one's.
    if kind.is_tcp() && !kind.is_mptcp() {
        if let Some(note) = note::about::<B>(sk) {
            let own = note.sk;
            note::forget(note, own);
        }
        told::take::<B>(sk, 0);
        // Through io_uring, or by a send that connects on its way, no connect() returns.
        let phase = if syscall::is_connect(Current::<B::Generation>::get().syscall()) {
            phase::CALLING
        } else {
            0
        };
        wait::<B>(sk, kind, emit::now(), phase);
    }
}

/// Lets an attempt wait for its outcome. `began`: 0 where that is not known. The socket is locked by
/// the caller.
#[inline(always)]
pub(super) fn wait<B: Backend>(sk: Ptr, kind: Kind, began: u64, phase: u8) {
    if !kind.wanted() || !filter::caller() || !filter::netns::<B::Memory>(sk) {
        return;
    }
    if !filter::peer_port(sock::peer_port::<B::Memory>(sk)) {
        return;
    }
    let Some(caller) = Caller::get() else {
        return;
    };
    image::announce::<B::Generation>(&caller);
    let Some(record) = scratch(B::ROOM) else {
        return;
    };
    common::<B>(record, op::CONNECT, sk, kind, &caller);
    sock::peer::<B::Memory>(record, sk, kind.family);
    if !sock::chose_port::<B::Memory>(sk) {
        set(&mut record.flags, flags::AUTO_PORT);
    }
    if began == 0 {
        record.time = emit::now();
        record.phase = phase | phase::LATE;
    } else {
        record.time = began;
        record.phase = phase;
    }
    // Before it waits: whoever ends it looks only then.
    remember::<{ ever::WAITED }>();
    #[expect(
        clippy::needless_borrows_for_generic_args,
        reason = "without it 200 bytes are copied to the stack"
    )]
    let inserted = CONNECTING.insert(sk as u64, &*record, 0);
    if inserted.is_err() {
        emit::lost(loss::TABLE_FULL);
    }
}

/// The attempt of a socket that waits for its outcome.
#[inline(always)]
pub(super) fn attempt(sk: Ptr) -> Option<*mut SocketRecord> {
    if happened::<{ ever::WAITED }>() {
        CONNECTING.get_ptr_mut(sk as u64)
    } else {
        None
    }
}

/// Whether an attempt of this socket waits for its outcome.
#[inline(always)]
pub(crate) fn waits(sk: Ptr) -> bool {
    attempt(sk).is_some()
}

/// A TCP socket has gone from SYN_SENT to SYN_RECV: both ends connect at once, or a socket to itself
/// (RFC 9293, 3.5). Only then do changes from SYN_RECV, which every accepted connection goes through,
/// need a look.
#[inline(always)]
pub(crate) fn meets(sk: Ptr) {
    if filter::op(op::CONNECT) && waits(sk) {
        remember::<{ ever::MET }>();
    }
}

/// A TCP socket has left SYN_SENT: established, or closed with or without an error.
#[inline(always)]
pub(crate) fn ends<B: Backend>(sk: Ptr, established: bool) {
    if !filter::op(op::CONNECT) {
        return;
    }
    let key = sk as u64;
    let mut error = if established {
        0
    } else {
        B::Memory::load::<u32>(sk, offset!(sk_err))
    };
    let end = if established {
        outcome::ESTABLISHED
    } else {
        outcome::FAILED
    };
    let Some(record) = attempt(sk) else {
        // Where attempts wait from SYN_SENT on, it is none of ours.
        if config!(connect_returns_by_syscall) == 0 {
            note::leave::<B>(sk, end, error, 0);
        }
        return;
    };
    // SAFETY: an entry of our map. The socket is locked by whoever changes its state, so nobody else
    // handles this attempt now, but for the return of its call, which writes `phase`.
    let record = unsafe { &mut *record };
    let peer = sock::peer_port::<B::Memory>(sk);
    if peer != 0 && record.peer_port != 0 && peer != record.peer_port {
        // Of an earlier socket at this address, whose end was missed.
        let _ = CONNECTING.remove(key);
        return;
    }
    let calling = record.phase & phase::CALLING != 0;
    if !established && error == 0 {
        if calling {
            // The call itself fails right now; its return knows why.
            note::leave::<B>(sk, end, 0, record.time);
            let _ = CONNECTING.remove(key);
            return;
        }
        error = inner_error::<B>(sk, record.time);
    }
    let family = record.family;
    sock::local::<B::Memory>(record, sk, family);
    if !established {
        // The port is already given back (`skc_num` is 0), its number survives.
        put_port(record, sock::source_port::<Far<B>>(sk));
    }
    record.error = error;
    if !established && error == 0 {
        unknown(record);
    }
    tell(record);
    let _ = CONNECTING.remove(key);
    // The return of the call cannot tell such an errno from one of its own.
    if config!(connect_returns_by_syscall) != 0 && error != 0 && (calling || !is_answer(error)) {
        told::leave::<B>(sk, error);
    }
}

/// The error of an MPTCP socket that closes: it is still with the TCP socket inside, whose own end
/// has just left a note of it (net/mptcp/protocol.c, `__mptcp_error_report`). One from before this
/// attempt began is an earlier attempt's.
#[inline(always)]
fn inner_error<B: Backend>(sk: Ptr, began: u64) -> u32 {
    let inner = sock::inner::<Far<B>>(sk);
    if inner.is_null() {
        return 0;
    }
    let own = inner as u64;
    let note = note_of(own);
    if note.sk == own && note.at >= began {
        note.error
    } else {
        0
    }
}

/// Hands over an attempt that has waited, if the filters that need its outcome let it pass.
#[inline(always)]
fn tell(record: &mut SocketRecord) {
    let failed = record.error;
    if !filter::outcome(failed) {
        return;
    }
    if !filter::local_port(record.local_port) {
        return;
    }
    let late = record.phase & phase::LATE != 0;
    let started = if late { 0 } else { record.time };
    timed(record, emit::now(), started);
    emit::stamp(record);
    emit::copy(record);
}
