//! Refused calls, with the sockets in their way.

use super::*;
use crate::conflict::words::explain;

const SECOND: u64 = 1_000_000_000;
/// Some days after the machine has started.
const NOW: u64 = 400_000 * SECOND;

/// A socket in the way.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) culprit: Culprit,
    pub(crate) owner: Owner,
}

/// A socket of `kind` without options, of user 0 and nobody known.
pub(crate) fn held(kind: Kind, local: &str) -> Held {
    let local = endpoint(local);
    Held {
        owner: Owner {
            local: facts(&local),
            ..Owner::default()
        },
        culprit: Culprit {
            holder: Holder {
                transport: Transport::Tcp,
                family: match local.address {
                    Some(std::net::IpAddr::V6(_)) => Family::Ipv6,
                    _ => Family::Ipv4,
                },
                state: match kind {
                    Kind::Listener => TcpState::Listen,
                    Kind::Bound => TcpState::Closed,
                    Kind::TimeWait => TcpState::TimeWait,
                    Kind::Closing => TcpState::CloseWait,
                    _ => TcpState::Established,
                },
                local,
                peer: None,
                socket: Socket {
                    cookie: Some(0x2001),
                    inode: (kind != Kind::TimeWait).then_some(12345),
                    netns: Some(4_026_531_840),
                    device: None,
                    uid: Some(0),
                    options: SocketOptions {
                        reuseaddr: Some(true),
                        ..SocketOptions::default()
                    },
                },
                chose_port: matches!(kind, Kind::Listener | Kind::Bound),
                accepted: kind == Kind::Accepted,
                of_kernel: kind == Kind::Kernel,
                remnant: kind == Kind::TimeWait,
                references: Some(1),
                caller_has_it: false,
                taker: None,
                closer: None,
            },
            kind,
            overlap: Some(Overlap::Exact),
            reason: Some(Reason::NoReuse),
        },
    }
}

impl Held {
    pub(crate) fn rule(mut self, overlap: Overlap, reason: Reason) -> Self {
        self.culprit.overlap = Some(overlap);
        self.culprit.reason = Some(reason);
        self
    }

    pub(crate) fn holder(mut self, adjust: impl FnOnce(&mut Holder)) -> Self {
        adjust(&mut self.culprit.holder);
        self
    }

    pub(crate) fn to(self, peer: &str) -> Self {
        let peer = endpoint(peer);
        let mut held = self.holder(|holder| holder.peer = Some(peer));
        held.owner.peer = facts(&peer);
        held
    }

    /// Another process has it.
    pub(crate) fn by(mut self, occupant: Occupant) -> Self {
        self.owner.systemd_unit = self
            .owner
            .systemd_unit
            .or_else(|| occupant.process.systemd_unit.clone());
        self.owner.processes.push(occupant);
        self
    }

    pub(crate) fn created(mut self, occupant: Occupant, exited: bool) -> Self {
        self.owner.creator = Some(Box::new(Creator { occupant, exited }));
        self
    }

    /// It was closed by that process, so many seconds ago, and stays in TIME_WAIT for as many as are left
    /// of a minute.
    pub(crate) fn closed(mut self, occupant: Occupant, exited: bool, seconds: u64) -> Self {
        self.owner.closer = Some(Box::new(departure(occupant, exited, seconds)));
        let left = 60 - seconds;
        self.owner.expires = Some(Time {
            boot: NOW + left * SECOND,
            utc: time().utc + std::time::Duration::from_secs(left),
        });
        self
    }

    pub(crate) fn unit(mut self, unit: &str) -> Self {
        self.owner.systemd_unit = Some(unit.to_owned());
        self
    }

    pub(crate) fn lasting(mut self, seconds: u64) -> Self {
        let boot = NOW - seconds * SECOND;
        self.owner.since = Some(Time {
            boot,
            utc: time().utc - std::time::Duration::from_secs(seconds),
        });
        self
    }
}

/// A process that closed its socket so many seconds ago.
pub(crate) fn departure(occupant: Occupant, exited: bool, seconds: u64) -> Departure {
    Departure {
        occupant,
        exited,
        closed: Time {
            boot: NOW - seconds * SECOND,
            utc: time().utc - std::time::Duration::from_secs(seconds),
        },
    }
}

/// A process that belongs to no unit and no container, and whose name and executable are `name`.
pub(crate) fn occupant(pid: u32, name: &str) -> Occupant {
    Occupant {
        task: Task {
            pid,
            tid: pid,
            parent_pid: Some(1),
            vpid: Some(pid),
            uid: 0,
            comm: Some(name.into()),
            ..Task::default()
        },
        process: Arc::new(Process {
            cgroup: Some("/".into()),
            systemd_unit: None,
            user_name: Some("root".into()),
            ..process(&format!("/usr/sbin/{name}"), &[name])
        }),
    }
}

