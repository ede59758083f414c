//! Other programs, which are this one under names of their own.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};

/// A copy of this binary under a name of its own, gone when dropped.
pub(crate) struct Copy {
    directory: PathBuf,
    /// The executable.
    pub(crate) path: PathBuf,
}

/// Tells the directories of one process apart.
static COUNT: AtomicU32 = AtomicU32::new(0);

impl Copy {
    /// In a directory of its own.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let own = fs::read_link("/proc/self/exe")?;
        // A link takes no time, but there is none across file systems.
        let places = [Some(std::env::temp_dir()), own.parent().map(Path::to_owned)];
        for place in places.into_iter().flatten() {
            let copy = Self::within(&place, name)?;
            if fs::hard_link(&own, &copy.path).is_ok() {
                return Ok(copy);
            }
        }
        let copy = Self::within(&std::env::temp_dir(), name)?;
        fs::copy(&own, &copy.path).with_context(|| format!("cannot copy {}", own.display()))?;
        Ok(copy)
    }

    /// A place for one.
    fn within(place: &Path, name: &str) -> Result<Self> {
        let directory = place.join(format!(
            "portwatch-tests-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let path = directory.join(name);
        Ok(Self { directory, path })
    }

    /// The path as text.
    pub(crate) fn text(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("{} stays: {error}", self.directory.display());
        }
    }
}
