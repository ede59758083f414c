//! Processes: forks that report back, other users, names, CPUs, chosen pids.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{Read as _, Write as _},
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    errno::Errno,
    sys::signal::{SigSet, Signal},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{check, check_long};

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(i32),
    Signal(i32),
}

/// A pipe, both ends close-on-exec: (read, write).
pub(crate) fn pipe() -> Result<(File, File)> {
    let mut fds = [0_i32; 2];
    // SAFETY: room for two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) }).context("pipe2")?;
    // SAFETY: the kernel has just returned them; nobody else owns them.
    let [read, write] = fds.map(|fd| File::from(unsafe { OwnedFd::from_raw_fd(fd) }));
    Ok((read, write))
}

/// Runs `work` in a forked process (optionally with a chosen pid) and hands back its pid, how it
/// ended, and what it returned; `None` when it died before that.
///
/// Only for single-threaded callers: the child goes on with the allocator as it stood.
pub(crate) fn fork_with<T, F>(pid: Option<i32>, work: F) -> Result<(u32, Ended, Option<T>)>
where
    T: Serialize + DeserializeOwned,
    F: FnOnce() -> Result<T>,
{
    let (mut read, mut write) = pipe()?;
    let child = match pid {
        // SAFETY: the caller is single-threaded, so that the child is a whole process.
        None => check(unsafe { libc::fork() }).context("fork")?,
        Some(pid) => fork_as(pid)?,
    };
    if child == 0 {
        drop(read);
        let status = match work().and_then(|value| Ok(serde_json::to_vec(&value)?)) {
            Ok(bytes) => i32::from(write.write_all(&bytes).is_err()),
            Err(error) => {
                eprintln!("in a forked process: {error:#}");
                1
            }
        };
        // SAFETY: ends the process without running the parent's destructors.
        unsafe { libc::_exit(status) };
    }
    drop(write);
    let mut bytes = Vec::new();
    read.read_to_end(&mut bytes)
        .context("reading from a fork")?;
    let ended = wait(child)?;
    let value = serde_json::from_slice(&bytes).ok();
    Ok((child.cast_unsigned(), ended, value))
}

/// Runs `work` in a forked process that must succeed.
pub(crate) fn fork_and<T, F>(work: F) -> Result<(u32, T)>
where
    T: Serialize + DeserializeOwned,
    F: FnOnce() -> Result<T>,
{
    match fork_with(None, work)? {
        (pid, Ended::Code(0), Some(value)) => Ok((pid, value)),
        (pid, ended, _) => bail!("forked process {pid} ended with {ended:?}"),
    }
}

/// fork() with a chosen pid: clone3() with `set_tid` (Linux 5.5, needs CAP_SYS_ADMIN).
fn fork_as(pid: i32) -> Result<i32> {
    #[repr(C)]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    let set_tid = [pid];
    let args = CloneArgs {
        exit_signal: libc::SIGCHLD as u64,
        set_tid: set_tid.as_ptr() as u64,
        set_tid_size: 1,
        ..CloneArgs::default()
    };
    // SAFETY: a valid clone_args; without CLONE_VM and a stack this is fork(). The libc's fork
    // handlers do not run, which a single-threaded caller can do without.
    let child = check_long(unsafe {
        libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>())
    })
    .with_context(|| format!("clone3 with pid {pid}"))?;
    Ok(i32::try_from(child)?)
}

/// Runs a program in a new process with a chosen pid and waits for it.
pub(crate) fn exec_as(pid: i32, program: &Path, args: &[String]) -> Result<Ended> {
    let child = fork_as(pid)?;
    if child == 0 {
        let error = Command::new(program).args(args).exec();
        eprintln!("cannot run {}: {error}", program.display());
        // SAFETY: ends the process without running the parent's destructors.
        unsafe { libc::_exit(127) };
    }
    wait(child)
}

