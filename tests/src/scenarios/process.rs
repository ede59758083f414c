//! Who is named: short lives, odd names, reused pids.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{Scenario, scenarios};
use crate::{
    degraded::Backend,
    expect::{Expect, Want},
    script::{Script, skip},
    sys::{copy::Copy, sock::Kind, task},
};

pub(super) const ALL: &[Scenario] = scenarios![
    process_forked,
    process_orphaned,
    process_renamed,
    process_odd_arguments,
    process_long_arguments,
    process_exec_changes_identity,
    process_deleted_executable,
    process_pid_reused,
    process_short_lives,
];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// `EXE helper bind PORT [TAG…]`: binds 127.0.0.1:PORT and exits at once.
fn bind_at_once(exe: &Path, port: u16, tags: &[&str]) -> Result<(Child, Vec<String>)> {
    let mut command = Command::new(exe);
    command
        .args(["helper", "bind"])
        .arg(port.to_string())
        .args(tags);
    let args = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let child = command
        .spawn()
        .with_context(|| format!("cannot start {}", exe.display()))?;
    Ok((child, args))
}

/// The line of such a process.
fn bound_by(s: &Script, pid: u32, executable: &str, args: &[String], port: u16) -> Expect {
    let name = executable.rsplit('/').next().unwrap_or_default();
    let mut line = Expect::default();
    line.is("event.name", "bind")
        .is("event.outcome", "success")
        .is("network.local.address", "127.0.0.1")
        .is("network.local.port", port)
        .is("socket.netns", s.me.netns)
        .is("process.pid", pid)
        .is("thread.id", pid)
        .is("process.parent_pid", s.me.pid)
        .is("process.executable.path", executable)
        .is("process.executable.name", name)
        .is("process.command_args", json!(args))
        // The kernel's own name is the executable's, cut to 15 bytes.
        .is("process.comm", name.get(..15).unwrap_or(name))
        .set("process.creation.time", Want::Present);
    line
}

/// Runs one and puts down its line.
fn bind_and_expect(s: &mut Script, exe: &Path, port: u16, tags: &[&str]) -> Result<u32> {
    let (mut child, args) = bind_at_once(exe, port, tags)?;
    let pid = child.id();
    let status = child.wait()?;
    ensure!(status.success(), "the helper ended with {status}");
    let line = bound_by(s, pid, &exe.to_string_lossy(), &args, port);
    s.expect(line);
    Ok(pid)
}

/// A fork without exec: a process of its own with its parent's name.
fn process_forked(s: &mut Script) -> Result<()> {
    let parent = s.me.pid;
    s.forked(|s| {
        ensure!(s.me.parent == parent, "not a child of the workload");
        s.listener(Kind::Tcp4, (LO4, 8080)).map(drop)
    })?;
    Ok(())
}

/// Its parent is gone: the line names the new one.
fn process_orphaned(s: &mut Script) -> Result<()> {
    let (mut read, mut write) = task::pipe()?;
    let ctx = s.ctx;
    let workload = s.me.pid;
    task::fork_and(|| {
        // The parent ends at once, the grandchild goes on.
        let parent = std::process::id();
        task::detach(|| {
            let done = (|| -> Result<()> {
                while task::parent() == parent {
                    std::thread::yield_now();
                }
                let mut s = Script::new(ctx)?;
                ensure!(s.me.parent != workload, "adopted by the workload");
                s.listener(Kind::Tcp4, (LO4, 8080))?;
                serde_json::to_writer(&mut write, &s.finish())?;
                Ok(())
            })();
            if let Err(error) = done {
                eprintln!("in the orphan: {error:#}");
            }
        })
    })?;
    drop(write);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut read, &mut text)?;
    s.merge(serde_json::from_str(&text).context("nothing came from the orphan")?);
    Ok(())
}

/// Task names may hold anything: escape sequences, newlines, quotes, bytes that are no UTF-8.
fn process_renamed(s: &mut Script) -> Result<()> {
    for (port, name) in [
        (8080, &b"\x1b[31mred\x1b[0m"[..]),
        (8081, b"two\nlines\ttab\r"),
        (8082, b"\"quoted\"\\'{}"),
        (8083, b"\xff\xfe\x80 latin"),
        (8084, b"exactly-15-byte"),
        (8085, "fünf€🦀".as_bytes()),
        // Reverses the reading direction of what follows on the line.
        (8086, "\u{202e}txt.exe".as_bytes()),
    ] {
        task::rename(name)?;
        s.relearn()?;
        s.bound(Kind::Tcp4, (LO4, port))?;
    }
    Ok(())
}

