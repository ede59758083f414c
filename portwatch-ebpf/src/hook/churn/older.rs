//! Ports that are held already when portwatch looks: at its start, and whenever something was missed.
//! Each look has a number, which it leaves in what it finds; what a look has not seen is gone.

use portwatch_ebpf::abi::{
    churn::{Hold, Key, Row, how},
    layout::ABSENT,
};

use super::{Backend, Far, given::gone, key, words};
use crate::{
    kernel::{
        memory::{Memory, Ptr, Typed, add, offset, unknown},
        request::AF_INET6,
        sock::{self, Kind, state as tcp},
        task,
    },
    state::churn::{
        holds::{self, Holder, Kept},
        places, rows,
    },
};

/// What `__inet_hash_connect` leaves in a bucket that only connections use (net/ipv4/inet_hashtables.c).
const OF_CONNECTIONS: u8 = u8::MAX;

/// A descriptor of a socket; the process of the first one stands for all of it.
#[inline(always)]
pub(crate) fn descriptor<B: Backend>(task: Ptr, file: Ptr) {
    let sk = sock::of_file::<Far<B>>(file);
    if sk.is_null() {
        return;
    }
    let sk = sock::acting::<Far<B>>(sk);
    if is_known::<B>(sk) {
        return;
    }
    let Some(mut key) = of_socket::<B>(sk) else {
        return;
    };
    let tgid = Typed::load::<u32>(task, offset!(task_tgid));
    let exec = Typed::load::<u64>(task, offset!(task_exec_id));
    let leader = <Far<B>>::load::<Ptr>(
        crate::kernel::memory::number(task) as Ptr,
        offset!(task_group_leader),
    );
    let start = <Far<B>>::load::<u64>(leader, offset!(task_start_boottime));
    key.process = task::process_key(start, exec, tgid);
    found::<B>(sk, &key, 0, |row| {
        task::name::<Far<B>>(row, leader, start, tgid);
    });
}

/// A TCP socket as the kernel's table of connections has it, or what is in it in the place of one.
#[inline(always)]
pub(crate) fn connection<B: Backend>(sk: Ptr) {
    let state = <Far<B>>::load::<u8>(sk, offset!(skc_state));
    if state == tcp::NEW_SYN_RECV {
        return;
    }
    if is_known::<B>(sk) {
        return;
    }
    let waits = state == tcp::TIME_WAIT;
    let key = if waits {
        of_remnant::<B>(sk)
    } else {
        of_socket::<B>(sk)
    };
    let Some(key) = key else {
        return;
    };
    found::<B>(sk, &key, u8::from(waits), |_| {});
}

/// The key of a socket that has an automatic port of its own.
#[inline(always)]
fn of_socket<B: Backend>(sk: Ptr) -> Option<Key> {
    let kind = Kind::of::<Far<B>>(sk)?;
    if sock::port::<Far<B>>(sk) == 0 || sock::chose_port::<Far<B>>(sk) {
        return None;
    }
    let state = <Far<B>>::load::<u8>(sk, offset!(skc_state));
    let is_connection = kind.is_tcp() && state != tcp::CLOSE && state != tcp::LISTEN;
    // One that came in has the backlog of its listener (net/core/sock.c, `sk_clone_lock`).
    if is_connection && <Far<B>>::load::<u32>(sk, offset!(sk_max_ack_backlog)) != 0 {
        return None;
    }
    let family = family_of::<B>(sk, kind.family);
    let mut key = key::<B>(sk, family, how::BEFORE);
    key.transport = kind.protocol as u8;
    if is_connection {
        with_peer::<B>(&mut key, sk, family);
    }
    Some(key)
}

/// The key of what stays of a connection whose port was automatic, as far as can be told: no other kind of
/// socket is on that port.
#[inline(always)]
fn of_remnant<B: Backend>(tw: Ptr) -> Option<Key> {
    if offset!(tw_bucket) == ABSENT {
        return None;
    }
    let bucket = <Far<B>>::load::<Ptr>(tw, offset!(tw_bucket));
    if bucket.is_null() || <Far<B>>::load::<u8>(bucket, offset!(bucket_fastreuse)) != OF_CONNECTIONS
    {
        return None;
    }
    let family = <Far<B>>::load::<u16>(tw, offset!(skc_family));
    let family = family_of::<B>(tw, family);
    let mut key = Key {
        process: 0,
        local: words::<B>(
            tw,
            family,
            offset!(skc_rcv_saddr),
            offset!(skc_v6_rcv_saddr),
        ),
        peer: [unknown(0); 2],
        netns: sock::netns::<Far<B>>(tw),
        range: 0,
        peer_port: 0,
        family,
        transport: sock::IPPROTO_TCP,
        how: how::BEFORE,
        reserved: 0,
    };
    with_peer::<B>(&mut key, tw, family);
    Some(key)
}

#[inline(always)]
fn with_peer<B: Backend>(key: &mut Key, sk: Ptr, family: u16) {
    key.how = how::CONNECT;
    key.peer = words::<B>(sk, family, offset!(skc_daddr), offset!(skc_v6_daddr));
    key.peer_port = sock::peer_port::<Far<B>>(sk);
}

/// The family of a socket's addresses: a v4-mapped one is IPv4's, which has them too.
#[inline(always)]
pub(super) fn family_of<B: Backend>(sk: Ptr, family: u16) -> u16 {
    const AF_INET: u16 = 2;
    let v6 = offset!(skc_v6_daddr);
    if family == AF_INET6 && v6 != ABSENT {
        let high = <Far<B>>::load::<u64>(sk, v6);
        let mark = <Far<B>>::load::<u32>(sk, v6 + 8);
        // ::ffff:0:0/96
        if high == 0 && mark == u32::from_be(0x0000_ffff) {
            return AF_INET;
        }
    }
    family
}

/// Whether its port is remembered; then this look has seen it. What a socket has come to be meanwhile does not matter:
/// that its port is an automatic one was found when it was taken.
#[inline(always)]
fn is_known<B: Backend>(sk: Ptr) -> bool {
    let Some(found) = holds::of(Holder::of_port(sk, sock::port::<Far<B>>(sk))) else {
        return false;
    };
    // SAFETY: a word of an entry of our map; should it become another's at this moment, that one was taken
    // since this look began.
    unsafe { (&raw mut (*found.hold).look).write_volatile(holds::look()) };
    true
}

/// Remembers a port that is held.
#[inline(always)]
fn found<B: Backend>(sk: Ptr, key: &Key, waits: u8, fill: impl FnOnce(&mut Row)) {
    let look = holds::look();
    let port = sock::port::<Far<B>>(sk);
    if port == 0 {
        // Given back at this moment.
        return;
    }
    let holder = Holder::of_port(sk, port);
    let (row, slot) = rows::of(key, fill);
    let hold = Hold {
        since: 0,
        row,
        look,
        port,
        place: slot as u16,
        how: key.how,
        waits,
        home: 0,
    };
    let kept = holds::keep_unlocked(holder, hold, gone);
    if kept == Kept::Known {
        return;
    }
    let (Some(counts), Some(place)) = (rows::counts(row), places::counts(slot)) else {
        return;
    };
    // SAFETY: words of our maps.
    unsafe {
        if kept == Kept::Full {
            add(&raw mut (*place).forgotten, 1);
            return;
        }
        add(&raw mut (*counts).found, 1);
        add(&raw mut (*counts).waited, u64::from(waits));
        add(&raw mut (*counts).odd, u64::from(port & 1));
    }
}
