//! TCP connect(): every way it can end.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;

use super::{Scenario, scenarios};
use crate::{
    degraded::{self, Feature},
    expect::Expect,
    script::{Pending, Script, skip},
    sys::{
        addr::Address,
        netlink, netns,
        sock::{Kind, Sock},
        task,
    },
};

pub(super) const ALL: &[Scenario] = scenarios![
    connect_tcp4,
    connect_tcp6,
    connect_v4_mapped,
    connect_bound,
    connect_bound_auto_port,
    connect_refused,
    connect_refused_bound,
    connect_nonblocking,
    connect_nonblocking_refused,
    connect_timed_out,
    connect_nonblocking_timed_out,
    connect_timed_out_while_others_run,
    connect_no_route,
    connect_unreachable_route,
    connect_prohibited_route,
    connect_no_neighbour,
    connect_wrong_address,
    connect_already_connected,
    connect_polled,
    connect_interrupted,
    connect_interrupted_then_established,
    connect_closed_before_result,
    connect_exits_before_result,
    connect_disconnect,
    connect_again_after_refusal,
    connect_again_after_error_read,
    connect_beside_one_that_waits,
    connect_to_self,
    connect_reset_at_once,
];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const LO6: Ipv6Addr = Ipv6Addr::LOCALHOST;
/// Longest wait for something that takes a second or three.
const LONG: Duration = Duration::from_secs(30);
/// Long enough for the kernel to finish what it has woken somebody for.
const SETTLED: Duration = Duration::from_millis(50);

/// A listener that answers nobody: its queue of one is full.
struct Full {
    address: SocketAddr,
    listener: Sock,
    _waiting: Sock,
}

impl Full {
    fn new(s: &mut Script) -> Result<Self> {
        let listener = s.bound(Kind::Tcp4, (LO4, 8080))?;
        s.listen(&listener, 0).ok()?;
        let address = listener.local().context("no address")?;
        let waiting = s.socket(Kind::Tcp4)?;
        s.connect(&waiting, address).ok()?;
        Ok(Self {
            address,
            listener,
            _waiting: waiting,
        })
    }
}

/// Gives up connecting after the first retransmission.
fn impatient(s: &Script) -> Result<Sock> {
    let sock = s.socket(Kind::Tcp4)?;
    sock.set_option(libc::IPPROTO_TCP, libc::TCP_SYNCNT, 1)?;
    Ok(sock)
}

/// Waits for a non-blocking attempt to end and writes down its line.
fn finish<'a>(
    s: &'a mut Script,
    sock: &Sock,
    pending: &Pending,
    expected: Result<(), Errno>,
) -> Result<&'a mut Expect> {
    ensure!(
        sock.wait_writable(LONG),
        "connect() has no outcome after {LONG:?}"
    );
    // The kernel may wake its waiters before it changes the state, and SO_ERROR would take away the errno
    // that portwatch reads there: the row error-read-early.
    std::thread::sleep(SETTLED);
    let mut result = sock.take_error();
    if result.is_ok() && expected.is_err() && sock.peer().is_none() {
        // Woken without an error, and not connected either: seen on 5.10 and 6.1 under load, why is not
        // known. The outcome is yet to come.
        ensure!(sock.wait_writable(LONG), "no outcome after a false alarm");
        std::thread::sleep(SETTLED);
        result = sock.take_error();
    }
    ensure!(
        result == expected,
        "connect() ended with {result:?}, not {expected:?}; peer {:?}",
        sock.peer()
    );
    Ok(s.connect_ended(sock, pending, result))
}

fn connect_tcp4(s: &mut Script) -> Result<()> {
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    s.connected(&server).map(drop)
}

fn connect_tcp6(s: &mut Script) -> Result<()> {
    let server = s.listener(Kind::Tcp6, (LO6, 8080))?;
    s.connected(&server).map(drop)
}

/// The kernel goes through the IPv6 function and the IPv4 one: still one line.
fn connect_v4_mapped(s: &mut Script) -> Result<()> {
    let _server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let client = s.socket(Kind::Tcp6)?;
    s.connect(&client, (LO4.to_ipv6_mapped(), 8080)).ok()?;
    let refused = s.socket(Kind::Tcp6)?;
    s.connect(&refused, (LO4.to_ipv6_mapped(), 8081))
        .fails(Errno::ECONNREFUSED)?;
    Ok(())
}

