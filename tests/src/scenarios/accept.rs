//! accept(): who gets a connection that came in, on every backend.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use io_uring::opcode;
use nix::errno::Errno;

use super::asked;
use crate::{
    degraded::{self, Feature},
    script::{Script, skip},
    sys::{
        addr::Address,
        clock,
        compat::{self, Convention, LowPage},
        sock::{Kind, Sock},
        task,
        telling::Telling,
        uring::Ring,
    },
    tracer::PATIENCE,
};

asked! { "accept":
    accept_blocked = blocked,
    accept_nonblocking = nonblocking,
    accept_in_worker = worker,
    accept_plain = plain,
    accept_ipv6 = ipv6,
    accept_v4_mapped = v4_mapped,
    accept_mptcp = mptcp,
    accept_mptcp_of_tcp = mptcp_of_tcp,
    accept_io_uring = through_io_uring,
    accept_int80 = through_int80,
    accept_socketcall = through_socketcall,
    accept_reuseport = reuseport,
    accept_refused = refused,
    accept_after_reset = after_reset,
    accept_thread = thread,
}

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const LO6: Ipv6Addr = Ipv6Addr::LOCALHOST;

/// A listener whose own lines nobody has asked for.
fn listener(s: &Script, kind: Kind, address: impl Into<Address>) -> Result<Sock> {
    let sock = s.socket(kind)?.reuseaddr().context("SO_REUSEADDR")?;
    sock.bind(&address.into()).context("bind")?;
    sock.listen(128).context("listen")?;
    Ok(sock)
}

/// A client of it, that is connected and waits to be accepted.
fn client(s: &Script, kind: Kind, server: &Sock) -> Result<Sock> {
    let client = s.socket(kind)?;
    let address = Address::from(server.local().context("no address")?);
    client.connect(&address).context("connect")?;
    Ok(client)
}

/// Long enough for one process to wake and to go.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(3);

/// A kretprobe has few instances: of these 60 processes it would see ten return, on 5.10 two.
const BLOCKED: usize = 60;

fn blocked(s: &mut Script) -> Result<()> {
    let server = listener(s, Kind::Tcp4, (LO4, 8080))?;
    let ctx = s.ctx;
    let mut waiting = Vec::new();
    for _ in 0..BLOCKED {
        waiting.push(Telling::start(|| {
            let mut s = Script::new(ctx)?;
            let _connection = s.accept(&server)?;
            Ok(s.finish())
        })?);
    }
    for one in &waiting {
        one.asleep()?;
    }
    let mut clients = Vec::new();
    for _ in 0..BLOCKED {
        clients.push(client(s, Kind::Tcp4, &server)?);
        // That so many are asleep at once is what is tested, not that so many wake at once: then 7.x
        // preempts programs and skips others, which is counted as lost.
        std::thread::sleep(PAUSE);
    }
    for one in waiting {
        s.merge(one.told()?);
    }
    s.any_order();
    Ok(())
}

/// That nothing is there is no event; the connection that comes then is.
fn nonblocking(s: &mut Script) -> Result<()> {
    let server = listener(s, Kind::Tcp4, (LO4, 8080))?;
    server.set_nonblocking(true)?;
    for _ in 0..3 {
        ensure!(server.accept().err() == Some(Errno::EAGAIN), "accepted");
    }
    let _client = client(s, Kind::Tcp4, &server)?;
    ensure!(server.wait_readable(PATIENCE), "no connection");
    s.accept(&server)?;
    ensure!(server.accept().err() == Some(Errno::EAGAIN), "accepted");
    Ok(())
}

/// The master binds, a worker accepts.
fn worker(s: &mut Script) -> Result<()> {
    let server = listener(s, Kind::Tcp4, (LO4, 8080))?;
    let _client = client(s, Kind::Tcp4, &server)?;
    s.forked(|s| s.accept(&server).map(drop)).map(drop)
}

/// The call that is older than accept4().
fn plain(s: &mut Script) -> Result<()> {
    let server = listener(s, Kind::Tcp4, (LO4, 8080))?;
    let _client = client(s, Kind::Tcp4, &server)?;
    s.accept_by(&server, || server.accept_plainly()).map(drop)
}

fn ipv6(s: &mut Script) -> Result<()> {
    let server = listener(s, Kind::Tcp6, (LO6, 8080))?;
    let _client = client(s, Kind::Tcp6, &server)?;
    s.accept(&server).map(drop)
}

/// An IPv6 socket, whose addresses are `::ffff:127.0.0.1`.
fn v4_mapped(s: &mut Script) -> Result<()> {
    let server = listener(s, Kind::Tcp6, (Ipv6Addr::UNSPECIFIED, 8080))?;
    let client = s.socket(Kind::Tcp4)?;
    client.connect(&(LO4, 8080).into()).context("connect")?;
    s.accept(&server).map(drop)
}

/// One event, of the socket that the program holds.
fn mptcp(s: &mut Script) -> Result<()> {
    let server = listener(s, Kind::Mptcp4, (LO4, 8080))?;
    let _client = client(s, Kind::Mptcp4, &server)?;
    s.accept(&server).map(drop)
}

