//! Recording, and what may happen to it.

mod faults;
mod files;
mod service;

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use self::{faults::*, files::*, service::*};
use super::{Session, looked_up::as_nobody, sessions};
use crate::{
    bench::{self, Bench},
    degraded::{self, Feature},
    expect::lookup,
    script::skip,
    sys::{mount::Tmpfs, netns::Netns, task},
    tracer::{self, PATIENCE},
};

pub(super) const ALL: &[Session] = sessions![
    record_replays_what_was_printed: crossed,
    record_survives_sigkill: once,
    record_full_disk_catches_up: once,
    record_cut_anywhere_is_refused: once,
    record_one_recorder_a_file: once,
    record_leaves_strangers_alone: once,
    record_trusts_no_file_of_others: once,
    record_overwrites_no_recording: once,
    record_refused_start_leaves_no_file: once,
    record_newer_schema: once,
    record_keeps_inside_its_size: once,
    record_reports_conflicts: once,
    record_tells_the_service_manager: once,
    record_without_its_file_ends: once,
    record_unit_has_few_privileges: once,
];

/// A recorder at work.
struct Recorder {
    /// Until it is ended.
    child: Option<Child>,
}

impl Recorder {
    /// Starts one, and waits until its start is in its file: by then every hook is attached.
    fn start(bench: &Bench, file: &Path, args: &[&str]) -> Result<Self> {
        // Before it starts: it may have written by the time the lines are counted.
        let began = lines_of(bench, file).len();
        let child = command(bench, file, args).spawn()?;
        let mut recorder = Self { child: Some(child) };
        let waited = bench::until("the recorder to write", || {
            if let Some(status) = recorder.status()? {
                bail!("it ended with {status}");
            }
            Ok(lines_of(bench, file).len() > began)
        });
        if let Err(error) = waited {
            let output = recorder.end(libc::SIGKILL)?;
            bail!("{error:#}; stderr: {}", stderr(&output));
        }
        Ok(recorder)
    }

    /// How it has ended, if it has.
    fn status(&mut self) -> Result<Option<ExitStatus>> {
        let child = self.child.as_mut().context("ended before")?;
        Ok(child.try_wait()?)
    }

    /// Its process id.
    fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    fn end(mut self, signal: i32) -> Result<Output> {
        let mut child = self.child.take().context("ended before")?;
        if child.try_wait()?.is_none() {
            task::signal(child.id(), signal)?;
        }
        bench::ended(child)
    }
}

/// Where a scenario fails, it must not go on writing to the file of the next one.
impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `record` with the backend under test, not started yet.
fn command(bench: &Bench, file: &Path, args: &[&str]) -> Command {
    let mut command = bench.command(["record", "--attach", bench.backend.as_str(), "-w"]);
    command.arg(file).args(args);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

fn portwatch(bench: &Bench, args: &[&str], file: &Path) -> Result<Output> {
    let mut command = bench.command(args);
    bench::ended(command.arg(file).spawn()?)
}

/// The lines of a recording that may not be there yet.
fn lines_of(bench: &Bench, file: &Path) -> Vec<Value> {
    replay(bench, file).unwrap_or_default()
}

/// The lines of a recording that has to be sound. They may be more than a pipe holds.
fn replay(bench: &Bench, file: &Path) -> Result<Vec<Value>> {
    let lines = bench.file("replayed.jsonl")?;
    let mut command = bench.command(["replay", "-q", "-o", "json", "-w"]);
    let output = bench::ended(command.arg(&lines).arg(file).spawn()?)?;
    ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        stderr(&output)
    );
    fs::read_to_string(&lines)?
        .lines()
        .map(|line| serde_json::from_str(line).context("not JSON"))
        .collect()
}

/// Binds a UDP socket; the value is its port.
fn bind() -> Result<u16> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("the harness cannot bind")?;
    Ok(socket.local_addr()?.port())
}

fn is_own(line: &Value) -> bool {
    lookup(line, "process.pid").and_then(Value::as_u64) == Some(std::process::id().into())
}

