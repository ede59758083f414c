//! [`Names`] of the running system.

use std::{
    fs::OpenOptions,
    os::{fd::AsRawFd, unix::fs::MetadataExt, unix::fs::OpenOptionsExt},
    path::Path,
};

use nix::unistd::{SysconfVar, User, sysconf};

use super::Names;
use crate::errno;

nix::ioctl_none_bad!(
    /// The CLONE_NEW* flag of an nsfs file (ioctl_nsfs(2)); ENOTTY for any other file.
    ns_get_nstype,
    nix::request_code_none!(0xb7, 0x3)
);

/// The running system.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Names for System {
    fn user(&self, name: &str) -> Result<u32, String> {
        match User::from_name(name) {
            Ok(Some(user)) => Ok(user.uid.as_raw()),
            Ok(None) => Err("there is no such user".to_owned()),
            Err(errno) => Err(format!("cannot look the user up: {}", errno.desc())),
        }
    }

    fn netns(&self, path: &Path) -> Result<u32, String> {
        let file = OpenOptions::new()
            .read(true)
            // A FIFO must not hold us up.
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)
            .map_err(|error| format!("cannot open {}: {}", path.display(), errno::words(&error)))?;
        let not_netns = || "it is not a network namespace".to_owned();
        // SAFETY: the request takes no argument and reads nothing of ours; the descriptor is open.
        let kind = unsafe { ns_get_nstype(file.as_raw_fd()) }.map_err(|_| not_netns())?;
        if kind != libc::CLONE_NEWNET {
            return Err(not_netns());
        }
        let inode = file
            .metadata()
            .map_err(|error| format!("cannot read its inode: {}", errno::words(&error)))?
            .ino();
        u32::try_from(inode).map_err(|_| not_netns())
    }

    fn page_size(&self) -> u64 {
        sysconf(SysconfVar::PAGE_SIZE)
            .ok()
            .flatten()
            .and_then(|size| u64::try_from(size).ok())
            .unwrap_or(4096)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]
    use super::*;

    #[test]
    fn root_is_user_zero() {
        assert_eq!(System.user("root"), Ok(0));
        assert!(System.user("no-such-user-here").is_err());
    }

    #[test]
    fn namespaces_are_told_from_other_files() {
        let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert_eq!(
            System.netns(Path::new("/proc/self/ns/net")).map(u64::from),
            Ok(own)
        );
        for other in ["/proc/self/ns/mnt", "/etc/passwd", "/"] {
            assert_eq!(
                System.netns(Path::new(other)),
                Err("it is not a network namespace".to_owned()),
                "{other}"
            );
        }
        assert!(System.netns(Path::new("/run/netns/no-such")).is_err_and(
            |reason| reason == "cannot open /run/netns/no-such: No such file or directory"
        ));
    }

    #[test]
    fn pages_are_powers_of_two() {
        assert!(System.page_size().is_power_of_two());
    }
}
