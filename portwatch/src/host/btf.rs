//! The kernel's type information (BTF), read in one pass for the few names portwatch needs.
//!
//! A general parser keeps every type of the kernel in memory and looks names up by scanning them,
//! which costs more than everything else portwatch does at start. This one walks the strings once,
//! the types once, and keeps an offset per type.
//!
//! Format: Documentation/bpf/btf.rst, include/uapi/linux/btf.h.

#[cfg(test)]
pub(crate) mod build;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    fs, io,
    path::Path,
};

use thiserror::Error;

/// Where the running kernel shows its own BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// What can be wrong with BTF.
#[derive(Debug, Error)]
pub enum BtfError {
    /// There is no such file.
    #[error("this kernel shows no type information (BTF): there is no {path}")]
    Absent {
        /// The file.
        path: String,
    },
    /// The file cannot be read.
    #[error("cannot read the kernel's type information (BTF), {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("the kernel's type information (BTF) is damaged: {0}")]
    Damaged(&'static str),
}

impl BtfError {
    /// What to do about it.
    #[must_use]
    pub const fn next_step(&self) -> &'static str {
        match self {
            Self::Absent { .. } => {
                "see that sysfs is mounted at /sys; if it is, boot a kernel built with \
                 CONFIG_DEBUG_INFO_BTF=y, as distributions build theirs"
            }
            Self::Read { .. } => "see that /sys is the kernel's sysfs and may be read",
            Self::Damaged(_) => {
                "report it, with the kernel's release and the file /sys/kernel/btf/vmlinux"
            }
        }
    }
}

const MAGIC: u16 = 0xeb9f;

/// Kinds of type, `BTF_KIND_*`.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FWD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Types deeper than this are taken for a loop.
const MAX_DEPTH: u32 = 32;
/// More structs than this inside one another, without names, are taken for a loop: damaged data must
/// not make a lookup exponential. task_struct and net, the largest, have some dozens.
const MAX_ANONYMOUS: u32 = 1024;

/// One type: `struct btf_type`.
#[derive(Clone, Copy, Debug)]
struct Type {
    at: usize,
    name: u32,
    info: u32,
    size_or_type: u32,
}

impl Type {
    fn kind(self) -> u32 {
        self.info >> 24 & 0x1f
    }

    fn vlen(self) -> usize {
        (self.info & 0xffff) as usize
    }

    /// Members have bitfield sizes.
    fn kind_flag(self) -> bool {
        self.info >> 31 != 0
    }

    /// Bytes that follow the twelve that every type has.
    fn extra(self) -> Option<usize> {
        Some(match self.kind() {
            kind::INT | kind::VAR | kind::DECL_TAG => 4,
            kind::ARRAY => 12,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * self.vlen(),
            kind::ENUM | kind::FUNC_PROTO => 8 * self.vlen(),
            kind::PTR
            | kind::FWD
            | kind::TYPEDEF
            | kind::VOLATILE
            | kind::CONST
            | kind::RESTRICT
            | kind::FUNC
            | kind::FLOAT
            | kind::TYPE_TAG => 0,
            _ => return None,
        })
    }
}

/// A member that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Offset from the start of the outermost struct, in bits.
    pub bits: u32,
    /// Width in bits of a bitfield.
    pub bitfield: Option<u32>,
    /// Id of its type.
    type_id: u32,
}

/// The kernel's BTF, indexed for the names asked for.
#[derive(Debug)]
pub struct Btf {
    data: Vec<u8>,
    strings: (usize, usize),
    /// Byte offset of each type; index 0 is `void`.
    types: Vec<u32>,
    /// Structs, functions and typedefs by name.
    structs: HashMap<String, Vec<u32>>,
    functions: HashMap<String, u32>,
    typedefs: HashMap<String, u32>,
    enumerators: HashMap<String, u64>,
}

