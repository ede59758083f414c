//! listen().

use portwatch_ebpf::abi::record::{flags, loss, op, present, SocketRecord};

use super::{announce, bind::EADDRINUSE, common, timed, Backend, Returned};
use crate::{
    emit, filter,
    kernel::{
        memory::{set, Ptr},
        owners::{self, Wanted},
        sock::{self, Kind},
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
    if !kind.wanted() || !filter::caller() || !filter::netns::<B::Memory>(sk) {
        return;
    }
    let Some(port) = sock::port::<B::Memory>(sk) else {
        emit::lost(loss::UNREADABLE);
        return;
    };
    if !filter::peer_port(None) || !filter::local_port(Some(port)) {
        return;
    }
    announce();
    let now = emit::now();
    if error == EADDRINUSE
        && port != 0
        && let Some(net) = sock::net::<B::Memory>(sk)
    {
        emit::conflict(|record| {
            fill::<B>(&mut record.socket, sk, kind, backlog, returned, now);
            owners::collect(record, Wanted { own: sk, net, port, kind });
        });
        return;
    }
    emit::socket(|record| fill::<B>(record, sk, kind, backlog, returned, now));
}

#[inline(always)]
fn fill<B: Backend>(
    record: &mut SocketRecord,
    sk: Ptr,
    kind: Kind,
    backlog: u32,
    returned: Returned,
    now: u64,
) {
    common::<B>(record, op::LISTEN, sk, kind);
    sock::local::<B::Memory>(record, sk, kind.family);
    record.error = returned.error();
    record.backlog = backlog;
    set(&mut record.present, present::BACKLOG);
    if returned.refused_by_policy {
        set(&mut record.flags, flags::REFUSED_BY_POLICY);
    }
    if !sock::chose_port::<B::Memory>(sk) {
        set(&mut record.flags, flags::AUTO_PORT);
    }
    timed(record, now, returned.started);
}
