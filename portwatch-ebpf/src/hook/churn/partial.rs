//! What the tracepoint for changes of a TCP socket's state tells of ports, for ways in that see no more: a
//! port is told as taken when the attempt that took it ends, and none as given back.

use portwatch_ebpf::abi::{
    calls::Function,
    churn::{Hold, how},
};

use super::{Backend, EADDRINUSE, EADDRNOTAVAIL, Far, Kind, Lock, key, older, told, words};
use crate::{
    emit,
    kernel::{
        memory::{Memory, Ptr, offset},
        sock::{self, state as tcp},
        task,
    },
    state::{
        calls::{start, take_start},
        churn::holds::{self, Holder},
    },
};

/// A TCP socket changes state (net/ipv4/af_inet.c, `inet_sk_set_state`).
#[inline(always)]
pub(crate) fn state_changed<B: Backend>(sk: Ptr, old: u8, new: u8) {
    if new == tcp::SYN_SENT {
        begins::<B>(sk);
    } else if old == tcp::SYN_SENT {
        ends::<B>(sk, new);
    } else if old == tcp::CLOSE && new == tcp::LISTEN && sock::port::<B::Memory>(sk) == 0 {
        // listen() is going to take one; whether there is one, its return tells.
        start(task::ids(), Function::Listen, emit::now());
    }
}

/// An attempt to connect begins. Without a port it takes one next.
#[inline(always)]
fn begins<B: Backend>(sk: Ptr) {
    if sock::port::<B::Memory>(sk) != 0 {
        return;
    }
    let hold = Hold {
        since: 0,
        row: 0,
        look: 0,
        // Of an earlier attempt.
        port: sock::source_port::<Far<B>>(sk),
        place: 0,
        how: how::CONNECT,
        waits: 0,
        home: 0,
    };
    // Of a socket whose memory was another's; or there is no room, and it is not counted.
    let holder = Holder::without_port(sk);
    let old = holds::of(holder).map(|found| {
        // SAFETY: an entry of our map, which goes below.
        (found, unsafe { *found.hold })
    });
    if let Some((found, old)) = old {
        holds::forget(holder, found, &old);
    }
    let _ = holds::keep(holder, hold, |_| {});
}

/// It ends, however that may be. Closed, the socket no longer has the port, and the last number it had
/// remains: none, or that of an earlier attempt, where there was no port to take.
#[inline(always)]
fn ends<B: Backend>(sk: Ptr, new: u8) {
    let holder = Holder::without_port(sk);
    let Some(found) = holds::of(holder) else {
        return;
    };
    // SAFETY: an entry of our map, which goes below.
    let before = unsafe { *found.hold };
    holds::forget(holder, found, &before);
    let family = older::family_of::<B>(sk, B::Memory::load::<u16>(sk, offset!(skc_family)));
    let mut key = key::<B>(sk, family, how::CONNECT);
    key.transport = sock::IPPROTO_TCP;
    key.peer = words::<B>(sk, family, offset!(skc_daddr), offset!(skc_v6_daddr));
    key.peer_port = sock::peer_port::<B::Memory>(sk);
    let none = new == tcp::CLOSE
        && B::Memory::load::<u32>(sk, offset!(sk_err)) == 0
        && sock::source_port::<Far<B>>(sk) == before.port;
    let error = if none { EADDRNOTAVAIL } else { 0 };
    told::<B>(sk, key, error, emit::now(), 0, Lock::Released);
}

/// listen() has returned.
#[inline(always)]
pub(crate) fn listened<B: Backend>(sk: Ptr, error: u32) {
    if take_start(task::ids(), Function::Listen) == 0 {
        return;
    }
    let Some(kind) = Kind::of::<B::Memory>(sk) else {
        return;
    };
    if error != 0 && error != EADDRINUSE {
        return;
    }
    let mut key = key::<B>(sk, kind.family, how::LISTEN);
    key.transport = sock::IPPROTO_TCP;
    told::<B>(sk, key, error, emit::now(), 0, Lock::Released);
}
