//! Sightings for the tests of filters and sinks.

#![expect(clippy::unwrap_used, reason = "tests panic")]

mod any;
mod checked;
pub(crate) mod churn;
pub(crate) mod conflict;
mod listing;

use std::sync::Arc;

pub(crate) use any::any_sighting;
pub(crate) use checked::*;
pub(crate) use conflict::*;
pub(crate) use listing::*;

use crate::event::*;

/// `127.0.0.1:80`, `[::1]:80`
pub(crate) fn endpoint(text: &str) -> Endpoint {
    let socket: std::net::SocketAddr = text.parse().unwrap();
    Endpoint {
        address: Some(socket.ip()),
        port: Some(socket.port()),
    }
}

pub(crate) fn time() -> Time {
    Time {
        boot: 5_482_000_000,
        utc: "2026-11-22T12:03:11.482Z".parse().unwrap(),
    }
}

fn facts(endpoint: &Endpoint) -> PortFacts {
    let port = endpoint.port;
    let service = match port {
        Some(80) => Some("http"),
        Some(443) => Some("https"),
        Some(5353) => Some("mdns"),
        Some(8080) => Some("http-alt"),
        _ => None,
    };
    PortFacts {
        service: service.map(Arc::from),
        class: port.map(PortClass::of),
        ephemeral: port.map(|port| (32768..=60999).contains(&port)),
    }
}

/// `node server.js` did `op` on `local` and it worked.
pub(crate) fn sighting(op: Op, local: &str) -> Sighting {
    let local = endpoint(local);
    let is_v6 = local.address.unwrap().is_ipv6();
    Sighting {
        local: facts(&local),
        event: Box::new(Event {
            time_boot: time().boot,
            duration: (op != Op::Release).then_some(12_345),
            op,
            outcome: Outcome::Success,
            via: Some(if matches!(op, Op::Autobind | Op::Release) {
                Via::Implicit
            } else {
                Via::Syscall
            }),
            transport: if op == Op::Autobind {
                Transport::Udp
            } else {
                Transport::Tcp
            },
            family: if is_v6 { Family::Ipv6 } else { Family::Ipv4 },
            local,
            peer: None,
            auto_port: op == Op::Autobind,
            backlog: (op == Op::Listen).then_some(511),
            socket: Socket {
                cookie: Some(0x1a2b),
                inode: Some(98765),
                netns: Some(4_026_531_840),
                device: None,
                uid: Some(1000),
                options: SocketOptions {
                    reuseaddr: Some(true),
                    reuseport: Some(false),
                    v6only: is_v6.then_some(false),
                    freebind: Some(false),
                    transparent: Some(false),
                    bind_no_port: Some(false),
                    mptcp: Some(false),
                },
            },
            task: Task {
                pid: 2214,
                tid: 2214,
                parent_pid: Some(2000),
                vpid: Some(2214),
                uid: 1000,
                comm: Some("node".into()),
                start_boot: Some(5_000_000_000),
                key: Some(77),
                cgroup: Some(4242),
            },
            refused_by_policy: false,
            may_bind_low: None,
            no_port_left: false,
            bound_port: None,
            own_range: None,
            freed: (op == Op::Release).then_some(Freed::Closed),
            held: (op == Op::Release).then_some(3_600_000_000_000),
            conflict: None,
        }),
        time: time(),
        process: Arc::new(process("/usr/bin/node", &["node", "server.js"])),
        peer: PortFacts::default(),
        interface: None,
        explanation: None,
        warning: None,
        missing: Vec::new(),
    }
}

pub(crate) fn process(path: &str, args: &[&str]) -> Process {
    Process {
        executable_path: Some(path.into()),
        args: Some(args.iter().map(|&arg| arg.to_owned()).collect()),
        creation: Some("2026-11-22T12:03:11Z".parse().unwrap()),
        user_name: Some("alice".into()),
        cgroup: Some("/system.slice/web.service".into()),
        container: None,
        systemd_unit: Some("web.service".into()),
    }
}

/// A process and the kernel's name of it.
pub(crate) fn by(mut sighting: Sighting, comm: &str, path: &str, args: &[&str]) -> Sighting {
    sighting.event.task.comm = Some(comm.into());
    sighting.process = Arc::new(process(path, args));
    sighting
}

pub(crate) fn failed(mut sighting: Sighting, errno: i32) -> Sighting {
    sighting.event.outcome = Outcome::Failure(Errno(errno.unsigned_abs()));
    sighting
}

/// A connect, by curl.
pub(crate) fn connect(local: &str, peer: &str) -> Sighting {
    let mut sighting = by(
        sighting(Op::Connect, local),
        "curl",
        "/usr/bin/curl",
        &["curl", "-s", "https://example.org/"],
    );
    let peer = endpoint(peer);
    sighting.peer = facts(&peer);
    sighting.event.peer = Some(peer);
    sighting.event.auto_port = true;
    sighting
}

pub(crate) fn event(sighting: Sighting) -> Item {
    Item::Event(Box::new(sighting))
}

pub(crate) fn start() -> Item {
    Item::Start(Start {
        version: "0.1.0".into(),
        kernel_release: "6.18.44".into(),
        host_name: "box".into(),
        backend: Backend::RawTp,
        degraded: vec![
            "io-uring: bind and listen through io_uring".into(),
            "autobind: UDP ports taken by sendto() and the like".into(),
        ],
        time: time(),
    })
}

