//! Failures that are told before their call returns, where its return cannot say whose errno it has.

use super::{Backend, Far};
use crate::{
    kernel::{
        memory::{Ptr, number_in},
        sock::Handle,
    },
    state::attempts::{TOLD, Told, ever, happened, remember},
};

/// Notes that a failure is told.
#[inline(always)]
pub(super) fn leave<B: Backend>(sk: Ptr, error: u32) {
    let inode = inode::<B>(sk);
    // A socket without one is closed: no call returns.
    if inode == 0 {
        return;
    }
    remember::<{ ever::TOLD }>();
    let told = Told {
        inode,
        error: u64::from(error),
    };
    let _ = TOLD.insert(number_in(B::ROOM, sk), told, 0);
}

/// Forgets what was told of a socket; whether it was this failure.
#[inline(always)]
pub(super) fn take<B: Backend>(sk: Ptr, error: u32) -> bool {
    if !happened::<{ ever::TOLD }>() {
        return false;
    }
    let key = number_in(B::ROOM, sk);
    let Some(told) = TOLD.get_ptr(key) else {
        return false;
    };
    // SAFETY: an entry of our map: two aligned words.
    let Told {
        inode: whose,
        error: what,
    } = unsafe { *told };
    let _ = TOLD.remove(key);
    what == u64::from(error) && whose == inode::<B>(sk)
}

#[inline(always)]
fn inode<B: Backend>(sk: Ptr) -> u64 {
    Handle::of::<B::Memory>(sk).inode::<B::Memory, Far<B>>()
}
