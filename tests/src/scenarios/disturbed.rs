//! What happens to portwatch itself while it looks: it is stopped, the clock is set, its disk is full for
//! a while.

use std::{
    fs,
    net::Ipv4Addr,
    process::Output,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Session, sessions};
use crate::{
    bench::{self, Bench},
    degraded,
    expect::lookup,
    script::skip,
    sys::{
        clock,
        mount::Tmpfs,
        netns::Netns,
        sock::{Kind, Sock},
    },
    tracer::{self, Tracer},
};

pub(super) const ALL: &[Session] = sessions![
    disturbed_by_a_stop,
    disturbed_by_the_clock: once,
    disturbed_by_a_full_disk: once,
];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Threads that bind at once, and times that each does afterwards.
const WORKERS: u16 = 3;
const AFTERWARDS: u64 = 50;

/// Binds a port until then; how often.
fn bind_until(deadline: Instant, port: u16) -> Result<u64> {
    let mut count = 0;
    while Instant::now() < deadline {
        Sock::new(Kind::Udp4)?.bind(&(LO4, port).into())?;
        count += 1;
    }
    Ok(count)
}

/// The same in several threads, all in this network namespace; how often in all.
fn load(netns: &Netns, time: Duration) -> Result<u64> {
    let home = Netns::current()?;
    // Threads start where the one is that makes them.
    netns.enter()?;
    let deadline = Instant::now() + time;
    let counts: Result<Vec<u64>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|index| scope.spawn(move || bind_until(deadline, 8080 + index)))
            .collect();
        workers
            .into_iter()
            .map(|worker| match worker.join() {
                Ok(count) => count,
                Err(_) => bail!("a thread of the load panicked"),
            })
            .collect()
    });
    home.enter()?;
    Ok(counts?.into_iter().sum())
}

/// Stopped under load: what was lost is counted to the last event, and nothing is lost after it goes on.
fn disturbed_by_a_stop(bench: &Bench) -> Result<()> {
    let (time, buffer) = if bench.long {
        (Duration::from_secs(10), "1M")
    } else {
        (Duration::from_millis(700), "64K")
    };
    let netns = Netns::new()?;
    let number = netns.inode.to_string();
    let mut tracer = bench.trace(["--buffer", buffer, "--netns", &number])?;
    tracer.signal(libc::SIGSTOP)?;
    let done = load(&netns, time)?;
    tracer.signal(libc::SIGCONT)?;
    // It has caught up when it tells of something new: nothing else binds in there.
    let home = Netns::current()?;
    netns.enter()?;
    let caught_up = catch_up(&mut tracer);
    let mut last = 0;
    let afterwards = (0..AFTERWARDS).try_for_each(|_| -> Result<()> {
        Sock::new(Kind::Udp4)?.bind(&(LO4, 9090).into())?;
        last += 1;
        Ok(())
    });
    home.enter()?;
    let (tries, printed_before) = caught_up?;
    afterwards?;
    let finished = tracer.stop()?;
    finished.ended_well(0)?;
    let after = finished
        .lines
        .iter()
        .filter(|line| lookup(line, "network.local.port") == Some(&9090.into()))
        .count();
    let (printed, failures, lost) = finished.totals;
    let all = done + tries + last;
    println!("{all} binds, {printed} printed ({printed_before} of them late), {lost} lost");
    ensure!(failures == 0, "{failures} failures of none");
    ensure!(lost > 0, "nothing was lost of {all}");
    ensure!(printed > 0, "nothing was printed of {all}");
    // A kernel that preempts programs and skips others (7.x) also counts such as had nothing to tell.
    let exact = if degraded::preempts(bench.backend) {
        printed <= all && printed + lost >= all
    } else {
        printed + lost == all && after as u64 == AFTERWARDS
    };
    ensure!(
        exact,
        "{printed} printed and {lost} lost are not {all}; {after} of {AFTERWARDS} after it went on"
    );
    Ok(())
}

/// Binds until one is told: how many it took, and how many lines there were.
fn catch_up(tracer: &mut Tracer) -> Result<(u64, u64)> {
    let mut tries = 0;
    let mut lines = 0;
    let deadline = Instant::now() + tracer::PATIENCE;
    loop {
        ensure!(Instant::now() < deadline, "it does not catch up");
        Sock::new(Kind::Udp4)?.bind(&(LO4, 9089).into())?;
        tries += 1;
        // What was in the ring comes first.
        while let Some(line) = tracer.next_within(Duration::from_millis(300))? {
            lines += 1;
            if lookup(&line, "network.local.port") == Some(&9089.into()) {
                return Ok((tries, lines));
            }
        }
    }
}

