#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::fmt::Write as _;

use crate::{
    conflict::verdict::judge,
    event::{Container, Op, Overlap, Reason, *},
    sample::{
        self, Held, again, borne, by, connect, exhausted, held, nginx, occupant, refused,
        refused_by, sighting,
    },
    sink::escape::is_harmful,
};

fn bind(local: &str) -> Sighting {
    sighting(Op::Bind, local)
}

fn udp(mut sighting: Sighting) -> Sighting {
    sighting.event.transport = Transport::Udp;
    sighting
}

fn adjusted(mut sighting: Sighting, adjust: impl FnOnce(&mut Event)) -> Sighting {
    adjust(&mut sighting.event);
    sighting
}

/// A listener of knxd on 0.0.0.0:6720.
fn knxd() -> Held {
    held(Kind::Listener, "0.0.0.0:6720")
        .rule(Overlap::Exact, Reason::NoReuse)
        .lasting(86_400)
}

fn systemd() -> Occupant {
    occupant(1, "systemd")
}

fn container(id: &str, runtime: &'static str) -> Option<Container> {
    Some(Container {
        id: id.repeat(4),
        runtime: Some(runtime),
    })
}

fn in_container(pid: u32, name: &str) -> Occupant {
    occupant(pid, name).with(|process| process.container = container("0a1b2c3d4e5f6071", "docker"))
}

/// The same, of cases that a verdict can come to.
fn judged(cases: Vec<(&str, Sighting)>) -> String {
    for (title, sighting) in &cases {
        let verdict = judge(&sighting.event, Backend::Tracing, || Some(1024)).unwrap();
        let said = &sighting.explanation.as_ref().unwrap().verdict;
        assert_eq!(verdict, *said, "{title}");
    }
    told(cases)
}

/// A title and what is said, a case each.
fn told(cases: Vec<(&str, Sighting)>) -> String {
    let mut text = String::new();
    for (title, sighting) in cases {
        let explanation = sighting.explanation.unwrap();
        let hint = explanation
            .hint
            .map_or_else(String::new, |hint| format!(". {hint}"));
        writeln!(text, "{title}:\n    {}{hint}", explanation.message).unwrap();
    }
    text
}

