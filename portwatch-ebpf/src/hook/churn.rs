//! Automatic ports: taken, parked in TIME_WAIT, given back, and refused.
//!
//! A port is automatic where the kernel chose it. Connections that came in have the port of their
//! listener, which is held once, by the listener.

use portwatch_ebpf::abi::{
    churn::{Counts, Hold, Key, Row, bucket, how},
    layout::ABSENT,
};

use super::{Backend, Far, Returned};
use crate::{
    emit, filter,
    kernel::{
        memory::{Memory, Ptr, add, config, offset, unknown},
        request::{AF_INET6, Request},
        sock::{self, Kind, state as tcp},
        task::Caller,
    },
    state::churn::{
        holds::{self, Holder, Kept},
        places, rows,
    },
};

mod given;
pub(crate) mod older;
pub(crate) mod partial;

pub(crate) use given::{given, waited, waits};

const EAGAIN: u32 = 11;
const EADDRINUSE: u32 = 98;
const EADDRNOTAVAIL: u32 = 99;

/// Whether the socket is locked while it is told of. bind() and inet_autobind() have let go of it when they return.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lock {
    Held,
    Released,
}

/// inet_hash_connect() or inet6_hash_connect() has returned (net/ipv4/inet_hashtables.c): a TCP socket that
/// connects has a port, or finds none. One that had a port before keeps it. `family` is that of the
/// addresses: an IPv6 socket connects to a v4-mapped peer as an IPv4 one.
#[inline(always)]
pub(crate) fn connected<B: Backend>(sk: Ptr, family: u16, returned: Returned) {
    let error = returned.error();
    if error == 0 {
        if sock::chose_port::<B::Memory>(sk) {
            return;
        }
    } else if error != EADDRNOTAVAIL || sock::port::<B::Memory>(sk) != 0 {
        // Other errors are not about ports, and a socket that has one finds its connection taken.
        return;
    }
    let now = emit::now();
    let search = if returned.started == 0 {
        0
    } else {
        now.saturating_sub(returned.started)
    };
    let mut key = key::<B>(sk, family, how::CONNECT);
    key.transport = sock::IPPROTO_TCP;
    key.peer = words::<B>(sk, family, offset!(skc_daddr), offset!(skc_v6_daddr));
    key.peer_port = sock::peer_port::<B::Memory>(sk);
    told::<B>(sk, key, error, now, search, Lock::Held);
}

/// inet_csk_get_port() has returned (net/ipv4/inet_connection_sock.c), which bind() and listen() ask for a
/// port; bind() is told by its own hook. `asked`: the port asked for.
#[inline(always)]
pub(crate) fn listens<B: Backend>(sk: Ptr, asked: u16, code: i32) {
    if asked != 0 || B::Memory::load::<u8>(sk, offset!(skc_state)) != tcp::LISTEN {
        return;
    }
    let family = B::Memory::load::<u16>(sk, offset!(skc_family));
    let mut key = key::<B>(sk, family, how::LISTEN);
    key.transport = sock::IPPROTO_TCP;
    // 5.10 returns 1.
    let error = if code == 0 { 0 } else { EADDRINUSE };
    told::<B>(sk, key, error, emit::now(), 0, Lock::Held);
}

/// A bind() has returned.
#[inline(always)]
pub(crate) fn bound<B: Backend>(
    sk: Ptr,
    returned: Returned,
    request: impl FnOnce() -> Option<&'static Request>,
) {
    let error = returned.error();
    if error != 0 && error != EADDRINUSE {
        return;
    }
    let Some(kind) = Kind::of::<B::Memory>(sk) else {
        return;
    };
    let taken_by = if kind.is_tcp() {
        how::BIND
    } else if kind.is_udp() {
        how::UDP_BIND
    } else {
        return;
    };
    let mut key = key::<B>(sk, kind.family, taken_by);
    key.transport = kind.protocol as u8;
    if error == 0 {
        // IP_BIND_ADDRESS_NO_PORT leaves the port to connect().
        if sock::chose_port::<B::Memory>(sk) || sock::port::<B::Memory>(sk) == 0 {
            return;
        }
    } else {
        let Some(request) = request() else {
            return;
        };
        if !request.has_port() || request.port() != 0 {
            return;
        }
        // The socket no longer has the address.
        key.local = request.words();
    }
    told::<B>(sk, key, error, emit::now(), 0, Lock::Released);
}

