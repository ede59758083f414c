//! Builds the kernel programs, which `src/load.rs` embeds.

#[path = "src/load/lines.rs"]
mod lines;

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, anyhow};
use aya_build::{Package, Toolchain};
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

/// What to do when a piece is missing; the same everywhere.
const NEXT_STEP: &str = "next step: run `cargo xtask run doctor` in portwatch's sources, which gets \
                         what is missing; see \"Install\" in the README";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/load/lines.rs");
    if let Err(error) = build() {
        // An exit status would make cargo print everything the script said, above these lines.
        println!("cargo::error={error:#}");
        println!("cargo::error={NEXT_STEP}");
    }
}

fn build() -> anyhow::Result<()> {
    // Asked at run time: a target folder that clones share would hold the path of another clone.
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let root = Path::new(&package)
        .parent()
        .ok_or_else(|| anyhow!("portwatch is built from its workspace"))?;
    let programs = root.join("portwatch-ebpf");
    let programs = programs
        .to_str()
        .ok_or_else(|| anyhow!("{} is not UTF-8", programs.display()))?;

    let tools = root.join(".tools/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(std::iter::once(tools).chain(env::split_paths(&path)))?;
    let missing = missing(&path);
    if !missing.is_empty() {
        return Err(anyhow!(
            "the kernel programs cannot be built: {} missing",
            missing.join(" and ")
        ));
    }
    // SAFETY: a build script with one thread. The pinned stable compiler builds `core` for the bpf
    // target, which asks for unstable options in this one cargo call.
    unsafe {
        env::set_var("PATH", path);
        env::set_var("RUSTC_BOOTSTRAP", "1");
        // aya-build makes a warning of each line of that cargo's stderr, progress included.
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
    .context("the kernel programs cannot be built")?;
    let object =
        PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?).join("portwatch-ebpf");
    strip(&object).with_context(|| format!("cannot strip {}", object.display()))
}

/// Takes DWARF out of the object: four fifths of it, which nobody reads (the verifier's messages
/// quote the source from .BTF.ext) and every start would parse. Of a release also the lines that the verifier
/// would quote, two fifths of what is left: its other words remain.
fn strip(path: &Path) -> anyhow::Result<()> {
    // So is every profile that inherits it.
    let is_release = env::var_os("PROFILE").is_some_and(|profile| profile == "release");
    let data = fs::read(path)?;
    let mut object = Builder::read(data.as_slice())?;
    for section in &mut object.sections {
        let name = section.name.to_string();
        // The loader takes these offsets as they stand in .BTF and .BTF.ext.
        let by_loader = [".rel.BTF", ".rel.BTF.ext"].contains(&name.as_ref());
        if name == ".BTF.ext"
            && is_release
            && let SectionData::Data(data) = &section.data
            && let Some(kept) = lines::without_lines(data)
        {
            section.data = SectionData::Data(kept.into());
        }
        if by_loader || name.starts_with(".debug_") || name.starts_with(".rel.debug_") {
            section.delete = true;
        }
    }
    object.delete_orphans();
    // LLVM keeps section names among the symbols' names; written again they need a table of their own.
    let names = object.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    object.write(&mut stripped)?;
    fs::write(path, stripped)?;
    Ok(())
}

/// Names of the tools that are not there.
fn missing(path: &OsStr) -> Vec<&'static str> {
    let has_linker = env::split_paths(path).any(|folder| folder.join("bpf-linker").is_file());
    let mut missing = Vec::new();
    if !has_linker {
        missing.push("bpf-linker");
    }
    if !rust_src().is_dir() {
        missing.push("the Rust component rust-src");
    }
    missing
}

/// Where rustup puts the sources of the standard library.
fn rust_src() -> PathBuf {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    Path::new(&sysroot).join("lib/rustlib/src/rust/library/core")
}
