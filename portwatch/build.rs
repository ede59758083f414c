//! Builds the kernel programs, which `src/load.rs` embeds.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use aya_build::{Package, Toolchain};

/// What to do when a piece is missing; the same everywhere.
const NEXT_STEP: &str = "run `cargo xtask run` in portwatch's sources: it fetches what is missing, \
                         or see \"Building\" in the README";

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .ok_or_else(|| anyhow!("portwatch is built from its workspace"))?;
    let programs = root.join("portwatch-ebpf");
    let programs = programs
        .to_str()
        .ok_or_else(|| anyhow!("{} is not UTF-8", programs.display()))?;
    println!("cargo:rerun-if-changed=build.rs");

    let tools = root.join(".tools/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(std::iter::once(tools).chain(env::split_paths(&path)))?;
    if !env::split_paths(&path).any(|folder| folder.join("bpf-linker").is_file()) {
        bail!("bpf-linker is not installed, and the kernel programs cannot be linked; {NEXT_STEP}");
    }
    if !rust_src().is_dir() {
        bail!(
            "the Rust component rust-src is not installed, and the kernel programs are built with \
               it; {NEXT_STEP}"
        );
    }
    // SAFETY: a build script with one thread. The pinned stable compiler builds `core` for the bpf
    // target, which asks for unstable options in this one cargo call.
    unsafe {
        env::set_var("PATH", path);
        env::set_var("RUSTC_BOOTSTRAP", "1");
        env::set_var("CARGO_TERM_QUIET", "true");
    }
    let toolchain = env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "stable".to_owned());
    aya_build::build_ebpf(
        [Package {
            name: "portwatch-ebpf",
            root_dir: programs,
            ..Package::default()
        }],
        Toolchain::Custom(&toolchain),
    )
    .with_context(|| format!("cannot build the kernel programs; {NEXT_STEP}"))
}

/// Where rustup puts the sources of the standard library.
fn rust_src() -> PathBuf {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = std::process::Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    Path::new(&sysroot).join("lib/rustlib/src/rust/library/core")
}
