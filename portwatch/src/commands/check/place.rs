//! Where and for whom it is asked: network namespace, user, privilege.

use std::{
    fs::{self, File},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    thread,
};

use anyhow::Context as _;
use nix::sched::{CloneFlags, setns};

use crate::{
    cli::{Names as _, NetnsArg, System, UserArg},
    enrich::netns::OWN,
    errno,
    failure::{Failure, Kind},
    host::privilege::Privileges,
    sockets::namespaces,
};

nix::ioctl_none_bad!(
    /// A descriptor of the user namespace that owns an nsfs file (ioctl_nsfs(2)).
    ns_get_userns,
    nix::request_code_none!(0xb7, 0x1)
);

/// CAP_NET_BIND_SERVICE (include/uapi/linux/capability.h)
const NET_BIND_SERVICE: u32 = 10;

fn usage(error: anyhow::Error) -> Failure {
    Failure::new(Kind::Usage, error)
}

/// Opens the namespace that was typed; `None` for our own.
///
/// # Errors
/// When there is none, or no way leads there.
pub(in crate::commands) fn open(typed: Option<&NetnsArg>) -> Result<Option<File>, Failure> {
    let path = match typed {
        None => return Ok(None),
        Some(NetnsArg::Inode(inode)) if netns() == Some(*inode) => return Ok(None),
        Some(NetnsArg::Inode(inode)) => namespaces::way(*inode).ok_or_else(|| {
            usage(anyhow::anyhow!(
                "no way leads into network namespace {inode}"
            ))
            .hint("give the path of one of its processes, /proc/PID/ns/net")
        })?,
        Some(NetnsArg::Path(path)) => path.clone(),
        // ip-netns(8)
        Some(NetnsArg::Name(name)) => PathBuf::from("/run/netns").join(name),
    };
    let what = || format!("cannot look into network namespace {}", path.display());
    System
        .netns(&path)
        .map_err(|reason| usage(anyhow::anyhow!("{}: {reason}", what())))?;
    let file = File::open(&path).with_context(what).map_err(usage)?;
    Ok(Some(file))
}

/// Does something in a network namespace, in a thread of its own, because setns(2) changes the calling
/// thread.
///
/// # Errors
/// When it cannot be entered.
pub(in crate::commands) fn inside<T: Send>(
    namespace: Option<File>,
    work: impl FnOnce() -> T + Send,
) -> Result<T, Failure> {
    let Some(namespace) = namespace else {
        return Ok(work());
    };
    let enter = || -> anyhow::Result<T> {
        setns(namespace, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| anyhow::anyhow!("{}", errno::words(&errno.desc())))
            .context("cannot enter the network namespace")?;
        Ok(work())
    };
    let done = thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, enter)?;
        match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    done.map_err(|error| {
        Failure::new(Kind::Impossible, error).hint("needs CAP_SYS_ADMIN: run it with sudo")
    })
}

/// Inode of the network namespace that the calling thread is in.
pub(in crate::commands) fn netns() -> Option<u32> {
    u32::try_from(fs::metadata(OWN).ok()?.ino()).ok()
}

/// The user that was typed.
///
/// # Errors
/// When there is none of that name.
pub(super) fn user(typed: Option<&UserArg>) -> Result<Option<u32>, Failure> {
    match typed {
        None => Ok(None),
        Some(UserArg::Uid(uid)) => Ok(Some(*uid)),
        Some(UserArg::Name(name)) => System
            .user(name)
            .map(Some)
            .map_err(|reason| usage(anyhow::anyhow!("no user {name:?}: {reason}"))),
    }
}

/// Whether a user has CAP_NET_BIND_SERVICE in the network namespace of the calling thread; without one,
/// this process as it is. Others than root are taken to have no capabilities.
pub(super) fn may_bind_low(uid: Option<u32>) -> Option<bool> {
    let has_it = match uid {
        Some(uid) => uid == 0,
        None => Privileges::read()?.effective.0 >> NET_BIND_SERVICE & 1 == 1,
    };
    if has_it { is_ours() } else { Some(false) }
}

/// Whether our user namespace has power over the network namespace: it owns it, or one that does. The kernel
/// shows the owner only then.
fn is_ours() -> Option<bool> {
    let namespace = File::open(Path::new(OWN)).ok()?;
    // SAFETY: the request takes no argument and reads nothing of ours; the descriptor is open.
    match unsafe { ns_get_userns(namespace.as_raw_fd()) } {
        Ok(owner) => {
            // SAFETY: the kernel has just opened it for us, and nobody else knows it.
            drop(unsafe { OwnedFd::from_raw_fd(owner) });
            Some(true)
        }
        Err(nix::errno::Errno::EPERM) => Some(false),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn only_root_may_without_being_asked() {
        assert_eq!(may_bind_low(Some(1000)), Some(false));
        let own = Privileges::read().unwrap().effective.0 >> NET_BIND_SERVICE & 1 == 1;
        assert_eq!(may_bind_low(None), Some(own));
    }

    #[test]
    fn namespaces_are_opened_by_inode_and_path() {
        let own = netns().unwrap();
        assert!(open(Some(&NetnsArg::Inode(own))).unwrap().is_none());
        let path = PathBuf::from("/proc/self/ns/net");
        let file = open(Some(&NetnsArg::Path(path))).unwrap().unwrap();
        assert_eq!(file.metadata().unwrap().ino(), u64::from(own));
        for wrong in [
            NetnsArg::Inode(1),
            NetnsArg::Name("no-such".to_owned()),
            NetnsArg::Path("/etc/passwd".into()),
        ] {
            assert_eq!(open(Some(&wrong)).unwrap_err().code(), 2, "{wrong:?}");
        }
    }
}
