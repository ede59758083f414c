//! Events joined with names: which executable, which user, which container, which service.
//!
//! Everything comes out of bounded caches; an event of a known process in a known place asks the
//! system nothing. What cannot be known is left out and listed, never guessed.

pub mod addresses;
pub mod answers;
pub mod cache;
pub mod cgroup;
pub mod clock;
pub mod conntrack;
pub mod container;
pub mod copied;
pub mod descriptors;
mod findings;
pub mod image;
pub mod listeners;
pub mod live;
pub mod local;
pub mod met;
pub mod missing;
mod netlink;
pub mod netns;
pub mod owners;
pub mod policy;
pub mod process;
pub mod refused;
pub mod service;
pub mod sock_diag;
pub mod socket_unit;
pub mod task;
pub mod time_wait;
pub mod unit;
pub mod usage;
pub mod user;

use std::{io, net::IpAddr, ops::RangeInclusive, sync::Arc, time::Duration};

use crate::{
    conflict::{self, departure, rules::Claim, strangers, verdict, words},
    event::{
        Backend, Bearer, Closer, Culprit, Departure, Event, Explanation, Holder, Kind, Occupant,
        Owner, PortFacts, Process, ProcessImage, Sighting, Time, Transport, Warning,
    },
};
use answers::Answers;
use clock::Clock;
use descriptors::Entry;
use findings::Usage;
use missing::{Facts, missing};
use netns::{Limits, Namespaces, Place};
use owners::{Owners, Possession};
use process::Processes;
use refused::RefusedBinds;
use service::Services;
use socket_unit::SocketUnits;
use time_wait::Ends;
use usage::Question;

/// What to look up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// No service and user names (`-n`).
    pub numeric: bool,
    /// With arguments (unless `--no-args`).
    pub args: bool,
    /// Only what text shows; nothing is listed as missing.
    pub brief: bool,
    /// The way into the kernel, which decides what may be expected of an event.
    pub backend: Backend,
}

/// Joins the kernel's events with what user space knows.
#[derive(Debug)]
pub struct Enricher {
    options: Options,
    clock: Clock,
    processes: Processes,
    services: Services,
    namespaces: Namespaces,
    owners: Owners,
    units: SocketUnits,
    refused: RefusedBinds,
    usages: Answers<Question, Option<Usage>>,
    bearers: Answers<IpAddr, Option<Vec<Bearer>>>,
    policies: Answers<policy::Question, Arc<Explanation>>,
    /// When connections leave TIME_WAIT, CLOCK_BOOTTIME, ns.
    expiries: Answers<Vec<Option<Ends>>, Option<Vec<Option<u64>>>>,
    suspects: Answers<(Claim, u16), Vec<Holder>>,
}

impl Enricher {
    /// Reads the services database and the clocks.
    ///
    /// # Errors
    ///
    /// Clocks that cannot be read. Anything else that cannot be read only means fewer names.
    pub fn new(options: Options) -> io::Result<Self> {
        Ok(Self {
            options,
            clock: Clock::new()?,
            processes: Processes::new(options.numeric || options.brief, options.args),
            services: if options.numeric {
                Services::default()
            } else {
                Services::read()
            },
            namespaces: Namespaces::new(),
            owners: Owners::default(),
            units: SocketUnits::default(),
            refused: RefusedBinds::default(),
            usages: Answers::default(),
            bearers: Answers::default(),
            policies: Answers::default(),
            expiries: Answers::default(),
            suspects: Answers::default(),
        })
    }

    /// Looks in `/proc` where all sockets are, before the first of them is in the way of another; returns
    /// how many descriptors it remembers.
    pub fn look_around(&mut self) -> usize {
        self.owners.prime()
    }

    /// Remembers where others have seen all sockets; returns how many descriptors.
    pub fn remember(&mut self, seen: Vec<Entry>) -> usize {
        self.owners.remember(seen)
    }

    /// Takes what the kernel sends ahead of a process' first event.
    pub fn image(&mut self, image: ProcessImage) {
        self.processes.announce(image);
    }

