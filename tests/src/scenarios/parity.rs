//! What ss, netstat and lsof show of a busy network namespace, `list` and `who` show too: socket by socket,
//! pid by pid.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Session, sessions};
use crate::{
    bench::{self, Bench},
    contract,
    crowd::Crowd,
    expect::lookup,
    script::Skip,
    sys::{
        netns::Netns,
        sock::{Kind, Sock},
        task::Background,
    },
};

pub(super) const ALL: &[Session] = sessions![
    parity_with_ss_and_netstat_of_listeners: each_kernel,
    parity_with_ss_and_netstat_of_udp: each_kernel,
    parity_with_lsof_of_a_port: each_kernel,
];

/// The port that lsof is asked about.
const PORT: u16 = 443;

/// A descriptor of a socket: transport, local end, remote end, process.
type Seen = (String, String, String, Option<u64>);

/// How often each was seen: a process may have two sockets with the same ends.
type Count = BTreeMap<Seen, usize>;

fn parity_with_ss_and_netstat_of_listeners(bench: &Bench) -> Result<()> {
    let scene = Scene::set(bench)?;
    let own = scene.own(&["list", "-tlnp"])?;
    scene.equals(
        &own,
        "ss -tlnpH",
        &ss("tcp", &scene.neighbour("ss", &["-tlnpH"])?)?,
    )?;
    let found = netstat(&scene.neighbour("netstat", &["-tlnp"])?)?;
    scene.shows(&own, "netstat -tlnp", &found)
}

fn parity_with_ss_and_netstat_of_udp(bench: &Bench) -> Result<()> {
    let scene = Scene::set(bench)?;
    let own = scene.own(&["list", "-ulnp"])?;
    scene.equals(
        &own,
        "ss -ulnpH",
        &ss("udp", &scene.neighbour("ss", &["-ulnpH"])?)?,
    )?;
    let both = scene.own(&["list", "-tulnp"])?;
    let found = netstat(&scene.neighbour("netstat", &["-tulnp"])?)?;
    scene.shows(&both, "netstat -tulnp", &found)
}

fn parity_with_lsof_of_a_port(bench: &Bench) -> Result<()> {
    let scene = Scene::set(bench)?;
    let own = scene.own(&["who", ":443"])?;
    // Fields by letter, a line each (lsof(8), "OUTPUT FOR OTHER PROGRAMS").
    let found = scene.neighbour("lsof", &["-nP", "-i", ":443", "-F", "pPn"])?;
    scene.shows(&own, "lsof -i :443", &lsof(&found)?)
}

/// A network namespace with sockets of all sorts.
struct Scene<'a> {
    bench: &'a Bench,
    neighbours: &'a Path,
    netns: Netns,
    _processes: Processes,
    _kept: Vec<Sock>,
}

impl<'a> Scene<'a> {
    fn set(bench: &'a Bench) -> Result<Self> {
        let Some(neighbours) = bench.neighbours.as_deref() else {
            bail!(Skip("ss, netstat and lsof are not here".to_owned()));
        };
        let home = Netns::current()?;
        let netns = Netns::new()?;
        netns.enter()?;
        let made = sockets();
        home.enter()?;
        let (processes, kept) = made?;
        Ok(Self {
            bench,
            neighbours,
            netns,
            _processes: processes,
            _kept: kept,
        })
    }

