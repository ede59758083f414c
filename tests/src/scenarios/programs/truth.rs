//! Which events the calls that strace saw have to give. Pure.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::opens::Opens;
use crate::{
    degraded::{self, Backend, Feature},
    expect::{Expect, Want},
    script::set_end,
    strace::{self, Call},
};

/// net.core.somaxconn of a new network namespace, which a backlog is cut down to (kernel:
/// include/linux/socket.h, since 5.4).
const SOMAXCONN: u32 = 4096;

/// A socket of those that are told of: TCP, UDP or MPTCP over IPv4 or IPv6.
#[derive(Clone, Copy, Debug)]
struct Sock {
    v6: bool,
    tcp: bool,
    mptcp: bool,
    /// Where bind() has put it.
    bound: Option<SocketAddr>,
    /// Whether it has a port.
    port: bool,
    /// Whether a connect() of it was open when it returned, and none has asked connect() since.
    open: bool,
}

impl Sock {
    /// As socket() made it.
    fn made(call: &Call) -> Option<Self> {
        let v6 = match call.arg(0) {
            "AF_INET" => false,
            "AF_INET6" => true,
            _ => return None,
        };
        let tcp = match call.arg(1).split('|').next() {
            Some("SOCK_STREAM") => true,
            Some("SOCK_DGRAM") => false,
            _ => return None,
        };
        let mptcp = match (tcp, call.arg(2)) {
            (true, "IPPROTO_IP" | "IPPROTO_TCP") | (false, "IPPROTO_IP" | "IPPROTO_UDP") => false,
            (true, "IPPROTO_MPTCP") => true,
            _ => return None,
        };
        Some(Self {
            v6,
            tcp,
            mptcp,
            bound: None,
            port: false,
            open: false,
        })
    }
}

/// The events, in any order, of a program whose calls these are.
pub(super) fn of(calls: &[Call], backend: Backend) -> Vec<Expect> {
    let mut truth = Truth {
        backend,
        processes: strace::processes(calls),
        opens: Opens::new(calls),
        late_ports: calls.iter().filter_map(without_port).collect(),
        socks: HashMap::new(),
        events: Vec::new(),
    };
    for (place, call) in calls.iter().enumerate() {
        truth.call(place, call);
    }
    truth.events
}

/// The socket whose port is to come with connect() (IP_BIND_ADDRESS_NO_PORT).
fn without_port(call: &Call) -> Option<u64> {
    let sets = call.name == "setsockopt" && call.arg(2) == "IP_BIND_ADDRESS_NO_PORT";
    (sets && call.arg(3) == "[1]" && call.result == "0").then(|| strace::inode(call.arg(0)))?
}

struct Truth {
    backend: Backend,
    processes: HashMap<u32, u32>,
    opens: Opens,
    late_ports: HashSet<u64>,
    socks: HashMap<u64, Sock>,
    events: Vec<Expect>,
}

impl Truth {
    fn call(&mut self, place: usize, call: &Call) {
        if call.name == "socket" {
            if let (Some(inode), Some(sock)) = (strace::inode(&call.result), Sock::made(call)) {
                self.socks.insert(inode, sock);
            }
            return;
        }
        let Some(inode) = strace::inode(call.arg(0)) else {
            return;
        };
        let Some(sock) = self.socks.get(&inode).copied() else {
            return;
        };
        let after = match call.name.as_str() {
            "bind" => self.bind(call, inode, sock),
            "listen" => self.listen(call, inode, sock),
            "connect" => self.connect(place, call, inode, sock),
            "accept" | "accept4" => self.accept(call, sock),
            "sendto" | "sendmsg" | "sendmmsg" => self.send(call, inode, sock),
            _ => return,
        };
        self.socks.insert(inode, after);
    }

    /// What every event of the call has.
    fn event(&self, name: &str, call: &Call, inode: u64, sock: Sock) -> Expect {
        let mut event = Expect::default();
        let process = self.processes.get(&call.thread).unwrap_or(&call.thread);
        event
            .is("event.name", name)
            .is("process.pid", *process)
            .is("thread.id", call.thread)
            .is("socket.inode", inode)
            .is("network.transport", if sock.tcp { "tcp" } else { "udp" })
            .is("network.type", if sock.v6 { "ipv6" } else { "ipv4" });
        if sock.mptcp {
            event.is("socket.mptcp", true);
        } else {
            event.set("socket.mptcp", Want::NotTrue);
        }
        outcome(&mut event, call.error());
        event
    }

