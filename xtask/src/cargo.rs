//! The cargo that runs us, run again.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::exec::shown;
use crate::workspace;

/// A cargo command for this workspace that finds the project's own tools first. Under rustup it is
/// the toolchain that runs us: rustup hands its choice down in RUSTUP_TOOLCHAIN.
pub(crate) fn cargo(verb: &str) -> Command {
    let mut command = Command::new("cargo");
    command.arg(verb).env("PATH", path_with_tools());
    command
}

/// As [`cargo`], told where the workspace is: the caller may stand anywhere.
pub(crate) fn cargo_here(verb: &str) -> Command {
    let mut command = cargo(verb);
    command
        .arg("--manifest-path")
        .arg(workspace::root().join("Cargo.toml"));
    command
}

fn path_with_tools() -> OsString {
    let rest = env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(workspace::tools().join("bin")).chain(env::split_paths(&rest));
    env::join_paths(folders).unwrap_or(rest)
}

/// What a build left behind.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Built {
    /// Every executable, by the name of its target.
    pub(crate) executables: Vec<(String, PathBuf)>,
    /// The folder that portwatch's build script wrote to; the eBPF object is in it.
    pub(crate) out_dir: Option<PathBuf>,
}

impl Built {
    /// The executable of that name.
    ///
    /// # Errors
    /// The build made none.
    pub(crate) fn executable(&self, name: &str) -> Result<&Path> {
        let found = self.executables.iter().find(|(target, _)| target == name);
        found
            .map(|(_, path)| path.as_path())
            .with_context(|| format!("the build made no executable named {name}"))
    }
}

/// Builds packages together, which compiles once what they share: with that profile, for that target
/// (`None`: this machine).
///
/// # Errors
/// The build fails; cargo has said why on stderr.
pub(crate) fn build(packages: &[&str], profile: &str, target: Option<&str>) -> Result<Built> {
    let mut command = cargo_here("build");
    command.args(["--bins", "--profile", profile]);
    for package in packages {
        command.args(["--package", package]);
    }
    command.arg("--message-format=json-render-diagnostics");
    if let Some(target) = target {
        command.args(["--target", target]);
    }
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", shown(&command)))?;
    let mut built = Built::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            note(&mut built, &line.context("cannot read what cargo prints")?);
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for `{}`", shown(&command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(&command));
    }
    Ok(built)
}

/// Takes in one of cargo's messages ("JSON messages" in the cargo book's "External tools").
fn note(built: &mut Built, line: &str) {
    let Ok(message) = serde_json::from_str::<Value>(line) else {
        return;
    };
    match message["reason"].as_str() {
        Some("compiler-artifact") => {
            if let (Some(name), Some(path)) = (
                message["target"]["name"].as_str(),
                message["executable"].as_str(),
            ) {
                built
                    .executables
                    .push((name.to_string(), PathBuf::from(path)));
            }
        }
        Some("build-script-executed") => {
            let package = message["package_id"].as_str().unwrap_or_default();
            // `path+file:///…/portwatch#0.1.0`: the folder is the name unless one follows the `#`.
            if package.contains("/portwatch#") {
                built.out_dir = message["out_dir"].as_str().map(PathBuf::from);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn executables_and_the_build_scripts_folder_are_picked_out() {
        let mut built = Built::default();
        for line in [
            r#"{"reason":"compiler-artifact","target":{"name":"libc"},"executable":null}"#,
            r#"{"reason":"build-script-executed","package_id":"registry+x#libc@0.2","out_dir":"/t/libc"}"#,
            r#"{"reason":"build-script-executed","package_id":"path+file:///w/portwatch#0.1.0","out_dir":"/t/out"}"#,
            r#"{"reason":"compiler-artifact","target":{"name":"portwatch"},"executable":"/t/release/portwatch"}"#,
            "a line of something else",
        ] {
            note(&mut built, line);
        }
        assert_eq!(built.out_dir, Some("/t/out".into()));
        assert_eq!(
            built.executable("portwatch").unwrap(),
            Path::new("/t/release/portwatch")
        );
        assert!(built.executable("libc").is_err());
    }
}
