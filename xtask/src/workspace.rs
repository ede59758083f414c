//! Where things are.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::say::say;

/// The root of the sources.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Tools that are built for this workspace alone.
pub(crate) fn tools() -> PathBuf {
    root().join(".tools")
}

/// Where our own leftovers go, logs above all: a folder that git ignores and `cargo clean` removes.
pub(crate) fn scratch() -> PathBuf {
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("xtask")
}

/// Everything fetched for the test VMs lives here, outside the sources, for all checkouts together.
pub(crate) struct Cache {
    path: PathBuf,
    _lock: File,
}

impl Cache {
    /// Opens `$PORTWATCH_CACHE`, else `$XDG_CACHE_HOME/portwatch`, else `~/.cache/portwatch`, and
    /// keeps other runs of xtask out of it while this value lives.
    ///
    /// # Errors
    /// The folder cannot be made or locked.
    pub(crate) fn open() -> Result<Cache> {
        let path = place(|name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        })
        .context("no place for the cache: HOME is not set; set PORTWATCH_CACHE to a folder")?;
        fs::create_dir_all(&path)
            .with_context(|| format!("cannot make the cache {}", path.display()))?;
        let lock = path.join("lock");
        let file =
            File::create(&lock).with_context(|| format!("cannot write {}", lock.display()))?;
        if file.try_lock().is_err() {
            say(format_args!(
                "waiting for another run that is using {}",
                path.display()
            ));
            file.lock()
                .with_context(|| format!("cannot lock {}", lock.display()))?;
        }
        Ok(Cache { path, _lock: file })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn place(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    variable("PORTWATCH_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("portwatch")))
        .or_else(|| Some(variable("HOME")?.join(".cache/portwatch")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_variable_names_the_cache() {
        let home = |name: &str| (name == "HOME").then(|| PathBuf::from("/h"));
        let xdg = |name: &str| {
            if name == "XDG_CACHE_HOME" {
                Some(PathBuf::from("/x"))
            } else {
                home(name)
            }
        };
        let own = |name: &str| {
            if name == "PORTWATCH_CACHE" {
                Some(PathBuf::from("/o"))
            } else {
                xdg(name)
            }
        };
        assert_eq!(place(home), Some("/h/.cache/portwatch".into()));
        assert_eq!(place(xdg), Some("/x/portwatch".into()));
        assert_eq!(place(own), Some("/o".into()));
        assert_eq!(place(|_| None), None);
    }
}
