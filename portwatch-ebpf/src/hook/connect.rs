//! connect(), from the call to the moment it is established or refused.
//!
//! TCP: when a call returns and the outcome is known, that is the event; what the socket has lost by
//! then (the moment, the local end of a failure) was noted at its last change of state. Where the
//! outcome is open, the event waits in `CONNECTING`, complete but for its outcome, so that it names
//! the caller and nobody else, in whatever context the answer arrives.
//!
//! A way in that does not see every call return (raw tracepoints: io_uring, sends that connect) lets
//! the event wait from the moment the socket enters SYN_SENT, in the caller's context.

use portwatch_ebpf::abi::record::{SocketRecord, flags, op, present};

use super::{Backend, Far, Returned, common, timed};
use crate::{
    emit::{self, Entry},
    filter,
    kernel::{
        image,
        memory::{Memory, Ptr, offset, set},
        request::Request,
        sock::{self, Kind, state as tcp},
        task::Caller,
    },
    state::attempts::{Note, ever, note_room, outcome, remember},
};

mod attempt;
mod errno;
mod note;
mod told;

pub(crate) use attempt::{begins, ends, meets, waits};
use errno::{goes_on, is_answer};

/// The search for a port has found none. `inet_sport` is then an earlier attempt's; only `skc_num`, which
/// bind() sets, counts.
const EADDRNOTAVAIL: u32 = 99;

/// Dissolves an association. Also what an unreadable address counts as.
const AF_UNSPEC: u16 = 0;

/// How an attempt has ended, as far as its call does not say: from the note of it, else from the
/// socket. It lies in the room of the program, for the reason that a [`Request`] does.
#[inline(always)]
fn end_of<B: Backend, const NOTED: bool>(
    sk: Ptr,
    started: u64,
    error: u32,
) -> Option<&'static Note> {
    let end = note_room(B::ROOM)?;
    end.at = emit::now();
    end.began = started;
    end.outcome = outcome::FAILED;
    note::local_address::<B>(end, sk);
    end.port = u32::from(sock::port::<B::Memory>(sk));
    // No answer without SYN_SENT, and hardly a way out of there without a note: another socket has taken
    // it. Two ends that connect at once (SYN_RECV) leave none either, and a cgroup program may refuse with
    // such an errno: then the address is left out too.
    end.gone = u32::from(NOTED && is_answer(error));
    end.found = 0;
    if NOTED && let Some(note) = note::of_call::<B>(sk, started) {
        let Note {
            sk: own,
            at,
            began,
            address,
            port,
            outcome,
            error: _,
            gone: _,
            found: _,
            reserved: _,
        } = *note;
        if note::forget(note, own) {
            end.found = 1;
            end.at = at;
            end.began |= began;
            end.address = address;
            if error != EADDRNOTAVAIL {
                end.port = port;
            }
            end.outcome = outcome;
            end.gone = 0;
        }
    }
    Some(end)
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

/// A connect() of a TCP socket has returned that was not about an attempt of an earlier one, and the
/// socket is locked by the caller.
#[inline(always)]
pub(crate) fn stream_returned<B: Backend>(
    sk: Ptr,
    returned: Returned,
    request: impl FnOnce() -> Option<&'static Request>,
) {
    if !filter::op(op::CONNECT) || returned.is_neither() {
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
            remember::<{ ever::MET }>();
        }
        attempt::wait::<B>(sk, kind, returned.started, 0);
    } else {
        established::<B>(sk, kind, returned.started);
    }
}

/// Whether a connect() of which nothing but its return is known is about the attempt of an earlier call:
/// it waits, or its outcome was told from where it waited, which leaves no note.
#[inline(always)]
pub(crate) fn is_of_earlier_call<B: Backend>(sk: Ptr, returned: Returned) -> bool {
    let error = returned.error();
    waits(sk) || (error == 0 || is_answer(error)) && note::about::<B>(sk).is_none()
}

/// A connect() of a TCP socket has returned, on a way in where the event waits from SYN_SENT on: left
/// to tell is what never came there, or not further.
#[inline(always)]
pub(crate) fn stream_returned_late<B: Backend>(
    sk: Ptr,
    returned: Returned,
    request: impl FnOnce() -> Option<&'static Request>,
) {
    if !filter::op(op::CONNECT) || returned.is_neither() {
        return;
    }
    let error = returned.error();
    let told = told::take::<B>(sk, error);
    if error == 0 || goes_on(error) {
        if let Some(record) = attempt::attempt(sk) {
            // SAFETY: a member of an entry of our map that nobody else writes.
            unsafe { (*record).phase = 0 };
        }
        return;
    }
    // No answer without SYN_SENT, where the attempt began to wait, and what the call itself has to tell of
    // it then is noted: told when it arrived, to this call or to an earlier one on the socket.
    if told || is_answer(error) && note::about::<B>(sk).is_none() {
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
    let at = match note::of_call::<B>(sk, started) {
        Some(note) => {
            let (own, at) = (note.sk, note.at);
            if note::forget(note, own) {
                at
            } else {
                emit::now()
            }
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
    if filter::op(op::CONNECT) && !returned.is_neither() {
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
    if error != 0 {
        record.own_range = sock::own_range::<Far<B>>(sk);
    }
    if returned.refused_by_policy {
        set(&mut record.flags, flags::REFUSED_BY_POLICY);
    }
    // It had come as far as SYN_SENT, where a port is looked for (net/ipv4/tcp_ipv4.c,
    // `tcp_v4_connect`). IPv6 also says EADDRNOTAVAIL where it has no address to send from.
    if error == EADDRNOTAVAIL && port == 0 && end.found != 0 {
        set(&mut record.flags, flags::NO_PORT_LEFT);
    }
    if !sock::chose_port::<B::Memory>(sk) {
        set(&mut record.flags, flags::AUTO_PORT);
    }
    timed(record, end.at, end.began);

    entry.submit();
}
