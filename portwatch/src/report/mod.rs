//! A stream summed up: what a person wants to know of it in a minute. No I/O.
//!
//! Events come as [`Fact`]s, from lines ([`Summary::item`]) or from the tables of a recording, whose
//! reader spares itself everything that no sum needs. Ports are counted in arrays, the rest in tables
//! with a bound: when those are full, what happened least often goes, and it is said that it did.

mod conflicts;
mod gaps;
mod keeping;
mod names;
mod result;
mod tally;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, net::IpAddr, ops::RangeInclusive};

use jiff::Timestamp;

use crate::event::{
    Errno, Explanation, Hazard, Item, Kind, Occupant, Op, Outcome, Overlap, Reason, Sighting, Time,
    Transport, Warning, identity, name,
};
use conflicts::Conflicts;
use gaps::Gaps;
pub use keeping::{Keeping, Kept};
use names::Names;
pub use names::{Who, WhoId};
pub use result::{
    Automatic, ConflictGroup, FailureGroup, Flapping, Gap, Loss, Report, Resolution, Seen,
    Turnover, WarningGroup,
};
use tally::{Tally, bounded};

/// What of an event sums are made of.
#[derive(Clone, Debug)]
pub struct Fact<'a> {
    /// When.
    pub time: Time,
    /// What was done.
    pub op: Op,
    /// How it ended.
    pub outcome: Outcome,
    /// Transport.
    pub transport: Transport,
    /// Inode of the network namespace.
    pub netns: Option<u32>,
    /// Local address.
    pub address: Option<IpAddr>,
    /// Local port.
    pub port: Option<u16>,
    /// The kernel chose the port.
    pub auto_port: bool,
    /// Peer address and port.
    pub peer: (Option<IpAddr>, Option<u16>),
    /// The program.
    pub who: WhoId,
    /// What tells it from others ([`identity`]).
    pub program: u64,
    /// The process.
    pub pid: u32,
    /// Why it was refused.
    pub cause: Option<Cause<'a>>,
    /// What is dangerous about it.
    pub alarm: Option<Alarm<'a>>,
}

/// Why an event was refused.
#[derive(Clone, Copy, Debug)]
pub struct Cause<'a> {
    /// What stood in the way.
    pub kind: Kind,
    /// How the addresses overlap.
    pub overlap: Option<Overlap>,
    /// By which rule they do not share.
    pub reason: Option<Reason>,
    /// Who has the first socket in the way.
    pub holder: Option<WhoId>,
    /// In which process.
    pub holder_pid: Option<u32>,
    /// What happened.
    pub message: &'a str,
    /// What to do.
    pub hint: Option<&'a str>,
}

/// What is dangerous about an event that worked.
#[derive(Clone, Copy, Debug)]
pub struct Alarm<'a> {
    /// What it is.
    pub hazard: Hazard,
    /// The port that was asked for before and refused, of [`Hazard::ListenAfterFailedBind`].
    pub asked: Option<u16>,
    /// What is dangerous.
    pub message: &'a str,
    /// What to do.
    pub hint: Option<&'a str>,
}

/// What is to be summed up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// From then on.
    pub since: Option<Timestamp>,
    /// Before then.
    pub until: Option<Timestamp>,
    /// Local ports, on failure those that were asked for; of connects the peer's too. Empty for all.
    pub ports: Vec<RangeInclusive<u16>>,
}

impl Scope {
    /// Whether a moment is meant.
    #[must_use]
    pub fn has(&self, time: Timestamp) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }

    /// Whether a part of that time is meant. A clock that was set back in between makes it begin after
    /// its end.
    #[must_use]
    pub fn meets(&self, from: Timestamp, to: Timestamp) -> bool {
        let (from, to) = (from.min(to), from.max(to));
        self.since.is_none_or(|since| to >= since) && self.until.is_none_or(|until| from < until)
    }

    /// Whether one of these ports is meant.
    #[must_use]
    pub fn has_port<const N: usize>(&self, ports: [Option<u16>; N]) -> bool {
        let is_meant = |port: u16| self.ports.iter().any(|range| range.contains(&port));
        self.ports.is_empty() || ports.into_iter().flatten().any(is_meant)
    }
}

/// A kind of failure that is no conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Failed {
    op: Op,
    errno: Errno,
    transport: Transport,
    /// Of a connect the peer's, else the local one.
    address: Option<IpAddr>,
    port: Option<u16>,
    who: WhoId,
}

/// A kind of warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Alarming {
    hazard: Hazard,
    transport: Transport,
    /// One that the kernel chose says nothing.
    port: Option<u16>,
    who: WhoId,
}

/// The sums so far.
#[derive(Debug, Default)]
pub struct Summary {
    scope: Scope,
    names: Names,
    seen: Seen,
    conflicts: Conflicts,
    warnings: HashMap<Alarming, (Tally, String, Option<String>)>,
    failures: HashMap<Failed, Tally>,
    taken: [Vec<u32>; TRANSPORTS],
    automatic: HashMap<WhoId, u64>,
    gaps: Gaps,
    /// Events that were counted under names which had to go.
    unnamed: u64,
}

const TRANSPORTS: usize = 5;

