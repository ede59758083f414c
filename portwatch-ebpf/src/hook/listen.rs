//! listen().

use portwatch_ebpf::abi::record::{flags, op, present};

use super::{Backend, Returned, bind::explain, common, timed};
use crate::{
    emit::{self, Entry},
    filter,
    kernel::{
        image,
        memory::{Ptr, set},
        sock::{self, Kind},
        task::Caller,
    },
};

/// A listen() has returned. The socket keeps its address also when it was refused.
#[inline(always)]
pub(crate) fn returned<B: Backend>(sk: Ptr, backlog: u32, returned: Returned) {
    if !filter::op(op::LISTEN) {
        return;
    }
    let error = returned.error();
    if !filter::outcome(error) {
        return;
    }
    let Some(kind) = Kind::of::<B::Memory>(sk) else {
        return;
    };
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
    explain::<B>(sk, kind, error, port);
    let Some(mut entry) = Entry::reserve() else {
        return;
    };
    let record = entry.record();

    common::<B>(record, op::LISTEN, sk, kind, &caller);
    sock::local::<B::Memory>(record, sk, kind.family);
    record.error = error;
    record.backlog = backlog;
    set(&mut record.present, present::BACKLOG);
    if returned.refused_by_policy {
        set(&mut record.flags, flags::REFUSED_BY_POLICY);
    }
    if !sock::chose_port::<B::Memory>(sk) {
        set(&mut record.flags, flags::AUTO_PORT);
    }
    timed(record, now, returned.started);

    entry.submit();
}