impl Btf {
    /// Reads a BTF file and indexes `wanted`: names of structs, functions, typedefs, enumerators.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn read(path: &Path, wanted: &[&str]) -> Result<Self, BtfError> {
        let data = fs::read(path).map_err(|source| {
            let path = path.display().to_string();
            if source.kind() == io::ErrorKind::NotFound {
                BtfError::Absent { path }
            } else {
                BtfError::Read { path, source }
            }
        })?;
        Self::parse(data, wanted)
    }

    /// The same from memory.
    ///
    /// # Errors
    /// When the data is damaged.
    pub fn parse(data: Vec<u8>, wanted: &[&str]) -> Result<Self, BtfError> {
        let word =
            |at: usize| u32_at(&data, at).ok_or(BtfError::Damaged("the header is cut short"));
        let magic = word(0)? as u16;
        if magic != MAGIC {
            return Err(BtfError::Damaged(if magic == MAGIC.swap_bytes() {
                "it is of the other byte order"
            } else {
                "it does not begin as BTF does"
            }));
        }
        let header = word(4)? as usize;
        let section = |offset: u32, len: u32| -> Result<(usize, usize), BtfError> {
            let from = header.checked_add(offset as usize);
            let to = from.and_then(|from| from.checked_add(len as usize));
            match (from, to) {
                (Some(from), Some(to)) if to <= data.len() => Ok((from, to)),
                _ => Err(BtfError::Damaged("a section lies outside the file")),
            }
        };
        let types = section(word(8)?, word(12)?)?;
        let strings = section(word(16)?, word(20)?)?;
        let names = find_names(data.get(strings.0..strings.1).unwrap_or_default(), wanted);
        let mut btf = Self {
            data,
            strings,
            types: Vec::with_capacity((types.1 - types.0) / 24),
            structs: HashMap::new(),
            functions: HashMap::new(),
            typedefs: HashMap::new(),
            enumerators: HashMap::new(),
        };
        btf.index(types, &names)?;
        Ok(btf)
    }

    fn index(
        &mut self,
        types: (usize, usize),
        names: &HashMap<u32, String>,
    ) -> Result<(), BtfError> {
        const CUT: BtfError = BtfError::Damaged("a type is cut short");
        self.types.push(0);
        let (mut at, end) = types;
        while at < end {
            let id = self.types.len() as u32;
            let ty = self.type_at(at).ok_or(CUT)?;
            let extra = ty
                .extra()
                .ok_or(BtfError::Damaged("a type is of unknown kind"))?;
            self.types.push(at as u32);
            match ty.kind() {
                kind::STRUCT | kind::UNION => {
                    if let Some(name) = names.get(&ty.name) {
                        self.structs.entry(name.clone()).or_default().push(id);
                    }
                }
                kind::FUNC => {
                    if let Some(name) = names.get(&ty.name) {
                        self.functions.entry(name.clone()).or_insert(id);
                    }
                }
                kind::TYPEDEF => {
                    if let Some(name) = names.get(&ty.name) {
                        self.typedefs.entry(name.clone()).or_insert(id);
                    }
                }
                kind::ENUM => {
                    for index in 0..ty.vlen() {
                        let entry = at + 12 + index * 8;
                        let name = u32_at(&self.data, entry).ok_or(CUT)?;
                        if let Some(name) = names.get(&name) {
                            let value = u32_at(&self.data, entry + 4).ok_or(CUT)?;
                            self.enumerators
                                .entry(name.clone())
                                .or_insert(u64::from(value));
                        }
                    }
                }
                _ => {}
            }
            at = at + 12 + extra;
        }
        if at == end { Ok(()) } else { Err(CUT) }
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        Some(Type {
            at,
            name: u32_at(&self.data, at)?,
            info: u32_at(&self.data, at + 4)?,
            size_or_type: u32_at(&self.data, at + 8)?,
        })
    }

    fn by_id(&self, id: u32) -> Option<Type> {
        if id == 0 {
            return None;
        }
        self.type_at(*self.types.get(id as usize)? as usize)
    }

    fn string(&self, offset: u32) -> &str {
        let (from, to) = self.strings;
        let bytes = self
            .data
            .get(from + offset as usize..to)
            .unwrap_or_default();
        let len = bytes
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..len]).unwrap_or_default()
    }

    /// Whether the kernel has this function.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.functions.contains_key(name)
    }

    /// Id of a function.
    #[must_use]
    pub fn function_id(&self, name: &str) -> Option<u32> {
        self.functions.get(name).copied()
    }

    /// Value of an enumerator.
    #[must_use]
    pub fn enumerator(&self, name: &str) -> Option<u64> {
        self.enumerators.get(name).copied()
    }

    /// The prototype of a function as C: `int (struct sock *, u16)`, names, `const` and `volatile`
    /// left out.
    #[must_use]
    pub fn prototype(&self, function: &str) -> Option<String> {
        let function = self.by_id(*self.functions.get(function)?)?;
        self.proto_text(function.size_or_type)
    }

    /// The prototype of a tracepoint, without the `void *` that every one begins with.
    #[must_use]
    pub fn tracepoint_prototype(&self, tracepoint: &str) -> Option<String> {
        let typedef = self.by_id(*self.typedefs.get(&format!("btf_trace_{tracepoint}"))?)?;
        let pointer = self.by_id(typedef.size_or_type)?;
        let text = self.proto_text(pointer.size_or_type)?;
        Some(
            text.replacen("(void *, ", "(", 1)
                .replacen("(void *)", "()", 1),
        )
    }

    fn proto_text(&self, id: u32) -> Option<String> {
        let proto = self.by_id(id)?;
        if proto.kind() != kind::FUNC_PROTO {
            return None;
        }
        let mut text = self.type_text(proto.size_or_type, 0)?;
        text.push_str(" (");
        for index in 0..proto.vlen() {
            if index > 0 {
                text.push_str(", ");
            }
            let ty = u32_at(&self.data, proto.at + 12 + index * 8 + 4)?;
            text.push_str(&self.type_text(ty, 0)?);
        }
        text.push(')');
        Some(text)
    }

    fn type_text(&self, id: u32, depth: u32) -> Option<String> {
        if id == 0 {
            return Some("void".to_owned());
        }
        if depth > MAX_DEPTH {
            return None;
        }
        let ty = self.by_id(id)?;
        let name = self.string(ty.name);
        Some(match ty.kind() {
            kind::INT | kind::TYPEDEF | kind::FLOAT => name.to_owned(),
            kind::STRUCT => format!("struct {name}"),
            kind::UNION => format!("union {name}"),
            kind::ENUM | kind::ENUM64 => format!("enum {name}"),
            kind::FWD => format!("struct {name}"),
            kind::PTR => {
                let mut text = self.type_text(ty.size_or_type, depth + 1)?;
                let _ = write!(text, "{}*", if text.ends_with('*') { "" } else { " " });
                text
            }
            kind::CONST | kind::VOLATILE | kind::RESTRICT | kind::TYPE_TAG => {
                self.type_text(ty.size_or_type, depth + 1)?
            }
            kind::FUNC_PROTO => "fn".to_owned(),
            _ => return None,
        })
    }

    /// Follows typedefs and qualifiers.
    fn strip(&self, mut id: u32) -> Option<(u32, Type)> {
        for _ in 0..MAX_DEPTH {
            let ty = self.by_id(id)?;
            match ty.kind() {
                kind::TYPEDEF | kind::CONST | kind::VOLATILE | kind::RESTRICT | kind::TYPE_TAG => {
                    id = ty.size_or_type;
                }
                _ => return Some((id, ty)),
            }
        }
        None
    }

    /// Size of a type in bytes.
    fn size_of_id(&self, id: u32, depth: u32) -> Option<u32> {
        if depth > MAX_DEPTH {
            return None;
        }
        let (_, ty) = self.strip(id)?;
        match ty.kind() {
            kind::PTR => Some(8),
            kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 | kind::FLOAT => {
                Some(ty.size_or_type)
            }
            kind::ARRAY => {
                let element = u32_at(&self.data, ty.at + 12)?;
                let count = u32_at(&self.data, ty.at + 20)?;
                self.size_of_id(element, depth + 1)?.checked_mul(count)
            }
            _ => None,
        }
    }

    /// Size of a struct or union in bytes.
    #[must_use]
    pub fn struct_size(&self, name: &str) -> Option<u32> {
        let id = *self.structs.get(name)?.first()?;
        Some(self.by_id(id)?.size_or_type)
    }

    /// Size of a member's type in bytes.
    #[must_use]
    pub fn member_size(&self, member: Member) -> Option<u32> {
        self.size_of_id(member.type_id, 0)
    }

    /// Looks up `member.member…` in a struct. Of several structs of that name the first that has it
    /// counts.
    #[must_use]
    pub fn member(&self, structure: &str, path: &[&str]) -> Option<Member> {
        self.structs
            .get(structure)?
            .iter()
            .find_map(|&id| self.descend(id, path))
    }

    fn descend(&self, id: u32, path: &[&str]) -> Option<Member> {
        let mut found = Member {
            bits: 0,
            bitfield: None,
            type_id: id,
        };
        for name in path {
            let (_, ty) = self.strip(found.type_id)?;
            let inner = self.find(ty, name, &mut { MAX_ANONYMOUS })?;
            found = Member {
                bits: found.bits.checked_add(inner.bits)?,
                ..inner
            };
        }
        Some(found)
    }

    /// Finds a member by name, in as many anonymous members as the budget allows.
    fn find(&self, ty: Type, wanted: &str, budget: &mut u32) -> Option<Member> {
        if !matches!(ty.kind(), kind::STRUCT | kind::UNION) {
            return None;
        }
        *budget = budget.checked_sub(1)?;
        for index in 0..ty.vlen() {
            let at = ty.at + 12 + index * 12;
            let name = u32_at(&self.data, at)?;
            let type_id = u32_at(&self.data, at + 4)?;
            let offset = u32_at(&self.data, at + 8)?;
            let (bits, width) = if ty.kind_flag() {
                (offset & 0x00ff_ffff, offset >> 24)
            } else {
                (offset, 0)
            };
            if name == 0 {
                let Some((_, inner)) = self.strip(type_id) else {
                    continue;
                };
                if let Some(found) = self.find(inner, wanted, budget) {
                    return Some(Member {
                        bits: bits.checked_add(found.bits)?,
                        ..found
                    });
                }
            } else if self.string(name) == wanted {
                return Some(Member {
                    bits,
                    bitfield: (width != 0).then_some(width),
                    type_id,
                });
            }
        }
        None
    }

    /// BTF in which these functions and tracepoint typedefs have the ids they have in the kernel,
    /// and every other type is a placeholder: all that attaching needs.
    ///
    /// aya finds a function by comparing its name with every function of the kernel, once for each
    /// program; in this one there are no others.
    #[must_use]
    pub fn skeleton(&self, functions: &[&str], tracepoints: &[&str]) -> Vec<u8> {
        let mut strings = vec![0u8];
        let mut named: Vec<(u32, u32, u32)> = Vec::new();
        let mut add = |id: Option<u32>, name: &str, info: u32| {
            if let Some(id) = id {
                named.push((id, strings.len() as u32, info));
                strings.extend_from_slice(name.as_bytes());
                strings.push(0);
            }
        };
        for name in functions {
            add(self.functions.get(*name).copied(), name, kind::FUNC << 24);
        }
        for name in tracepoints {
            let name = format!("btf_trace_{name}");
            add(
                self.typedefs.get(&name).copied(),
                &name,
                kind::TYPEDEF << 24,
            );
        }
        named.sort_unstable();
        let last = named.last().map_or(0, |(id, ..)| *id);
        let types_len = last * 12;
        let mut out = Vec::with_capacity(24 + types_len as usize + strings.len());
        out.extend_from_slice(&MAGIC.to_ne_bytes());
        out.extend_from_slice(&[1, 0]);
        for word in [24, 0, types_len, types_len, strings.len() as u32] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        let mut next = 1;
        for (id, name, info) in named {
            if id < next {
                continue;
            }
            for _ in next..id {
                push(&mut out, [0, kind::FWD << 24, 0]);
            }
            push(&mut out, [name, info, 0]);
            next = id + 1;
        }
        out.extend_from_slice(&strings);
        out
    }
}