impl Occupant {
    pub(crate) fn with(mut self, adjust: impl FnOnce(&mut Process)) -> Self {
        adjust(Arc::make_mut(&mut self.process));
        self
    }

    pub(crate) fn of(self, unit: &str) -> Self {
        self.with(|process| {
            process.cgroup = Some(format!("/system.slice/{unit}"));
            process.systemd_unit = Some(unit.to_owned());
        })
    }
}

/// `sighting` is refused because of the sockets in `held`.
pub(crate) fn refused_by(sighting: Sighting, held: Vec<Held>) -> Sighting {
    let mut sighting = failed(sighting, libc::EADDRINUSE);
    let first = held[0].culprit.clone();
    let (culprits, owners): (Vec<_>, Vec<_>) = held
        .into_iter()
        .map(|Held { culprit, owner }| (culprit, owner))
        .unzip();
    let holders: Vec<_> = culprits.iter().map(|other| other.holder.clone()).collect();
    let total = holders.len().try_into().unwrap();
    sighting.event.conflict = Some(Conflict {
        holders,
        total,
        rest_apart: false,
        connect_only: false,
        last: None,
        truncated: false,
    });
    let verdict = Verdict {
        kind: first.kind,
        overlap: first.overlap,
        reason: first.reason,
        device: Some(
            first.holder.socket.device.is_some() || sighting.event.socket.device.is_some(),
        ),
        culprits,
        total,
        truncated: false,
    };
    explained(sighting, verdict, owners, Findings::default())
}

/// `sighting` is refused for a reason that is no socket.
pub(crate) fn refused(sighting: Sighting, kind: Kind, errno: i32) -> Sighting {
    let verdict = Verdict {
        kind,
        overlap: None,
        reason: None,
        device: None,
        culprits: Vec::new(),
        total: 0,
        truncated: false,
    };
    explained(
        failed(sighting, errno),
        verdict,
        Vec::new(),
        Findings::default(),
    )
}

/// It is known who uses up the ports: that many, so many of them in TIME_WAIT.
pub(crate) fn used_by(
    sighting: Sighting,
    used: u32,
    time_wait: u32,
    by: &[(Occupant, u32)],
) -> Sighting {
    let mut sighting = sighting;
    let exhausted = explanation_of(&mut sighting)
        .findings
        .exhausted
        .as_mut()
        .unwrap();
    exhausted.used = Some(used);
    exhausted.time_wait = Some(time_wait);
    exhausted.top = by
        .iter()
        .map(|(occupant, count)| Consumer {
            occupant: occupant.clone(),
            count: *count,
        })
        .collect();
    exhausted.top_is_whole = true;
    again(sighting)
}

/// It was looked which interfaces have the address; the socket is bound to `device`.
pub(crate) fn borne(
    sighting: Sighting,
    bearers: &[(&str, AddressState)],
    device: Option<&str>,
) -> Sighting {
    let mut sighting = sighting;
    let findings = &mut explanation_of(&mut sighting).findings;
    findings.device = device.map(str::to_owned);
    findings.interfaces = Some(
        bearers
            .iter()
            .map(|&(name, state)| Bearer {
                name: name.to_owned(),
                state,
            })
            .collect(),
    );
    again(sighting)
}

/// It was looked who may have refused it by policy.
pub(crate) fn by_policy(sighting: Sighting, policy: Policy) -> Sighting {
    let mut sighting = sighting;
    let findings = &mut explanation_of(&mut sighting).findings;
    findings.policy = Some(policy);
    again(sighting)
}

/// Programs on `/system.slice` and above.
pub(crate) fn programs(names: &[Option<&str>]) -> Vec<PolicyProgram> {
    let cgroups = ["/system.slice/web.service", "/system.slice", "/"];
    names
        .iter()
        .zip((12..).zip(cgroups.into_iter().cycle()))
        .map(|(name, (id, cgroup))| PolicyProgram {
            id,
            name: name.map(str::to_owned),
            attach_type: "cgroup_inet4_bind",
            cgroup: cgroup.to_owned(),
        })
        .collect()
}

/// No automatic port is left.
pub(crate) fn exhausted(sighting: Sighting, scope: Scope, errno: i32) -> Sighting {
    let mut sighting = refused(sighting, Kind::Exhausted, errno);
    sighting.event.local.port = None;
    sighting.local = PortFacts::default();
    let exhausted = Some(Exhausted {
        range: Some(32768..=60999),
        reserved: Some(0),
        scope: Some(scope),
        ..Exhausted::default()
    });
    let verdict = explanation_of(&mut sighting).verdict.clone();
    let findings = Findings {
        exhausted,
        ..Findings::default()
    };
    explained(sighting, verdict, Vec::new(), findings)
}