/// Runs `work` in a forked process, which then becomes `program`: its pid and what `work` gave.
pub(crate) fn fork_then_exec<T, F>(work: F, program: &Path, args: &[&str]) -> Result<(u32, T)>
where
    T: Serialize + DeserializeOwned,
    F: FnOnce() -> Result<T>,
{
    let (mut read, mut write) = pipe()?;
    // SAFETY: the caller is single-threaded, so that the child is a whole process.
    let child = check(unsafe { libc::fork() }).context("fork")?;
    if child == 0 {
        let error = match work().and_then(|value| Ok(serde_json::to_writer(&mut write, &value)?)) {
            // exec() closes the pipe, which tells the parent that this was all.
            Ok(()) => Command::new(program).args(args).exec().into(),
            Err(error) => error,
        };
        eprintln!("in a forked process: {error:#}");
        // SAFETY: ends the process without running the parent's destructors.
        unsafe { libc::_exit(127) };
    }
    drop(write);
    let mut bytes = Vec::new();
    read.read_to_end(&mut bytes)
        .context("reading from a fork")?;
    let ended = wait(child)?;
    ensure!(
        ended == Ended::Code(0),
        "process {child} ended with {ended:?}"
    );
    let value = serde_json::from_slice(&bytes).context("nothing came from the fork")?;
    Ok((child.cast_unsigned(), value))
}

/// Runs a program as the first process of a pid namespace, hands on what ends programs, and ends as it
/// does.
pub(crate) fn contain(program: &OsStr, args: &[OsString]) -> Result<ExitCode> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGCHLD);
    signals.thread_block().context("cannot block signals")?;
    super::netns::unshare(libc::CLONE_NEWPID).context("cannot make a pid namespace")?;
    // SAFETY: the caller is single-threaded, so that the child is a whole process.
    let child = check(unsafe { libc::fork() }).context("fork")?;
    if child == 0 {
        let error = match die_with_parent()
            .and_then(|()| super::mount::own_processes())
            .and_then(|()| signals.thread_unblock().context("cannot unblock signals"))
        {
            Ok(()) => Command::new(program).args(args).exec().into(),
            Err(error) => error,
        };
        eprintln!("in a pid namespace: {error:#}");
        // SAFETY: ends the process without running the parent's destructors.
        unsafe { libc::_exit(127) };
    }
    loop {
        match signals.wait().context("sigwait")? {
            Signal::SIGCHLD => {
                let code = match wait(child)? {
                    Ended::Code(code) => code,
                    Ended::Signal(signal) => 128 + signal,
                };
                return Ok(ExitCode::from(u8::try_from(code)?));
            }
            other => signal(child.cast_unsigned(), other as i32)?,
        }
    }
}

/// setsid()
pub(crate) fn new_session() -> Result<()> {
    // SAFETY: takes nothing.
    check(unsafe { libc::setsid() }).context("setsid")?;
    Ok(())
}

/// Ties this process's life to that of the thread which started it (prctl(2), PR_SET_PDEATHSIG).
pub(crate) fn die_with_parent() -> Result<()> {
    // SAFETY: takes integers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })
        .context("PR_SET_PDEATHSIG")?;
    Ok(())
}

/// The pid of the calling process's parent.
pub(crate) fn parent() -> u32 {
    std::os::unix::process::parent_id()
}

/// Raises the limit of open descriptors, where it is lower.
pub(crate) fn allow_descriptors(count: u32) -> Result<()> {
    let count = libc::rlim_t::from(count);
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a valid rlimit.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }).context("getrlimit")?;
    limit.rlim_cur = limit.rlim_cur.max(count);
    limit.rlim_max = limit.rlim_max.max(count);
    // SAFETY: a valid rlimit.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })
        .with_context(|| format!("cannot have {count} descriptors"))?;
    Ok(())
}

