//! connect(), from the call to the moment it is established or refused.
//!
//! TCP: when a call returns and the outcome is known, that is the event; what the socket has lost by
//! then (the moment, the local end of a failure) was noted at its last change of state. Where the
//! outcome is open, the event waits in `CONNECTING`, complete but for its outcome, so that it names
//! the caller and nobody else, in whatever context the answer arrives.
//!
//! A way in that does not see every call return (raw tracepoints: io_uring, sends that connect) lets
//! the event wait from the moment the socket enters SYN_SENT, in the caller's context.

use portwatch_ebpf::abi::record::{SocketRecord, flags, loss, op, present};

use super::{Backend, Far, Returned, common, timed, unknown};
use crate::{
    emit::{self, Entry},
    filter,
    kernel::{
        image,
        memory::{Memory, Ptr, config, number_in, offset, set},
        request::Request,
        sock::{self, Kind, state as tcp},
        syscall,
        task::{Caller, Current},
    },
    state::{self, CONNECTING, Note, ever, outcome, phase},
};

/// The search for a port has found none. `inet_sport` is then an earlier attempt's; only `skc_num`, which
/// bind() sets, counts.
const EADDRNOTAVAIL: u32 = 99;

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
fn is_answer(error: u32) -> bool {
    meaning(error) & ANSWER != 0
}

/// A TCP socket has entered SYN_SENT. Its peer is known, its port not yet.
#[inline(always)]
pub(crate) fn begins<B: Backend>(sk: Ptr) {
    if !filter::op(op::CONNECT) {
        return;
    }
    if config!(connect_returns_by_syscall) == 0 {
        if state::has(ever::WAITED) {
            // What an earlier socket at this address has left, if its end was missed.
            let _ = CONNECTING.remove(sk as u64);
        }
        return;
    }
    let Some(kind) = Kind::of::<B::Memory>(sk) else {
        return;
    };
    // The outer socket of MPTCP changes state too; the attempt is the inner one's.
    if kind.is_tcp() && !kind.is_mptcp() {
        if let Some(note) = note_about::<B>(sk) {
            note.sk = 0;
        }
        // Through io_uring, or by a send that connects on its way, no connect() returns.
        let phase = if syscall::is_connect(Current::<B::Generation>::get().syscall()) {
            phase::CALLING
        } else {
            0
        };
        wait::<B>(sk, kind, emit::now(), phase);
    }
}

/// Lets an attempt wait for its outcome. The socket is locked by the caller.
#[inline(always)]
fn wait<B: Backend>(sk: Ptr, kind: Kind, began: u64, phase: u16) {
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
    let Some(record) = state::scratch(B::ROOM) else {
        return;
    };
    common::<B>(record, op::CONNECT, sk, kind, &caller);
    sock::peer::<B::Memory>(record, sk, kind.family);
    if !sock::chose_port::<B::Memory>(sk) {
        set(&mut record.flags, flags::AUTO_PORT);
    }
    record.time = began;
    record.header.kind = phase;
    // Before it waits: whoever ends it looks only then.
    state::note(ever::WAITED);
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
fn attempt(sk: Ptr) -> Option<*mut SocketRecord> {
    if state::has(ever::WAITED) {
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
        state::note(ever::MET);
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
    let outcome = if established {
        outcome::ESTABLISHED
    } else {
        outcome::FAILED
    };
    let Some(record) = attempt(sk) else {
        // Where attempts wait from SYN_SENT on, it is none of ours.
        if config!(connect_returns_by_syscall) == 0 {
            leave_note::<B>(sk, outcome, error, 0);
        }
        return;
    };
    // SAFETY: an entry of our map. The socket is locked by whoever changes its state, so nobody else
    // handles this attempt now.
    let record = unsafe { &mut *record };
    let calling = record.header.kind == phase::CALLING;
    if !established && error == 0 {
        if calling {
            // The call itself fails right now; its return knows why.
            leave_note::<B>(sk, outcome, 0, record.time);
            let _ = CONNECTING.remove(key);
            return;
        }
        error = inner_error::<B>(sk);
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
        leave_note::<B>(sk, outcome::TOLD, error, 0);
    }
}

/// The error of an MPTCP socket that closes: it is still with the TCP socket inside, whose own end
/// has just left a note of it (net/mptcp/protocol.c, `__mptcp_error_report`).
#[inline(always)]
fn inner_error<B: Backend>(sk: Ptr) -> u32 {
    let inner = sock::inner::<Far<B>>(sk);
    if inner.is_null() {
        return 0;
    }
    let own = inner as u64;
    match state::note_of(own) {
        Some(note) if note.sk == own => note.error,
        _ => 0,
    }
}

/// Notes what the return of the call will not find in the socket.
#[inline(always)]
fn leave_note<B: Backend>(sk: Ptr, outcome: u32, error: u32, began: u64) {
    let own = number_in(B::ROOM, sk);
    let Some(note) = state::note_of(own) else {
        return;
    };
    let whose = &raw mut note.sk;
    // SAFETY: a member of ours.
    unsafe { whose.write_volatile(0) };
    note.at = emit::now();
    note.began = began;
    note.outcome = outcome;
    note.error = error;
    local_address::<B>(note, sk);
    note.port = u32::from(if outcome == outcome::ESTABLISHED {
        sock::port::<B::Memory>(sk)
    } else {
        sock::source_port::<Far<B>>(sk)
    });
    // SAFETY: as above.
    unsafe { whose.write_volatile(own) };
}

/// The note about a socket.
#[inline(always)]
fn note_about<B: Backend>(sk: Ptr) -> Option<&'static mut Note> {
    let own = number_in(B::ROOM, sk);
    state::note_of(own).filter(|note| note.sk == own)
}

/// The note of an attempt that has ended since its call began. Where attempts wait from SYN_SENT on a
/// note is always of the call that returns; elsewhere one without a beginning fits none.
#[inline(always)]
fn noted<B: Backend>(sk: Ptr, started: u64) -> Option<&'static mut Note> {
    note_about::<B>(sk).filter(|note| {
        config!(connect_returns_by_syscall) != 0 || started != 0 && note.at >= started
    })
}