fn explained(
    mut sighting: Sighting,
    verdict: Verdict,
    owners: Vec<Owner>,
    findings: Findings,
) -> Sighting {
    sighting.event.time_boot = NOW;
    sighting.time.boot = NOW;
    let Sighting { event, process, .. } = &sighting;
    let explanation = explain(event, process, verdict, owners, findings);
    sighting.explanation = Some(Arc::new(explanation));
    sighting
}

/// Why it was refused, to be changed.
pub(crate) fn explanation_of(sighting: &mut Sighting) -> &mut Explanation {
    Arc::make_mut(sighting.explanation.as_mut().unwrap())
}

/// The words anew, after something was changed.
pub(crate) fn again(sighting: Sighting) -> Sighting {
    let mut sighting = sighting;
    let Explanation {
        verdict,
        owners,
        findings,
        ..
    } = explanation_of(&mut sighting).clone();
    explained(sighting, verdict, owners, findings)
}

/// nginx of nginx.service, for three days and two hours.
pub(crate) fn nginx() -> Held {
    held(Kind::Listener, "127.0.0.1:8080")
        .rule(Overlap::Wildcard, Reason::ReuseListening)
        .lasting(74 * 3_600)
        .by(occupant(812, "nginx").of("nginx.service"))
}

fn bind() -> Sighting {
    sighting(Op::Bind, "0.0.0.0:8080")
}

/// One of each kind, as it may come in a trace.
pub(crate) fn conflicts() -> Vec<Sighting> {
    let workers = (813..817).fold(nginx(), |held, pid| {
        held.by(occupant(pid, "nginx").of("nginx.service"))
    });
    let waiting = held(Kind::TimeWait, "127.0.0.1:8080")
        .rule(Overlap::Wildcard, Reason::ReuseMissingHolder)
        .to("127.0.0.1:40000")
        .closed(occupant(912, "nginx"), true, 14);
    let inherited = held(Kind::Bound, "0.0.0.0:8080")
        .lasting(7_300)
        .by(occupant(412, "sh"))
        .created(occupant(300, "httpd"), true);
    let curl = held(Kind::Client, "10.0.0.1:43210")
        .rule(Overlap::Wildcard, Reason::ReuseMissingHolder)
        .to("10.0.0.9:443")
        .lasting(12)
        .by(occupant(4616, "curl"));
    let mut truncated = refused_by(bind(), vec![nginx(), waiting.clone(), inherited.clone()]);
    let explanation = explanation_of(&mut truncated);
    explanation.verdict.total = 300;
    explanation.verdict.truncated = true;
    let mut again_bound = refused(bind(), Kind::AlreadyBound, libc::EINVAL);
    again_bound.event.bound_port = Some(8080);
    let mut policy = sighting(Op::Bind, "0.0.0.0:30539");
    policy.event.refused_by_policy = true;
    // Its owners have not arrived.
    let unknown = sighting(Op::Bind, "0.0.0.0:9090");
    vec![
        refused_by(bind(), vec![nginx()]),
        refused_by(sighting(Op::Bind, "127.0.0.1:8080"), vec![workers]),
        refused_by(bind(), vec![waiting]),
        refused_by(bind(), vec![inherited]),
        refused_by(sighting(Op::Bind, "0.0.0.0:43210"), vec![curl]),
        again(truncated),
        exhausted(
            connect("10.0.0.1:1", "10.0.0.9:443"),
            Scope::Tuple,
            libc::EADDRNOTAVAIL,
        ),
        used_by(
            exhausted(
                sighting(Op::Bind, "10.0.0.1:1"),
                Scope::Address,
                libc::EADDRINUSE,
            ),
            28_232,
            260,
            &[
                (occupant(812, "ss-server"), 27_950),
                (occupant(99, "dig"), 22),
            ],
        ),
        refused(
            sighting(Op::Bind, "0.0.0.0:80"),
            Kind::Privileged,
            libc::EACCES,
        ),
        borne(
            refused(
                sighting(Op::Bind, "[2001:db8::1]:8080"),
                Kind::NotLocal,
                libc::EADDRNOTAVAIL,
            ),
            &[("eth0", AddressState::Tentative)],
            None,
        ),
        refused(policy, Kind::Policy, libc::EPERM),
        by_policy(
            refused(
                sighting(Op::Bind, "0.0.0.0:30539"),
                Kind::Policy,
                libc::EPERM,
            ),
            Policy::Programs(programs(&[Some("cil_sock4_post_"), None]), true),
        ),
        again(again_bound),
        refused(unknown, Kind::Unknown, libc::EADDRINUSE),
    ]
}
