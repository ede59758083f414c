//! Holders that come and go: nobody who looks later finds them.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;

use super::{
    super::{Scenario, scenarios},
    connections::only_port,
    roles,
};
use crate::{
    expect::Want,
    script::{Role, Script, tags},
    sys::sock::{Kind, Sock},
};

pub(super) const ALL: &[Scenario] = scenarios![
    puzzle_04_closed_when_one_looks: [4],
    puzzle_48_taken_after_it_was_probed: [48],
    puzzle_49_ended_right_after: [49],
];

pub(super) const ROLES: &[Role] = roles![listener];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ANY4: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// Listens on 127.0.0.1 and the port that it is told.
fn listener(s: &mut Script) -> Result<Vec<Sock>> {
    let port: u16 = tags().first().context("no port")?.parse()?;
    Ok(vec![s.listener(Kind::Tcp4, (LO4, port))?])
}

/// A connection and its process end right after the refusal: lsof finds nothing, and the port is free.
fn puzzle_04_closed_when_one_looks(s: &mut Script) -> Result<()> {
    only_port(s, (43_409, 43_410), 43_409)?;
    let _server = s.listener(Kind::Tcp4, (LO4, 8500))?;
    let kept = s.program("consul-template", "client", &["127.0.0.1:8500"])?;
    let late = s.socket(Kind::Tcp4)?;
    s.bind(&late, (ANY4, 43_409)).fails(Errno::EADDRINUSE)?;
    s.dismiss(&kept)?;
    s.last()?
        .held_by(0, kept.sock()?, "established")
        .named(0, &kept.me)
        .judged(("client", "wildcard", "no_reuse"))
        .holders_total(1)
        .set("conflict.holders.0.creator.exited", Want::NotTrue.maybe())
        .says(&["held as the source port of consul-template's connection to 127.0.0.1:8500"]);
    s.bind(&late, (ANY4, 43_409)).ok()?;
    Ok(())
}

/// A listener whose process ends right after the refusal: to try again would have worked.
fn puzzle_49_ended_right_after(s: &mut Script) -> Result<()> {
    let kept = s.program("worker", "listener", &["13337"])?;
    let late = s.socket(Kind::Tcp4)?;
    s.bind(&late, (LO4, 13_337)).fails(Errno::EADDRINUSE)?;
    s.dismiss(&kept)?;
    s.last()?
        .held_by(0, kept.sock()?, "listen")
        .named(0, &kept.me)
        .judged(("listener", "exact", "no_reuse"))
        .holders_total(1)
        .says(&["held by worker (pid "]);
    s.bind(&late, (LO4, 13_337)).ok()?;
    Ok(())
}

/// A test asks the kernel for a free port, gives it back, and somebody else is faster.
fn puzzle_48_taken_after_it_was_probed(s: &mut Script) -> Result<()> {
    let probe = s.bound(Kind::Tcp4, (LO4, 0))?;
    let port = probe.local().context("no address")?.port();
    drop(probe);
    let kept = s.program("worker", "listener", &[&port.to_string()])?;
    ensure!(kept.sock()?.port() == port, "another port");
    let late = s.socket(Kind::Tcp4)?;
    s.bind(&late, (LO4, port))
        .fails(Errno::EADDRINUSE)?
        .held_by(0, kept.sock()?, "listen")
        .named(0, &kept.me)
        .judged(("listener", "exact", "no_reuse"))
        .holders_total(1)
        .set("conflict.holders.0.since", Want::Present)
        .says(&["held by worker (pid "]);
    Ok(())
}
