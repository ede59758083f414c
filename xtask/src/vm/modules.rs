//! Kernel modules for a guest: found, decompressed, and in the order in which they load.
//!
//! Debian's packages hold no `modules.dep` (depmod writes it at installation), so dependencies come
//! from where depmod takes them: the `depends=` entry of each module's `.modinfo` section.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use object::{Object, ObjectSection};

/// A module, ready to be loaded.
pub(crate) struct Module {
    /// With underscores, as `/proc/modules` shows it.
    pub(crate) name: String,
    /// The ELF file, decompressed.
    pub(crate) image: Vec<u8>,
}

/// The wanted modules of the kernel whose modules lie in `folder`, with all they depend on, each
/// after what it needs. What a kernel does not have, or has built in, is left out.
///
/// # Errors
/// A file cannot be read or is not a module.
pub(crate) fn collect(folder: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    index(folder, &mut files)?;
    let mut images = BTreeMap::new();
    let order = resolve(wanted, |name| {
        let Some(path) = files.get(name) else {
            return Ok(None);
        };
        let image = read(path)?;
        let depends = depends(&image)
            .with_context(|| format!("{} is not a kernel module", path.display()))?;
        images.insert(name.to_string(), image);
        Ok(Some(depends))
    })?;
    Ok(order
        .into_iter()
        .filter_map(|name| images.remove(&name).map(|image| Module { name, image }))
        .collect())
}

/// File names may have dashes where the module's name has underscores.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn index(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            index(&path, files)?;
        } else if let Some((stem, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(canonical(stem), path);
        }
    }
    Ok(())
}

/// Depth first over the dependencies. `look` gives those of a module, `None` if there is none of
/// that name. A loop cannot happen between modules that depmod accepts, and is not followed.
fn resolve(
    wanted: &[&str],
    mut look: impl FnMut(&str) -> Result<Option<Vec<String>>>,
) -> Result<Vec<String>> {
    enum Todo {
        Visit(String),
        Place(String),
    }
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    let mut todo: Vec<Todo> = wanted
        .iter()
        .rev()
        .map(|name| Todo::Visit(canonical(name)))
        .collect();
    while let Some(next) = todo.pop() {
        match next {
            Todo::Place(name) => order.push(name),
            Todo::Visit(name) => {
                if seen.insert(name.clone())
                    && let Some(depends) = look(&name)?
                {
                    todo.push(Todo::Place(name));
                    todo.extend(
                        depends
                            .iter()
                            .rev()
                            .map(|name| Todo::Visit(canonical(name))),
                    );
                }
            }
        }
    }
    Ok(order)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if path.extension().is_none_or(|extension| extension != "xz") {
        return Ok(bytes);
    }
    let mut image = Vec::new();
    lzma_rust2::XzReader::new(bytes.as_slice(), true)
        .read_to_end(&mut image)
        .with_context(|| format!("cannot decompress {}", path.display()))?;
    Ok(image)
}

fn depends(image: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(image)?;
    let section = file
        .section_by_name(".modinfo")
        .context("it has no .modinfo section")?;
    Ok(depends_of(section.data()?))
}

/// `.modinfo` is a list of `key=value`, each ended by a zero byte; `depends` is comma-separated.
fn depends_of(modinfo: &[u8]) -> Vec<String> {
    let value = modinfo
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(b"depends="));
    let value = String::from_utf8_lossy(value.unwrap_or_default());
    value
        .split(',')
        .filter(|name| !name.is_empty())
        .map(canonical)
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn order(wanted: &[&str], table: &[(&str, &[&str])]) -> Vec<String> {
        resolve(wanted, |name| {
            let found = table.iter().find(|(module, _)| *module == name);
            Ok(found.map(|(_, depends)| depends.iter().map(ToString::to_string).collect()))
        })
        .unwrap()
    }

    #[test]
    fn a_module_comes_after_all_it_needs_and_only_once() {
        let table: &[(&str, &[&str])] = &[
            ("sctp", &["libcrc32c", "udp_tunnel", "ip6_udp_tunnel"]),
            ("ip6_udp_tunnel", &["udp_tunnel"]),
            ("udp_tunnel", &[]),
            ("libcrc32c", &[]),
            ("vxlan", &["udp_tunnel", "ip6_udp_tunnel"]),
        ];
        assert_eq!(
            order(&["sctp", "vxlan"], table),
            ["libcrc32c", "udp_tunnel", "ip6_udp_tunnel", "sctp", "vxlan"]
        );
    }

    #[test]
    fn what_a_kernel_lacks_is_left_out() {
        assert_eq!(
            order(&["mptcp_diag", "veth"], &[("veth", &["built_in"])]),
            ["veth"]
        );
    }

    #[test]
    fn dashes_and_underscores_are_the_same() {
        assert_eq!(
            order(
                &["tcp-diag"],
                &[("tcp_diag", &["inet-diag"]), ("inet_diag", &[])]
            ),
            ["inet_diag", "tcp_diag"]
        );
    }

    #[test]
    fn a_loop_ends() {
        assert_eq!(order(&["a"], &[("a", &["b"]), ("b", &["a"])]), ["b", "a"]);
    }

    #[test]
    fn dependencies_stand_in_modinfo() {
        assert_eq!(
            depends_of(b"license=GPL\0depends=libcrc32c,udp-tunnel\0name=sctp\0"),
            ["libcrc32c", "udp_tunnel"]
        );
        assert!(depends_of(b"depends=\0name=veth\0").is_empty());
        assert!(depends_of(b"").is_empty());
    }

    #[test]
    fn files_are_found_by_name_compressed_or_not() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("kernel/net")).unwrap();
        for name in [
            "kernel/net/tcp-diag.ko",
            "kernel/net/sctp.ko.xz",
            "modules.builtin",
        ] {
            fs::write(root.path().join(name), "").unwrap();
        }
        let mut files = BTreeMap::new();
        index(root.path(), &mut files).unwrap();
        assert_eq!(
            files.keys().map(String::as_str).collect::<Vec<_>>(),
            ["sctp", "tcp_diag"]
        );
    }
}
