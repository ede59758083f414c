//! Becoming root where something needs it.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::exec::on_path;

/// Whether we are root already.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether [`as_root`] has a way.
pub(crate) fn can_be_root() -> bool {
    is_root() || on_path("sudo")
}

/// A command that runs `program` as root: directly, or through sudo, which may ask for a password.
///
/// # Errors
/// We are not root and there is no sudo.
pub(crate) fn as_root(program: &Path) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    if !on_path("sudo") {
        bail!(
            "loading eBPF programs takes root, and there is no sudo\nnext step: run this as root"
        );
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    Ok(command)
}
