//! A running portwatch: started, read line by line, asked to stop.

use std::{
    ffi::{OsStr, OsString},
    io::{self, BufRead as _, BufReader, Read as _},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{contract::Stream, expect::lookup, sys::task};

/// How long anything may take under software emulation before it counts as stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What this process does to see that portwatch has printed all that happened before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Bind,
    Accept,
    Release,
}

impl Mark {
    /// One that is shown where that event is asked for alone; without an event, by default.
    pub(crate) fn among(event: Option<&str>) -> Result<Self> {
        let all = [Self::Bind, Self::Accept, Self::Release];
        let Some(event) = event else {
            return Ok(Self::Bind);
        };
        all.into_iter()
            .find(|mark| mark.name() == event)
            .with_context(|| format!("the harness has no mark among {event} events"))
    }

    /// The event.
    fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Accept => "accept",
            Self::Release => "release",
        }
    }

    /// Makes it; the port that it is about.
    fn make(self) -> io::Result<u16> {
        if self == Self::Accept {
            let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = server.local_addr()?;
            let _client = TcpStream::connect(address)?;
            server.accept()?;
            return Ok(address.port());
        }
        // Bound, and let go of at once.
        Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port())
    }
}

/// Marks that are made before portwatch counts as stuck.
const MARKS: u32 = 6;

/// A line, and when it was read.
struct Arrival {
    text: String,
    at: Instant,
}

/// A portwatch that writes JSON to a pipe of ours.
pub(crate) struct Tracer {
    child: Child,
    lines: Receiver<Arrival>,
    stderr: Option<JoinHandle<String>>,
    stream: Stream,
    /// The `start` line.
    pub(crate) start: Value,
}

/// A portwatch that is over.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The lines that had not been read before.
    pub(crate) lines: Vec<Value>,
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// What it said on stderr.
    pub(crate) stderr: String,
    /// Events, failures and losses of the whole stream, counted by us.
    pub(crate) totals: (u64, u64, u64),
}

impl Finished {
    /// The exit code; 128+N for signal N.
    pub(crate) fn code(&self) -> i32 {
        code(self.status)
    }
}

/// The exit code; 128+N for signal N.
pub(crate) fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

impl Tracer {
    /// Runs `portwatch ARGS…`, whose stdout is a JSON stream, and waits for its `start` line.
    pub(crate) fn start(
        portwatch: &Path,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Self> {
        let args: Vec<OsString> = args
            .into_iter()
            .map(|arg| arg.as_ref().to_owned())
            .collect();
        let mut child = Command::new(portwatch)
            .args(&args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", portwatch.display()))?;
        let stdout = child.stdout.take().context("no pipe")?;
        let mut stderr = child.stderr.take().context("no pipe")?;
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for text in BufReader::new(stdout).lines().map_while(Result::ok) {
                let at = Instant::now();
                if send.send(Arrival { text, at }).is_err() {
                    break;
                }
            }
        });
        let stderr = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What was read before an error is all there is to show.
            let _ = stderr.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let mut tracer = Self {
            child,
            lines,
            stderr: Some(stderr),
            stream: Stream::default(),
            start: Value::Null,
        };
        match tracer.next(PATIENCE) {
            Ok(Some((line, _))) => tracer.start = line,
            Ok(None) => {
                let finished = tracer.kill()?;
                bail!(
                    "portwatch {args:?} ended with {} before its first line: {}",
                    finished.code(),
                    finished.stderr.trim()
                );
            }
            Err(error) => return Err(error),
        }
        Ok(tracer)
    }

    /// The next line and when it came; `None` at the end of the stream.
    pub(crate) fn next(&mut self, patience: Duration) -> Result<Option<(Value, Instant)>> {
        match self.lines.recv_timeout(patience) {
            Ok(arrival) => self.checked(arrival).map(Some),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => bail!("no line for {} s", patience.as_secs()),
        }
    }

    /// The next line, if it comes within that time and before the end of the stream.
    pub(crate) fn next_within(&mut self, time: Duration) -> Result<Option<Value>> {
        match self.lines.recv_timeout(time) {
            Ok(arrival) => Ok(Some(self.checked(arrival)?.0)),
            Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => Ok(None),
        }
    }