/// How an attempt has ended, as far as its call does not say: from the note of it, else from the
/// socket. It lies in the room of the program, for the reason that a [`Request`] does.
#[inline(always)]
fn end_of<B: Backend, const NOTED: bool>(
    sk: Ptr,
    started: u64,
    error: u32,
) -> Option<&'static Note> {
    let end = state::note_room(B::ROOM)?;
    end.at = emit::now();
    end.began = started;
    end.outcome = outcome::FAILED;
    local_address::<B>(end, sk);
    end.port = u32::from(sock::port::<B::Memory>(sk));
    // No answer without SYN_SENT, and no way out of there without a note: another socket has taken it.
    // A cgroup program that refuses with such an errno looks the same, and then the address is left out.
    end.gone = u32::from(NOTED && is_answer(error));
    if NOTED && let Some(note) = noted::<B>(sk, started) {
        let Note {
            sk: own,
            at,
            began,
            address,
            port,
            outcome,
            error: _,
            gone: _,
        } = *note;
        // SAFETY: a member of ours. Another socket may have taken the slot meanwhile.
        if unsafe { (&raw const note.sk).read_volatile() } == own {
            end.at = at;
            end.began |= began;
            end.address = address;
            if error != EADDRNOTAVAIL {
                end.port = port;
            }
            end.outcome = outcome;
            end.gone = 0;
        }
        note.sk = 0;
    }
    Some(end)
}

/// Writes the local address to a note.
#[inline(always)]
fn local_address<B: Backend>(note: &mut Note, sk: Ptr) {
    note.address = [0; 2];
    let family = B::Memory::load::<u16>(sk, offset!(skc_family));
    let (v4, v6) = (offset!(skc_rcv_saddr), offset!(skc_v6_rcv_saddr));
    let address = (&raw mut note.address).cast();
    let _ = sock::address::<B::Memory>(address, sk, family, v4, v6);
}

