//! The traced process: one operation, many times.

use std::{fs, net::Ipv4Addr};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use nix::{
    errno::Errno,
    fcntl::{self, OFlag},
    sys::stat::Mode as Permissions,
};

use super::{clock, program::Program};
use crate::sys::{
    addr::Address,
    bpf::{Cgroup, Refuse},
    proc,
    sock::{Kind, Sock},
    task,
};

/// What is done again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// socket, bind to 127.0.0.1 and a port that the kernel picks, close.
    Bind,
    /// The same on a port that is taken: EADDRINUSE.
    BindConflict,
    /// The same where a cgroup program refuses it: EPERM.
    BindRefused,
    /// The same with a UDP socket.
    UdpBind,
    /// socket, connect to a listener of the same thread, accept, close both (reset: no TIME_WAIT).
    Connect,
    /// The same with an orderly end, which leaves a TIME_WAIT.
    ConnectWait,
    /// getppid(2).
    Getppid,
    /// Reading one byte of /dev/zero.
    Read,
    /// Writing one byte to /dev/null.
    Write,
    /// Opening and closing /dev/null.
    OpenClose,
    /// fork, exit in the child, wait.
    Fork,
    /// fork, exec of a program of two system calls' worth, wait.
    Exec,
}

impl Mode {
    /// Its name in figures, which is the one on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    /// How often, so that every mode runs some 50 million instructions.
    pub(super) fn count(self) -> u64 {
        match self {
            Self::Bind | Self::BindConflict | Self::BindRefused | Self::UdpBind => 5000,
            Self::Connect | Self::ConnectWait => 2000,
            Self::Getppid | Self::Read | Self::Write | Self::OpenClose => 20_000,
            Self::Fork => 600,
            Self::Exec => 300,
        }
    }

    /// The loop's times from those of its parts.
    ///
    /// What sockets leave behind (RCU callbacks, the tracer's batches) falls into one part or the other
    /// and belongs to all: their sum is right. The other modes leave nothing behind, so whatever makes
    /// one part longer than most was the work of somebody else: the middle one stands for all.
    fn whole(self, parts: &[(u64, u64)]) -> (u64, u64) {
        let all = |part: fn(&(u64, u64)) -> u64| {
            let mut times: Vec<u64> = parts.iter().map(part).collect();
            times.sort_unstable();
            match self {
                Self::Bind | Self::BindConflict | Self::BindRefused => times.iter().sum(),
                Self::UdpBind | Self::Connect | Self::ConnectWait => times.iter().sum(),
                Self::Getppid | Self::Read | Self::Write | Self::OpenClose => middle(&times),
                Self::Fork | Self::Exec => middle(&times),
            }
        };
        (all(|part| part.0), all(|part| part.1))
    }
}

/// The loop is cut into this many parts.
pub(super) const BATCHES: u64 = 10;

#[derive(Debug, Args)]
pub(crate) struct Options {
    mode: Mode,
    /// How often.
    count: u64,
    /// The tracer, whose run time is read together with our own.
    #[arg(long)]
    tracer: Option<u32>,
}

/// The task's name while it works, by which its events are found in any tracer's output.
pub(super) const NAME: &str = "pw-workload";

/// What is printed: the loop by the machine's clock, our own part, and the tracer's clock before and
/// after it.
pub(super) struct Times {
    pub(super) machine: u64,
    pub(super) own: u64,
    pub(super) tracer_before: u64,
    pub(super) tracer_after: u64,
}

impl Times {
    /// Reads a line that [`run`] has printed.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.split_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self {
            machine: next()?,
            own: next()?,
            tracer_before: next()?,
            tracer_after: next()?,
        })
    }
}

/// Does it.
pub(super) fn run(options: &Options) -> Result<()> {
    let Options {
        mode,
        count,
        tracer,
    } = options;
    task::rename(NAME.as_bytes())?;
    let tracer = || tracer.map_or(Ok(0), clock::of);
    let mut operation = Operation::prepare(*mode)?;
    for _ in 0..count / 10 {
        operation.run()?;
    }
    // The tracer has printed what came of that.
    clock::pause(100);
    let tracer_before = tracer()?;
    let mut batches = Vec::new();
    for _ in 0..BATCHES {
        let (own, machine) = (clock::own()?, clock::machine()?);
        for _ in 0..count / BATCHES {
            operation.run()?;
        }
        batches.push((clock::machine()? - machine, clock::own()? - own));
    }
    let tracer_after = tracer()?;
    let (machine, own) = mode.whole(&batches);
    println!("{machine} {own} {tracer_before} {tracer_after}");
    Ok(())
}

/// The middle one of sorted times, as often as there are times.
fn middle(times: &[u64]) -> u64 {
    times.get(times.len() / 2).copied().unwrap_or(0) * times.len() as u64
}

/// A mode with what it needs.
enum Operation {
    Bind(Kind, Address),
    Refused {
        kind: Kind,
        at: Address,
        errno: Errno,
        _because_of: Keep,
    },
    Connect {
        listener: Sock,
        at: Address,
        /// Ends it without TIME_WAIT.
        resets: bool,
    },
    Getppid,
    Read(fs::File),
    Write(fs::File),
    OpenClose,
    Fork,
    Exec(Program),
}

