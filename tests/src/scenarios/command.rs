//! `portwatch trace … -- COMMAND`.

use std::{
    ffi::OsString,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Session, sessions};
use crate::{
    bench::{self, Bench},
    degraded::{self, Feature},
    expect::lookup,
    sys::{netns::Netns, task},
    tracer,
};

pub(super) const ALL: &[Session] = sessions![
    command_exit_status: once,
    command_killed: once,
    command_not_found: once,
    command_not_executable: once,
    command_not_run_after_usage_error: once,
    command_starts_when_attached: crossed,
    command_family,
    command_accept_and_release,
    command_keeps_its_streams: once,
    command_lines_on_stderr: once,
    command_runs_as_caller_of_sudo: once,
    command_gets_sigterm: once,
];

/// `trace -o json -w FILE -- COMMAND…`, not started yet.
fn trace(bench: &Bench, file: &Path, command: &[&str]) -> Result<Command> {
    trace_with(bench, &[], file, command)
}

/// The same with more arguments.
fn trace_with(bench: &Bench, more: &[&str], file: &Path, command: &[&str]) -> Result<Command> {
    let own = Bench::own_program()?;
    let mut args = bench.trace_args(["-o", "json"].iter().chain(more).chain(&["-w"]));
    args.extend([file.into(), OsString::from("--"), own.into()]);
    args.extend(command.iter().map(OsString::from));
    Ok(bench.command(args))
}

/// Runs it in a namespace of its own: how it ended, and the lines it wrote.
fn run(bench: &Bench, command: &[&str]) -> Result<(Output, Vec<Value>)> {
    let file = bench.file("command.json")?;
    let child = bench::spawn_in(&Netns::new()?, &mut trace(bench, &file, command)?)?;
    let output = bench::ended(child)?;
    let text = fs::read_to_string(&file)
        .with_context(|| format!("no output; stderr: {}", stderr(&output)))?;
    Ok((output, bench::events(bench::stream(&text)?)))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

fn ends_with(output: &Output, code: i32) -> Result<()> {
    ensure!(
        tracer::code(output.status) == code,
        "{} instead of exit code {code}; stderr: {}",
        output.status,
        stderr(output)
    );
    Ok(())
}

fn command_exit_status(bench: &Bench) -> Result<()> {
    for code in [0, 7, 255] {
        let (output, _) = run(bench, &["helper", "exit", &code.to_string()])?;
        ends_with(&output, code)?;
    }
    Ok(())
}

fn command_killed(bench: &Bench) -> Result<()> {
    let (output, _) = run(bench, &["helper", "die", "9"])?;
    ends_with(&output, 128 + 9)
}

/// Runs `COMMAND` that is no helper of ours.
fn run_program(bench: &Bench, program: &Path) -> Result<Output> {
    let file = bench.file("command.json")?;
    let mut args = bench.trace_args(["-o", "json", "-w"]);
    args.extend([file.into(), OsString::from("--"), program.into()]);
    bench::ended(bench.command(args).spawn()?)
}

fn command_not_found(bench: &Bench) -> Result<()> {
    let output = run_program(bench, &bench.file("no-such-program")?)?;
    ends_with(&output, 127)?;
    ensure!(
        stderr(&output).contains("no-such-program"),
        "{}",
        stderr(&output)
    );
    Ok(())
}

fn command_not_executable(bench: &Bench) -> Result<()> {
    let program = bench.file("no-program")?;
    fs::write(&program, "only text")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644))?;
    let output = run_program(bench, &program)?;
    ends_with(&output, 126)?;
    ensure!(
        stderr(&output).contains("no-program"),
        "{}",
        stderr(&output)
    );
    Ok(())
}

/// portwatch's own failure comes first: the command is not run.
fn command_not_run_after_usage_error(bench: &Bench) -> Result<()> {
    let trace = bench.file("touched")?;
    let own = Bench::own_program()?;
    let mut args = bench.trace_args(["--port", "99999", "--"]);
    args.extend([
        own.into(),
        "helper".into(),
        "touch".into(),
        trace.clone().into(),
    ]);
    let output = bench::ended(bench.command(args).spawn()?)?;
    ends_with(&output, 2)?;
    ensure!(!trace.exists(), "the command was run");
    Ok(())
}

