//! The network namespaces of this machine: those of its processes, and those that have a name.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
};

use crate::enrich::netns;

/// Does something in each network namespace that a way leads into, by inode; in our own first. The value
/// is how many were there that could not be entered.
pub(super) fn each<T: Send + 'static>(
    work: impl Fn(u32) -> T + Clone + Send + 'static,
    mut done: impl FnMut(T),
) -> usize {
    let own = inode(&PathBuf::from("/proc/self/ns/net"));
    if let Some(own) = own {
        done(work(own));
    }
    let mut missed = 0;
    for (inode, path) in others(own) {
        let work = work.clone();
        // Looked at through the descriptor, so that what is entered is what is meant.
        let file = File::open(&path).ok();
        let file = file.filter(|file| {
            file.metadata()
                .is_ok_and(|metadata| metadata.ino() == u64::from(inode))
        });
        match file.and_then(|file| netns::run_inside(file, move || work(inode))) {
            Some(result) => done(result),
            // One that has ended has nothing to show.
            None if self::inode(&path) == Some(inode) => missed += 1,
            None => {}
        }
    }
    missed
}

/// A way into the network namespace with that inode.
pub(crate) fn way(wanted: u32) -> Option<PathBuf> {
    let mut ways = others(None);
    ways.remove(&wanted)
}

fn inode(path: &PathBuf) -> Option<u32> {
    u32::try_from(fs::metadata(path).ok()?.ino()).ok()
}

/// A way into each of the others.
fn others(own: Option<u32>) -> BTreeMap<u32, PathBuf> {
    let entries = |directory: &str| fs::read_dir(directory).into_iter().flatten().flatten();
    let processes = entries("/proc")
        .filter(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        })
        .map(|entry| entry.path().join("ns/net"));
    let named = netns::NAMED
        .iter()
        .flat_map(|directory| entries(directory).map(|entry| entry.path()));
    let mut ways = BTreeMap::new();
    for path in processes.chain(named) {
        if let Some(inode) = inode(&path).filter(|&inode| Some(inode) != own) {
            ways.entry(inode).or_insert(path);
        }
    }
    ways
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_namespace_comes_first_and_none_twice() {
        let own = inode(&PathBuf::from("/proc/self/ns/net"));
        let mut seen = Vec::new();
        each(|inode| inode, |inode| seen.push(inode));
        assert_eq!(seen.first().copied(), own);
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}