fn push(out: &mut Vec<u8>, words: [u32; 3]) {
    for word in words {
        out.extend_from_slice(&word.to_ne_bytes());
    }
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// String offsets of the wanted names. Every name stands once in a string section.
fn find_names(strings: &[u8], wanted: &[&str]) -> HashMap<u32, String> {
    // A hundred names among a hundred thousand: nearly all are turned away by a bit for the first
    // two bytes and one for the length, without a hash.
    let mut starts = [0u64; 1024];
    let mut lengths = [0u64; 4];
    let start = |name: &[u8]| match name {
        [first, second, ..] => usize::from(*first) << 8 | usize::from(*second),
        [first] => usize::from(*first) << 8,
        [] => 0,
    };
    for name in wanted {
        let start = start(name.as_bytes());
        starts[start >> 6] |= 1 << (start & 63);
        lengths[name.len() >> 6 & 3] |= 1 << (name.len() & 63);
    }
    let set: HashSet<&[u8]> = wanted.iter().map(|name| name.as_bytes()).collect();
    let mut found = HashMap::with_capacity(wanted.len());
    let mut at = 0;
    while at < strings.len() {
        let rest = &strings[at..];
        // SIMD inside; names are a dozen bytes on average.
        let len = memchr::memchr(0, rest).unwrap_or(rest.len());
        let name = &rest[..len];
        let start = start(name);
        if starts[start >> 6] >> (start & 63) & 1 != 0
            && lengths[len >> 6 & 3] >> (len & 63) & 1 != 0
            && set.contains(name)
            && let Ok(text) = std::str::from_utf8(name)
        {
            found.insert(at as u32, text.to_owned());
        }
        at += len + 1;
    }
    found
}
