//! What portwatch's rules say of a case.

use std::net::{IpAddr, Ipv4Addr};

use portwatch::{
    conflict::rules::{Claim, Port},
    event::{TcpState, Transport},
};

use super::{
    case::{Device, Label, Spec, Step, as_seen_by, is_any, is_mapped},
    kernel::Kernel,
    past::Past,
};

/// What comes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// EADDRINUSE
    Refused,
    /// Not to be done: its sockets are not what it wants.
    LeftOut,
}

/// One socket on the port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// One that has no label: its listener.
    queued_of: Option<Label>,
    label: Label,
    pub(super) claim: Claim,
    /// The kernel chose the port while it connected.
    by_connect: bool,
}

/// The port and its owners as the rules see them.
pub(super) struct Model {
    kernel: Kernel,
    transport: Transport,
    port: Port,
    /// See [`Kernel::any_of_group`]: their user.
    all_of: Option<u32>,
    past: Past,
    /// See [`Kernel::mapped_wildcard_unseen`]: whether the first at IPv4's wildcard was an IPv6 socket.
    wildcard_is_v6: Option<bool>,
    /// Newest first.
    pub(super) owners: Vec<Held>,
}

impl Model {
    /// A port that nobody has.
    pub(super) fn new(kernel: Kernel, udp: bool) -> Self {
        Self {
            kernel,
            transport: if udp { Transport::Udp } else { Transport::Tcp },
            port: Port::default(),
            all_of: None,
            past: Past::default(),
            wildcard_is_v6: None,
            owners: Vec::new(),
        }
    }

    /// Takes a step.
    pub(super) fn step(&mut self, step: &Step) -> Outcome {
        let outcome = self.perform(step);
        let mut at_wildcard = self
            .owners
            .iter()
            .map(|held| held.claim.address)
            .filter(|address| is_any_v4(*address));
        self.wildcard_is_v6 = at_wildcard
            .next()
            .map(|newest| self.wildcard_is_v6.unwrap_or(newest.is_ipv6()));
        outcome
    }

    fn perform(&mut self, step: &Step) -> Outcome {
        match *step {
            Step::Bind(label, spec) => self.bind(label, spec),
            Step::BindZero(label, spec) => {
                if self.owners.is_empty() {
                    self.bind(label, spec)
                } else {
                    Outcome::LeftOut
                }
            }
            Step::ConnectUnbound(label, spec, to) => self.connect_unbound(label, spec, to),
            Step::Listen(label) => self.listen(label),
            Step::Connect(label, to) => self.connect(label, to),
            Step::Accept {
                listener,
                to,
                child,
                uid,
            } => self.child(listener, to, |claim| Held {
                queued_of: None,
                label: child,
                claim: Claim { uid, ..claim },
                by_connect: false,
            }),
            Step::Queue(listener, to) => {
                let owned = self.kernel.owner_without_file;
                self.child(listener, to, |claim| Held {
                    queued_of: Some(listener),
                    label: listener,
                    claim: Claim {
                        uid: if owned { claim.uid } else { 0 },
                        ..claim
                    },
                    by_connect: false,
                })
            }
            Step::TimeWait(label) => self.ends_as(label, TcpState::TimeWait),
            Step::Orphan(label) => self.ends_as(label, TcpState::FinWait1),
            Step::Close(label) => self.close(label),
        }
    }

    fn claim(&self, spec: Spec) -> Claim {
        let Spec {
            address,
            v6only,
            reuseaddr,
            reuseport,
            uid,
            device,
        } = spec;
        Claim {
            transport: self.transport,
            address,
            v6only,
            device: device.map(|device| match device {
                Device::Lo => 1,
                Device::Veth => 2,
            }),
            reuseaddr,
            reuseport,
            uid,
            state: TcpState::Closed,
        }
    }

