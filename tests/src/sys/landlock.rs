//! Landlock's network rules (Linux 6.7): everything not allowed is refused with EACCES.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::errno::Errno;

use super::{check, check_long};

const ACCESS_NET_BIND_TCP: u64 = 1 << 0;
const ACCESS_NET_CONNECT_TCP: u64 = 1 << 1;
const CREATE_RULESET_VERSION: u32 = 1;
const RULE_NET_PORT: i32 = 2;

/// ABI version of the running kernel; network rules came with 4.
pub(crate) fn version() -> Result<i64, Errno> {
    // SAFETY: null and 0 with this flag ask for the version.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0_usize,
            CREATE_RULESET_VERSION,
        )
    })
}

/// From here on this thread may bind and connect TCP sockets to `port` alone.
pub(crate) fn allow_only(port: u16) -> Result<(), Errno> {
    // struct landlock_ruleset_attr: handled_access_fs, handled_access_net.
    let ruleset = [0_u64, ACCESS_NET_BIND_TCP | ACCESS_NET_CONNECT_TCP];
    // SAFETY: sixteen valid bytes.
    let fd = check_long(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ruleset.as_ptr(),
            size_of_val(&ruleset),
            0_u32,
        )
    })?;
    // SAFETY: the kernel has just returned this descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    // struct landlock_net_port_attr: allowed_access, port.
    let rule = [
        ACCESS_NET_BIND_TCP | ACCESS_NET_CONNECT_TCP,
        u64::from(port),
    ];
    // SAFETY: a valid rule of that kind.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            fd.as_raw_fd(),
            RULE_NET_PORT,
            rule.as_ptr(),
            0_u32,
        )
    })?;
    // SAFETY: takes integers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    // SAFETY: takes integers.
    check_long(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd.as_raw_fd(), 0_u32) })
        .map(drop)
}
