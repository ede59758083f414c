//! The last descriptor of a socket is closed: noted, for those that its port is in the way of after that.

use super::{
    Backend, Far,
    taken::{announce_owner, followed},
};
use crate::{
    emit, filter,
    kernel::{
        memory::Ptr,
        sock::{self, Kind},
        task::{Caller, Current},
    },
    state::{closers, takers},
};

/// A socket is about to be released (net/ipv4/af_inet.c, `inet_release`), in the context of whoever had
/// its last descriptor.
#[inline(always)]
pub(crate) fn by_caller<B: Backend>(sk: Ptr) {
    if !filter::notes() {
        return;
    }
    let mut port = sock::port::<B::Memory>(sk);
    if port == 0 {
        // Never bound; or back from TIME_WAIT already, having been shut down before.
        port = sock::source_port::<Far<B>>(sk);
    }
    if port == 0 {
        return;
    }
    let inode = sock::inode::<B::Memory, Far<B>>(sk);
    let place = sock::place::<B::Memory>(sk, port, sock::protocol::<B::Memory>(sk));
    let (leader, key) = Current::<B::Generation>::get().main_thread();
    if key != 0 && takers::process(inode) == key {
        closers::note_taker(place, inode, leader, emit::now());
    } else if Kind::of::<B::Memory>(sk).is_some()
        && let Some(caller) = Caller::<B::Generation>::get()
    {
        announce_owner(&caller);
        closers::note(place, inode, |closer| {
            closer.clear();
            closer.at = emit::now();
            closer.leader = caller.leader;
            caller.describe(&mut closer.task, &mut closer.present);
            followed(&mut closer.present);
        });
    }
}