    /// Joins an event with all names.
    pub fn event(&mut self, event: impl Into<Box<Event>>) -> Sighting {
        let mut event = event.into();
        self.find_listeners(&mut event);
        self.find_suspects(&mut event);
        // The caller was there when its call began; the outcome may have come after its end.
        let process = if event.has_process() {
            self.processes.of(&event.task, began(&event), &self.clock)
        } else {
            Arc::default()
        };
        let device = event.socket.device.filter(|&device| device != 0);
        let netns = event.socket.netns.filter(|_| !self.options.brief);
        let place = netns.map_or_else(Place::default, |netns| {
            self.namespaces
                .place(netns, &event.task, device, event.time_boot)
        });
        let local = PortFacts {
            ephemeral: ephemeral(event.local.port, place.range),
            ..self.services.facts(event.transport, event.local.port)
        };
        let peer = self
            .services
            .facts(event.transport, event.peer.and_then(|peer| peer.port));
        let explanation = self.explain(&event, &process);
        let refused = self.refused.take(&event);
        let warning = match refused {
            Some(refused) => Some(words::exposed(&event, &process, refused)),
            None => self.shared(&event, &process),
        };
        let warning = warning.map(Box::new);
        let missing = if self.options.brief {
            Vec::new()
        } else {
            missing(&Facts {
                event: &event,
                process: &process,
                local: &local,
                explanation: explanation.as_deref(),
                interface: device.is_none() || place.interface.is_some(),
                args: self.options.args,
                backend: self.options.backend,
            })
        };
        Sighting {
            time: self.clock.time(event.time_boot),
            process,
            local,
            peer,
            interface: place.interface.map(|name| (*name).to_owned()),
            explanation,
            warning,
            missing,
            event,
        }
    }

    /// Whom a port that was just bound is shared with, where that is no relative.
    fn shared(&mut self, event: &Event, process: &Process) -> Option<Warning> {
        let sharers = strangers::sharers(event);
        if sharers.is_empty() {
            return None;
        }
        let found = self
            .owners
            .of(&sharers, &event.task, &mut self.processes, &self.clock);
        let others = found.into_iter().filter_map(|mut of| {
            // A socket that a relative has too is the family's.
            let pid = event.task.pid;
            let is_other = |other: &Occupant| {
                other.task.pid != pid && strangers::is_stranger(&event.task, process, other)
            };
            (!of.processes.is_empty() && of.processes.iter().all(is_other))
                .then(|| of.processes.swap_remove(0))
        });
        words::shared(event, process, others.collect())
    }

    /// Why the call was refused, where the contract explains that.
    fn explain(&mut self, event: &Event, process: &Process) -> Option<Arc<Explanation>> {
        let verdict = conflict::judge(event, self.options.backend, || {
            self.limits(event).unprivileged_start
        })?;
        if verdict.kind == Kind::Policy {
            return Some(self.by_policy(event, process, &verdict));
        }
        let possessions = self.owners.of(
            &verdict.culprits,
            &event.task,
            &mut self.processes,
            &self.clock,
        );
        let expiries = self.expiries(event, &verdict.culprits);
        let owners = verdict
            .culprits
            .iter()
            .zip(possessions)
            .zip(expiries)
            .map(|((culprit, possession), expires)| self.owner(event, culprit, possession, expires))
            .collect();
        let findings = self.findings(event, &verdict);
        let explanation = words::explain(event, process, verdict, owners, findings);
        Some(Arc::new(explanation))
    }

    /// When TIME_WAIT ends for each of the sockets that are in it.
    fn expiries(&mut self, event: &Event, culprits: &[Culprit]) -> Vec<Option<Time>> {
        let unknown = vec![None; culprits.len()];
        let waiting: Vec<Option<Ends>> = culprits
            .iter()
            .map(|culprit| Ends::of(&culprit.holder).filter(|_| culprit.kind == Kind::TimeWait))
            .collect();
        let Some(asker) = Self::asker(event).filter(|_| waiting.iter().any(Option::is_some)) else {
            return unknown;
        };
        let Self {
            expiries,
            namespaces,
            clock,
            ..
        } = self;
        let is_same = |pid| namespaces.is_same(asker.netns, pid, &event.task);
        let found = expiries.get(asker, waiting, is_same, |waiting| {
            let waiting = waiting.clone();
            let ask = move || time_wait::remaining(&waiting).ok();
            let remaining = namespaces.inside(asker.netns, &event.task, ask)??;
            let now = clock.now().ok()?.boot;
            let end = |left: Duration| now.saturating_add(left.as_nanos().try_into().unwrap_or(0));
            Some(remaining.into_iter().map(|left| left.map(end)).collect())
        });
        let found: Option<Vec<Option<u64>>> = found.flatten();
        found.map_or(unknown, |found| {
            let time = |end: Option<u64>| end.map(|end| self.clock.time(end));
            found.into_iter().map(time).collect()
        })
    }

    fn departure(&mut self, closer: &Closer) -> Departure {
        let Closer { task, time_boot } = closer;
        Departure {
            exited: self.owners.is_gone(task, *time_boot),
            occupant: Occupant {
                process: self.processes.of(task, *time_boot, &self.clock),
                task: task.clone(),
            },
            closed: self.clock.time(*time_boot),
        }
    }

    fn limits(&mut self, event: &Event) -> Limits {
        event.socket.netns.map_or_else(Limits::default, |netns| {
            self.namespaces.limits(netns, &event.task, event.time_boot)
        })
    }