#[test]
fn owners() {
    let one = |held: Held| refused_by(bind("0.0.0.0:8080"), vec![held]);
    let anyone = || held(Kind::Listener, "0.0.0.0:8080").lasting(300);
    let node = occupant(900, "node").with(|process| {
        process.executable_path = Some("/usr/bin/node".into());
        process.args = Some(vec!["node".into(), "server.js".into()]);
    });
    let other_script = node
        .clone()
        .with(|process| process.args = Some(vec!["node".into(), "x.js".into()]));
    let own = Occupant {
        task: sighting(Op::Bind, "0.0.0.0:1").event.task.clone(),
        process: node.process.clone(),
    };
    let proxy = occupant(23076, "docker-proxy")
        .of("docker.service")
        .with(|process| {
            process.args = Some(
                [
                    "docker-proxy",
                    "-container-ip",
                    "172.17.0.16",
                    "-container-port",
                    "8080",
                ]
                .map(str::to_owned)
                .to_vec(),
            );
        });
    let by_knxd = |held: Held| {
        held.by(occupant(900, "knxd").of("knxd.service"))
            .by(systemd())
    };
    let second_nginx = by(bind("0.0.0.0:8080"), "nginx", "/usr/sbin/nginx", &["nginx"]);
    let mut knxd_itself = by(bind("0.0.0.0:6720"), "knxd", "/usr/sbin/knxd", &["knxd"]);
    std::sync::Arc::make_mut(&mut knxd_itself.process).systemd_unit = Some("knxd.service".into());
    let mut in_same_container = bind("0.0.0.0:8080");
    std::sync::Arc::make_mut(&mut in_same_container.process).container =
        container("0a1b2c3d4e5f6071", "docker");
    let pod = |id: &str| {
        let path = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1b_2.slice";
        Some(format!("{path}/cri-containerd-{id}.scope"))
    };
    let in_pod = |own: &str| {
        let mut sighting = bind("0.0.0.0:8080");
        let process = std::sync::Arc::make_mut(&mut sighting.process);
        process.container = container(own, "containerd");
        process.cgroup = pod(own);
        let mate = in_container(900, "redis-server").with(|process| process.cgroup = pod("x"));
        refused_by(sighting, vec![anyone().by(mate)])
    };
    let heirs = |held: Held| {
        (813..817).fold(held.by(own.clone()), |held, pid| {
            held.by(occupant(pid, "node"))
        })
    };
    let some_known = |total, truncated| {
        let mut sighting = one(nginx());
        let verdict = &mut sighting.explanation.as_mut().unwrap().verdict;
        (verdict.total, verdict.truncated) = (total, truncated);
        again(sighting)
    };
    let pathless = |pid, name| occupant(pid, name).with(|process| process.executable_path = None);
    let hosted = |name: &str, unit: &str, parent| {
        let mut occupant = occupant(900, name).of(unit);
        occupant.task.parent_pid = Some(parent);
        one(anyone().by(occupant))
    };
    let many = (813..817).fold(nginx(), |held, pid| held.by(occupant(pid, "nginx")));
    let text = told(vec![
        ("a unit", one(nginx())),
        ("no unit", one(anyone().by(occupant(900, "server")))),
        (
            "a login's scope is not named",
            one(anyone().by(occupant(900, "server").of("session-3.scope"))),
        ),
        (
            "a user's unit",
            one(anyone().by(occupant(900, "syncthing")
                .of("syncthing.service")
                .with(|process| {
                    process.cgroup = Some(
                        "/user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service"
                            .into(),
                    );
                }))),
        ),
        (
            "the caller's own unit",
            one(anyone().by(occupant(900, "server").of("web.service"))),
        ),
        ("many processes", one(many)),
        (
            "a container",
            one(anyone().by(in_container(900, "redis-server"))),
        ),
        (
            "the caller's own container",
            refused_by(
                in_same_container,
                vec![anyone().by(in_container(900, "redis-server"))],
            ),
        ),
        (
            "a pod",
            one(
                anyone().by(in_container(900, "redis-server").with(|process| {
                    process.cgroup = Some("/kubepods/burstable/pod1/x".into());
                })),
            ),
        ),
        ("another container of the pod", in_pod("deadbeef")),
        ("the same container of the pod", in_pod("0a1b2c3d4e5f6071")),
        (
            "a forwarder that says where to",
            one(anyone().by(proxy.clone())),
        ),
        (
            "a forwarder whose listener its daemon made",
            one(anyone()
                .by(proxy.clone())
                .created(occupant(800, "dockerd"), false)),
        ),
        (
            "a forwarder and another",
            refused_by(bind("0.0.0.0:8080"), vec![anyone().by(proxy), nginx()]),
        ),
        ("a job of cron", hosted("job", "cron.service", 800)),
        ("cron", hosted("cron", "cron.service", 1)),
        ("a forwarding of ssh", hosted("sshd", "ssh.service", 800)),
        (
            "closed just now",
            one(anyone().holder(|holder| holder.references = Some(0))),
        ),
        (
            "closed just now by a known process",
            one(anyone()
                .created(occupant(300, "httpd"), false)
                .holder(|holder| holder.references = Some(0))),
        ),
        (
            "several, one of them closed just now",
            refused_by(
                bind("0.0.0.0:8080"),
                vec![
                    anyone().holder(|holder| holder.references = Some(0)),
                    nginx(),
                ],
            ),
        ),
        ("one of more than were kept", some_known(5_000, false)),
        ("cut short", some_known(300, true)),
        ("this very process and others", one(heirs(anyone()))),
        (
            "this very process and systemd",
            one(anyone().by(own.clone()).by(systemd())),
        ),
        (
            "a forwarder",
            one(anyone().by(occupant(99047, "rootlessport"))),
        ),
        (
            "socket activation, before the first connection",
            one(knxd().by(systemd()).unit("knxd.socket")),
        ),
        (
            "the same, of the caller itself",
            refused_by(knxd_itself, vec![knxd().by(systemd()).unit("knxd.socket")]),
        ),
        ("socket activation, the service runs", one(by_knxd(knxd()))),
        ("systemd, for an unknown unit", one(knxd().by(systemd()))),
        (
            "another first process",
            one(anyone().by(occupant(1, "init"))),
        ),
        ("this very process", one(anyone().by(own.clone()))),
        (
            "the same program",
            refused_by(
                second_nginx,
                vec![nginx().rule(Overlap::Exact, Reason::ReuseListening)],
            ),
        ),
        ("the same script", one(anyone().by(node.clone()))),
        ("another script", one(anyone().by(other_script))),
        (
            "left to another program",
            one(anyone()
                .by(occupant(412, "sh"))
                .created(occupant(300, "httpd"), true)),
        ),
        (
            "handed to another program",
            one(anyone()
                .by(occupant(412, "sh"))
                .created(occupant(300, "httpd"), false)),
        ),
        (
            "left to a process whose executable is not known",
            one(anyone()
                .by(pathless(412, "sh"))
                .created(occupant(300, "httpd"), true)),
        ),
        (
            "left to one of the same name",
            one(anyone()
                .by(pathless(412, "httpd"))
                .created(pathless(300, "httpd"), true)),
        ),
        (
            "gone into the background",
            one(nginx().created(occupant(811, "nginx"), true)),
        ),
        (
            "no process",
            one(anyone().holder(|holder| holder.socket.uid = Some(33))),
        ),
        (
            "no process, but a creator",
            one(anyone().created(occupant(300, "httpd"), true)),
        ),
        (
            "several",
            refused_by(
                bind("0.0.0.0:8080"),
                vec![
                    nginx(),
                    held(Kind::Listener, "127.0.0.2:8080")
                        .rule(Overlap::Wildcard, Reason::NoReuse)
                        .by(occupant(7, "a")),
                    held(Kind::Listener, "127.0.0.3:8080")
                        .rule(Overlap::Wildcard, Reason::NoReuse)
                        .by(occupant(8, "b")),
                ],
            ),
        ),
    ]);
    insta::assert_snapshot!(text);
}

