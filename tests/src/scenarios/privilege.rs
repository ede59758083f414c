//! With as few capabilities as portwatch says it needs, and with each of them missing.

use std::{
    ffi::OsString,
    fs,
    net::Ipv4Addr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Session,
    churn::watched::{Churn, in_new_namespace, namespace, number, sees_all},
    sessions,
};
use crate::{
    bench::{self, Bench},
    degraded::Backend,
    expect,
    runner::Workload,
    script::skip,
    sys::{
        capabilities::{self, Sets},
        netns::Netns,
        proc,
        sock::{Kind, Sock},
        task,
    },
    tracer::{self, Tracer},
};

pub(super) const ALL: &[Session] = sessions![
    privilege_of_every_thread: crossed,
    privilege_of_a_recorder: each_kernel,
    privilege_of_churn,
    privilege_as_nobody,
    privilege_by_file: crossed,
    privilege_without_each,
    privilege_with_little_locked_memory: crossed,
    privilege_doctor_has_the_table: once,
];

/// What is needed to load and attach.
pub(super) const LOADING: [&str; 2] = ["CAP_BPF", "CAP_PERFMON"];
/// What is needed to tell everything, to the end.
pub(super) const TELLING: [&str; 4] = [
    "CAP_SYS_PTRACE",
    "CAP_DAC_READ_SEARCH",
    "CAP_SYS_ADMIN",
    "CAP_NET_ADMIN",
];

/// Whether bpf() is nobody's but who has CAP_BPF, to the last lookup (before 5.19).
fn reading_needs_bpf() -> Result<bool> {
    let release = proc::kernel_release()?;
    let version = proc::version_of(&release).context("no version")?;
    let switch = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled")?;
    Ok(version < (5, 19) && switch.trim() != "0")
}

/// What a trace keeps.
fn kept() -> Result<u64> {
    let bpf: &[&str] = if reading_needs_bpf()? {
        &["CAP_BPF"]
    } else {
        &[]
    };
    Ok(capabilities::set(&TELLING)? | capabilities::set(bpf)?)
}

/// Every thread has this and no more, and cannot get more.
fn all_have(pid: u32, set: u64, bounding: Option<u64>) -> Result<Vec<String>> {
    let threads = capabilities::of_threads(pid)?;
    ensure!(!threads.is_empty(), "no thread of {pid}");
    for (name, sets) in &threads {
        let expected = Sets {
            inheritable: 0,
            permitted: set,
            effective: set,
            bounding: bounding.unwrap_or(sets.bounding),
            ambient: 0,
            no_new_privileges: true,
            seccomp: 2,
        };
        ensure!(*sets == expected, "{name}: {sets:x?}, not {expected:x?}");
    }
    Ok(threads.into_iter().map(|(name, _)| name).collect())
}

fn none() -> [&'static str; 0] {
    []
}

