//! A case on the running kernel.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;

use super::{
    case::{Device, Label, Spec, Step, as_seen_by},
    predict::Outcome,
};
use crate::sys::{
    netlink,
    netns::{Netns, sysctl},
    sock::{Kind, Sock, TCP_CLOSE},
    task::with_effective_user,
};

/// The ports that cases are about. Each one is used once in a namespace, because TIME_WAIT outlives
/// its case by a minute.
const PORTS: std::ops::Range<u16> = 20_000..25_000;
/// Those of the other ends of connections.
const OTHER_PORTS: std::ops::Range<u16> = 30_000..65_000;
/// The most that one case takes of the latter.
const OTHERS_OF_A_CASE: u16 = 16;
/// Name of [`Device::Veth`].
pub(super) const VETH: &str = "portwatch0";
/// How long anything may take that the loopback device does at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// A network namespace with ports that nothing was ever bound to.
pub(super) struct Ground {
    _netns: Netns,
    ports: std::ops::Range<u16>,
    others: std::ops::Range<u16>,
}

impl Ground {
    /// A fresh one; the calling thread moves there.
    pub(super) fn new() -> Result<Self> {
        let netns = Netns::new()?;
        netns.enter()?;
        netlink::add_veth(VETH, "portwatch1").context("cannot make a veth pair")?;
        Ok(Self {
            _netns: netns,
            ports: PORTS,
            others: OTHER_PORTS,
        })
    }

    /// A port for a case, in another namespace once this one has none left.
    pub(super) fn site(&mut self, udp: bool) -> Result<Site<'_>> {
        if self.ports.is_empty() || self.others.len() < OTHERS_OF_A_CASE.into() {
            *self = Self::new()?;
        }
        let port = self.ports.next().context("a namespace without ports")?;
        Ok(Site {
            port,
            udp,
            others: &mut self.others,
            sockets: BTreeMap::new(),
            peers: BTreeMap::new(),
            rest: Vec::new(),
        })
    }
}

/// One port and its sockets. They are gone with it.
pub(super) struct Site<'a> {
    port: u16,
    udp: bool,
    others: &'a mut std::ops::Range<u16>,
    sockets: BTreeMap<Label, Sock>,
    /// The other ends of connections.
    peers: BTreeMap<Label, Sock>,
    /// What only has to stay.
    rest: Vec<Sock>,
}

