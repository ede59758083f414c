//! MPTCP connections that the kernel carries over more than one TCP connection: these are its own.

use std::{net::Ipv4Addr, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;

use super::{Scenario, scenarios};
use crate::{
    degraded::{self, Feature},
    expect::{Expect, Want},
    script::{Script, skip},
    sys::{
        netlink::{
            self,
            mptcp::{self, Endpoint},
        },
        netns::{self, Netns},
        sock::{Kind, MptcpInfo, Sock},
    },
    tracer::PATIENCE,
};

pub(super) const ALL: &[Scenario] = scenarios![subflow_of_a_client, subflow_refused];

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The client has this address too.
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// And the server this one, on which it does not listen.
const DEAF: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 4);

/// A server in a network namespace of its own: its kernel opens nothing, which it would do otherwise.
/// `before` is done there, before it listens.
fn server(s: &mut Script, before: impl FnOnce() -> Result<()>) -> Result<Sock> {
    let home = Netns::current()?;
    let mut server = None;
    s.elsewhere(|s| {
        if let Err(errno) = netlink::add_veth("pws", "pwc") {
            return skip(format!("no veth devices ({errno:?})"));
        }
        netlink::move_link(netns::link_index("pwc")?, &home).context("cannot move a veth")?;
        address("pws", &[SERVER, DEAF])?;
        before()?;
        server = Some(s.listener(Kind::Mptcp4, (SERVER, 8080))?);
        Ok(())
    })?;
    address("pwc", &[CLIENT, SECOND])?;
    server.context("no server")
}

/// Brings a device up with these addresses.
fn address(device: &str, addresses: &[Ipv4Addr]) -> Result<()> {
    netns::link_up(device).context("cannot bring a veth up")?;
    let index = netns::link_index(device)?;
    for &ip in addresses {
        netlink::add_address(index, ip.into(), 24).context("cannot add an address")?;
    }
    Ok(())
}

/// Lets the kernel have a second connection, for the sake of an address of this network namespace.
fn allow_second(ip: Ipv4Addr, endpoint: Endpoint) -> Result<()> {
    let family = allow_more()?;
    mptcp::add_endpoint(family, ip, endpoint).context("cannot add an endpoint of MPTCP")
}

/// The same for whatever the peer tells of.
fn allow_more() -> Result<u16> {
    let family = match mptcp::family() {
        Ok(family) => family,
        Err(errno) => return skip(format!("this kernel has no path manager ({errno:?})")),
    };
    mptcp::limit(family, 2).context("cannot set the limits of MPTCP")?;
    Ok(family)
}

/// Bytes there and back: only then does the kernel think of more.
fn talk(client: &Sock, accepted: &Sock) -> Result<()> {
    for (from, to) in [(client, accepted), (accepted, client)] {
        from.send(b"portwatch").context("send")?;
        ensure!(to.wait_readable(PATIENCE), "nothing came");
        to.receive().context("recv")?;
    }
    Ok(())
}

/// Waits until this holds of the client.
fn wait_until(client: &Sock, holds: impl Fn(MptcpInfo) -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let info = match client.mptcp_info() {
            Ok(info) => info,
            Err(Errno::EOPNOTSUPP | Errno::ENOPROTOOPT) => {
                return skip("this kernel does not tell of subflows");
            }
            Err(errno) => bail!("MPTCP_INFO: {errno}"),
        };
        if holds(info) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "still {info:?}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// A line of the kernel's own: whoever happened to run is not named.
fn of_kernel<'a>(s: &'a mut Script, name: &str) -> &'a mut Expect {
    let mut line = Expect::default();
    line.is("event.name", name)
        .is("event.outcome", "success")
        .is("event.via", "kernel")
        .is("network.transport", "tcp")
        .is("network.type", "ipv4")
        .set("network.local.port", Want::Present)
        .is("socket.auto_port", true)
        .is("socket.netns", s.me.netns)
        .set("process", Want::Absent)
        .set("thread", Want::Absent)
        .set("missing", Want::Lists("process".into()));
    if name == "bind"
        && let Some(why) = degraded::may_miss(s.ctx.backend, Feature::KernelBind)
    {
        line.optional(why);
    }
    s.expect(line)
}

/// One line for the connection that the program has asked for, and those of the kernel's for its own.
fn subflow_of_a_client(s: &mut Script) -> Result<()> {
    // Before the kernel is asked: who has no MPTCP has no path manager either.
    drop(s.socket(Kind::Mptcp4)?);
    allow_second(SECOND, Endpoint::Subflow)?;
    let server = server(s, || Ok(()))?;
    let (client, accepted) = s.connected(&server)?;
    talk(&client, &accepted)?;
    wait_until(&client, |info| info.subflows == 1)?;
    of_kernel(s, "bind")
        .is("network.local.address", SECOND.to_string())
        .set("network.peer", Want::Absent);
    of_kernel(s, "connect")
        .is("network.local.address", SECOND.to_string())
        .is("network.peer.address", SERVER.to_string())
        .is("network.peer.port", 8080);
    s.control()
}

/// The server tells of an address where nobody listens, and the kernel tries it: a failure of nobody's.
fn subflow_refused(s: &mut Script) -> Result<()> {
    drop(s.socket(Kind::Mptcp4)?);
    allow_more()?;
    // It may have tried before connect() has returned (seen on 6.1).
    s.any_order();
    let server = server(s, || allow_second(DEAF, Endpoint::Signal))?;
    let (client, accepted) = s.connected(&server)?;
    talk(&client, &accepted)?;
    wait_until(&client, |info| info.accepted == 1)?;
    // It has been taken back.
    wait_until(&client, |info| info.subflows == 0)?;
    of_kernel(s, "bind")
        .is("network.local.address", Ipv4Addr::UNSPECIFIED.to_string())
        .set("network.peer", Want::Absent);
    of_kernel(s, "connect")
        .is("event.outcome", "failure")
        .is("error.type", "ECONNREFUSED")
        .is("network.peer.address", DEAF.to_string())
        .is("network.peer.port", 8080);
    s.control()
}