/// Sets RLIMIT_MEMLOCK, in bytes; to unlimited where none are given and this process may raise it
/// (`LimitMEMLOCK=infinity` of systemd.exec(5)).
pub(crate) fn limit_locked_memory(bytes: Option<u64>) -> Result<()> {
    let bytes_or_all = bytes.unwrap_or(libc::RLIM_INFINITY);
    let limit = libc::rlimit {
        rlim_cur: bytes_or_all,
        rlim_max: bytes_or_all,
    };
    // SAFETY: a valid rlimit.
    match check(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) }) {
        // Root without CAP_SYS_RESOURCE: kernels that count maps against it are not tested so.
        Err(Errno::EPERM) if bytes.is_none() => Ok(()),
        done => done.map(drop).context("RLIMIT_MEMLOCK"),
    }
}

/// From now on no new descriptor is to be had.
pub(crate) fn allow_no_descriptors() -> Result<()> {
    let limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a valid rlimit.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })
        .context("setrlimit")?;
    Ok(())
}

/// Forks `work` and leaves it to itself. A parent that dies changes nothing.
pub(crate) fn detach(work: impl FnOnce()) -> Result<()> {
    // SAFETY: only called by single-threaded workloads.
    if check(unsafe { libc::fork() }).context("fork")? == 0 {
        work();
        // SAFETY: ends the process without running the parent's destructors.
        unsafe { libc::_exit(0) };
    }
    Ok(())
}

/// fork(); whether this is the child. The parent need not wait.
pub(crate) fn fork_away() -> Result<bool> {
    // SAFETY: only called by single-threaded workloads.
    Ok(check(unsafe { libc::fork() }).context("fork")? == 0)
}

/// From now on this process is the parent of orphans among its descendants.
pub(crate) fn adopt() -> Result<()> {
    // SAFETY: takes integers.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }).context("prctl")?;
    Ok(())
}

/// Waits until there are no children left; all have to end well.
pub(crate) fn wait_for_all() -> Result<()> {
    loop {
        match wait(-1) {
            Ok(Ended::Code(0)) => {}
            Ok(ended) => bail!("a child ended with {ended:?}"),
            Err(error) if error.downcast_ref() == Some(&Errno::ECHILD) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// A child that runs until told to stop by dropping this value.
pub(crate) struct Background {
    pid: i32,
}

impl Background {
    /// Forks `work`, which must not return.
    pub(crate) fn spawn(work: impl FnOnce()) -> Result<Self> {
        // SAFETY: only called by single-threaded workloads.
        let pid = check(unsafe { libc::fork() }).context("fork")?;
        if pid == 0 {
            // A parent that dies takes it along.
            // SAFETY: takes integers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            work();
            // SAFETY: ends the process without running the parent's destructors.
            unsafe { libc::_exit(1) };
        }
        Ok(Self { pid })
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// Waits until it ends by itself.
    pub(crate) fn ended(self) -> Result<Ended> {
        let ended = wait(self.pid);
        // Its pid may be another's now.
        std::mem::forget(self);
        ended
    }

    /// Waits until it sleeps in a system call that it has made last of all; its pid.
    pub(crate) fn asleep(&self) -> Result<u32> {
        let path = format!("/proc/{}/stat", self.pid);
        for _ in 0..1000 {
            let stat = std::fs::read_to_string(&path).with_context(|| path.clone())?;
            // After the name, which may hold anything.
            let state = stat
                .rsplit_once(") ")
                .and_then(|(_, rest)| rest.chars().next());
            if state == Some('S') {
                return Ok(self.pid());
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        bail!("process {} does not come to rest", self.pid)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // SAFETY: the child is ours and not yet reaped, so that the pid cannot be another's.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        let _ = wait(self.pid);
    }
}

/// Waits for a child.
pub(crate) fn wait(pid: i32) -> Result<Ended> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid integer.
        match check(unsafe { libc::waitpid(pid, &raw mut status, 0) }) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).with_context(|| format!("waitpid({pid})")),
            Ok(_) if libc::WIFSIGNALED(status) => return Ok(Ended::Signal(libc::WTERMSIG(status))),
            Ok(_) => return Ok(Ended::Code(libc::WEXITSTATUS(status))),
        }
    }
}

/// Becomes another user, for good: real, effective and saved id, no groups, no capabilities.
pub(crate) fn become_user(uid: u32) -> Result<()> {
    // SAFETY: takes integers; a null list of length 0.
    check(unsafe { libc::setgroups(0, std::ptr::null()) }).context("setgroups")?;
    // SAFETY: takes integers.
    check(unsafe { libc::setresgid(uid, uid, uid) }).context("setresgid")?;
    // SAFETY: takes integers.
    check(unsafe { libc::setresuid(uid, uid, uid) }).context("setresuid")?;
    Ok(())
}

/// Runs `work` with another effective user id, the one that owns new sockets.
pub(crate) fn with_effective_user<T>(uid: u32, work: impl FnOnce() -> T) -> Result<T> {
    // SAFETY: takes an integer.
    check(unsafe { libc::seteuid(uid) }).context("seteuid")?;
    let value = work();
    // SAFETY: takes an integer; the saved id is still root's.
    check(unsafe { libc::seteuid(0) }).context("seteuid back")?;
    Ok(value)
}

/// Sets the calling thread's name (at most 15 bytes count).
pub(crate) fn rename(name: &[u8]) -> Result<()> {
    let mut buffer = [0_u8; 16];
    for (to, from) in buffer.iter_mut().zip(name.iter().take(15)) {
        *to = *from;
    }
    // SAFETY: sixteen bytes, NUL-terminated.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, buffer.as_ptr()) }).context("PR_SET_NAME")?;
    Ok(())
}

/// Ties the calling thread to one CPU.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    // SAFETY: all-zero is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    ensure!(cpu < 1024, "CPU {cpu} does not fit a cpu_set_t");
    // SAFETY: within the set, as checked.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: a valid set of that size.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) })
        .with_context(|| format!("cannot move to CPU {cpu}"))?;
    Ok(())
}

/// The CPUs the calling thread may use.
pub(crate) fn cpus() -> Result<Vec<usize>> {
    // SAFETY: all-zero is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: a set of that size.
    check(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) })
        .context("sched_getaffinity")?;
    // SAFETY: all within the set.
    Ok((0..1024)
        .filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) })
        .collect())
}

