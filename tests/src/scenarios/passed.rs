//! Sockets that are passed on (`SCM_RIGHTS`): whoever makes the call is named, not who made the socket;
//! and whoever has it is, not who got the port.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use nix::errno::Errno;

use super::{Scenario, asked, puzzles::roles, scenarios};
use crate::{
    expect::Want,
    script::{Role, Script, tags},
    sys::{
        addr::Address,
        rights::{Inherited, Mailbox},
        sock::{Kind, Origin, Sock},
    },
};

pub(super) const SCENARIOS: &[Scenario] = scenarios![
    passed_then_bound,
    passed_then_connected,
    passed_while_connecting,
    passed_listener_is_the_receivers,
    passed_listener_on_its_way,
];

asked! { "accept":
    passed_then_accepted = accepted_by_receiver,
}

pub(super) const ROLES: &[Role] = roles![receives];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const LO6: Ipv6Addr = Ipv6Addr::LOCALHOST;
const PORT: u16 = 8080;

/// Sends a socket away and closes it here.
fn send(mailbox: &Mailbox, sock: Sock) -> Result<()> {
    mailbox.send(sock.fd())?;
    drop(sock);
    Ok(())
}

fn receive(mailbox: &Mailbox, kind: Kind, origin: Origin) -> Result<Sock> {
    Ok(Sock::of_received(mailbox.receive()?, kind, origin))
}

/// What a supervisor without privileges does: it has the socket made, and takes the port itself.
fn passed_then_bound(s: &mut Script) -> Result<()> {
    let mailbox = Mailbox::new()?;
    let kinds = [
        (Kind::Tcp4, Address::from((LO4, PORT))),
        (Kind::Tcp6, (LO6, PORT).into()),
        (Kind::Udp4, (LO4, PORT).into()),
    ];
    for (kind, _) in &kinds {
        send(&mailbox, s.socket(*kind)?)?;
    }
    s.forked(|s| {
        for (kind, address) in kinds {
            let sock = receive(&mailbox, kind, Origin::Nobody)?;
            s.bind(&sock, address.clone()).ok()?;
            if kind.transport() == "tcp" {
                s.listen(&sock, 16).ok()?;
            }
            let late = s.socket(kind)?;
            let state = if kind.transport() == "tcp" {
                ("listen", "listener")
            } else {
                ("closed", "bound")
            };
            s.bind(&late, address)
                .fails(Errno::EADDRINUSE)?
                .holder(0, &sock, state.0)?
                .judged((state.1, "exact", "no_reuse"));
        }
        Ok(())
    })?;
    Ok(())
}

fn passed_then_connected(s: &mut Script) -> Result<()> {
    let mailbox = Mailbox::new()?;
    let server = s.listener(Kind::Tcp4, (LO4, PORT))?;
    for _ in 0..2 {
        send(&mailbox, s.socket(Kind::Tcp4)?)?;
    }
    // Bound here, connected there.
    let bound = s.bound(Kind::Tcp4, (LO4, 8082))?;
    send(&mailbox, bound)?;
    s.forked(|s| {
        let client = receive(&mailbox, Kind::Tcp4, Origin::Nobody)?;
        s.connect(&client, (LO4, PORT)).ok()?;
        let refused = receive(&mailbox, Kind::Tcp4, Origin::Nobody)?;
        s.connect(&refused, (LO4, PORT + 1))
            .fails(Errno::ECONNREFUSED)?;
        let bound = receive(&mailbox, Kind::Tcp4, Origin::Caller)?;
        s.connect(&bound, (LO4, PORT))
            .ok()?
            .is("network.local.port", 8082);
        Ok(())
    })?;
    drop(server);
    Ok(())
}

