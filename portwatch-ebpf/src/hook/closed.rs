//! The last descriptor of a socket is closed: noted, for those that its port is in the way of after that.

use super::{Backend, Far};
use crate::{
    emit, filter,
    kernel::{
        memory::Ptr,
        sock::{self, Kind},
        task::Caller,
    },
    state::closers,
};

/// A socket is about to be released (net/ipv4/af_inet.c, `inet_release`), in the context of whoever had
/// its last descriptor.
#[inline(always)]
pub(crate) fn by_caller<B: Backend>(sk: Ptr) {
    if !filter::owners() {
        return;
    }
    let port = sock::port::<B::Memory>(sk);
    // Never bound; or back from TIME_WAIT already, having been shut down before.
    let port = if port == 0 {
        sock::source_port::<Far<B>>(sk)
    } else {
        port
    };
    if port == 0 {
        return;
    }
    let Some(kind) = Kind::of::<B::Memory>(sk) else {
        return;
    };
    if !kind.is_tcp() && !kind.is_udp() {
        return;
    }
    let inode = sock::inode::<B::Memory, Far<B>>(sk);
    let Some(caller) = Caller::<B::Generation>::get() else {
        return;
    };
    let place = sock::place::<B::Memory>(sk, port, kind.is_tcp());
    closers::note(place, inode, |closer| {
        closer.at = emit::now();
        closer.leader = caller.leader;
        caller.describe(&mut closer.task, &mut closer.present);
    });
}
