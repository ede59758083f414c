//! Mounts in a namespace of the calling process.

use std::ffi::CString;

use anyhow::{Context as _, Result};

use super::{check, netns};

pub(super) fn mount(
    source: &str,
    target: &str,
    kind: &str,
    flags: libc::c_ulong,
    data: &str,
) -> Result<()> {
    let [source, path, kind, data] = [source, target, kind, data].map(CString::new);
    let (source, path, kind, data) = (source?, path?, kind?, data?);
    // SAFETY: four NUL-terminated strings.
    check(unsafe {
        libc::mount(
            source.as_ptr(),
            path.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    })
    .with_context(|| format!("cannot mount on {target}"))?;
    Ok(())
}

/// Puts an empty file in the place of this one, for this process and what it starts.
pub(crate) fn hide(path: &str) -> Result<()> {
    replace(path, "/dev/null")
}

/// Puts another file in the place of this one, likewise. The other one may then be removed.
pub(crate) fn replace(path: &str, by: &str) -> Result<()> {
    netns::unshare(libc::CLONE_NEWNS).context("cannot make a mount namespace")?;
    mount("none", "/", "none", libc::MS_REC | libc::MS_PRIVATE, "")?;
    mount(by, path, "none", libc::MS_BIND, "")
}

/// Mounts a /proc that shows nobody's processes but those that this one may trace, for this process and
/// what it starts, and gives up tracing others: `hidepid` of proc(5), capabilities(7). Members of the
/// group `gid` would see all, and root's group is the default.
pub(crate) fn hide_processes() -> Result<()> {
    const CAP_SYS_PTRACE: i32 = 19;
    netns::unshare(libc::CLONE_NEWNS).context("cannot make a mount namespace")?;
    mount("none", "/", "none", libc::MS_REC | libc::MS_PRIVATE, "")?;
    mount("proc", "/proc", "proc", 0, "hidepid=2,gid=65534")?;
    // SAFETY: takes integers.
    check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_PTRACE, 0, 0, 0) })
        .context("cannot drop CAP_SYS_PTRACE")?;
    Ok(())
}

/// Mounts a /proc of the pid namespace that this process is in, for it and what it starts.
pub(crate) fn own_processes() -> Result<()> {
    netns::unshare(libc::CLONE_NEWNS).context("cannot make a mount namespace")?;
    mount("none", "/", "none", libc::MS_REC | libc::MS_PRIVATE, "")?;
    mount("proc", "/proc", "proc", 0, "")
}

/// A file system in memory, unmounted when dropped.
pub(crate) struct Tmpfs {
    path: std::path::PathBuf,
}

impl Tmpfs {
    /// Mounts one of so many bytes on a directory that exists.
    pub(crate) fn new(path: &std::path::Path, bytes: usize) -> Result<Self> {
        let text = path.to_str().context("a path that is no text")?;
        mount("none", text, "tmpfs", 0, &format!("size={bytes}"))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let Some(path) = self.path.to_str().and_then(|path| CString::new(path).ok()) else {
            return;
        };
        // SAFETY: a NUL-terminated string.
        if let Err(error) = check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }) {
            eprintln!("{} stays mounted: {error}", self.path.display());
        }
    }
}
