//! Refusals without another socket.

use super::*;

#[test]
fn every_refusal() {
    let none = |kind, errno| refused(bind("0.0.0.0:8080"), kind, errno);
    let auto = |op, local: &str| adjusted(sighting(op, local), |event| event.auto_port = true);
    let reserving = |reserved| {
        let mut sighting = exhausted(
            auto(Op::Listen, "0.0.0.0:1"),
            Scope::Address,
            libc::EADDRINUSE,
        );
        let explanation = sample::explanation_of(&mut sighting);
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
                rest_apart: false,
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
        sample::explanation_of(&mut sighting).verdict =
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
            let explanation = sample::explanation_of(&mut sighting);
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