/// The kernel hands out a TCP socket where the peer knows no MPTCP.
fn mptcp_of_tcp(s: &mut Script) -> Result<()> {
    let server = listener(s, Kind::Mptcp4, (LO4, 8080))?;
    let _client = client(s, Kind::Tcp4, &server)?;
    let before = clock::boot_ns();
    let accepted = server.accept().context("accept")?;
    s.accepted(&accepted, Kind::Tcp4, before);
    Ok(())
}

fn through_io_uring(s: &mut Script) -> Result<()> {
    let mut ring = Ring::new().or_else(|error| skip(format!("{error:#}")))?;
    if !ring.supports(opcode::Accept::CODE) {
        return skip("this kernel's io_uring has no accept");
    }
    let server = listener(s, Kind::Tcp4, (LO4, 8080))?;
    let _client = client(s, Kind::Tcp4, &server)?;
    s.accept_by(&server, || {
        let fd = ring.accept(server.fd()).unwrap_or(Err(Errno::EIO))?;
        Ok(Sock::of_accepted(fd, Kind::Tcp4))
    })?;
    let why = degraded::may_miss(s.ctx.backend, Feature::IoUring);
    let line = s.last()?.is("event.via", "io_uring");
    if let Some(why) = why {
        line.optional(why);
    }
    Ok(())
}

fn through_int80(s: &mut Script) -> Result<()> {
    thirty_two_bit(s, Convention::Numbers)
}

fn through_socketcall(s: &mut Script) -> Result<()> {
    thirty_two_bit(s, Convention::Socketcall)
}

/// As a 32-bit program makes the call.
fn thirty_two_bit(s: &mut Script, convention: Convention) -> Result<()> {
    if let Some(why) = compat::missing()? {
        return skip(why);
    }
    let page = LowPage::new()?;
    let server = listener(s, Kind::Tcp4, (LO4, 8080))?;
    let _client = client(s, Kind::Tcp4, &server)?;
    s.accept_by(&server, || {
        let fd = convention.accept(&page, server.fd())?;
        Ok(Sock::of_accepted(fd, Kind::Tcp4))
    })?;
    if convention == Convention::Socketcall
        && let Some(why) = degraded::may_miss(s.ctx.backend, Feature::Socketcall)
    {
        s.last()?.optional(why);
    }
    Ok(())
}

/// Each connection is told of the process that got it.
fn reuseport(s: &mut Script) -> Result<()> {
    let group = (0..3)
        .map(|_| {
            let sock = s.socket(Kind::Tcp4)?.reuseport().context("SO_REUSEPORT")?;
            sock.bind(&(LO4, 8080).into()).context("bind")?;
            sock.listen(128).context("listen")?;
            sock.set_nonblocking(true)?;
            Ok(sock)
        })
        .collect::<Result<Vec<_>>>()?;
    const CLIENTS: usize = 12;
    let clients = (0..CLIENTS).map(|_| client(s, Kind::Tcp4, &group[0]));
    let _clients = clients.collect::<Result<Vec<_>>>()?;
    let mut accepted = 0;
    for server in &group {
        s.forked(|s| {
            while server.wait_readable(std::time::Duration::from_millis(50)) {
                s.accept(server)?;
            }
            Ok(())
        })?;
        accepted = s.lines().len();
    }
    ensure!(accepted == CLIENTS, "{accepted} were accepted");
    Ok(())
}

/// What the kernel refuses: a socket that does not listen; a process without a descriptor left.
fn refused(s: &mut Script) -> Result<()> {
    let bound = s.socket(Kind::Tcp4)?;
    bound.bind(&(LO4, 8081).into()).context("bind")?;
    // musl makes a second call of an accept4() that gives EINVAL.
    s.accept_refused(&bound, Feature::AcceptFailure, || bound.accept_plainly())
        .fails(Errno::EINVAL)?;
    let server = listener(s, Kind::Tcp4, (LO4, 8080))?;
    let client = client(s, Kind::Tcp4, &server)?;
    s.forked(|s| {
        task::allow_no_descriptors()?;
        s.accept_refused(&server, Feature::AcceptEarly, || server.accept())
            .fails(Errno::EMFILE)
            .map(drop)
    })?;
    // UDP has none: no event.
    let udp = s.socket(Kind::Udp4)?;
    udp.bind(&(LO4, 8080).into()).context("bind")?;
    let result = udp.accept().map(drop);
    ensure!(result == Err(Errno::EOPNOTSUPP), "{result:?}");
    drop(client);
    s.accept(&server).map(drop)
}

/// The client has reset the connection before anybody accepts it: it is off its port, and told all the same.
fn after_reset(s: &mut Script) -> Result<()> {
    let server = listener(s, Kind::Tcp4, (LO4, 8080))?;
    let client = client(s, Kind::Tcp4, &server)?;
    let port = client.local().context("no address")?.port();
    client.reset_on_close()?;
    drop(client);
    s.accept(&server)?;
    s.last()?
        .is("network.local.port", 8080)
        .is("network.peer.address", "127.0.0.1")
        .is("network.peer.port", port);
    Ok(())
}

/// A thread accepts, which is not the one that the process is named after.
fn thread(s: &mut Script) -> Result<()> {
    let server = listener(s, Kind::Tcp4, (LO4, 8080))?;
    let _client = client(s, Kind::Tcp4, &server)?;
    s.threaded(move |s| {
        task::rename(b"worker-1")?;
        s.relearn()?;
        s.accept(&server).map(drop)
    })
}
