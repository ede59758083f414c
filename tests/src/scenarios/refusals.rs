//! What portwatch cannot or will not do, and how it says so.

use std::{fs, process::Output};

use anyhow::{Result, ensure};

use super::{Session, sessions};
use crate::{
    bench::{self, Bench},
    degraded::Backend,
    script::skip,
    tracer,
};

pub(super) const ALL: &[Session] = sessions![
    refusal_usage: once,
    refusal_without_root: crossed,
    refusal_without_btf: crossed,
    refusal_of_doctored_btf,
    refusal_impossible_attach,
    refusal_unwritable_file: once,
    refusal_doctor_works_without_root: each_kernel,
];

/// This exit code, nothing on stdout, and words on stderr that hold one of these.
fn refused(output: &Output, code: i32, words: &[&str]) -> Result<()> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        tracer::code(output.status) == code,
        "{} instead of exit code {code}; stderr: {}",
        output.status,
        stderr.trim()
    );
    ensure!(output.stdout.is_empty(), "stdout: {:?}", output.stdout);
    ensure!(
        words.iter().any(|word| stderr.contains(word)),
        "stderr has none of {words:?}: {}",
        stderr.trim()
    );
    ensure!(
        !stderr.contains("panicked"),
        "it panicked: {}",
        stderr.trim()
    );
    Ok(())
}

fn refusal_usage(bench: &Bench) -> Result<()> {
    for (args, word) in [
        (&["trace", "--port", "65536"][..], "65536"),
        (&["trace", "--port", "9000-8000"], "9000-8000"),
        (&["trace", "--port", "http/tcp/x"], "http/tcp/x"),
        (&["trace", "--peer-port", "-1"], "-1"),
        (&["trace", "--event", "unbind"], "unbind"),
        (&["trace", "--attach", "magic"], "magic"),
        (
            &["trace", "--uid", "no-such-user-here"],
            "no-such-user-here",
        ),
        (&["trace", "--pid", "one"], "one"),
        (
            &["trace", "--netns", "no-such-netns-here"],
            "no-such-netns-here",
        ),
        (
            &["trace", "--cgroup", "/no-such-cgroup-here"],
            "no-such-cgroup-here",
        ),
        (&["trace", "--duration", "soon"], "soon"),
        (&["trace", "--count", "many"], "many"),
        (&["trace", "--buffer", "huge"], "huge"),
        (&["trace", "--no-such-option"], "--no-such-option"),
        (&["no-such-command"], "no-such-command"),
    ] {
        let output = bench::ended(bench.command(args).spawn()?)?;
        refused(&output, 2, &[word]).map_err(|error| error.context(format!("{args:?}")))?;
    }
    Ok(())
}

fn refusal_without_root(bench: &Bench) -> Result<()> {
    let helper = bench.for_everybody(&Bench::own_program()?, "helper")?;
    let portwatch = bench.for_everybody(&bench.portwatch, "portwatch")?;
    let mut command = std::process::Command::new(helper);
    command
        .args(["helper", "as-nobody"])
        .arg(portwatch)
        .args(bench.trace_args(["-o", "json"]))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let output = bench::ended(command.spawn()?)?;
    refused(&output, 3, &["sudo"])
}

fn refusal_without_btf(bench: &Bench) -> Result<()> {
    if !fs::exists("/sys/kernel/btf/vmlinux")? {
        return skip("this kernel has no BTF to hide");
    }
    let mut command = std::process::Command::new(Bench::own_program()?);
    command
        .args(["helper", "without-btf"])
        .arg(&bench.portwatch)
        .args(bench.trace_args(["-o", "json"]))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let output = bench::ended(command.spawn()?)?;
    refused(&output, 3, &["BTF"])
}

/// Type information that is damaged, or of a kernel that lacks what is needed: refused with what is wrong, and
/// with what to do.
fn refusal_of_doctored_btf(bench: &Bench) -> Result<()> {
    if !fs::exists("/sys/kernel/btf/vmlinux")? {
        return skip("this kernel has no BTF to doctor");
    }
    for (how, word) in [
        ("truncated", "BTF"),
        ("garbage", "BTF"),
        ("field-gone", "skc_num"),
        ("function-gone", "inet_autobind"),
    ] {
        // What this backend does without is no reason to refuse.
        let needed = how != "function-gone" || bench.backend != Backend::RawTp;
        let mut command = std::process::Command::new(Bench::own_program()?);
        command
            .args(["helper", "with-doctored-btf", "--how", how])
            .arg(&bench.portwatch)
            .args(bench.trace_args(["-o", "json", "--duration", "1ms"]))
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let output = bench::ended(command.spawn()?)?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if needed {
            refused(&output, 3, &[word]).map_err(|error| error.context(how))?;
            ensure!(stderr.contains("hint: "), "{how}: no next step: {stderr}");
        } else {
            ensure!(output.status.success(), "{how}: {stderr}");
        }
    }
    Ok(())
}

fn refusal_impossible_attach(bench: &Bench) -> Result<()> {
    let mut impossible = 0;
    for backend in Backend::ALL {
        let args = [
            "trace",
            "-o",
            "json",
            "--duration",
            "1ms",
            "--attach",
            backend.as_str(),
        ];
        let output = bench::ended(bench.command(args).spawn()?)?;
        if tracer::code(output.status) != 0 {
            impossible += 1;
            refused(&output, 3, &[backend.as_str()])?;
        }
    }
    if impossible == 0 {
        return skip("every backend is possible on this kernel");
    }
    Ok(())
}

fn refusal_unwritable_file(bench: &Bench) -> Result<()> {
    let args = bench.trace_args(["-o", "json", "-w", "/no-such-directory/file"]);
    let output = bench::ended(bench.command(args).spawn()?)?;
    refused(&output, 4, &["/no-such-directory/file"])
}

/// The doctor says what is wrong instead of refusing.
fn refusal_doctor_works_without_root(bench: &Bench) -> Result<()> {
    let helper = bench.for_everybody(&Bench::own_program()?, "helper")?;
    let portwatch = bench.for_everybody(&bench.portwatch, "portwatch")?;
    for root in [true, false] {
        let mut command = std::process::Command::new(&helper);
        if root {
            command = std::process::Command::new(&portwatch);
        } else {
            command.args(["helper", "as-nobody"]).arg(&portwatch);
        }
        command
            .args(["doctor", "-o", "json"])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let output = bench::ended(command.spawn()?)?;
        let code = tracer::code(output.status);
        let expected = if root { 0 } else { 3 };
        ensure!(
            code == 0 || code == expected,
            "as root: {root}: exit code {code}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        ensure!(report.is_object(), "not one object: {report}");
    }
    Ok(())
}
