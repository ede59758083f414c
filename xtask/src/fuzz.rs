//! `cargo xtask fuzz`: the decoder against bytes that no kernel program would send.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::cargo::cargo;
use crate::exec::{on_path, run as execute};
use crate::say::say;
use crate::{toolchain, workspace};

/// Look for bytes that break the decoder of the kernel's records
///
/// libFuzzer changes recorded records, guided by what the decoder does with them. The unit tests
/// contain a shorter search that needs nothing but the compiler.
#[derive(Args)]
pub(crate) struct Fuzz {
    /// How long to search, in seconds
    #[arg(long, value_name = "N", default_value_t = 600)]
    seconds: u64,
}

/// Searches. What was found before is the start of the next search.
///
/// # Errors
/// The fuzzer cannot be built, or has found something: its output says what, and names the file
/// with the bytes.
pub(crate) fn run(options: Fuzz) -> Result<()> {
    let Fuzz { seconds } = options;
    if let Some(reason) = hindrance() {
        println!("skip: fuzz: {reason}");
        return Ok(());
    }
    toolchain::ensure_cargo_fuzz()?;
    let target = target();
    let corpus = target.join("corpus/decode");
    fs::create_dir_all(&corpus).with_context(|| format!("cannot create {}", corpus.display()))?;
    say(format_args!(
        "searching for {seconds} s; what is found goes to {}",
        target.display()
    ));
    execute(&mut command(&target, &corpus, seconds)).context("the decoder broke, see above")
}

/// The package of the fuzz target.
pub(crate) fn folder() -> PathBuf {
    workspace::root().join("tests/fuzz")
}

/// Where it is built.
pub(crate) fn target() -> PathBuf {
    workspace::root().join("target/fuzz")
}

/// Why it cannot be built here: the crate libfuzzer-sys compiles LLVM's libFuzzer.
pub(crate) fn hindrance() -> Option<&'static str> {
    let has_compiler = ["c++", "g++", "clang++"].into_iter().any(on_path);
    (!has_compiler).then_some("no C++ compiler, which libFuzzer is built with (install g++)")
}

fn command(target: &Path, corpus: &Path, seconds: u64) -> Command {
    let fuzz = folder();
    let mut command = cargo("fuzz");
    command
        .args(["run", "decode"])
        .arg(corpus)
        .arg(fuzz.join("seeds/decode"))
        .arg("--fuzz-dir")
        .arg(&fuzz)
        .arg("--target-dir")
        .arg(target)
        // The decoder is safe Rust: there is nothing for a sanitizer to see, and without one the
        // pinned stable compiler will do.
        .args(["--sanitizer", "none", "--"])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", target.display()))
        // The largest record has 2032 bytes.
        .args(["-max_len=2048", "-print_final_stats=1"]);
    command.current_dir(workspace::root());
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::shown;

    #[test]
    fn the_search_begins_with_what_is_known_and_ends_in_time() {
        let text = shown(&command(Path::new("/t"), Path::new("/t/corpus"), 7));
        assert!(
            text.starts_with("cargo fuzz run decode /t/corpus "),
            "{text}"
        );
        assert!(text.contains("-max_total_time=7 -artifact_prefix=/t/ "));
        assert!(
            workspace::root()
                .join("tests/fuzz/seeds/decode/process")
                .is_file()
        );
    }
}
