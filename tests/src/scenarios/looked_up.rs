//! What is shared by the verbs that look: a scene of sockets, and what they say of it.

use std::{
    ffi::OsString,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

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

pub(super) const PORT: u16 = 7_443;
pub(super) const LO: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Transport, state, local address, processes.
pub(super) type Row = (String, String, String, Vec<u64>);

pub(super) fn row(transport: &str, state: &str, address: Ipv4Addr, pids: &[u32]) -> Row {
    let mut pids: Vec<u64> = pids.iter().copied().map(u64::from).collect();
    pids.sort_unstable();
    (transport.into(), state.into(), address.to_string(), pids)
}

/// Sockets of all sorts on [`PORT`], in a network namespace of their own.
pub(super) struct Scene {
    pub(super) netns: Netns,
    pub(super) sharer: Background,
    _kept: Vec<Sock>,
}

impl Scene {
    pub(super) fn set() -> Result<Self> {
        let home = Netns::current()?;
        let netns = Netns::new()?;
        netns.enter()?;
        let made = Self::sockets();
        home.enter()?;
        let (sharer, kept) = made?;
        Ok(Self {
            netns,
            sharer,
            _kept: kept,
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
    pub(super) fn rows(&self, bound: bool) -> Vec<Row> {
        let own = std::process::id();
        let mut rows = vec![
            row("tcp", "listen", LO, &[own, self.sharer.pid()]),
            // Both ends: one has the port, the other is connected to it.
            row("tcp", "established", LO, &[own]),
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

pub(super) fn run(program: &Path, args: Vec<OsString>) -> Result<Output> {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", program.display()))
}

/// `portwatch ARGS`, as it is or behind a helper.
pub(super) fn portwatch(bench: &Bench, helper: &[&str], args: &[&str]) -> Result<Output> {
    let mut all: Vec<OsString> = helper.iter().map(OsString::from).collect();
    let program: PathBuf = if helper.is_empty() {
        bench.portwatch.clone()
    } else {
        all.push(bench.portwatch.clone().into());
        Bench::own_program()?
    };
    all.extend(args.iter().map(OsString::from));
    run(&program, all)
}

/// The same as somebody who is not root, in a network namespace.
pub(super) fn as_nobody(bench: &Bench, netns: &Netns, args: &[&str]) -> Result<Output> {
    let portwatch = bench.for_everybody(&bench.portwatch, "portwatch-nobody")?;
    let own = bench.for_everybody(&Bench::own_program()?, "tests-nobody")?;
    let mut command = Command::new(own);
    command
        .args(["helper", "as-nobody"])
        .arg(portwatch)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    bench::ended(bench::spawn_in(netns, &mut command)?)
}

pub(super) fn lines(output: &Output) -> Result<Vec<Value>> {
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
pub(super) fn rows(lines: &[Value], netns: u64) -> Vec<Row> {
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

pub(super) fn exits(output: &Output, code: i32) -> Result<()> {
    ensure!(
        tracer::code(output.status) == code,
        "{} instead of {code}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Whether a note says so.
pub(super) fn says(output: &Output, note: &str) -> Result<()> {
    let notes = String::from_utf8_lossy(&output.stderr);
    ensure!(notes.contains(note), "{notes:?} instead of {note:?}");
    Ok(())
}

/// Since 6.8 sock_diag shows sockets that are bound and do not listen to everybody.
pub(super) fn is_new() -> Result<bool> {
    let release = proc::kernel_release()?;
    Ok(proc::version_of(&release).context("no version")? >= (6, 8))
}
