//! `-- COMMAND`: a process that is there, with a pid to filter for, but does nothing until it is
//! told to.

mod caller;
mod exec;

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork, geteuid},
};
use tokio::io::{Interest, unix::AsyncFd};

pub use caller::{CallerError, Credentials, RunAs};
use exec::{Prepared, REPORT_LEN, Stage, parse_report};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Status(u8),
    /// By this signal.
    Signal(u8),
}

impl Exit {
    /// The exit status that stands for it, as in a shell: the status, or 128 and the signal.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Status(status) => status,
            Self::Signal(signal) => 128u8.saturating_add(signal),
        }
    }
}

/// Why a command did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No such file.
    #[error("cannot run {command}: not found")]
    NotFound {
        /// Its name as typed.
        command: String,
    },
    /// A file that cannot be executed.
    #[error("cannot run {command}: {source}")]
    CannotRun {
        /// Its name as typed.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// It could not become the user it should run as.
    #[error("cannot run {command} as its user: {action}: {source}")]
    User {
        /// Its name as typed.
        command: String,
        /// What was tried.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The way to the waiting process broke.
    #[error("cannot start {command}: {source}")]
    Control {
        /// Its name as typed.
        command: String,
        /// Why.
        source: io::Error,
    },
}

impl StartError {
    /// The exit status that stands for it: 127 and 126 as env(1) has them, 4 for what is
    /// portwatch's own failure.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::CannotRun { .. } => 126,
            Self::User { .. } | Self::Control { .. } => 4,
        }
    }
}

/// A command that was, or will be, started.
///
/// Dropped before [`Child::release`], or should portwatch die before, the command never runs.
#[derive(Debug)]
pub struct Child {
    command: String,
    pid: Pid,
    pidfd: OwnedFd,
    /// Made at the first wait: before, there need be no runtime.
    watch: Option<AsyncFd<OwnedFd>>,
    /// Our end of the socket to the waiting process; gone once it was told to go.
    control: Option<UnixStream>,
    exit: Option<Exit>,
}

impl Child {
    /// Makes the process, which then waits. Best called early: it inherits the resource limits, and
    /// memory is copied for it as it changes here.
    ///
    /// # Errors
    ///
    /// The kernel's refusal of a socket or a process; a NUL in a word of the command.
    pub fn spawn(command: &[OsString], run_as: &RunAs) -> io::Result<Self> {
        let mut prepared = Prepared::new(command, run_as, geteuid().as_raw())?;
        let (control, theirs) = UnixStream::pair()?;

        // No handler of ours may run in the new process before it has put them away: tokio's
        // would write into the pipe that both then share.
        let mut before = SigSet::empty();
        sigprocmask(
            SigmaskHow::SIG_SETMASK,
            Some(&SigSet::all()),
            Some(&mut before),
        )?;
        // SAFETY: the new process does nothing but `Prepared::run`, which keeps to what is allowed
        // there.
        let forked = match unsafe { fork() } {
            // SAFETY: right after fork, signals blocked, the socket open.
            Ok(ForkResult::Child) => unsafe { prepared.run(theirs.as_raw_fd()) },
            Ok(ForkResult::Parent { child }) => Ok(child),
            Err(error) => Err(error),
        };
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
        let pid = forked?;
        Ok(Self {
            command: command
                .first()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            pid,
            pidfd: open_pidfd(pid)?,
            watch: None,
            control: Some(control),
            exit: None,
        })
    }