fn connect_bound(s: &mut Script) -> Result<()> {
    let _server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let client = s.bound(Kind::Tcp4, (LO4, 9000))?;
    s.connect(&client, (LO4, 8080)).ok()?;
    Ok(())
}

fn connect_bound_auto_port(s: &mut Script) -> Result<()> {
    let _server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let client = s.bound(Kind::Tcp4, (LO4, 0))?;
    s.connect(&client, (LO4, 8080)).ok()?;
    Ok(())
}

fn connect_refused(s: &mut Script) -> Result<()> {
    for (kind, ip) in [(Kind::Tcp4, IpAddr::V4(LO4)), (Kind::Tcp6, IpAddr::V6(LO6))] {
        let client = s.socket(kind)?;
        s.connect(&client, (ip, 8080)).fails(Errno::ECONNREFUSED)?;
    }
    Ok(())
}

fn connect_refused_bound(s: &mut Script) -> Result<()> {
    let client = s.bound(Kind::Tcp4, (LO4, 9000))?;
    s.connect(&client, (LO4, 8080)).fails(Errno::ECONNREFUSED)?;
    Ok(())
}

fn connect_nonblocking(s: &mut Script) -> Result<()> {
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let client = s.socket(Kind::Tcp4)?;
    client.set_nonblocking(true)?;
    let address = server.local().context("no address")?;
    let pending = s.connect_start(&client, address, Errno::EINPROGRESS)?;
    finish(s, &client, &pending, Ok(()))?;
    Ok(())
}

fn connect_nonblocking_refused(s: &mut Script) -> Result<()> {
    for (kind, ip) in [(Kind::Tcp4, IpAddr::V4(LO4)), (Kind::Tcp6, IpAddr::V6(LO6))] {
        let client = s.socket(kind)?;
        client.set_nonblocking(true)?;
        let pending = s.connect_start(&client, (ip, 8080), Errno::EINPROGRESS)?;
        finish(s, &client, &pending, Err(Errno::ECONNREFUSED))?;
    }
    Ok(())
}

fn connect_timed_out(s: &mut Script) -> Result<()> {
    let full = Full::new(s)?;
    let client = impatient(s)?;
    s.connect(&client, full.address).fails(Errno::ETIMEDOUT)?;
    Ok(())
}

fn connect_nonblocking_timed_out(s: &mut Script) -> Result<()> {
    let full = Full::new(s)?;
    let client = impatient(s)?;
    client.set_nonblocking(true)?;
    let pending = s.connect_start(&client, full.address, Errno::EINPROGRESS)?;
    finish(s, &client, &pending, Err(Errno::ETIMEDOUT))?;
    Ok(())
}

/// The outcome arrives in a timer or softirq that interrupts whoever is running: here processes
/// that burn every CPU. The line names the caller.
fn connect_timed_out_while_others_run(s: &mut Script) -> Result<()> {
    let full = Full::new(s)?;
    let mut burners = Vec::new();
    for cpu in task::cpus()? {
        burners.push(task::Background::spawn(|| {
            if task::pin(cpu).is_ok() && task::rename(b"burner").is_ok() {
                loop {
                    std::hint::spin_loop();
                }
            }
        })?);
    }
    let late = impatient(s)?;
    late.set_nonblocking(true)?;
    let late_pending = s.connect_start(&late, full.address, Errno::EINPROGRESS)?;
    for _ in 0..10 {
        let refused = s.socket(Kind::Tcp4)?;
        refused.set_nonblocking(true)?;
        let pending = s.connect_start(&refused, (LO4, 8081), Errno::EINPROGRESS)?;
        finish(s, &refused, &pending, Err(Errno::ECONNREFUSED))?;
    }
    finish(s, &late, &late_pending, Err(Errno::ETIMEDOUT))?;
    drop(burners);
    Ok(())
}

/// A namespace with a loopback device only.
fn connect_no_route(s: &mut Script) -> Result<()> {
    let v4 = s.socket(Kind::Tcp4)?;
    s.connect(&v4, (Ipv4Addr::new(192, 0, 2, 1), 80))
        .fails(Errno::ENETUNREACH)?;
    let ip: Ipv6Addr = "2001:db8::1".parse()?;
    let v6 = s.socket(Kind::Tcp6)?;
    s.connect(&v6, (ip, 80)).fails(Errno::ENETUNREACH)?;
    let udp = s.socket(Kind::Udp4)?;
    s.connect(&udp, (Ipv4Addr::new(192, 0, 2, 1), 80))
        .fails(Errno::ENETUNREACH)?;
    Ok(())
}

