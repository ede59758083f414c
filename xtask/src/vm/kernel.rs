//! The kernels of the test matrix.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::fetch::{Apt, Archive, BOOKWORM, Closure, Suites};
use crate::workspace::Cache;

/// A kernel of the matrix, and the suites that have it.
#[derive(Debug)]
pub(crate) struct Line {
    /// Its name here, in `--kernel`, in reports and in `tests/expected-skips.txt`.
    pub(crate) tag: &'static str,
    suites: Suites,
}

/// Debian's long-term kernels and its newest, oldest first. Mirrors keep only the newest package of
/// each, so the meta package decides which one it is.
pub(crate) const MATRIX: &[Line] = &[
    Line {
        tag: "5.10",
        suites: Suites {
            name: "bullseye-security",
            from: &[(Archive::Security, "bullseye-security")],
            prefer: None,
            expired: true,
        },
    },
    Line {
        tag: "6.1",
        suites: BOOKWORM,
    },
    Line {
        tag: "6.12",
        suites: Suites {
            name: "bookworm-backports",
            from: &[(Archive::Main, "bookworm-backports")],
            prefer: None,
            expired: false,
        },
    },
    Line {
        tag: "7.x",
        suites: Suites {
            name: "trixie-backports",
            from: &[(Archive::Main, "trixie-backports")],
            prefer: None,
            expired: false,
        },
    },
];

const META: &str = "linux-image-cloud-amd64";

/// A kernel that can be booted.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// Its [`Line::tag`].
    pub(crate) tag: &'static str,
    /// As uname(2) will say.
    pub(crate) release: String,
    /// What QEMU boots.
    pub(crate) vmlinuz: PathBuf,
    /// The folder with its modules.
    pub(crate) modules: PathBuf,
}

/// The line of the matrix that `--kernel TEXT` means: its tag, or for the newest one any version
/// with the same major number (`7`, `7.3`).
pub(crate) fn find(text: &str) -> Option<&'static Line> {
    MATRIX.iter().find(|line| line.tag == text).or_else(|| {
        let major = text.split('.').next()?;
        MATRIX
            .iter()
            .find(|line| line.tag.strip_suffix(".x") == Some(major))
    })
}

impl Kernel {
    /// The kernel of that line, from the cache or fetched into it.
    ///
    /// # Errors
    /// It has to be fetched and cannot be.
    pub(crate) fn find_or_fetch(cache: &Cache, line: &Line) -> Result<Kernel> {
        let base = cache.path().join("kernels").join(line.tag);
        let root = base.join("root");
        if !root.is_dir() {
            fetch(cache, line, &root).with_context(|| format!("cannot get kernel {}", line.tag))?;
        }
        locate(line.tag, &root).with_context(|| {
            format!(
                "kernel {} is not where it was unpacked\nnext step: remove {} and try again",
                line.tag,
                base.display()
            )
        })
    }
}

fn fetch(cache: &Cache, line: &Line, root: &Path) -> Result<()> {
    let apt = Apt::open(cache.path(), line.suites)?;
    let image = apt
        .depends(META)?
        .into_iter()
        .find(|package| is_part(package, &["linux-image-"]))
        .with_context(|| format!("{META} of {} names no kernel", line.suites.name))?;
    // From 7.x on the image package is empty and depends on packages with the kernel's parts.
    let parts = apt
        .depends(&image)?
        .into_iter()
        .filter(|package| is_part(package, &["linux-binary-", "linux-modules-"]));
    let packages: Vec<String> = std::iter::once(image.clone()).chain(parts).collect();
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    apt.unpack(
        &format!("kernel {} ({image})", line.tag),
        &packages,
        Closure::Named,
        root,
    )
}

/// Whether `package` is one of these prefixes followed by a version, unlike a meta package.
fn is_part(package: &str, prefixes: &[&str]) -> bool {
    let version = prefixes
        .iter()
        .find_map(|prefix| package.strip_prefix(prefix));
    version.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
}

fn locate(tag: &'static str, root: &Path) -> Result<Kernel> {
    let modules = ["lib/modules", "usr/lib/modules"].map(|path| root.join(path));
    let modules = modules
        .iter()
        .flat_map(fs::read_dir)
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .next();
    let modules = modules.with_context(|| format!("no modules under {}", root.display()))?;
    let release = modules
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let places = [
        root.join("boot").join(format!("vmlinuz-{release}")),
        modules.join("vmlinuz"),
    ];
    let vmlinuz = places.into_iter().find(|path| path.is_file());
    let vmlinuz =
        vmlinuz.with_context(|| format!("no vmlinuz of {release} under {}", root.display()))?;
    Ok(Kernel {
        tag,
        release,
        vmlinuz,
        modules,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn kernels_are_named_by_tag_and_the_newest_by_any_of_its_versions() {
        assert_eq!(find("6.12").map(|line| line.tag), Some("6.12"));
        for newest in ["7.x", "7.3", "7"] {
            assert_eq!(find(newest).map(|line| line.tag), Some("7.x"));
        }
        assert!(find("6.2").is_none());
    }

    #[test]
    fn meta_packages_are_not_parts() {
        assert!(is_part(
            "linux-modules-7.3.4+deb13-cloud-amd64",
            &["linux-binary-", "linux-modules-"]
        ));
        assert!(!is_part("linux-modules-cloud-amd64", &["linux-modules-"]));
        assert!(!is_part("linux-base-7.3.4", &["linux-image-"]));
    }

    #[test]
    fn both_layouts_are_found() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("lib/modules/6.1.0-1-cloud-amd64")).unwrap();
        fs::create_dir_all(root.path().join("boot")).unwrap();
        fs::write(root.path().join("boot/vmlinuz-6.1.0-1-cloud-amd64"), "").unwrap();
        let kernel = locate("6.1", root.path()).unwrap();
        assert_eq!(kernel.release, "6.1.0-1-cloud-amd64");

        let root = tempfile::tempdir().unwrap();
        let modules = root.path().join("usr/lib/modules/7.3.4+deb13-cloud-amd64");
        fs::create_dir_all(&modules).unwrap();
        assert!(locate("7.x", root.path()).is_err());
        fs::write(modules.join("vmlinuz"), "").unwrap();
        let kernel = locate("7.x", root.path()).unwrap();
        assert_eq!(
            (kernel.vmlinuz, kernel.modules.clone()),
            (modules.join("vmlinuz"), modules)
        );
    }
}
