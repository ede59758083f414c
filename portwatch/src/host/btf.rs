//! The kernel's type information (BTF), read in one pass for the few names portwatch needs.
//!
//! A general parser keeps every type of the kernel in memory and looks names up by scanning them,
//! which costs more than everything else portwatch does at start. This one walks the types once, and
//! keeps the place of every eighth.
//!
//! Format: Documentation/bpf/btf.rst, include/uapi/linux/btf.h.

#[cfg(test)]
pub(crate) mod build;
mod bytes;
mod index;
mod names;
#[cfg(test)]
mod tests;
mod types;

use std::{fmt::Write as _, io, ops::Range, path::Path};

use thiserror::Error;

use bytes::Bytes;
use index::Index;
use names::Names;
use types::{Type, kind};

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

/// Types deeper than this are taken for a loop.
const MAX_DEPTH: u32 = 32;
/// More structs than this inside one another, without names, are taken for a loop: damaged data must
/// not make a lookup exponential. task_struct and net, the largest, have some dozens.
const MAX_ANONYMOUS: u32 = 1024;

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
    data: Bytes,
    types: Range<usize>,
    strings: Range<usize>,
    index: Index,
}

impl Btf {
    /// Reads a BTF file and indexes `wanted`: names of structs, functions, typedefs, enumerators.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn read(path: &Path, wanted: &[&str]) -> Result<Self, BtfError> {
        let data = Bytes::of(path).map_err(|source| {
            let path = path.display().to_string();
            if source.kind() == io::ErrorKind::NotFound {
                BtfError::Absent { path }
            } else {
                BtfError::Read { path, source }
            }
        })?;
        Self::index(data, wanted)
    }

    /// The same from memory.
    ///
    /// # Errors
    /// When the data is damaged.
    pub fn parse(data: Vec<u8>, wanted: &[&str]) -> Result<Self, BtfError> {
        Self::index(Bytes::Read(data), wanted)
    }

    fn index(data: Bytes, wanted: &[&str]) -> Result<Self, BtfError> {
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
        let section = |offset: u32, len: u32| -> Result<Range<usize>, BtfError> {
            let from = header.checked_add(offset as usize);
            let to = from.and_then(|from| from.checked_add(len as usize));
            match (from, to) {
                (Some(from), Some(to)) if to <= data.len() => Ok(from..to),
                _ => Err(BtfError::Damaged("a section lies outside the file")),
            }
        };
        let types = section(word(8)?, word(12)?)?;
        let strings = section(word(16)?, word(20)?)?;
        let index = Index::new(
            &data[types.clone()],
            &data[strings.clone()],
            &Names::new(wanted),
        )?;
        Ok(Self {
            data,
            types,
            strings,
            index,
        })
    }

    fn types(&self) -> &[u8] {
        &self.data[self.types.clone()]
    }

    fn by_id(&self, id: u32) -> Option<Type> {
        self.index.by_id(self.types(), id)
    }

    /// A string and what follows it.
    fn strings_from(&self, offset: u32) -> &[u8] {
        let strings = &self.data[self.strings.clone()];
        strings.get(offset as usize..).unwrap_or_default()
    }

    fn string(&self, offset: u32) -> &str {
        let rest = self.strings_from(offset);
        let len = memchr::memchr(0, rest).unwrap_or(rest.len());
        std::str::from_utf8(&rest[..len]).unwrap_or_default()
    }

    fn string_is(&self, offset: u32, wanted: &str) -> bool {
        let rest = self.strings_from(offset).strip_prefix(wanted.as_bytes());
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }

    /// Whether the kernel has this function.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.index.functions.contains_key(name)
    }

    /// Id of a function.
    #[must_use]
    pub fn function_id(&self, name: &str) -> Option<u32> {
        self.index.functions.get(name).copied()
    }

    /// Id of the typedef that stands for a tracepoint (include/trace/bpf_probe.h).
    #[must_use]
    pub fn tracepoint_id(&self, tracepoint: &str) -> Option<u32> {
        let typedefs = &self.index.typedefs;
        typedefs
            .get(&format!("btf_trace_{tracepoint}")[..])
            .copied()
    }

    /// Value of an enumerator.
    #[must_use]
    pub fn enumerator(&self, name: &str) -> Option<u64> {
        self.index.enumerators.get(name).copied()
    }

    /// The prototype of a function as C: `int (struct sock *, u16)`, names, `const` and `volatile`
    /// left out.
    #[must_use]
    pub fn prototype(&self, function: &str) -> Option<String> {
        let function = self.by_id(self.function_id(function)?)?;
        self.proto_text(function.size_or_type)
    }

    /// The prototype of a tracepoint, without the `void *` that every one begins with.
    #[must_use]
    pub fn tracepoint_prototype(&self, tracepoint: &str) -> Option<String> {
        let typedef = self.by_id(self.tracepoint_id(tracepoint)?)?;
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
            let ty = u32_at(self.types(), proto.at + 12 + index * 8 + 4)?;
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
                let element = u32_at(self.types(), ty.at + 12)?;
                let count = u32_at(self.types(), ty.at + 20)?;
                self.size_of_id(element, depth + 1)?.checked_mul(count)
            }
            _ => None,
        }
    }

    /// Id of a struct or union.
    #[must_use]
    pub fn struct_id(&self, name: &str) -> Option<u32> {
        self.index.structs.get(name)?.first().copied()
    }

    /// Size of a struct or union in bytes.
    #[must_use]
    pub fn struct_size(&self, name: &str) -> Option<u32> {
        let id = self.struct_id(name)?;
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
        self.index
            .structs
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
            let name = u32_at(self.types(), at)?;
            let type_id = u32_at(self.types(), at + 4)?;
            let offset = u32_at(self.types(), at + 8)?;
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
            } else if self.string_is(name, wanted) {
                return Some(Member {
                    bits,
                    bitfield: (width != 0).then_some(width),
                    type_id,
                });
            }
        }
        None
    }
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}