    fn owner(
        &mut self,
        event: &Event,
        culprit: &Culprit,
        possession: Possession,
        expires: Option<Time>,
    ) -> Owner {
        let Possession {
            processes,
            incomplete,
            parent,
            creator,
        } = possession;
        let holder = &culprit.holder;
        let end = expires.map(|time| time.boot);
        let closer = departure::left_by(holder, event.time_boot, end);
        let closer = closer.map(|closer| Box::new(self.departure(closer)));
        let device = holder.socket.device;
        let place = event.socket.netns.map_or_else(Place::default, |netns| {
            self.namespaces
                .place(netns, &event.task, device, event.time_boot)
        });
        let facts = |port: Option<u16>, range| PortFacts {
            ephemeral: ephemeral(port, range),
            ..self.services.facts(holder.transport, port)
        };
        Owner {
            closer,
            expires,
            since: holder
                .taker
                .as_ref()
                .map(|taker| self.clock.time(taker.time_boot)),
            local: facts(holder.local.port, place.range),
            peer: facts(holder.peer.and_then(|peer| peer.port), None),
            interface: place.interface.map(|name| (*name).to_owned()),
            // Where pid 1 has it alone, it has it for a unit that is to be started.
            systemd_unit: processes.first().and_then(|occupant| {
                if occupant.task.pid == owners::INIT {
                    self.units.of(holder)
                } else {
                    occupant.process.systemd_unit.clone()
                }
            }),
            processes,
            incomplete,
            parent,
            creator,
        }
    }

    /// Looks for the listener where the kernel's walk over the owners of the port ended before it.
    fn find_listeners(&mut self, event: &mut Event) {
        let (Some(netns), Some(port)) = (event.socket.netns, event.local.port) else {
            return;
        };
        let Some(conflict) = &mut event.conflict else {
            return;
        };
        if event.transport != Transport::Tcp || !listeners::are_wanted(conflict) {
            return;
        }
        let ask = move || listeners::of_port(port).unwrap_or_default();
        if let Some(mut found) = self.namespaces.inside(netns, &event.task, ask) {
            for listener in &mut found {
                self.owners.complete(listener);
            }
            listeners::add(conflict, found);
        }
    }

    /// Looks at all sockets on the port where those that the kernel's programs chose are all innocent.
    fn find_suspects(&mut self, event: &mut Event) {
        if !verdict::is_undecided(event) {
            return;
        }
        let Some(((asker, claim), port)) = Self::asker(event)
            .zip(verdict::claim_of(event))
            .zip(event.local.port)
        else {
            return;
        };
        let Self {
            suspects,
            namespaces,
            owners,
            ..
        } = self;
        let is_same = |pid| namespaces.is_same(asker.netns, pid, &event.task);
        let found = suspects.get(asker, (claim, port), is_same, |&(claim, port)| {
            let ask = move || listeners::meeting(&claim, port).unwrap_or_default();
            let mut found = namespaces
                .inside(asker.netns, &event.task, ask)
                .unwrap_or_default();
            for holder in &mut found {
                owners.complete(holder);
            }
            found.retain(|holder| listeners::is_suspect(&claim, holder));
            found
        });
        if let (Some(found), Some(conflict)) = (found, &mut event.conflict)
            && !found.is_empty()
        {
            listeners::suspect(conflict, found);
        }
    }

    /// Takes note that events are missing.
    pub fn lost(&mut self) {
        self.refused.forget();
    }

    /// Both clocks at a moment on CLOCK_BOOTTIME, ns.
    #[must_use]
    pub fn time(&self, boot: u64) -> Time {
        self.clock.time(boot)
    }

    /// Both clocks now.
    ///
    /// # Errors
    ///
    /// A clock that cannot be read.
    pub fn now(&self) -> io::Result<Time> {
        self.clock.now()
    }

    /// The clock was set (see [`clock::StepWatch`]). Processes seen before keep the creation time
    /// they were printed with.
    ///
    /// # Errors
    ///
    /// A clock that cannot be read.
    pub fn resample(&mut self) -> io::Result<()> {
        self.clock.resample()
    }
}

/// When the call began, CLOCK_BOOTTIME, ns: the caller was there then.
fn began(event: &Event) -> u64 {
    event
        .time_boot
        .saturating_sub(event.duration.unwrap_or_default())
}

/// Whether a port is one of those that the kernel gives out; 0 is no port.
pub(crate) fn ephemeral(port: Option<u16>, range: Option<RangeInclusive<u16>>) -> Option<bool> {
    let (port, range) = port.filter(|&port| port != 0).zip(range)?;
    Some(range.contains(&port))
}

