//! The root of a distribution, entered as if it were this machine's.

use std::{fs, os::unix::ffi::OsStrExt as _, path::Path};

use anyhow::{Context as _, Result};

use super::{check, mount::mount, netns};

/// Folders that programs write to; nothing of it remains, and the root stays as it is.
const WRITTEN: &[&str] = &["dev", "etc", "run", "var", "root"];

/// Devices, with their numbers (kernel: Documentation/admin-guide/devices.txt).
const DEVICES: &[(&str, u32, u32)] = &[
    ("null", 1, 3),
    ("zero", 1, 5),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
    ("net/tun", 10, 200),
];

const FILES: &[(&str, &str)] = &[
    (
        "passwd",
        "root:x:0:0:root:/root:/bin/bash\nsshd:x:100:65534::/run/sshd:/bin/false\n\
         postgres:x:101:101::/tmp:/bin/bash\nalice:x:1000:1000::/tmp:/bin/bash\n\
         nobody:x:65534:65534::/:/bin/false\n",
    ),
    (
        "group",
        "root:x:0:\npostgres:x:101:\nalice:x:1000:\nnogroup:x:65534:\n",
    ),
    ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    // Without it a name has one address.
    ("host.conf", "multi on\n"),
    (
        "nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\n",
    ),
];

/// Makes `root` the root of this process and of what it starts, with `/tmp` being the folder `work`.
///
/// By a mount that is moved, not by chroot() alone, which user namespaces are forbidden after.
pub(crate) fn enter(root: &Path, work: &Path) -> Result<()> {
    let inside = |path: &str| root.join(path);
    netns::unshare(libc::CLONE_NEWNS).context("cannot make a mount namespace")?;
    mount("none", "/", "none", libc::MS_REC | libc::MS_PRIVATE, "")?;
    mount(text(root)?, text(root)?, "none", libc::MS_BIND, "")?;
    for folder in WRITTEN {
        mount("none", text(&inside(folder))?, "tmpfs", 0, "mode=755")?;
    }
    mount(
        text(work)?,
        text(&inside("tmp"))?,
        "none",
        libc::MS_BIND,
        "",
    )?;
    mount("proc", text(&inside("proc"))?, "proc", 0, "")?;
    for folder in ["dev/net", "dev/pts", "dev/shm"] {
        fs::create_dir(inside(folder)).with_context(|| format!("cannot make {folder}"))?;
    }
    mount("none", text(&inside("dev/shm"))?, "tmpfs", 0, "mode=1777")?;
    mount(
        "none",
        text(&inside("dev/pts"))?,
        "devpts",
        0,
        "newinstance,ptmxmode=666",
    )?;
    std::os::unix::fs::symlink("pts/ptmx", inside("dev/ptmx"))?;
    std::os::unix::fs::symlink("/proc/self/fd", inside("dev/fd"))?;
    std::os::unix::fs::symlink("/run", inside("var/run"))?;
    for (name, major, minor) in DEVICES {
        device(&inside("dev").join(name), *major, *minor)?;
    }
    for (name, content) in FILES {
        fs::write(inside("etc").join(name), content)
            .with_context(|| format!("cannot write {name}"))?;
    }
    std::env::set_current_dir(root).context("cannot enter the root")?;
    mount(".", "/", "none", libc::MS_MOVE, "")?;
    std::os::unix::fs::chroot(".").context("cannot make it the root")?;
    std::env::set_current_dir("/").context("cannot enter the root")
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

/// A character device that everybody may open.
fn device(path: &Path, major: u32, minor: u32) -> Result<()> {
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let failed = || format!("cannot make {}", path.display());
    // SAFETY: a NUL-terminated string, and integers.
    check(unsafe { libc::mknod(name.as_ptr(), libc::S_IFCHR, libc::makedev(major, minor)) })
        .with_context(failed)?;
    // Past the umask.
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs::set_permissions(path, everybody).with_context(failed)
}
