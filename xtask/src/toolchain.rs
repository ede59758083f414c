//! The parts of the toolchain that a fresh machine lacks, got once and then only looked at.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::cargo;
use crate::exec::{on_path, output, run};
use crate::say::{Step, say};
use crate::workspace;

/// bpf-linker links with rustc's own LLVM, so its version goes with the compiler that
/// `rust-toolchain.toml` pins: 0.10 is for LLVM 22 (rustc 1.95), 0.11 and later want LLVM 23.
const BPF_LINKER: &str = "0.10.3";

/// Builds with the pinned compiler, and passes it flags that it knows.
const CARGO_FUZZ: &str = "0.13.2";

/// What the guest's programs are built for: one static file each, whatever the machine's libc.
pub(crate) const GUEST_TARGET: &str = "x86_64-unknown-linux-musl";

/// Makes sure that the eBPF programs can be built: the standard library's sources, and bpf-linker
/// in a folder of this workspace.
///
/// # Errors
/// Something is missing and cannot be got; the message says what to do.
pub(crate) fn ensure_ebpf() -> Result<()> {
    let has_sources = sysroot()?
        .join("lib/rustlib/src/rust/library/core/Cargo.toml")
        .is_file();
    if !has_sources {
        add(
            "component",
            "rust-src",
            "the standard library's sources, 4 MB: eBPF has no prebuilt core",
        )?;
    }
    ensure_bpf_linker()
}

/// Makes sure that clippy and rustfmt are there.
///
/// # Errors
/// As [`ensure_ebpf`].
pub(crate) fn ensure_lints() -> Result<()> {
    let bin = sysroot()?.join("bin");
    for (component, program) in [("clippy", "cargo-clippy"), ("rustfmt", "rustfmt")] {
        if !bin.join(program).is_file() {
            add("component", component, "named in rust-toolchain.toml")?;
        }
    }
    Ok(())
}

/// Makes sure that static executables for the VM can be built.
///
/// # Errors
/// As [`ensure_ebpf`].
pub(crate) fn ensure_guest_target() -> Result<()> {
    if !sysroot()?
        .join("lib/rustlib")
        .join(GUEST_TARGET)
        .join("lib")
        .is_dir()
    {
        add(
            "target",
            GUEST_TARGET,
            "static executables for the test VM, 40 MB",
        )?;
    }
    Ok(())
}

fn sysroot() -> Result<PathBuf> {
    let mut rustc = Command::new("rustc");
    rustc
        .args(["--print", "sysroot"])
        .current_dir(workspace::root());
    let text =
        output(&mut rustc).context("no rustc: install Rust with rustup, https://rustup.rs")?;
    Ok(PathBuf::from(text.trim()))
}

fn add(kind: &str, name: &str, why: &str) -> Result<()> {
    let toolchain = toolchain_name()?;
    if !on_path("rustup") {
        bail!(
            "the {kind} {name} is missing ({why}) and there is no rustup to add it\n\
             next step: install rustup (https://rustup.rs), or your distribution's package of {name} for exactly this rustc"
        );
    }
    let step = Step::begin(format!(
        "adding the Rust {kind} {name} to {toolchain} ({why})"
    ));
    let mut command = Command::new("rustup");
    command.args([kind, "add", name, "--toolchain", &toolchain]);
    run(&mut command).with_context(|| {
        format!("cannot add the Rust {kind} {name}; it is fetched from the network: check the connection and run the command above by hand")
    })?;
    step.done();
    Ok(())
}

/// rustup names the toolchain it picked in this variable for every program under its proxies.
fn toolchain_name() -> Result<String> {
    if let Ok(name) = env::var("RUSTUP_TOOLCHAIN") {
        return Ok(name);
    }
    let file = workspace::root().join("rust-toolchain.toml");
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    channel(&text)
        .map(String::from)
        .with_context(|| format!("{} names no channel", file.display()))
}

fn channel(toml: &str) -> Option<&str> {
    let value = toml.lines().find_map(|line| {
        line.trim()
            .strip_prefix("channel")?
            .trim_start()
            .strip_prefix('=')
    })?;
    Some(value.trim().trim_matches('"'))
}

fn ensure_bpf_linker() -> Result<()> {
    ensure_tool("bpf-linker", BPF_LINKER, "links the eBPF programs")
}

/// Makes sure that the fuzzer can be driven.
///
/// # Errors
/// As [`ensure_ebpf`].
pub(crate) fn ensure_cargo_fuzz() -> Result<()> {
    ensure_tool("cargo-fuzz", CARGO_FUZZ, "drives libFuzzer")
}

/// Builds a program into a folder of this workspace, unless it is there in that version.
fn ensure_tool(name: &str, version: &str, purpose: &str) -> Result<()> {
    let program = workspace::tools().join("bin").join(name);
    let there = program.is_file()
        && output(Command::new(&program).arg("--version"))
            .is_ok_and(|said| said.trim().ends_with(version));
    if there {
        return Ok(());
    }
    say(format_args!(
        "{name} {version} {purpose}; it goes to {}",
        workspace::tools().display()
    ));
    let step = Step::begin(format!("building {name} {version} (a minute or two, once)"));
    let mut install = cargo("install");
    install
        .args([name, "--locked", "--force", "--version", version, "--root"])
        .arg(workspace::tools());
    run(install.current_dir(workspace::root())).with_context(|| {
        format!(
            "cannot install {name}\n\
             next step: check the network (its sources come from the crate registry) and that a C compiler is there, then run the command above by hand"
        )
    })?;
    step.done();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channel_is_read_from_the_toolchain_file() {
        assert_eq!(
            channel("[toolchain]\nchannel = \"1.95.0\"\nprofile = \"minimal\"\n"),
            Some("1.95.0")
        );
        assert_eq!(channel("[toolchain]\nprofile = \"minimal\"\n"), None);
    }

    #[test]
    fn this_workspace_names_a_channel() {
        let text =
            fs::read_to_string(workspace::root().join("rust-toolchain.toml")).unwrap_or_default();
        assert!(channel(&text).is_some());
    }
}
