//! One recorder for one file: flock(2) on it, which SQLite leaves alone (it uses fcntl(2)), and which
//! goes with the process, however that ends.

use std::{fs::File, io, os::unix::fs::MetadataExt as _};

use rustix::fs::{FlockOperation, flock};

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Locked {
    /// It is ours as long as the file is open.
    Ours,
    /// Another process has it; its id, where `/proc/locks` tells.
    Taken(Option<u32>),
}

/// Takes the file.
///
/// # Errors
/// When the file system knows no locks.
pub fn lock(file: &File) -> io::Result<Locked> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Locked::Ours),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let inode = file.metadata()?.ino();
            // Who it is only makes the refusal clearer.
            let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
            Ok(Locked::Taken(holder(&locks, inode)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Who has locked the file of an inode, by `/proc/locks` (proc_locks(5)). Devices are not compared: what
/// stands there is that of the file system, and overlays and btrfs have others.
fn holder(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, "WRITE", pid, file, ..] => {
                let of_file = file.rsplit(':').next()?.parse() == Ok(inode);
                // A process of another pid namespace has none here.
                pid.parse().ok().filter(|&pid| of_file && pid > 0)
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;

    #[test]
    fn the_holder_is_found_among_locks() {
        let locks = "\
1: POSIX  ADVISORY  WRITE 11 08:02:1311 1073741826 1073742335
2: FLOCK  ADVISORY  READ  12 08:02:1311 0 EOF
2: -> FLOCK  ADVISORY  WRITE 13 08:02:1311 0 EOF
3: FLOCK  ADVISORY  WRITE 14 08:02:1312 0 EOF
4: FLOCK  ADVISORY  WRITE 0 08:02:1313 0 EOF
5: FLOCK  ADVISORY  WRITE 15 08:02:1311 0 EOF
";
        assert_eq!(holder(locks, 1311), Some(15));
        assert_eq!(holder(locks, 1313), None);
        assert_eq!(holder(locks, 7), None);
    }

    #[test]
    fn a_file_is_taken_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::open(file.path()).unwrap();
        let first = open();
        assert_eq!(lock(&first).unwrap(), Locked::Ours);
        assert_eq!(
            lock(&open()).unwrap(),
            Locked::Taken(Some(std::process::id()))
        );
        drop(first);
        assert_eq!(lock(&open()).unwrap(), Locked::Ours);
    }
}
