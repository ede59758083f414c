//! The shared libraries that a program needs in a guest, as the dynamic loader finds them here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::exec::output;

/// Where libraries lie.
pub(crate) const FOLDER: &str = "lib/x86_64-linux-gnu";
/// Name of the dynamic loader.
pub(crate) const LOADER: &str = "ld-linux-x86-64.so.2";

/// A file for the guest.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Library {
    /// Where it goes.
    pub(crate) inside: String,
    /// The file here.
    pub(crate) file: PathBuf,
}

/// What these programs need, out of `root` (`/` for this machine's own libraries).
///
/// # Errors
/// The loader of that root does not run, or a library is missing.
pub(crate) fn of(root: &Path, programs: &[PathBuf]) -> Result<Vec<Library>> {
    let (loader, search) = loader(root);
    let mut found = BTreeMap::new();
    for program in programs {
        let listed = output(
            Command::new(&loader)
                .arg("--library-path")
                .arg(&search)
                .arg("--list")
                .arg(program),
        )?;
        found.extend(listed.lines().filter_map(parse));
    }
    let mut libraries: Vec<Library> = found
        .into_iter()
        .filter(|(name, _)| !name.starts_with("ld-linux"))
        .map(|(name, file)| Library {
            inside: format!("/{FOLDER}/{name}"),
            file,
        })
        .collect();
    libraries.push(Library {
        inside: format!("/lib64/{LOADER}"),
        file: loader,
    });
    Ok(libraries)
}

/// The dynamic loader of a root, and where it is to search, as its `--library-path`.
pub(crate) fn loader(root: &Path) -> (PathBuf, String) {
    let folders = [root.join("usr").join(FOLDER), root.join(FOLDER)];
    let loader = folders
        .iter()
        .map(|folder| folder.join(LOADER))
        .find(|path| path.exists())
        .unwrap_or_else(|| root.join("lib64").join(LOADER));
    let search = folders.map(|folder| folder.display().to_string());
    (loader, search.join(":"))
}

/// `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f...)`
fn parse(line: &str) -> Option<(String, PathBuf)> {
    let (name, rest) = line.trim().split_once(" => ")?;
    let (path, _) = rest.rsplit_once(" (")?;
    Some((name.to_string(), PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_list_is_understood() {
        assert_eq!(
            parse("\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f0000)"),
            Some(("libc.so.6".into(), "/lib/x/libc.so.6".into()))
        );
        assert_eq!(parse("\tlinux-vdso.so.1 (0x00007ffd)"), None);
        assert_eq!(parse("\tstatically linked"), None);
    }
}
