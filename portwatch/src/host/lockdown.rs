//! Kernel lockdown (security/lockdown/lockdown.c): in `confidentiality` mode no program may read
//! kernel memory, whoever asks.

use std::{
    ffi::CStr,
    fs::{self, File},
    io::{self, Read},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// How far the kernel is locked down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lockdown {
    /// Not at all.
    None,
    /// The running kernel may not be changed: no kprobes that write, no `bpf_probe_write_user`.
    Integrity,
    /// Nor may its memory be read: no `bpf_probe_read_kernel`, so no backend works.
    Confidentiality,
}

/// What `confidentiality` takes away.
pub const NO_READING: &str =
    "the kernel is locked down (confidentiality): no program may read its memory";

/// What to do about it.
pub const UNLOCK: &str = "boot with lockdown=integrity or lockdown=none; some systems lock down because \
                          Secure Boot is on";

impl Lockdown {
    /// The kernel's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
        }
    }

    /// From the text of securityfs' `lockdown`: all levels, the one in force in brackets.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let level = text.split_once('[')?.1.split_once(']')?.0;
        [Self::None, Self::Integrity, Self::Confidentiality]
            .into_iter()
            .find(|lockdown| lockdown.as_str() == level)
    }

    /// Asks the kernel. `None`: it has no lockdown, or nobody without privilege may know, because
    /// securityfs is not mounted.
    ///
    /// Where securityfs is not mounted, a root process mounts it for itself alone, attached nowhere
    /// and gone with the descriptor.
    #[must_use]
    pub fn read() -> Option<Self> {
        let text = fs::read_to_string("/sys/kernel/security/lockdown")
            .or_else(|_| detached_securityfs(c"lockdown"))
            .ok()?;
        Self::parse(&text)
    }
}

/// Reads a file of a securityfs that is attached to no directory (fsopen(2), fsmount(2); Linux 5.2).
fn detached_securityfs(name: &CStr) -> io::Result<String> {
    const CLOEXEC: libc::c_uint = 1; // FSOPEN_CLOEXEC and FSMOUNT_CLOEXEC, include/uapi/linux/mount.h
    const CMD_CREATE: libc::c_uint = 6; // FSCONFIG_CMD_CREATE, likewise

    // SAFETY: the name is a C string; the call makes a descriptor and touches nothing else.
    let context =
        owned(unsafe { libc::syscall(libc::SYS_fsopen, c"securityfs".as_ptr(), CLOEXEC) })?;
    // SAFETY: this command takes neither key nor value.
    let created = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            CMD_CREATE,
            std::ptr::null::<libc::c_char>(),
            std::ptr::null::<libc::c_void>(),
            0,
        )
    };
    if created != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: plain integers.
    let mount = owned(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            context.as_raw_fd(),
            CLOEXEC,
            libc::MOUNT_ATTR_RDONLY,
        )
    })?;
    // SAFETY: `name` is a C string and `mount` is open.
    let file = owned(libc::c_long::from(unsafe {
        libc::openat(
            mount.as_raw_fd(),
            name.as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        )
    }))?;
    let mut text = String::new();
    File::from(file).read_to_string(&mut text)?;
    Ok(text)
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: the system call has just made this descriptor, nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn levels_as_the_kernel_prints_them() {
        for (text, lockdown) in [
            ("[none] integrity confidentiality\n", Some(Lockdown::None)),
            (
                "none [integrity] confidentiality\n",
                Some(Lockdown::Integrity),
            ),
            (
                "none integrity [confidentiality]\n",
                Some(Lockdown::Confidentiality),
            ),
            ("none integrity confidentiality\n", None),
            ("none [secrecy]", None),
            ("none [integrity", None),
            ("", None),
        ] {
            assert_eq!(Lockdown::parse(text), lockdown, "{text:?}");
        }
    }

    #[test]
    fn read_without_a_mounted_securityfs() {
        // Without privilege, or without the lockdown module, there is nothing to compare with.
        match detached_securityfs(c"lockdown") {
            Ok(text) => assert_eq!(Lockdown::read(), Lockdown::parse(&text)),
            Err(error) => {
                println!("skip: no securityfs of one's own: {error}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".*") {
            let _ = Lockdown::parse(&text);
        }
    }
}