impl Site<'_> {
    /// The port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Takes a step.
    pub(super) fn step(&mut self, step: &Step) -> Result<Outcome> {
        match *step {
            Step::Bind(label, spec) => self.bind(label, spec, self.port),
            Step::BindZero(label, spec) => {
                self.leave_one_port()?;
                self.bind(label, spec, 0)
            }
            Step::ConnectUnbound(label, spec, to) => {
                self.leave_one_port()?;
                let sock = self.socket(spec)?;
                self.sockets.insert(label, sock);
                self.connect(label, to)
            }
            Step::Listen(label) => outcome(self.socket_of(label)?.listen(5)),
            Step::Connect(label, to) => self.connect(label, to),
            Step::Accept {
                listener,
                to,
                child,
                uid,
            } => self.accept(listener, to, child, uid),
            Step::Queue(listener, to) => {
                let peer = self.call(listener, to)?;
                self.rest.push(peer);
                Ok(Outcome::Done)
            }
            Step::TimeWait(label) => self.time_wait(label),
            Step::Orphan(label) => self.orphan(label),
            Step::Close(label) => self.take(label).map(|_| Outcome::Done),
        }
    }

    /// The kernel has no choice when it chooses a port.
    fn leave_one_port(&self) -> Result<()> {
        let port = self.port;
        sysctl("ipv4/ip_local_port_range", &format!("{port} {port}"))
    }

    fn socket(&self, spec: Spec) -> Result<Sock> {
        let Spec {
            address,
            v6only,
            reuseaddr,
            reuseport,
            uid,
            device,
        } = spec;
        let kind = self.kind(address);
        let sock = with_effective_user(uid, || Sock::new(kind))?.context("socket()")?;
        for (level, name, on) in [
            (libc::SOL_SOCKET, libc::SO_REUSEADDR, reuseaddr),
            (libc::SOL_SOCKET, libc::SO_REUSEPORT, reuseport),
        ] {
            sock.set_option(level, name, on.into())?;
        }
        if kind.is_v6() {
            sock.set_option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, v6only.into())?;
        }
        if let Some(device) = device {
            let name = match device {
                Device::Lo => "lo",
                Device::Veth => VETH,
            };
            sock.bind_to_device(name).context("SO_BINDTODEVICE")?;
        }
        sock.set_nonblocking(true)?;
        if !self.udp {
            sock.reset_on_close()?;
        }
        Ok(sock)
    }

    fn kind(&self, address: IpAddr) -> Kind {
        match (self.udp, address) {
            (false, IpAddr::V4(_)) => Kind::Tcp4,
            (false, IpAddr::V6(_)) => Kind::Tcp6,
            (true, IpAddr::V4(_)) => Kind::Udp4,
            (true, IpAddr::V6(_)) => Kind::Udp6,
        }
    }

    fn bind(&mut self, label: Label, spec: Spec, port: u16) -> Result<Outcome> {
        let sock = self.socket(spec)?;
        let outcome = outcome(sock.bind(&(spec.address, port).into()))?;
        if outcome == Outcome::Done {
            let got = sock.local().map(|local| local.port());
            ensure!(
                got == Some(self.port),
                "bound to {got:?}, not {}",
                self.port
            );
            self.sockets.insert(label, sock);
        }
        Ok(outcome)
    }

    fn connect(&mut self, label: Label, to: IpAddr) -> Result<Outcome> {
        let port = self.other_port()?;
        let listener = if self.udp {
            None
        } else {
            let listener = other_end(to)?;
            listener
                .bind(&(to, port).into())
                .context("a peer's bind()")?;
            listener.listen(1).context("a peer's listen()")?;
            Some(listener)
        };
        let sock = self.socket_of(label)?;
        let own = sock.local().context("getsockname()")?.ip();
        connect_soon(sock, as_seen_by(own, to), port)?;
        let got = sock.local().map(|local| local.port());
        ensure!(
            got == Some(self.port),
            "connected from {got:?}, not {}",
            self.port
        );
        if let Some(listener) = listener {
            let peer = accept_soon(&listener)?;
            self.peers.insert(label, peer);
        }
        Ok(Outcome::Done)
    }

    /// Connects to a listener and waits until it could be accepted.
    fn call(&mut self, listener: Label, to: IpAddr) -> Result<Sock> {
        let port = self.other_port()?;
        let peer = other_end(to)?;
        peer.bind(&(to, port).into()).context("a client's bind()")?;
        connect_soon(&peer, to, self.port)?;
        ensure!(
            self.socket_of(listener)?.wait_readable(PATIENCE),
            "no connection arrives"
        );
        Ok(peer)
    }

    fn accept(&mut self, listener: Label, to: IpAddr, child: Label, uid: u32) -> Result<Outcome> {
        let peer = self.call(listener, to)?;
        let sock = self.socket_of(listener)?;
        let accepted = with_effective_user(uid, || sock.accept())?.context("accept()")?;
        accepted.set_nonblocking(true)?;
        accepted.reset_on_close()?;
        self.sockets.insert(child, accepted);
        self.peers.insert(child, peer);
        Ok(Outcome::Done)
    }

    /// This side sends its FIN first, and the other one answers with its own.
    fn time_wait(&mut self, label: Label) -> Result<Outcome> {
        let sock = self.take(label)?;
        let peer = self.peers.remove(&label).context("no peer")?;
        sock.shutdown_write()?;
        peer.shutdown_write()?;
        // What stays of the connection is no socket with a file; this one is closed then.
        soon("TIME_WAIT", || Ok(sock.tcp_state()? == TCP_CLOSE))?;
        Ok(Outcome::Done)
    }

    /// The FIN waits behind data for which the other side has no room.
    fn orphan(&mut self, label: Label) -> Result<Outcome> {
        let sock = self.take(label)?;
        let sent = sock.send(&[0; 1 << 15]).context("send()")?;
        ensure!(sent > 1 << 13, "only {sent} bytes fit");
        sock.end_on_close()?;
        Ok(Outcome::Done)
    }

    fn other_port(&mut self) -> Result<u16> {
        self.others.next().context("no port left for a peer")
    }

    fn socket_of(&self, label: Label) -> Result<&Sock> {
        self.sockets
            .get(&label)
            .with_context(|| format!("no socket {label}"))
    }

    fn take(&mut self, label: Label) -> Result<Sock> {
        self.sockets
            .remove(&label)
            .with_context(|| format!("no socket {label}"))
    }
}

fn outcome(result: Result<(), Errno>) -> Result<Outcome> {
    match result {
        Ok(()) => Ok(Outcome::Done),
        Err(Errno::EADDRINUSE) => Ok(Outcome::Refused),
        Err(error) => Err(error.into()),
    }
}

/// A socket of the other end of a connection: it leaves nothing behind, and takes little data.
fn other_end(to: IpAddr) -> Result<Sock> {
    let kind = if to.is_ipv4() { Kind::Tcp4 } else { Kind::Tcp6 };
    let sock = Sock::new(kind).context("socket()")?;
    sock.set_option(libc::SOL_SOCKET, libc::SO_RCVBUF, 1)?;
    sock.set_nonblocking(true)?;
    sock.reset_on_close()?;
    Ok(sock)
}

fn connect_soon(sock: &Sock, to: IpAddr, port: u16) -> Result<()> {
    match sock.connect(&(to, port).into()) {
        Ok(()) => return Ok(()),
        Err(Errno::EINPROGRESS) => {}
        Err(error) => bail!("connect() to {to}: {error}"),
    }
    ensure!(sock.wait_writable(PATIENCE), "connect() to {to} hangs");
    sock.take_error()
        .with_context(|| format!("connect() to {to}"))
}

fn accept_soon(listener: &Sock) -> Result<Sock> {
    ensure!(listener.wait_readable(PATIENCE), "no connection arrives");
    let sock = listener.accept().context("accept()")?;
    sock.reset_on_close()?;
    Ok(sock)
}

fn soon(what: &str, mut reached: impl FnMut() -> Result<bool>) -> Result<()> {
    let since = std::time::Instant::now();
    while !reached()? {
        ensure!(since.elapsed() < PATIENCE, "{what} is not reached");
        std::thread::yield_now();
    }
    Ok(())
}