#[test]
fn rules() {
    let one = |held: Held| refused_by(bind("127.0.0.1:8080"), vec![held]);
    let bound = |reason| {
        held(Kind::Bound, "127.0.0.1:8080")
            .rule(Overlap::Exact, reason)
            .by(occupant(900, "server"))
    };
    let listener = |local: &str, overlap| {
        held(Kind::Listener, local)
            .rule(overlap, Reason::NoReuse)
            .by(occupant(900, "server"))
    };
    let alike = |sighting| by(sighting, "server", "/usr/sbin/server", &["server"]);
    let user = |uid| move |holder: &mut Holder| holder.socket.uid = Some(uid);
    let mdns = || {
        held(Kind::Bound, "0.0.0.0:5353")
            .holder(|holder| holder.transport = Transport::Udp)
            .by(occupant(700, "avahi-daemon").of("avahi-daemon.service"))
    };
    let own = Occupant {
        task: bind("0.0.0.0:1").event.task.clone(),
        process: bind("0.0.0.0:1").process,
    };
    let resolved = held(Kind::Listener, "127.0.0.53:53")
        .rule(Overlap::Wildcard, Reason::NoReuse)
        .by(occupant(516, "systemd-resolved").of("systemd-resolved.service"));
    let on_lo = |mut held: Held| {
        held.owner.interface = Some("lo".into());
        held.holder(|holder| holder.socket.device = Some(1))
    };
    let text = told(vec![
        (
            "your wildcard",
            refused_by(
                bind("0.0.0.0:8080"),
                vec![listener("127.0.0.1:8080", Overlap::Wildcard)],
            ),
        ),
        (
            "its wildcard",
            one(listener("0.0.0.0:8080", Overlap::Wildcard)),
        ),
        (
            "your dual stack",
            refused_by(
                bind("[::]:8080"),
                vec![listener("0.0.0.0:8080", Overlap::DualStack)],
            ),
        ),
        (
            "its dual stack",
            refused_by(
                bind("0.0.0.0:8080"),
                vec![listener("[::]:8080", Overlap::DualStack)],
            ),
        ),
        (
            "its dual stack, of systemd",
            refused_by(
                bind("0.0.0.0:6720"),
                vec![
                    held(Kind::Listener, "[::]:6720")
                        .rule(Overlap::DualStack, Reason::NoReuse)
                        .by(systemd())
                        .unit("knxd.socket"),
                ],
            ),
        ),
        (
            "the process's own dual stack",
            refused_by(
                bind("0.0.0.0:8080"),
                vec![
                    held(Kind::Listener, "[::]:8080")
                        .rule(Overlap::DualStack, Reason::ReuseListening)
                        .lasting(0)
                        .by(own.clone()),
                ],
            ),
        ),
        (
            "your dual stack and the process's own IPv4",
            refused_by(
                bind("[::]:8080"),
                vec![
                    held(Kind::Listener, "0.0.0.0:8080")
                        .rule(Overlap::DualStack, Reason::ReuseListening)
                        .lasting(0)
                        .by(own),
                ],
            ),
        ),
        (
            "a device, and your wildcard",
            refused_by(bind("0.0.0.0:53"), vec![on_lo(resolved)]),
        ),
        (
            "its device",
            one(on_lo(listener("127.0.0.1:8080", Overlap::Exact))),
        ),
        (
            "your device",
            refused_by(
                adjusted(bind("127.0.0.1:8080"), |event| {
                    event.socket.device = Some(1);
                }),
                vec![listener("127.0.0.1:8080", Overlap::Exact)],
            ),
        ),
        ("no_reuse", one(bound(Reason::NoReuse))),
        ("reuse_missing_self", one(bound(Reason::ReuseMissingSelf))),
        (
            "reuse_missing_self, and another",
            refused_by(
                bind("127.0.0.1:8080"),
                vec![
                    bound(Reason::ReuseMissingSelf),
                    bound(Reason::ReuseMissingHolder),
                ],
            ),
        ),
        (
            "reuse_missing_holder",
            one(bound(Reason::ReuseMissingHolder)),
        ),
        ("reuse_mismatch", one(bound(Reason::ReuseMismatch))),
        (
            "reuse_mismatch, the other way, of one program",
            refused_by(
                alike(adjusted(bind("127.0.0.1:8080"), |event| {
                    event.socket.options.reuseport = Some(true);
                })),
                vec![bound(Reason::ReuseMismatch)],
            ),
        ),
        (
            "reuse_listening",
            one(listener("127.0.0.1:8080", Overlap::Exact)
                .rule(Overlap::Exact, Reason::ReuseListening)),
        ),
        (
            "reuseport_missing_self",
            one(bound(Reason::ReuseportMissingSelf)),
        ),
        (
            "reuseport_missing_self, of one program and user",
            refused_by(
                alike(bind("127.0.0.1:8080")),
                vec![bound(Reason::ReuseportMissingSelf).holder(user(1000))],
            ),
        ),
        (
            "reuseport_missing_holder",
            one(bound(Reason::ReuseportMissingHolder)),
        ),
        (
            "reuseport_uid",
            one(bound(Reason::ReuseportUid).holder(user(998))),
        ),
        (
            "reuseport_uid, of one program",
            refused_by(
                alike(bind("127.0.0.1:8080")),
                vec![bound(Reason::ReuseportUid).holder(user(998))],
            ),
        ),
        (
            "UDP, reuse_missing_self",
            refused_by(
                udp(bind("0.0.0.0:5353")),
                vec![mdns().rule(Overlap::Exact, Reason::ReuseMissingSelf)],
            ),
        ),
        (
            "UDP, reuse_missing_self, no multicasts",
            refused_by(
                udp(bind("0.0.0.0:53")),
                vec![
                    held(Kind::Bound, "127.0.0.53:53")
                        .rule(Overlap::Wildcard, Reason::ReuseMissingSelf)
                        .holder(|holder| holder.transport = Transport::Udp)
                        .by(occupant(516, "systemd-resolved")),
                ],
            ),
        ),
        (
            "UDP, reuse_mismatch",
            refused_by(
                udp(bind("0.0.0.0:5353")),
                vec![mdns().rule(Overlap::Exact, Reason::ReuseMismatch)],
            ),
        ),
        (
            "reuse_mismatch, of one program and user",
            refused_by(
                alike(bind("127.0.0.1:8080")),
                vec![bound(Reason::ReuseMismatch).holder(user(1000))],
            ),
        ),
        (
            "UDP, reuseport_missing_self, another user",
            refused_by(
                udp(bind("0.0.0.0:5353")),
                vec![mdns().rule(Overlap::Exact, Reason::ReuseportMissingSelf)],
            ),
        ),
        (
            "listen()",
            refused_by(
                sighting(Op::Listen, "127.0.0.1:8080"),
                vec![
                    listener("127.0.0.1:8080", Overlap::Exact)
                        .rule(Overlap::Exact, Reason::ReuseListening)
                        .lasting(2),
                ],
            ),
        ),
    ]);
    insta::assert_snapshot!(text);
}