#[cfg(test)]
pub(crate) mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{fs, net::Ipv4Addr, os::unix::fs::MetadataExt};

    use super::*;
    use crate::event::{
        Endpoint, Family, Op, Outcome, PortClass, Socket, SocketOptions, Task, Transport, Via,
    };

    /// An event that lacks nothing.
    pub(crate) fn complete(op: Op) -> Event {
        let end = |port| Endpoint {
            address: Some(Ipv4Addr::LOCALHOST.into()),
            port: Some(port),
        };
        let netns = fs::metadata("/proc/self/ns/net").unwrap().ino();
        Event {
            time_boot: 20_000_000_000,
            duration: Some(1_000),
            op,
            outcome: Outcome::Success,
            via: Some(Via::Syscall),
            transport: Transport::Tcp,
            family: Family::Ipv4,
            local: end(8080),
            peer: matches!(op, Op::Connect | Op::Accept).then(|| end(443)),
            auto_port: false,
            backlog: (op == Op::Listen).then_some(128),
            socket: Socket {
                cookie: Some(1),
                inode: Some(2),
                netns: netns.try_into().ok(),
                device: None,
                uid: Some(0),
                options: SocketOptions {
                    reuseaddr: Some(true),
                    reuseport: Some(false),
                    v6only: None,
                    freebind: Some(false),
                    transparent: Some(false),
                    bind_no_port: Some(false),
                    mptcp: Some(false),
                },
            },
            task: Task {
                pid: 0x7000_0000,
                tid: 0x7000_0000,
                parent_pid: Some(1),
                vpid: Some(1),
                uid: 0,
                comm: Some("server".to_owned()),
                start_boot: Some(1_000_000_000),
                key: Some(7),
                cgroup: Some(1),
            },
            refused_by_policy: false,
            may_bind_low: None,
            no_port_left: false,
            bound_port: None,
            own_range: None,
            freed: None,
            held: (op == Op::Release).then_some(1),
            conflict: None,
        }
    }

    fn enricher(numeric: bool) -> Enricher {
        let mut enricher = Enricher::new(Options {
            numeric,
            args: true,
            brief: false,
            backend: Backend::Tracing,
        })
        .unwrap();
        enricher.services = Services::parse("http-alt 8080/tcp\nhttps 443/tcp\n");
        enricher.image(ProcessImage {
            key: 7,
            pid: 0x7000_0000,
            executable_path: Some("/usr/bin/server".to_owned()),
            args: Some(vec!["server".to_owned()]),
            path_cut: false,
            args_cut: false,
        });
        enricher
    }

    #[test]
    fn an_event_gets_its_names() {
        let mut enricher = enricher(false);
        let seen = enricher.event(complete(Op::Connect));
        assert_eq!(seen.missing, [""; 0]);
        assert_eq!(seen.process.executable_name(), Some("server"));
        assert_eq!(seen.local.service.as_deref(), Some("http-alt"));
        assert_eq!(seen.local.class, Some(PortClass::Registered));
        assert!(seen.local.ephemeral.is_some());
        assert_eq!(seen.peer.service.as_deref(), Some("https"));
        assert_eq!(seen.peer.class, Some(PortClass::WellKnown));
        assert_eq!(seen.peer.ephemeral, None);
        assert_eq!(seen.time, enricher.time(20_000_000_000));
        assert_eq!(*seen.event, complete(Op::Connect));
    }

    #[test]
    fn a_second_event_shares_the_process() {
        let mut enricher = enricher(true);
        let first = enricher.event(complete(Op::Bind));
        let second = enricher.event(complete(Op::Listen));
        assert!(Arc::ptr_eq(&first.process, &second.process));
        assert_eq!(first.process.user_name, None);
    }

    #[test]
    fn port_0_is_no_port() {
        let mut event = complete(Op::Bind);
        event.local.port = Some(0);
        assert_eq!(enricher(false).event(event).local, PortFacts::default());
    }

    #[test]
    fn a_bound_device_is_named() {
        let mut event = complete(Op::Bind);
        event.socket.device = Some(1);
        let seen = enricher(false).event(event.clone());
        assert_eq!(seen.interface.as_deref(), Some("lo"));
        event.socket.device = Some(0);
        assert_eq!(enricher(false).event(event.clone()).missing, [""; 0]);
        event.socket.device = Some(4_000_000);
        let seen = enricher(false).event(event);
        assert_eq!(seen.missing, ["network.interface.name"]);
    }

    #[test]
    fn a_namespace_nobody_leads_into_is_said_so() {
        let mut event = complete(Op::Bind);
        event.socket.netns = Some(1);
        let seen = enricher(false).event(event);
        assert_eq!(seen.missing, ["network.local.ephemeral"]);
    }
}
