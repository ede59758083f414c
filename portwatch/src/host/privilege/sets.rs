//! The calling thread's sets of capabilities: read, tried, and cut down for good.
//!
//! By system calls of its own: the command's side of the fork (`child::exec`) may allocate nothing, and two
//! ways to the same call would be one too many.

use std::{
    ffi::{CString, c_int},
    io,
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use super::{Capability, CapabilitySet};

/// The three sets that capset(2) takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// In force.
    pub effective: CapabilitySet,
    /// May be put in force.
    pub permitted: CapabilitySet,
    /// May be kept across exec.
    pub inheritable: CapabilitySet,
}

/// `struct __user_cap_header_struct`
#[repr(C)]
struct Header {
    version: u32,
    pid: c_int,
}

/// `struct __user_cap_data_struct`, of which this version takes two: bits 0 to 31, and the rest.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

static HEADER: Header = Header {
    version: 0x2008_0522, // _LINUX_CAPABILITY_VERSION_3, include/uapi/linux/capability.h
    pid: 0,
};

impl Sets {
    /// Those of the calling thread.
    ///
    /// # Errors
    /// What a seccomp filter answers; the kernel itself refuses nobody.
    pub fn of_this_thread() -> io::Result<Self> {
        let mut data = [Data::default(); 2];
        // SAFETY: laid out as that version wants them; the second is written.
        let done = unsafe { libc::syscall(libc::SYS_capget, &raw const HEADER, data.as_mut_ptr()) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        let [low, high] = data;
        let join = |low: u32, high: u32| CapabilitySet(u64::from(low) | u64::from(high) << 32);
        Ok(Self {
            effective: join(low.effective, high.effective),
            permitted: join(low.permitted, high.permitted),
            inheritable: join(low.inheritable, high.inheritable),
        })
    }

    /// Puts them in force for the calling thread. What leaves the permitted set never comes back, and
    /// leaves the ambient set too. Safe to call between fork and exec.
    ///
    /// # Errors
    /// A capability that is not permitted (EPERM).
    pub fn put_in_force(self) -> io::Result<()> {
        let half = |shift: u32| Data {
            effective: (self.effective.0 >> shift) as u32,
            permitted: (self.permitted.0 >> shift) as u32,
            inheritable: (self.inheritable.0 >> shift) as u32,
        };
        let data = [half(0), half(32)];
        // SAFETY: both are laid out as that version wants them, and only read.
        match unsafe { libc::syscall(libc::SYS_capset, &raw const HEADER, data.as_ptr()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Whether something is permitted without these capabilities: it is done without them. `None` where they
/// cannot be put aside. To be called while there is one thread, of which the sets are.
pub fn without<T>(capabilities: &[Capability], act: impl FnOnce() -> T) -> Option<T> {
    let before = Sets::of_this_thread().ok()?;
    let aside: CapabilitySet = capabilities.iter().copied().collect();
    let fewer = Sets {
        effective: before.effective.without(aside),
        ..before
    };
    fewer.put_in_force().ok()?;
    let done = act();
    // What is permitted can always be put in force again.
    before.put_in_force().ok()?;
    Some(done)
}

/// Gives up all capabilities but these, in every set, and whatever exec could give: for good, and for each
/// thread that is started from now on. To be called while there is one thread.
///
/// Without CAP_SETPCAP the bounding set stays as it is; no_new_privs is set in any case, so that nothing
/// comes out of it.
///
/// # Errors
/// What a seccomp filter answers: the kernel refuses nobody to have less.
pub fn keep_only(keep: CapabilitySet) -> io::Result<()> {
    let now = Sets::of_this_thread()?;
    let kept = now.permitted.and(keep);
    if now.effective.contains(Capability::SetPcap) {
        for number in 0..u64::BITS {
            if kept.0 >> number & 1 == 0 {
                // Numbers that this kernel does not know are refused (EINVAL).
                prctl(libc::PR_CAPBSET_DROP, number.into());
            }
        }
    }
    Sets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::default(),
    }
    .put_in_force()?;
    // Empty by now: nothing is ambient that is not inheritable.
    if prctl(libc::PR_SET_NO_NEW_PRIVS, 1) {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn prctl(option: c_int, value: libc::c_ulong) -> bool {
    const NONE: libc::c_ulong = 0;
    // SAFETY: integers, of the width that prctl(2) wants.
    unsafe { libc::prctl(option, value, NONE, NONE, NONE) == 0 }
}

/// Whether this process may change what is in a directory (faccessat(2) with the effective ids).
#[must_use]
pub fn may_change(directory: &Path) -> bool {
    let Ok(path) = CString::new(directory.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: a C string and integers.
    let answer = unsafe {
        libc::faccessat(
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::W_OK | libc::X_OK,
            libc::AT_EACCESS,
        )
    };
    answer == 0
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::host::privilege::Privileges;

    /// Whatever this process has, a thread of it can have less. Threads have sets of their own.
    fn in_a_thread<T: Send>(act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(act).join().unwrap())
    }

    fn status() -> Privileges {
        let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        Privileges::parse(&text, true).unwrap()
    }

    #[test]
    fn the_sets_are_those_in_proc() {
        let sets = Sets::of_this_thread().unwrap();
        let told = status();
        assert_eq!(sets.effective, told.effective);
        assert_eq!(sets.permitted, told.permitted);
    }

    #[test]
    fn what_is_not_kept_is_gone_and_cannot_come_back() {
        in_a_thread(|| {
            let before = Sets::of_this_thread().unwrap();
            let keep: CapabilitySet = [Capability::SysPtrace, Capability::NetAdmin]
                .into_iter()
                .collect();
            keep_only(keep).unwrap();
            let now = status();
            assert_eq!(now.effective, before.permitted.and(keep));
            assert_eq!(now.permitted, now.effective);
            assert!(now.no_new_privileges);
            if before.effective.contains(Capability::SetPcap) {
                assert_eq!(now.bounding.without(keep), CapabilitySet(0));
            }
            if before.permitted != now.permitted {
                assert!(before.put_in_force().is_err());
            }
        });
    }

    #[test]
    fn what_is_put_aside_comes_back() {
        in_a_thread(|| {
            let before = Sets::of_this_thread().unwrap();
            let during = without(&[Capability::SysAdmin], || Sets::of_this_thread().unwrap());
            let during = during.unwrap();
            assert!(!during.effective.contains(Capability::SysAdmin));
            assert_eq!(during.permitted, before.permitted);
            assert_eq!(Sets::of_this_thread().unwrap(), before);
        });
    }

    #[test]
    fn a_directory_that_is_not_there_cannot_be_changed() {
        let folder = tempfile::tempdir().unwrap();
        assert!(may_change(folder.path()));
        assert!(!may_change(&folder.path().join("nowhere")));
        assert!(!may_change(Path::new("a\0b")));
    }
}
