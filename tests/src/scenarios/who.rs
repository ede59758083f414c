//! `portwatch who`: every socket on a port, with everybody who has it, and nothing else.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Session,
    looked_up::{LO, PORT, Row, Scene, as_nobody, exits, is_new, lines, portwatch, rows, says},
    sessions,
};
use crate::{bench::Bench, expect::lookup, sys::netns::Netns};

pub(super) const ALL: &[Session] = sessions![
    who_has_it: each_kernel,
    who_has_it_without_iterator: each_kernel,
    who_is_hidden: each_kernel,
    who_is_nobody: each_kernel,
    who_is_about_to_leave: each_kernel,
];

fn has_it(bench: &Bench, helper: &[&str]) -> Result<()> {
    let scene = Scene::set()?;
    let port = PORT.to_string();
    let who = |args: &[&str]| portwatch(bench, helper, &[&["who"], args].concat());
    let output = who(&[&port, "-o", "json"])?;
    exits(&output, 0)?;
    let found = rows(&lines(&output)?, scene.netns.inode);
    let expected = scene.rows(true);
    ensure!(found == expected, "{found:?} instead of {expected:?}");
    let own = std::process::id();
    let both = [own, scene.sharer.pid()];
    let text = who(&[&port])?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for pid in both {
        ensure!(text.contains(&pid.to_string()), "{pid} is not in {text}");
    }
    let narrow = format!("tcp/{LO}:{PORT}");
    // From outside it may be somebody else's port: nobody is to be ended for it.
    let outside = who(&[&narrow, "--pids"])?;
    ensure!(outside.stdout.is_empty(), "{:?}", outside.stdout);
    says(&outside, "2 processes in other network namespaces")?;
    let home = Netns::current()?;
    scene.netns.enter()?;
    let inside = || -> Result<_> {
        Ok((
            who(&[&narrow, "--pids"])?,
            who(&[&narrow, "--pids", "--first"])?,
        ))
    };
    let seen = inside();
    home.enter()?;
    let (pids, first) = seen?;
    let mut expected = both;
    expected.sort_unstable();
    let expected = expected.map(|pid| format!("{pid}\n")).concat();
    let pids = String::from_utf8_lossy(&pids.stdout).into_owned();
    ensure!(pids == expected, "{pids:?} instead of {expected:?}");
    let first = String::from_utf8_lossy(&first.stdout).into_owned();
    ensure!(first.lines().count() == 1, "{first:?}");
    drop(scene);
    Ok(())
}

fn who_has_it(bench: &Bench) -> Result<()> {
    has_it(bench, &[])
}

fn who_has_it_without_iterator(bench: &Bench) -> Result<()> {
    has_it(bench, &["helper", "without-iterator"])
}

/// Somebody who is not root sees sockets in his own network namespace, and is told that others have
/// them.
fn who_is_hidden(bench: &Bench) -> Result<()> {
    let scene = Scene::set()?;
    let port = PORT.to_string();
    let output = as_nobody(bench, &scene.netns, &["who", &port, "-o", "json"])?;
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
    says(
        &output,
        &format!("the owners of {hidden} of these sockets are hidden"),
    )
}

/// A port that nobody has, names, and what is no port.
fn who_is_nobody(bench: &Bench) -> Result<()> {
    let who = |args: &[&str]| portwatch(bench, &[], &[&["who"], args].concat());
    // Below the range that ports are taken from, and of no service.
    for args in [&["4"][..], &["udp/4"], &["127.0.0.1:4", "--pids"]] {
        let output = who(args)?;
        exits(&output, 1)?;
        ensure!(output.stdout.is_empty(), "{args:?}: {:?}", output.stdout);
        says(&output, "nobody has it")?;
    }
    let bare = portwatch(bench, &[], &["4"])?;
    exits(&bare, 1)?;
    let quiet = who(&["4", "-q"])?;
    exits(&quiet, 1)?;
    ensure!(quiet.stderr.is_empty(), "{:?}", quiet.stderr);
    for wrong in ["no-such-service", "70000", "icmp/1", "::1:80"] {
        let output = who(&[wrong])?;
        exits(&output, 2)?;
        ensure!(output.stdout.is_empty(), "{wrong}: {:?}", output.stdout);
    }
    Ok(())
}

/// The kernel tells how long a connection stays in TIME_WAIT: a minute in all (TCP_TIMEWAIT_LEN,
/// include/net/tcp.h).
fn who_is_about_to_leave(bench: &Bench) -> Result<()> {
    let scene = Scene::set()?;
    let before = jiff::Timestamp::now();
    let output = portwatch(bench, &[], &["who", &PORT.to_string(), "-o", "json"])?;
    let lines = lines(&output)?;
    let is_it = |line: &&Value| {
        lookup(line, "socket.netns") == Some(&scene.netns.inode.into())
            && lookup(line, "network.connection.state") == Some(&"time_wait".into())
    };
    let line = lines.iter().find(is_it).context("no TIME_WAIT is told")?;
    let expires = lookup(line, "expires").and_then(Value::as_str);
    let expires: jiff::Timestamp = expires.context("no end of it is told")?.parse()?;
    let left = expires.duration_since(before).as_secs();
    ensure!((1..=61).contains(&left), "it ends in {left} s: {line}");
    let text = portwatch(bench, &[], &["who", &PORT.to_string()])?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let is_told = |line: &str| line.contains("time_wait") && line.contains("s  ");
    ensure!(text.lines().any(is_told), "{text}");
    Ok(())
}
