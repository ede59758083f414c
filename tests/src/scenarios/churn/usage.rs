//! How it is called, how it ends, and what is wrong.

use std::process::Stdio;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{
    super::{Session, sessions},
    watched::{Churn, in_new_namespace, namespace, number, ran},
};
use crate::{
    bench::{self, Bench},
    contract,
    expect::lookup,
    sys::task,
};

pub(super) const ALL: &[Session] = sessions![
    churn_wrong_usage: once,
    churn_once: each_kernel,
    churn_ends_on_signals: each_kernel,
    churn_ends_with_its_reader: each_kernel,
    churn_of_a_command,
];

fn churn_wrong_usage(bench: &Bench) -> Result<()> {
    for (args, part) in [
        (&["--interval", "0"][..], "longer than nothing"),
        (&["--interval", "soon"], "is not a time"),
        (
            &["--by", "colour"],
            "process, destination, source, netns, container",
        ),
        (&["--top", "0"], "1 or more"),
        (&["--tuples", "0"], "0 is not in"),
        (&["--"], "a COMMAND is required"),
        (&["--attach", "magic"], "tracing, kprobe, raw_tp"),
    ] {
        let mut all = vec!["churn"];
        all.extend(args);
        let output = ran(bench, &all)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2), "{args:?}: {output:?}");
        ensure!(said.contains(part), "{args:?}: {said}");
        ensure!(output.stdout.is_empty(), "{args:?}: {output:?}");
    }
    Ok(())
}

fn churn_once(bench: &Bench) -> Result<()> {
    let attach = bench.backend.as_str();
    let output = ran(
        bench,
        &[
            "churn",
            "--once",
            "--interval",
            "300ms",
            "-o",
            "json",
            "--attach",
            attach,
        ],
    )?;
    ensure!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.lines().count() == 1, "{text}");
    let line = contract::churn(&text)?;
    ensure!(
        lookup(&line, "churn.backend").and_then(Value::as_str) == Some(attach),
        "{line}"
    );
    for by in ["process", "destination", "source", "netns", "container"] {
        let output = ran(
            bench,
            &[
                "churn",
                "--once",
                "--interval",
                "100ms",
                "--by",
                by,
                "--attach",
                attach,
            ],
        )?;
        ensure!(output.status.success(), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            text.contains("automatic ports in the last") && !text.contains('\x1b'),
            "{text}"
        );
    }
    Ok(())
}

fn churn_ends_on_signals(bench: &Bench) -> Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let churn = Churn::start(bench, &[])?;
        task::signal(churn.pid(), signal)?;
        let output = churn.stop()?;
        ensure!(output.status.success(), "signal {signal}: {output:?}");
    }
    Ok(())
}

fn churn_ends_with_its_reader(bench: &Bench) -> Result<()> {
    let mut command = bench.command(["churn", "--interval", "100ms", "--attach"]);
    let mut child = command
        .arg(bench.backend.as_str())
        .stdout(Stdio::piped())
        .spawn()?;
    drop(child.stdout.take());
    let output = bench::ended(child)?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

fn churn_of_a_command(bench: &Bench) -> Result<()> {
    in_new_namespace(|netns| {
        let file = bench.file("churn.json")?;
        let own = Bench::own_program()?;
        let own = bench.for_everybody(&own, "work")?;
        let mut command = bench.command(["churn", "--interval", "1m", "-o", "json", "--attach"]);
        command
            .arg(bench.backend.as_str())
            .arg("-w")
            .arg(&file)
            .arg("--")
            .arg(&own)
            .args(["cost", "work", "bind", "100"]);
        let output = bench::ended(command.spawn()?)?;
        ensure!(output.status.success(), "{output:?}");
        let text = std::fs::read_to_string(&file)?;
        let line = contract::churn(text.lines().last().unwrap_or_default())?;
        let told = namespace(&line, netns)
            .ok_or_else(|| anyhow::anyhow!("nothing of the command: {line}"))?;
        // Ten to get warm; and it was in its own namespace from the start.
        let taken = number(told, "total.taken.bind")?;
        ensure!(taken == 110, "{taken} taken: {told}");
        let namespaces = lookup(&line, "churn.namespaces").and_then(Value::as_array);
        ensure!(
            namespaces.is_some_and(|all| all.len() == 1),
            "somebody else's ports are counted: {line}"
        );
        Ok(())
    })
}
