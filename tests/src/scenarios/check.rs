//! `portwatch check` and `check-range`: what they answer, and that bind() does what they said.

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use serde_json::Value;

use super::{Session, sessions};
use crate::{
    bench::{self, Bench},
    contract,
    expect::lookup,
    sys::{
        netns::{Netns, sysctl},
        sock::{Kind, Sock, TCP_CLOSE},
    },
    tracer,
};

pub(super) const ALL: &[Session] = sessions![
    check_is_what_bind_does: each_kernel,
    check_before_other_sockets: each_kernel,
    check_what_cannot_be_seen: each_kernel,
    check_any_port: each_kernel,
    check_in_another_namespace: each_kernel,
    check_wrong_usage: each_kernel,
    check_range_overlaps: each_kernel,
];

const PORT: u16 = 18_080;
const LO: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// In a network namespace of its own, whatever comes of it.
fn in_new_namespace<T>(act: impl FnOnce(&Netns) -> Result<T>) -> Result<T> {
    let home = Netns::current()?;
    let netns = Netns::new()?;
    netns.enter()?;
    let done = act(&netns);
    home.enter()?;
    done
}

fn tcp(address: IpAddr, port: u16) -> Result<Sock> {
    let sock = Sock::new(if address.is_ipv4() {
        Kind::Tcp4
    } else {
        Kind::Tcp6
    })?;
    sock.bind(&(address, port).into())?;
    Ok(sock)
}

fn listener(address: IpAddr) -> Result<Sock> {
    let sock = tcp(address, PORT)?;
    sock.listen(8)?;
    Ok(sock)
}

/// `portwatch VERB ARGS -o json` in the namespace that this thread is in.
fn asked(bench: &Bench, args: &[&str]) -> Result<(i32, Option<Value>, String)> {
    let mut all: Vec<OsString> = args.iter().map(OsString::from).collect();
    all.extend(["-o".into(), "json".into()]);
    let output = Command::new(&bench.portwatch)
        .args(all)
        .stdin(Stdio::null())
        .output()?;
    told(&output, args)
}

fn told(output: &Output, args: &[&str]) -> Result<(i32, Option<Value>, String)> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let notes = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut lines = text.lines();
    let record = args.first().map(|verb| verb.replace('-', "_"));
    let line = match lines.next() {
        None => None,
        Some(line) => match contract::answer(line, record.as_deref().unwrap_or_default()) {
            Ok(line) => Some(line),
            Err(wrong) => bail!("{}: {line}", wrong.join("; ")),
        },
    };
    ensure!(lines.next().is_none(), "more than a line: {text}");
    Ok((tracer::code(output.status), line, notes))
}

/// What is to be told: exit status, and text by path.
fn expect(bench: &Bench, args: &[&str], code: i32, paths: &[(&str, &str)]) -> Result<Value> {
    let (status, line, notes) = asked(bench, args)?;
    let shown = || format!("{args:?}: {line:?} {notes}");
    ensure!(status == code, "{status} instead of {code}: {}", shown());
    let found = line.as_ref().with_context(shown)?;
    for (path, value) in paths {
        let text = lookup(found, path).and_then(Value::as_str);
        ensure!(
            text == Some(value),
            "{path} is {text:?}, not {value}: {}",
            shown()
        );
    }
    Ok(found.clone())
}

/// The same of `check`, for a socket with these options; then bind() has to do it.
fn agrees(bench: &Bench, local: &str, options: &[&str], paths: &[(&str, &str)]) -> Result<Value> {
    let refused = paths.iter().any(|(path, _)| path.starts_with("error."));
    let mut args = vec!["check", local];
    args.extend(options);
    let line = expect(bench, &args, i32::from(refused), paths)?;
    let outcome = lookup(&line, "check.outcome").and_then(Value::as_str);
    let expected = if refused { "failure" } else { "success" };
    ensure!(outcome == Some(expected), "{args:?}: {outcome:?}");
    let address: SocketAddr = local.trim_start_matches("udp/").parse()?;
    let kind = match (local.starts_with("udp/"), address.is_ipv4()) {
        (false, true) => Kind::Tcp4,
        (false, false) => Kind::Tcp6,
        (true, true) => Kind::Udp4,
        (true, false) => Kind::Udp6,
    };
    let mut sock = Sock::new(kind)?;
    for option in options {
        sock = match *option {
            "--reuseaddr" => sock.reuseaddr()?,
            "--reuseport" => sock.reuseport()?,
            "--v6only" => sock.v6only()?,
            other => bail!("no option {other}"),
        };
    }
    let done = sock.bind(&(address.ip(), address.port()).into());
    ensure!(
        done.is_err() == refused,
        "check says {expected}, bind() {done:?}: {args:?}"
    );
    Ok(line)
}

