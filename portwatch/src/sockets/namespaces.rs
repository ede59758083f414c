//! The network namespaces of this machine: those of its processes, and those that have a name.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::scope::Netns;
use crate::enrich::netns;

/// How it went.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Visited {
    /// So many were there that could not be entered.
    pub(crate) closed: usize,
    /// These were asked for, and no way leads to them.
    pub(crate) absent: Vec<u32>,
    /// Processes did not show theirs: there may be more.
    pub(crate) hidden: bool,
}

/// Does something in each network namespace that a way leads into, by inode, or in these; in our own first.
pub(crate) fn each<T: Send + 'static>(
    wanted: &[Netns],
    work: impl Fn(u32) -> T + Clone + Send + 'static,
    mut done: impl FnMut(T),
) -> Visited {
    let is_wanted =
        |inode: u32| wanted.is_empty() || wanted.iter().any(|netns| netns.inode == inode);
    let mut visited = Visited::default();
    let own = own();
    if let Some(own) = own.filter(|&own| is_wanted(own)) {
        done(work(own));
    }
    let mut ways = BTreeMap::new();
    if wanted.is_empty() || wanted.iter().any(|netns| Some(netns.inode) != own) {
        (ways, visited.hidden) = others(own, wanted);
    }
    for (&inode, path) in ways.iter().filter(|&(&inode, _)| is_wanted(inode)) {
        let work = work.clone();
        // Looked at through the descriptor, so that what is entered is what is meant.
        let file = File::open(path).ok();
        let file = file.filter(|file| {
            file.metadata()
                .is_ok_and(|metadata| metadata.ino() == u64::from(inode))
        });
        match file.and_then(|file| netns::run_inside(file, move || work(inode))) {
            Some(result) => done(result),
            // One that has ended has nothing to show.
            None if self::inode(path) == Some(inode) => visited.closed += 1,
            None => {}
        }
    }
    let is_there = |inode: &u32| Some(*inode) == own || ways.contains_key(inode);
    let inodes = wanted.iter().map(|netns| netns.inode);
    visited.absent = inodes.filter(|inode| !is_there(inode)).collect();
    // Who was asked for and found is not hidden.
    visited.hidden &= wanted.is_empty() || !visited.absent.is_empty();
    visited
}

/// The inode of our own.
pub(crate) fn own() -> Option<u32> {
    inode(Path::new("/proc/self/ns/net"))
}

/// A way into the network namespace with that inode.
pub(crate) fn way(wanted: u32) -> Option<PathBuf> {
    let (mut ways, _) = others(None, &[]);
    ways.remove(&wanted)
}

/// A way into each of the others that there are; and whether processes hide theirs.
pub(crate) fn ways() -> (BTreeMap<u32, PathBuf>, bool) {
    others(own(), &[])
}

/// NSFS_MAGIC (include/uapi/linux/magic.h)
const NSFS: u64 = 0x6e73_6673;

/// Whether a name stands for a namespace: one whose mount is gone is a file like others.
fn is_namespace(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| u64::try_from(found.f_type) == Ok(NSFS))
}

fn inode(path: &Path) -> Option<u32> {
    u32::try_from(fs::metadata(path).ok()?.ino()).ok()
}

/// A way into each of the others, by those that were named first; and whether processes hide theirs.
fn others(own: Option<u32>, wanted: &[Netns]) -> (BTreeMap<u32, PathBuf>, bool) {
    let entries = |directory: &str| fs::read_dir(directory).into_iter().flatten().flatten();
    let processes = entries("/proc")
        .filter(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        })
        .map(|entry| entry.path().join("ns/net"));
    let named = netns::NAMED
        .iter()
        .flat_map(|directory| entries(directory).map(|entry| entry.path()))
        .filter(|path| is_namespace(path));
    let mut ways = BTreeMap::new();
    // There is always one: without it `/proc` hides the processes of others (`hidepid`, proc(5)).
    let mut hidden = !Path::new("/proc/1").exists();
    let typed = wanted.iter().filter_map(|netns| netns.path.clone());
    for path in typed.chain(processes).chain(named) {
        match fs::metadata(&path) {
            Ok(found) => {
                let inode = u32::try_from(found.ino()).ok();
                if let Some(inode) = inode.filter(|&inode| Some(inode) != own) {
                    ways.entry(inode).or_insert(path);
                }
            }
            // ptrace(2), "PTRACE_MODE_READ_FSCREDS"
            Err(error) => hidden |= error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
    (ways, hidden)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn our_own_namespace_comes_first_and_none_twice() {
        let own = inode(Path::new("/proc/self/ns/net"));
        let mut seen = Vec::new();
        let visited = each(&[], |inode| inode, |inode| seen.push(inode));
        assert_eq!(seen.first().copied(), own);
        assert_eq!(visited.absent, [0u32; 0]);
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn only_those_that_were_asked_for_and_who_is_not_there_is_told() {
        let own = inode(Path::new("/proc/self/ns/net")).unwrap();
        let netns = |inode| Netns { inode, path: None };
        let mut seen = Vec::new();
        let wanted = [netns(1), netns(own)];
        let visited = each(&wanted, |inode| inode, |inode| seen.push(inode));
        assert_eq!(seen, [own]);
        assert_eq!(visited.absent, [1]);
    }

    #[test]
    fn a_file_whose_mount_is_gone_is_no_namespace() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!is_namespace(file.path()));
        assert!(is_namespace(Path::new("/proc/self/ns/net")));
    }
}
