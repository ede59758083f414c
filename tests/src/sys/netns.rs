//! Network namespaces: every scenario has its own, so that every port is free and every event can
//! be told from the machine's other traffic.

use std::{
    fs::File,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
};

use anyhow::{Context as _, Result};
use nix::errno::Errno;

use super::check;

/// A network namespace that lives as long as this value or a process in it.
pub(crate) struct Netns {
    file: File,
    /// Inode, as `/proc/PID/ns/net` and `socket.netns` have it.
    pub(crate) inode: u64,
}

impl Netns {
    /// The one this thread is in.
    pub(crate) fn current() -> Result<Self> {
        Self::at("/proc/thread-self/ns/net")
    }

    /// The one that a process is in.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        Self::at(&format!("/proc/{pid}/ns/net"))
    }

    fn at(path: &str) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
        let inode = file.metadata().context("cannot stat a namespace")?.ino();
        Ok(Self { file, inode })
    }

    /// A new one with its loopback device up. The calling thread stays where it is.
    pub(crate) fn new() -> Result<Self> {
        let home = Self::current()?;
        unshare(libc::CLONE_NEWNET).context("cannot make a network namespace")?;
        let made = link_up("lo")
            .context("cannot bring the loopback device up")
            .and_then(|()| Self::current());
        home.enter()?;
        made
    }

    /// Its descriptor in this process.
    pub(crate) fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Moves the calling thread here.
    pub(crate) fn enter(&self) -> Result<()> {
        // SAFETY: takes integers; the descriptor is open.
        check(unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) })
            .context("cannot enter a network namespace")?;
        Ok(())
    }
}

/// unshare()
pub(crate) fn unshare(flags: i32) -> Result<(), Errno> {
    // SAFETY: takes an integer.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// Sets IFF_UP on a device of the current namespace.
pub(crate) fn link_up(name: &str) -> Result<(), Errno> {
    // SAFETY: takes and returns integers.
    let fd =
        check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just returned this descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(15)) {
        *to = from.cast_signed();
    }
    // SAFETY: a valid ifreq, of which the kernel fills in the flags.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request) })?;
    // SAFETY: SIOCGIFFLAGS has just filled in this member of the union.
    unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as i16 };
    // SAFETY: a valid ifreq.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) })
        .map(drop)
}

/// Interface index in the current namespace.
pub(crate) fn link_index(name: &str) -> Result<u32> {
    let text = std::ffi::CString::new(name)?;
    // SAFETY: a NUL-terminated string.
    match unsafe { libc::if_nametoindex(text.as_ptr()) } {
        0 => Err(Errno::last()).with_context(|| format!("no device {name}")),
        index => Ok(index),
    }
}

/// Writes a sysctl of the current network namespace.
pub(crate) fn sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    std::fs::write(&path, value).with_context(|| format!("cannot write {value:?} to {path}"))
}

/// `ip_local_port_range` of the current network namespace.
pub(crate) fn port_range() -> Result<(u16, u16)> {
    let path = "/proc/sys/net/ipv4/ip_local_port_range";
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(low)), Some(Ok(high))) => Ok((low, high)),
        _ => anyhow::bail!("{path} holds {text:?}"),
    }
}