fn privilege_of_every_thread(bench: &Bench) -> Result<()> {
    // Whatever the runner itself has not, portwatch has not either.
    let own = capabilities::of_threads(std::process::id())?;
    let own = own.first().context("no thread")?.1.permitted;
    let mut tracer = bench.trace(none())?;
    let set = kept()? & own;
    all_have(tracer.pid(), set, Some(set))?;
    // With refusals to explain in another namespace, for which it starts threads: looked at while it does.
    let netns = Netns::new()?;
    let workload = Workload::start(&netns, "conflict_listener", bench.backend, false, false)?;
    let expected = bench::told(workload.finish()?)?;
    let mut lines = tracer.until_now()?;
    lines.retain(|line| expected.owns(line));
    expect::compare(&expected, &lines)?;
    all_have(tracer.pid(), set, Some(set))?;
    tracer.stop()?.ended_well(0)?;
    // It is still needed to pass SIGTERM on.
    let helper = Bench::own_program()?;
    let mut args = bench.trace_args(["-o", "json", "-w", "/dev/null", "--"]);
    args.extend([helper.into(), "helper".into(), "idle".into()]);
    let mut command = bench.command(args);
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let with_kill = set | capabilities::set(&["CAP_KILL"])? & own;
    let checked = bench::until("capabilities to be given up", || {
        Ok(all_have(child.id(), with_kill, Some(with_kill)).is_ok())
    });
    task::signal(child.id(), libc::SIGTERM)?;
    let output = {
        drop(child.stdin.take());
        bench::ended(child)?
    };
    checked?;
    ensure!(
        [0, 128 + libc::SIGTERM].contains(&tracer::code(output.status)),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// A thread writes the file: started after everything was given up.
fn privilege_of_a_recorder(bench: &Bench) -> Result<()> {
    let own = capabilities::of_threads(std::process::id())?;
    let own = own.first().context("no thread")?.1.permitted;
    let file = bench.file("confined.pwdb")?;
    let args: [OsString; 5] = [
        "record".into(),
        "--attach".into(),
        bench.backend.as_str().into(),
        "-w".into(),
        file.clone().into(),
    ];
    let child = bench.command(args).spawn()?;
    let set = kept()? & own;
    let checked = bench::until("the thread that writes", || {
        let threads = capabilities::of_threads(child.id())?;
        Ok(threads.len() > 1 && all_have(child.id(), set, Some(set)).is_ok())
    });
    let shown = capabilities::of_threads(child.id());
    task::signal(child.id(), libc::SIGTERM)?;
    let output = bench::ended(child)?;
    checked.with_context(|| format!("{shown:x?}, not {set:x}"))?;
    ensure!(
        tracer::code(output.status) == 0,
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let mode = fs::metadata(&file)?.mode() & 0o7777;
    ensure!(mode == 0o600, "mode {mode:o}");
    Ok(())
}

/// It keeps no more than a trace, and looks at all sockets with that.
fn privilege_of_churn(bench: &Bench) -> Result<()> {
    let own = capabilities::of_threads(std::process::id())?;
    let own = own.first().context("no thread")?.1.permitted;
    let set = kept()? & own;
    in_new_namespace(|netns| {
        let older = Sock::new(Kind::Udp4)?;
        older.bind(&(Ipv4Addr::LOCALHOST, 0).into())?;
        let mut churn = Churn::start(bench, &[])?;
        all_have(churn.pid(), set, Some(set))?;
        let sock = Sock::new(Kind::Tcp4)?;
        sock.bind(&(Ipv4Addr::LOCALHOST, 0).into())?;
        let line = churn.settled()?;
        let told = namespace(&line, netns).context("nothing of the namespace")?;
        ensure!(number(told, "total.taken.bind")? == 1, "{told}");
        if sees_all(bench) {
            ensure!(number(told, "held.count")? == 2, "{told}");
        }
        all_have(churn.pid(), set, Some(set))?;
        let output = churn.stop()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() && !said.contains("cannot"),
            "{output:?}"
        );
        Ok(())
    })
}

/// `portwatch trace ARGS…` as nobody who has these capabilities, and nothing else.
fn as_nobody(bench: &Bench, capabilities: &[&str], args: &[&str]) -> Result<Vec<OsString>> {
    let mut all = portwatch_as_nobody(bench, capabilities)?;
    all.extend(bench.trace_args(["-o", "json"]));
    all.extend(args.iter().map(OsString::from));
    Ok(all)
}

/// The arguments of [`helper`] that run portwatch as nobody who has these capabilities, and nothing else; its
/// own are to follow.
pub(super) fn portwatch_as_nobody(bench: &Bench, capabilities: &[&str]) -> Result<Vec<OsString>> {
    let portwatch = bench.for_everybody(&bench.portwatch, "portwatch")?;
    let mut all: Vec<OsString> = vec!["helper".into(), "as-nobody".into()];
    for capability in capabilities {
        all.extend(["--with".into(), capability.into()]);
    }
    all.push(portwatch.into());
    Ok(all)
}

pub(super) fn helper(bench: &Bench) -> Result<PathBuf> {
    bench.for_everybody(&Bench::own_program()?, "helper")
}

/// Who has all of them and is not root is told everything, as root is.
fn tells_everything(bench: &Bench, args: Vec<OsString>) -> Result<()> {
    let mut tracer = Tracer::start(&helper(bench)?, args)?;
    // Without CAP_SETPCAP the bounding set stays.
    all_have(tracer.pid(), kept()?, None)?;
    for name in ["bind_tcp4", "conflict_listener", "connect_refused"] {
        let netns = Netns::new()?;
        let mut workload = Workload::start(&netns, name, bench.backend, false, false)?;
        let told = workload.told()?;
        let mut lines = tracer.until_now()?;
        let expected = bench::told(workload.end(told)?)?;
        lines.retain(|line| expected.owns(line));
        expect::compare(&expected, &lines)?;
    }
    tracer.stop()?.ended_well(0)
}

/// No root: what systemd's AmbientCapabilities= gives is enough.
fn privilege_as_nobody(bench: &Bench) -> Result<()> {
    let all = [&LOADING[..], &TELLING].concat();
    tells_everything(bench, as_nobody(bench, &all, &[])?)
}

/// No root: what setcap(8) gives is enough. Such a program's own /proc/self is root's.
fn privilege_by_file(bench: &Bench) -> Result<()> {
    let all = [&LOADING[..], &TELLING].concat();
    let mut args = as_nobody(bench, &all, &[])?;
    let program = args
        .iter()
        .position(|arg| arg == "as-nobody")
        .context("no helper")?
        + 1;
    args.insert(program, "--by-file".into());
    // The copy that `as_nobody` has made.
    let portwatch = args.iter().map(Path::new).find(|arg| arg.is_absolute());
    if !capabilities::give_file(portwatch.context("no program")?, &all)? {
        return skip("this file system keeps no capabilities of files");
    }
    tells_everything(bench, args)
}

/// The paths that are missing of a refusal in another network namespace, by a listener that is older than
/// the trace. Both are root's.
fn missing_without(bench: &Bench, capability: &str) -> Result<Vec<String>> {
    let netns = Netns::new()?;
    let mut older = Workload::start(&netns, "hidden_holder", bench.backend, false, false)?;
    let told = older.told()?;
    let capabilities: Vec<&str> = LOADING
        .into_iter()
        .chain(TELLING)
        .filter(|one| *one != capability)
        .collect();
    let mut tracer = Tracer::start(&helper(bench)?, as_nobody(bench, &capabilities, &[])?)?;
    let mut late = Workload::start(&netns, "refused_by_older", bench.backend, false, false)?;
    let refused = late.told()?;
    let lines = tracer.until_now()?;
    let expected = bench::told(late.end(refused)?)?;
    bench::told(older.end(told)?)?;
    tracer.stop()?.ended_well(0)?;
    let own = lines.iter().find(|line| expected.owns(line));
    let own = own.context("the refusal is not told")?;
    let missing = own.get("missing").and_then(Value::as_array);
    Ok(missing
        .into_iter()
        .flatten()
        .filter_map(|path| path.as_str().map(str::to_owned))
        .collect())
}

/// Debian's kernels open perf events for nobody else where this is above 2.
fn kprobes_need_admin(bench: &Bench) -> Result<bool> {
    let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid")?;
    Ok(bench.backend == Backend::Kprobe && level.trim().parse::<i32>()? > 2)
}

/// With all but one: exit status 3, and a hint that names it and no other.
fn refused_without(bench: &Bench, capability: &str) -> Result<()> {
    let all = LOADING.into_iter().chain(TELLING);
    // It stands in for both (include/linux/capability.h).
    let admin = LOADING.contains(&capability).then_some("CAP_SYS_ADMIN");
    let rest: Vec<&str> = all
        .filter(|one| *one != capability && Some(*one) != admin)
        .collect();
    let output = Command::new(helper(bench)?)
        .args(as_nobody(bench, &rest, &[])?)
        .stdin(Stdio::null())
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        tracer::code(output.status) == 3
            && output.stdout.is_empty()
            && stderr.contains(&format!("hint: {capability} missing")),
        "without {capability}: {}: {stderr}",
        output.status
    );
    for other in rest {
        ensure!(!stderr.contains(other), "without {capability}: {stderr}");
    }
    Ok(())
}

/// Without one of what loading needs: refused, by name. Without one of the rest: told, and what could not
/// be found out is said to be missing.
fn privilege_without_each(bench: &Bench) -> Result<()> {
    for capability in LOADING {
        refused_without(bench, capability)?;
    }
    let all = missing_without(bench, "")?;
    for (capability, path) in [
        ("CAP_SYS_PTRACE", Some("conflict.holders.processes")),
        ("CAP_DAC_READ_SEARCH", Some("conflict.holders.processes")),
        ("CAP_SYS_ADMIN", Some("network.local.ephemeral")),
        ("CAP_NET_ADMIN", None),
    ] {
        if capability == "CAP_SYS_ADMIN" && kprobes_need_admin(bench)? {
            refused_without(bench, capability)?;
            continue;
        }
        let missing = missing_without(bench, capability)?;
        let surplus: Vec<_> = missing.iter().filter(|path| !all.contains(path)).collect();
        match path {
            Some(path) => ensure!(
                surplus.iter().any(|surplus| *surplus == path),
                "without {capability} {path} is not missing: {missing:?}; with all: {all:?}"
            ),
            None => ensure!(
                surplus.is_empty(),
                "without {capability}: {missing:?}; with all: {all:?}"
            ),
        }
    }
    Ok(())
}

/// Without CAP_SYS_RESOURCE the limit of locked memory stays what it is: on kernels that count maps against it
/// (before 5.11) that is said, with what to do; on others it makes no difference.
fn privilege_with_little_locked_memory(bench: &Bench) -> Result<()> {
    let all = [&LOADING[..], &TELLING].concat();
    let mut args = as_nobody(bench, &all, &["--duration", "1ms"])?;
    args.splice(2..2, ["--memlock".into(), "65536".into()]);
    let mut command = Command::new(helper(bench)?);
    command.args(args).stdin(Stdio::null());
    let output = command.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let release = proc::kernel_release()?;
    let counted = proc::version_of(&release).context("no version")? < (5, 11);
    ensure!(
        tracer::code(output.status) == if counted { 3 } else { 0 }
            && stderr.contains("ulimit -l") == counted,
        "{}: {stderr}",
        output.status
    );
    Ok(())
}

/// The table in the doctor's report is the one that these scenarios hold portwatch to.
fn privilege_doctor_has_the_table(bench: &Bench) -> Result<()> {
    let output = bench::ended(bench.command(["doctor", "-o", "json"]).spawn()?)?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let rows = report.get("capabilities").and_then(Value::as_array);
    let needed = |when: &str| {
        let mut names: Vec<&str> = rows
            .into_iter()
            .flatten()
            .filter(|row| row.get("when").and_then(Value::as_str) == Some(when))
            .filter_map(|row| row.get("capabilities")?.as_array())
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let mut telling = TELLING.to_vec();
    telling.sort_unstable();
    ensure!(needed("running") == telling, "{:?}", needed("running"));
    ensure!(
        LOADING.iter().all(|one| needed("start").contains(one)),
        "{:?}",
        needed("start")
    );
    Ok(())
}
