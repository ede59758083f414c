//! A running `portwatch churn`, and what it says of a network namespace.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{
    bench::{self, Bench},
    contract,
    expect::lookup,
    script::Skip,
    sys::{netns::Netns, task},
    tracer::PATIENCE,
};

/// It prints an object for each interval.
pub(crate) struct Churn {
    child: Child,
    lines: Receiver<String>,
    /// Lines read so far.
    seq: u64,
}

impl Churn {
    /// Starts it and waits for its first line: every hook is attached then.
    pub(crate) fn start(bench: &Bench, args: &[&str]) -> Result<Self> {
        let mut command = bench.command(["churn", "-o", "json", "--interval", "200ms", "--attach"]);
        command.arg(bench.backend.as_str()).args(args);
        let mut child = command.spawn().context("cannot start portwatch churn")?;
        let stdout = child.stdout.take().context("no pipe")?;
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let mut churn = Self {
            child,
            lines,
            seq: 0,
        };
        match churn.next() {
            Ok(_) => Ok(churn),
            Err(error) => {
                // It may have ended, or hang.
                let _ = churn.child.kill();
                let mut said = String::new();
                if let Some(mut stderr) = churn.child.stderr.take() {
                    stderr.read_to_string(&mut said)?;
                }
                bail!("{error:#}; stderr: {said}")
            }
        }
    }

    /// The next interval.
    pub(crate) fn next(&mut self) -> Result<Value> {
        let text = self.lines.recv_timeout(PATIENCE).context("no line")?;
        self.seq += 1;
        let line = contract::churn(&text)?;
        ensure!(
            lookup(&line, "seq").and_then(Value::as_u64) == Some(self.seq),
            "a line is missing: {text}"
        );
        Ok(line)
    }

    /// Intervals until something holds; the last.
    pub(crate) fn until(
        &mut self,
        what: &str,
        mut holds: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.next()?;
            if holds(&line) {
                return Ok(line);
            }
            if Instant::now() > deadline {
                bail!("waited in vain until {what}: {line}");
            }
        }
    }

    /// Two intervals from now: all that has happened before is in the second.
    pub(crate) fn settled(&mut self) -> Result<Value> {
        // Some may lie in the pipe.
        while self.lines.try_recv().is_ok() {
            self.seq += 1;
        }
        self.next()?;
        self.next()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM; how it ended.
    pub(crate) fn stop(self) -> Result<Output> {
        task::signal(self.child.id(), libc::SIGTERM)?;
        bench::ended(self.child)
    }
}

/// What a line says of a network namespace.
pub(crate) fn namespace<'a>(line: &'a Value, netns: &Netns) -> Option<&'a Value> {
    let list = lookup(line, "churn.namespaces")?.as_array()?;
    list.iter()
        .find(|one| lookup(one, "netns").and_then(Value::as_u64) == Some(netns.inode))
}

/// The pools of a network namespace that are shown.
pub(crate) fn pools<'a>(line: &'a Value, netns: &Netns) -> Vec<&'a Value> {
    of(line, "churn.pools", netns)
}

/// The failures in a network namespace.
pub(crate) fn failures<'a>(line: &'a Value, netns: &Netns) -> Vec<&'a Value> {
    of(line, "churn.failures", netns)
}

fn of<'a>(line: &'a Value, list: &str, netns: &Netns) -> Vec<&'a Value> {
    let all = lookup(line, list).and_then(Value::as_array);
    all.into_iter()
        .flatten()
        .filter(|one| lookup(one, "socket.netns").and_then(Value::as_u64) == Some(netns.inode))
        .collect()
}

/// A number at a path; an error where there is none.
pub(crate) fn number(value: &Value, path: &str) -> Result<u64> {
    lookup(value, path)
        .and_then(Value::as_u64)
        .with_context(|| format!("no number {path}: {value}"))
}

/// Numbers at paths, each as it should be.
pub(crate) fn numbers(value: &Value, expected: &[(&str, u64)]) -> Result<()> {
    for (path, right) in expected {
        let found = number(value, path)?;
        ensure!(found == *right, "{path} is {found}, not {right}: {value}");
    }
    Ok(())
}

/// In a network namespace of its own, whatever comes of it.
pub(crate) fn in_new_namespace<T>(act: impl FnOnce(&Netns) -> Result<T>) -> Result<T> {
    let home = Netns::current()?;
    let netns = Netns::new()?;
    netns.enter()?;
    let done = act(&netns);
    home.enter()?;
    done
}

/// `tw` of the namespace that this thread is in, as the kernel counts it.
pub(crate) fn sockstat_tw() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/sockstat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:"));
    let mut words = line.context("no TCP in sockstat")?.split_ascii_whitespace();
    words.find(|word| *word == "tw").context("no tw")?;
    Ok(words.next().context("no tw")?.parse()?)
}

/// What raw tracepoints do not see is not asked for.
pub(crate) fn sees_all(bench: &Bench) -> bool {
    bench.backend != crate::degraded::Backend::RawTp
}

/// Skips on raw tracepoints.
pub(crate) fn needs_releases(bench: &Bench) -> Result<()> {
    if sees_all(bench) {
        return Ok(());
    }
    Err(Skip("raw tracepoints do not see ports given back".to_owned()).into())
}

/// A portwatch that ends by itself.
pub(crate) fn ran(bench: &Bench, args: &[&str]) -> Result<Output> {
    let child = Command::new(&bench.portwatch)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    bench::ended(child)
}