    /// Process id, in the pid namespace of portwatch.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Lets the command run, and returns when it does. A second call does nothing.
    ///
    /// One that was killed while it waited counts as started: [`Child::wait`] tells.
    ///
    /// # Errors
    ///
    /// What keeps it from running; [`StartError::code`] is the exit status for it.
    pub fn release(&mut self) -> Result<(), StartError> {
        let Some(mut control) = self.control.take() else {
            return Ok(());
        };
        // exec closes the other end; what could not be executed reports before that.
        let mut report = Vec::with_capacity(REPORT_LEN);
        let talked = match control.write_all(&[1]) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
            Err(error) => Err(error),
            Ok(()) => match control.read_to_end(&mut report) {
                // It died without having read the byte.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(0),
                result => result,
            },
        };
        let command = || self.command.clone();
        if let Err(source) = talked {
            return Err(StartError::Control {
                command: command(),
                source,
            });
        }
        let report = <[u8; REPORT_LEN]>::try_from(report).ok();
        let Some((stage, source)) = report.and_then(parse_report) else {
            return Ok(());
        };
        let error = match (stage, source.raw_os_error()) {
            (Stage::Exec, Some(libc::ENOENT)) => StartError::NotFound { command: command() },
            (Stage::Exec, _) => StartError::CannotRun {
                command: command(),
                source,
            },
            (Stage::Credentials, _) => StartError::User {
                command: command(),
                action: "changing user and groups",
                source,
            },
            (Stage::Capabilities, _) => StartError::User {
                command: command(),
                action: "giving up capabilities",
                source,
            },
        };
        // It has reported and is on its way out.
        self.reap();
        Err(error)
    }

    /// Waits for the end of the command. May be dropped and called again. Needs a tokio runtime
    /// with I/O.
    ///
    /// # Errors
    ///
    /// The runtime's or the kernel's refusal to watch or wait for the process.
    pub async fn wait(&mut self) -> io::Result<Exit> {
        loop {
            if let Some(exit) = self.exit {
                return Ok(exit);
            }
            let watch = match self.watch.take() {
                Some(watch) => watch,
                None => {
                    let pidfd = self.pidfd.try_clone()?;
                    // SAFETY: an owned descriptor stays open and the same as long as it lives.
                    unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?
                }
            };
            // A pidfd is readable once the process has ended, and stays so.
            let _ready = self.watch.insert(watch).readable().await?;
            self.exit = Some(exit_of(waitpid(self.pid, None)?)?);
        }
    }

    /// How the command ended, `None` while it runs.
    ///
    /// # Errors
    ///
    /// The kernel's refusal to tell.
    pub fn try_wait(&mut self) -> io::Result<Option<Exit>> {
        if self.exit.is_none() {
            self.exit = match waitpid(self.pid, Some(WaitPidFlag::WNOHANG))? {
                WaitStatus::StillAlive => None,
                status => Some(exit_of(status)?),
            };
        }
        Ok(self.exit)
    }

    /// Sends a signal to the command; one that has ended is past it.
    ///
    /// # Errors
    ///
    /// The kernel's refusal: a command that has changed its user may not be signalled without
    /// CAP_KILL.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        // SAFETY: a descriptor that is open, a signal, and neither information nor flags.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                signal as libc::c_int,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        match Errno::result(sent) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn reap(&mut self) {
        if self.exit.is_none() {
            self.exit = waitpid(self.pid, None)
                .ok()
                .and_then(|status| exit_of(status).ok());
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A process that still waits would end by itself, unless a terminal has stopped it.
        if self.control.take().is_some() && self.signal(Signal::SIGKILL).is_ok() {
            self.reap();
        }
    }
}

fn exit_of(status: WaitStatus) -> io::Result<Exit> {
    match status {
        // exit(3) keeps the low eight bits.
        WaitStatus::Exited(_, status) => Ok(Exit::Status(status.to_le_bytes()[0])),
        WaitStatus::Signaled(_, signal, _) => Ok(Exit::Signal((signal as i32).to_le_bytes()[0])),
        other => Err(io::Error::other(format!("not an end: {other:?}"))),
    }
}