/// Makes a signal interrupt a blocked call (no SA_RESTART) and do nothing else.
pub(crate) fn interrupt_on(signal: i32) -> Result<()> {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: all-zero is a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as *const () as usize;
    // SAFETY: a valid action whose handler does nothing.
    check(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) })
        .context("sigaction")?;
    Ok(())
}

/// SIGALRM after so many milliseconds.
pub(crate) fn alarm(milliseconds: u32) -> Result<()> {
    let timer = libc::itimerval {
        it_interval: libc::timeval {
            tv_sec: 0,
            tv_usec: 0,
        },
        it_value: libc::timeval {
            tv_sec: (milliseconds / 1000).into(),
            tv_usec: (milliseconds % 1000 * 1000).into(),
        },
    };
    // SAFETY: a valid itimerval.
    check(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) })
        .context("setitimer")?;
    Ok(())
}

/// Sends a signal to a process that this one started and has not yet waited for.
pub(crate) fn signal(pid: u32, signal: i32) -> Result<()> {
    // SAFETY: takes integers.
    check(unsafe { libc::kill(pid.cast_signed(), signal) })
        .with_context(|| format!("kill({pid}, {signal})"))?;
    Ok(())
}

/// Makes bind() fail with EPERM from here on, in this process, before it starts (seccomp).
pub(crate) fn forbid_bind() -> Result<()> {
    let op = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap_or(u16::MAX),
        jt,
        jf,
        k,
    };
    let number = u32::try_from(libc::SYS_bind)?;
    let mut filter = [
        // Offset 0 of struct seccomp_data is the number of the system call.
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        op(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned(),
        ),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: takes integers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).context("no_new_privs")?;
    // SAFETY: a valid program of that length.
    check(unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    })
    .context("cannot install a seccomp filter")?;
    Ok(())
}
