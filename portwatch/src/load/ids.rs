//! The ids of the functions to attach to, in the form aya takes them in.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use aya_obj::btf::{Btf, BtfError, BtfKind, BtfType, Func, FuncLinkage};

use crate::plan::{Attachment, hooks::Way};

/// A type that aya is going to look for.
struct Target {
    id: u32,
    kind: BtfKind,
    name: String,
}

/// BTF in which the targets of these programs have the ids they have in the kernel, and in which
/// nothing else has a name.
///
/// aya takes no id: it compares a name with that of every function in the BTF it is given, once for
/// each program, and the place of the type is its id. So the places before it are filled. Kprobes and
/// raw tracepoints go by name; for them it is empty.
pub(super) fn types(
    attachments: impl IntoIterator<Item = Attachment>,
    ids: &BTreeMap<&'static str, u32>,
) -> Result<Btf, BtfError> {
    let mut targets: Vec<Target> = attachments
        .into_iter()
        .filter_map(|attachment| target(attachment, *ids.get(attachment.target)?))
        .collect();
    targets.sort_by_key(|target| target.id);
    targets.dedup_by_key(|target| target.id);
    // aya makes a function, but no typedef. Reading one costs five times as much for each place.
    let typedefs = targets
        .iter()
        .rposition(|target| target.kind == BtfKind::Typedef)
        .map_or(0, |last| last + 1);
    let (read, made) = targets.split_at(typedefs);
    let mut btf = Btf::parse(&encoded(read), aya::Endianness::default())?;
    let mut next = read.last().map_or(1, |target| target.id + 1);
    for target in made {
        for _ in next..target.id {
            btf.add_type(BtfType::Unknown);
        }
        let name = btf.add_string(&target.name);
        btf.add_type(BtfType::Func(Func::new(name, 0, FuncLinkage::Static)));
        next = target.id + 1;
    }
    Ok(btf)
}

fn target(attachment: Attachment, id: u32) -> Option<Target> {
    let (kind, name) = match attachment.way {
        Way::FEntry | Way::FExit | Way::Iterator => (BtfKind::Func, attachment.target.to_owned()),
        Way::BtfTracepoint => (BtfKind::Typedef, format!("btf_trace_{}", attachment.target)),
        Way::KProbe | Way::KRetProbe | Way::RawTracepoint => return None,
    };
    // 0 is `void`.
    (id != 0).then_some(Target { id, kind, name })
}

/// The types as BTF (Documentation/bpf/btf.rst), in the order of their ids; zeros between them.
fn encoded(targets: &[Target]) -> Vec<u8> {
    const HEADER: usize = 24;
    const TYPE: usize = 12;
    let types = TYPE * targets.last().map_or(0, |target| target.id as usize);
    let mut out = vec![0; HEADER + types];
    let mut strings = vec![0];
    for target in targets {
        let info = (target.kind as u32) << 24;
        let at = HEADER + TYPE * (target.id as usize - 1);
        put(&mut out[at..], &[strings.len() as u32, info]);
        strings.extend_from_slice(target.name.as_bytes());
        strings.push(0);
    }
    let (types, strings_len) = (types as u32, strings.len() as u32);
    // Magic, version and flags; then lengths and offsets.
    let start = u32::from(0xeb9f_u16) | 1 << 16;
    put(
        &mut out,
        &[start, HEADER as u32, 0, types, types, strings_len],
    );
    out.extend_from_slice(&strings);
    out
}

fn put(out: &mut [u8], words: &[u32]) {
    for (place, word) in out.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
}
