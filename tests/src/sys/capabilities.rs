//! Capabilities of processes: given to one that is not root, and read of every thread.

use std::{ffi::CString, fs, os::unix::ffi::OsStrExt as _, path::Path};

use anyhow::{Context as _, Result};
use nix::errno::Errno;

use super::check;

/// Capabilities by name and number (include/uapi/linux/capability.h), of those that tests give or take.
const KNOWN: [(&str, u8); 8] = [
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_DAC_READ_SEARCH", 2),
    ("CAP_KILL", 5),
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
];

/// The number of a capability.
pub(crate) fn number(name: &str) -> Result<u8> {
    KNOWN
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
        .with_context(|| format!("no capability {name:?}"))
}

/// The set of these, as `/proc/PID/status` has it.
pub(crate) fn set(names: &[&str]) -> Result<u64> {
    names
        .iter()
        .try_fold(0, |set, name| Ok(set | 1 << number(name)?))
}

/// Where a program that is executed by a user has capabilities from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From whoever executes it: `AmbientCapabilities=` of systemd.exec(5).
    Ambient,
    /// From its file: setcap(8).
    File,
}

/// Gives a file capabilities (capabilities(7), `struct vfs_cap_data`); `false` where the file system keeps none.
pub(crate) fn give_file(path: &Path, names: &[&str]) -> Result<bool> {
    const REVISION_2_EFFECTIVE: u32 = 0x0200_0001;
    let set = set(names)?;
    // Permitted and inheritable: bits 0 to 31, then the rest.
    let words = [REVISION_2_EFFECTIVE, set as u32, 0, (set >> 32) as u32, 0];
    let value = words.map(u32::to_le_bytes).concat();
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: two C strings, and as many bytes as said.
    let done = check(unsafe {
        libc::setxattr(
            path.as_ptr(),
            c"security.capability".as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    });
    match done {
        Ok(_) => Ok(true),
        Err(Errno::EOPNOTSUPP) => Ok(false),
        Err(error) => Err(error).context("security.capability"),
    }
}

/// Becomes another user who has these capabilities and no other, across exec too; or who has none, and may get
/// these from a file.
pub(crate) fn become_user_with(uid: u32, names: &[String], way: Way) -> Result<()> {
    let numbers = names
        .iter()
        .map(|name| number(name))
        .collect::<Result<Vec<_>>>()?;
    let prctl = |option: i32, first: libc::c_ulong, second: libc::c_ulong| {
        // SAFETY: takes integers.
        check(unsafe { libc::prctl(option, first, second, 0_u64, 0_u64) })
    };
    for number in 0..64 {
        if !numbers.contains(&(number as u8)) {
            // The kernel does not know all of them.
            let _ = prctl(libc::PR_CAPBSET_DROP, number, 0);
        }
    }
    if way == Way::File {
        return super::task::become_user(uid);
    }
    prctl(libc::PR_SET_KEEPCAPS, 1, 0).context("PR_SET_KEEPCAPS")?;
    super::task::become_user(uid)?;
    let set = numbers.iter().fold(0_u64, |set, number| set | 1 << number);
    let [low, high] = [set as u32, (set >> 32) as u32];
    // struct __user_cap_header_struct of version 3, and two of __user_cap_data_struct.
    let header = [0x2008_0522_u32, 0];
    let data = [low, low, low, high, high, high];
    // SAFETY: both are as that version wants them, and only read.
    super::check_long(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })
        .context("capset")?;
    for number in numbers {
        prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong,
            number.into(),
        )
        .context("PR_CAP_AMBIENT_RAISE")?;
    }
    Ok(())
}

/// What a thread may do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sets {
    pub(crate) inheritable: u64,
    pub(crate) permitted: u64,
    pub(crate) effective: u64,
    pub(crate) bounding: u64,
    pub(crate) ambient: u64,
    pub(crate) no_new_privileges: bool,
    /// 2: a filter is in force.
    pub(crate) seccomp: u64,
}

/// Of every thread of a process, with its name.
pub(crate) fn of_threads(pid: u32) -> Result<Vec<(String, Sets)>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        // One may end in the meantime.
        let Ok(status) = fs::read_to_string(entry?.path().join("status")) else {
            continue;
        };
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"))
                .with_context(|| format!("no {name}: {status}"))
        };
        let set = |name: &str| Ok::<_, anyhow::Error>(u64::from_str_radix(field(name)?, 16)?);
        threads.push((
            field("Name")?.to_owned(),
            Sets {
                inheritable: set("CapInh")?,
                permitted: set("CapPrm")?,
                effective: set("CapEff")?,
                bounding: set("CapBnd")?,
                ambient: set("CapAmb")?,
                no_new_privileges: field("NoNewPrivs")? == "1",
                seccomp: field("Seccomp")?.parse()?,
            },
        ));
    }
    Ok(threads)
}