/// A line without what two portwatches, each with its own reading of the clocks, may tell differently.
fn without_times(line: &Value) -> Value {
    match line {
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| {
                ![
                    "seq",
                    "time",
                    "time_boot",
                    "duration",
                    "since",
                    "expires",
                    "held",
                    "closed",
                    "creation",
                ]
                .contains(&key.as_str())
            })
            .map(|(key, value)| (key.clone(), without_times(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_times).collect(),
        other => other.clone(),
    }
}

fn record_replays_what_was_printed(bench: &Bench) -> Result<()> {
    let file = bench.file("whole.pwdb")?;
    let sees_release = degraded::may_miss(bench.backend, Feature::Release).is_none();
    let events = if sees_release {
        "bind,listen,connect,autobind,accept,release"
    } else {
        "bind,listen,connect,autobind,accept"
    };
    let mut tracer = bench.trace(["-e", events])?;
    let recorder = Recorder::start(bench, &file, &["--keep", "all", "-e", events])?;
    tracer.until_now()?;
    for _ in 0..20 {
        bind()?;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let taken = TcpListener::bind(listener.local_addr()?);
    ensure!(taken.is_err(), "the port is not taken");
    let _client = std::net::TcpStream::connect(listener.local_addr()?)?;
    let accepted = listener.accept()?;
    // What it leaves in TIME_WAIT lets go of its port when the kernel gets to it.
    drop(accepted);
    let printed = tracer.until_now()?;
    let output = recorder.end(libc::SIGTERM)?;
    ensure!(output.status.success(), "{}", stderr(&output));
    tracer.stop()?.ended_well(0)?;

    let own = |lines: &[Value]| -> Vec<Value> {
        lines
            .iter()
            .filter(|line| is_own(line))
            .map(without_times)
            .collect()
    };
    let (printed, replayed) = (own(&printed), own(&replay(bench, &file)?));
    let of = |event: &str| {
        let is_it = |line: &&Value| lookup(line, "event.name").is_some_and(|name| name == event);
        printed.iter().filter(is_it).count()
    };
    ensure!(of("bind") >= 22, "{} binds", of("bind"));
    ensure!(of("accept") == 1, "{} accepted", of("accept"));
    ensure!(
        !sees_release || of("release") >= 20,
        "{} released",
        of("release")
    );
    let first = printed.first().context("no line")?;
    let at = replayed
        .iter()
        .position(|line| line == first)
        .with_context(|| format!("not in the recording: {first}"))?;
    for (printed, replayed) in printed.iter().zip(&replayed[at..]) {
        ensure!(printed == replayed, "{printed} was replayed as {replayed}");
    }
    ensure!(replayed.len() - at >= printed.len(), "lines are missing");
    Ok(())
}

/// A short recording with a conflict in it.
fn short(bench: &Bench, file: &Path) -> Result<()> {
    let recorder = Recorder::start(bench, file, &["-q", "--keep", "all"])?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    ensure!(
        TcpListener::bind(listener.local_addr()?).is_err(),
        "not taken"
    );
    let output = recorder.end(libc::SIGTERM)?;
    ensure!(output.status.success(), "{}", stderr(&output));
    let mode = fs::metadata(file)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "mode {mode:o}");
    Ok(())
}

fn refused(output: &Output, words: &str) -> Result<()> {
    let said = stderr(output);
    ensure!(
        tracer::code(output.status) == 4,
        "{}: {said}",
        output.status
    );
    ensure!(said.contains(words), "{said:?} without {words:?}");
    Ok(())
}

/// The file and what is beside it never take more than they may.
fn record_keeps_inside_its_size(bench: &Bench) -> Result<()> {
    const BOUND: u64 = 4 << 20;
    let file = bench.file("bounded.pwdb")?;
    let recorder = Recorder::start(bench, &file, &["-q", "--keep", "all", "--max-size", "4M"])?;
    let beside = |end: &str| -> PathBuf {
        let mut name = file.clone().into_os_string();
        name.push(end);
        name.into()
    };
    let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    let mut largest = 0;
    let mut total = 0;
    let deadline = Instant::now() + 3 * PATIENCE;
    // Until it has been full for a while: each takes some 50 bytes. A recorder that comes slower than
    // the binds, as under emulation, gets time to write them.
    while total < 150_000 || largest < BOUND / 2 {
        for _ in 0..200 {
            bind()?;
        }
        total += 200;
        std::thread::sleep(Duration::from_millis(5));
        let now = size(&file) + size(&beside("-wal")) + size(&beside("-shm"));
        largest = largest.max(now);
        ensure!(now <= BOUND, "{now} bytes");
        ensure!(
            Instant::now() < deadline,
            "{total} events made {largest} bytes"
        );
    }
    let output = recorder.end(libc::SIGTERM)?;
    ensure!(output.status.success(), "{}", stderr(&output));
    let lines = replay(bench, &file)?;
    let own = lines.iter().filter(|line| is_own(line)).count();
    ensure!(
        (10_000..total).contains(&own),
        "{own} events of {total} are left"
    );
    Ok(())
}

fn record_reports_conflicts(bench: &Bench) -> Result<()> {
    let file = bench.file("report.pwdb")?;
    let recorder = Recorder::start(bench, &file, &["-q"])?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    for _ in 0..3 {
        ensure!(TcpListener::bind(address).is_err(), "not taken");
    }
    drop(listener);
    drop(TcpListener::bind(address)?);
    let output = recorder.end(libc::SIGTERM)?;
    ensure!(output.status.success(), "{}", stderr(&output));

    let port = address.port().to_string();
    let of_file = portwatch(bench, &["report", "-o", "json", "--port", &port], &file)?;
    let copy = bench.file("report.jsonl")?;
    let mut again = bench.command(["replay", "-q", "-o", "json", "-w"]);
    bench::ended(again.arg(&copy).arg(&file).spawn()?)?;
    let mut of_lines = bench.command(["report", "-o", "json", "--port", &port, "-"]);
    let of_lines = bench::ended(of_lines.stdin(fs::File::open(&copy)?).spawn()?)?;
    ensure!(
        of_file.status.success() && of_lines.status.success(),
        "{}",
        stderr(&of_lines)
    );
    let report: Value = serde_json::from_slice(&of_file.stdout)?;
    let mut of_lines: Value = serde_json::from_slice(&of_lines.stdout)?;
    ensure!(
        lookup(&report, "kept.least") == Some(&"failures".into()),
        "what was kept is not told: {report}"
    );
    // Lines do not tell that they are not all there was.
    of_lines["kept"] = report["kept"].clone();
    for list in ["turnover", "automatic"] {
        ensure!(
            report.get(list).is_none(),
            "{list} cannot be known: {report}"
        );
        of_lines
            .as_object_mut()
            .and_then(|lines| lines.remove(list));
    }
    ensure!(report == of_lines, "a file and its lines differ");
    let conflict = lookup(&report, "conflicts.0").context("no conflict")?;
    for (path, expected) in [
        ("count", Value::from(3)),
        ("error.type", "EADDRINUSE".into()),
        ("conflict.kind", "listener".into()),
        ("network.local.port", address.port().into()),
        ("resolved", true.into()),
    ] {
        ensure!(
            lookup(conflict, path) == Some(&expected),
            "{path}: {conflict}"
        );
    }
    Ok(())
}