fn process_odd_arguments(s: &mut Script) -> Result<()> {
    let copy = Copy::new("odd [31m name")?;
    bind_and_expect(
        s,
        &copy.path,
        8080,
        &["\x1b[2J", "", "two\nlines", "\"", "ünï", "--", "tail"],
    )?;
    Ok(())
}

/// Longer than any record: what is there is the beginning, and its being cut is told.
fn process_long_arguments(s: &mut Script) -> Result<()> {
    let copy = Copy::new("long_arguments")?;
    let long = "x".repeat(8192);
    let (mut child, args) = bind_at_once(&copy.path, 8080, &["first", &long, "last"])?;
    let pid = child.id();
    ensure!(child.wait()?.success(), "the helper failed");
    let mut line = bound_by(s, pid, &copy.text(), &args, 8080);
    line.set("process.command_args", Want::Present);
    for (index, arg) in args.iter().take(4).enumerate() {
        line.is(&format!("process.command_args.{index}"), arg.as_str());
    }
    s.expect(line);
    Ok(())
}

/// The same pid before and after exec: two identities.
fn process_exec_changes_identity(s: &mut Script) -> Result<()> {
    let copy = Copy::new("after_exec")?;
    let path = copy.text();
    let pid = s.forked_then_exec(
        |s| s.bound(Kind::Tcp4, (LO4, 8080)).map(drop),
        &copy.path,
        &["helper", "bind", "8081", "after"],
    )?;
    let args = [path.as_str(), "helper", "bind", "8081", "after"].map(str::to_owned);
    let line = bound_by(s, pid, &path, &args, 8081);
    s.expect(line);
    Ok(())
}

/// The file is unlinked while the program runs: named by the path it had.
fn process_deleted_executable(s: &mut Script) -> Result<()> {
    let copy = Copy::new("deleted")?;
    let mut command = Command::new(&copy.path);
    command.args(["helper", "bind-after-unlink", "8080"]);
    let mut child = command.spawn()?;
    ensure!(child.wait()?.success(), "the helper failed");
    let args = [
        copy.text(),
        "helper".into(),
        "bind-after-unlink".into(),
        "8080".into(),
    ];
    let line = bound_by(s, child.id(), &copy.text(), &args, 8080);
    s.expect(line);
    Ok(())
}

/// One pid, two processes one after the other: neither gets the other's name.
fn process_pid_reused(s: &mut Script) -> Result<()> {
    let first = Copy::new("first_owner")?;
    let pid = bind_and_expect(s, &first.path, 8080, &["first"])?;
    let second = Copy::new("second_owner")?;
    let args = [
        second.text(),
        "helper".into(),
        "bind".into(),
        "8081".into(),
        "second".into(),
    ];
    let ended = task::exec_as(pid.cast_signed(), &second.path, &args[1..]);
    match ended {
        Ok(task::Ended::Code(0)) => {}
        Ok(ended) => anyhow::bail!("the second owner ended with {ended:?}"),
        Err(error) if error.downcast_ref() == Some(&nix::errno::Errno::ENOSYS) => {
            return skip("no clone3 on this kernel");
        }
        Err(error) => return Err(error),
    }
    let line = bound_by(s, pid, &second.text(), &args, 8081);
    s.expect(line);
    // And without exec: the fork has this process's own name.
    s.forked_as(pid.cast_signed(), |s| {
        s.bound(Kind::Tcp4, (LO4, 8082)).map(drop)
    })?;
    Ok(())
}

/// Processes that live for a millisecond are named all the same.
fn process_short_lives(s: &mut Script) -> Result<()> {
    let preempts = crate::degraded::preempts(s.ctx.backend);
    // There its program runs at every system call of whichever task.
    if preempts && s.ctx.backend == Backend::RawTp {
        return skip("raw_tp loses calls under load on this kernel");
    }
    // A few at a time, so that they overlap; where overlapping calls may be lost, one.
    let at_once = if preempts { 1 } else { 8 };
    let copy = Copy::new("short_lived")?;
    let count: u16 = if s.ctx.long { 10_000 } else { 300 };
    s.any_order();
    let mut running: BTreeMap<u16, (Child, Vec<String>)> = BTreeMap::new();
    for index in 0..count {
        let tag = format!("tag-{index}");
        running.insert(index, bind_at_once(&copy.path, 20_000 + index, &[&tag])?);
        if running.len() >= at_once || index + 1 == count {
            for (index, (mut child, args)) in std::mem::take(&mut running) {
                let pid = child.id();
                ensure!(child.wait()?.success(), "helper {index} failed");
                let line = bound_by(s, pid, &copy.text(), &args, 20_000 + index);
                s.expect(line);
            }
        }
    }
    Ok(())
}