    /// Every line up to that of a bind which this process makes for the purpose: all that happened
    /// before has been printed then.
    pub(crate) fn until_now(&mut self) -> Result<Vec<Value>> {
        self.until(Mark::Bind)
    }

    /// The same with another mark.
    pub(crate) fn until(&mut self, mark: Mark) -> Result<Vec<Value>> {
        Ok(self.until_mark(mark)?.0)
    }

    /// The time from a bind to its line.
    pub(crate) fn latency(&mut self) -> Result<Duration> {
        let before = Instant::now();
        Ok(self.until_mark(Mark::Bind)?.1.duration_since(before))
    }

    /// Makes another mark when one does not come for a while: a kernel that preempts programs may have skipped
    /// the one that should have told of it.
    fn until_mark(&mut self, mark: Mark) -> Result<(Vec<Value>, Instant)> {
        let mut ports = Vec::new();
        let mut lines = Vec::new();
        for _ in 0..MARKS {
            ports.push(mark.make().context("the harness cannot make its mark")?);
            let deadline = Instant::now() + PATIENCE / MARKS;
            while let Some(left) = deadline.checked_duration_since(Instant::now()) {
                let arrival = match self.lines.recv_timeout(left) {
                    Ok(arrival) => arrival,
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => {
                        bail!("portwatch ended in the middle of the scenario")
                    }
                };
                let (line, at) = self.checked(arrival)?;
                let number = |path| lookup(&line, path).and_then(Value::as_u64);
                if lookup(&line, "event.name").and_then(Value::as_str) == Some(mark.name())
                    && number("process.pid") == Some(std::process::id().into())
                    && number("network.local.port")
                        .is_some_and(|port| ports.iter().any(|made| u64::from(*made) == port))
                {
                    return Ok((lines, at));
                }
                lines.push(line);
            }
        }
        bail!(
            "waited in vain for the harness's own {} to be printed",
            mark.name()
        )
    }

    /// A line that keeps the contract, and when it came.
    fn checked(&mut self, Arrival { text, at }: Arrival) -> Result<(Value, Instant)> {
        match self.stream.check(&text) {
            Ok(line) => Ok((line, at)),
            Err(wrong) => bail!("{}: {text}", wrong.join("; ")),
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        task::signal(self.child.id(), signal)
    }

    /// SIGTERM, then everything it still has to say.
    pub(crate) fn stop(self) -> Result<Finished> {
        self.signal(libc::SIGTERM)?;
        self.finish()
    }

    /// Reads to the end of the stream and waits.
    pub(crate) fn finish(mut self) -> Result<Finished> {
        let mut lines = Vec::new();
        while let Some((line, _)) = self.next(PATIENCE)? {
            lines.push(line);
        }
        self.collect(lines)
    }

    /// SIGKILL and no further questions.
    pub(crate) fn kill(mut self) -> Result<Finished> {
        self.child.kill().context("cannot kill portwatch")?;
        self.collect(Vec::new())
    }

    fn collect(&mut self, lines: Vec<Value>) -> Result<Finished> {
        let status = self.child.wait().context("cannot wait for portwatch")?;
        let stderr = self
            .stderr
            .take()
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default();
        Ok(Finished {
            lines,
            status,
            stderr,
            totals: self.stream.totals(),
        })
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Already waited for, or it has to go: either way nothing is left to report.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Finished {
    /// A clean end: this exit code, and an `end` line that counts what was printed.
    pub(crate) fn ended_well(&self, expected_code: i32) -> Result<()> {
        ensure!(
            self.code() == expected_code,
            "exit code {} instead of {expected_code}; stderr: {}",
            self.code(),
            self.stderr.trim()
        );
        let end = self.lines.last().context("no line at the end")?;
        ensure!(
            lookup(end, "event.name") == Some(&Value::from("end")),
            "the last line is not `end`: {end}"
        );
        let total = |name: &str| lookup(end, name).and_then(Value::as_u64);
        let (events, failures, lost) = self.totals;
        for (path, counted) in [
            ("totals.events", events),
            ("totals.failures", failures),
            ("totals.lost", lost),
        ] {
            ensure!(
                total(path) == Some(counted),
                "{path} should be {counted}: {end}"
            );
        }
        Ok(())
    }
}