/// Writes a port; 0 is none.
#[inline(always)]
fn put_port(record: &mut SocketRecord, port: u16) {
    record.local_port = port;
    if port == 0 {
        record.present &= !present::LOCAL_PORT;
    } else {
        set(&mut record.present, present::LOCAL_PORT);
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
    let started = record.time;
    timed(record, emit::now(), started);
    emit::stamp(record);
    emit::copy(record);
}

/// A connect() of a TCP socket has returned that was not about an attempt of an earlier one, and the
/// socket is locked by the caller.
#[inline(always)]
pub(crate) fn stream_returned<B: Backend>(
    sk: Ptr,
    returned: Returned,
    request: impl FnOnce() -> Option<&'static Request>,
) {
    if !filter::op(op::CONNECT) {
        return;
    }
    let error = returned.error();
    let now_in = B::Memory::load::<u8>(sk, offset!(skc_state));
    let open = error == 0 || goes_on(error);
    if !open || now_in == tcp::CLOSE {
        // A signal may have ended the call together with the attempt.
        let error = if open {
            B::Memory::load::<u32>(sk, offset!(sk_err))
        } else {
            error
        };
        // Without one it was connect(AF_UNSPEC) on a socket without an attempt.
        if error != 0 {
            let code = (error as i32).wrapping_neg();
            known::<B, true>(sk, Returned { code, ..returned }, request);
        }
        return;
    }
    let Some(kind) = Kind::of::<B::Memory>(sk) else {
        return;
    };
    if !kind.is_tcp() {
        return;
    }
    if now_in == tcp::SYN_SENT || now_in == tcp::SYN_RECV {
        if now_in == tcp::SYN_RECV {
            // It went there before it waited.
            state::note(ever::MET);
        }
        wait::<B>(sk, kind, returned.started, 0);
    } else {
        established::<B>(sk, kind, returned.started);
    }
}

/// A connect() of a TCP socket has returned, on a way in where the event waits from SYN_SENT on: left
/// to tell is what never came there, or not further.
#[inline(always)]
pub(crate) fn stream_returned_late<B: Backend>(
    sk: Ptr,
    returned: Returned,
    request: impl FnOnce() -> Option<&'static Request>,
) {
    if !filter::op(op::CONNECT) {
        return;
    }
    let error = returned.error();
    if error == 0 || goes_on(error) {
        if let Some(record) = attempt(sk) {
            // SAFETY: an aligned member of an entry of our map.
            unsafe { (*record).header.kind = 0 };
        }
        return;
    }
    if let Some(note) = note_about::<B>(sk) {
        let told = note.outcome == outcome::TOLD;
        if told {
            note.sk = 0;
        }
        // With another errno it is of an earlier socket at this address.
        if told && note.error == error {
            return;
        }
    } else if is_answer(error) {
        // Told when it arrived.
        return;
    }
    known::<B, true>(sk, returned, request);
}

/// A connect() has returned and the connection stands.
#[inline(always)]
fn established<B: Backend>(sk: Ptr, kind: Kind, started: u64) {
    if !filter::outcome(0) || !kind.wanted() || !filter::caller() || !filter::netns::<B::Memory>(sk)
    {
        return;
    }
    let port = sock::port::<B::Memory>(sk);
    if !filter::local_port(port) || !filter::peer_port(sock::peer_port::<B::Memory>(sk)) {
        return;
    }
    let Some(caller) = Caller::get() else {
        return;
    };
    image::announce::<B::Generation>(&caller);
    let at = match noted::<B>(sk, started) {
        Some(note) => {
            note.sk = 0;
            note.at
        }
        None => emit::now(),
    };
    let Some(mut entry) = Entry::reserve() else {
        return;
    };
    let record = entry.record();

    common::<B>(record, op::CONNECT, sk, kind, &caller);
    sock::local::<B::Memory>(record, sk, kind.family);
    sock::peer::<B::Memory>(record, sk, kind.family);
    if !sock::chose_port::<B::Memory>(sk) {
        set(&mut record.flags, flags::AUTO_PORT);
    }
    timed(record, at, started);

    entry.submit();
}

/// A connect() of a datagram socket has returned: its outcome is known at once. Or one of any socket
/// was refused before the socket layer's own code ran.
#[inline(always)]
pub(crate) fn returned_at_once<B: Backend>(
    sk: Ptr,
    returned: Returned,
    request: impl FnOnce() -> Option<&'static Request>,
) {
    if filter::op(op::CONNECT) {
        known::<B, false>(sk, returned, request);
    }
}

/// A connect() whose outcome its return tells: a failure, or any of a datagram socket. `NOTED`: its
/// socket may have left a note.
#[inline(always)]
fn known<B: Backend, const NOTED: bool>(
    sk: Ptr,
    returned: Returned,
    request: impl FnOnce() -> Option<&'static Request>,
) {
    let Some(request) = request() else {
        return;
    };
    let Some(kind) = Kind::of::<B::Memory>(sk) else {
        return;
    };
    if !kind.wanted() || !filter::caller() || !filter::netns::<B::Memory>(sk) {
        return;
    }
    if request.family() == AF_UNSPEC {
        return;
    }
    if !filter::peer_port(request.port()) {
        return;
    }
    let Some(end) = end_of::<B, NOTED>(sk, returned.started, returned.error()) else {
        return;
    };
    // A connection may be reset before its call returns: it stood all the same.
    let error = if NOTED && end.outcome == outcome::ESTABLISHED {
        0
    } else {
        returned.error()
    };
    if !filter::outcome(error) {
        return;
    }
    let port = end.port as u16;
    if !filter::local_port(port) {
        return;
    }
    let Some(caller) = Caller::get() else {
        return;
    };
    image::announce::<B::Generation>(&caller);
    let Some(mut entry) = Entry::reserve() else {
        return;
    };
    let record = entry.record();

    common::<B>(record, op::CONNECT, sk, kind, &caller);
    record.address_family = kind.family;
    if end.gone == 0 {
        set(&mut record.present, present::LOCAL_ADDRESS);
        // SAFETY: sixteen bytes; records keep addresses aligned.
        unsafe {
            (&raw mut record.local_address)
                .cast::<[u64; 2]>()
                .write(end.address);
        }
    }
    put_port(record, port);
    if returned.error() == 0 {
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
    timed(record, end.at, end.began);

    entry.submit();
}
