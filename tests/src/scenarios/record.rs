//! Recording, and what may happen to it.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Session, looked_up::as_nobody, sessions};
use crate::{
    bench::{self, Bench},
    expect::lookup,
    script::skip,
    sys::{mount::Tmpfs, netns::Netns, task},
    tracer::{self, PATIENCE},
};

pub(super) const ALL: &[Session] = sessions![
    record_replays_what_was_printed,
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
    child: Child,
}

impl Recorder {
    /// Starts one, and waits until its start is in its file: by then every hook is attached.
    fn start(bench: &Bench, file: &Path, args: &[&str]) -> Result<Self> {
        let child = command(bench, file, args).spawn()?;
        let mut recorder = Self { child };
        let began = lines_of(bench, file).len();
        let waited = bench::until("the recorder to write", || {
            if let Some(status) = recorder.child.try_wait()? {
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

    fn end(mut self, signal: i32) -> Result<Output> {
        if self.child.try_wait()?.is_none() {
            task::signal(self.child.id(), signal)?;
        }
        bench::ended(self.child)
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
    let mut tracer = bench.trace([""; 0])?;
    let recorder = Recorder::start(bench, &file, &["--keep", "all"])?;
    tracer.until_now()?;
    for _ in 0..20 {
        bind()?;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let taken = TcpListener::bind(listener.local_addr()?);
    ensure!(taken.is_err(), "the port is not taken");
    std::net::TcpStream::connect(listener.local_addr()?)?;
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
    ensure!(printed.len() >= 23, "{} lines", printed.len());
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

/// kill -9, again and again: the file stays sound, and all that is older than a second is in it.
fn record_survives_sigkill(bench: &Bench) -> Result<()> {
    let file = bench.file("killed.pwdb")?;
    let rounds: u64 = if bench.long { 25 } else { 5 };
    let mut must: BTreeSet<Ipv4Addr> = BTreeSet::new();
    // Each bind has an address of its own: a cookie not every backend tells, and ports come again.
    let mut next = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    for round in 0..rounds {
        let recorder = Recorder::start(bench, &file, &["-q", "--keep", "all"])?;
        let began = Instant::now();
        let mut binds = Vec::new();
        // Ends in another place of the writer's round each time.
        let length = Duration::from_millis(1500 + 137 * (round % 8));
        while began.elapsed() < length {
            let address = Ipv4Addr::from(next);
            next += 1;
            UdpSocket::bind((address, 0))?;
            binds.push((Instant::now(), address));
            std::thread::sleep(Duration::from_millis(1));
        }
        let killed = Instant::now();
        let output = recorder.end(libc::SIGKILL)?;
        ensure!(
            tracer::code(output.status) == 128 + libc::SIGKILL,
            "{}",
            output.status
        );
        let is_old = |at: &Instant| killed.duration_since(*at) > Duration::from_secs(1);
        let old = binds.iter().filter(|(at, _)| is_old(at));
        must.extend(old.map(|(_, address)| *address));
        let kept: BTreeSet<Ipv4Addr> = replay(bench, &file)?
            .iter()
            .filter(|line| is_own(line))
            .filter_map(|line| {
                lookup(line, "network.local.address")?
                    .as_str()?
                    .parse()
                    .ok()
            })
            .collect();
        let missing = must.difference(&kept).count();
        ensure!(
            missing == 0,
            "round {round}: {missing} of {} events are missing",
            must.len()
        );
    }
    ensure!(must.len() > 100, "only {} binds", must.len());
    Ok(())
}

/// A disk that fills up and is emptied: said once, nothing is lost without being counted.
fn record_full_disk_catches_up(bench: &Bench) -> Result<()> {
    let directory = bench.file("small-disk")?;
    fs::create_dir_all(&directory)?;
    let disk = Tmpfs::new(&directory, 12 << 20)?;
    let result = full_disk(bench, &directory);
    drop(disk);
    fs::remove_dir(&directory)?;
    result
}

fn full_disk(bench: &Bench, directory: &Path) -> Result<()> {
    let ballast = directory.join("ballast");
    fs::write(&ballast, vec![0; 11 << 20])?;
    let file = directory.join("full.pwdb");
    let words = bench.file("full.err")?;
    let mut command = command(bench, &file, &["--keep", "all", "-u"]);
    command.stderr(fs::File::create(&words)?);
    let mut child = command.spawn()?;
    let said = |what: &str| -> Result<bool> { Ok(fs::read_to_string(&words)?.contains(what)) };
    let filled = bench::until("the disk to be full", || {
        for _ in 0..500 {
            bind()?;
        }
        ensure!(
            child.try_wait()?.is_none(),
            "it ended: {}",
            fs::read_to_string(&words)?
        );
        said("cannot write to")
    });
    if filled.is_err() {
        child.kill()?;
        child.wait()?;
        return filled;
    }
    let after = bind()?;
    std::thread::sleep(Duration::from_secs(2));
    fs::remove_file(&ballast)?;
    let caught_up = bench::until("it to catch up", || said("again"));
    task::signal(child.id(), libc::SIGTERM)?;
    let output = bench::ended(child)?;
    caught_up?;
    let words = fs::read_to_string(&words)?;
    ensure!(output.status.success(), "{}: {words}", output.status);
    ensure!(
        words.matches("cannot write to").count() == 1,
        "said more than once: {words}"
    );
    let lines = replay(bench, &file)?;
    let end = lines.last().context("nothing was recorded")?;
    ensure!(lookup(end, "event.name") == Some(&"end".into()), "{end}");
    ensure!(
        lookup(end, "totals.lost") == Some(&0.into()),
        "memory was enough: {end}"
    );
    let is_after =
        |line: &Value| is_own(line) && lookup(line, "network.local.port") == Some(&after.into());
    ensure!(
        lines.iter().any(is_after),
        "what came while the disk was full is missing"
    );
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

fn record_cut_anywhere_is_refused(bench: &Bench) -> Result<()> {
    let file = bench.file("cut.pwdb")?;
    short(bench, &file)?;
    let whole = fs::read(&file)?;
    let pages = whole.len() / 4096;
    ensure!(pages > 8, "{pages} pages");
    for page in 0..pages {
        fs::write(&file, &whole[..page * 4096])?;
        let words = if page == 0 { "is empty" } else { "is damaged" };
        refused(&portwatch(bench, &["replay"], &file)?, words)?;
        refused(&portwatch(bench, &["report"], &file)?, words)?;
        if page > 0 {
            let output = bench::ended(command(bench, &file, &[]).spawn()?)?;
            refused(&output, words)?;
            ensure!(fs::read(&file)?.len() == page * 4096, "it was written to");
        }
    }
    fs::write(&file, &whole)?;
    replay(bench, &file).map(drop)
}

fn record_one_recorder_a_file(bench: &Bench) -> Result<()> {
    let file = bench.file("one.pwdb")?;
    let first = Recorder::start(bench, &file, &["-q"])?;
    let second = bench::ended(command(bench, &file, &[]).spawn()?)?;
    refused(
        &second,
        &format!("is being recorded to by process {}", first.child.id()),
    )?;
    ensure!(
        stderr(&second).contains("hint: "),
        "no next step: {}",
        stderr(&second)
    );
    first.end(libc::SIGTERM)?;
    // It is free again, and continued.
    Recorder::start(bench, &file, &["-q"])?.end(libc::SIGTERM)?;
    let starts = replay(bench, &file)?;
    let starts = starts
        .iter()
        .filter(|line| lookup(line, "event.name") == Some(&"start".into()));
    ensure!(starts.count() == 2, "not continued");
    Ok(())
}

fn record_leaves_strangers_alone(bench: &Bench) -> Result<()> {
    let file = bench.file("diary.txt")?;
    fs::write(&file, "dear diary")?;
    let output = bench::ended(command(bench, &file, &[]).spawn()?)?;
    refused(&output, "is not a recording of portwatch")?;
    ensure!(fs::read(&file)? == b"dear diary", "it was changed");
    let link = bench.file("link.pwdb")?;
    std::os::unix::fs::symlink(&file, &link)?;
    let output = bench::ended(command(bench, &link, &[]).spawn()?)?;
    refused(&output, "is a symbolic link")?;
    ensure!(fs::read(&file)? == b"dear diary", "it was changed");
    // Nor is a pipe waited for that nobody writes to.
    let pipe = bench.file("pipe")?;
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU)?;
    for verb in ["replay", "report"] {
        refused(&portwatch(bench, &[verb], &pipe)?, "is no regular file")?;
    }
    // What is not there is not asked to be made by somebody who wants to read.
    let absent = bench.file("nothere")?;
    for verb in ["replay", "report"] {
        let output = portwatch(bench, &[verb], &absent)?;
        refused(&output, "hint: portwatch record says where it records to")?;
    }
    Ok(())
}

/// Who made a file, or may write to it, could change what is recorded in it.
fn record_trusts_no_file_of_others(bench: &Bench) -> Result<()> {
    let mode =
        |file: &Path| Ok::<_, std::io::Error>(fs::metadata(file)?.permissions().mode() & 0o777);
    let open_to_all = |file: &Path| fs::set_permissions(file, fs::Permissions::from_mode(0o666));
    let record = |file: &Path| bench::ended(command(bench, file, &[]).spawn()?);
    let theirs = bench.file("theirs.pwdb")?;
    fs::write(&theirs, "")?;
    std::os::unix::fs::chown(&theirs, Some(65534), Some(65534))?;
    open_to_all(&theirs)?;
    refused(&record(&theirs)?, "belongs to user 65534")?;
    ensure!(fs::read(&theirs)?.is_empty(), "it was written to");

    let own = bench.file("open.pwdb")?;
    fs::write(&own, "")?;
    open_to_all(&own)?;
    short(bench, &own)?;
    let closed = mode(&own)?;
    ensure!(closed == 0o600, "mode {closed:o}");
    open_to_all(&own)?;
    let output = record(&own)?;
    refused(&output, "can be written by others: its mode is 666")?;
    refused(&output, "hint: chmod go-w ")?;
    Ok(())
}

/// A recording is not overwritten by what is printed of it.
fn record_overwrites_no_recording(bench: &Bench) -> Result<()> {
    let recording = bench.file("overwritten.pwdb")?;
    short(bench, &recording)?;
    let log = bench.file("overwritten.pwdb-wal")?;
    let before = fs::read(&recording)?;
    for verb in ["replay", "report"] {
        for (to, words) in [
            (&recording, "is the recording itself"),
            (&log, "is a part of the recording"),
        ] {
            let mut command = bench.command([verb, "-w"]);
            let output = bench::ended(command.arg(to).arg(&recording).spawn()?)?;
            let said = stderr(&output);
            ensure!(
                tracer::code(output.status) == 2 && said.contains(words),
                "{verb}: {}: {said}",
                output.status
            );
            ensure!(fs::read(&recording)? == before, "{verb}: it was changed");
            ensure!(!log.exists(), "{verb}: a log was made up");
        }
    }
    Ok(())
}

/// Whom the kernel refuses is not told that it records, and finds no file afterwards.
fn record_refused_start_leaves_no_file(bench: &Bench) -> Result<()> {
    let directory = bench.file("of-nobody")?;
    fs::create_dir(&directory)?;
    std::os::unix::fs::chown(&directory, Some(65534), Some(65534))?;
    let file = directory.join("refused.pwdb");
    let path = file.to_str().context("an odd path")?;
    let output = as_nobody(bench, &Netns::current()?, &["record", "-w", path])?;
    let left: Vec<_> = fs::read_dir(&directory)?.collect();
    fs::remove_dir_all(&directory)?;
    let said = stderr(&output);
    ensure!(
        tracer::code(output.status) == 3,
        "{}: {said}",
        output.status
    );
    ensure!(!said.contains("recording to"), "{said}");
    ensure!(left.is_empty(), "{left:?} is left");
    Ok(())
}

fn record_newer_schema(bench: &Bench) -> Result<()> {
    let file = bench.file("newer.pwdb")?;
    short(bench, &file)?;
    let mut bytes = fs::read(&file)?;
    // PRAGMA user_version (sqlite.org/fileformat2.html, 1.3)
    let version = bytes.get_mut(60..64).context("no header")?;
    version.copy_from_slice(&1000u32.to_be_bytes());
    fs::write(&file, &bytes)?;
    refused(
        &portwatch(bench, &["replay"], &file)?,
        "by a newer portwatch",
    )?;
    let output = bench::ended(command(bench, &file, &[]).spawn()?)?;
    refused(&output, "its schema is 1000")?;
    ensure!(fs::read(&file)? == bytes, "it was changed");
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
    ensure!(
        of_file.stdout == of_lines.stdout,
        "a file and its lines differ"
    );
    let report: Value = serde_json::from_slice(&of_file.stdout)?;
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

fn record_tells_the_service_manager(bench: &Bench) -> Result<()> {
    let path = bench.file("notify")?;
    let manager = UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(PATIENCE))?;
    let file = bench.file("service.pwdb")?;
    let child = command(bench, &file, &["-q"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "400000")
        .spawn()?;
    let mut told = Vec::new();
    let mut buffer = [0; 512];
    let heard = bench::until("the watchdog to be told twice", || {
        let length = manager.recv(&mut buffer)?;
        told.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        Ok(told
            .iter()
            .filter(|text| text.contains("WATCHDOG=1"))
            .count()
            >= 2)
    });
    task::signal(child.id(), libc::SIGTERM)?;
    let output = bench::ended(child)?;
    heard.with_context(|| stderr(&output))?;
    ensure!(told[0].contains("READY=1"), "{told:?}");
    ensure!(output.status.success(), "{}", stderr(&output));
    Ok(())
}

/// Somebody removes the file: the recorder ends at once and says why, and does not look alive for days.
fn record_without_its_file_ends(bench: &Bench) -> Result<()> {
    let file = bench.file("removed.pwdb")?;
    let mut recorder = Recorder::start(bench, &file, &["-q", "--keep", "all"])?;
    fs::remove_file(&file)?;
    let ended = bench::until("it to end", || {
        bind()?;
        Ok(recorder.child.try_wait()?.is_some())
    });
    let output = recorder.end(libc::SIGKILL)?;
    ended?;
    refused(&output, "the file was moved or removed")
}

/// What systemd says of the unit: 10 is a service that may do everything.
fn record_unit_has_few_privileges(bench: &Bench) -> Result<()> {
    let unit = bench.file("portwatch-record.service")?;
    fs::write(
        &unit,
        include_str!("../../../packaging/portwatch-record.service"),
    )?;
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=30", "--no-pager"])
        .arg(&unit)
        .output();
    match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skip("no systemd-analyze here")
        }
        Err(error) => Err(error.into()),
        Ok(output) => {
            let said = stderr(&output);
            if said.contains("unrecognized option") {
                return skip("this systemd-analyze cannot look at files");
            }
            let text = String::from_utf8_lossy(&output.stdout);
            let last = text.trim().lines().last().unwrap_or_default();
            ensure!(output.status.success(), "{last} {said}");
            Ok(())
        }
    }
}
