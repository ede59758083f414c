//! `portwatch who`: every socket on a port, with everybody who has it, and nothing else.

use std::{
    ffi::OsString,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Session, sessions};
use crate::{
    bench::{self, Bench},
    contract,
    expect::lookup,
    sys::{
        netns::Netns,
        proc,
        sock::{Kind, Sock},
        task::Background,
    },
    tracer,
};

pub(super) const ALL: &[Session] = sessions![
    who_has_it,
    who_has_it_without_iterator,
    who_is_hidden,
    who_is_nobody,
];

const PORT: u16 = 7_443;
const LO: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Transport, state, local address, processes.
type Row = (String, String, String, Vec<u64>);

fn row(transport: &str, state: &str, address: Ipv4Addr, pids: &[u32]) -> Row {
    let mut pids: Vec<u64> = pids.iter().copied().map(u64::from).collect();
    pids.sort_unstable();
    (transport.into(), state.into(), address.to_string(), pids)
}

/// Sockets of all sorts on [`PORT`], in a network namespace of their own.
struct Scene {
    netns: Netns,
    sharer: Background,
    kept: Vec<Sock>,
}

impl Scene {
    fn set() -> Result<Self> {
        let home = Netns::current()?;
        let netns = Netns::new()?;
        netns.enter()?;
        let made = Self::sockets();
        home.enter()?;
        let (sharer, kept) = made?;
        Ok(Self {
            netns,
            sharer,
            kept,
        })
    }

    fn sockets() -> Result<(Background, Vec<Sock>)> {
        let bound = |kind, ip: Ipv4Addr| -> Result<Sock> {
            let sock = Sock::new(kind)?;
            sock.bind(&(ip, PORT).into())?;
            Ok(sock)
        };
        let listener = bound(Kind::Tcp4, LO)?;
        listener.listen(8)?;
        // Has the listener too, and nothing that comes after it.
        let sharer = Background::spawn(|| {
            loop {
                std::thread::park();
            }
        })?;
        let connect = || -> Result<(Sock, Sock)> {
            let client = Sock::new(Kind::Tcp4)?;
            client.connect(&(LO, PORT).into())?;
            Ok((client, listener.accept()?))
        };
        let (client, accepted) = connect()?;
        // Whoever closes first keeps the connection in TIME_WAIT.
        let (second, ended) = connect()?;
        drop(ended);
        drop(second);
        let kept = vec![
            bound(Kind::Udp4, LO)?,
            bound(Kind::Tcp4, Ipv4Addr::new(127, 0, 0, 2))?,
            listener,
            client,
            accepted,
        ];
        // On another port: nobody asks for it.
        let other = Sock::new(Kind::Tcp4)?;
        other.bind(&(LO, PORT + 1).into())?;
        Ok((sharer, kept.into_iter().chain([other]).collect()))
    }

    /// All that is on the port. `bound`: sockets that are bound and do not listen are seen.
    fn rows(&self, bound: bool) -> Vec<Row> {
        let own = std::process::id();
        let mut rows = vec![
            row("tcp", "listen", LO, &[own, self.sharer.pid()]),
            row("tcp", "established", LO, &[own]),
            row("tcp", "time_wait", LO, &[]),
            row("udp", "closed", LO, &[own]),
        ];
        if bound {
            rows.push(row("tcp", "closed", Ipv4Addr::new(127, 0, 0, 2), &[own]));
        }
        rows.sort();
        rows
    }
}

fn run(program: &Path, args: Vec<OsString>) -> Result<Output> {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", program.display()))
}

/// `portwatch who ARGS`, as it is or behind a helper.
fn who(bench: &Bench, helper: &[&str], args: &[&str]) -> Result<Output> {
    let mut all: Vec<OsString> = helper.iter().map(OsString::from).collect();
    let program: PathBuf = if helper.is_empty() {
        bench.portwatch.clone()
    } else {
        all.push(bench.portwatch.clone().into());
        Bench::own_program()?
    };
    all.push("who".into());
    all.extend(args.iter().map(OsString::from));
    run(&program, all)
}

fn lines(output: &Output) -> Result<Vec<Value>> {
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().zip(1..);
    lines
        .map(|(text, seq)| match contract::record(text, seq) {
            Ok(line) => Ok(line),
            Err(wrong) => bail!("{}: {text}", wrong.join("; ")),
        })
        .collect()
}

/// The rows of a namespace.
fn rows(lines: &[Value], netns: u64) -> Vec<Row> {
    let mut rows: Vec<Row> = lines
        .iter()
        .filter(|line| lookup(line, "socket.netns") == Some(&netns.into()))
        .map(|line| {
            let text = |path| {
                let text = lookup(line, path).and_then(Value::as_str);
                text.unwrap_or_default().to_owned()
            };
            let processes = lookup(line, "processes").and_then(Value::as_array);
            let mut pids: Vec<u64> = processes
                .into_iter()
                .flatten()
                .filter_map(|process| process.get("pid").and_then(Value::as_u64))
                .collect();
            pids.sort_unstable();
            (
                text("network.transport"),
                text("network.connection.state"),
                text("network.local.address"),
                pids,
            )
        })
        .collect();
    rows.sort();
    rows
}

