//! What comes out of a guest: kernel messages on the first serial port, results on the second.

use std::time::{Duration, Instant};

/// The version of PID 1's lines; see `tests/src/bin/vm-init.rs`.
const PROTOCOL: &str = "1";

/// A line of the second port.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Line {
    /// PID 1 runs.
    Hello,
    /// The kernel's release.
    Kernel(String),
    /// Something odd that need not matter.
    Note(String),
    /// A job starts.
    Begin(String),
    /// It wrote a line to stdout.
    Out(String),
    /// It wrote a line to stderr.
    Err(String),
    /// It ended.
    End(String, End),
    /// All jobs have run.
    Done,
    /// None of these.
    Unknown(String),
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum End {
    /// With this exit code.
    Exit(i32),
    /// Otherwise: by a signal, or for lack of time.
    Other(String),
}

impl Line {
    /// Understands one line.
    pub(crate) fn parse(line: &str) -> Line {
        let line = line.trim_end_matches('\r');
        let (word, text) = line.split_once(' ').unwrap_or((line, ""));
        let own = || text.to_string();
        match word {
            "hello" if text == PROTOCOL => Line::Hello,
            "kernel" => Line::Kernel(own()),
            "note" => Line::Note(own()),
            "begin" => Line::Begin(own()),
            "out" => Line::Out(own()),
            "err" => Line::Err(own()),
            "done" => Line::Done,
            "end" => match text.split_once(' ') {
                Some((id, how)) => Line::End(id.to_string(), End::parse(how)),
                None => Line::Unknown(line.to_string()),
            },
            _ => Line::Unknown(line.to_string()),
        }
    }
}

impl End {
    fn parse(how: &str) -> End {
        match how.strip_prefix("exit ").and_then(|code| code.parse().ok()) {
            Some(code) => End::Exit(code),
            None => End::Other(how.to_string()),
        }
    }
}

/// Cuts a growing text into whole lines.
#[derive(Default)]
pub(crate) struct Splitter {
    rest: Vec<u8>,
}

impl Splitter {
    /// Takes more bytes in, gives the lines that are complete now.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        String::from_utf8_lossy(&whole)
            .lines()
            .map(String::from)
            .collect()
    }
}

/// Kernel messages that end a run: whatever ran can no longer be trusted.
const TROUBLE: &[&str] = &[
    "Kernel panic",
    "BUG: ",
    "Oops: ",
    "general protection fault",
    "unable to handle",
    "soft lockup",
    "hard LOCKUP",
    "blocked for more than",
    "Out of memory: Killed",
    "VFS: Unable to mount root",
];

/// Kernel messages worth a note.
const WARNINGS: &[&str] = &["WARNING: CPU", "detected stalls"];

/// What a line of the first port means.
#[derive(Debug, PartialEq)]
pub(crate) enum Health {
    /// Nothing.
    Fine,
    /// Worth a note.
    Warning,
    /// The end.
    Trouble,
}

/// Judges a kernel message.
pub(crate) fn judge(line: &str) -> Health {
    if TROUBLE.iter().any(|text| line.contains(text)) {
        Health::Trouble
    } else if WARNINGS.iter().any(|text| line.contains(text)) {
        Health::Warning
    } else {
        Health::Fine
    }
}

/// Where a boot stands, to know when to stop waiting.
pub(crate) struct Watch {
    started: Instant,
    last_line: Instant,
    booted: Option<Duration>,
    done: bool,
    patience: Patience,
}

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For PID 1's first line.
    pub(crate) boot: Duration,
    /// For the next line of a job, whatever it does.
    pub(crate) silence: Duration,
}

impl Watch {
    /// QEMU starts now.
    pub(crate) fn new(now: Instant, patience: Patience) -> Watch {
        Watch {
            started: now,
            last_line: now,
            booted: None,
            done: false,
            patience,
        }
    }

    /// PID 1 has written this line.
    pub(crate) fn line(&mut self, line: &Line, now: Instant) {
        self.last_line = now;
        match line {
            Line::Hello => self.booted = Some(now - self.started),
            Line::Done => self.done = true,
            _ => {}
        }
    }