/// What makes the operation fail, for as long as it lives.
enum Keep {
    Socket(#[expect(dead_code, reason = "kept to be dropped")] Sock),
    Cgroup(#[expect(dead_code, reason = "kept to be dropped")] Cgroup),
}

fn address(port: u16) -> Address {
    Address::from(std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

fn listener() -> Result<(Sock, Address)> {
    let sock = Sock::new(Kind::Tcp4)?;
    sock.bind(&address(0))?;
    sock.listen(128)?;
    let at = sock.local().context("a listener without an address")?;
    Ok((sock, Address::from(at)))
}

impl Operation {
    fn prepare(mode: Mode) -> Result<Self> {
        Ok(match mode {
            Mode::Bind => Self::Bind(Kind::Tcp4, address(0)),
            Mode::UdpBind => Self::Bind(Kind::Udp4, address(0)),
            Mode::BindConflict => {
                let (holder, at) = listener()?;
                Self::Refused {
                    kind: Kind::Tcp4,
                    at,
                    errno: Errno::EADDRINUSE,
                    _because_of: Keep::Socket(holder),
                }
            }
            Mode::BindRefused => {
                let own = proc::Me::learn()?.cgroup.unwrap_or_default();
                let cgroup = Cgroup::enter(&own)?.context("cgroup v2 is not mounted")?;
                cgroup.refuse(Refuse::Bind4)?;
                Self::Refused {
                    kind: Kind::Tcp4,
                    at: address(8080),
                    errno: Errno::EPERM,
                    _because_of: Keep::Cgroup(cgroup),
                }
            }
            Mode::Connect | Mode::ConnectWait => {
                let (listener, at) = listener()?;
                Self::Connect {
                    listener,
                    at,
                    resets: mode == Mode::Connect,
                }
            }
            Mode::Getppid => Self::Getppid,
            Mode::Read => Self::Read(fs::File::open("/dev/zero")?),
            Mode::Write => Self::Write(fs::OpenOptions::new().write(true).open("/dev/null")?),
            Mode::OpenClose => Self::OpenClose,
            Mode::Fork => Self::Fork,
            Mode::Exec => Self::Exec(Program::that_exits()?),
        })
    }

    fn run(&mut self) -> Result<()> {
        match self {
            Self::Bind(kind, at) => Sock::new(*kind)?.bind(at).context("bind")?,
            Self::Refused {
                kind, at, errno, ..
            } => {
                let result = Sock::new(*kind)?.bind(at);
                ensure!(result == Err(*errno), "bind: {result:?}, not {errno}");
            }
            Self::Connect {
                listener,
                at,
                resets,
            } => {
                let client = Sock::new(Kind::Tcp4)?;
                if *resets {
                    client.reset_on_close()?;
                }
                client.connect(at).context("connect")?;
                let accepted = listener.accept().context("accept")?;
                drop(client);
                drop(accepted);
            }
            Self::Getppid => {
                std::hint::black_box(task::parent());
            }
            Self::Read(file) => {
                std::io::Read::read_exact(file, &mut [0])?;
            }
            Self::Write(file) => {
                std::io::Write::write_all(file, &[0])?;
            }
            // Two calls: with O_CLOEXEC, as the standard library opens, musl makes a third, fcntl().
            Self::OpenClose => drop(fcntl::open(
                "/dev/null",
                OFlag::O_RDONLY,
                Permissions::empty(),
            )?),
            Self::Fork => fork_and_wait(|| {})?,
            Self::Exec(program) => fork_and_wait(|| {
                let program = program.path();
                let (argv, envp) = ([program.as_ptr(), std::ptr::null()], [std::ptr::null()]);
                // SAFETY: a C string and two arrays of C strings that end with a null pointer.
                unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
            })?,
        }
        Ok(())
    }
}

/// `work` must do nothing but system calls.
fn fork_and_wait(work: impl FnOnce()) -> Result<()> {
    // SAFETY: this process has one thread, and the child makes system calls only.
    match unsafe { libc::fork() } {
        -1 => bail!("fork: {}", Errno::last()),
        0 => {
            work();
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(0) }
        }
        pid => {
            task::wait(pid)?;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn every_mode_that_needs_no_root_does_what_it_says() {
        for mode in Mode::value_variants() {
            if *mode != Mode::BindRefused {
                let mut operation = Operation::prepare(*mode).unwrap();
                for _ in 0..3 {
                    operation.run().unwrap();
                }
            }
        }
    }

    #[test]
    fn somebody_elses_work_is_left_out_but_not_what_sockets_leave_behind() {
        let parts = [(10, 1), (11, 1), (12, 2), (90, 1), (11, 1)];
        assert_eq!(Mode::Getppid.whole(&parts), (55, 5));
        assert_eq!(Mode::Bind.whole(&parts), (134, 6));
    }

    #[test]
    fn times_are_read_back() {
        let times = Times::parse("10 9 3 4\n").unwrap();
        assert_eq!(
            (
                times.machine,
                times.own,
                times.tracer_before,
                times.tracer_after
            ),
            (10, 9, 3, 4)
        );
        assert!(Times::parse("10 9 3").is_none());
        assert!(Times::parse("portwatch-tests: bind").is_none());
    }
}
