//! The other side of the fork, up to exec.
//!
//! Own fork instead of `std::process::Command`: that one returns from `spawn` only after exec, and
//! what is needed here is a process that waits before it. Between fork and exec only
//! async-signal-safe calls are allowed (signal-safety(7)), because another thread may have held any
//! lock; so everything is looked up and laid out before, and [`Prepared::run`] allocates nothing,
//! takes no lock and cannot panic.

use std::{
    ffi::{CStr, CString, OsStr, OsString, c_char, c_int},
    io,
    os::{
        fd::RawFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    ptr,
};

use super::caller::{Credentials, RunAs};
use crate::host::privilege::sets::Sets;

/// Where PATH is not set (execvp(3)).
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// The descriptor by which the two sides talk, on the command's side: the first after stderr.
const CONTROL: RawFd = 3;

/// Exit status of a process that did not get to exec; nobody is told.
const NOT_STARTED: c_int = 1;

/// What failed before exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// Taking on the user's ids.
    Credentials = 1,
    /// Giving up capabilities.
    Capabilities = 2,
    /// The exec itself.
    Exec = 3,
}

/// What the command's side reports: nothing on success, else where it failed and with which errno.
pub(super) const REPORT_LEN: usize = 5;

/// Reads a report.
pub(super) fn parse_report(report: [u8; REPORT_LEN]) -> Option<(Stage, io::Error)> {
    let [stage, errno @ ..] = report;
    let stage = [Stage::Credentials, Stage::Capabilities, Stage::Exec]
        .into_iter()
        .find(|&known| known as u8 == stage)?;
    Some((
        stage,
        io::Error::from_raw_os_error(i32::from_ne_bytes(errno)),
    ))
}

/// Everything exec needs, laid out as it wants it.
pub(super) struct Prepared {
    credentials: Option<Credentials>,
    give_up_capabilities: bool,
    /// The files to try, in order.
    paths: Vec<CString>,
    /// They come from PATH.
    by_path: bool,
    // The pointers below point into these.
    _arguments: Vec<CString>,
    _environment: Vec<CString>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// `argv` for a script without `#!`: the second one is filled in when it is known.
    shell_argv: Vec<*const c_char>,
}

impl Prepared {
    /// Fails only on a NUL inside a word, which no command line can hold.
    pub(super) fn new(command: &[OsString], run_as: &RunAs, uid: u32) -> io::Result<Self> {
        let arguments = command
            .iter()
            .map(|word| Ok(CString::new(word.as_bytes())?))
            .collect::<io::Result<Vec<_>>>()?;
        let program = command.first().map(OsString::as_os_str).unwrap_or_default();
        let path = std::env::var_os("PATH");
        let environment = run_as.environment();
        let argv = pointers(&arguments);
        let mut shell_argv = vec![c"/bin/sh".as_ptr(), ptr::null()];
        shell_argv.extend(argv.iter().skip(1));
        Ok(Self {
            // Root keeps what is root's: its capabilities come from its id, not from portwatch,
            // and a server it starts needs them to bind port 80 and to change its own user.
            give_up_capabilities: run_as.credentials.as_ref().map_or(uid, |to| to.uid) != 0,
            credentials: run_as.credentials.clone(),
            paths: candidates(program, path.as_deref())?,
            by_path: !program.as_bytes().contains(&b'/'),
            envp: pointers(&environment),
            argv,
            shell_argv,
            _arguments: arguments,
            _environment: environment,
        })
    }

    /// Waits for a byte from the other side, then becomes the command.
    ///
    /// # Safety
    ///
    /// To be called right after fork, in the new process, with all signals blocked; `control` is an
    /// open socket.
    pub(super) unsafe fn run(&mut self, control: RawFd) -> ! {
        // SAFETY: system calls on integers and on memory of this function; the caller vouches for
        // the rest.
        unsafe {
            // First of all: a copy of the other side's end of the socket would hide its death.
            if control != CONTROL && libc::dup3(control, CONTROL, libc::O_CLOEXEC) < 0 {
                libc::_exit(NOT_STARTED);
            }
            close_from(CONTROL + 1);
            restore_signals();
            let mut go = 0u8;
            let told = loop {
                let read = libc::read(CONTROL, (&raw mut go).cast(), 1);
                if read >= 0 || *libc::__errno_location() != libc::EINTR {
                    break read == 1;
                }
            };
            if !told {
                libc::_exit(NOT_STARTED);
            }
            let stage = if !self.change_user() {
                Stage::Credentials
            } else if self.give_up_capabilities && !give_up_capabilities() {
                Stage::Capabilities
            } else {
                self.exec();
                Stage::Exec
            };
            let [a, b, c, d] = (*libc::__errno_location()).to_ne_bytes();
            let report = [stage as u8, a, b, c, d];
            libc::write(CONTROL, report.as_ptr().cast(), report.len());
            libc::_exit(NOT_STARTED);
        }
    }

    /// Groups first: after the user has changed they may no longer be set.
    unsafe fn change_user(&self) -> bool {
        let Some(Credentials { uid, gid, groups }) = &self.credentials else {
            return true;
        };
        // SAFETY: the list is as long as said.
        unsafe {
            libc::setgroups(groups.len(), groups.as_ptr()) == 0
                && libc::setresgid(*gid, *gid, *gid) == 0
                && libc::setresuid(*uid, *uid, *uid) == 0
        }
    }

