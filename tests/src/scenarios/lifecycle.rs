//! Beginning, end, and what happens in between to portwatch itself.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::{Ipv4Addr, UdpSocket},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Session, sessions};
use crate::{
    bench::{self, Bench},
    degraded,
    expect::{self, lookup},
    sys::{
        bpf::Loaded,
        mount::Tmpfs,
        netns::Netns,
        sock::{Kind, Sock},
        task,
    },
    tracer::{self, Tracer},
};

pub(super) const ALL: &[Session] = sessions![
    life_start_line: crossed,
    life_sigint: once,
    life_sigterm: once,
    life_sigkill_leaves_nothing,
    life_duration: once,
    life_count: crossed,
    life_two_at_once,
    life_closed_pipe: once,
    life_closed_stderr: once,
    life_full_disk: once,
    life_writes_to_file: once,
    life_latency: crossed,
    life_loss_is_counted,
    life_text_is_clean: once,
    life_connect_open_at_end,
    life_no_arguments: once,
    life_diagnostics: crossed,
];

fn none() -> [&'static str; 0] {
    []
}

/// A bind of the harness that any trace shows.
fn bind_something() -> Result<()> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("the harness cannot bind")?;
    Ok(())
}

fn life_start_line(bench: &Bench) -> Result<()> {
    let tracer = bench.trace(none())?;
    let start = &tracer.start;
    let text = |path| lookup(start, path).and_then(Value::as_str);
    ensure!(text("backend") == Some(bench.backend.as_str()), "{start}");
    let release = crate::sys::proc::kernel_release()?;
    ensure!(text("kernel.release") == Some(&release), "{start}");
    let full = bench.backend == degraded::Backend::Tracing;
    let degraded = start.get("degraded").and_then(Value::as_array);
    ensure!(
        full || degraded.is_some_and(|list| !list.is_empty()),
        "nothing is degraded on {}: {start}",
        bench.backend.as_str()
    );
    tracer.stop()?.ended_well(0)
}

fn ends_on(bench: &Bench, signal: i32) -> Result<()> {
    let tracer = bench.trace(none())?;
    for _ in 0..50 {
        bind_something()?;
    }
    tracer.signal(signal)?;
    let finished = tracer.finish()?;
    finished.ended_well(0)?;
    // What the kernel had handed over is printed.
    let own = finished
        .lines
        .iter()
        .filter(|line| {
            lookup(line, "process.pid").and_then(Value::as_u64) == Some(std::process::id().into())
        })
        .count();
    ensure!(own == 50, "{own} of 50 binds printed");
    Ok(())
}

fn life_sigint(bench: &Bench) -> Result<()> {
    ends_on(bench, libc::SIGINT)
}

fn life_sigterm(bench: &Bench) -> Result<()> {
    ends_on(bench, libc::SIGTERM)
}

/// Nothing is pinned: the kernel takes everything down with the process.
fn life_sigkill_leaves_nothing(bench: &Bench) -> Result<()> {
    let tracer = bench.trace(none())?;
    let own = Loaded::by(tracer.pid())?;
    ensure!(
        !own.programs.is_empty() && !own.is_disjoint(&Loaded::now()?),
        "no program is loaded while tracing: {own:?}"
    );
    let finished = tracer.kill()?;
    ensure!(
        finished.code() == 128 + libc::SIGKILL,
        "{:?}",
        finished.status
    );
    bench::until("the programs to be unloaded", || {
        Ok(own.is_disjoint(&Loaded::now()?))
    })
}

fn life_duration(bench: &Bench) -> Result<()> {
    let started = Instant::now();
    let finished = bench.trace(["--duration", "300ms"])?.finish()?;
    finished.ended_well(0)?;
    ensure!(
        started.elapsed() >= Duration::from_millis(300),
        "ended early"
    );
    Ok(())
}

fn life_count(bench: &Bench) -> Result<()> {
    let tracer = bench.trace(["-c", "3"])?;
    for _ in 0..10 {
        bind_something()?;
    }
    let finished = tracer.finish()?;
    finished.ended_well(0)?;
    let count = bench::events(finished.lines).len();
    ensure!(count == 3, "{count} events instead of 3");
    Ok(())
}

