//! Programs as people run them (nginx, PostgreSQL, sshd and others) and strace, from Debian: a root file
//! system of their own, in the cache. What they do is compared with what portwatch tells.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::fetch::{Apt, Closure, TRIXIE};
use crate::workspace::Cache;

/// What the scripts in `tests/src/scenarios/programs/` run. `base-files` has the links from /bin to
/// /usr/bin and the like, which no package depends on.
const PACKAGES: &[&str] = &[
    "apache2-utils",
    "base-files",
    "bash",
    "bind9-dnsutils",
    "coreutils",
    "curl",
    "dash",
    "haproxy",
    "libc-bin",
    "libpython3-stdlib",
    "memcached",
    "nginx",
    "nodejs",
    "openssh-client",
    "openssh-server",
    "passt",
    "postgresql-17",
    "prometheus-node-exporter",
    "python3-minimal",
    "redis-server",
    "strace",
    "systemd",
];

/// What is depended on, but not needed to run them: compilers of queries, installation, translations.
const LEFT_OUT: &[&str] = &[
    "adduser",
    "debconf",
    "init-system-helpers",
    "libllvm19",
    "locales",
    "passwd",
    "perl",
    "postgresql-client-common",
    "postgresql-common",
    "procps",
    "ssl-cert",
    "sysvinit-utils",
    "ucf",
];

/// Folders and files of the packages that nothing reads: half of them, and a guest has it all in memory.
const NOT_NEEDED: &[&str] = &[
    "usr/lib/postgresql/17/lib/bitcode",
    "usr/lib/postgresql/17/lib/llvmjit.so",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/perl-base",
    "usr/lib/systemd/system",
    "usr/share/doc",
    "usr/share/i18n",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/perl5",
    "var/lib/dpkg",
];

/// Where they are in a guest.
pub(crate) const GUEST_ROOT: &str = "/programs";

/// Beginnings of the names of the scenarios that need them.
pub(crate) const SCENARIOS: &str = "programs_";

/// The root of the file system that they are in, from the cache or fetched into it.
///
/// # Errors
/// They have to be fetched and cannot be.
pub(crate) fn find_or_fetch(cache: &Cache) -> Result<PathBuf> {
    let base = cache.path().join("programs");
    let root = base.join("root");
    if !root.is_dir() {
        let whole = base.join("whole");
        Apt::open(cache.path(), TRIXIE)?.unpack(
            "nginx, PostgreSQL, sshd, node and others with their libraries",
            PACKAGES,
            Closure::Without(LEFT_OUT),
            &whole,
        )?;
        for path in NOT_NEEDED {
            remove(&whole.join(path))?;
        }
        fs::rename(&whole, &root).with_context(|| format!("cannot make {}", root.display()))?;
    }
    Ok(root)
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else if path.exists() {
        fs::remove_file(path)
    } else {
        Ok(())
    };
    removed.with_context(|| format!("cannot remove {}", path.display()))
}