fn connect_unreachable_route(s: &mut Script) -> Result<()> {
    let ip = Ipv4Addr::new(192, 0, 2, 1);
    netlink::add_unreachable(ip.into(), 32).context("cannot add a route")?;
    let client = s.socket(Kind::Tcp4)?;
    s.connect(&client, (ip, 80)).fails(Errno::EHOSTUNREACH)?;
    Ok(())
}

fn connect_prohibited_route(s: &mut Script) -> Result<()> {
    let ip = Ipv4Addr::new(192, 0, 2, 1);
    netlink::add_prohibit(ip.into(), 32).context("cannot add a route")?;
    let client = s.socket(Kind::Tcp4)?;
    s.connect(&client, (ip, 80))
        .fails(Errno::EACCES)?
        .judged_alone("unknown");
    Ok(())
}

/// The neighbour does not answer ARP: EHOSTUNREACH out of a timer.
fn connect_no_neighbour(s: &mut Script) -> Result<()> {
    if let Err(error) = netlink::add_veth("pwa", "pwb") {
        return skip(format!("no veth devices ({error:?})"));
    }
    netns::link_up("pwa").context("cannot bring a veth up")?;
    netns::link_up("pwb").context("cannot bring a veth up")?;
    let here = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    netlink::add_address(netns::link_index("pwa")?, here, 24).context("cannot add an address")?;
    netns::sysctl("ipv4/neigh/pwa/retrans_time_ms", "20")?;
    let client = s.socket(Kind::Tcp4)?;
    client.set_nonblocking(true)?;
    let peer = (Ipv4Addr::new(192, 0, 2, 2), 80);
    let pending = s.connect_start(&client, peer, Errno::EINPROGRESS)?;
    finish(s, &client, &pending, Err(Errno::EHOSTUNREACH))?;
    let blocking = s.socket(Kind::Tcp4)?;
    s.connect(&blocking, peer).fails(Errno::EHOSTUNREACH)?;
    // That a failure was told says nothing of the next attempt, which fails at once.
    client
        .connect(&Address::unspec())
        .context("connect(AF_UNSPEC)")?;
    netlink::add_unreachable(peer.0.into(), 32).context("cannot add a route")?;
    s.connect(&client, peer).fails(Errno::EHOSTUNREACH)?;
    Ok(())
}

fn connect_wrong_address(s: &mut Script) -> Result<()> {
    let short = s.socket(Kind::Tcp4)?;
    s.connect(&short, Address::from((LO4, 80)).cut(8))
        .fails(Errno::EINVAL)?;
    let family = s.socket(Kind::Tcp4)?;
    s.connect(&family, (LO6, 80))
        .fails(Errno::EAFNOSUPPORT)?
        .forget("network.peer.address")
        .forget("network.peer.port")
        .forget("network.peer.port_class");
    Ok(())
}

/// EISCONN is decided before TCP's own code.
fn connect_already_connected(s: &mut Script) -> Result<()> {
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let (client, _accepted) = s.connected(&server)?;
    let why = degraded::may_miss(s.ctx.backend, Feature::ConnectTooLate);
    let line = s.connect(&client, (LO4, 8081)).fails(Errno::EISCONN)?;
    // What was asked for: nothing of the local end, which has long been decided.
    line.forget("network.local.port");
    if let Some(why) = why {
        line.optional(why);
    }
    Ok(())
}

/// Asking again (EALREADY, then EISCONN) is not a second attempt.
fn connect_polled(s: &mut Script) -> Result<()> {
    let full = Full::new(s)?;
    let client = s.socket(Kind::Tcp4)?;
    client.set_nonblocking(true)?;
    let pending = s.connect_start(&client, full.address, Errno::EINPROGRESS)?;
    for _ in 0..3 {
        let again = client.connect(&full.address.into());
        ensure!(
            again == Err(Errno::EALREADY),
            "connect() again gave {again:?}"
        );
    }
    let _room = full.listener.accept().context("accept")?;
    finish(s, &client, &pending, Ok(()))?;
    // The first call after that reports the success once more, without an event of its own.
    let last = client.connect(&full.address.into());
    ensure!(last == Ok(()), "connect() after the outcome gave {last:?}");
    Ok(())
}

