//! A port taken on the way, because a datagram was sent without bind() or connect().

use portwatch_ebpf::abi::{
    calls::Function,
    record::{flags, op, via},
};

use super::{Backend, Far, Returned, common, taken, timed};
use crate::{
    emit::{self, Entry},
    filter,
    kernel::{
        image,
        memory::{Memory, Ptr, offset, set},
        sock::{self, Kind},
        task::{self, Caller},
    },
    state::calls::inside,
};

/// inet_autobind() has returned (net/ipv4/af_inet.c). Only UDP: connect() of a datagram socket comes
/// through here too and is told by its own hook.
#[inline(always)]
pub(crate) fn returned<B: Backend>(sk: Ptr, returned: Returned) {
    let error = returned.error();
    let Some(kind) = Kind::of::<B::Memory>(sk) else {
        return;
    };
    if error == 0 {
        taken::by_caller::<B>(sk);
    }
    if !filter::op(op::AUTOBIND) || !filter::outcome(error) {
        return;
    }
    if is_of_connect::<B>(sk) {
        return;
    }
    if !kind.is_udp() || !kind.wanted() || !filter::caller() || !filter::netns::<B::Memory>(sk) {
        return;
    }
    let port = sock::port::<B::Memory>(sk);
    if !filter::no_peer() || !filter::local_port(port) {
        return;
    }
    let Some(caller) = Caller::get() else {
        return;
    };
    image::announce::<B::Generation>(&caller);
    let Some(mut entry) = Entry::reserve() else {
        return;
    };
    let record = entry.record();

    common::<B>(record, op::AUTOBIND, sk, kind, &caller);
    sock::local::<B::Memory>(record, sk, kind.family);
    record.error = error;
    if error != 0 {
        record.own_range = sock::own_range::<Far<B>>(sk);
    }
    set(&mut record.flags, flags::AUTO_PORT);
    if record.via == via::SYSCALL {
        record.via = via::IMPLICIT;
    }
    timed(record, emit::now(), returned.started);

    entry.submit();
}

/// Whether the task is inside connect() of this very socket. Of another one: the return of that was
/// missed.
#[inline(always)]
fn is_of_connect<B: Backend>(sk: Ptr) -> bool {
    let socket = inside(task::ids(), Function::ConnectDatagram);
    socket != 0 && B::Memory::load::<u64>(sk, offset!(sk_socket)) == socket
}
