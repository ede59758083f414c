//! A socket gets a port, or begins to: noted before any filter is asked.

use super::{Backend, Far};
use crate::{
    emit, filter,
    kernel::{memory::Ptr, sock, task::Caller},
    state::takers,
};

/// Notes who got the port of a socket, in that process' context.
#[inline(always)]
pub(crate) fn by_caller<B: Backend>(sk: Ptr) {
    if filter::owners()
        && let Some(caller) = Caller::get()
    {
        by::<B>(sk, &caller, emit::now());
    }
}

/// The same at a time, of a caller that is known already.
#[inline(always)]
pub(crate) fn by<B: Backend>(sk: Ptr, caller: &Caller<B::Generation>, now: u64) {
    if !filter::owners() {
        return;
    }
    let inode = sock::inode::<B::Memory, Far<B>>(sk);
    if inode == 0 {
        return;
    }
    takers::note(inode, |taker| {
        taker.clear();
        taker.at = now;
        taker.leader = caller.leader;
        caller.describe(&mut taker.task, &mut taker.present);
    });
}

/// The same of a TCP socket that begins to connect: it gets its port a moment later, unless bind() has
/// given it one.
#[inline(always)]
pub(crate) fn by_connect<B: Backend>(sk: Ptr) {
    if filter::owners() && sock::port::<B::Memory>(sk) == 0 {
        by_caller::<B>(sk);
    }
}
