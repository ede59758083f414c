//! UDP: connect() that takes a port, and datagrams that do.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};

use super::{Scenario, scenarios};
use crate::{
    script::Script,
    sys::{addr::Address, sock::Kind},
};

pub(super) const ALL: &[Scenario] = scenarios![
    udp_connect4,
    udp_connect6,
    udp_connect_v4_mapped,
    udp_connect_bound,
    udp_connect_again,
    udp_disconnect,
    udp_send4,
    udp_send6,
    udp_send_v4_mapped,
    udp_send_bound,
];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const LO6: Ipv6Addr = Ipv6Addr::LOCALHOST;

/// One connect with the port it took: no autobind line beside it.
fn udp_connect4(s: &mut Script) -> Result<()> {
    let sock = s.socket(Kind::Udp4)?;
    s.connect(&sock, (LO4, 5353)).ok()?;
    Ok(())
}

fn udp_connect6(s: &mut Script) -> Result<()> {
    let sock = s.socket(Kind::Udp6)?;
    s.connect(&sock, (LO6, 5353)).ok()?;
    Ok(())
}

fn udp_connect_v4_mapped(s: &mut Script) -> Result<()> {
    let sock = s.socket(Kind::Udp6)?;
    s.connect(&sock, (LO4.to_ipv6_mapped(), 5353)).ok()?;
    Ok(())
}

fn udp_connect_bound(s: &mut Script) -> Result<()> {
    let sock = s.bound(Kind::Udp4, (LO4, 9000))?;
    s.connect(&sock, (LO4, 5353)).ok()?;
    Ok(())
}

/// Each call is a line; the second finds the port it has.
fn udp_connect_again(s: &mut Script) -> Result<()> {
    let sock = s.socket(Kind::Udp4)?;
    s.connect(&sock, (LO4, 5353)).ok()?;
    s.connect(&sock, (LO4, 5354))
        .ok()?
        .forget("socket.auto_port");
    Ok(())
}

/// connect(AF_UNSPEC) connects to nobody: no line. It gives an automatic port back, so that the
/// next connect() takes one again.
fn udp_disconnect(s: &mut Script) -> Result<()> {
    let sock = s.socket(Kind::Udp4)?;
    s.connect(&sock, (LO4, 5353)).ok()?;
    sock.connect(&Address::unspec())
        .context("connect(AF_UNSPEC)")?;
    ensure!(
        sock.local().is_some_and(|local| local.port() == 0),
        "the port was not given back"
    );
    s.connect(&sock, (LO4, 5354)).ok()?;
    Ok(())
}

fn udp_send4(s: &mut Script) -> Result<()> {
    let sock = s.socket(Kind::Udp4)?;
    s.send_to(&sock, (LO4, 5353)).ok()?;
    // It has a port now: nothing more to tell.
    sock.send_to(&(LO4, 5353).into(), 0).context("sendto")?;
    Ok(())
}

fn udp_send6(s: &mut Script) -> Result<()> {
    let sock = s.socket(Kind::Udp6)?;
    s.send_to(&sock, (LO6, 5353)).ok()?;
    Ok(())
}

fn udp_send_v4_mapped(s: &mut Script) -> Result<()> {
    let sock = s.socket(Kind::Udp6)?;
    s.send_to(&sock, (LO4.to_ipv6_mapped(), 5353)).ok()?;
    Ok(())
}

fn udp_send_bound(s: &mut Script) -> Result<()> {
    let sock = s.bound(Kind::Udp4, (LO4, 9000))?;
    sock.send_to(&(LO4, 5353).into(), 0).context("sendto")?;
    Ok(())
}
