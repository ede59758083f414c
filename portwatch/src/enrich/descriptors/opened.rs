//! The descriptor table of one process, kept open.

use std::{mem::MaybeUninit, os::fd::OwnedFd};

use rustix::{
    fs::{CWD, Mode, openat, readlinkat_raw},
    io::Errno,
};

use super::{link, table};

/// `/proc/PID/fd` of a process. It stays that of this process though its pid be given to another.
#[derive(Debug)]
pub struct OpenTable(Option<OwnedFd>);

impl OpenTable {
    /// That of a process; `None` where the process is gone.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        match openat(
            CWD,
            format!("/proc/{pid}/fd"),
            table::DIRECTORY,
            Mode::empty(),
        ) {
            Ok(directory) => Some(Self(Some(directory))),
            Err(Errno::NOENT | Errno::SRCH) => None,
            Err(_) => Some(Self(None)),
        }
    }

    /// Whether a descriptor is of the socket with this inode now; `None` where that may not be read.
    #[must_use]
    pub fn has(&self, fd: u32, inode: u64) -> Option<bool> {
        let directory = self.0.as_ref()?;
        let mut room = [MaybeUninit::uninit(); link::ROOM];
        match readlinkat_raw(directory, itoa::Buffer::new().format(fd), &mut room) {
            Ok((link, _)) => Some(link::inode(link) == Some(inode)),
            Err(Errno::ACCESS | Errno::PERM) => None,
            Err(_) => Some(false),
        }
    }
}
