//! A socket gets a port, or begins to: noted before any filter is asked.

use portwatch_ebpf::abi::record::{op, present};

use super::{Backend, Far};
use crate::{
    emit, filter,
    kernel::{
        generation::Generation,
        image,
        memory::{Ptr, set},
        sock,
        task::Caller,
    },
    state::takers,
};

/// Notes who got the port of a socket, in that process' context.
#[inline(always)]
pub(crate) fn by_caller<B: Backend>(sk: Ptr) {
    if filter::notes()
        && let Some(caller) = Caller::get()
    {
        by::<B>(sk, &caller, emit::now());
    }
}

/// The same at a time, of a caller that is known already.
#[inline(always)]
pub(crate) fn by<B: Backend>(sk: Ptr, caller: &Caller<B::Generation>, now: u64) {
    if !filter::notes() || caller.is_nobody() {
        return;
    }
    let inode = sock::inode::<B::Memory, Far<B>>(sk);
    if inode == 0 {
        return;
    }
    announce_owner(caller);
    takers::note(inode, |taker| {
        taker.clear();
        taker.at = now;
        taker.leader = caller.leader;
        caller.describe(&mut taker.task, &mut taker.present);
        followed(&mut taker.present);
    });
}

/// Tells what a process runs that a release may name: by then it may be gone.
#[inline(always)]
pub(super) fn announce_owner<G: Generation>(caller: &Caller<G>) {
    if filter::op(op::RELEASE) && (!filter::some_callers() || filter::caller()) {
        image::announce::<G>(caller);
    }
}

/// Marks the note of a process that the filters let pass. A release comes when that can no longer be asked.
#[inline(always)]
pub(super) fn followed(present: &mut u32) {
    if filter::op(op::RELEASE) && filter::some_callers() && filter::caller() {
        set(present, present::FOLLOWED);
    }
}

/// The same of a TCP socket that begins to connect: it gets its port a moment later, unless bind() has
/// given it one.
#[inline(always)]
pub(crate) fn by_connect<B: Backend>(sk: Ptr) {
    if filter::notes() && sock::port::<B::Memory>(sk) == 0 {
        by_caller::<B>(sk);
    }
}