const HOUR: Duration = Duration::from_secs(3600);
/// How far a printed time may be from the clock: the emulation's pauses.
const NEAR: Duration = Duration::from_secs(5);

/// UTC of the line of a bind that is made now, and its time since the start of the machine.
fn time_now(tracer: &mut Tracer) -> Result<(SystemTime, u64)> {
    let sock = Sock::new(Kind::Udp4)?;
    sock.bind(&(LO4, 0).into())?;
    let port = sock.local().context("no address")?.port();
    let deadline = Instant::now() + tracer::PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let (line, _) = tracer.next(left)?.context("portwatch ended")?;
        if lookup(&line, "network.local.port") == Some(&port.into())
            && lookup(&line, "process.pid") == Some(&std::process::id().into())
        {
            let text = lookup(&line, "time").and_then(Value::as_str);
            let time: jiff::Timestamp = text.context("no time")?.parse()?;
            let boot = lookup(&line, "time_boot").and_then(Value::as_u64);
            return Ok((time.into(), boot.context("no time_boot")?));
        }
    }
}

/// The clock is set an hour ahead and back again: each line has the time that it was then, and the time
/// since the start of the machine goes on as if nothing had been.
fn disturbed_by_the_clock(bench: &Bench) -> Result<()> {
    if std::env::var_os("PID1_LISTENS_ON").is_none() {
        return skip("the clock of this machine is not the test VM's");
    }
    let mut tracer = bench.trace(["-e", "bind"])?;
    let (_, mut last) = time_now(&mut tracer)?;
    for ahead in [true, false, true, false] {
        clock::set(|now| if ahead { now + HOUR } else { now - HOUR })?;
        // It is told of the step, and looks at the clock.
        std::thread::sleep(Duration::from_millis(200));
        let before = SystemTime::now();
        let (time, boot) = time_now(&mut tracer)?;
        let off = match time.duration_since(before) {
            Ok(after) => after,
            Err(error) => error.duration(),
        };
        ensure!(
            off < NEAR,
            "told as {off:?} from what the clock showed (ahead: {ahead})"
        );
        ensure!(
            boot > last && Duration::from_nanos(boot - last) < tracer::PATIENCE,
            "time_boot went from {last} to {boot}"
        );
        last = boot;
    }
    tracer.stop()?.ended_well(0)
}

/// `portwatch trace -w FILE`, which binds end.
fn write_until_full(bench: &Bench, file: &std::path::Path, more: &[&str]) -> Result<Output> {
    let mut args = bench.trace_args(["-o", "json"]);
    args.extend(more.iter().map(Into::into));
    args.extend(["-w".into(), file.into()]);
    let mut child = bench.command(args).spawn()?;
    let ended = bench::until("portwatch to end", || {
        Sock::new(Kind::Udp4)?.bind(&(LO4, 0).into())?;
        Ok(child.try_wait()?.is_some())
    });
    if ended.is_err() {
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    ended?;
    Ok(output)
}

/// A full disk ends it, with what to do; what stands in the file until then is whole, and with room again
/// the same command writes a whole stream.
fn disturbed_by_a_full_disk(bench: &Bench) -> Result<()> {
    let directory = bench.file("filled-disk")?;
    fs::create_dir_all(&directory)?;
    let disk = Tmpfs::new(&directory, 256 * 1024)?;
    let done = fill_and_make_room(bench, &directory);
    drop(disk);
    fs::remove_dir(&directory)?;
    done
}

fn fill_and_make_room(bench: &Bench, directory: &std::path::Path) -> Result<()> {
    let filler = directory.join("filler");
    fs::write(&filler, vec![0; 192 * 1024])?;
    let file = directory.join("trace.json");
    let output = write_until_full(bench, &file, &[])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        tracer::code(output.status) == 4
            && stderr.contains("trace.json")
            && stderr.contains("hint: make room"),
        "{}; stderr: {}",
        output.status,
        stderr.trim()
    );
    let text = fs::read_to_string(&file)?;
    // The last line is cut where the room ended.
    let (whole, _) = text.rsplit_once('\n').context("not even a line")?;
    let mut count = 0;
    for line in whole.lines() {
        let value: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        count += 1;
        ensure!(
            lookup(&value, "seq") == Some(&count.into()),
            "line {count}: {value}"
        );
    }
    ensure!(count > 10, "{count} lines");
    fs::remove_file(&filler)?;
    let output = write_until_full(bench, &file, &["-c", "5"])?;
    ensure!(
        tracer::code(output.status) == 0,
        "{}; stderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let lines = bench::events(bench::stream(&fs::read_to_string(&file)?)?);
    ensure!(lines.len() == 5, "{} events instead of 5", lines.len());
    Ok(())
}