fn check_is_what_bind_does(bench: &Bench) -> Result<()> {
    in_new_namespace(|_| {
        let here = format!("127.0.0.1:{PORT}");
        let all = format!("0.0.0.0:{PORT}");
        let dual = format!("[::]:{PORT}");
        let in_use = ("error.type", "EADDRINUSE");
        agrees(bench, &here, &[], &[])?;
        let own = std::process::id();
        {
            let _listener = listener(LO)?;
            let line = agrees(
                bench,
                &here,
                &[],
                &[
                    in_use,
                    ("conflict.kind", "listener"),
                    ("conflict.overlap", "exact"),
                    ("conflict.reason", "no_reuse"),
                ],
            )?;
            let pid = lookup(&line, "conflict.holders").and_then(|holders| {
                let first = holders.as_array()?.first()?;
                lookup(first, "process.pid")?.as_u64()
            });
            ensure!(pid == Some(own.into()), "pid {pid:?}, not {own}");
            agrees(
                bench,
                &all,
                &["--reuseaddr"],
                &[
                    in_use,
                    ("conflict.overlap", "wildcard"),
                    ("conflict.reason", "reuse_listening"),
                ],
            )?;
            agrees(
                bench,
                &dual,
                &[],
                &[in_use, ("conflict.overlap", "dual_stack")],
            )?;
            agrees(bench, &dual, &["--v6only"], &[])?;
            agrees(
                bench,
                &all,
                &["--reuseport"],
                &[in_use, ("conflict.reason", "reuseport_missing_holder")],
            )?;
            agrees(bench, &format!("127.0.0.2:{PORT}"), &[], &[])?;
            agrees(bench, &format!("udp/{here}"), &[], &[])?;
        }
        {
            // No table of kernels before 6.8 shows it.
            let _bound = tcp(LO, PORT)?;
            agrees(bench, &all, &[], &[in_use, ("conflict.kind", "bound")])?;
        }
        {
            let bound = Sock::new(Kind::Tcp4)?.reuseaddr()?;
            bound.bind(&(LO, PORT).into())?;
            let line = agrees(bench, &here, &["--reuseaddr"], &[])?;
            let rivals = lookup(&line, "rivals").and_then(Value::as_array);
            ensure!(rivals.is_some_and(|all| all.len() == 1), "{line}");
            agrees(
                bench,
                &here,
                &[],
                &[in_use, ("conflict.reason", "reuse_missing_self")],
            )?;
        }
        let shared = Sock::new(Kind::Udp4)?.reuseport()?;
        shared.bind(&(ANY, PORT).into())?;
        agrees(bench, &format!("udp/{here}"), &["--reuseport"], &[])?;
        agrees(
            bench,
            &format!("udp/{here}"),
            &["--reuseaddr"],
            &[in_use, ("conflict.reason", "reuse_mismatch")],
        )?;
        Ok(())
    })
}

fn check_before_other_sockets(bench: &Bench) -> Result<()> {
    in_new_namespace(|_| {
        agrees(
            bench,
            "192.0.2.1:18080",
            &[],
            &[
                ("error.type", "EADDRNOTAVAIL"),
                ("conflict.kind", "not_local"),
            ],
        )?;
        agrees(
            bench,
            "[2001:db8::1]:18080",
            &[],
            &[
                ("error.type", "EADDRNOTAVAIL"),
                ("conflict.kind", "not_local"),
            ],
        )?;
        agrees(
            bench,
            "[fe80::1]:18080",
            &[],
            &[("error.type", "EINVAL"), ("conflict.kind", "unknown")],
        )?;
        // The whole net is local.
        agrees(bench, "127.9.8.7:18080", &[], &[])?;
        agrees(bench, "[::1]:18080", &[], &[])?;
        agrees(bench, "127.0.0.1:81", &[], &[])?;
        let nobody = ["check", "127.0.0.1:81", "--uid", "65534"];
        expect(
            bench,
            &nobody,
            1,
            &[("error.type", "EACCES"), ("conflict.kind", "privileged")],
        )?;
        sysctl("ipv4/ip_unprivileged_port_start", "80")?;
        expect(bench, &nobody, 0, &[])?;
        sysctl("ipv4/ip_nonlocal_bind", "1")?;
        agrees(bench, "192.0.2.1:18080", &[], &[])?;
        Ok(())
    })
}