#[test]
fn connections() {
    let one = |held: Held| refused_by(bind("0.0.0.0:8080"), vec![held]);
    let one_of = |held: Vec<Held>| refused_by(bind("0.0.0.0:8080"), held);
    let client = || {
        held(Kind::Client, "10.0.0.1:8080")
            .rule(Overlap::Wildcard, Reason::ReuseMissingHolder)
            .to("10.0.0.9:443")
            .lasting(200)
    };
    let accepted = |reason| {
        held(Kind::Accepted, "10.0.0.1:8080")
            .rule(Overlap::Wildcard, reason)
            .to("10.0.0.7:51234")
            .lasting(200)
    };
    let mut unknown = accepted(Reason::NoReuse);
    unknown.culprit.kind = Kind::Unknown;
    let open = |held: Held| {
        held.holder(|holder| {
            (holder.references, holder.socket.inode) = (Some(1), Some(12345));
        })
    };
    let own = Occupant {
        task: bind("0.0.0.0:1").event.task.clone(),
        process: bind("0.0.0.0:1").process,
    };
    let closing = |state| {
        held(Kind::Closing, "10.0.0.1:8080")
            .rule(Overlap::Wildcard, Reason::NoReuse)
            .to("10.0.0.7:51234")
            .holder(|holder| {
                (holder.state, holder.references) = (state, None);
                holder.socket.inode = None;
            })
    };
    let waiting = |reason| {
        held(Kind::TimeWait, "0.0.0.0:8080")
            .rule(Overlap::Exact, reason)
            .to("10.0.0.9:51234")
    };
    let kernel = |local: &str| held(Kind::Kernel, local).rule(Overlap::Exact, Reason::NoReuse);
    let node = |pid| {
        occupant(pid, "node").with(|process| {
            process.executable_path = Some("/usr/bin/node".into());
            process.args = Some(vec!["node".into(), "server.js".into()]);
        })
    };
    let curl = || occupant(4616, "curl");
    let text = told(vec![
        ("client", one(client().by(curl()))),
        ("client whose port the kernel picked", {
            let mut client = client().by(curl());
            client.owner.local.ephemeral = Some(true);
            one(client)
        }),
        (
            "client that named its port",
            one(client()
                .by(curl())
                .holder(|holder| holder.chose_port = true)),
        ),
        (
            "client of a unit, exactly",
            refused_by(
                bind("10.0.0.1:8080"),
                vec![
                    client()
                        .rule(Overlap::Exact, Reason::ReuseMissingHolder)
                        .by(occupant(5, "prometheus").of("prometheus.service")),
                ],
            ),
        ),
        ("client of nobody", one(client())),
        (
            "client, UDP",
            refused_by(
                udp(bind("0.0.0.0:8080")),
                vec![
                    client()
                        .holder(|holder| holder.transport = Transport::Udp)
                        .by(occupant(5, "dig")),
                ],
            ),
        ),
        (
            "accepted, no_reuse",
            one(accepted(Reason::NoReuse).by(node(5))),
        ),
        (
            "not known whether accepted or a client's",
            one(unknown.by(node(5))),
        ),
        (
            "accepted, missing_self",
            one(accepted(Reason::ReuseMissingSelf).by(node(5))),
        ),
        (
            "accepted, in the queue",
            one(accepted(Reason::ReuseMissingHolder).holder(|holder| {
                (holder.references, holder.socket.inode) = (None, None);
            })),
        ),
        (
            "accepted, not found",
            one(accepted(Reason::ReuseMissingHolder).holder(|holder| holder.references = None)),
        ),
        (
            "accepted by this very process",
            one(accepted(Reason::ReuseMissingHolder).by(own.clone())),
        ),
        (
            "accepted by this very process and another",
            one(accepted(Reason::ReuseMissingHolder)
                .by(own.clone())
                .by(node(5))),
        ),
        (
            "accepted, several",
            one_of(vec![
                accepted(Reason::NoReuse).by(node(5)),
                accepted(Reason::NoReuse).by(node(6)),
            ]),
        ),
        (
            "client and its connections closed just now",
            one(client().holder(|holder| holder.references = Some(0))),
        ),
        (
            "client, several",
            one_of(vec![client().by(curl()), client().by(curl()), client()]),
        ),
        (
            "CLOSE_WAIT, several",
            one_of(vec![
                open(closing(TcpState::CloseWait)).by(occupant(5, "pm2")),
                waiting(Reason::NoReuse),
            ]),
        ),
        (
            "TIME_WAIT, several",
            one_of(vec![waiting(Reason::NoReuse), waiting(Reason::NoReuse)]),
        ),
        (
            "kernel, several",
            one_of(vec![kernel("0.0.0.0:8080"), kernel("10.0.0.5:8080")]),
        ),
        ("TIME_WAIT of one that still runs", {
            let sighting = by(
                bind("0.0.0.0:8080"),
                "node",
                "/usr/bin/node",
                &["node", "server.js"],
            );
            refused_by(
                sighting,
                vec![waiting(Reason::NoReuse).closed(node(912), false, 3)],
            )
        }),
        (
            "CLOSE_WAIT",
            one(open(closing(TcpState::CloseWait)).by(occupant(5, "pm2").of("pm2.service"))),
        ),
        (
            "CLOSE_WAIT, not found",
            one(open(closing(TcpState::CloseWait))),
        ),
        ("CLOSE_WAIT of nobody", one(closing(TcpState::CloseWait))),
        ("FIN_WAIT1", one(closing(TcpState::FinWait1))),
        ("FIN_WAIT2", one(closing(TcpState::FinWait2))),
        (
            "FIN_WAIT2, closed by one that is gone",
            one(closing(TcpState::FinWait2).closed(occupant(5, "pm2"), true, 3)),
        ),
        (
            "FIN_WAIT2 with a process",
            one(open(closing(TcpState::FinWait2)).by(occupant(5, "pm2"))),
        ),
        (
            "FIN_WAIT2, not found",
            one(open(closing(TcpState::FinWait2))),
        ),
        ("LAST_ACK", one(closing(TcpState::LastAck))),
        ("CLOSING", one(closing(TcpState::Closing))),
        ("TIME_WAIT, no_reuse", one(waiting(Reason::NoReuse))),
        (
            "TIME_WAIT, missing_self",
            one(waiting(Reason::ReuseMissingSelf)),
        ),
        (
            "TIME_WAIT, missing_holder, of an earlier run",
            refused_by(
                by(
                    bind("0.0.0.0:8080"),
                    "node",
                    "/usr/bin/node",
                    &["node", "server.js"],
                ),
                vec![waiting(Reason::ReuseMissingHolder).closed(node(912), true, 14)],
            ),
        ),
        (
            "TIME_WAIT, reuseport_missing_self",
            one(waiting(Reason::ReuseportMissingSelf).closed(occupant(900, "proxy"), true, 59)),
        ),
        (
            "kernel, TCP",
            refused_by(
                bind("0.0.0.0:789"),
                vec![kernel("10.0.0.5:789").to("10.0.0.2:2049")],
            ),
        ),
        (
            "kernel, UDP",
            refused_by(
                udp(bind("0.0.0.0:51820")),
                vec![kernel("0.0.0.0:51820").holder(|holder| holder.transport = Transport::Udp)],
            ),
        ),
    ]);
    insta::assert_snapshot!(text);
}