/// inet_autobind() has returned (net/ipv4/af_inet.c), which UDP sockets get a port by that are not bound.
#[inline(always)]
pub(crate) fn autobound<B: Backend>(sk: Ptr, returned: Returned) {
    let error = returned.error();
    let Some(kind) = Kind::of::<B::Memory>(sk) else {
        return;
    };
    if !kind.is_udp() {
        return;
    }
    if error == 0 {
        if sock::chose_port::<B::Memory>(sk) {
            return;
        }
    } else if error != EAGAIN {
        return;
    }
    let mut key = key::<B>(sk, kind.family, how::AUTOBIND);
    key.transport = kind.protocol as u8;
    told::<B>(sk, key, error, emit::now(), 0, Lock::Released);
}

/// What is known of a socket whatever it does.
#[inline(always)]
fn key<B: Backend>(sk: Ptr, family: u16, how: u8) -> Key {
    Key {
        process: 0,
        local: words::<B>(
            sk,
            family,
            offset!(skc_rcv_saddr),
            offset!(skc_v6_rcv_saddr),
        ),
        // Not that of others: several zeros in a row become a call of memset(), see `unknown`.
        peer: [unknown(0); 2],
        netns: sock::netns::<B::Memory>(sk),
        range: sock::own_range::<Far<B>>(sk),
        peer_port: 0,
        family,
        transport: 0,
        how,
        reserved: 0,
    }
}

#[inline(always)]
fn words<B: Backend>(sk: Ptr, family: u16, v4: u32, v6: u32) -> [u64; 2] {
    if family == AF_INET6 && v6 != ABSENT {
        [B::Memory::load(sk, v6), B::Memory::load(sk, v6 + 8)]
    } else {
        [u64::from(B::Memory::load::<u32>(sk, v4)), 0]
    }
}

/// Counts a port taken `now`, or that there was none. `search`: how long connect() searched, 0 where that is
/// not known.
#[inline(always)]
fn told<B: Backend>(sk: Ptr, mut key: Key, error: u32, now: u64, search: u64, lock: Lock) {
    if !filter::caller() {
        return;
    }
    let Some(caller) = Caller::<B::Generation>::get() else {
        return;
    };
    key.process = caller.key;
    let (row, slot) = rows::of(&key, |row| caller.name(row));
    let port = sock::port::<B::Memory>(sk);
    let mut forgotten = false;
    // Where it is not seen that ports are given back, nothing is remembered of them.
    if error == 0 && config!(connect_returns_by_syscall) == 0 {
        let hold = Hold {
            since: now,
            row,
            look: holds::look(),
            port,
            place: slot as u16,
            how: key.how,
            waits: 0,
            home: 0,
        };
        let holder = Holder::of_port(sk, port);
        let kept = match lock {
            Lock::Held => holds::keep(holder, hold, given::gone),
            Lock::Released => holds::keep_unlocked(holder, hold, given::gone),
        };
        match kept {
            Kept::New => {}
            // bind() has given it the port, or the look at older sockets was faster.
            Kept::Known => return,
            Kept::Full => forgotten = true,
        }
    }
    if error != 0 {
        rows::failed(row, error);
    }
    let (Some(counts), Some(place)) = (rows::counts(row), places::counts(slot)) else {
        return;
    };
    let at = usize::from(key.how) & (how::SLOTS - 1);
    // SAFETY: words of our maps.
    unsafe {
        if error != 0 {
            add(&raw mut (*counts).failed, 1);
            add((&raw mut (*place).failed).cast::<u64>().add(at), 1);
        } else {
            add(&raw mut (*counts).taken, 1);
            add((&raw mut (*place).taken).cast::<u64>().add(at), 1);
            if port & 1 != 0 {
                add(&raw mut (*counts).odd, 1);
                add(&raw mut (*place).odd, 1);
            }
            if forgotten {
                // Nobody will see it given back.
                add(&raw mut (*counts).given, 1);
                add(&raw mut (*place).forgotten, 1);
            }
        }
        if search != 0 {
            add(&raw mut (*counts).searches, 1);
            add(&raw mut (*counts).searched, search);
            histogram(&raw mut (*place).searched, search);
        }
    }
}

/// Adds a time to a histogram.
///
/// # Safety
/// `histogram` points into a map.
#[inline(always)]
unsafe fn histogram<const N: usize>(histogram: *mut [u64; N], time: u64) {
    const { assert!(N.is_power_of_two()) };
    // SAFETY: the caller's; the index is within the array.
    unsafe { add(histogram.cast::<u64>().add(bucket(time) & (N - 1)), 1) };
}

const _: () = assert!(size_of::<Counts>() == 96 && size_of::<Row>() == 208);
