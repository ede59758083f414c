//! io_uring: requests of the caller, and those that a thread of the kernel runs for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use io_uring::opcode;
use nix::errno::Errno;

use super::fastopen::fails_at_once;
use crate::{
    degraded::{self, Feature},
    expect::Want,
    scenarios::{Scenario, scenarios},
    script::{Script, skip},
    sys::{addr::Address, sock::Kind, uring::Ring},
};

pub(super) const ALL: &[Scenario] = scenarios![
    way_io_uring_bind_and_listen,
    way_io_uring_bind_and_listen_kernel_thread,
    way_io_uring_connect,
    way_io_uring_connect_fails_at_once,
    way_io_uring_connect_kernel_thread,
];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const LO6: Ipv6Addr = Ipv6Addr::LOCALHOST;

fn way_io_uring_connect_fails_at_once(s: &mut Script) -> Result<()> {
    let mut ring = ring(Ring::new)?;
    if !ring.supports(opcode::Connect::CODE) {
        return skip("this kernel's io_uring has no connect");
    }
    fails_at_once(s, |client, address| {
        ring.connect(client.fd(), address)
            .unwrap_or(Err(Errno::EIO))
    })
}

/// A ring, or the reason why there is none.
fn ring(make: impl FnOnce() -> Result<Ring>) -> Result<Ring> {
    match make() {
        Ok(ring) => Ok(ring),
        Err(error) => skip(format!("no io_uring here ({error:#})")),
    }
}

/// Turns the last line into that of a request through io_uring.
fn through_ring(s: &mut Script, kernel_thread: bool) {
    let why = degraded::may_miss(s.ctx.backend, Feature::IoUring);
    let mut line = s.lines().pop().unwrap_or_default();
    s.via(&mut line, "io_uring");
    if kernel_thread {
        line.set("thread.id", Want::Present)
            .set("process.comm", Want::Present);
    }
    if let Some(why) = why {
        line.optional(why);
    }
    s.expect(line);
}

fn way_io_uring_bind_and_listen(s: &mut Script) -> Result<()> {
    let mut ring = ring(Ring::new)?;
    binds_and_listens_through(s, &mut ring, false)
}

/// The thread of the kernel that runs the request belongs to the process that has made the ring.
fn way_io_uring_bind_and_listen_kernel_thread(s: &mut Script) -> Result<()> {
    let mut ring = ring(Ring::with_kernel_thread)?;
    binds_and_listens_through(s, &mut ring, true)
}

fn binds_and_listens_through(s: &mut Script, ring: &mut Ring, kernel_thread: bool) -> Result<()> {
    if !ring.supports(opcode::Bind::CODE) || !ring.supports(opcode::Listen::CODE) {
        return skip("this kernel's io_uring has no bind and listen");
    }
    for (kind, ip) in [(Kind::Tcp4, LO4.into()), (Kind::Tcp6, IpAddr::from(LO6))] {
        let sock = s.socket(kind)?;
        let address = Address::from((ip, 8080));
        s.bind_by(&sock, &address, Feature::IoUring, || {
            ring.bind(sock.fd(), &address).unwrap_or(Err(Errno::EIO))
        })
        .ok()?;
        through_ring(s, kernel_thread);
        s.listen_by(&sock, 7, || {
            ring.listen(sock.fd(), 7).unwrap_or(Err(Errno::EIO))
        })
        .ok()?;
        through_ring(s, kernel_thread);
        let late = s.socket(kind)?;
        s.bind_by(&late, &address, Feature::IoUring, || {
            ring.bind(late.fd(), &address).unwrap_or(Err(Errno::EIO))
        })
        .fails(Errno::EADDRINUSE)?
        .holder(0, &sock, "listen")?
        .judged(("listener", "exact", "no_reuse"));
        through_ring(s, kernel_thread);
    }
    s.control()
}

/// The kernel tries twice (EINPROGRESS, then the result): one line.
fn connects_through(s: &mut Script, ring: &mut Ring, kernel_thread: bool) -> Result<()> {
    if !ring.supports(opcode::Connect::CODE) {
        return skip("this kernel's io_uring has no connect");
    }
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let open = Address::from(server.local().context("no address")?);
    let closed = Address::from((LO4, 8081));
    for (address, expected) in [(&open, Ok(())), (&closed, Err(Errno::ECONNREFUSED))] {
        let client = s.socket(Kind::Tcp4)?;
        let call = s.connect_by(&client, address, || {
            ring.connect(client.fd(), address)
                .unwrap_or(Err(Errno::EIO))
        });
        match expected {
            Ok(()) => call.ok()?,
            Err(errno) => call.fails(errno)?,
        };
        through_ring(s, kernel_thread);
    }
    Ok(())
}

fn way_io_uring_connect(s: &mut Script) -> Result<()> {
    let mut ring = ring(Ring::new)?;
    connects_through(s, &mut ring, false)
}

/// A kernel thread runs the request, on behalf of the process all the same.
fn way_io_uring_connect_kernel_thread(s: &mut Script) -> Result<()> {
    let mut ring = ring(Ring::with_kernel_thread)?;
    if s.ctx.kernel < (5, 12) {
        return skip("before 5.12 the submission thread is no thread of the process");
    }
    connects_through(s, &mut ring, true)
}
