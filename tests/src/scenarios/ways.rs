//! Other ways to the same calls: io_uring, 32-bit calls, MPTCP, fast open, threads, the kernel.

mod compat;
mod fastopen;
mod io_uring;

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;

use super::{Scenario, scenarios};
use crate::{
    degraded::{self, Feature},
    expect::{Expect, Want},
    script::{Script, skip},
    sys::{netlink, netns, sock::Kind},
};

/// All of them.
pub(super) fn all() -> impl Iterator<Item = Scenario> {
    [ALL, compat::ALL, fastopen::ALL, io_uring::ALL]
        .into_iter()
        .flatten()
        .copied()
}

const ALL: &[Scenario] = scenarios![
    way_thread,
    way_mptcp4,
    way_mptcp6,
    way_mptcp_conflict,
    way_mptcp_connect,
    way_kernel: [31],
    way_kernel_udp_is_not_mptcp,
];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const LO6: Ipv6Addr = Ipv6Addr::LOCALHOST;

/// The thread that calls is not the one the process is named after.
fn way_thread(s: &mut Script) -> Result<()> {
    let main = s.me.tid;
    s.threaded(|s| {
        ensure!(s.me.tid != main, "this is the main thread");
        crate::sys::task::rename(b"worker-1")?;
        s.relearn()?;
        let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
        s.connected(&server).map(drop)
    })
}

/// What Go programs have by default: one line for the caller's socket, none for what is inside.
fn way_mptcp4(s: &mut Script) -> Result<()> {
    s.listener(Kind::Mptcp4, (LO4, 8080)).map(drop)
}

fn way_mptcp6(s: &mut Script) -> Result<()> {
    s.listener(Kind::Mptcp6, (LO6, 8080)).map(drop)
}

fn way_mptcp_conflict(s: &mut Script) -> Result<()> {
    let holder = s.listener(Kind::Mptcp4, (LO4, 8080))?;
    for kind in [Kind::Tcp4, Kind::Mptcp4] {
        let late = s.socket(kind)?;
        let line = s.bind(&late, (LO4, 8080)).fails(Errno::EADDRINUSE)?;
        line.held(0, Kind::Mptcp4, (LO4, 8080).into(), None, "listen");
        let (inode, _) = holder.inode_and_uid()?;
        line.is("conflict.holders.0.socket.inode", inode)
            .is("conflict.holders.0.processes.0.pid", holder.creator)
            .judged(("listener", "exact", "no_reuse"));
    }
    Ok(())
}

fn way_mptcp_connect(s: &mut Script) -> Result<()> {
    let server = s.listener(Kind::Mptcp4, (LO4, 8080))?;
    s.connected(&server)?;
    let refused = s.socket(Kind::Mptcp4)?;
    s.connect(&refused, (LO4, 8081))
        .fails(Errno::ECONNREFUSED)?;
    let waiting = s.socket(Kind::Mptcp4)?;
    waiting.set_nonblocking(true)?;
    let address = server.local().context("no address")?;
    let pending = s.connect_start(&waiting, address, Errno::EINPROGRESS)?;
    ensure!(waiting.wait_writable(crate::tracer::PATIENCE), "no outcome");
    waiting.take_error().context("SO_ERROR")?;
    s.connect_ended(&waiting, &pending, Ok(()));
    let late = s.socket(Kind::Mptcp4)?;
    late.set_nonblocking(true)?;
    let pending = s.connect_start(&late, (LO4, 8081), Errno::EINPROGRESS)?;
    ensure!(late.wait_writable(crate::tracer::PATIENCE), "no outcome");
    let result = late.take_error();
    ensure!(result == Err(Errno::ECONNREFUSED), "{result:?}");
    s.connect_ended(&late, &pending, result);
    Ok(())
}

/// A VXLAN device makes the kernel bind a UDP socket for itself.
fn way_kernel(s: &mut Script) -> Result<()> {
    kernel_binds(s, "pwx", 4789)
}

/// What lies behind a UDP socket in memory is another's, and was taken for its own mark of MPTCP: then
/// it was no longer the kernel's. Of several sockets some have neighbours.
fn way_kernel_udp_is_not_mptcp(s: &mut Script) -> Result<()> {
    (0..8).try_for_each(|index| kernel_binds(s, &format!("pwx{index}"), 4790 + index))
}

fn kernel_binds(s: &mut Script, device: &str, port: u16) -> Result<()> {
    if let Err(error) = netlink::add_vxlan(device, port) {
        return skip(format!("no vxlan devices ({error:?})"));
    }
    netns::link_up(device).context("cannot bring the vxlan device up")?;
    let mut line = Expect::default();
    line.is("event.name", "bind")
        .is("event.outcome", "success")
        .is("event.via", "kernel")
        .is("network.transport", "udp")
        .is("network.type", "ipv4")
        .is("network.local.address", "0.0.0.0")
        .is("network.local.port", port)
        .is("socket.netns", s.me.netns);
    if let Some(why) = degraded::may_miss(s.ctx.backend, Feature::KernelBind) {
        line.optional(why);
    }
    s.expect(line);
    // The next socket there meets it: a holder without a process.
    let late = s.socket(Kind::Udp4)?;
    s.bind(&late, (LO4, port))
        .fails(Errno::EADDRINUSE)?
        .held(
            0,
            Kind::Udp4,
            (Ipv4Addr::UNSPECIFIED, port).into(),
            None,
            "closed",
        )
        .judged(("kernel", "wildcard", "no_reuse"))
        .set("conflict.holders.0.processes.0", Want::Absent)
        .set("conflict.holders.0.socket.mptcp", Want::NotTrue)
        .holders_total(1)
        .says(&["held by the kernel, no process", &format!("0.0.0.0:{port}")]);
    Ok(())
}
