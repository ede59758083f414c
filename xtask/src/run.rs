//! `cargo xtask run`: build what is missing, then run portwatch.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};
use clap::Args;

use crate::exec::shown;
use crate::say::say;
use crate::{cargo, privilege, toolchain};

/// Build everything that is missing, then run portwatch with the privilege it needs
///
/// The first time takes some minutes: it adds rust-src through rustup, builds bpf-linker into
/// .tools/, the eBPF programs, and portwatch itself as a release. After that it only looks whether
/// something changed. Where you are not root, portwatch is started with sudo.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo xtask run                          live view of every port bound, listened on, connected from
  cargo xtask run trace --failed           only what went wrong
  cargo xtask run trace -- ./my-server     only what my-server and its children do
  cargo xtask run doctor                   what portwatch can see on this kernel
  cargo xtask run trace --help             portwatch's own help")]
pub(crate) struct Run {
    /// What portwatch gets [default: trace]
    #[arg(
        value_name = "ARGS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    args: Vec<String>,
}

/// Carries it out. On success it does not return: portwatch takes this process's place.
///
/// # Errors
/// Something is missing and cannot be got, the build fails, or portwatch cannot be started.
pub(crate) fn run(options: Run) -> Result<()> {
    let Run { mut args } = options;
    if args.is_empty() {
        args.push("trace".to_string());
    }
    toolchain::ensure_ebpf()?;
    let built = cargo::build(&["portwatch"], "release", None)?;
    let mut command = privilege::as_root(built.executable("portwatch")?)?;
    command.args(args);
    if !privilege::is_root() {
        say(format_args!(
            "needs root to load eBPF programs: {}",
            shown(&command)
        ));
    }
    Err(command.exec()).with_context(|| format!("cannot run `{}`", shown(&command)))
}
