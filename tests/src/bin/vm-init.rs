//! PID 1 of the test VM, and its whole userland.
//!
//! It mounts what programs expect, loads the kernel modules of the initramfs, runs the jobs listed
//! in `/etc/vm/jobs` one after the other, and powers off. The host reads what happens from a second
//! serial port, where the kernel writes nothing, so that its messages never cut a line in two.
//!
//! Lines on that port are a word, a space and text (the reader is `xtask/src/vm/console.rs`):
//!
//! ```text
//! hello 1                      first of all: the version of this protocol
//! kernel RELEASE               as uname(2) gives it
//! note TEXT                    something went wrong that need not matter: a mount, a module
//! begin ID                     a job starts
//! out TEXT / err TEXT          a line that it wrote to stdout or stderr
//! end ID exit N                how it ended: `exit N`, `signal N`, `timeout` or `lost WHY`
//! done                         all jobs have run; power off follows
//! ```
//!
//! Jobs are lines of fields separated by tabs:
//!
//! ```text
//! run ID SECONDS PROGRAM ARG…              run it, at most that long
//! each SECONDS PROGRAM ARG… ; PROGRAM ARG… run the first; for each line it prints, as ID, run the
//!                                          second with `{}` replaced by that line
//!                                          and `{n}` by its number, from 0
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sethostname};

const PROTOCOL: u32 = 1;
const PORT: &str = "/dev/ttyS1";
const JOBS: &str = "/etc/vm/jobs";
const MODULES: &str = "/modules";
const SYSTEMD: &str = "/usr/lib/systemd/systemd";
/// Where this process listens, as systemd would for a socket unit.
const ACTIVATED: &str = "[::]:6720";

/// Source, target and type of each mount, in order. Some kernels lack one or the other.
const MOUNTS: &[(&str, &str, &str)] = &[
    ("proc", "/proc", "proc"),
    ("sysfs", "/sys", "sysfs"),
    ("devpts", "/dev/pts", "devpts"),
    ("tmpfs", "/dev/shm", "tmpfs"),
    ("tmpfs", "/tmp", "tmpfs"),
    ("tmpfs", "/run", "tmpfs"),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2"),
    ("securityfs", "/sys/kernel/security", "securityfs"),
    ("debugfs", "/sys/kernel/debug", "debugfs"),
    ("tracefs", "/sys/kernel/tracing", "tracefs"),
    ("bpf", "/sys/fs/bpf", "bpf"),
];

fn main() {
    if std::process::id() != 1 {
        eprintln!(
            "vm-init: this is the first process of a test VM; start one with `cargo xtask test --vm`"
        );
        std::process::exit(2);
    }
    if std::env::args_os()
        .next()
        .is_none_or(|name| name != SYSTEMD)
    {
        let error = become_systemd();
        eprintln!("vm-init: not under systemd's name: {error:#}");
    }
    let dev = mount_one("devtmpfs", "/dev", "devtmpfs");
    match OpenOptions::new().write(true).open(PORT) {
        Ok(port) => {
            let mut host = Host(port);
            host.line("hello", &PROTOCOL.to_string());
            if let Err(error) = dev.and_then(|()| serve(&mut host)) {
                host.line("note", &format!("{error:#}"));
            }
        }
        Err(error) => eprintln!("vm-init: cannot open {PORT}: {error}"),
    }
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    eprintln!("vm-init: cannot power off: {error}");
}

/// The serial port to the host.
struct Host(File);

impl Host {
    /// Writes one line. A port that cannot be written leaves no way to say so but the console.
    fn line(&mut self, word: &str, text: &str) {
        let text: String = text
            .chars()
            .map(|c| if c == '\n' || c == '\r' { ' ' } else { c })
            .collect();
        if let Err(error) = self.0.write_all(format!("{word} {text}\n").as_bytes()) {
            eprintln!("vm-init: cannot write to {PORT}: {error}");
        }
    }
}