    fn bind(&mut self, label: Label, spec: Spec) -> Outcome {
        let new = self.claim(spec);
        if !self.takes(&new, &self.others(None)) {
            return Outcome::Refused;
        }
        // `__inet6_bind` sets it for good.
        let specific = matches!(spec.address, IpAddr::V6(v6) if !v6.is_unspecified())
            && !is_mapped(spec.address);
        self.add(Held {
            queued_of: None,
            label,
            claim: Claim {
                v6only: new.v6only || specific,
                ..new
            },
            by_connect: false,
        });
        Outcome::Done
    }

    /// Whether a socket gets the port, or may listen on it, beside others.
    fn takes(&mut self, new: &Claim, others: &[Claim]) -> bool {
        let any = self.all_of.is_some() && self.all_of == own_group(new);
        let blind = self.kernel.mapped_wildcard_unseen && self.wildcard_is_v6 == Some(true);
        let seen = |held: &&Claim| !(blind && is_mapped_specific(new) && is_any_v4(held.address));
        let compared: Vec<Claim> = others.iter().filter(seen).copied().collect();
        if !any && self.port.admits(new, &compared).is_err() {
            return false;
        }
        let first = others.is_empty() && new.state != TcpState::Listen;
        if first {
            self.all_of = own_group(new).filter(|_| self.kernel.any_of_group);
        } else if !any {
            self.all_of = None;
        }
        self.port.taken(new, others.len());
        self.past.took(new.address);
        true
    }

    fn connect_unbound(&mut self, label: Label, spec: Spec, to: IpAddr) -> Outcome {
        if !self.owners.is_empty() {
            return Outcome::LeftOut;
        }
        // Such a port has no memory of its own: -1 in `fastreuse` and `fastreuseport`.
        self.port = Port::default();
        self.all_of = None;
        let claim = self.claim(spec);
        self.add(Held {
            queued_of: None,
            label,
            claim: Claim {
                address: source(claim.address, to),
                state: TcpState::Established,
                ..claim
            },
            by_connect: self.transport == Transport::Tcp,
        });
        Outcome::Done
    }

    fn listen(&mut self, label: Label) -> Outcome {
        let Some(at) = self.find(label, TcpState::Closed) else {
            return Outcome::LeftOut;
        };
        let new = Claim {
            state: TcpState::Listen,
            ..self.owners[at].claim
        };
        if !self.takes(&new, &self.others(Some(at))) {
            return Outcome::Refused;
        }
        self.owners[at].claim = new;
        Outcome::Done
    }

    fn connect(&mut self, label: Label, to: IpAddr) -> Outcome {
        let Some(at) = self.find(label, TcpState::Closed) else {
            return Outcome::LeftOut;
        };
        let claim = &mut self.owners[at].claim;
        let old = claim.address;
        claim.address = source(old, to);
        claim.state = TcpState::Established;
        let new = claim.address;
        if new != old {
            self.past.joined(new, false);
            self.left(old);
        }
        Outcome::Done
    }

    /// A connection comes in. With several listeners the kernel chooses among them, so there is one.
    fn child(&mut self, listener: Label, to: IpAddr, make: impl Fn(Claim) -> Held) -> Outcome {
        let listens = |held: &&Held| held.claim.state == TcpState::Listen;
        if self.owners.iter().filter(listens).count() != 1 {
            return Outcome::LeftOut;
        }
        let Some(at) = self.find(listener, TcpState::Listen) else {
            return Outcome::LeftOut;
        };
        let claim = self.owners[at].claim;
        self.add(make(Claim {
            address: as_seen_by(claim.address, to),
            state: TcpState::Established,
            ..claim
        }));
        Outcome::Done
    }

    fn ends_as(&mut self, label: Label, state: TcpState) -> Outcome {
        let Some(at) = self.find(label, TcpState::Established) else {
            return Outcome::LeftOut;
        };
        let claim = &mut self.owners[at].claim;
        claim.state = state;
        if !self.kernel.owner_without_file {
            claim.uid = 0;
        }
        if state == TcpState::TimeWait {
            // The socket itself leaves the port then.
            let address = claim.address;
            self.left(address);
            self.forget();
        }
        Outcome::Done
    }

