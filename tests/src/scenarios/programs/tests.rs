//! The calls of real programs, as strace has written them.

use serde_json::{Value, json};

use super::truth;
use crate::{
    degraded::Backend,
    expect::{Expect, lookup},
    strace,
};

fn of(log: &str, backend: Backend) -> Vec<Expect> {
    truth::of(&strace::calls(log).expect("strace writes this"), backend)
}

/// An event of thread 7, with what else is to be said of it.
fn event(
    name: &str,
    error: Option<&str>,
    inode: u64,
    kind: (&str, &str),
    local: (&str, u16),
    peer: (&str, u16),
) -> Value {
    let mut line = json!({
        "event": {"name": name, "outcome": if error.is_some() { "failure" } else { "success" }},
        "network": {"transport": kind.0, "type": kind.1},
        "process": {"pid": 7}, "thread": {"id": 7},
        "socket": {"inode": inode, "auto_port": name == "connect" || name == "autobind"},
    });
    if let Some(error) = error {
        line["error"] = json!({"type": error});
    }
    for (end, (address, port)) in [("local", local), ("peer", peer)] {
        if !address.is_empty() {
            let class = if port < 1024 {
                "well_known"
            } else {
                "registered"
            };
            line["network"][end] = json!({"address": address, "port": port, "port_class": class});
        }
    }
    line
}

const NONE: (&str, u16) = ("", 0);
const TCP4: (&str, &str) = ("tcp", "ipv4");

fn only(events: &[Expect]) -> &Expect {
    assert_eq!(events.len(), 1, "{events:?}");
    &events[0]
}

/// hiredis calls connect() again to hear what became of it.
#[test]
fn a_connect_that_is_asked_about_is_one_event() {
    let log = r#"
7 1796067999.0 socket(AF_INET, SOCK_STREAM, IPPROTO_TCP) = 3<socket:[119274]>
7 1796067999.1 connect(3<socket:[119274]>, {sa_family=AF_INET, sin_port=htons(6379), sin_addr=inet_addr("127.0.0.1")}, 16) = -1 EINPROGRESS (Operation now in progress)
7 1796067999.2 connect(3<socket:[119274]>, {sa_family=AF_INET, sin_port=htons(6379), sin_addr=inet_addr("127.0.0.1")}, 16) = 0
"#;
    let events = of(log.trim_start(), Backend::Tracing);
    let told = event(
        "connect",
        None,
        119_274,
        TCP4,
        ("127.0.0.1", 40000),
        ("127.0.0.1", 6379),
    );
    assert_eq!(only(&events).differences(&told), Vec::<String>::new());
}

#[test]
fn so_error_says_how_a_connect_ended() {
    let log = r#"
7 1.0 socket(AF_INET, SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 4<socket:[12]>
7 1.1 connect(4<socket:[12]>, {sa_family=AF_INET, sin_port=htons(9), sin_addr=inet_addr("127.0.0.1")}, 16) = -1 EINPROGRESS (Operation now in progress)
7 1.2 getsockopt(4<socket:[12]>, SOL_SOCKET, SO_ERROR, [ECONNREFUSED], [4]) = 0
"#;
    let events = of(log.trim_start(), Backend::Tracing);
    let told = |error| event("connect", error, 12, TCP4, NONE, ("127.0.0.1", 9));
    assert_eq!(
        only(&events).differences(&told(Some("ECONNREFUSED"))),
        Vec::<String>::new()
    );
    assert!(
        !only(&events)
            .differences(&told(Some("ETIMEDOUT")))
            .is_empty()
    );
    assert!(!only(&events).differences(&told(None)).is_empty());
}

/// So does getaddrinfo() find the order of a host's addresses.
#[test]
fn a_probe_of_both_families_is_two_events_of_one_socket() {
    let log = r#"
7 1796068005.71 socket(AF_INET6, SOCK_DGRAM|SOCK_CLOEXEC, IPPROTO_IP) = 3<socket:[120203]>
7 1796068005.72 connect(3<socket:[120203]>, {sa_family=AF_INET6, sin6_port=htons(8000), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "::", &sin6_addr), sin6_scope_id=0}, 28) = 0
7 1796068005.73 connect(3<socket:[120203]>, {sa_family=AF_UNSPEC, sa_data="\0\0\0\0\0\0\0\0\0\0\0\0\0\0"}, 16) = 0
7 1796068005.74 connect(3<socket:[120203]>, {sa_family=AF_INET, sin_port=htons(8000), sin_addr=inet_addr("0.0.0.0")}, 16) = 0
"#;
    let events = of(log.trim_start(), Backend::Tracing);
    assert_eq!(events.len(), 2);
    for (want, local) in events.iter().zip(["::1", "::ffff:127.0.0.1"]) {
        let told = event(
            "connect",
            None,
            120_203,
            ("udp", "ipv6"),
            (local, 40000),
            (local, 8000),
        );
        assert_eq!(want.differences(&told), Vec::<String>::new());
    }
}

