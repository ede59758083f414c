//! A child that does something while its parent goes on, and then tells what came of it.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result, ensure};
use serde::{Serialize, de::DeserializeOwned};

use super::task::{self, Background};

/// The child, and the pipe through which it tells.
pub(crate) struct Telling {
    child: Background,
    read: std::fs::File,
}

impl Telling {
    /// Forks `work`. Only for single-threaded callers.
    pub(crate) fn start<T: Serialize>(work: impl FnOnce() -> Result<T>) -> Result<Self> {
        let (read, mut write) = task::pipe()?;
        let child = Background::spawn(|| {
            let told = work().and_then(|value| {
                let bytes = serde_json::to_vec(&value)?;
                write.write_all(&bytes).context("writing to the parent")
            });
            if let Err(error) = told {
                eprintln!("a child: {error:#}");
            }
        })?;
        Ok(Self { child, read })
    }

    /// Waits until it sleeps; its pid.
    pub(crate) fn asleep(&self) -> Result<u32> {
        self.child.asleep()
    }

    /// Waits for what it tells.
    pub(crate) fn told<T: DeserializeOwned>(mut self) -> Result<T> {
        let mut bytes = Vec::new();
        self.read
            .read_to_end(&mut bytes)
            .context("reading from a child")?;
        ensure!(!bytes.is_empty(), "a child has told nothing");
        self.child.ended()?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}
