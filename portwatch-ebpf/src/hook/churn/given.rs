//! Ports given back, and what stays of connections in TIME_WAIT.

use portwatch_ebpf::abi::churn::{Hold, Place, how};

use super::{Backend, histogram};
use crate::{
    emit,
    kernel::{
        memory::{Memory, Ptr, add},
        sock,
    },
    state::churn::{
        holds::{self, Found, Holder, Kept},
        places, rows,
    },
};

/// A socket gives its port back (`inet_put_port`, `udp_lib_unhash`). Most have none of their own, or have
/// left it to what stays in TIME_WAIT.
#[inline(always)]
pub(crate) fn given<M: Memory>(sk: Ptr) {
    let holder = Holder::of_port(sk, sock::port::<M>(sk));
    if let Some(found) = holds::of(holder) {
        leaves(holder, found);
    }
}

/// Forgets what held a port, and counts that.
#[inline(always)]
fn leaves(holder: Holder, found: Found) {
    // SAFETY: an entry of our map, which goes below.
    let hold = unsafe { *found.hold };
    // Otherwise user space, which has not seen the socket any more, has counted it.
    if holds::forget(holder, found, &hold) {
        gone(&hold);
    }
}

/// Counts a port that is given back.
#[inline(always)]
pub(super) fn gone(hold: &Hold) {
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

/// A connection leaves its socket `sk` and stays in TIME_WAIT, as `tw` (net/ipv4/inet_timewait_sock.c,
/// `inet_twsk_hashdance`).
#[inline(always)]
pub(crate) fn waits<B: Backend>(tw: Ptr, sk: Ptr) {
    let holder = Holder::of_port(sk, sock::port::<B::Memory>(sk));
    let Some(found) = holds::of(holder) else {
        // The port is that of a listener, or its program has chosen it.
        waits_uncounted::<B>(sk);
        return;
    };
    // SAFETY: an entry of our map, which may go below.
    let hold = unsafe { *found.hold };
    let Some(kept) = holds::pass(holder, found, tw, gone) else {
        waits_uncounted::<B>(sk);
        return;
    };
    let (Some(counts), Some(place)) = (
        rows::counts(hold.row),
        places::counts(u32::from(hold.place)),
    ) else {
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

/// A connection waits whose port is nobody's row.
#[inline(always)]
fn waits_uncounted<B: Backend>(sk: Ptr) {
    count_place::<B>(sk, |place| {
        // SAFETY: a member of a slot of our map.
        unsafe { &raw mut (*place).waited }
    });
}

/// What stays of a connection goes (`inet_twsk_kill`).
#[inline(always)]
pub(crate) fn waited<B: Backend>(tw: Ptr) {
    let holder = Holder::of_port(tw, sock::port::<B::Memory>(tw));
    if let Some(found) = holds::of(holder) {
        leaves(holder, found);
    } else {
        count_place::<B>(tw, |place| {
            // SAFETY: a member of a slot of our map.
            unsafe { &raw mut (*place).ended }
        });
    }
}

/// Adds to a counter of the network namespace that a socket is in.
#[inline(always)]
fn count_place<B: Backend>(sk: Ptr, counter: impl FnOnce(*mut Place) -> *mut u64) {
    if let Some(place) = places::counts(places::of(sock::netns::<B::Memory>(sk))) {
        // SAFETY: a word of our map.
        unsafe { add(counter(place), 1) };
    }
}