fn serve(host: &mut Host) -> Result<()> {
    for (source, target, kind) in MOUNTS {
        if let Err(error) = mount_one(source, target, kind) {
            host.line("note", &format!("{error:#}"));
        }
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("cannot read the kernel's release")?;
    host.line("kernel", release.trim());
    if let Err(error) = sethostname("portwatch-vm") {
        host.line("note", &format!("cannot set the host name: {error}"));
    }
    load_modules(host);
    if let Err(error) = bring_up("lo") {
        host.line("note", &format!("{error:#}"));
    }
    let _activated = match hold_for_a_unit() {
        Ok(listener) => Some(listener),
        Err(error) => {
            host.line("note", &format!("{error:#}"));
            None
        }
    };
    let jobs = fs::read_to_string(JOBS).with_context(|| format!("cannot read {JOBS}"))?;
    for line in jobs.lines().filter(|line| !line.is_empty()) {
        match Job::parse(line)? {
            Job::Run { id, limit, argv } => {
                run(host, &id, limit, &argv);
            }
            Job::Each { limit, list, argv } => {
                for (place, item) in run(host, "list", limit, &list).into_iter().enumerate() {
                    let place = place.to_string();
                    let fill = |arg: &String| arg.replace("{}", &item).replace("{n}", &place);
                    let argv: Vec<String> = argv.iter().map(fill).collect();
                    run(host, &item, limit, &argv);
                }
            }
        }
    }
    host.line("done", "");
    Ok(())
}

/// Starts again under the name that the first process of most machines has, by which portwatch knows
/// who keeps sockets open for others. Returns only if that fails.
fn become_systemd() -> anyhow::Error {
    let link = || -> std::io::Result<()> {
        fs::create_dir_all(Path::new(SYSTEMD).parent().unwrap_or(Path::new("/")))?;
        fs::hard_link("/init", SYSTEMD)
    };
    match link() {
        Ok(()) => Command::new(SYSTEMD).exec().into(),
        Err(error) => error.into(),
    }
}

/// What systemd as the first process does for a socket unit: it listens and accepts nothing. Jobs are
/// told where.
fn hold_for_a_unit() -> Result<TcpListener> {
    TcpListener::bind(ACTIVATED).with_context(|| format!("cannot listen on {ACTIVATED}"))
}

fn mount_one(source: &str, target: &str, kind: &str) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("cannot make {target}"))?;
    match mount(
        Some(source),
        target,
        Some(kind),
        MsFlags::empty(),
        None::<&str>,
    ) {
        // Some kernels mount devtmpfs by themselves.
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(error) => bail!("cannot mount {kind} on {target}: {error}"),
    }
}

/// Loads the modules of the initramfs; their file names sort in the order of their dependencies.
fn load_modules(host: &mut Host) {
    let Ok(entries) = fs::read_dir(MODULES) else {
        return;
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if let Err(error) = load_module(&path) {
            host.line("note", &format!("{error:#}"));
        }
    }
}

fn load_module(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => bail!("cannot load {}: {error}", path.display()),
    }
}

/// Sets IFF_UP (netdevice(7)): what `ip link set NAME up` does.
fn bring_up(name: &str) -> Result<()> {
    use std::os::fd::AsRawFd;
    let socket =
        std::net::UdpSocket::bind("0.0.0.0:0").context("cannot open a socket for ioctl")?;
    // SAFETY: ifreq is plain data; all zeroes is a valid value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives until the call returns.
    if unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    } < 0
    {
        bail!(
            "cannot bring {name} up: {}",
            std::io::Error::last_os_error()
        );
    }
    Ok(())
}

#[derive(Debug, PartialEq)]
enum Job {
    Run {
        id: String,
        limit: Duration,
        argv: Vec<String>,
    },
    Each {
        limit: Duration,
        list: Vec<String>,
        argv: Vec<String>,
    },
}

impl Job {
    fn parse(line: &str) -> Result<Job> {
        let fields: Vec<String> = line.split('\t').map(String::from).collect();
        match fields.as_slice() {
            [kind, id, limit, argv @ ..] if kind == "run" && !argv.is_empty() => Ok(Job::Run {
                id: id.clone(),
                limit: seconds(limit)?,
                argv: argv.to_vec(),
            }),
            [kind, limit, rest @ ..] if kind == "each" => {
                let (list, argv) = rest
                    .iter()
                    .position(|field| field == ";")
                    .map(|at| (&rest[..at], &rest[at + 1..]))
                    .filter(|(list, argv)| !list.is_empty() && !argv.is_empty())
                    .with_context(|| {
                        format!("two programs with `;` between them are needed in: {line}")
                    })?;
                Ok(Job::Each {
                    limit: seconds(limit)?,
                    list: list.to_vec(),
                    argv: argv.to_vec(),
                })
            }
            _ => bail!("not a job: {line}"),
        }
    }
}

fn seconds(text: &str) -> Result<Duration> {
    text.parse()
        .map(Duration::from_secs)
        .with_context(|| format!("not a number of seconds: {text}"))
}

enum Output {
    Out(String),
    Err(String),
}

/// Runs one job and returns the lines of its standard output.
///
/// As PID 1 it also collects every orphan, so the job's own status is taken from the same wait.
/// Whatever a job leaves running is named and killed: the next job starts on a clean machine.
fn run(host: &mut Host, id: &str, limit: Duration, argv: &[String]) -> Vec<String> {
    host.line("begin", id);
    let (lines, end) = match supervise(host, limit, argv) {
        Ok(done) => done,
        Err(error) => (Vec::new(), format!("lost {error:#}")),
    };
    host.line("end", &format!("{id} {end}"));
    lines
}

