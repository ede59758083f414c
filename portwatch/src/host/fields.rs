//! The table of kernel fields (`portwatch_ebpf::abi::layout`) resolved against a kernel's BTF.

#[cfg(test)]
mod tests;

use portwatch_ebpf::abi::layout::{ABSENT, FIELDS, Field, Kind, Layout};

use super::btf::Btf;

/// Offsets for the kernel programs, and what is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// The members of [`Layout`] in order.
    pub words: [u32; FIELDS.len()],
    /// Required fields this kernel does not have, or has with another size.
    pub missing: Vec<&'static str>,
    /// Optional ones.
    pub absent: Vec<&'static str>,
    /// Where each was found: the path of the table that this kernel has.
    pub paths: [Option<&'static str>; FIELDS.len()],
}

impl Fields {
    /// Whether a field was found.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The number of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u32> {
        let at = FIELDS.iter().position(|field| field.name == name)?;
        Some(self.words[at]).filter(|&word| word != ABSENT)
    }
}

/// Every type name the table mentions, and every enumerator.
#[must_use]
pub fn names() -> Vec<&'static str> {
    let mut names = Vec::new();
    for path in FIELDS.iter().flat_map(|field| field.paths) {
        let (path, enumerator) = split_enumerator(path);
        names.push(path.split('.').next().unwrap_or(path));
        names.extend(enumerator);
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// Resolves the table.
#[must_use]
pub fn resolve(btf: &Btf) -> Fields {
    let mut fields = Fields {
        words: [ABSENT; FIELDS.len()],
        missing: Vec::new(),
        absent: Vec::new(),
        paths: [None; FIELDS.len()],
    };
    for (at, field) in FIELDS.iter().enumerate() {
        let found = field
            .paths
            .iter()
            .find_map(|path| Some((find(btf, field, path)?, *path)));
        match found {
            Some((number, path)) => {
                fields.words[at] = number;
                fields.paths[at] = Some(path);
            }
            None if field.required => fields.missing.push(field.name),
            None => fields.absent.push(field.name),
        }
    }
    drop_scattered_options(&mut fields);
    fields
}

/// The bits that the programs take out of one 64-bit word, which begins at the byte of the first
/// (`inet_flags` in the kernel programs' `kernel/sock.rs`).
const OPTIONS: [&str; 3] = ["inet_freebind", "inet_transparent", "inet_bind_no_port"];

/// Where the options do not lie in one such word, none of them is known.
fn drop_scattered_options(fields: &mut Fields) {
    let Some(first) = fields.get(OPTIONS[0]) else {
        return;
    };
    let start = first & !7;
    let together = OPTIONS.iter().all(|name| {
        let bit = fields.get(name);
        bit.is_none_or(|bit| bit.checked_sub(start).is_some_and(|bit| bit < 64))
    });
    if together {
        return;
    }
    for (at, field) in FIELDS.iter().enumerate() {
        if OPTIONS.contains(&field.name) && fields.words[at] != ABSENT {
            fields.words[at] = ABSENT;
            fields.paths[at] = None;
            fields.absent.push(field.name);
        }
    }
}

fn split_enumerator(path: &'static str) -> (&'static str, Option<&'static str>) {
    match path.split_once('#') {
        Some((path, enumerator)) => (path, Some(enumerator)),
        None => (path, None),
    }
}

fn find(btf: &Btf, field: &Field, path: &'static str) -> Option<u32> {
    let (path, enumerator) = split_enumerator(path);
    let mut parts = path.split('.');
    let structure = parts.next()?;
    let members: Vec<&str> = parts.collect();
    if field.kind == Kind::Size {
        return btf.struct_size(structure);
    }
    let member = btf.member(structure, &members)?;
    match field.kind {
        Kind::Offset(size) => (member.bitfield.is_none()
            && member.bits.is_multiple_of(8)
            && btf.member_size(member)? == size)
            .then_some(member.bits / 8),
        Kind::Place => {
            (member.bitfield.is_none() && member.bits.is_multiple_of(8)).then_some(member.bits / 8)
        }
        Kind::Bits(width) => match (enumerator, member.bitfield) {
            (Some(enumerator), _) => member
                .bits
                .checked_add(u32::try_from(btf.enumerator(enumerator)?).ok()?),
            (None, Some(found)) => (found == width).then_some(member.bits),
            // Grown from a bitfield to a member of its own.
            (None, None) => Some(member.bits),
        },
        Kind::Size => None,
    }
}

// One word per member, in the same order: the loader hands the words over as they are.
const _: () = assert!(size_of::<Layout>() == FIELDS.len() * 4);
