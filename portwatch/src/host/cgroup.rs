//! Paths of control groups (version 2) to the ids the kernel compares.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path},
};

use anyhow::{Context as _, anyhow};
use portwatch_ebpf::abi::config::MAX_CGROUPS;

use crate::failure::{Failure, Kind};

/// Where the version 2 hierarchy is mounted.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// `depth << 56 | id` for each path, as the map `CGROUPS` of the kernel programs takes them. The id
/// is the inode of the directory, the depth that below the root of the hierarchy.
///
/// # Errors
/// When a path names no control group, or there are more than the programs compare.
pub fn ids(paths: &[String]) -> Result<Vec<u64>, Failure> {
    if paths.len() > MAX_CGROUPS as usize {
        return Err(Failure::new(
            Kind::Usage,
            anyhow!("--cgroup can be given {MAX_CGROUPS} times at most"),
        ));
    }
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let root = ROOTS
        .iter()
        .map(Path::new)
        .find(|root| root.join("cgroup.controllers").exists())
        .ok_or_else(|| {
            Failure::new(
                Kind::Impossible,
                anyhow!(
                    "no control groups of version 2 are mounted at {}",
                    ROOTS.join(" or ")
                ),
            )
        })?;
    paths.iter().map(|path| id(root, path)).collect()
}

fn id(root: &Path, path: &str) -> Result<u64, Failure> {
    let below: Vec<_> = Path::new(path)
        .components()
        .filter(|part| !matches!(part, Component::RootDir | Component::CurDir))
        .collect();
    let folder = below
        .iter()
        .fold(root.to_owned(), |folder, part| folder.join(part));
    let metadata = fs::metadata(&folder)
        .with_context(|| format!("no control group {path} ({})", folder.display()))
        .map_err(|error| Failure::new(Kind::Usage, error))?;
    Ok((below.len() as u64) << 56 | metadata.ino() & (u64::MAX >> 8))
}