impl Summary {
    /// Nothing yet.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            ..Self::default()
        }
    }

    /// The number that stands for a program.
    pub fn who(&mut self, occupant: &Occupant) -> WhoId {
        self.holder(occupant, occupant.process.systemd_unit.as_deref())
    }

    /// Likewise, of one that has a socket for a unit: of pid 1 that is not its own.
    pub fn holder(&mut self, occupant: &Occupant, unit: Option<&str>) -> WhoId {
        let Occupant { task, process } = occupant;
        let first = process.args.as_deref().and_then(<[String]>::first);
        let name = name(task, process, first).unwrap_or("-");
        self.names.number(name, unit, process.container.as_ref())
    }

    /// Takes the next item of a stream.
    pub fn item(&mut self, item: &Item) {
        match item {
            Item::Event(sighting) => self.sighting(sighting),
            Item::Start(start) => self.gaps.start(start, &self.scope),
            Item::Lost(lost) => self.gaps.lost(lost, &self.scope),
            Item::End(end) => self.gaps.end(end.time),
        }
    }

    /// What the run that has just begun says of itself.
    pub fn keeping(&mut self, keeping: Keeping) {
        self.gaps.keeping(keeping, &self.scope);
    }

    /// Whether only some ports are meant.
    #[must_use]
    pub const fn has_ports(&self) -> bool {
        !self.scope.ports.is_empty()
    }

    fn sighting(&mut self, sighting: &Sighting) {
        let Sighting {
            event,
            time,
            process,
            explanation,
            warning,
            ..
        } = sighting;
        let caller = Occupant {
            task: event.task.clone(),
            process: process.clone(),
        };
        let who = self.who(&caller);
        let cause = explanation.as_deref().map(|explanation| {
            let Explanation {
                verdict,
                owners,
                message,
                hint,
                ..
            } = explanation;
            let owner = owners.first();
            let mut holder_pid = None;
            let holder = owner.and_then(|owner| {
                let creator = owner.creator.as_ref().map(|creator| &creator.occupant);
                let holder = owner.processes.first().or(creator)?;
                holder_pid = Some(holder.task.pid);
                Some(self.holder(holder, owner.systemd_unit.as_deref()))
            });
            Cause {
                kind: verdict.kind,
                overlap: verdict.overlap,
                reason: verdict.reason,
                holder,
                holder_pid,
                message,
                hint: hint.as_deref(),
            }
        });
        let alarm = warning.as_deref().map(|warning| {
            let Warning {
                kind,
                refused,
                message,
                hint,
                processes: _,
            } = warning;
            Alarm {
                hazard: *kind,
                asked: refused.and_then(|refused| refused.local.port),
                message,
                hint: hint.as_deref(),
            }
        });
        let peer = event.peer.unwrap_or_default();
        self.fact(&Fact {
            time: *time,
            op: event.op,
            outcome: event.outcome,
            transport: event.transport,
            netns: event.socket.netns,
            address: event.local.address,
            port: event.local.port,
            auto_port: event.auto_port,
            peer: (peer.address, peer.port),
            who,
            program: identity(&event.task, process),
            pid: event.task.pid,
            cause,
            alarm,
        });
    }

    /// Takes the next event.
    pub fn fact(&mut self, fact: &Fact<'_>) {
        let Fact {
            time,
            op,
            outcome,
            transport,
            netns: _, // the conflicts'
            address,
            port,
            auto_port,
            peer,
            who,
            program: _, // likewise
            pid: _,
            cause,
            alarm,
        } = fact;
        let is_counted = self.scope.has(time.utc);
        self.gaps.alive(*time, is_counted);
        let peer_port = peer.1.filter(|_| *op == Op::Connect);
        let asked = alarm.as_ref().and_then(|alarm| alarm.asked);
        let has_port = self.scope.has_port([*port, peer_port]);
        if !is_counted || !has_port && !self.scope.has_port([asked]) {
            return;
        }
        self.seen.note(*time, outcome.is_failure(), cause.is_some());
        if let Some(alarm) = alarm {
            let alarming = Alarming {
                hazard: alarm.hazard,
                transport: *transport,
                port: port.filter(|_| !auto_port),
                who: *who,
            };
            let (tally, message, hint) = bounded(&mut self.warnings, alarming, &mut self.unnamed);
            tally.note(*time);
            alarm.message.clone_into(message);
            *hint = alarm.hint.map(str::to_owned);
        }
        if !has_port {
            return;
        }
        match (outcome, cause) {
            (Outcome::Failure(_), Some(_)) => self.conflicts.failed(fact, &mut self.unnamed),
            (Outcome::Failure(errno), None) => {
                let (address, port) = match op {
                    Op::Connect => *peer,
                    _ => (*address, *port),
                };
                let failed = Failed {
                    op: *op,
                    errno: *errno,
                    transport: *transport,
                    address,
                    port,
                    who: *who,
                };
                bounded(&mut self.failures, failed, &mut self.unnamed).note(*time);
            }
            (Outcome::Success, _) => self.success(fact),
            (Outcome::Unknown(_), _) => {}
        }
    }

    fn success(&mut self, fact: &Fact<'_>) {
        if matches!(fact.op, Op::Bind | Op::Listen) {
            self.conflicts.worked(fact);
        }
        // A port is taken by bind, and by whatever had none before.
        let takes = fact.op == Op::Bind || fact.auto_port;
        if let Some(port) = fact.port.filter(|_| takes) {
            let taken = &mut self.taken[place(fact.transport)];
            if taken.is_empty() {
                taken.resize(usize::from(u16::MAX) + 1, 0);
            }
            if let Some(count) = taken.get_mut(usize::from(port)) {
                *count = count.saturating_add(1);
            }
        }
        if fact.auto_port {
            // These are no events of their own.
            *bounded(&mut self.automatic, fact.who, &mut 0) += 1;
        }
    }

    /// The sums, at most `top` of each kind, what matters most first.
    #[must_use]
    pub fn finish(self, top: usize) -> Report {
        result::finish(self, top)
    }
}

/// Where a transport's ports are counted.
const fn place(transport: Transport) -> usize {
    match transport {
        Transport::Tcp => 0,
        Transport::Udp => 1,
        Transport::UdpLite => 2,
        Transport::Sctp => 3,
        Transport::Dccp => 4,
    }
}