fn exits(output: &Output, code: i32) -> Result<()> {
    ensure!(
        tracer::code(output.status) == code,
        "{} instead of {code}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn has_it(bench: &Bench, helper: &[&str], bound: bool) -> Result<()> {
    let scene = Scene::set()?;
    let port = PORT.to_string();
    let output = who(bench, helper, &[&port, "-o", "json"])?;
    exits(&output, 0)?;
    let found = rows(&lines(&output)?, scene.netns.inode);
    let expected = scene.rows(bound);
    ensure!(found == expected, "{found:?} instead of {expected:?}");
    let own = std::process::id();
    let both = [own, scene.sharer.pid()];
    let text = who(bench, helper, &[&port])?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for pid in both {
        ensure!(text.contains(&pid.to_string()), "{pid} is not in {text}");
    }
    let narrow = format!("tcp/{LO}:{PORT}");
    let pids = who(bench, helper, &[&narrow, "--pids"])?;
    let mut expected = both;
    expected.sort_unstable();
    let expected = expected.map(|pid| format!("{pid}\n")).concat();
    let pids = String::from_utf8_lossy(&pids.stdout).into_owned();
    ensure!(pids == expected, "{pids:?} instead of {expected:?}");
    let first = who(bench, helper, &[&narrow, "--pids", "--first"])?;
    let first = String::from_utf8_lossy(&first.stdout).into_owned();
    ensure!(first.lines().count() == 1, "{first:?}");
    drop(scene.kept);
    Ok(())
}

fn who_has_it(bench: &Bench) -> Result<()> {
    has_it(bench, &[], sees_bound(bench)?)
}

/// The iterator sees sockets that are bound and do not listen, sock_diag does since 6.8 or so.
fn sees_bound(bench: &Bench) -> Result<bool> {
    Ok(is_new()? || iterates(bench)?)
}

fn is_new() -> Result<bool> {
    let release = proc::kernel_release()?;
    Ok(proc::version_of(&release).context("no version")? >= (6, 8))
}

/// Whether the iterator is used here: asked of `who` itself, with a socket that only it can see.
fn iterates(bench: &Bench) -> Result<bool> {
    let output = who(bench, &[], &["1", "-v"])?;
    Ok(!String::from_utf8_lossy(&output.stderr).contains("may be missing"))
}

fn who_has_it_without_iterator(bench: &Bench) -> Result<()> {
    has_it(bench, &["helper", "without-iterator"], is_new()?)
}

/// Somebody who is not root sees sockets in his own network namespace, and is told that others have
/// them.
fn who_is_hidden(bench: &Bench) -> Result<()> {
    let scene = Scene::set()?;
    let portwatch = bench.for_everybody(&bench.portwatch, "portwatch-who")?;
    let own = bench.for_everybody(&Bench::own_program()?, "tests-who")?;
    let mut command = Command::new(own);
    command
        .args(["helper", "as-nobody"])
        .arg(portwatch)
        .args(["who", &PORT.to_string(), "-o", "json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = bench::ended(bench::spawn_in(&scene.netns, &mut command)?)?;
    exits(&output, 0)?;
    let lines = lines(&output)?;
    let expected: Vec<Row> = scene
        .rows(is_new()?)
        .into_iter()
        .map(|(transport, state, address, _)| (transport, state, address, Vec::new()))
        .collect();
    let found = rows(&lines, scene.netns.inode);
    ensure!(found == expected, "{found:?} instead of {expected:?}");
    let hidden = expected.len() - 1;
    let told = lines.iter().filter(|line| {
        let missing = lookup(line, "missing").and_then(Value::as_array);
        missing.is_some_and(|paths| paths.contains(&"process".into()))
    });
    ensure!(told.count() == hidden, "what is missing: {lines:?}");
    let notes = String::from_utf8_lossy(&output.stderr);
    let note = format!("the owners of {hidden} of these sockets are hidden");
    ensure!(notes.contains(&note), "{notes} instead of {note}");
    Ok(())
}

/// A port that nobody has, names, and what is no port.
fn who_is_nobody(bench: &Bench) -> Result<()> {
    // Below the range that ports are taken from, and of no service.
    for args in [&["4"][..], &["udp/4"], &["127.0.0.1:4", "--pids"]] {
        let output = who(bench, &[], args)?;
        exits(&output, 1)?;
        ensure!(output.stdout.is_empty(), "{args:?}: {:?}", output.stdout);
    }
    let bare = run(&bench.portwatch, vec!["4".into()])?;
    exits(&bare, 1)?;
    for wrong in ["no-such-service", "70000", "icmp/1", "::1:80"] {
        let output = who(bench, &[], &[wrong])?;
        exits(&output, 2)?;
        ensure!(output.stdout.is_empty(), "{wrong}: {:?}", output.stdout);
    }
    Ok(())
}