    /// What a neighbour prints there.
    fn neighbour(&self, name: &str, args: &[&str]) -> Result<String> {
        let mut command = self.program(name)?;
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = bench::spawn_in(&self.netns, &mut command)?.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{name} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Elsewhere than in the root it runs with the loader and the libraries that lie beside it.
    fn program(&self, name: &str) -> Result<Command> {
        let find = |folders: &[&str], name: &str| {
            let mut paths = folders
                .iter()
                .map(|folder| self.neighbours.join(folder).join(name));
            let found = paths.find(|path| path.exists());
            found.with_context(|| format!("no {name} in {}", self.neighbours.display()))
        };
        let program = find(&["usr/bin", "bin"], name)?;
        if self.neighbours == Path::new("/") {
            return Ok(Command::new(program));
        }
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
        let search = libraries.map(|folder| self.neighbours.join(folder).display().to_string());
        let mut command = Command::new(find(&libraries, "ld-linux-x86-64.so.2")?);
        command
            .arg("--library-path")
            .arg(search.join(":"))
            .arg(program);
        Ok(command)
    }

    /// What portwatch shows of the namespace.
    fn own(&self, args: &[&str]) -> Result<Count> {
        let mut command = self.bench.command(args.iter().chain(&["-o", "json"]));
        let output = bench::spawn_in(&self.netns, &mut command)?.wait_with_output()?;
        ensure!(output.status.success(), "{args:?}: {}", output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        let mut count = Count::new();
        for (line, seq) in text.lines().zip(1..) {
            let line = match contract::record(line, seq) {
                Ok(line) => line,
                Err(wrong) => bail!("{}: {line}", wrong.join("; ")),
            };
            if lookup(&line, "socket.netns") == Some(&self.netns.inode.into()) {
                for seen in of_line(&line)? {
                    *count.entry(seen).or_default() += 1;
                }
            }
        }
        Ok(count)
    }

    /// Whether `own` is what ss showed, no more and no less.
    fn equals(&self, own: &Count, neighbour: &str, found: &Count) -> Result<()> {
        self.shows(own, neighbour, found)?;
        let more: Vec<_> = own
            .iter()
            .filter(|(seen, times)| found.get(seen) != Some(times))
            .collect();
        ensure!(more.is_empty(), "not in {neighbour}: {more:?}");
        Ok(())
    }

    /// Whether `own` has all that a neighbour showed, which must be something.
    fn shows(&self, own: &Count, neighbour: &str, found: &Count) -> Result<()> {
        let number: usize = found.values().sum();
        ensure!(number >= 20, "{neighbour} shows next to nothing: {found:?}");
        for (seen, &times) in found {
            let ours = own.get(seen).copied().unwrap_or_default();
            ensure!(
                ours >= times,
                "{neighbour} shows {seen:?} {times} times, we {ours} times: {own:?}"
            );
        }
        Ok(())
    }
}

/// Processes that have sockets, until they are dropped.
type Processes = (Crowd, Vec<Background>);

/// Sockets in the namespace of the calling thread: of other processes, and our own.
fn sockets() -> Result<(Processes, Vec<Sock>)> {
    const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    const LO4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const LO6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let at = |sock: Sock, ip: IpAddr, port: u16| -> Result<Sock> {
        sock.bind(&SocketAddr::new(ip, port).into())?;
        Ok(sock)
    };
    let listening = |sock: Sock, ip: IpAddr, port: u16| -> Result<Sock> {
        let sock = at(sock, ip, port)?;
        sock.listen(64)?;
        Ok(sock)
    };
    let dual = listening(Sock::new(Kind::Tcp6)?, ANY6, PORT)?;
    let mut kept = vec![
        listening(Sock::new(Kind::Tcp4)?, ANY4, 80)?,
        listening(Sock::new(Kind::Tcp6)?.v6only()?, ANY6, 8443)?,
        listening(Sock::new(Kind::Tcp6)?, LO6, 9000)?,
        at(Sock::new(Kind::Udp4)?, ANY4, 53)?,
        at(Sock::new(Kind::Udp6)?, ANY6, 5353)?,
        at(Sock::new(Kind::Udp6)?, LO6, PORT)?,
        at(Sock::new(Kind::Udp4)?, LO4, PORT)?,
    ];
    let on_device = Sock::new(Kind::Tcp4)?;
    on_device.bind_to_device("lo")?;
    kept.push(listening(on_device, LO4, 8091)?);
    // Not on every kernel.
    if let Ok(sock) = Sock::new(Kind::Mptcp4) {
        kept.push(listening(sock, LO4, 8090)?);
    }
    let connected = Sock::new(Kind::Udp4)?;
    connected.connect(&SocketAddr::new(LO4, 53).into())?;
    kept.push(connected);
    for _ in 0..8 {
        let client = Sock::new(Kind::Tcp4)?;
        client.connect(&SocketAddr::new(LO4, PORT).into())?;
        kept.push(dual.accept()?);
        kept.push(client);
    }
    // Nobody has accepted this one.
    let waiting = Sock::new(Kind::Tcp6)?;
    waiting.connect(&SocketAddr::new(LO6, PORT).into())?;
    // And this one has ended.
    let ended = Sock::new(Kind::Tcp4)?;
    ended.connect(&SocketAddr::new(LO4, 80).into())?;
    drop(ended);
    kept.extend([dual, waiting]);
    let idle = || {
        loop {
            std::thread::park();
        }
    };
    // They have all of that too.
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(Background::spawn(idle)?);
    }
    for _ in 0..3 {
        let sock = listening(Sock::new(Kind::Tcp4)?.reuseport()?, ANY4, 7500)?;
        workers.push(Background::spawn(|| {
            let _kept = sock;
            idle();
        })?);
    }
    Ok(((Crowd::gather(10, 20)?, workers), kept))
}

/// One form for all: `*` for any address, an IPv4 address as itself.
fn end(address: &str, port: &str) -> Result<String> {
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    let (bare, _device) = bare.split_once('%').unwrap_or((bare, ""));
    let address = match bare {
        "*" => "*".to_owned(),
        other => {
            let address: IpAddr = other
                .parse()
                .with_context(|| format!("no address: {address:?}"))?;
            if address.to_canonical().is_unspecified() {
                "*".to_owned()
            } else {
                address.to_canonical().to_string()
            }
        }
    };
    Ok(match port {
        "*" | "0" => "*:*".to_owned(),
        port => format!("{address}:{port}"),
    })
}

/// `127.0.0.1:80`, `[::]:80` and netstat's `:::80`.
fn split(text: &str) -> Result<String> {
    let (address, port) = text
        .rsplit_once(':')
        .with_context(|| format!("no port: {text:?}"))?;
    end(address, port)
}

/// A socket of ours, for each of its processes.
fn of_line(line: &Value) -> Result<Vec<Seen>> {
    let text = |path: &str| lookup(line, path).and_then(Value::as_str);
    let of_end = |which: &str| -> Result<String> {
        let address = text(&format!("network.{which}.address"));
        let port = lookup(line, &format!("network.{which}.port")).and_then(Value::as_u64);
        end(
            address.unwrap_or("*"),
            &port.map_or("*".to_owned(), |port| port.to_string()),
        )
    };
    let transport = text("network.transport").context("no transport")?;
    let (local, peer) = (of_end("local")?, of_end("peer")?);
    let processes = lookup(line, "processes").and_then(Value::as_array);
    let pids: Vec<u64> = processes
        .into_iter()
        .flatten()
        .filter_map(|process| process.get("pid").and_then(Value::as_u64))
        .collect();
    let seen = |pid| (transport.to_owned(), local.clone(), peer.clone(), pid);
    if pids.is_empty() {
        return Ok(vec![seen(None)]);
    }
    Ok(pids.into_iter().map(|pid| seen(Some(pid))).collect())
}

/// `LISTEN 0 128 127.0.0.1:80 0.0.0.0:* users:(("nginx",pid=812,fd=6),("nginx",pid=813,fd=6))`
fn ss(transport: &str, text: &str) -> Result<Count> {
    let mut count = Count::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, local, peer, ..] = words[..] else {
            bail!("ss: {line}");
        };
        let (local, peer) = (split(local)?, split(peer)?);
        let pids = line.split("pid=").skip(1).map(|rest| {
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
            digits.and_then(|digits| digits.parse().ok())
        });
        let mut pids: Vec<Option<u64>> = pids.collect();
        if pids.is_empty() {
            pids.push(None);
        }
        for pid in pids {
            let seen = (transport.to_owned(), local.clone(), peer.clone(), pid);
            *count.entry(seen).or_default() += 1;
        }
    }
    Ok(count)
}

