//! A port is free for everybody again: the last socket on it has left the kernel's table.
//!
//! Not counted: sockets are older than the trace, and calls may be missed. After each departure the table
//! is looked at, there and then.

use portwatch_ebpf::abi::{
    layout::ABSENT,
    record::{flags, freed, loss, op, present, via},
};

use super::taken;
use crate::{
    attach::raw_tp::Raw,
    emit, filter,
    kernel::{
        generation::Generation,
        memory::{Memory as _, Ptr, offset, set, zero},
        occupied::{self, Port},
        sock::{self, Handle, Kind, state},
    },
    state::{
        closers,
        held::{self, Held, LEAVING, Leaving},
        takers,
    },
};

/// What leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A TCP socket (net/ipv4/inet_hashtables.c, `inet_put_port`).
    Tcp,
    /// What TIME_WAIT has left of one (net/ipv4/inet_timewait_sock.c, `inet_twsk_kill`).
    Wait,
    /// A UDP socket (net/ipv4/udp.c, `udp_lib_unhash`).
    Udp,
}

/// What a release is wanted of, as far as it is the same for all sockets of a port: what is noted of it must
/// not depend on which of them comes by.
#[inline(always)]
fn port_is_wanted<G: Generation>(sk: Ptr, kind: Kind, port: u16) -> bool {
    kind.transport_is_wanted() && filter::netns::<G::Far>(sk) && filter::local_port(port)
}

/// A socket has got a port, in the task that asked for it.
#[inline(always)]
pub(crate) fn taken<G: Generation>(sk: Ptr) {
    let Some(kind) = Kind::of::<G::Far>(sk) else {
        return;
    };
    let port = sock::port::<G::Far>(sk);
    if port == 0 || !port_is_wanted::<G>(sk, kind, port) {
        return;
    }
    taken::by_caller::<Raw<G>>(sk);
    let netns = sock::netns::<G::Far>(sk);
    let held = Held {
        since: emit::now(),
        inode: sock::inode::<G::Far, G::Far>(sk),
    };
    held::hold(held::key(netns, port, sock::protocol::<G::Far>(sk)), &held);
}

/// A socket is about to leave: what will not be there any more is read now. `call` tells this departure from
/// others.
#[inline(always)]
pub(crate) fn leaves<G: Generation>(call: u64, sk: Ptr, what: What) {
    // Of an earlier socket at this address, whose departure was missed: it is not to be told now.
    let _ = LEAVING.remove(call);
    let port = sock::port::<G::Far>(sk);
    if port == 0 {
        return;
    }
    let kind = match what {
        // Nothing lies behind sock_common that a sock has there.
        What::Wait => Some(Kind::tcp(G::Far::load(sk, offset!(skc_family)))),
        What::Tcp => Kind::of::<G::Far>(sk).filter(|kind| kind.is_tcp()),
        What::Udp => Kind::of::<G::Far>(sk).filter(|kind| kind.is_udp()),
    };
    let Some(kind) = kind else {
        return;
    };
    if !port_is_wanted::<G>(sk, kind, port) {
        return;
    }
    let Some(leaving) = held::room(G::ROOM) else {
        return;
    };
    describe::<G>(leaving, sk, kind, what);
    // Of a port that is older than the trace too: see `held::take`.
    held::hold(leaving.key, &Held { since: 0, inode: 0 });
    // Too large for the stack, and borrowed so that it does not get there.
    let leaving: &Leaving = leaving;
    if LEAVING.insert(call, leaving, 0).is_err() {
        emit::lost(loss::TABLE_FULL);
    }
}

#[inline(always)]
fn describe<G: Generation>(leaving: &mut Leaving, sk: Ptr, kind: Kind, what: What) {
    let record = &mut leaving.record;
    // SAFETY: a record of the ABI: plain integers, a multiple of eight bytes.
    unsafe { zero(&raw mut *record) };
    record.op = op::RELEASE;
    record.via = via::IMPLICIT;
    record.family = kind.family;
    record.protocol = kind.protocol;
    record.netns = sock::netns::<G::Far>(sk);
    set(&mut record.present, present::SOCKET | present::NETNS);
    sock::local::<G::Far>(record, sk, kind.family);
    let cookie = sock::existing_cookie::<G::Far>(sk);
    sock::put_cookie(record, cookie);
    let transport = kind.protocol as u8;
    leaving.key = held::key(record.netns, record.local_port, transport);
    let place = sock::place::<G::Far>(sk, record.local_port, transport);
    let mut at = 0;
    if what == What::Wait {
        let is_waiting = offset!(tw_substate) == ABSENT
            || G::Far::load::<u8>(sk, offset!(tw_substate)) != state::FIN_WAIT2;
        record.freed = if is_waiting {
            freed::TIME_WAIT
        } else {
            freed::CLOSED
        };
        let (noted, _) = closers::copy(place, &mut at, &mut record.task);
        set(&mut record.present, noted);
    } else {
        sock::shares::<G::Far>(record, sk);
        let handle = Handle::of::<G::Far>(sk);
        if kind.is_tcp() && (handle.sk != sk || sock::inside_mptcp::<G::Far>(sk) != 0) {
            set(&mut record.flags, flags::MPTCP);
        }
        let inode = handle.inode::<G::Far, G::Far>();
        sock::put_inode(record, inode);
        let noted = if is_open::<G>(&handle) {
            record.freed = freed::GIVEN_BACK;
            takers::copy(inode, &mut at, &mut record.task)
        } else {
            record.freed = freed::CLOSED;
            closers::copy(place, &mut at, &mut record.task).0
        };
        set(&mut record.present, noted);
    }
    occupied::prepare::<G::Far>(leaving, sk as u64, kind.is_tcp());
}

/// Whether a process has a descriptor still. The struct socket lets go of its sock only after that has been
/// closed (net/ipv4/af_inet.c, `inet_release`); its file has no references from before.
#[inline(always)]
fn is_open<G: Generation>(handle: &Handle) -> bool {
    handle.has_socket()
        && !handle.is_of_kernel()
        && sock::references::<G::Far>(handle.file()) != Some(0)
}

/// It has left. If nothing is there any more, the port is free.
#[inline(always)]
pub(crate) fn left<G: Generation>(call: u64) {
    let Some(leaving) = LEAVING.get_ptr_mut(call) else {
        return;
    };
    // SAFETY: an entry of our map that only this departure knows.
    ended::<G>(unsafe { &mut *leaving });
    let _ = LEAVING.remove(call);
}

#[inline(always)]
fn ended<G: Generation>(leaving: &mut Leaving) {
    match occupied::look::<G>(leaving) {
        Port::Occupied => return,
        Port::Unknown => {
            emit::lost(loss::UNREADABLE);
            // It may be free, so that the next one to get it is the first.
            held::forget(leaving.key);
            return;
        }
        Port::Free => {}
    }
    let Some(Held { since, inode }) = held::take(leaving.key) else {
        return;
    };
    let record = &mut leaving.record;
    let mut at = 0;
    if record.present & present::START_TIME == 0 && inode != 0 {
        // Who closed it is not known: then who got the port for it.
        let noted = takers::copy(inode, &mut at, &mut record.task);
        set(&mut record.present, noted);
    }
    let followed = record.present & present::FOLLOWED != 0;
    if !filter::outcome(0)
        || !filter::no_peer()
        || !sock::family_is_wanted(record.family)
        || (filter::some_callers() && !followed)
    {
        return;
    }
    record.time = emit::now();
    if since != 0 {
        record.duration = record.time.saturating_sub(since);
        set(&mut record.present, present::DURATION);
    }
    emit::stamp(record);
    emit::copy(record);
}
