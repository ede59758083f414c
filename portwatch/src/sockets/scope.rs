//! Which sockets are asked for. Pure.

use std::path::PathBuf;

use crate::event::{Family, Holder, TcpState, Transport};

/// What to look for. A list without values lets everything pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// On this local port.
    pub port: Option<u16>,
    /// And connected to that port.
    pub peers: bool,
    /// Of these transports.
    pub transports: Vec<Transport>,
    /// Of these families.
    pub families: Vec<Family>,
    /// In these network namespaces.
    pub netns: Vec<Netns>,
    /// In which states.
    pub reach: Reach,
}

/// A network namespace that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    /// Its inode.
    pub inode: u32,
    /// A file that stands for it, where one was named: a way into it that no process need offer.
    pub path: Option<PathBuf>,
}

/// In which states sockets are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Those that wait for others: listening, or bound UDP.
    Listening,
    /// What occupies a port without being a connection: the same, and bound TCP that does not listen.
    Bound,
    /// Every state.
    #[default]
    All,
}

impl Reach {
    const fn takes(self, transport: Transport, state: TcpState) -> bool {
        let is_datagram = matches!(transport, Transport::Udp | Transport::UdpLite);
        match (self, state) {
            (Self::All, _) | (_, TcpState::Listen) => true,
            // The kernel keeps the states of TCP for UDP too: closed is one without a peer.
            (Self::Listening, TcpState::Closed) => is_datagram,
            (Self::Bound, TcpState::Closed | TcpState::BoundInactive) => true,
            _ => false,
        }
    }
}

impl Scope {
    /// Whether sockets of a transport are asked for.
    #[must_use]
    pub fn has(&self, transport: Transport) -> bool {
        any(&self.transports, |one| *one == transport)
    }

    /// Whether a socket is one of them. One without a port is not.
    #[must_use]
    pub fn takes(&self, socket: &Holder) -> bool {
        let Self {
            port,
            peers,
            transports: _,
            families,
            netns,
            reach,
        } = self;
        let own = socket.local.port.filter(|&port| port != 0);
        own.is_some()
            && (port.is_none() || own == *port || (*peers && is_peer(socket, *port)))
            && self.has(socket.transport)
            && any(families, |one| *one == socket.family)
            && any(netns, |one| Some(one.inode) == socket.socket.netns)
            && reach.takes(socket.transport, socket.state)
    }
}

/// Whether a socket is connected to the port. What is left in TIME_WAIT is its client's business alone.
fn is_peer(socket: &Holder, port: Option<u16>) -> bool {
    socket.state != TcpState::TimeWait && socket.peer.is_some_and(|peer| peer.port == port)
}

fn any<T>(wanted: &[T], is_it: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Endpoint, Kind},
        sample,
    };

    fn socket(transport: Transport, state: TcpState) -> Holder {
        let held = sample::conflict::held(Kind::Bound, "127.0.0.1:8080");
        Holder {
            transport,
            state,
            ..held.culprit.holder
        }
    }

    #[test]
    fn what_occupies_a_port_waits_or_is_bound() {
        use TcpState::{BoundInactive, CloseWait, Closed, Established, Listen, TimeWait};
        for (transport, state, listening, bound) in [
            (Transport::Tcp, Listen, true, true),
            (Transport::Tcp, Closed, false, true),
            (Transport::Tcp, BoundInactive, false, true),
            (Transport::Tcp, Established, false, false),
            (Transport::Tcp, CloseWait, false, false),
            (Transport::Tcp, TimeWait, false, false),
            (Transport::Udp, Closed, true, true),
            (Transport::UdpLite, Closed, true, true),
            // Connected.
            (Transport::Udp, Established, false, false),
            (Transport::Sctp, Listen, true, true),
            (Transport::Sctp, Closed, false, true),
        ] {
            let takes = |reach| {
                let scope = Scope {
                    reach,
                    ..Scope::default()
                };
                scope.takes(&socket(transport, state))
            };
            let case = format!("{transport:?} {state:?}");
            assert_eq!(takes(Reach::Listening), listening, "{case}");
            assert_eq!(takes(Reach::Bound), bound, "{case}");
            assert!(takes(Reach::All), "{case}");
        }
    }

    #[test]
    fn who_is_connected_to_a_port_is_on_it_too_where_that_is_asked() {
        let mut client = socket(Transport::Tcp, TcpState::Established);
        client.peer = Some(Endpoint {
            address: client.local.address,
            port: Some(443),
        });
        let scope = Scope {
            port: Some(443),
            peers: true,
            ..Scope::default()
        };
        assert!(scope.takes(&client));
        let alone = Scope {
            peers: false,
            ..scope.clone()
        };
        assert!(!alone.takes(&client));
        client.state = TcpState::TimeWait;
        assert!(!scope.takes(&client));
    }

    #[test]
    fn kinds_are_joined_by_and_and_values_by_or() {
        let held = socket(Transport::Tcp, TcpState::Listen);
        let here = Netns {
            inode: 4_026_531_840,
            path: None,
        };
        let there = Netns {
            inode: 1,
            ..here.clone()
        };
        let scope = Scope {
            port: Some(8080),
            peers: false,
            transports: vec![Transport::Udp, Transport::Tcp],
            families: vec![Family::Ipv4],
            netns: vec![there.clone(), here],
            reach: Reach::Bound,
        };
        assert!(scope.takes(&held));
        for narrower in [
            Scope {
                port: Some(80),
                ..scope.clone()
            },
            Scope {
                transports: vec![Transport::Udp],
                ..scope.clone()
            },
            Scope {
                families: vec![Family::Ipv6],
                ..scope.clone()
            },
            Scope {
                netns: vec![there],
                ..scope.clone()
            },
        ] {
            assert!(!narrower.takes(&held), "{narrower:?}");
        }
        // Not known where it is, or not bound.
        let mut nowhere = held.clone();
        nowhere.socket.netns = None;
        assert!(!scope.takes(&nowhere));
        for port in [None, Some(0)] {
            let mut unbound = held.clone();
            unbound.local.port = port;
            assert!(!Scope::default().takes(&unbound));
        }
    }
}