#[test]
fn refusals() {
    let none = |kind, errno| refused(bind("0.0.0.0:8080"), kind, errno);
    let auto = |op, local: &str| adjusted(sighting(op, local), |event| event.auto_port = true);
    let reserving = |reserved| {
        let mut sighting = exhausted(
            auto(Op::Listen, "0.0.0.0:1"),
            Scope::Address,
            libc::EADDRINUSE,
        );
        let explanation = sighting.explanation.as_mut().unwrap();
        explanation.findings.exhausted.as_mut().unwrap().reserved = reserved;
        again(sighting)
    };
    let connecting = || {
        adjusted(connect("10.0.0.1:1", "10.0.0.9:443"), |event| {
            (event.no_port_left, event.auto_port) = (true, true);
        })
    };
    let not_local = |address| refused(bind(address), Kind::NotLocal, libc::EADDRNOTAVAIL);
    let on_device = |address| {
        let mut sighting = bind(address);
        sighting.event.socket.device = Some(3);
        refused(sighting, Kind::NotLocal, libc::EADDRNOTAVAIL)
    };
    let mut bound = none(Kind::AlreadyBound, libc::EINVAL);
    bound.event.bound_port = Some(8080);
    let unitless = |path: &str| {
        let mut sighting = bind("0.0.0.0:80");
        let process = std::sync::Arc::make_mut(&mut sighting.process);
        process.systemd_unit = None;
        process.executable_path = Some(path.to_owned());
        refused(sighting, Kind::Privileged, libc::EACCES)
    };
    let mut contained = bind("0.0.0.0:80");
    std::sync::Arc::make_mut(&mut contained.process).container =
        container("0a1b2c3d4e5f6071", "docker");
    // None of the sockets that are there is in the way.
    let seen = |kept: usize, total, truncated, is_claim_known: bool| {
        let mut sighting = adjusted(bind("127.0.0.1:8080"), |event| {
            let innocent = held(Kind::Listener, "127.0.0.2:8080").holder(|holder| {
                holder.socket.options.reuseport = Some(false);
            });
            event.conflict = Some(Conflict {
                connect_only: false,
                last: None,
                holders: vec![innocent.culprit.holder; kept],
                total,
                truncated,
            });
            if !is_claim_known {
                event.socket.options = SocketOptions::default();
            }
        });
        sighting = refused(sighting, Kind::Unknown, libc::EADDRINUSE);
        sighting.explanation.as_mut().unwrap().verdict =
            judge(&sighting.event, Backend::Tracing, || None).unwrap();
        again(sighting)
    };
    let text = judged(vec![
        (
            "exhausted, bind(0)",
            exhausted(
                auto(Op::Bind, "0.0.0.0:1"),
                Scope::Address,
                libc::EADDRINUSE,
            ),
        ),
        (
            "exhausted, bind(address, 0)",
            exhausted(
                auto(Op::Bind, "10.0.0.1:1"),
                Scope::Address,
                libc::EADDRINUSE,
            ),
        ),
        ("exhausted, listen(), some are reserved", reserving(Some(5))),
        (
            "exhausted, listen(), reserved ones not known",
            reserving(None),
        ),
        (
            "exhausted, connect()",
            exhausted(connecting(), Scope::Tuple, libc::EADDRNOTAVAIL),
        ),
        (
            "exhausted, UDP",
            exhausted(udp(connecting()), Scope::Address, libc::EAGAIN),
        ),
        (
            "exhausted, sendto()",
            exhausted(
                sighting(Op::Autobind, "0.0.0.0:1"),
                Scope::Address,
                libc::EAGAIN,
            ),
        ),
        (
            "privileged, in a unit",
            refused(bind("0.0.0.0:80"), Kind::Privileged, libc::EACCES),
        ),
        ("privileged", unitless("/opt/web/server")),
        ("privileged, a script", unitless("/usr/bin/python3.11")),
        ("privileged, not to be pasted", unitless("/tmp/x; rm -rf ~")),
        (
            "privileged, in a container",
            refused(contained, Kind::Privileged, libc::EACCES),
        ),
        (
            "not_local, absent",
            borne(not_local("192.0.2.10:8080"), &[], None),
        ),
        (
            "not_local, IPv6, absent",
            borne(not_local("[2001:db8::1]:8080"), &[], None),
        ),
        (
            "not_local, tentative",
            borne(
                not_local("[2001:db8::1]:8080"),
                &[("eth0", AddressState::Tentative)],
                None,
            ),
        ),
        (
            "not_local, twice",
            borne(
                not_local("[2001:db8::1]:8080"),
                &[("eth0", AddressState::DadFailed)],
                None,
            ),
        ),
        (
            "not_local, on another device",
            borne(
                on_device("[fe80::1]:8080"),
                &[("eth1", AddressState::Usable)],
                Some("eth0"),
            ),
        ),
        (
            "not_local, tentative on its device",
            borne(
                on_device("[fe80::1]:8080"),
                &[
                    ("eth1", AddressState::Usable),
                    ("eth0", AddressState::Tentative),
                ],
                Some("eth0"),
            ),
        ),
        (
            "not_local, there by now or in a VRF",
            borne(
                not_local("192.0.2.10:8080"),
                &[("eth0", AddressState::Usable)],
                None,
            ),
        ),
        (
            "not_local",
            refused(bind("192.0.2.10:8080"), Kind::NotLocal, libc::EADDRNOTAVAIL),
        ),
        (
            "not_local, IPv6",
            refused(
                bind("[2001:db8::1]:8080"),
                Kind::NotLocal,
                libc::EADDRNOTAVAIL,
            ),
        ),
        ("not_local, on a device", on_device("192.0.2.10:8080")),
        (
            "not_local, IPv6, on a device",
            on_device("[2001:db8::1]:8080"),
        ),
        ("policy", none(Kind::Policy, libc::EPERM)),
        ("already_bound", again(bound)),
        ("gone", seen(0, 0, false, true)),
        ("gone, and by whom", {
            let mut sighting = seen(0, 0, false, true);
            let explanation = sighting.explanation.as_mut().unwrap();
            explanation.findings.gone = Some(sample::conflict::departure(
                occupant(300, "worker"),
                true,
                0,
            ));
            again(sighting)
        }),
        ("gone, beside one", seen(1, 1, false, true)),
        ("gone, beside others", seen(3, 3, false, true)),
        (
            "unknown, nothing was seen",
            none(Kind::Unknown, libc::EADDRINUSE),
        ),
        ("unknown claim, nobody there", seen(0, 0, false, false)),
        ("unknown claim, one there", seen(1, 1, false, false)),
        ("unknown claim, several there", seen(3, 3, false, false)),
        ("unknown, more than were kept", seen(8, 300, false, true)),
        ("unknown, cut short", seen(8, 300, true, true)),
        ("unknown, cut short at once", seen(0, 0, true, true)),
        ("unknown, cut short behind them", seen(2, 2, true, true)),
        (
            "unknown, no scope",
            refused(bind("[fe80::1]:8080"), Kind::Unknown, libc::EINVAL),
        ),
        ("unknown", none(Kind::Unknown, libc::EINVAL)),
    ]);
    insta::assert_snapshot!(text);
}

#[test]
fn names_are_harmless_and_lines_are_lines() {
    for item in sample::hostile() {
        let Item::Event(caller) = item else { continue };
        let name = caller.event.task.comm.as_deref().unwrap();
        for sighting in [
            refused_by(
                bind("0.0.0.0:8080"),
                vec![held(Kind::Listener, "0.0.0.0:8080").by(occupant(900, name))],
            ),
            refused(*caller.clone(), Kind::Privileged, libc::EACCES),
        ] {
            let explanation = sighting.explanation.unwrap();
            for words in [Some(explanation.message), explanation.hint]
                .iter()
                .flatten()
            {
                assert!(!words.chars().any(is_harmful), "{words:?}");
            }
        }
    }
}

#[test]
fn a_verdict_without_owners_is_survived() {
    let mut sighting = refused_by(bind("0.0.0.0:8080"), vec![nginx()]);
    sighting.explanation.as_mut().unwrap().owners.clear();
    assert_eq!(
        again(sighting).explanation.unwrap().message,
        "held by a socket of uid 0 (listening on 127.0.0.1:8080); its process could not be found; \
         your wildcard covers it; SO_REUSEADDR does not count against a listener"
    );
}