    fn close(&mut self, label: Label) -> Outcome {
        let is_open = |held: &Held| {
            let ends = matches!(held.claim.state, TcpState::TimeWait | TcpState::FinWait1);
            held.label == label && held.queued_of.is_none() && !ends
        };
        if !self.owners.iter().any(is_open) {
            return Outcome::LeftOut;
        }
        // A listener resets what it has not accepted.
        let goes = |held: &mut Held| is_open(held) || held.queued_of == Some(label);
        let gone: Vec<Held> = self.owners.extract_if(.., goes).collect();
        for held in gone {
            self.left(held.claim.address);
        }
        self.forget();
        Outcome::Done
    }

    /// A port without owners needs no help: whoever takes it next says so to [`Port::taken`].
    fn forget(&mut self) {
        if self.kernel.forgets && self.past.is_over() && !self.owners.is_empty() {
            self.port = Port::default();
        }
    }

    fn left(&mut self, address: IpAddr) {
        let owners = self
            .owners
            .iter()
            .map(|held| (held.claim.address, held.by_connect));
        self.past.left(address, owners);
    }

    fn find(&self, label: Label, state: TcpState) -> Option<usize> {
        self.owners.iter().position(|held| {
            held.queued_of.is_none() && held.label == label && held.claim.state == state
        })
    }

    fn others(&self, but: Option<usize>) -> Vec<Claim> {
        self.owners
            .iter()
            .enumerate()
            .filter(|(at, _)| Some(*at) != but)
            .map(|(_, held)| held.claim)
            .collect()
    }

    fn add(&mut self, held: Held) {
        self.past.joined(held.claim.address, held.by_connect);
        self.owners.insert(0, held);
    }
}

fn is_mapped_specific(claim: &Claim) -> bool {
    claim.transport == Transport::Tcp && is_mapped(claim.address) && !is_any(claim.address)
}

/// 0.0.0.0 or ::ffff:0.0.0.0
fn is_any_v4(address: IpAddr) -> bool {
    address.to_canonical() == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
}

/// The user of a socket with SO_REUSEPORT.
fn own_group(claim: &Claim) -> Option<u32> {
    (claim.transport == Transport::Tcp && claim.reuseport).then_some(claim.uid)
}

/// Local address of a socket once it is connected.
fn source(own: IpAddr, to: IpAddr) -> IpAddr {
    match to {
        _ if !is_any(own) => own,
        IpAddr::V4(_) => as_seen_by(own, IpAddr::V4(Ipv4Addr::LOCALHOST)),
        IpAddr::V6(_) => to,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::generate;

    /// Cases that are all refused, or none, would prove little.
    #[test]
    fn many_cases_go_either_way() {
        let kernel = Kernel {
            any_of_group: false,
            mapped_wildcard_unseen: false,
            owner_without_file: true,
            forgets: true,
        };
        let mut refused = 0;
        let mut with_two_owners = (0, 0);
        for seed in 0..4000 {
            let case = generate::case(seed);
            let mut model = Model::new(kernel, case.udp);
            for step in &case.steps {
                let owners = model.owners.len();
                let outcome = model.step(step);
                if outcome == Outcome::Refused {
                    refused += 1;
                }
                if owners > 1 && matches!(step, Step::Bind(..) | Step::Listen(_)) {
                    match outcome {
                        Outcome::Done => with_two_owners.0 += 1,
                        Outcome::Refused => with_two_owners.1 += 1,
                        Outcome::LeftOut => {}
                    }
                }
            }
        }
        assert!((1500..6000).contains(&refused), "{refused} steps refused");
        assert!(
            with_two_owners.0 > 500 && with_two_owners.1 > 500,
            "with two owners: {with_two_owners:?} done and refused"
        );
    }
}
