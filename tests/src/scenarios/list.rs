//! `portwatch list`: what occupies ports, with everybody who has it, and nothing else.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Session,
    looked_up::{LO, Row, Scene, as_nobody, exits, lines, portwatch, row, rows, says},
    sessions,
};
use crate::{
    bench::Bench,
    expect::lookup,
    sys::{
        netns::Netns,
        sock::{Kind, Sock},
        task::Background,
    },
};

pub(super) const ALL: &[Session] = sessions![
    list_what_occupies_ports: each_kernel,
    list_what_occupies_ports_without_iterator: each_kernel,
    list_options: each_kernel,
    list_options_without_iterator: each_kernel,
    list_what_is_hidden: each_kernel,
    list_a_group: each_kernel,
    list_nothing: each_kernel,
];

/// All that is to be listed of a scene, beyond what [`Scene::rows`] has: its other socket.
fn all(scene: &Scene) -> Vec<Row> {
    let own = std::process::id();
    let mut rows = scene.rows(true);
    rows.push(row("tcp", "closed", LO, &[own]));
    rows.sort();
    rows
}

/// Which rows are to be listed.
type Wanted<'a> = &'a dyn Fn(&Row) -> bool;

fn occupies(bench: &Bench, helper: &[&str]) -> Result<()> {
    let scene = Scene::set()?;
    let all = all(&scene);
    let netns = scene.netns.inode.to_string();
    let waits = |row: &Row| row.1 == "listen" || row.0 == "udp";
    let cases: [(&[&str], Wanted<'_>); 8] = [
        (&[], &|row| waits(row) || row.1 == "closed"),
        (&["-l"], &waits),
        (&["-tulnp"], &waits),
        (&["-tl"], &|row| waits(row) && row.0 == "tcp"),
        (&["-un"], &|row| row.0 == "udp"),
        (&["-a"], &|_| true),
        (&["-ta", "-4"], &|row| row.0 == "tcp"),
        (&["-a", "-6"], &|_| false),
    ];
    for (args, wanted) in cases {
        let args = [&["list", "-N", &netns, "-o", "json"], args].concat();
        let output = portwatch(bench, helper, &args)?;
        let mut expected = all.clone();
        expected.retain(wanted);
        exits(&output, i32::from(expected.is_empty()))?;
        let lines = lines(&output)?;
        let found = rows(&lines, scene.netns.inode);
        ensure!(
            found == expected,
            "{args:?}: {found:?} instead of {expected:?}"
        );
        ensure!(lines.len() == found.len(), "{args:?}: others: {lines:?}");
        let ports: Vec<_> = lines.iter().map(port).collect();
        ensure!(ports.is_sorted(), "{args:?}: {ports:?}");
    }
    // Without -N too, among those of the machine.
    let output = portwatch(bench, helper, &["list", "-a", "-o", "json"])?;
    let found = rows(&lines(&output)?, scene.netns.inode);
    ensure!(found == all, "{found:?} instead of {all:?}");
    text(bench, helper, &scene)
}

fn port(line: &Value) -> Option<u64> {
    lookup(line, "network.local.port").and_then(Value::as_u64)
}

/// In a pipe, each line has all columns, and each process a line.
fn text(bench: &Bench, helper: &[&str], scene: &Scene) -> Result<()> {
    let netns = scene.netns.inode.to_string();
    let output = portwatch(bench, helper, &["list", "-tln", "-N", &netns])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    let titles: Vec<&str> = lines
        .next()
        .context("no line")?
        .split_whitespace()
        .collect();
    let place = titles.iter().position(|title| *title == "PID");
    let place = place.context("no PID")?;
    let pids: Vec<&str> = lines
        .filter_map(|line| line.split_whitespace().nth(place))
        .collect();
    let mut expected = [std::process::id(), scene.sharer.pid()];
    expected.sort_unstable();
    let expected = expected.map(|pid| pid.to_string());
    ensure!(pids == expected, "{text}");
    let bare = portwatch(bench, helper, &["list", "-tlnH", "-N", &netns])?;
    let bare = String::from_utf8_lossy(&bare.stdout).into_owned();
    ensure!(
        bare.lines().count() == 2 && !bare.contains("PROTO"),
        "{bare}"
    );
    Ok(())
}

fn list_what_occupies_ports(bench: &Bench) -> Result<()> {
    occupies(bench, &[])
}

fn list_what_occupies_ports_without_iterator(bench: &Bench) -> Result<()> {
    occupies(bench, &["helper", "without-iterator"])
}

fn list_options(bench: &Bench) -> Result<()> {
    options(bench, &[])
}

fn list_options_without_iterator(bench: &Bench) -> Result<()> {
    options(bench, &["helper", "without-iterator"])
}

/// One option each; what is not set is told as that, not left out.
const OPTIONS: [(i32, i32, &str); 5] = [
    (libc::SOL_SOCKET, libc::SO_REUSEADDR, "reuseaddr"),
    (libc::SOL_SOCKET, libc::SO_REUSEPORT, "reuseport"),
    (libc::IPPROTO_IP, libc::IP_FREEBIND, "freebind"),
    (libc::IPPROTO_IP, libc::IP_TRANSPARENT, "transparent"),
    (
        libc::IPPROTO_IP,
        libc::IP_BIND_ADDRESS_NO_PORT,
        "bind_no_port",
    ),
];

/// What was set on a socket is what is told of it; and which is one of MPTCP.
fn options(bench: &Bench, helper: &[&str]) -> Result<()> {
    const FIRST: u16 = 7_600;
    let home = Netns::current()?;
    let netns = Netns::new()?;
    netns.enter()?;
    let listen = |kind, port: u16, option: Option<(i32, i32)>| -> Result<Sock> {
        let sock = Sock::new(kind)?;
        if let Some((level, name)) = option {
            sock.set_option(level, name, 1)?;
        }
        sock.bind(&(LO, port).into())?;
        sock.listen(8)?;
        Ok(sock)
    };
    let made = || -> Result<Vec<(u16, &str, Sock)>> {
        let mut made = Vec::new();
        for (port, (level, name, path)) in (FIRST..).zip(OPTIONS) {
            made.push((port, path, listen(Kind::Tcp4, port, Some((level, name)))?));
        }
        match listen(Kind::Mptcp4, FIRST - 1, None) {
            Ok(sock) => made.push((FIRST - 1, "mptcp", sock)),
            Err(error) => println!("without MPTCP: {error:#}"),
        }
        Ok(made)
    };
    let made = made();
    home.enter()?;
    let made = made?;
    // Without a way into it, it has to be seen from outside all the same, if by the iterator.
    let inode = netns.inode.to_string();
    let path = format!("/proc/{}/fd/{}", std::process::id(), netns.fd());
    let name = if helper.is_empty() { &inode } else { &path };
    let output = portwatch(bench, helper, &["list", "-N", name, "-o", "json"])?;
    let lines = lines(&output)?;
    for (at, set, sock) in &made {
        let line = lines
            .iter()
            .find(|line| port(line) == Some(u64::from(*at)))
            .with_context(|| format!("{set} is missing: {lines:?}"))?;
        let told = |option: &str| lookup(line, &format!("socket.{option}"));
        for (level, name, option) in OPTIONS {
            let expected = Value::from(option == *set);
            // MPTCP does not know all of them on every kernel: then nobody need tell.
            let is_unknown = told(option).is_none() && sock.option(level, name).is_err();
            ensure!(
                is_unknown || told(option) == Some(&expected),
                "{option}: {line}"
            );
        }
        let expected = Value::from(*set == "mptcp");
        ensure!(told("mptcp") == Some(&expected), "mptcp: {line}");
    }
    Ok(())
}

/// Who is not root is told of the sockets all the same, and how many have owners that he may not see.
fn list_what_is_hidden(bench: &Bench) -> Result<()> {
    let scene = Scene::set()?;
    let output = as_nobody(bench, &scene.netns, &["list", "-tul", "-o", "json"])?;
    exits(&output, 0)?;
    let lines = lines(&output)?;
    let expected = [row("tcp", "listen", LO, &[]), row("udp", "closed", LO, &[])];
    let found = rows(&lines, scene.netns.inode);
    ensure!(found == expected, "{found:?} instead of {expected:?}");
    says(&output, "the owners of 2 of these sockets are hidden")?;
    // Where they can be told from our own, they are counted.
    says(&output, "network namespaces")
}

/// Three processes that share a port, and one of another port.
fn list_a_group(bench: &Bench) -> Result<()> {
    const SHARED: u16 = 7_500;
    let home = Netns::current()?;
    let netns = Netns::new()?;
    netns.enter()?;
    let listen = || -> Result<Sock> {
        let sock = Sock::new(Kind::Tcp4)?.reuseport()?;
        sock.bind(&(Ipv4Addr::UNSPECIFIED, SHARED).into())?;
        sock.listen(8)?;
        Ok(sock)
    };
    let members = (0..3)
        .map(|_| {
            let sock = listen()?;
            Background::spawn(|| {
                let _kept = sock;
                loop {
                    std::thread::park();
                }
            })
        })
        .collect::<Result<Vec<_>>>();
    home.enter()?;
    let members = members?;
    let inode = netns.inode.to_string();
    let output = portwatch(bench, &[], &["list", "-N", &inode, "-o", "json"])?;
    let found = lines(&output)?;
    ensure!(found.len() == 3, "one socket a line: {found:?}");
    for line in &found {
        let shares = lookup(line, "socket.reuseport");
        ensure!(shares == Some(&true.into()), "{line}");
    }
    let output = portwatch(bench, &[], &["list", "-H", "-N", &inode])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let groups: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    ensure!(groups.len() == 3, "a line for each process: {text}");
    for (line, member) in groups.iter().zip(&members) {
        let pid = member.pid().to_string();
        ensure!(line.get(2) == Some(&"3"), "a group of three: {text}");
        ensure!(line.contains(&pid.as_str()), "{pid}: {text}");
    }
    Ok(())
}

/// A namespace without sockets, those that no way leads into, and what cannot be meant.
fn list_nothing(bench: &Bench) -> Result<()> {
    let list = |args: &[&str]| portwatch(bench, &[], &[&["list"], args].concat());
    let netns = Netns::new()?;
    let inode = netns.inode.to_string();
    let path = format!("/proc/{}/fd/{}", std::process::id(), netns.fd());
    let output = list(&["-N", &path])?;
    exits(&output, 1)?;
    ensure!(output.stdout.is_empty(), "{:?}", output.stdout);
    says(&output, "nothing listens or is bound")?;
    let quiet = list(&["-q", "-N", &path])?;
    exits(&quiet, 1)?;
    ensure!(quiet.stderr.is_empty(), "{:?}", quiet.stderr);
    // Nobody is in it whom /proc would show: what is there is not known, and not nothing.
    for inode in [inode.as_str(), "1"] {
        let closed = list(&["-N", inode])?;
        exits(&closed, 2)?;
        says(
            &closed,
            &format!("no way leads into network namespace {inode}"),
        )?;
    }
    for wrong in ["/dev/null", "no-such-name", "0"] {
        exits(&list(&["-N", wrong])?, 2)?;
    }
    Ok(())
}
