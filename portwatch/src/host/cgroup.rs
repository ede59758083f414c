//! Paths of control groups (version 2) to the ids the kernel compares.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use portwatch_ebpf::abi::config::MAX_CGROUPS;
use thiserror::Error;

/// Why there are no ids.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// More than the programs compare.
    #[error("--cgroup can be given {MAX_CGROUPS} times at most")]
    TooMany,
    /// The kernel, or who booted it, has no version 2 hierarchy.
    #[error("no control groups of version 2 are mounted at {}", ROOTS.join(" or "))]
    NotMounted,
    /// A path that names none.
    #[error("no control group {path} ({})", folder.display())]
    Unknown {
        /// As it was given.
        path: String,
        /// Where it would be.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where the version 2 hierarchy is mounted.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// `depth << 56 | id` for each path, as the map `CGROUPS` of the kernel programs takes them. The id
/// is the inode of the directory, the depth that below the root of the hierarchy.
///
/// # Errors
/// When a path names no control group, or there are more than the programs compare.
pub fn ids(paths: &[String]) -> Result<Vec<u64>, CgroupError> {
    if paths.len() > MAX_CGROUPS as usize {
        return Err(CgroupError::TooMany);
    }
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let root = root().ok_or(CgroupError::NotMounted)?;
    paths.iter().map(|path| id(root, path)).collect()
}

/// Where the version 2 hierarchy is, if it is mounted.
#[must_use]
pub fn root() -> Option<&'static Path> {
    ROOTS
        .iter()
        .map(Path::new)
        .find(|root| root.join("cgroup.controllers").exists())
}

fn id(root: &Path, path: &str) -> Result<u64, CgroupError> {
    let below: Vec<_> = Path::new(path)
        .components()
        .filter(|part| !matches!(part, Component::RootDir | Component::CurDir))
        .collect();
    let folder = below
        .iter()
        .fold(root.to_owned(), |folder, part| folder.join(part));
    let metadata = fs::metadata(&folder).map_err(|source| CgroupError::Unknown {
        path: path.to_owned(),
        folder,
        source,
    })?;
    Ok((below.len() as u64) << 56 | metadata.ino() & (u64::MAX >> 8))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]
    use super::*;

    #[test]
    fn too_many_and_unknown_ones_are_refused_in_words() {
        assert!(ids(&[]).unwrap().is_empty());
        let many = vec!["/".to_owned(); MAX_CGROUPS as usize + 1];
        let error = ids(&many).unwrap_err();
        assert!(matches!(error, CgroupError::TooMany), "{error}");

        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("a.slice")).unwrap();
        let inode = fs::metadata(root.path().join("a.slice")).unwrap().ino();
        assert_eq!(id(root.path(), "/a.slice").unwrap(), 1 << 56 | inode);
        let error = id(root.path(), "/a.slice/b").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("no control group /a.slice/b (/"),
            "{error}"
        );
    }
}