    /// Why to stop waiting, if so.
    pub(crate) fn overdue(&self, now: Instant) -> Option<String> {
        let (since, limit, what) = match self.booted {
            None => (
                self.started,
                self.patience.boot,
                "no sign of life from PID 1",
            ),
            Some(_) => (self.last_line, self.patience.silence, "silence"),
        };
        (now - since > limit).then(|| format!("{what} for {} s", limit.as_secs()))
    }

    /// How long the boot took, once PID 1 has spoken.
    pub(crate) fn booted(&self) -> Option<Duration> {
        self.booted
    }

    /// Whether all jobs have run.
    pub(crate) fn done(&self) -> bool {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        assert_eq!(Line::parse("hello 1\r"), Line::Hello);
        assert_eq!(
            Line::parse("out   indented"),
            Line::Out("  indented".into())
        );
        assert_eq!(Line::parse("out"), Line::Out(String::new()));
        assert_eq!(Line::parse("done "), Line::Done);
        assert_eq!(
            Line::parse("end tracing exit 0"),
            Line::End("tracing".into(), End::Exit(0))
        );
        assert_eq!(
            Line::parse("end tracing signal 9"),
            Line::End("tracing".into(), End::Other("signal 9".into()))
        );
        assert_eq!(
            Line::parse("end tracing timeout"),
            Line::End("tracing".into(), End::Other("timeout".into()))
        );
    }

    #[test]
    fn a_foreign_version_is_no_hello() {
        assert_eq!(Line::parse("hello 2"), Line::Unknown("hello 2".into()));
    }

    #[test]
    fn lines_are_given_only_when_whole() {
        let mut splitter = Splitter::default();
        assert!(splitter.push(b"out o").is_empty());
        assert_eq!(splitter.push(b"k\r\nend x"), ["out ok"]);
        assert_eq!(
            splitter.push(b" exit 0\ndone \n"),
            ["end x exit 0", "done "]
        );
    }

    #[test]
    fn a_character_cut_in_two_arrives_whole() {
        let mut splitter = Splitter::default();
        let bytes = "out é\n".as_bytes();
        assert!(splitter.push(bytes.get(..5).unwrap_or_default()).is_empty());
        assert_eq!(splitter.push(bytes.get(5..).unwrap_or_default()), ["out é"]);
    }

    #[test]
    fn panics_and_lockups_are_recognised() {
        assert_eq!(
            judge("[    1.5] Kernel panic - not syncing: Attempted to kill init!"),
            Health::Trouble
        );
        assert_eq!(
            judge("[   40.1] watchdog: BUG: soft lockup - CPU#0 stuck for 22s!"),
            Health::Trouble
        );
        assert_eq!(
            judge("[    2.0] BUG: kernel NULL pointer dereference, address: 0"),
            Health::Trouble
        );
        assert_eq!(
            judge("[    2.0] WARNING: CPU: 0 PID: 1 at kernel/x.c:1"),
            Health::Warning
        );
        assert_eq!(
            judge("[    2.0] TCP: request_sock_TCP: Possible SYN flooding on port 80"),
            Health::Fine
        );
    }

    #[test]
    fn waiting_ends_at_the_right_moment() {
        let patience = Patience {
            boot: Duration::from_secs(60),
            silence: Duration::from_secs(90),
        };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Watch::new(start, patience);
        assert_eq!(watch.overdue(at(59)), None);
        assert_eq!(
            watch.overdue(at(61)).as_deref(),
            Some("no sign of life from PID 1 for 60 s")
        );
        watch.line(&Line::Hello, at(2));
        assert_eq!(watch.booted(), Some(Duration::from_secs(2)));
        watch.line(&Line::Out("x".into()), at(80));
        assert_eq!(watch.overdue(at(169)), None);
        assert_eq!(watch.overdue(at(171)).as_deref(), Some("silence for 90 s"));
        watch.line(&Line::Done, at(172));
        assert!(watch.done());
    }
}
