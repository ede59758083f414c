//! What a task knows of itself through procfs.

use std::{
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

/// A task, as portwatch should name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Me {
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    /// In its own pid namespace.
    pub(crate) vpid: u32,
    pub(crate) parent: u32,
    pub(crate) uid: u32,
    pub(crate) comm: String,
    pub(crate) executable: String,
    pub(crate) args: Vec<String>,
    /// Path in the cgroup v2 hierarchy, where there is one.
    pub(crate) cgroup: Option<String>,
    pub(crate) netns: u64,
}

impl Me {
    /// The calling thread. Pids are those of the pid namespace that /proc shows.
    pub(crate) fn learn() -> Result<Self> {
        Self::read("thread-self")
    }

    /// The first thread of another process.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        Self::read(&pid.to_string())
    }

    /// The same, once the process executes this file.
    pub(crate) fn executing(pid: u32, executable: &str) -> Result<Self> {
        for _ in 0..10_000 {
            if Self::of(pid)?.executable == executable {
                // Read anew: the first look may have had its arguments before exec() and its file
                // after it. In the middle of exec() it has no arguments.
                let me = Self::of(pid)?;
                if me.args != [""] {
                    return Ok(me);
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        bail!("process {pid} does not execute {executable}")
    }

    fn read(task: &str) -> Result<Self> {
        let read = |name: &str| {
            let path = format!("/proc/{task}/{name}");
            fs::read(&path).with_context(|| format!("cannot read {path}"))
        };
        let status = String::from_utf8_lossy(&read("status")?).into_owned();
        let cmdline = read("cmdline")?;
        let netns = format!("/proc/{task}/ns/net");
        let netns = fs::metadata(&netns).with_context(|| format!("cannot stat {netns}"))?;
        let exe = format!("/proc/{task}/exe");
        let executable = fs::read_link(&exe).with_context(|| format!("cannot read {exe}"))?;
        // The kernel's bytes and a newline.
        let comm = read("comm")?;
        let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
        Ok(Self {
            pid: field(&status, "Tgid")?,
            tid: field(&status, "Pid")?,
            vpid: innermost(&status)?,
            parent: field(&status, "PPid")?,
            uid: field(&status, "Uid")?,
            comm: String::from_utf8_lossy(comm).into_owned(),
            executable: String::from_utf8_lossy(executable.as_os_str().as_bytes()).into_owned(),
            args: cmdline
                .strip_suffix(b"\0")
                .unwrap_or(&cmdline)
                .split(|byte| *byte == 0)
                .map(|arg| String::from_utf8_lossy(arg).into_owned())
                .collect(),
            cgroup: cgroup_of(&String::from_utf8_lossy(&read("cgroup")?)),
            netns: netns.ino(),
        })
    }
}

/// First number of a line of `/proc/PID/status`.
fn field(status: &str, name: &str) -> Result<u32> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("no {name} in /proc/self/status"))
}

/// The last number of the line with the process's pids in all its namespaces, from that of /proc inwards.
fn innermost(status: &str) -> Result<u32> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("NStgid:"))
        .and_then(|rest| rest.split_whitespace().next_back()?.parse().ok())
        .context("no NStgid in /proc/self/status")
}

/// The v2 line of `/proc/PID/cgroup`.
fn cgroup_of(text: &str) -> Option<String> {
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(str::to_owned)
}

/// Where cgroup v2 is mounted.
pub(crate) fn cgroup2_mount() -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, point, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then(|| point.to_owned())
    })
}

/// `uname -r`
pub(crate) fn kernel_release() -> Result<String> {
    let path = "/proc/sys/kernel/osrelease";
    Ok(fs::read_to_string(path)
        .with_context(|| format!("cannot read {path}"))?
        .trim()
        .to_owned())
}

/// Major and minor number of a kernel release.
pub(crate) fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_the_matrix() {
        assert_eq!(version_of("5.10.0-46-cloud-amd64"), Some((5, 10)));
        assert_eq!(version_of("7.3.4+deb13-cloud-amd64"), Some((7, 3)));
        assert_eq!(version_of("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version_of("linux"), None);
    }

    #[test]
    fn the_v2_line_among_others() {
        let text = "2:cpuset:/x\n0::/system.slice/a.service\n";
        assert_eq!(cgroup_of(text).as_deref(), Some("/system.slice/a.service"));
        assert_eq!(cgroup_of("2:cpuset:/x\n"), None);
    }

    #[test]
    fn status_lines_are_not_confused() {
        let status = "Name:\tx\nTgid:\t7\nPid:\t8\nPPid:\t3\nUid:\t65534\t0\t0\t0\n";
        assert_eq!(field(status, "Pid").ok(), Some(8));
        assert_eq!(field(status, "PPid").ok(), Some(3));
        assert_eq!(field(status, "Uid").ok(), Some(65534));
        assert!(field(status, "Gid").is_err());
    }

    #[test]
    fn a_thread_knows_itself() {
        let me = Me::learn().expect("procfs is mounted");
        assert_eq!(me.pid, std::process::id());
        assert_ne!(me.tid, 0);
        assert!(me.executable.starts_with('/'));
    }
}
