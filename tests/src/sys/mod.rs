//! The kernel, as raw as the scenarios need it: nothing here knows of portwatch.
//!
//! The test VM has neither a libc's tools nor iproute2, so whatever a scenario needs (namespaces,
//! addresses, devices, BPF programs) is made with system calls from here.

pub(crate) mod addr;
pub(crate) mod bpf;
pub(crate) mod capabilities;
pub(crate) mod clock;
pub(crate) mod compat;
pub(crate) mod copy;
pub(crate) mod landlock;
pub(crate) mod mount;
pub(crate) mod netlink;
pub(crate) mod netns;
pub(crate) mod nftables;
pub(crate) mod proc;
pub(crate) mod rights;
pub(crate) mod root;
pub(crate) mod sock;
pub(crate) mod task;
pub(crate) mod telling;
pub(crate) mod uring;

use nix::errno::Errno;

/// What a system call returned, as a result.
pub(crate) fn check(ret: i32) -> Result<i32, Errno> {
    if ret < 0 { Err(Errno::last()) } else { Ok(ret) }
}

/// The same for calls made with `syscall(2)`.
pub(crate) fn check_long(ret: libc::c_long) -> Result<libc::c_long, Errno> {
    if ret < 0 { Err(Errno::last()) } else { Ok(ret) }
}