/// A connection to a listener that is gone; this side closed it first.
fn time_wait() -> Result<()> {
    let listening = Sock::new(Kind::Tcp4)?.reuseaddr()?;
    listening.bind(&(LO, PORT).into())?;
    listening.listen(1)?;
    let client = Sock::new(Kind::Tcp4)?;
    client.connect(&(LO, PORT).into())?;
    let accepted = listening.accept()?;
    accepted.shutdown_write()?;
    client.shutdown_write()?;
    bench::until("TIME_WAIT", || Ok(accepted.tcp_state()? == TCP_CLOSE))
}

fn check_what_cannot_be_seen(bench: &Bench) -> Result<()> {
    in_new_namespace(|netns| {
        time_wait()?;
        let here = format!("127.0.0.1:{PORT}");
        agrees(
            bench,
            &here,
            &[],
            &[("error.type", "EADDRINUSE"), ("conflict.kind", "time_wait")],
        )?;
        // Whether the old socket had it as well, nobody can tell any more.
        let unknown = [
            ("check.outcome", "unknown"),
            ("check.doubt", "options"),
            ("conflict.kind", "unknown"),
        ];
        expect(bench, &["check", &here, "--reuseaddr"], 3, &unknown)?;
        // Another user's socket: its options are not for everybody, but without any of one's own it does
        // not depend on them.
        let other = Ipv4Addr::new(127, 0, 0, 9);
        let _listener = listener(other.into())?;
        let portwatch = bench.for_everybody(&bench.portwatch, "portwatch-check")?;
        let own = bench.for_everybody(&Bench::own_program()?, "tests-check")?;
        let place = format!("{other}:{PORT}");
        let sharing = &["--reuseport", "--uid", "0"][..];
        // SO_REUSEPORT shares among sockets of one user only, whatever the other one has set.
        let of_nobody = &["--reuseport"][..];
        for (options, code, outcome) in [
            (&[][..], 1, "failure"),
            (of_nobody, 1, "failure"),
            (sharing, 3, "unknown"),
        ] {
            let args = [&["check", place.as_str()], options].concat();
            let mut command = Command::new(&own);
            command
                .args(["helper", "as-nobody"])
                .arg(&portwatch)
                .args(&args)
                .args(["-o", "json"])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let output = bench::ended(bench::spawn_in(netns, &mut command)?)?;
            let (status, line, notes) = told(&output, &args)?;
            let found = line.as_ref().and_then(|line| lookup(line, "check.outcome"));
            ensure!(
                status == code && found.and_then(Value::as_str) == Some(outcome),
                "{args:?}: {status} {line:?} {notes}"
            );
        }
        Ok(())
    })
}

