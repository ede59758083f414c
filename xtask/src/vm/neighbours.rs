//! ss, netstat and lsof: what people ask about ports today, and what portwatch is compared with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::fetch::{Apt, BOOKWORM, Closure};
use super::libraries::{self, Library};
use crate::workspace::Cache;

const PACKAGES: &[&str] = &["iproute2", "net-tools", "lsof"];

const PROGRAMS: &[&str] = &["ss", "netstat", "lsof"];

/// Where programs lie, of systems whose /bin is not the same as /usr/bin too.
const FOLDERS: &[&str] = &["usr/bin", "bin"];

/// Where they are in a guest.
pub(crate) const GUEST_ROOT: &str = "/neighbours";

/// Where they are.
#[derive(Debug, Clone)]
pub(crate) struct Neighbours {
    root: PathBuf,
}

impl Neighbours {
    /// This machine's own, if it has all of them.
    pub(crate) fn own() -> Option<Neighbours> {
        let own = Neighbours { root: "/".into() };
        own.programs().is_ok().then_some(own)
    }

    /// Debian's, from the cache.
    ///
    /// # Errors
    /// They have to be fetched and cannot be.
    pub(crate) fn fetched(cache: &Cache) -> Result<Neighbours> {
        let root = cache.path().join("neighbours").join("root");
        if !root.is_dir() {
            Apt::open(cache.path(), BOOKWORM)?.unpack(
                "ss, netstat and lsof with their libraries",
                PACKAGES,
                Closure::WithDependencies,
                &root,
            )?;
        }
        let fetched = Neighbours { root };
        fetched.programs()?;
        Ok(fetched)
    }

    /// The root of the file system that they are in.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What to type for one of them on this machine. Those that were fetched run with the loader and the
    /// libraries that came with them.
    ///
    /// # Errors
    /// It is not there.
    pub(crate) fn command(&self, name: &str) -> Result<String> {
        let place = PROGRAMS.iter().position(|one| *one == name);
        let programs = self.programs()?;
        let program = place.and_then(|place| programs.get(place));
        let program = program.with_context(|| format!("{name} is no neighbour"))?;
        if self.root == Path::new("/") {
            return Ok(program.display().to_string());
        }
        let (loader, folders) = libraries::loader(&self.root);
        let loader = loader.display();
        Ok(format!(
            "{loader} --library-path {folders} {}",
            program.display()
        ))
    }

    /// For a guest: under a root of their own, where they do not meet the libraries of others.
    ///
    /// # Errors
    /// A library is missing.
    pub(crate) fn files(&self) -> Result<Vec<(String, PathBuf)>> {
        let programs = self.programs()?;
        let needed = libraries::of(&self.root, &programs)?;
        let named = PROGRAMS.iter().zip(programs);
        let named = named.map(|(name, file)| (format!("{GUEST_ROOT}/usr/bin/{name}"), file));
        let beside = |Library { inside, file }: Library| {
            let name = inside.rsplit('/').next().unwrap_or(&inside);
            (format!("{GUEST_ROOT}/{}/{name}", libraries::FOLDER), file)
        };
        Ok(named.chain(needed.into_iter().map(beside)).collect())
    }

    /// What to type for one of them in the guest.
    pub(crate) fn guest_command(name: &str) -> String {
        let folder = format!("{GUEST_ROOT}/{}", libraries::FOLDER);
        let loader = libraries::LOADER;
        format!("{folder}/{loader} --library-path {folder} {GUEST_ROOT}/usr/bin/{name}")
    }

    fn programs(&self) -> Result<Vec<PathBuf>> {
        let find = |name: &&str| {
            let mut paths = FOLDERS
                .iter()
                .map(|folder| self.root.join(folder).join(name));
            let found = paths.find_map(|path| path.canonicalize().ok());
            found.with_context(|| format!("no {name} in {}", self.root.display()))
        };
        PROGRAMS.iter().map(find).collect()
    }
}