    fn bind(&mut self, call: &Call, inode: u64, mut sock: Sock) -> Sock {
        let mut event = self.event("bind", call, inode, sock);
        let asked = strace::address(call.arg(1));
        set_end(&mut event, "local", asked);
        match (call.error(), asked) {
            (None, Some(asked)) => {
                if asked.port() != 0 {
                    event.set("socket.auto_port", Want::NotTrue);
                } else if self.late_ports.contains(&inode) {
                    event.set("network.local.port", Want::Absent);
                } else {
                    event
                        .set("network.local.port", Want::Within(1, 65535))
                        .is("socket.auto_port", true);
                }
                sock.bound = Some(asked);
                sock.port = asked.port() != 0 || !self.late_ports.contains(&inode);
            }
            (Some("EADDRINUSE" | "EADDRNOTAVAIL" | "EACCES"), _) => {
                event.set("conflict.kind", Want::Present);
            }
            _ => {}
        }
        self.events.push(event);
        sock
    }

    fn listen(&mut self, call: &Call, inode: u64, mut sock: Sock) -> Sock {
        let mut event = self.event("listen", call, inode, sock);
        if let Some(bound) = sock.bound {
            set_end(&mut event, "local", Some(bound));
        }
        // What bind() was not told the kernel chooses.
        if sock.bound.is_none_or(|bound| bound.port() == 0) {
            event.set("network.local.port", Want::Within(1, 65535));
        }
        if let Ok(backlog) = call.arg(1).parse::<i32>() {
            event.is("socket.backlog", backlog.cast_unsigned().min(SOMAXCONN));
        }
        sock.port = true;
        self.events.push(event);
        sock
    }

    fn connect(&mut self, place: usize, call: &Call, inode: u64, mut sock: Sock) -> Sock {
        let Some(peer) = strace::address(call.arg(1)) else {
            // AF_UNSPEC: no event, and an automatic port is given back.
            sock.port = sock.bound.is_some_and(|bound| bound.port() != 0);
            return sock;
        };
        if sock.open {
            // It asks what became of the first one.
            sock.open = call.error() == Some("EALREADY");
            return sock;
        }
        let mut event = self.event("connect", call, inode, sock);
        set_end(&mut event, "peer", Some(reached(peer, sock.v6)));
        // getaddrinfo() asks so for the way to a host.
        event.is("network.peer.port", peer.port());
        if call.error() == Some("EINPROGRESS") {
            sock.open = true;
            match self.opens.ended(place, inode) {
                Some(error) => outcome(&mut event, error),
                // Nobody has asked, so nothing is known.
                None => {
                    event
                        .forget("error.type")
                        .set("event.outcome", Want::Present);
                }
            }
        }
        if event.text("event.outcome") == Some("success") {
            event
                .set("network.local.address", Want::Present)
                .set("network.local.port", Want::Within(1, 65535));
        }
        sock.port = true;
        self.events.push(event);
        sock
    }

    /// That nothing was there is no event.
    fn accept(&mut self, call: &Call, listener: Sock) -> Sock {
        let own = strace::inode(&call.result).or_else(|| strace::inode(call.arg(0)));
        if matches!(call.error(), Some("EAGAIN" | "EINTR")) {
            return listener;
        }
        if let Some(inode) = own {
            let mut event = self.event("accept", call, inode, listener);
            if listener.mptcp {
                // Of a client without MPTCP the kernel makes a TCP socket.
                event.set("socket.mptcp", Want::Present);
            }
            if let Some(peer) = strace::address(call.arg(1)).filter(|_| call.error().is_none()) {
                set_end(&mut event, "peer", Some(peer));
            }
            self.events.push(event);
            let connection = Sock {
                bound: None,
                port: true,
                open: false,
                ..listener
            };
            if call.error().is_none() {
                self.socks.insert(inode, connection);
            }
        }
        listener
    }

    /// The first datagram takes a port (net/ipv4/af_inet.c, inet_send_prepare), whatever becomes of it.
    fn send(&mut self, call: &Call, inode: u64, mut sock: Sock) -> Sock {
        if !sock.tcp && !sock.port {
            let mut event = self.event("autobind", call, inode, sock);
            outcome(&mut event, None);
            event
                .set("network.local.port", Want::Within(1, 65535))
                .is("socket.auto_port", true);
            if let Some(why) = degraded::may_miss(self.backend, Feature::Autobind) {
                event.optional(why);
            }
            self.events.push(event);
            sock.port = true;
        }
        sock
    }
}

/// Whom a connect() to an address reaches: this machine, if it is the wildcard. An IPv6 socket maps IPv4
/// addresses (net/ipv6/datagram.c, `__ip6_datagram_connect`).
fn reached(mut peer: SocketAddr, v6: bool) -> SocketAddr {
    match peer.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => peer.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => peer.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.to_ipv4_mapped() == Some(Ipv4Addr::UNSPECIFIED) => {
            peer.set_ip(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into());
        }
        _ => {}
    }
    if let (IpAddr::V4(ip), true) = (peer.ip(), v6) {
        peer.set_ip(ip.to_ipv6_mapped().into());
    }
    peer
}

fn outcome(event: &mut Expect, error: Option<&str>) {
    match error {
        None => event
            .is("event.outcome", "success")
            .set("error.type", Want::Absent),
        Some(error) => event.is("event.outcome", "failure").is("error.type", error),
    };
}
