//! The eBPF object as it is embedded in portwatch.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection, ObjectSymbol};

use super::tier::{Counts, Failure};
use crate::cargo::Built;

/// The build script copies the object there under its package's name.
const NAME: &str = "portwatch-ebpf";

/// A property of the object, checked on its bytes.
type Check = (&'static str, fn(&object::File) -> Result<()>);

const CHECKS: &[Check] = &[
    ("it is made for eBPF", is_bpf),
    ("it holds no panic", has_no_panic),
    (
        "it declares a licence that the kernel takes for GPL-compatible",
        is_gpl_compatible,
    ),
    ("it carries BTF of its types and functions", has_btf),
];

/// Checks the object of this build.
///
/// # Errors
/// There is none, or it is not an object at all.
pub(crate) fn check(built: &Built) -> Result<Counts> {
    let folder = built
        .out_dir
        .as_deref()
        .context("portwatch was built without its build script, so without eBPF programs")?;
    check_file(&folder.join(NAME))
}

fn check_file(path: &Path) -> Result<Counts> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = object::File::parse(bytes.as_slice())
        .with_context(|| format!("{} is not an ELF object", path.display()))?;
    let mut counts = Counts::default();
    for (name, check) in CHECKS {
        match check(&file) {
            Ok(()) => counts.passed += 1,
            Err(error) => counts.failures.push(Failure {
                name: (*name).into(),
                why: format!("{error:#}"),
            }),
        }
    }
    Ok(counts)
}

fn is_bpf(file: &object::File) -> Result<()> {
    match file.architecture() {
        object::Architecture::Bpf => Ok(()),
        other => bail!("its architecture is {other:?}"),
    }
}

/// Whatever can panic calls into `core::panicking`, and keeps the symbol.
fn has_no_panic(file: &object::File) -> Result<()> {
    let names = file
        .symbols()
        .filter_map(|symbol| symbol.name().ok().map(String::from));
    let panics: Vec<String> = names.filter(|name| name.contains("panic")).collect();
    if !panics.is_empty() {
        bail!("it has {}", panics.join(", "));
    }
    Ok(())
}

/// The strings of license_is_gpl_compatible() in the kernel's include/linux/license.h.
const GPL_COMPATIBLE: &[&str] = &[
    "GPL",
    "GPL v2",
    "GPL and additional rights",
    "Dual BSD/GPL",
    "Dual MIT/GPL",
    "Dual MPL/GPL",
];

fn is_gpl_compatible(file: &object::File) -> Result<()> {
    let section = file
        .section_by_name("license")
        .context("it has no license section")?;
    let data = section
        .data()
        .context("its license section cannot be read")?;
    let text = String::from_utf8_lossy(data);
    let text = text.trim_end_matches('\0');
    if !GPL_COMPATIBLE.contains(&text) {
        bail!("its licence is {text:?}");
    }
    Ok(())
}

fn has_btf(file: &object::File) -> Result<()> {
    for name in [".BTF", ".BTF.ext"] {
        let section = file
            .section_by_name(name)
            .with_context(|| format!("it has no {name} section"))?;
        if section.size() == 0 {
            bail!("its {name} section is empty");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use object::write::{Object as Writer, Symbol, SymbolSection};
    use object::{
        Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    };

    use super::*;

    fn failures(symbol: &str, licence: &[u8], sections: &[&str]) -> Vec<String> {
        let mut writer = Writer::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
        for (name, data) in std::iter::once(("license", licence))
            .chain(sections.iter().map(|name| (*name, &b"x"[..])))
        {
            let id = writer.add_section(Vec::new(), name.into(), SectionKind::Data);
            writer.append_section_data(id, data, 1);
        }
        writer.add_symbol(Symbol {
            name: symbol.into(),
            value: 0,
            size: 0,
            kind: SymbolKind::Text,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Undefined,
            flags: SymbolFlags::None,
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("o");
        fs::write(&path, writer.write().unwrap()).unwrap();
        check_file(&path)
            .unwrap()
            .failures
            .into_iter()
            .map(|failure| failure.why)
            .collect()
    }

    #[test]
    fn a_good_object_passes() {
        assert_eq!(
            failures("bind_tracing", b"Dual MIT/GPL\0", &[".BTF", ".BTF.ext"]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn each_flaw_is_named() {
        let panic = "_ZN4core9panicking5panic17h0123456789abcdefE";
        assert_eq!(
            failures(panic, b"GPL\0", &[".BTF", ".BTF.ext"]),
            [format!("it has {panic}")]
        );
        assert_eq!(
            failures("f", b"MIT\0", &[".BTF", ".BTF.ext"]),
            ["its licence is \"MIT\""]
        );
        assert_eq!(
            failures("f", b"GPL\0", &[".BTF"]),
            ["it has no .BTF.ext section"]
        );
    }

    #[test]
    fn a_missing_object_is_an_error() {
        assert!(check(&Built::default()).is_err());
        assert!(check_file(Path::new("/nonexistent/portwatch-ebpf")).is_err());
    }
}