/// A signal ends the call, not the attempt: one line, once the attempt has ended.
fn connect_interrupted(s: &mut Script) -> Result<()> {
    let full = Full::new(s)?;
    let client = s.socket(Kind::Tcp4)?;
    task::interrupt_on(libc::SIGALRM)?;
    task::alarm(50)?;
    let pending = s.connect_start(&client, full.address, Errno::EINTR)?;
    s.connect_given_up(client, &pending);
    Ok(())
}

fn connect_interrupted_then_established(s: &mut Script) -> Result<()> {
    let full = Full::new(s)?;
    let client = s.socket(Kind::Tcp4)?;
    task::interrupt_on(libc::SIGALRM)?;
    task::alarm(50)?;
    let pending = s.connect_start(&client, full.address, Errno::EINTR)?;
    let _room = full.listener.accept().context("accept")?;
    finish(s, &client, &pending, Ok(()))?;
    Ok(())
}

fn connect_closed_before_result(s: &mut Script) -> Result<()> {
    let full = Full::new(s)?;
    let client = s.socket(Kind::Tcp4)?;
    client.set_nonblocking(true)?;
    let pending = s.connect_start(&client, full.address, Errno::EINPROGRESS)?;
    s.connect_given_up(client, &pending);
    Ok(())
}

/// The process ends with the attempt under way, and is named all the same.
fn connect_exits_before_result(s: &mut Script) -> Result<()> {
    let full = Full::new(s)?;
    let address = full.address;
    s.forked(|s| {
        let client = s.socket(Kind::Tcp4)?;
        client.set_nonblocking(true)?;
        let pending = s.connect_start(&client, address, Errno::EINPROGRESS)?;
        let facts = s.connect_ended(&client, &pending, Ok(()));
        facts
            .is("event.outcome", "unknown")
            .is("event.reason", "closed")
            .forget("event.duration")
            .forget("time_boot");
        // Open until the process is gone.
        std::mem::forget(client);
        Ok(())
    })?;
    Ok(())
}

/// connect(AF_UNSPEC) connects to nobody: no line.
fn connect_disconnect(s: &mut Script) -> Result<()> {
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let (client, _accepted) = s.connected(&server)?;
    client
        .connect(&Address::unspec())
        .context("connect(AF_UNSPEC)")?;
    Ok(())
}

/// A socket may try again after a refusal, and each attempt is a line.
fn connect_again_after_refusal(s: &mut Script) -> Result<()> {
    let client = s.socket(Kind::Tcp4)?;
    s.connect(&client, (LO4, 8080)).fails(Errno::ECONNREFUSED)?;
    let _server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    s.connect(&client, (LO4, 8080)).ok()?;
    Ok(())
}

/// Once the error is read, the next call ends the refused attempt and is none itself; the one after that
/// is.
fn connect_again_after_error_read(s: &mut Script) -> Result<()> {
    let client = refused_and_ended(s)?;
    let pending = s.connect_start(&client, (LO4, 8081), Errno::EINPROGRESS)?;
    ensure!(client.wait_writable(LONG), "no outcome");
    // This time a call picks the error up.
    let result = client.connect(&(LO4, 8081).into());
    ensure!(result == Err(Errno::ECONNREFUSED), "{result:?}");
    s.connect_ended(&client, &pending, result);
    Ok(())
}

/// A refused attempt whose error was read and whose socket may be used again.
fn refused_and_ended(s: &mut Script) -> Result<Sock> {
    let client = s.socket(Kind::Tcp4)?;
    client.set_nonblocking(true)?;
    let pending = s.connect_start(&client, (LO4, 8081), Errno::EINPROGRESS)?;
    finish(s, &client, &pending, Err(Errno::ECONNREFUSED))?;
    let again = client.connect(&(LO4, 8081).into());
    ensure!(again == Err(Errno::ECONNABORTED), "{again:?}");
    Ok(client)
}