fn life_two_at_once(bench: &Bench) -> Result<()> {
    let mut both = [bench.trace(none())?, bench.trace(none())?];
    let expected = bench.workload("listen_conflict_of_two_reuseaddr")?;
    for tracer in &mut both {
        let mut lines = tracer.until_now()?;
        lines.retain(|line| expected.owns(line));
        expect::compare(&expected, &lines)?;
    }
    let [first, mut second] = both;
    first.stop()?.ended_well(0)?;
    // The one that stays loses nothing by the other's end.
    let expected = bench.workload("connect_nonblocking_refused")?;
    let mut lines = second.until_now()?;
    lines.retain(|line| expected.owns(line));
    expect::compare(&expected, &lines)?;
    second.stop()?.ended_well(0)
}

/// `portwatch trace | head -1`
fn life_closed_pipe(bench: &Bench) -> Result<()> {
    let mut child = bench.command(bench.trace_args(["-o", "json"])).spawn()?;
    let mut pipe = BufReader::new(child.stdout.take().context("no pipe")?);
    let mut first = String::new();
    pipe.read_line(&mut first)?;
    ensure!(first.contains("\"start\""), "not the start: {first:?}");
    drop(pipe);
    bench::until("portwatch to end", || {
        bind_something()?;
        Ok(child.try_wait()?.is_some())
    })?;
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .context("no pipe")?
        .read_to_string(&mut stderr)?;
    let status = child.wait()?;
    ensure!(
        tracer::code(status) == 0,
        "{status}; stderr: {}",
        stderr.trim()
    );
    ensure!(
        !stderr.to_lowercase().contains("pipe") && !stderr.contains("panicked"),
        "not quiet: {}",
        stderr.trim()
    );
    Ok(())
}

/// Whoever reads the notes may go: that changes neither the trace nor how it ends.
fn life_closed_stderr(bench: &Bench) -> Result<()> {
    for (options, expected) in [
        (&["--duration", "100ms"][..], 0),
        (&["--", "/no/such/command"][..], 127),
        (&["-w", "/no/such/directory/file"][..], 4),
    ] {
        let (read, write) = task::pipe()?;
        drop(read);
        let mut command = bench.command(bench.trace_args(options.iter().copied()));
        let status = command.stderr(write).stdout(Stdio::null()).status()?;
        ensure!(
            tracer::code(status) == expected,
            "{options:?}: {status}, not {expected}"
        );
    }
    Ok(())
}

fn life_full_disk(bench: &Bench) -> Result<()> {
    let directory = bench.file("small-disk")?;
    fs::create_dir_all(&directory)?;
    let disk = Tmpfs::new(&directory, 16 * 1024)?;
    let file = directory.join("trace.json");
    let mut args = bench.trace_args(["-o", "json", "-w"]);
    args.push(file.clone().into());
    let mut child = bench.command(args).spawn()?;
    let ended = bench::until("portwatch to end", || {
        bind_something()?;
        Ok(child.try_wait()?.is_some())
    });
    if ended.is_err() {
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    drop(disk);
    fs::remove_dir(&directory)?;
    ended?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        tracer::code(output.status) == 4,
        "{}; stderr: {}",
        output.status,
        stderr.trim()
    );
    ensure!(
        stderr.contains("trace.json") && stderr.contains("No space left on device"),
        "unclear: {}",
        stderr.trim()
    );
    Ok(())
}

fn life_writes_to_file(bench: &Bench) -> Result<()> {
    let file = bench.file("trace.json")?;
    let mut args = bench.trace_args(["-o", "json", "-c", "2", "-w"]);
    args.push(file.clone().into());
    let mut child = bench.command(args).spawn()?;
    bench::until("portwatch to end", || {
        bind_something()?;
        Ok(child.try_wait()?.is_some())
    })?;
    let output = child.wait_with_output()?;
    ensure!(output.stdout.is_empty(), "stdout: {:?}", output.stdout);
    let all = bench::stream(&fs::read_to_string(&file)?)?;
    // Somebody binds while it detaches: what it no longer looks at is not lost.
    let lost = all
        .iter()
        .find(|line| lookup(line, "lost.reason").is_some());
    ensure!(
        lost.is_none() || degraded::preempts(bench.backend),
        "lost: {lost:?}"
    );
    let lines = bench::events(all);
    ensure!(lines.len() == 2, "{} events instead of 2", lines.len());
    Ok(())
}

