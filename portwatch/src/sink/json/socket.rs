//! The fields of a socket: of the caller's, and of those in its way.

use super::object::{Key, Object, key};
use crate::{
    event::{Endpoint, Family, PortClass, PortFacts, Socket, SocketOptions, Transport},
    sink::digits,
};

/// Transport and family.
pub(super) fn network(part: &mut Object<'_>, transport: Transport, family: Family) {
    part.word(key!("transport"), transport.as_str());
    part.word(key!("type"), family.as_str());
}

/// One end of a socket.
pub(super) fn side(part: &mut Object<'_>, key: Key, endpoint: &Endpoint, facts: &PortFacts) {
    let Endpoint { address, port } = *endpoint;
    let PortFacts {
        service,
        class,
        ephemeral,
    } = facts;
    part.object(key, |part| {
        if let Some(address) = address {
            part.plain(key!("address"), |out| digits::address(out, address));
        }
        // The rest are properties of the port.
        if let Some(port) = port {
            part.number(key!("port"), port);
            part.text(key!("service"), service.as_deref());
            part.word(key!("port_class"), class.map(PortClass::as_str));
            part.flag(key!("ephemeral"), *ephemeral);
        }
    });
}

/// What tells it from others.
pub(super) fn identity(part: &mut Object<'_>, socket: &Socket) {
    if let Some(cookie) = socket.cookie {
        part.plain(key!("cookie"), |out| digits::hex(out, cookie));
    }
    part.maybe_number(key!("inode"), socket.inode);
    part.maybe_number(key!("netns"), socket.netns);
}

/// Options and owner.
pub(super) fn options(part: &mut Object<'_>, socket: &Socket) {
    let Socket {
        cookie: _,
        inode: _,
        netns: _,
        device: _, // printed by name, as network.interface
        uid,
        options,
    } = *socket;
    let SocketOptions {
        reuseaddr,
        reuseport,
        v6only,
        freebind,
        transparent,
        bind_no_port,
        mptcp,
    } = options;
    part.flag(key!("reuseaddr"), reuseaddr);
    part.flag(key!("reuseport"), reuseport);
    part.flag(key!("v6only"), v6only);
    part.flag(key!("freebind"), freebind);
    part.flag(key!("transparent"), transparent);
    part.flag(key!("bind_no_port"), bind_no_port);
    part.flag(key!("mptcp"), mptcp);
    part.maybe_number(key!("uid"), uid);
}
