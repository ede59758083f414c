//! Connections and clients in the way.

use super::*;

#[test]
fn every_state() {
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
    // All on the port got it from connect().
    let outgoing = |mut held: Held, adjust: fn(&mut Event)| {
        held.owner.local.ephemeral = Some(true);
        let mut sighting = adjusted(one(held), adjust);
        let conflict = sighting.event.conflict.as_mut().unwrap();
        conflict.connect_only = true;
        again(sighting)
    };
    let specific = || held(Kind::TimeWait, "10.0.0.1:8080").to("10.0.0.9:443");
    let text = told(vec![
        (
            "TIME_WAIT of an outgoing connection",
            outgoing(
                specific()
                    .rule(Overlap::Wildcard, Reason::ReuseMissingHolder)
                    .closed(curl(), true, 7),
                |_| {},
            ),
        ),
        (
            "the same, neither side with SO_REUSEADDR",
            outgoing(specific().rule(Overlap::Exact, Reason::NoReuse), |event| {
                event.local = sample::endpoint("10.0.0.1:8080");
            }),
        ),
        (
            "TIME_WAIT with SO_REUSEPORT only",
            one(waiting(Reason::ReuseMismatch)),
        ),
        (
            "TIME_WAIT with SO_REUSEADDR only",
            again(adjusted(one(waiting(Reason::ReuseMismatch)), |event| {
                event.socket.options.reuseport = Some(true);
            })),
        ),
        (
            "FIN_WAIT2 of an outgoing connection",
            outgoing(closing(TcpState::FinWait2), |_| {}),
        ),
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
