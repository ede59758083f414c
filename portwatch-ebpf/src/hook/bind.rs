//! bind().

use portwatch_ebpf::abi::record::{flags, loss, op, present, SocketRecord};

use super::{announce, common, timed, Backend, Returned};
use crate::{
    emit, filter,
    kernel::{
        memory::{set, Ptr},
        owners::{self, Wanted},
        request::Request,
        sock::{self, Kind},
    },
};

/// EADDRINUSE
pub(crate) const EADDRINUSE: u32 = 98;

/// A bind() has returned. After a failure the socket no longer holds what was asked for
/// (net/ipv4/af_inet.c, `__inet_bind`), so `request` reads the caller's sockaddr.
#[inline(always)]
pub(crate) fn returned<B: Backend>(sk: Ptr, returned: Returned, request: impl FnOnce() -> Option<Request>) {
    if !filter::op(op::BIND) {
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
    // A bind has no peer.
    if !filter::peer_port(None) {
        return;
    }
    if error == 0 {
        succeeded::<B>(sk, kind, returned);
    } else {
        failed::<B>(sk, kind, returned, error, request());
    }
}

#[inline(always)]
fn succeeded<B: Backend>(sk: Ptr, kind: Kind, returned: Returned) {
    let Some(port) = sock::port::<B::Memory>(sk) else {
        emit::lost(loss::UNREADABLE);
        return;
    };
    if !filter::local_port(Some(port)) {
        return;
    }
    announce();
    emit::socket(|record| {
        common::<B>(record, op::BIND, sk, kind);
        sock::local::<B::Memory>(record, sk, kind.family);
        if port == 0 {
            // IP_BIND_ADDRESS_NO_PORT: the port comes with connect().
            record.present &= !present::LOCAL_PORT;
        } else if !sock::chose_port::<B::Memory>(sk) {
            set(&mut record.flags, flags::AUTO_PORT);
        }
        timed(record, emit::now(), returned.started);
    });
}

#[inline(always)]
fn failed<B: Backend>(sk: Ptr, kind: Kind, returned: Returned, error: u32, request: Option<Request>) {
    let port = request.and_then(|request| request.port());
    if !filter::local_port(port) {
        return;
    }
    announce();
    let now = emit::now();
    if error == EADDRINUSE
        && let Some(wanted_port) = port
        && wanted_port != 0
        && let Some(net) = sock::net::<B::Memory>(sk)
    {
        emit::conflict(|record| {
            refused::<B>(&mut record.socket, sk, kind, returned, error, request, now);
            owners::collect(record, Wanted { own: sk, net, port: wanted_port, kind });
        });
        return;
    }
    emit::socket(|record| refused::<B>(record, sk, kind, returned, error, request, now));
}

#[inline(always)]
fn refused<B: Backend>(
    record: &mut SocketRecord,
    sk: Ptr,
    kind: Kind,
    returned: Returned,
    error: u32,
    request: Option<Request>,
    now: u64,
) {
    common::<B>(record, op::BIND, sk, kind);
    record.error = error;
    if returned.refused_by_policy {
        set(&mut record.flags, flags::REFUSED_BY_POLICY);
    }
    asked(record, request);
    timed(record, now, returned.started);
}

/// Writes the address that was asked for as the local end.
#[inline(always)]
fn asked(record: &mut SocketRecord, request: Option<Request>) {
    let Some(request) = request else {
        return;
    };
    if let Some((family, address)) = request.address() {
        record.address_family = family;
        record.local_address = address;
        set(&mut record.present, present::LOCAL_ADDRESS);
    }
    if let Some(port) = request.port() {
        record.local_port = port;
        set(&mut record.present, present::LOCAL_PORT);
        if port == 0 {
            set(&mut record.flags, flags::AUTO_PORT);
        }
    }
}
