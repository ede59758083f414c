//! Other ways to the same calls: io_uring, 32-bit calls, MPTCP, fast open, threads, the kernel.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use io_uring::opcode;
use nix::errno::Errno;

use super::{Scenario, scenarios};
use crate::{
    degraded::{self, Feature},
    expect::{Expect, Want},
    script::{Script, skip},
    sys::{
        addr::Address,
        netlink, netns,
        sock::{Kind, Sock},
        uring::Ring,
    },
};

pub(super) const ALL: &[Scenario] = scenarios![
    way_thread,
    way_mptcp4,
    way_mptcp6,
    way_mptcp_conflict,
    way_mptcp_connect,
    way_fastopen,
    way_fastopen_refused,
    way_fastopen_fails_at_once,
    way_io_uring_bind_and_listen,
    way_io_uring_connect,
    way_io_uring_connect_fails_at_once,
    way_io_uring_connect_kernel_thread,
    way_int80,
    way_socketcall,
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

/// sendto(MSG_FASTOPEN): a connection without connect().
fn way_fastopen(s: &mut Script) -> Result<()> {
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let address = Address::from(server.local().context("no address")?);
    let client = s.socket(Kind::Tcp4)?;
    s.connect_by(&client, &address, || {
        client.send_to(&address, libc::MSG_FASTOPEN)
    })
    .ok()?
    // Whether a send counts as asking for a connection is a matter of taste.
    .set(
        "event.via",
        Want::OneOf(vec!["syscall".into(), "implicit".into()]).maybe(),
    );
    Ok(())
}

fn way_fastopen_refused(s: &mut Script) -> Result<()> {
    let address = Address::from((LO4, 8080));
    let client = s.socket(Kind::Tcp4)?;
    s.connect_by(&client, &address, || {
        client.send_to(&address, libc::MSG_FASTOPEN)
    })
    .fails(Errno::ECONNREFUSED)?
    .set(
        "event.via",
        Want::OneOf(vec!["syscall".into(), "implicit".into()]).maybe(),
    );
    Ok(())
}

/// Turns the last line into that of a failure which only the return of the call knows.
fn failed_at_once(s: &mut Script, sent: bool) {
    let Some(why) = degraded::may_miss(s.ctx.backend, Feature::ConnectWithoutCall) else {
        return;
    };
    let mut line = s.lines().pop().unwrap_or_default();
    if sent {
        line.is("event.outcome", "unknown")
            .is("event.reason", "closed")
            .set("error.type", Want::Absent)
            .set("error.code", Want::Absent)
            .forget("conflict.kind")
            .forget("conflict.message")
            .set("conflict", Want::Absent);
    } else {
        line.optional(why);
    }
    s.expect(line);
}

/// No route: before a SYN is due; no port left: after that.
fn fails_at_once(
    s: &mut Script,
    mut connect: impl FnMut(&Sock, &Address) -> Result<(), Errno>,
) -> Result<()> {
    netns::sysctl("ipv4/ip_local_port_range", "40000 40000")?;
    s.relearn()?;
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let _only = s.connected(&server)?;
    let no_port = Address::from(server.local().context("no address")?);
    let no_route = Address::from((Ipv4Addr::new(192, 0, 2, 1), 80));
    for (address, errno, sent) in [
        (no_route, Errno::ENETUNREACH, false),
        (no_port, Errno::EADDRNOTAVAIL, true),
    ] {
        let client = s.socket(Kind::Tcp4)?;
        s.connect_by(&client, &address, || connect(&client, &address))
            .fails(errno)?
            .set(
                "event.via",
                Want::OneOf(vec!["syscall".into(), "implicit".into(), "io_uring".into()]).maybe(),
            );
        failed_at_once(s, sent);
    }
    Ok(())
}

fn way_fastopen_fails_at_once(s: &mut Script) -> Result<()> {
    fails_at_once(s, |client, address| {
        client.send_to(address, libc::MSG_FASTOPEN)
    })
}

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
fn through_ring(s: &mut Script) {
    let why = degraded::may_miss(s.ctx.backend, Feature::IoUring);
    let mut line = s.lines().pop().unwrap_or_default();
    s.via(&mut line, "io_uring");
    if let Some(why) = why {
        line.optional(why);
    }
    s.expect(line);
}

fn way_io_uring_bind_and_listen(s: &mut Script) -> Result<()> {
    let mut ring = ring(Ring::new)?;
    if !ring.supports(opcode::Bind::CODE) || !ring.supports(opcode::Listen::CODE) {
        return skip("this kernel's io_uring has no bind and listen");
    }
    for (kind, ip) in [
        (Kind::Tcp4, LO4.into()),
        (Kind::Tcp6, std::net::IpAddr::from(LO6)),
    ] {
        let sock = s.socket(kind)?;
        let address = Address::from((ip, 8080));
        let result = |ring: &mut Ring| ring.bind(sock.fd(), &address).unwrap_or(Err(Errno::EIO));
        s.bind_by(&sock, &address, Feature::IoUring, || result(&mut ring))
            .ok()?;
        through_ring(s);
        s.listen_by(&sock, 7, || {
            ring.listen(sock.fd(), 7).unwrap_or(Err(Errno::EIO))
        })
        .ok()?;
        through_ring(s);
        let late = s.socket(kind)?;
        s.bind_by(&late, &address, Feature::IoUring, || {
            ring.bind(late.fd(), &address).unwrap_or(Err(Errno::EIO))
        })
        .fails(Errno::EADDRINUSE)?
        .holder(0, &sock, "listen")?
        .judged(("listener", "exact", "no_reuse"));
        through_ring(s);
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
        let line = match expected {
            Ok(()) => call.ok()?,
            Err(errno) => call.fails(errno)?,
        };
        if kernel_thread {
            line.set("thread.id", Want::Present)
                .set("process.comm", Want::Present);
        }
        through_ring(s);
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

#[cfg(target_arch = "x86_64")]
fn thirty_two_bit(
    s: &mut Script,
    feature: Feature,
    bind: fn(&crate::sys::compat::LowPage, i32, &[u8]) -> Result<(), Errno>,
) -> Result<()> {
    use crate::sys::{compat::LowPage, task};
    // A kernel without 32-bit calls kills the caller: let that be somebody else.
    let (_, ended, _) = task::fork_with(None, || {
        let sock = Sock::new(Kind::Tcp4)?;
        bind(
            &LowPage::new()?,
            sock.fd(),
            Address::from((LO4, 9)).cut(1).bytes(),
        )
        .or_else(|errno| {
            if errno == Errno::EINVAL {
                Ok(())
            } else {
                Err(errno)
            }
        })?;
        Ok(())
    })?;
    // The trial was a call too, and stands in the stream.
    s.lines().clear();
    if ended != task::Ended::Code(0) {
        return skip(format!("no 32-bit system calls on this kernel ({ended:?})"));
    }
    let mut trial = Expect::default();
    trial
        .is("event.name", "bind")
        .is("error.type", "EINVAL")
        .optional("the trial");
    s.expect(trial);
    let page = LowPage::new()?;
    for (port, expected) in [(8080, Ok(())), (8080, Err(Errno::EADDRINUSE))] {
        let address = Address::from((LO4, port));
        let sock = s.socket(Kind::Tcp4)?;
        let call = s.bind_by(&sock, &address, feature, || {
            bind(&page, sock.fd(), address.bytes())
        });
        match expected {
            Ok(()) => {
                call.ok()?;
                // Still the holder when the second one comes.
                std::mem::forget(sock);
            }
            Err(errno) => {
                call.fails(errno)?
                    .is("conflict.holders.0.network.local.port", port)
                    .judged(("bound", "exact", "no_reuse"));
            }
        }
    }
    s.control()
}

#[cfg(target_arch = "x86_64")]
fn way_int80(s: &mut Script) -> Result<()> {
    thirty_two_bit(s, Feature::Early, crate::sys::compat::bind)
}

#[cfg(target_arch = "x86_64")]
fn way_socketcall(s: &mut Script) -> Result<()> {
    thirty_two_bit(s, Feature::Socketcall, crate::sys::compat::socketcall_bind)
}

#[cfg(not(target_arch = "x86_64"))]
fn way_int80(_: &mut Script) -> Result<()> {
    skip("32-bit calls are only made on x86-64")
}

#[cfg(not(target_arch = "x86_64"))]
fn way_socketcall(_: &mut Script) -> Result<()> {
    skip("32-bit calls are only made on x86-64")
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