/// `tcp 0 0 127.0.0.1:80 0.0.0.0:* LISTEN 812/nginx`; of UDP there is no state.
fn netstat(text: &str) -> Result<Count> {
    let mut count = Count::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [transport, _, _, local, peer, ..] = words[..] else {
            continue;
        };
        let transport = transport.trim_end_matches('6');
        if !matches!(transport, "tcp" | "udp") {
            continue;
        }
        let owner = words.iter().skip(5).find_map(|word| word.split_once('/'));
        let pid = owner.and_then(|(pid, _)| pid.parse().ok());
        let seen = (transport.to_owned(), split(local)?, split(peer)?, pid);
        *count.entry(seen).or_default() += 1;
    }
    Ok(count)
}

/// `p812`, then for each descriptor `f6`, `PTCP`, `n127.0.0.1:443->127.0.0.1:50000`.
fn lsof(text: &str) -> Result<Count> {
    let mut count = Count::new();
    let (mut pid, mut transport) = (None, String::new());
    for line in text.lines() {
        let (field, value) = line.split_at_checked(1).context("an empty line")?;
        match field {
            "p" => pid = Some(value.parse()?),
            "P" => transport = value.to_ascii_lowercase(),
            "n" => {
                let (local, peer) = value.split_once("->").unwrap_or((value, "*:*"));
                let seen = (transport.clone(), split(local)?, split(peer)?, pid);
                *count.entry(seen).or_default() += 1;
            }
            _ => {}
        }
    }
    Ok(count)
}