#[test]
fn only_the_first_datagram_takes_a_port() {
    let log = r#"
7 1.0 socket(AF_INET, SOCK_DGRAM|SOCK_CLOEXEC, IPPROTO_IP) = 4<socket:[120300]>
7 1.1 sendto(4<socket:[120300]>, ""..., 1, 0, {sa_family=AF_INET, sin_port=htons(8003), sin_addr=inet_addr("127.0.0.1")}, 16) = 1
7 1.2 sendto(4<socket:[120300]>, ""..., 1, 0, {sa_family=AF_INET, sin_port=htons(8003), sin_addr=inet_addr("127.0.0.1")}, 16) = 1
7 1.3 socket(AF_INET, SOCK_DGRAM|SOCK_CLOEXEC, IPPROTO_IP) = 5<socket:[120301]>
7 1.4 bind(5<socket:[120301]>, {sa_family=AF_INET, sin_port=htons(8003), sin_addr=inet_addr("127.0.0.1")}, 16) = 0
7 1.5 sendto(5<socket:[120301]>, ""..., 1, 0, {sa_family=AF_INET, sin_port=htons(8003), sin_addr=inet_addr("127.0.0.1")}, 16) = 1
"#;
    for (backend, needed) in [(Backend::Tracing, true), (Backend::RawTp, false)] {
        let events = of(log.trim_start(), backend);
        let [autobind, bind] = events.as_slice() else {
            panic!("{events:?}");
        };
        let told = event(
            "autobind",
            None,
            120_300,
            ("udp", "ipv4"),
            ("0.0.0.0", 40000),
            NONE,
        );
        assert_eq!(autobind.differences(&told), Vec::<String>::new());
        assert_eq!((autobind.is_needed(), bind.is_needed()), (needed, true));
    }
}

#[test]
fn others_sockets_and_what_was_not_there_are_no_events() {
    let log = r#"
7 1.0 socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0) = 4<socket:[1]>
7 1.1 connect(4<socket:[1]>, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = -1 ENOENT (No such file or directory)
7 1.2 socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP) = 5<socket:[2]>
7 1.3 connect(5<socket:[2]>, {sa_family=AF_INET, sin_port=htons(0), sin_addr=inet_addr("127.0.0.1")}, 16) = 0
7 1.4 socket(AF_INET, SOCK_STREAM, IPPROTO_IP) = 6<socket:[3]>
7 1.5 accept4(6<socket:[3]>, 0x7ffe, [112], SOCK_NONBLOCK) = -1 EAGAIN (Resource temporarily unavailable)
"#;
    assert_eq!(of(log.trim_start(), Backend::Tracing), []);
}

#[test]
fn a_port_that_connect_is_to_choose_is_none_of_binds() {
    let log = r#"
7 1.0 socket(AF_INET, SOCK_STREAM, IPPROTO_TCP) = 4<socket:[5]>
7 1.1 setsockopt(4<socket:[5]>, SOL_IP, IP_BIND_ADDRESS_NO_PORT, [1], 4) = 0
7 1.2 bind(4<socket:[5]>, {sa_family=AF_INET, sin_port=htons(0), sin_addr=inet_addr("127.0.0.3")}, 16) = 0
"#;
    let events = of(log.trim_start(), Backend::Tracing);
    let mut told = event("bind", None, 5, TCP4, ("127.0.0.3", 40000), NONE);
    assert!(!only(&events).differences(&told).is_empty());
    told["network"]["local"] = json!({"address": "127.0.0.3"});
    assert_eq!(only(&events).differences(&told), Vec::<String>::new());
    assert_eq!(lookup(&told, "network.local.port"), None);
}

/// What a worker accepts is its own, whoever listens.
#[test]
fn an_accept_belongs_to_the_thread_that_made_it() {
    let log = r#"
6 1.0 socket(AF_INET, SOCK_STREAM, IPPROTO_IP) = 3<socket:[20]>
6 1.1 clone3({flags=CLONE_VM|CLONE_THREAD, exit_signal=0} => {parent_tid=[8]}, 88) = 8
6 1.2 clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x7f) = 7
7 1.3 accept4(3<socket:[20]>, {sa_family=AF_INET, sin_port=htons(4000), sin_addr=inet_addr("127.0.0.1")}, [112 => 16], SOCK_NONBLOCK) = 9<socket:[21]>
8 1.4 accept4(3<socket:[20]>, NULL, NULL, 0) = 10<socket:[22]>
"#;
    let events = of(log.trim_start(), Backend::Tracing);
    let [first, second] = events.as_slice() else {
        panic!("{events:?}");
    };
    let told = event(
        "accept",
        None,
        21,
        TCP4,
        ("127.0.0.1", 80),
        ("127.0.0.1", 4000),
    );
    assert_eq!(first.differences(&told), Vec::<String>::new());
    assert_eq!(
        (second.number("thread.id"), second.number("process.pid")),
        (Some(8), Some(6))
    );
}
