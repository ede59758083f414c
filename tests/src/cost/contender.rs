//! A tracer under measurement: portwatch with some options, or one of its neighbours.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    os::fd::AsFd as _,
    process::{Child, ChildStdout, Command, Stdio},
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{clock, work::Mode};
use crate::degraded::Backend;

/// Where a tracer's stderr goes.
const NOTES: &str = "/tmp/notes";

/// How long a tracer may take to attach: bpftrace compiles first, under emulation.
const PATIENCE: Duration = Duration::from_secs(300);

/// `LABEL=COMMAND` or `LABEL:MODE,MODE=COMMAND`: only these modes are measured. The words of COMMAND
/// are separated by blanks; one that starts with `portwatch` says on stderr when it is attached.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Contender {
    pub(super) label: String,
    pub(super) modes: Option<Vec<Mode>>,
    pub(super) words: Vec<String>,
}

impl FromStr for Contender {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, command) = text.split_once('=').ok_or("LABEL=COMMAND is needed")?;
        let (label, modes) = match name.split_once(':') {
            None => (name, None),
            Some((label, modes)) => (
                label,
                Some(
                    modes
                        .split(',')
                        .map(|mode| Mode::from_str(mode, false))
                        .collect::<Result<_, _>>()?,
                ),
            ),
        };
        let words: Vec<_> = command.split_whitespace().map(String::from).collect();
        if words.is_empty() {
            return Err("no command".to_owned());
        }
        Ok(Self {
            label: label.to_owned(),
            modes,
            words,
        })
    }
}

/// Where a tracer's lines go.
pub(super) enum Output {
    Null,
    File(File),
    Pipe,
}

impl Contender {
    /// Whether it is portwatch rather than a neighbour.
    pub(super) fn is_portwatch(&self) -> bool {
        self.words
            .first()
            .is_some_and(|program| program.ends_with("portwatch"))
    }

    /// The backend that it is told to use, where it is told nothing else.
    pub(super) fn backend(&self) -> Option<Backend> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let [_, "trace", "--attach", backend] = words[..] else {
            return None;
        };
        Backend::from_str(backend, false).ok()
    }

    /// Starts it; it need not be attached yet.
    pub(super) fn start(&self, output: Output, more: &[&str]) -> Result<Running> {
        let (program, args) = self.words.split_first().context("no command")?;
        let notes = File::create(NOTES).with_context(|| format!("cannot write {NOTES}"))?;
        let child = Command::new(program)
            .args(args)
            .args(more)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/tmp")
            .stdin(Stdio::null())
            .stdout(match output {
                Output::Null => Stdio::null(),
                Output::File(file) => file.into(),
                Output::Pipe => Stdio::piped(),
            })
            .stderr(notes)
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        Ok(Running {
            child,
            is_portwatch: self.is_portwatch(),
        })
    }
}

/// A tracer that runs. Dropping it ends it.
pub(super) struct Running {
    child: Child,
    is_portwatch: bool,
}

impl Running {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has run so far.
    pub(super) fn ran(&self) -> Result<u64> {
        clock::of(self.pid())
    }

    /// The pipe, once.
    pub(super) fn lines(&mut self) -> Result<Lines> {
        let pipe = self.child.stdout.take().context("its output is no pipe")?;
        Ok(Lines(BufReader::new(pipe)))
    }

    /// Waits until it is attached: portwatch says so; a neighbour has had some time, and is quiet.
    pub(super) fn attached(&mut self) -> Result<()> {
        let since = Instant::now();
        loop {
            let told = fs::metadata(NOTES).is_ok_and(|notes| notes.len() > 0);
            if (self.is_portwatch && told) || since.elapsed() > Duration::from_secs(3) {
                break;
            }
            clock::pause(50);
        }
        self.quiet(since)
    }

    /// Waits until it has nothing left to do.
    pub(super) fn settled(&mut self) -> Result<()> {
        self.quiet(Instant::now())
    }

    fn quiet(&mut self, since: Instant) -> Result<()> {
        // Neighbours wake up ten times a second for some thousand instructions.
        const NOTHING: u64 = 1_000_000;
        let mut rounds = 0;
        let mut last = self.ran()?;
        while rounds < 5 {
            clock::pause(100);
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended ({status}): {}", notes());
            }
            if since.elapsed() > PATIENCE {
                bail!("it is busy for {} s", PATIENCE.as_secs());
            }
            let now = self.ran()?;
            rounds = if now - last < NOTHING { rounds + 1 } else { 0 };
            last = now;
        }
        Ok(())
    }

    /// SIGINT, and what it wrote to stderr.
    pub(super) fn stop(mut self) -> Result<String> {
        kill(Pid::from_raw(self.pid().cast_signed()), Signal::SIGINT)
            .context("cannot interrupt it")?;
        let since = Instant::now();
        while self.child.try_wait()?.is_none() {
            if since.elapsed() > Duration::from_secs(60) {
                bail!("it does not end");
            }
            clock::pause(20);
        }
        Ok(notes())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already, which is what is wanted.
        let _already_dead = self.child.kill();
        let _already_waited = self.child.wait();
    }
}

fn notes() -> String {
    fs::read_to_string(NOTES).unwrap_or_default()
}

/// What a tracer writes to a pipe.
pub(super) struct Lines(BufReader<ChildStdout>);

impl Lines {
    /// The next line, waited for that long at most.
    pub(super) fn next(&mut self, patience: Duration) -> Result<Option<String>> {
        if self.0.buffer().is_empty() {
            let mut wanted = [PollFd::new(self.0.get_ref().as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
            if poll(&mut wanted, timeout).context("cannot poll")? == 0 {
                return Ok(None);
            }
        }
        let mut line = String::new();
        self.0.read_line(&mut line).context("cannot read a line")?;
        Ok(Some(line))
    }

    /// Reads on in the background, so that the pipe never fills.
    pub(super) fn drain(mut self) {
        std::thread::spawn(move || {
            let mut buffer = [0; 65536];
            while matches!(self.0.read(&mut buffer), Ok(length) if length > 0) {}
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_are_labels_modes_and_words() {
        let parsed = "pid:bind,open-close=/bin/portwatch trace --pid 1".parse::<Contender>();
        assert_eq!(
            parsed,
            Ok(Contender {
                label: "pid".into(),
                modes: Some(vec![Mode::Bind, Mode::OpenClose]),
                words: ["/bin/portwatch", "trace", "--pid", "1"]
                    .map(String::from)
                    .to_vec(),
            })
        );
        assert!(parsed.is_ok_and(|contender| contender.is_portwatch()));
        for nonsense in ["portwatch trace", "x:walk=ls", "x= "] {
            assert!(nonsense.parse::<Contender>().is_err(), "{nonsense}");
        }
    }
}