/// What is remembered of a call has a place by the low bits of the thread's id. A thread whose place is
/// taken for as long as another one waits, and that finds it free later, is told like any other.
fn connect_beside_one_that_waits(s: &mut Script) -> Result<()> {
    // Half of CALLS in portwatch-ebpf/src/state/calls.rs: each thread has two places.
    const THREADS: u32 = 2048;
    let full = Full::new(s)?;
    let server = s.listener(Kind::Tcp4, (LO4, 8082))?;
    let address = server.local().context("no address")?;
    let (mut done, end) = task::pipe()?;
    let peer = full.address;
    let waiting = task::Background::spawn(move || {
        let ended = Sock::new(Kind::Tcp4).and_then(|sock| sock.connect(&peer.into()));
        drop((end, ended));
        loop {
            std::thread::park();
        }
    })?;
    let other = waiting.asleep()?;
    let highest = std::fs::read_to_string("/proc/sys/kernel/pid_max").context("pid_max")?;
    let highest: u32 = highest.trim().parse().context("pid_max")?;
    // 300: the kernel does not come back to ids below (RESERVED_PIDS, kernel/pid.c).
    let beside = (300..highest)
        .skip_while(|id| id % THREADS != other % THREADS)
        .step_by(THREADS as usize)
        .find(|id| *id != other && !std::path::Path::new(&format!("/proc/{id}")).exists())
        .context("no such thread id is free")?;
    let all = |s: &mut Script| {
        s.forked_as(beside.cast_signed(), |s| {
            let client = s.socket(Kind::Tcp4)?;
            s.connect(&client, (LO4, 8081)).fails(Errno::ECONNREFUSED)?;
            let client = s.socket(Kind::Tcp4)?;
            s.connect(&client, address).ok()?;
            refused_and_ended(s)?;
            let client = s.socket(Kind::Udp4)?;
            s.connect(&client, (LO4, 5353)).ok()?;
            let client = s.socket(Kind::Udp4)?;
            s.send_to(&client, (LO4, 5353)).ok()?;
            let client = s.socket(Kind::Udp4)?;
            s.connect(&client, (LO4, 5353)).ok()?;
            Ok(())
        })
    };
    match all(s) {
        Ok(()) => {}
        Err(error) if error.downcast_ref() == Some(&Errno::ENOSYS) => {
            return skip("no clone3 on this kernel");
        }
        Err(error) if error.downcast_ref() == Some(&Errno::EEXIST) => {
            return skip(format!("process {beside} is somebody else's"));
        }
        Err(error) => return Err(error),
    }
    let _room = full.listener.accept().context("accept")?;
    std::io::Read::read(&mut done, &mut [0]).context("waiting for the other one")?;
    let mut line = Expect::default();
    line.is("event.name", "connect")
        .is("event.outcome", "success")
        .is("network.local.address", "127.0.0.1")
        .is("network.peer.port", 8080)
        .is("process.pid", waiting.pid());
    s.expect(line);
    all(s)
}

/// The peer resets a connection before the call that made it has returned: it stood all the same.
fn connect_reset_at_once(s: &mut Script) -> Result<()> {
    const TRIES: usize = 8;
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let acceptor = task::Background::spawn(|| {
        while let Ok(accepted) = server.accept() {
            if accepted.reset_on_close().is_err() {
                break;
            }
        }
        loop {
            std::thread::park();
        }
    })?;
    for _ in 0..TRIES {
        let client = s.socket(Kind::Tcp4)?;
        let call = s.connect(&client, (LO4, 8080));
        let result = call.result();
        if result.is_ok() {
            // Its own end may be gone by now.
            call.ok()?.forget("network.local.port");
            continue;
        }
        ensure!(
            result == Err(Errno::ECONNRESET),
            "connect() gave {result:?}"
        );
        s.lines().pop();
        let mut line = Expect::default();
        line.is("event.name", "connect")
            .is("event.outcome", "success")
            .is("network.local.address", "127.0.0.1")
            .is("network.peer.port", 8080)
            .is("process.pid", s.me.pid);
        s.expect(line);
    }
    drop(acceptor);
    Ok(())
}

/// A socket that meets itself (RFC 9293, simultaneous open): established without a listener.
fn connect_to_self(s: &mut Script) -> Result<()> {
    let client = s.bound(Kind::Tcp4, (LO4, 9000))?;
    s.connect(&client, (LO4, 9000)).ok()?;
    Ok(())
}