/// A descriptor of a process, readable when it ends (pidfd_open(2); Linux 5.3).
fn open_pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: plain integers.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    match RawFd::try_from(opened) {
        // SAFETY: just made by the kernel, known to nobody else.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{
        fs,
        os::unix::fs::PermissionsExt,
        path::Path,
        time::{Duration, Instant},
    };

    use nix::sys::signal::{SigHandler, signal};

    use super::*;

    fn as_is() -> RunAs {
        RunAs {
            credentials: None,
            environment: Vec::new(),
            note: None,
        }
    }

    fn spawn(words: &[&str]) -> Child {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Child::spawn(&words, &as_is()).unwrap()
    }

    fn wait(child: &mut Child) -> Exit {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async {
                let patience = Duration::from_secs(20);
                tokio::time::timeout(patience, child.wait()).await.unwrap()
            })
            .unwrap()
    }

    fn run(words: &[&str]) -> Exit {
        let mut child = spawn(words);
        child.release().unwrap();
        wait(&mut child)
    }

    fn status(child: &Child, field: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", child.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
        line.unwrap().trim().to_owned()
    }

    fn end(mut child: Child) {
        child.signal(Signal::SIGKILL).unwrap();
        assert_eq!(wait(&mut child), Exit::Signal(9));
    }

    #[test]
    fn the_status_is_passed_on() {
        assert_eq!(run(&["true"]).code(), 0);
        assert_eq!(run(&["sh", "-c", "exit 7"]).code(), 7);
        assert_eq!(run(&["sh", "-c", "exit 255"]).code(), 255);
        assert_eq!(run(&["sh", "-c", "kill -9 $$"]).code(), 137);
        assert_eq!(run(&["sh", "-c", "kill -TERM $$"]).code(), 143);
    }

    #[test]
    fn a_look_does_not_wait() {
        let mut child = spawn(&["sleep", "60"]);
        child.release().unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        child.signal(Signal::SIGKILL).unwrap();
        assert_eq!(wait(&mut child), Exit::Signal(9));
        assert_eq!(child.try_wait().unwrap(), Some(Exit::Signal(9)));

        let mut child = spawn(&["sh", "-c", "exit 7"]);
        child.release().unwrap();
        let ended = std::iter::from_fn(|| {
            std::thread::sleep(Duration::from_millis(10));
            Some(child.try_wait().unwrap())
        });
        assert_eq!(ended.take(2000).flatten().next(), Some(Exit::Status(7)));
    }

    #[test]
    fn what_does_not_exist_is_127() {
        for name in ["portwatch-no-such-command", "/no/such/command", ""] {
            let mut child = spawn(&[name]);
            let error = child.release().unwrap_err();
            assert_eq!(error.code(), 127, "{error}");
            assert!(matches!(error, StartError::NotFound { .. }));
        }
    }

    #[test]
    fn what_cannot_be_run_is_126() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("plain");
        fs::write(&file, "exit 0").unwrap();
        for path in [directory.path(), &file] {
            let error = spawn(&[path.to_str().unwrap()]).release().unwrap_err();
            assert_eq!(error.code(), 126, "{error}");
        }
    }

    #[test]
    fn a_script_without_interpreter_line_runs_in_a_shell() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("script");
        fs::write(&script, "exit $1").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(run(&[script.to_str().unwrap(), "9"]), Exit::Status(9));
    }

    #[test]
    fn nothing_runs_before_the_release() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let mut child = spawn(&["touch", mark.to_str().unwrap()]);
        std::thread::sleep(Duration::from_millis(50));
        let exe = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert_eq!(exe(child.pid()), exe(std::process::id()));
        assert!(!mark.exists());
        child.release().unwrap();
        assert_eq!(wait(&mut child), Exit::Status(0));
        assert!(mark.exists());
        child.release().unwrap();
    }

    #[test]
    fn what_is_never_released_never_runs_and_leaves_no_process() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let child = spawn(&["touch", mark.to_str().unwrap()]);
        let proc = format!("/proc/{}", child.pid());
        drop(child);
        assert!(!Path::new(&proc).exists());
        assert!(!mark.exists());
    }

    #[test]
    fn the_death_of_portwatch_ends_what_waits() {
        let mut child = spawn(&["true"]);
        // What the kernel does with our end of the socket when we die.
        drop(child.control.take());
        assert_eq!(wait(&mut child), Exit::Status(1));
    }

    #[test]
    fn death_while_waiting_is_an_end_like_any_other() {
        let mut child = spawn(&["true"]);
        // Not SIGINT: a shell without job control ignores that for what it starts with `&`, and so
        // would this process and the child.
        child.signal(Signal::SIGUSR1).unwrap();
        assert_eq!(wait(&mut child), Exit::Signal(10));
        child.release().unwrap();
        child.signal(Signal::SIGTERM).unwrap();
        assert_eq!(wait(&mut child).code(), 138);
    }

    #[test]
    fn what_was_ignored_before_portwatch_stays_ignored() {
        // SAFETY: no handler, but a disposition that no other test looks at.
        let set = |action| unsafe { signal(Signal::SIGUSR2, action) }.unwrap();
        let before = set(SigHandler::SigIgn);
        let mut child = spawn(&["sleep", "60"]);
        child.release().unwrap();
        set(before);
        child.signal(Signal::SIGUSR2).unwrap();
        let ignored = u64::from_str_radix(&status(&child, "SigIgn"), 16).unwrap();
        assert_eq!(ignored >> (libc::SIGUSR2 - 1) & 1, 1);
        end(child);
    }

    #[test]
    fn signals_are_as_they_were_and_no_descriptor_is_left() {
        let directory = tempfile::tempdir().unwrap();
        // One that exec would not close.
        let file = fs::File::create(directory.path().join("open")).unwrap();
        // SAFETY: the descriptor is open.
        let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) };
        assert_eq!(flags, 0);
        let mut child = spawn(&["sleep", "60"]);
        child.release().unwrap();
        let descriptors = || {
            let mut descriptors: Vec<_> = fs::read_dir(format!("/proc/{}/fd", child.pid()))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            descriptors.sort();
            descriptors
        };
        // It opens its libraries first, one after the other.
        let deadline = Instant::now() + Duration::from_secs(10);
        while descriptors() != ["0", "1", "2"] && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(descriptors(), ["0", "1", "2"]);
        let signals = |field| u64::from_str_radix(&status(&child, field), 16).unwrap();
        assert_eq!(signals("SigBlk"), 0);
        assert_eq!(signals("SigIgn") >> (libc::SIGPIPE - 1) & 1, 0);
        assert_eq!(signals("SigCgt"), 0);
        end(child);
        // Whereas this test, like every Rust program, ignores it.
        let own = fs::read_to_string("/proc/self/status").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("SigIgn:\t"));
        let own = u64::from_str_radix(own.unwrap(), 16).unwrap();
        assert_eq!(own >> (libc::SIGPIPE - 1) & 1, 1);
    }

    #[test]
    fn a_command_runs_as_its_user_without_capabilities() {
        if !geteuid().is_root() {
            println!("skip: only root can become another user");
            return;
        }
        let run_as = RunAs {
            credentials: Some(Credentials {
                uid: 65534,
                gid: 65533,
                groups: vec![65533, 65532],
            }),
            environment: vec![
                ("HOME".into(), Some("/nowhere".into())),
                ("USER".into(), None),
            ],
            note: None,
        };
        let mut child = Child::spawn(&["sleep".into(), "60".into()], &run_as).unwrap();
        child.release().unwrap();
        assert_eq!(status(&child, "Uid"), "65534\t65534\t65534\t65534");
        assert_eq!(status(&child, "Gid"), "65533\t65533\t65533\t65533");
        assert_eq!(status(&child, "Groups"), "65532 65533");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status(&child, set), "0000000000000000", "{set}");
        }
        // The descriptor that tells of exec closes before the new memory is complete.
        let environment = loop {
            let read = fs::read(format!("/proc/{}/environ", child.pid())).unwrap();
            if !read.is_empty() {
                break read;
            }
            std::thread::yield_now();
        };
        let variables: Vec<&[u8]> = environment.split(|&byte| byte == 0).collect();
        assert!(variables.contains(&&b"HOME=/nowhere"[..]));
        assert!(!variables.iter().any(|pair| pair.starts_with(b"USER=")));
        end(child);
    }

    #[test]
    fn what_the_user_may_not_execute_is_126() {
        if !geteuid().is_root() {
            println!("skip: only root can become another user");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let script = directory.path().join("script");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let nobody = RunAs {
            credentials: Some(Credentials {
                uid: 65534,
                gid: 65534,
                groups: vec![65534],
            }),
            ..as_is()
        };
        let code = |command: &Path| {
            let mut child = Child::spawn(&[command.into()], &nobody).unwrap();
            child.release().unwrap_err().code()
        };
        assert_eq!(code(&script), 126);
        // Whatever directories of root's PATH nobody may look into.
        assert_eq!(code(Path::new("portwatch-no-such-command")), 127);
    }

    #[test]
    fn root_stays_root() {
        if !geteuid().is_root() {
            println!("skip: not root");
            return;
        }
        let mut child = spawn(&["sleep", "60"]);
        child.release().unwrap();
        let own = fs::read_to_string("/proc/self/status").unwrap();
        assert!(own.contains(&format!("CapEff:\t{}\n", status(&child, "CapEff"))));
        end(child);
    }

    #[test]
    fn failures_of_ours_are_not_the_command_s() {
        let error = StartError::User {
            command: "server".to_owned(),
            action: "changing user and groups",
            source: io::Error::from_raw_os_error(libc::EPERM),
        };
        assert_eq!(error.code(), 4);
        assert_eq!(
            error.to_string(),
            "cannot run server as its user: changing user and groups: Operation not permitted (os error 1)"
        );
    }
}