fn supervise(host: &mut Host, limit: Duration, argv: &[String]) -> Result<(Vec<String>, String)> {
    let [program, args @ ..] = argv else {
        bail!("no program")
    };
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .envs([
            ("PATH", "/bin"),
            ("HOME", "/root"),
            ("TERM", "dumb"),
            ("RUST_BACKTRACE", "1"),
            // Read by the scenario puzzle_12_socket_unit.
            ("PID1_LISTENS_ON", ACTIVATED),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let (send, receive) = channel();
    if let Some(pipe) = child.stdout.take() {
        forward(pipe, send.clone(), Output::Out);
    }
    if let Some(pipe) = child.stderr.take() {
        forward(pipe, send, Output::Err);
    }
    let deadline = Instant::now() + limit;
    let mut lines = Vec::new();
    let mut end = None;
    while end.is_none() {
        drain(host, &receive, Duration::from_millis(20), &mut lines);
        end = reap(pid);
        if end.is_none() && Instant::now() > deadline {
            end = Some("timeout".to_string());
        }
    }
    for (pid, name) in survivors() {
        host.line("note", &format!("left running: {name} (pid {pid})"));
    }
    // Pid -1: everything but ourselves (kill(2)). Nobody being left is no error here.
    if let Err(error) = kill(Pid::from_raw(-1), Signal::SIGKILL)
        && error != Errno::ESRCH
    {
        host.line("note", &format!("cannot kill what is left: {error}"));
    }
    // With the last writer dead both pipes end; the bound is for a process stuck in the kernel.
    let patience = Instant::now() + Duration::from_secs(5);
    while drain(host, &receive, Duration::from_millis(20), &mut lines) && Instant::now() < patience
    {
        reap(pid);
    }
    reap(pid);
    Ok((lines, end.unwrap_or_default()))
}

fn forward(pipe: impl Read + Send + 'static, to: Sender<Output>, wrap: fn(String) -> Output) {
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(length) if length > 0) {
            let text = String::from_utf8_lossy(&line)
                .trim_end_matches('\n')
                .to_string();
            line.clear();
            if to.send(wrap(text)).is_err() {
                return;
            }
        }
    });
}

/// Passes lines on until none has come for `wait`. False once both pipes have ended.
fn drain(
    host: &mut Host,
    from: &Receiver<Output>,
    wait: Duration,
    lines: &mut Vec<String>,
) -> bool {
    loop {
        match from.recv_timeout(wait) {
            Ok(Output::Out(text)) => {
                host.line("out", &text);
                lines.push(text);
            }
            Ok(Output::Err(text)) => host.line("err", &text),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => {
                thread::sleep(wait);
                return false;
            }
        }
    }
}

/// Collects every process that has ended; the job's own status if it is among them.
fn reap(job: Pid) -> Option<String> {
    let mut end = None;
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        match status {
            WaitStatus::Exited(pid, code) if pid == job => end = Some(format!("exit {code}")),
            WaitStatus::Signaled(pid, signal, _) if pid == job => {
                end = Some(format!("signal {}", signal as i32));
            }
            WaitStatus::StillAlive => break,
            _ => {}
        }
    }
    end
}

/// Processes of user space other than ourselves. Kernel threads have an empty command line, as have
/// processes that have ended and wait to be collected.
fn survivors() -> BTreeMap<i32, String> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return BTreeMap::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != 1)
        .filter_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline"))
                .ok()
                .filter(|line| !line.is_empty())?;
            Some((
                pid,
                String::from_utf8_lossy(&line)
                    .replace('\0', " ")
                    .trim_end()
                    .to_string(),
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn jobs_are_split_at_tabs() {
        let job = Job::parse("run\ttracing\t90\t/bin/t\trun\t--filter\ta b").unwrap();
        let argv = ["/bin/t", "run", "--filter", "a b"]
            .map(String::from)
            .to_vec();
        assert_eq!(
            job,
            Job::Run {
                id: "tracing".into(),
                limit: Duration::from_secs(90),
                argv
            }
        );
    }

    #[test]
    fn each_needs_both_programs() {
        let job = Job::parse("each\t5\t/bin/l\t;\t/bin/t\t{}").unwrap();
        let list = vec!["/bin/l".to_string()];
        let argv = ["/bin/t", "{}"].map(String::from).to_vec();
        assert_eq!(
            job,
            Job::Each {
                limit: Duration::from_secs(5),
                list,
                argv
            }
        );
        assert!(Job::parse("each\t5\t/bin/l").is_err());
        assert!(Job::parse("each\t5\t/bin/l\t;").is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Job::parse("run\tx\tsoon\t/bin/t").is_err());
        assert!(Job::parse("walk\tx\t1\t/bin/t").is_err());
        assert!(Job::parse("run\tx\t1").is_err());
    }
}