fn check_any_port(bench: &Bench) -> Result<()> {
    in_new_namespace(|_| {
        agrees(bench, "127.0.0.1:0", &[], &[])?;
        agrees(bench, "udp/127.0.0.1:0", &[], &[])?;
        sysctl("ipv4/ip_local_port_range", "40000 40002")?;
        // Of three ports bind() gets two (`inet_csk_find_open_port`).
        let _one = tcp(LO, 40_000)?;
        agrees(bench, "0.0.0.0:0", &[], &[])?;
        let _other = tcp(LO, 40_001)?;
        let exhausted = [("error.type", "EADDRINUSE"), ("conflict.kind", "exhausted")];
        agrees(bench, "0.0.0.0:0", &[], &exhausted)?;
        agrees(bench, "127.0.0.2:0", &[], &[])?;
        agrees(bench, "udp/0.0.0.0:0", &[], &[])?;
        Ok(())
    })?;
    in_new_namespace(|_| {
        // Of five it tries the three in the middle, and either the first or the last.
        sysctl("ipv4/ip_local_port_range", "40000 40004")?;
        let middle = [40_001, 40_002, 40_003].map(|port| tcp(LO, port));
        let _middle = middle.into_iter().collect::<Result<Vec<_>>>()?;
        for _ in 0..8 {
            agrees(bench, "127.0.0.1:0", &[], &[])?;
        }
        let first = tcp(LO, 40_000)?;
        let by_chance = [("check.doubt", "chance")];
        expect(bench, &["check", "127.0.0.1:0"], 3, &by_chance)?;
        let _last = tcp(LO, 40_004)?;
        drop(first);
        expect(bench, &["check", "127.0.0.1:0"], 3, &by_chance)?;
        Ok(())
    })?;
    in_new_namespace(|_| {
        sysctl("ipv4/ip_local_port_range", "40000 40003")?;
        let taken = (40_000..=40_003).map(|port| -> Result<Sock> {
            let sock = Sock::new(Kind::Tcp4)?.reuseaddr()?;
            sock.bind(&(LO, port).into())?;
            Ok(sock)
        });
        let _taken = taken.collect::<Result<Vec<_>>>()?;
        agrees(
            bench,
            "127.0.0.1:0",
            &["--reuseaddr"],
            &[("error.type", "EADDRINUSE")],
        )?;
        sysctl("ipv4/ip_autobind_reuse", "1")?;
        agrees(bench, "127.0.0.1:0", &["--reuseaddr"], &[])?;
        agrees(bench, "127.0.0.1:0", &[], &[("error.type", "EADDRINUSE")])?;
        Ok(())
    })
}

fn check_in_another_namespace(bench: &Bench) -> Result<()> {
    let netns = Netns::new()?;
    let home = Netns::current()?;
    netns.enter()?;
    let made = listener(LO);
    home.enter()?;
    let _listener = made?;
    // Kept open by the descriptor of this process.
    let path = format!("/proc/{}/fd/{}", std::process::id(), netns.fd());
    let here = format!("127.0.0.1:{PORT}");
    let refused = [("error.type", "EADDRINUSE"), ("conflict.kind", "listener")];
    // Not in the machine's own, where somebody may have that port.
    in_new_namespace(|_| {
        let line = expect(bench, &["check", &here, "-N", &path], 1, &refused)?;
        let inode = lookup(&line, "socket.netns").and_then(Value::as_u64);
        ensure!(inode == Some(netns.inode), "{line}");
        expect(bench, &["check", &here], 0, &[])?;
        Ok(())
    })
}

fn check_wrong_usage(bench: &Bench) -> Result<()> {
    for args in [
        &["check", "127.0.0.1:80", "--device", "no-such-device"][..],
        &["check", "sctp/80"],
        &["check", "127.0.0.1:80", "--v6only"],
        &["check", "127.0.0.1:80", "-N", "no-such-namespace"],
        &["check", "127.0.0.1:80", "--uid", "no-such-user"],
        &["check", "example.org:80"],
        &["check-range", "80-70"],
    ] {
        let (status, line, notes) = asked(bench, args)?;
        ensure!(
            status == 2 && line.is_none() && !notes.is_empty(),
            "{args:?}: {status} {line:?} {notes}"
        );
    }
    Ok(())
}

fn check_range_overlaps(bench: &Bench) -> Result<()> {
    in_new_namespace(|_| {
        sysctl("ipv4/ip_local_port_range", "32768 60999")?;
        sysctl("ipv4/ip_local_reserved_ports", "8080,33000-33009")?;
        let clear = ["check-range", "30000-32767"];
        expect(bench, &clear, 0, &[])?;
        let remedy = [("sysctl.value", "8080,30000-33009")];
        expect(bench, &["check-range", "30000-33005"], 1, &remedy)?;
        // What the remedy says is what the kernel takes, and then there is nothing more to say.
        sysctl("ipv4/ip_local_reserved_ports", "8080,30000-33009")?;
        expect(bench, &["check-range", "30000-33005"], 0, &[])?;
        let _squatter = tcp(LO, 32_000)?;
        let line = expect(bench, &clear, 1, &[])?;
        let sockets = lookup(&line, "sockets").and_then(Value::as_array);
        let pid = sockets
            .and_then(|all| lookup(all.first()?, "process.pid"))
            .and_then(Value::as_u64);
        ensure!(pid == Some(std::process::id().into()), "{line}");
        match tcp(ANY, 32_000) {
            Err(error) if error.downcast_ref() == Some(&Errno::EADDRINUSE) => Ok(()),
            other => bail!("the squatter is none: {:?}", other.map(drop)),
        }
    })
}