/// A line is in the pipe within 100 ms of its event. The best of a few, since a busy machine may
/// hold up anybody.
fn life_latency(bench: &Bench) -> Result<()> {
    let mut tracer = bench.trace(none())?;
    let mut best = Duration::MAX;
    for _ in 0..5 {
        // Idle before, so that the first of a burst is measured.
        std::thread::sleep(Duration::from_millis(100));
        best = best.min(tracer.latency()?);
    }
    ensure!(
        best < Duration::from_millis(100),
        "took {} ms",
        best.as_millis()
    );
    tracer.stop()?.ended_well(0)
}

/// What does not fit is counted: printed and lost together are what was done.
fn life_loss_is_counted(bench: &Bench) -> Result<()> {
    let netns = Netns::new()?;
    let tracer: Tracer = bench.trace(["--buffer", "4K", "--netns", &netns.inode.to_string()])?;
    tracer.signal(libc::SIGSTOP)?;
    let home = Netns::current()?;
    netns.enter()?;
    let count: u64 = if bench.long { 100_000 } else { 2_000 };
    let done = (0..count).try_for_each(|_| -> Result<()> {
        Sock::new(Kind::Udp4)?.bind(&(Ipv4Addr::LOCALHOST, 8080).into())?;
        Ok(())
    });
    home.enter()?;
    done?;
    tracer.signal(libc::SIGCONT)?;
    let finished = tracer.stop()?;
    finished.ended_well(0)?;
    let (printed, failures, lost) = finished.totals;
    ensure!(lost > 0, "nothing was lost: {printed} printed");
    ensure!(printed > 0, "nothing was printed: {lost} lost");
    ensure!(failures == 0, "{failures} failures of none");
    // Where programs are preempted, what the kernel skips meanwhile counts as lost, whatever it was about.
    let is_right = if degraded::preempts(bench.backend) {
        printed <= count && printed + lost >= count
    } else {
        printed + lost == count
    };
    ensure!(
        is_right,
        "{printed} printed and {lost} lost are not {count}"
    );
    Ok(())
}

/// A name full of control characters does not reach the terminal.
fn life_text_is_clean(bench: &Bench) -> Result<()> {
    let mut child = bench
        .command(bench.trace_args(["--color", "never"]))
        .spawn()?;
    let mut stdout = child.stdout.take().context("no pipe")?;
    let mut stderr = child.stderr.take().context("no pipe")?;
    // The header says that every hook is attached; it is not text for programs, so the events of
    // a first workload are waited for instead.
    let (send, text) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(len @ 1..) = stdout.read(&mut chunk) {
            all.extend_from_slice(&chunk[..len]);
            if send.send(all.clone()).is_err() {
                break;
            }
        }
        all
    });
    bench::until("a line of text", || {
        bind_something()?;
        Ok(text.try_recv().is_ok())
    })?;
    bench.workload("process_renamed")?;
    bench.workload("process_odd_arguments")?;
    // Less is collected for text than for JSON: what it shows has to be there all the same.
    bench.workload("conflict_listener")?;
    bench.workload("listen_after_failed_bind")?;
    bench.workload("fault_control_characters")?;
    bench.workload("fault_hostile_cgroup")?;
    bench.workload("connect_refused")?;
    bench.workload("connect_nonblocking")?;
    bench.workload("udp_connect4")?;
    task::signal(child.id(), libc::SIGTERM)?;
    drop(text);
    let status = child.wait()?;
    let mut noise = Vec::new();
    stderr.read_to_end(&mut noise)?;
    let all = reader
        .join()
        .map_err(|_| anyhow::anyhow!("the reader panicked"))?;
    ensure!(tracer::code(status) == 0, "{status}");
    for (what, bytes) in [("stdout", &all), ("stderr", &noise)] {
        let text = std::str::from_utf8(bytes).with_context(|| format!("{what} is not UTF-8"))?;
        // Control characters, and those that change the reading direction (Unicode, Bidi_Control).
        let harms = |c: char| {
            c.is_control()
                || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        let bad = text.chars().find(|&c| harms(c) && c != '\n');
        ensure!(bad.is_none(), "{what} holds {bad:?}: {text:?}");
    }
    let text = String::from_utf8_lossy(&all);
    for port in 8080..=8086 {
        ensure!(
            text.contains(&format!(":{port}")),
            "no line for port {port}: {text}"
        );
    }
    let own = |line: &&str| line.contains("portwatch-tests") || line.contains("exe ");
    let told = |words: &[&str]| {
        let mut lines = text.lines().filter(own);
        lines.any(|line| words.iter().all(|word| line.contains(word)))
    };
    for words in [
        &["BIND ", "EADDRINUSE"][..],
        &["LISTEN ", ":8080", " ok"],
        &["CONNECT ", "tcp ", ":8080", "ECONNREFUSED"],
        &["CONNECT ", "tcp ", ":8080", " ok"],
        &["CONNECT ", "udp ", ":5353", " ok"],
    ] {
        ensure!(told(words), "no line with {words:?}: {text}");
    }
    ensure!(text.contains("held by "), "no holder: {text}");
    ensure!(
        text.matches("↳ warning: ").count() == 4,
        "not each port that nobody chose is told: {text}"
    );
    Ok(())
}