/// The attempt stays that of the process which has called connect(), whoever closes the socket.
fn passed_while_connecting(s: &mut Script) -> Result<()> {
    let mailbox = Mailbox::new()?;
    let server = s.bound(Kind::Tcp4, (LO4, PORT))?;
    s.listen(&server, 0).ok()?;
    let filling = s.socket(Kind::Tcp4)?;
    s.connect(&filling, (LO4, PORT)).ok()?;
    let client = s.socket(Kind::Tcp4)?;
    client.set_nonblocking(true)?;
    let pending = s.connect_start(&client, (LO4, PORT), Errno::EINPROGRESS)?;
    mailbox.send(client.fd())?;
    // Its other descriptor is on its way: this is not the end yet.
    s.connect_given_up(client, &pending)
        .set("time_boot", Want::Present)
        .set("event.duration", Want::Present.maybe());
    s.forked(|_| receive(&mailbox, Kind::Tcp4, Origin::Nobody).map(drop))?;
    Ok(())
}

/// Waits for a listener and keeps it.
fn receives(_: &mut Script) -> Result<Vec<Sock>> {
    let number = tags().first().context("no mailbox")?.parse()?;
    let mut mailbox = Inherited::new(number);
    let sock = Sock::of_received(mailbox.receive()?, Kind::Tcp4, Origin::Caller);
    mailbox.done()?;
    // A worker would have its mailbox open.
    std::mem::forget(mailbox);
    Ok(vec![sock])
}

fn passed_listener_is_the_receivers(s: &mut Script) -> Result<()> {
    let mut mailbox = Mailbox::new()?;
    let listener = s.listener(Kind::Tcp4, (LO4, PORT))?;
    send(&mailbox, listener)?;
    let far = mailbox.far().to_string();
    let kept = s.program("receiver", "receives", &[&far])?;
    mailbox.wait()?;
    let maker = s.me.pid;
    s.forked(|s| {
        let late = s.socket(Kind::Tcp4)?;
        s.bind(&late, (LO4, PORT))
            .fails(Errno::EADDRINUSE)?
            .held_by(0, kept.sock()?, "listen")
            .named(0, &kept.me)
            .judged(("listener", "exact", "no_reuse"))
            .holders_total(1)
            .set("conflict.holders.0.processes.1", Want::Absent)
            .is("conflict.holders.0.creator.pid", maker)
            .says(&[&format!("receiver (pid {}", kept.me.pid)]);
        Ok(())
    })?;
    Ok(())
}

/// Nobody has it, and yet it is open: not the kernel's own, and nobody is named who has closed it.
fn passed_listener_on_its_way(s: &mut Script) -> Result<()> {
    let mailbox = Mailbox::new()?;
    let listener = s.listener(Kind::Tcp4, (LO4, PORT))?;
    send(&mailbox, listener)?;
    let maker = s.me.pid;
    s.forked(|s| {
        let late = s.socket(Kind::Tcp4)?;
        s.bind(&late, (LO4, PORT))
            .fails(Errno::EADDRINUSE)?
            .held(0, Kind::Tcp4, (LO4, PORT).into(), None, "listen")
            .judged(("listener", "exact", "no_reuse"))
            .holders_total(1)
            .set("conflict.holders.0.processes.0", Want::Absent)
            .set("conflict.holders.0.process", Want::Absent)
            .is("conflict.holders.0.creator.pid", maker)
            .set("conflict.holders.0.creator.exited", Want::Absent);
        Ok(())
    })?;
    // Until portwatch has looked.
    std::mem::forget(mailbox);
    Ok(())
}

fn accepted_by_receiver(s: &mut Script) -> Result<()> {
    let mailbox = Mailbox::new()?;
    let server = s.socket(Kind::Tcp4)?;
    server.bind(&(LO4, PORT).into())?;
    server.listen(16)?;
    let client = s.socket(Kind::Tcp4)?;
    client.connect(&(LO4, PORT).into())?;
    send(&mailbox, server)?;
    s.forked(|s| {
        let server = receive(&mailbox, Kind::Tcp4, Origin::Caller)?;
        s.accept(&server).map(drop)
    })?;
    drop(client);
    Ok(())
}
