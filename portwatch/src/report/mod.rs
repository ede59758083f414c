//! A stream summed up: what a person wants to know of it in a minute. No I/O.
//!
//! Events come as [`Fact`]s, from lines ([`Summary::item`]) or from the tables of a recording, whose
//! reader spares itself everything that no sum needs. Ports are counted in arrays, the rest in tables
//! with a bound: what comes once those are full is counted under nobody's name, and said to be.

mod conflicts;
mod gaps;
mod names;
mod result;
mod tally;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, net::IpAddr, ops::RangeInclusive};

use jiff::Timestamp;

use crate::event::{
    Errno, Explanation, Hazard, Item, Kind, Occupant, Op, Outcome, Overlap, Reason, Sighting, Time,
    Transport, Warning, name,
};
use conflicts::Conflicts;
use gaps::Gaps;
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
    /// Local ports; on failure those that were asked for. Empty for all.
    pub ports: Vec<RangeInclusive<u16>>,
}

impl Scope {
    /// Whether a moment is meant.
    #[must_use]
    pub fn has(&self, time: Timestamp) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }

    /// Whether a local port is meant.
    #[must_use]
    pub fn has_port(&self, port: Option<u16>) -> bool {
        self.ports.is_empty()
            || port.is_some_and(|port| self.ports.iter().any(|range| range.contains(&port)))
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

    /// The recorder was there, with nothing to keep.
    pub fn alive(&mut self, time: Time) {
        if self.scope.has(time.utc) {
            self.gaps.alive(time);
        }
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
            let holder = owner.and_then(|owner| {
                let creator = owner.creator.as_ref().map(|creator| &creator.occupant);
                let holder = owner.processes.first().or(creator)?;
                Some(self.holder(holder, owner.systemd_unit.as_deref()))
            });
            Cause {
                kind: verdict.kind,
                overlap: verdict.overlap,
                reason: verdict.reason,
                holder,
                message,
                hint: hint.as_deref(),
            }
        });
        let alarm = warning.as_deref().map(|warning| {
            let Warning {
                kind,
                message,
                hint,
                ..
            } = warning;
            Alarm {
                hazard: *kind,
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
            pid: _, // likewise
            cause,
            alarm,
        } = fact;
        if !self.scope.has(time.utc) {
            return;
        }
        self.gaps.alive(*time);
        if !self.scope.has_port(*port) {
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
            if let Some((tally, message, hint)) = bounded(&mut self.warnings, alarming) {
                tally.note(*time);
                *message = alarm.message.to_owned();
                *hint = alarm.hint.map(str::to_owned);
            }
        }
        match (outcome, cause) {
            (Outcome::Failure(_), Some(_)) => self.conflicts.failed(fact),
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
                if let Some(tally) = bounded(&mut self.failures, failed) {
                    tally.note(*time);
                }
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
        if fact.auto_port
            && let Some(count) = bounded(&mut self.automatic, fact.who)
        {
            *count += 1;
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
