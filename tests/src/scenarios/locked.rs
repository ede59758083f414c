//! Kernel lockdown (kernel_lockdown(7)). It is raised and cannot be lowered again before the next boot:
//! the last that is done in a test VM.

use std::{fs, process::Output};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Session, sessions};
use crate::{
    bench::{self, Bench},
    degraded::Backend,
    expect,
    script::skip,
    tracer,
};

/// In this order.
pub(crate) const ALL: &[Session] = sessions![
    lockdown_integrity: once,
    lockdown_confidentiality: once,
];

const LEVEL: &str = "/sys/kernel/security/lockdown";

/// Raises it to a level, in a machine that is nobody's but ours.
fn raise(level: &str) -> Result<()> {
    if std::env::var_os("PID1_LISTENS_ON").is_none() {
        bail!("this machine is not the test VM: it would stay locked down");
    }
    if !fs::exists(LEVEL)? {
        return skip("no lockdown on this kernel");
    }
    fs::write(LEVEL, level).with_context(|| format!("cannot write to {LEVEL}"))?;
    let now = fs::read_to_string(LEVEL)?;
    ensure!(now.contains(&format!("[{level}]")), "{now}");
    Ok(())
}

fn output(bench: &Bench, args: &[&str]) -> Result<Output> {
    bench::ended(bench.command(args).spawn()?)
}

/// What `portwatch doctor` makes of it; with its exit code.
fn doctor(bench: &Bench) -> Result<(Value, i32)> {
    let output = output(bench, &["doctor", "-o", "json"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text).with_context(|| text.into_owned())?;
    Ok((report, tracer::code(output.status)))
}

/// Who may not change the kernel may still look at it: nothing is missing, whatever the way in.
fn lockdown_integrity(bench: &Bench) -> Result<()> {
    raise("integrity")?;
    for backend in Backend::ALL {
        let bench = Bench::new(&bench.portwatch, backend, false)?;
        let mut tracer = bench
            .trace([""; 0])
            .with_context(|| format!("with {}", backend.as_str()))?;
        for name in ["conflict_listener", "connect_refused", "udp_connect4"] {
            let expected = bench.workload(name)?;
            let mut lines = tracer.until_now()?;
            lines.retain(|line| expected.owns(line));
            expect::compare(&expected, &lines)?;
        }
        tracer.stop()?.ended_well(0)?;
    }
    let (report, code) = doctor(bench)?;
    ensure!(
        report.get("lockdown") == Some(&"integrity".into()) && code == 0,
        "{code}: {report}"
    );
    Ok(())
}

/// Nobody may read the kernel's memory: no way in works, and each says why, and what to do. What needs
/// none goes on.
fn lockdown_confidentiality(bench: &Bench) -> Result<()> {
    raise("confidentiality")?;
    for attach in ["auto", "tracing", "kprobe", "raw_tp"] {
        let output = output(bench, &["trace", "--attach", attach, "--duration", "1s"])?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            tracer::code(output.status) == 3 && output.stdout.is_empty(),
            "{attach}: {}; stderr: {}",
            output.status,
            stderr.trim()
        );
        ensure!(
            stderr.contains("hint: ") && stderr.contains("locked down (confidentiality)"),
            "{attach}: unclear: {}",
            stderr.trim()
        );
    }
    let (report, code) = doctor(bench)?;
    ensure!(
        report.get("lockdown") == Some(&"confidentiality".into()) && code == 3,
        "{code}: {report}"
    );
    // PID 1 listens.
    let output = output(bench, &["list", "-l", "-t", "-o", "json"])?;
    let listed = String::from_utf8_lossy(&output.stdout);
    ensure!(
        tracer::code(output.status) == 0 && listed.contains("\"listen\""),
        "{}: {listed}; stderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
