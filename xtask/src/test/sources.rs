//! The tiers that look at the sources: format, clippy on host and eBPF code, unit and CLI tests.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::libtest;
use super::tier::Counts;
use crate::cargo::{cargo, cargo_here};
use crate::exec::{run, shown};
use crate::{fuzz, workspace};

/// Whether rustfmt would change anything.
pub(crate) fn format() -> Counts {
    Counts::of_one(
        "cargo fmt",
        run(cargo("fmt")
            .args(["--all", "--check"])
            .current_dir(workspace::root())),
    )
}

/// Clippy on everything that runs in user space.
pub(crate) fn clippy() -> Counts {
    let mut command = cargo_here("clippy");
    command.args(["--workspace", "--all-targets", "--", "-D", "warnings"]);
    Counts::of_one("cargo clippy", run(&mut command))
}

/// Clippy on the kernel programs, for the target that they are built for.
pub(crate) fn clippy_ebpf() -> Counts {
    let mut command = cargo_here("clippy");
    command.args([
        "--package",
        "portwatch-ebpf",
        "--bins",
        "--lib",
        "--target",
        "bpfel-unknown-none",
    ]);
    command.args(["-Z", "build-std=core"]);
    // Some build scripts ask to be run again when RUSTC_BOOTSTRAP changes: in the common folder this
    // would rebuild half of the dependencies at every turn.
    command
        .arg("--target-dir")
        .arg(workspace::scratch().join("clippy-ebpf"));
    command.args(["--", "-D", "warnings"]);
    // build-std is not stable: allowed here alone. The cfg is the one that aya-build gives.
    command.env("RUSTC_BOOTSTRAP", "1");
    command.env(
        "CARGO_ENCODED_RUSTFLAGS",
        format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
    );
    Counts::of_one("cargo clippy", run(&mut command))
}

/// Whether the fuzz target still compiles: no other package brings it along.
pub(crate) fn fuzz() -> Counts {
    const NAME: &str = "fuzz_target";
    if let Some(reason) = fuzz::hindrance() {
        return Counts::one_skipped(NAME, reason);
    }
    let mut command = cargo("check");
    command
        .args(["--locked", "--manifest-path"])
        .arg(fuzz::folder().join("Cargo.toml"))
        .arg("--target-dir")
        .arg(fuzz::target());
    Counts::of_one(NAME, run(command.current_dir(workspace::root())))
}

/// Unit, documentation and command line tests of all packages.
///
/// # Errors
/// cargo cannot be run.
pub(crate) fn unit(filter: Option<&str>, long: bool) -> Result<Counts> {
    let mut command: Command = cargo_here("test");
    command
        .args(["--workspace", "--no-fail-fast", "--"])
        .args(filter)
        .arg("--show-output");
    if long {
        command.env("PORTWATCH_TEST_LONG", "1");
    }
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", shown(&command)))?;
    let mut output = libtest::Output::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("cannot read what cargo test prints")?;
            let line = String::from_utf8_lossy(&line);
            if output.line(&line) {
                eprintln!("{line}");
            }
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for `{}`", shown(&command)))?;
    Ok(output.finish(status.success()))
}