pub(crate) fn lost(count: u64, reason: LostReason) -> Item {
    Item::Lost(Lost {
        count,
        reason,
        time: time(),
    })
}

pub(crate) fn end(events: u64, failures: u64, lost: u64) -> Item {
    Item::End(End {
        events,
        failures,
        lost,
        time: time(),
    })
}

/// stalwart listens there though its bind() was refused.
pub(crate) fn exposed(local: &str) -> Sighting {
    let mut sighting = by(
        sighting(Op::Listen, local),
        "stalwart",
        "/usr/bin/stalwart",
        &["stalwart", "--config=/etc/stalwart.toml"],
    );
    sighting.event.auto_port = true;
    let refused = Refused {
        time_boot: time().boot - 40_000,
        errno: Errno(libc::EADDRNOTAVAIL.unsigned_abs()),
        local: endpoint("10.0.0.2:587"),
    };
    let warning = crate::conflict::words::exposed(&sighting.event, &sighting.process, refused);
    sighting.warning = Some(Box::new(warning));
    sighting
}

/// One of everything, as it may come in a trace.
pub(crate) fn stream() -> Vec<Item> {
    let mut mptcp = sighting(Op::Listen, "0.0.0.0:443");
    mptcp.event.socket.options.mptcp = Some(true);
    let mut unknown = connect("127.0.0.1:43212", "10.0.0.9:443");
    unknown.event.outcome = Outcome::Unknown(UnknownReason::Closed);
    let mut open = connect("127.0.0.1:43213", "10.0.0.9:443");
    open.event.outcome = Outcome::Unknown(UnknownReason::TraceEnded);
    let mut random = sighting(Op::Listen, "0.0.0.0:42421");
    random.event.auto_port = true;
    let mut no_port = sighting(Op::Bind, "10.0.0.1:1");
    no_port.event.local.port = None;
    no_port.local = PortFacts::default();
    let mut policy = failed(sighting(Op::Bind, "0.0.0.0:81"), libc::EPERM);
    policy.event.refused_by_policy = true;
    let mut bare = sighting(Op::Bind, "0.0.0.0:2049");
    bare.event.via = Some(Via::Kernel);
    bare.event.duration = None;
    bare.event.socket = Socket::default();
    bare.event.task = Task {
        pid: 612,
        tid: 612,
        ..Task::default()
    };
    bare.process = Arc::default();
    bare.missing = vec!["process.comm", "process.executable.path"];
    let mut container = by(
        sighting(Op::Autobind, "0.0.0.0:51820"),
        "java",
        "/opt/java/bin/java",
        &[
            "java",
            "-Xmx4g",
            "-jar",
            "/srv/app/service-with-a-long-name.jar",
        ],
    );
    container.event.task.pid = 4_194_303;
    container.process = Arc::new(Process {
        container: Some(Container {
            id: "0a1b2c3d4e5f".repeat(5),
            runtime: Some("docker"),
        }),
        ..(*container.process).clone()
    });
    let mut link_local = sighting(Op::Bind, "[fe80::1234:5678:9abc:def0]:5353");
    link_local.event.transport = Transport::Udp;
    link_local.interface = Some("eth0".into());

    let before = vec![
        start(),
        event(sighting(Op::Bind, "0.0.0.0:8080")),
        event(sighting(Op::Listen, "[::]:8080")),
    ];
    let after = vec![
        event(connect("127.0.0.1:43210", "127.0.0.1:443")),
        event(connect("192.168.178.20:43211", "142.250.184.206:443")),
        event(failed(
            connect("127.0.0.1:43211", "127.0.0.1:8080"),
            libc::ECONNREFUSED,
        )),
        event(failed(
            connect("[2001:db8::1]:40000", "[2001:db8:1:2:3:4:5:6]:443"),
            libc::ETIMEDOUT,
        )),
        event(connect("[::ffff:10.0.0.1]:40001", "[::ffff:10.0.0.9]:443")),
        event(unknown),
        event(open),
        event(container),
        event(mptcp),
        event(random),
        event(exposed("0.0.0.0:46007")),
        event(no_port),
        event(link_local),
        event(failed(sighting(Op::Bind, "0.0.0.0:8080"), libc::EADDRINUSE)),
        event(failed(sighting(Op::Bind, "0.0.0.0:80"), libc::EACCES)),
        event(failed(sighting(Op::Bind, "0.0.0.0:82"), 530)),
        event(policy),
        event(bare),
        lost(1204, LostReason::RingFull),
        lost(1, LostReason::Recursion),
        lost(2, LostReason::ReturnMissed),
        end(33, 19, 1207),
    ];
    let refused = conflicts().into_iter().map(event);
    before.into_iter().chain(refused).chain(after).collect()
}

/// What hostile processes call themselves.
pub(crate) fn hostile() -> Vec<Item> {
    [
        "\x1b[2J\x1b[1;1Hroot",
        "two\nlines",
        "\"quotes\" and \\ and \t",
        "\u{202e}gpj.exe",
        "bad \u{fffd} utf-8",
        "\u{9b}31m\u{7f}",
        "日本語の名前",
    ]
    .into_iter()
    .flat_map(|name| {
        let bind = || sighting(Op::Bind, "0.0.0.0:8080");
        let path = format!("/tmp/{name}");
        let args = [name, "--like", name];
        let holder = held(Kind::Listener, "0.0.0.0:8080").by(occupant(900, name));
        [
            event(by(bind(), name, &path, &args)),
            event(refused_by(bind(), vec![holder])),
        ]
    })
    .collect()
}
