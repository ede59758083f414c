//! A QEMU that emulates all of the kernels rightly.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::fetch::{Apt, Archive, Closure, Suites};
use crate::exec::{on_path, output};
use crate::say::say;
use crate::workspace::Cache;

/// 7.2, which Debian 12 has, corrupts the flags register under kernel 6.12: most boots die.
const OLDEST: (u32, u32) = (8, 0);

const PROGRAM: &str = "qemu-system-x86_64";

const SUITES: Suites = Suites {
    name: "bookworm-backports-all",
    from: &[
        (Archive::Main, "bookworm"),
        (Archive::Security, "bookworm-security"),
        (Archive::Main, "bookworm-backports"),
    ],
    prefer: Some("bookworm-backports"),
    expired: false,
};

/// A QEMU to run.
#[derive(Debug, Clone)]
pub(crate) struct Qemu {
    /// Its version.
    pub(crate) version: (u32, u32),
    /// Where it is unpacked; `None` for the one on PATH.
    root: Option<PathBuf>,
}

impl Qemu {
    /// The one on PATH if it is new enough, else Debian's backport, fetched into the cache.
    ///
    /// # Errors
    /// It has to be fetched and cannot be.
    pub(crate) fn find_or_fetch(cache: &Cache) -> Result<Qemu> {
        if on_path(PROGRAM)
            && let Ok(version) = version_of(&mut Command::new(PROGRAM))
        {
            if version >= OLDEST {
                return Ok(Qemu {
                    version,
                    root: None,
                });
            }
            say(format_args!(
                "QEMU {}.{} is on PATH, but older than 8.0: not used, it breaks newer kernels",
                version.0, version.1
            ));
        }
        let base = cache.path().join("qemu");
        let root = base.join("root");
        if !root.is_dir() {
            let apt = Apt::open(cache.path(), SUITES).with_context(|| {
                format!("the test VMs need {PROGRAM} 8.0 or newer, and it could not be fetched\nnext step: install it with your distribution's package manager")
            })?;
            apt.unpack(
                "QEMU with its libraries",
                &["qemu-system-x86"],
                Closure::WithDependencies,
                &root,
            )?;
        }
        let unpacked = Qemu {
            version: (0, 0),
            root: Some(root.clone()),
        };
        let version = version_of(&mut unpacked.command()).with_context(|| {
            format!(
                "the unpacked QEMU does not run\nnext step: remove {} and try again",
                base.display()
            )
        })?;
        if version < OLDEST {
            bail!(
                "the unpacked QEMU is {}.{}, too old\nnext step: remove {} and try again",
                version.0,
                version.1,
                base.display()
            );
        }
        Ok(Qemu {
            version,
            ..unpacked
        })
    }

    /// A command that runs it; what to emulate is for the caller to add.
    ///
    /// The unpacked one runs with the dynamic loader and libraries of the same suites, whatever the
    /// machine has.
    pub(crate) fn command(&self) -> Command {
        let Some(root) = &self.root else {
            return Command::new(PROGRAM);
        };
        let libraries =
            ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|path| root.join(path));
        let mut command = Command::new(loader(root));
        command
            .arg("--library-path")
            .arg(libraries.map(|path| path.display().to_string()).join(":"));
        command.arg(root.join("usr/bin").join(PROGRAM));
        for data in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
            command.arg("-L").arg(root.join(data));
        }
        // Its modules are for displays and disks that a test VM has not; the machine's own must
        // not be loaded into it either.
        command.env("QEMU_MODULE_DIR", "/nonexistent");
        command
    }
}

/// Where the loader lies depends on how far the suite has moved to /usr.
fn loader(root: &Path) -> PathBuf {
    let name = "x86_64-linux-gnu/ld-linux-x86-64.so.2";
    let old = root.join("lib").join(name);
    if old.exists() {
        old
    } else {
        root.join("usr/lib").join(name)
    }
}

fn version_of(command: &mut Command) -> Result<(u32, u32)> {
    let said = output(command.arg("--version"))?;
    parse_version(&said).with_context(|| format!("no version in what it says: {}", said.trim()))
}

/// `QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)`
fn parse_version(said: &str) -> Option<(u32, u32)> {
    let (_, after) = said.split_once("version ")?;
    let mut numbers = after.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_as_numbers() {
        let new =
            parse_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2~bpo12+1)\nCopyright");
        let old = parse_version("QEMU emulator version 7.2.9");
        assert_eq!(new, Some((10, 0)));
        assert!(new >= Some(OLDEST) && old < Some(OLDEST));
        assert_eq!(parse_version("something else"), None);
    }
}