/// The first thing the command does is seen.
fn command_starts_when_attached(bench: &Bench) -> Result<()> {
    for _ in 0..3 {
        let (output, lines) = run(bench, &["helper", "bind", "8080"])?;
        ends_with(&output, 0)?;
        ensure!(
            lines.len() == 1,
            "{} lines instead of one: {lines:?}",
            lines.len()
        );
        ensure!(
            lookup(&lines[0], "network.local.port") == Some(&Value::from(8080)),
            "not its bind: {}",
            lines[0]
        );
    }
    Ok(())
}

/// The command, its child, and a daemon of it; nobody else.
fn command_family(bench: &Bench) -> Result<()> {
    let netns = Netns::new()?;
    let file = bench.file("command.json")?;
    let mut command = trace(bench, &file, &["helper", "family", "8080"])?;
    let child = bench::spawn_in(&netns, &mut command)?;
    // Somebody else, all the while.
    let deadline = std::time::Instant::now() + tracer::PATIENCE;
    let mut child = child;
    while child.try_wait()?.is_none() {
        drop(std::net::UdpSocket::bind(("127.0.0.1", 0))?);
        ensure!(std::time::Instant::now() < deadline, "it does not end");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let output = bench::ended(child)?;
    ends_with(&output, 0)?;
    let lines = bench::events(bench::stream(&fs::read_to_string(&file)?)?);
    let ports: Vec<_> = lines
        .iter()
        .filter_map(|line| lookup(line, "network.local.port")?.as_u64())
        .collect();
    ensure!(ports == [8080, 8081, 8082], "saw ports {ports:?}");
    let pids: std::collections::BTreeSet<_> = lines
        .iter()
        .filter_map(|line| lookup(line, "process.pid")?.as_u64())
        .collect();
    ensure!(pids.len() == 3, "saw processes {pids:?}");
    Ok(())
}

/// What has no caller is the command's where one of its processes had the port last.
fn command_accept_and_release(bench: &Bench) -> Result<()> {
    let sees_release = degraded::may_miss(bench.backend, Feature::Release).is_none();
    let events = if sees_release {
        "accept,release"
    } else {
        "accept"
    };
    let netns = Netns::new()?;
    let file = bench.file("command.json")?;
    let command = ["helper", "serve", "8080"];
    let mut command = trace_with(bench, &["-e", events], &file, &command)?;
    let mut child = bench::spawn_in(&netns, &mut command)?;
    // Somebody else does the same, all the while.
    let elsewhere = Netns::new()?;
    let mut ended = false;
    while !ended {
        ended = child.try_wait()?.is_some();
        let mut other = Command::new(Bench::own_program()?);
        other.args(["helper", "serve", "9090"]).stdin(Stdio::null());
        other.stdout(Stdio::piped()).stderr(Stdio::piped());
        let other = bench::ended(bench::spawn_in(&elsewhere, &mut other)?)?;
        ends_with(&other, 0)?;
    }
    let output = bench::ended(child)?;
    ends_with(&output, 0)?;
    let lines = bench::events(bench::stream(&fs::read_to_string(&file)?)?);
    let of = |event: &str| -> Vec<_> {
        let lines = lines
            .iter()
            .filter(|line| lookup(line, "event.name").and_then(Value::as_str) == Some(event));
        lines.collect()
    };
    let number = |line: &Value, path: &str| lookup(line, path).and_then(Value::as_u64);
    let accepted = of("accept");
    ensure!(
        accepted.len() == 1,
        "{} accepted: {lines:?}",
        accepted.len()
    );
    ensure!(
        number(accepted[0], "network.local.port") == Some(8080),
        "{}",
        accepted[0]
    );
    if !sees_release {
        return Ok(());
    }
    let released = of("release");
    // The client's port, and the server's.
    let client = number(accepted[0], "network.peer.port");
    let mut ports: Vec<_> = released
        .iter()
        .map(|line| number(line, "network.local.port"))
        .collect();
    ports.sort_unstable();
    ensure!(
        ports == [Some(8080), client],
        "released: {ports:?}, not 8080 and {client:?}"
    );
    let server = released
        .iter()
        .find(|line| number(line, "network.local.port") == Some(8080))
        .context("no server")?;
    ensure!(
        number(server, "process.pid") == number(accepted[0], "process.pid"),
        "not released by who accepted: {server}"
    );
    Ok(())
}

fn command_keeps_its_streams(bench: &Bench) -> Result<()> {
    let file = bench.file("command.json")?;
    let mut command = trace(bench, &file, &["helper", "cat"])?;
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    child.stdin.take().context("no pipe")?.write_all(b"five!")?;
    let output = bench::ended(child)?;
    ends_with(&output, 0)?;
    ensure!(output.stdout == b"five!", "stdout: {:?}", output.stdout);
    ensure!(
        stderr(&output).contains("copied 5 bytes"),
        "stderr: {}",
        stderr(&output)
    );
    bench::stream(&fs::read_to_string(&file)?)?;
    Ok(())
}

/// Without -w the lines go to stderr: stdout is the command's.
fn command_lines_on_stderr(bench: &Bench) -> Result<()> {
    let mut args = bench.trace_args(["-o", "json", "--"]);
    args.extend([
        Bench::own_program()?.into(),
        "helper".into(),
        "bind".into(),
        "8080".into(),
    ]);
    let child = bench::spawn_in(&Netns::new()?, &mut bench.command(args))?;
    let output = bench::ended(child)?;
    ends_with(&output, 0)?;
    ensure!(output.stdout.is_empty(), "stdout: {:?}", output.stdout);
    let json: String = stderr(&output)
        .lines()
        .filter(|line| line.starts_with('{'))
        .flat_map(|line| [line, "\n"])
        .collect();
    let lines = bench::events(bench::stream(&json)?);
    ensure!(lines.len() == 1, "{lines:?}");
    Ok(())
}

/// sudo's caller gets neither root nor anything of ours.
fn command_runs_as_caller_of_sudo(bench: &Bench) -> Result<()> {
    let program = bench.for_everybody(&Bench::own_program()?, "whoami")?;
    let file = bench.file("command.json")?;
    let mut args = bench.trace_args(["-o", "json", "-w"]);
    args.extend([
        file.into(),
        OsString::from("--"),
        program.into(),
        "helper".into(),
        "whoami".into(),
    ]);
    let mut command = bench.command(args);
    command.env("SUDO_UID", "65534").env("SUDO_GID", "65534");
    let output = bench::ended(command.spawn()?)?;
    ends_with(&output, 0)?;
    let who: Value = serde_json::from_slice(&output.stdout).context("whoami said nothing")?;
    let four = "65534\t65534\t65534\t65534";
    ensure!(who["uid"] == four, "uids: {who}");
    ensure!(who["gid"] == four, "gids: {who}");
    ensure!(
        who["capabilities"] == "0000000000000000",
        "capabilities: {who}"
    );
    ensure!(who["descriptors"] == 3, "descriptors: {who}");
    ensure!(
        !who["groups"]
            .as_str()
            .unwrap_or_default()
            .split(' ')
            .any(|group| group == "0"),
        "groups: {who}"
    );
    Ok(())
}

/// SIGTERM is passed on, and portwatch ends after the command.
fn command_gets_sigterm(bench: &Bench) -> Result<()> {
    let file = bench.file("command.json")?;
    let mut command = trace(bench, &file, &["helper", "wait", "8080"])?;
    let child = bench::spawn_in(&Netns::new()?, &mut command)?;
    let line = "\"port\":8080";
    bench::until("the command's bind", || {
        Ok(fs::read_to_string(&file).is_ok_and(|text| text.contains(line)))
    })?;
    task::signal(child.id(), libc::SIGTERM)?;
    let output = bench::ended(child)?;
    ends_with(&output, 128 + libc::SIGTERM)?;
    let lines = bench::events(bench::stream(&fs::read_to_string(&file)?)?);
    let pid = lines
        .first()
        .and_then(|line| lookup(line, "process.pid")?.as_u64())
        .context("the bind has no pid")?;
    ensure!(
        !Path::new(&format!("/proc/{pid}")).exists(),
        "the command is still there"
    );
    Ok(())
}
