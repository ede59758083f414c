//! Ports given back, and what stays of connections in TIME_WAIT.

use portwatch_ebpf::abi::churn::{self, Hold, Holder, how};

use super::{Backend, histogram};
use crate::{
    emit,
    kernel::{
        memory::{Memory, Ptr, add, offset},
        sock,
    },
    state::churn::{
        holds::{self, Kept, Place},
        places, rows,
    },
};

/// A TCP socket gives its port back (`inet_put_port`). Most have none of their own, or have left it to what
/// stays in TIME_WAIT.
#[inline(always)]
pub(crate) fn given<B: Backend>(sk: Ptr) {
    let port = sock::port::<B::Memory>(sk);
    if !holds::may_be_held(port) {
        return;
    }
    if sock::peer_port::<B::Memory>(sk) != 0 {
        let connection = holds::connection::<B::Memory>(sk);
        if let Some(place) = holds::of(&connection, port) {
            // SAFETY: an entry of our map.
            if unsafe { (*place.hold).waits } == 0 {
                leaves(&connection, place);
            }
            return;
        }
        // One that came in has the backlog of its listener (net/core/sock.c, `sk_clone_lock`), and a socket that has
        // listened itself gives its automatic port back before it can connect (`tcp_disconnect`).
        if B::Memory::load::<u32>(sk, offset!(sk_max_ack_backlog)) != 0 {
            return;
        }
    }
    of_socket(sk, port);
}

/// The same of a datagram socket (`udp_lib_unhash`).
#[inline(always)]
pub(crate) fn unhashed<B: Backend>(sk: Ptr) {
    let port = sock::port::<B::Memory>(sk);
    if holds::may_be_held(port) {
        of_socket(sk, port);
    }
}

/// A socket gives a port back that it has without a connection, or had before.
#[inline(always)]
fn of_socket(sk: Ptr, port: u16) {
    let socket = holds::socket(sk);
    if let Some(place) = holds::of(&socket, port) {
        leaves(&socket, place);
    }
}

/// Forgets what held a port, and counts that.
#[inline(always)]
fn leaves(holder: &Holder, place: Place) {
    // SAFETY: an entry of our map, which goes below.
    let hold = unsafe { *place.hold };
    holds::drop(holder, place);
    gone(&hold);
}

/// Counts a port that is given back.
#[inline(always)]
fn gone(hold: &Hold) {
    let (Some(counts), Some(place)) = (
        rows::counts(hold.row),
        places::counts(u32::from(hold.place)),
    ) else {
        return;
    };
    let at = usize::from(hold.how) & (how::SLOTS - 1);
    // SAFETY: words of our maps.
    unsafe {
        add(&raw mut (*counts).given, 1);
        add((&raw mut (*place).given).cast::<u64>().add(at), 1);
        if hold.port & 1 != 0 {
            add(&raw mut (*counts).odd_given, 1);
        }
        if hold.waits != 0 {
            add(&raw mut (*counts).ended, 1);
            add(&raw mut (*place).ended, 1);
        }
        if hold.since != 0 {
            let time = emit::now().saturating_sub(hold.since);
            add(&raw mut (*counts).timed, 1);
            add(&raw mut (*counts).held, time);
            histogram(&raw mut (*place).held, time);
        }
    }
}

/// A connection leaves its socket and stays in TIME_WAIT (net/ipv4/inet_timewait_sock.c,
/// `inet_twsk_hashdance`).
#[inline(always)]
pub(crate) fn waits<B: Backend>(sk: Ptr) {
    let connection = holds::connection::<B::Memory>(sk);
    let port = sock::port::<B::Memory>(sk);
    let may_be_held = holds::may_be_held(port);
    let mut kept = Kept::New;
    let (row, slot);
    if may_be_held && let Some(Place { hold, .. }) = holds::of(&connection, port) {
        // SAFETY: an entry of our map, which goes with what waits from now on.
        unsafe {
            (&raw mut (*hold).waits).write_volatile(1);
            (row, slot) = ((*hold).row, (*hold).place);
        }
    } else if may_be_held
        && let socket = holds::socket(sk)
        && let Some(place) = holds::of(&socket, port)
    {
        // One that bind() has taken.
        // SAFETY: an entry of our map, which goes below.
        let mut hold = unsafe { *place.hold };
        holds::drop(&socket, place);
        hold.waits = 1;
        kept = holds::keep(&connection, &hold);
        (row, slot) = (hold.row, hold.place);
    } else {
        // The port is that of a listener, or its program has chosen it.
        count_place::<B>(sk, |place| {
            // SAFETY: a member of a slot of our map.
            unsafe { &raw mut (*place).waited }
        });
        return;
    }
    let (Some(counts), Some(place)) = (rows::counts(row), places::counts(u32::from(slot))) else {
        return;
    };
    // SAFETY: words of our maps.
    unsafe {
        add(&raw mut (*counts).waited, 1);
        add(&raw mut (*place).waited, 1);
        if kept != Kept::New {
            add(&raw mut (*counts).given, 1);
            add(&raw mut (*counts).ended, 1);
            add(&raw mut (*place).forgotten, 1);
        }
    }
}

/// What stays of a connection goes (`inet_twsk_kill`).
#[inline(always)]
pub(crate) fn waited<B: Backend>(tw: Ptr) {
    let connection = holds::connection::<B::Memory>(tw);
    let port = sock::port::<B::Memory>(tw);
    if holds::may_be_held(port)
        && let Some(place) = holds::of(&connection, port)
    {
        leaves(&connection, place);
    } else {
        count_place::<B>(tw, |place| {
            // SAFETY: a member of a slot of our map.
            unsafe { &raw mut (*place).ended }
        });
    }
}

/// Adds to a counter of the network namespace that a socket is in.
#[inline(always)]
fn count_place<B: Backend>(sk: Ptr, counter: impl FnOnce(*mut churn::Place) -> *mut u64) {
    if let Some(place) = places::counts(places::of(sock::netns::<B::Memory>(sk))) {
        // SAFETY: a word of our map.
        unsafe { add(counter(place), 1) };
    }
}
