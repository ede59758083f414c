//! By which rule the two could not share.

use super::*;

#[test]
fn every_rule() {
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
    let itself = own.clone();
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
            "several of the process itself",
            refused_by(
                bind("0.0.0.0:8080"),
                ["127.0.0.1:8080", "127.0.0.2:8080"]
                    .map(|local| {
                        held(Kind::Listener, local)
                            .rule(Overlap::Wildcard, Reason::NoReuse)
                            .by(itself.clone())
                    })
                    .into(),
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
            "UDP, reuse_missing_self, what is sent to one address",
            refused_by(
                udp(bind("127.0.0.1:5353")),
                vec![mdns().rule(Overlap::Wildcard, Reason::ReuseMissingSelf)],
            ),
        ),
        (
            "UDP, reuse_missing_self, the same of one program",
            refused_by(
                by(
                    udp(bind("127.0.0.1:5353")),
                    "avahi-daemon",
                    "/usr/sbin/avahi-daemon",
                    &["avahi-daemon"],
                ),
                vec![mdns().rule(Overlap::Wildcard, Reason::ReuseMissingSelf)],
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