/// What the programs say of their own work, on stderr at -vv.
fn life_diagnostics(bench: &Bench) -> Result<()> {
    let mut child = bench
        .command(bench.trace_args(["-vv", "--count", "1"]))
        .spawn()?;
    bench::until("the end after one event", || {
        bind_something()?;
        Ok(child.try_wait()?.is_some())
    })?;
    let output = child.wait_with_output()?;
    let notes = String::from_utf8_lossy(&output.stderr);
    let own = format!(
        "portwatch: kernel: process {}: announced",
        std::process::id()
    );
    ensure!(notes.lines().any(|line| line == own), "no {own:?}: {notes}");
    Ok(())
}

/// A connection attempt that is still open when the trace ends is told, as unknown.
fn life_connect_open_at_end(bench: &Bench) -> Result<()> {
    let netns = Netns::new()?;
    let home = Netns::current()?;
    netns.enter()?;
    let sockets = (|| -> Result<_> {
        let listener = Sock::new(Kind::Tcp4)?;
        let address = (Ipv4Addr::LOCALHOST, 8080).into();
        listener.bind(&address)?;
        listener.listen(0)?;
        let waiting = Sock::new(Kind::Tcp4)?;
        waiting.connect(&address)?;
        let open = Sock::new(Kind::Tcp4)?;
        open.set_nonblocking(true)?;
        Ok((address, listener, waiting, open))
    })();
    home.enter()?;
    let (address, _listener, _waiting, open) = sockets?;
    let tracer = bench.trace(["--netns", &netns.inode.to_string()])?;
    let started = open.connect(&address);
    ensure!(
        started == Err(nix::errno::Errno::EINPROGRESS),
        "{started:?}"
    );
    let finished = tracer.stop()?;
    finished.ended_well(0)?;
    let lines = bench::events(finished.lines);
    ensure!(lines.len() == 1, "{} lines: {lines:?}", lines.len());
    let line = &lines[0];
    for (path, value) in [
        ("event.name", Value::from("connect")),
        ("event.outcome", "unknown".into()),
        ("event.reason", "trace_ended".into()),
        ("network.peer.port", 8080.into()),
        ("process.pid", std::process::id().into()),
    ] {
        ensure!(
            lookup(line, path) == Some(&value),
            "{path} is not {value}: {line}"
        );
    }
    Ok(())
}

/// Arguments may hold secrets.
fn life_no_arguments(bench: &Bench) -> Result<()> {
    let mut tracer = bench.trace(["--no-args"])?;
    let expected = bench.workload("bind_tcp4")?;
    let mut lines = tracer.until_now()?;
    lines.retain(|line| expected.owns(line));
    ensure!(lines.len() == 1, "{} lines", lines.len());
    ensure!(
        lookup(&lines[0], "process.command_args").is_none(),
        "arguments: {}",
        lines[0]
    );
    tracer.stop()?.ended_well(0)
}
