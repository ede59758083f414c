//! listen().

use portwatch_ebpf::abi::{
    config::detail,
    record::{flags, op, present},
};

use super::{Backend, Far, Returned, bind::explain, common, timed};
use crate::{
    emit::{self, Entry},
    filter,
    kernel::{
        image,
        memory::{Ptr, detailed, set},
        sock::{self, Kind},
        task::Caller,
    },
};

const EINVAL: i32 = 22;

/// inet_listen() has returned for a socket that is connected or connects. It refuses that by itself
/// (net/ipv4/af_inet.c); of all others __inet_listen_sk() tells.
#[inline(always)]
pub(crate) fn in_use<B: Backend>(sk: Ptr, backlog: u32, returned: Returned) {
    if returned.code == -EINVAL {
        // With a number that the compiler knows: it leaves out what is about others.
        let code = -EINVAL;
        self::returned::<B>(sk, backlog, Returned { code, ..returned });
    }
}

/// A listen() has returned. The socket keeps its address also when it was refused.
#[inline(always)]
pub(crate) fn returned<B: Backend>(sk: Ptr, backlog: u32, returned: Returned) {
    if returned.is_neither() {
        return;
    }
    let error = returned.error();
    let Some(kind) = Kind::of::<B::Memory>(sk) else {
        return;
    };
    if !filter::op(op::LISTEN) || !filter::outcome(error) {
        return;
    }
    if !kind.wanted() || !filter::caller() || !filter::netns::<B::Memory>(sk) || !filter::no_peer()
    {
        return;
    }
    let port = sock::port::<B::Memory>(sk);
    if !filter::local_port(port) {
        return;
    }
    let now = emit::now();
    let Some(caller) = Caller::get() else {
        return;
    };
    image::announce::<B::Generation>(&caller);
    let address = sock::local_words::<B::Memory>(sk, kind.family);
    explain::<B>(sk, kind, returned, port, address);
    let Some(mut entry) = Entry::reserve() else {
        return;
    };
    let record = entry.record();

    common::<B>(record, op::LISTEN, sk, kind, &caller);
    sock::local::<B::Memory>(record, sk, kind.family);
    record.error = error;
    let is_auto = !sock::chose_port::<B::Memory>(sk);
    if error != 0 {
        record.own_range = sock::own_range::<Far<B>>(sk);
    }
    if (error != 0 || is_auto) && !detailed(detail::REST) {
        sock::shares::<B::Memory>(record, sk);
        // A parent that has the port is no second run.
        caller.relate(&mut record.task, &mut record.present);
    }
    record.backlog = backlog;
    set(&mut record.present, present::BACKLOG);
    if returned.refused_by_policy {
        set(&mut record.flags, flags::REFUSED_BY_POLICY);
    }
    if is_auto {
        set(&mut record.flags, flags::AUTO_PORT);
    }
    timed(record, now, returned.started);

    entry.submit();
}