    /// As execvp(3) does it, but for directories of PATH that the user may not look into, which
    /// are root's: what is not seen there is not found rather than not permitted. Returns with
    /// errno where nothing could be executed.
    unsafe fn exec(&mut self) {
        let mut denied = false;
        for path in &self.paths {
            // SAFETY: lists of C strings, ended by null, that live as long as `self`.
            unsafe {
                libc::execve(path.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr());
            }
            // SAFETY: the thread's errno.
            match unsafe { *libc::__errno_location() } {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES if self.by_path => {
                    // SAFETY: a C string.
                    denied |= unsafe { libc::access(path.as_ptr(), libc::F_OK) } == 0;
                }
                libc::EACCES => denied = true,
                libc::ENOEXEC => {
                    if let Some(script) = self.shell_argv.get_mut(1) {
                        *script = path.as_ptr();
                    }
                    // SAFETY: as above.
                    unsafe {
                        libc::execve(
                            c"/bin/sh".as_ptr(),
                            self.shell_argv.as_ptr(),
                            self.envp.as_ptr(),
                        );
                    }
                    return;
                }
                _ => return,
            }
        }
        // SAFETY: the thread's errno.
        unsafe {
            *libc::__errno_location() = if denied { libc::EACCES } else { libc::ENOENT };
        }
    }
}

/// The files a command may mean: itself if it has a slash, else one in each directory of PATH.
fn candidates(program: &OsStr, path: Option<&OsStr>) -> io::Result<Vec<CString>> {
    let program = program.as_bytes();
    if program.is_empty() {
        return Ok(Vec::new());
    }
    if program.contains(&b'/') {
        return Ok(vec![CString::new(program)?]);
    }
    path.map_or(DEFAULT_PATH, OsStr::as_bytes)
        .split(|&byte| byte == b':')
        .map(|directory| {
            // An empty one is the current directory.
            let directory = if directory.is_empty() {
                b"."
            } else {
                directory
            };
            let mut file = OsString::from_vec(directory.to_vec());
            file.push("/");
            file.push(OsStr::from_bytes(program));
            Ok(CString::new(file.into_vec())?)
        })
        .collect()
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|string| CStr::as_ptr(string))
        .chain([ptr::null()])
        .collect()
}

/// Closes all descriptors from `first` on.
unsafe fn close_from(first: RawFd) {
    // SAFETY: system calls on integers. Nothing in this process uses those descriptors any more.
    unsafe {
        // Linux 5.9; a seccomp filter older than that may refuse it.
        if libc::syscall(libc::SYS_close_range, first, c_int::MAX, 0) == 0 {
            return;
        }
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        let last = c_int::try_from(limit.rlim_cur).unwrap_or(c_int::MAX);
        for descriptor in first..last {
            libc::close(descriptor);
        }
    }
}

/// Takes back what portwatch and its runtime did to signals: handlers (exec would do that, but a
/// signal may come before), the ignored SIGPIPE of every Rust program, the mask. What was ignored
/// already when portwatch started, as by nohup(1), stays so.
unsafe fn restore_signals() {
    // SAFETY: all-zero is a valid value of both types, and the calls keep to them. A number that is
    // no signal, or one of the C library's own, is refused.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        for signal in 1..=64 {
            if libc::sigaction(signal, ptr::null(), &raw mut action) != 0 {
                continue;
            }
            if action.sa_sigaction != libc::SIG_IGN || signal == libc::SIGPIPE {
                action.sa_sigaction = libc::SIG_DFL;
                action.sa_flags = 0;
                libc::sigaction(signal, &raw const action, ptr::null_mut());
            }
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Clears permitted, effective and inheritable, and with them ambient (capabilities(7)): a change
/// of user leaves the inheritable ones, and without one file capabilities are still there.
fn give_up_capabilities() -> bool {
    Sets::default().put_in_force().is_ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn found(program: &str, path: Option<&str>) -> Vec<String> {
        candidates(program.as_ref(), path.map(OsStr::new))
            .unwrap()
            .into_iter()
            .map(|path| path.into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_name_is_looked_for_in_path() {
        assert_eq!(found("ls", Some("/a:/b")), ["/a/ls", "/b/ls"]);
        assert_eq!(found("ls", Some(":/b:")), ["./ls", "/b/ls", "./ls"]);
        assert_eq!(found("ls", None), ["/bin/ls", "/usr/bin/ls"]);
        assert_eq!(found("./ls", Some("/a")), ["./ls"]);
        assert_eq!(found("/a/ls", Some("/b")), ["/a/ls"]);
        assert_eq!(found("", Some("/a")), [""; 0]);
        assert!(candidates("a\0b".as_ref(), None).is_err());
    }

    #[test]
    fn reports_come_back() {
        let report = |stage: u8, errno: i32| {
            let [a, b, c, d] = errno.to_ne_bytes();
            let (stage, error) = parse_report([stage, a, b, c, d])?;
            Some((stage, error.raw_os_error()?))
        };
        assert_eq!(
            report(Stage::Exec as u8, libc::ENOENT),
            Some((Stage::Exec, libc::ENOENT))
        );
        assert_eq!(
            report(Stage::Credentials as u8, libc::EPERM),
            Some((Stage::Credentials, libc::EPERM))
        );
        assert_eq!(report(0, 1), None);
        assert_eq!(report(9, 1), None);
    }

    proptest! {
        #[test]
        fn every_candidate_ends_in_the_name(program in "[a-z]{1,8}", path in "[a-z/:]{0,20}") {
            let end = format!("/{program}");
            for candidate in found(&program, Some(&path)) {
                prop_assert!(candidate.ends_with(&end));
            }
        }
    }
}
