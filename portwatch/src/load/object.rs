//! The object, cut down to the programs of a plan.
//!
//! aya copies, links and keeps every program of the object it is given, where a plan needs between
//! two and twenty of a hundred. So it is given one in which the sections of all others are void: their
//! headers stay in their places, since symbols and relocations refer to sections by number. What is left
//! has put in what the plan knows (`functions`, by `load::fold`).

mod functions;
#[cfg(test)]
mod tests;

use std::str;

use object::{
    NativeEndian, U32, U64,
    elf::{FileHeader64, SHF_EXECINSTR, SHT_NOBITS, SHT_NULL, SectionHeader64},
    pod::bytes_of,
    read::{
        Error,
        elf::{FileHeader as _, SectionHeader as _, SectionTable},
    },
};

use portwatch_ebpf::abi::config::RDONLY_CAST;

type Header = FileHeader64<NativeEndian>;
type SectionHeader = SectionHeader64<NativeEndian>;

/// Whether the programs keep the lines of source that the verifier quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lines {
    /// They do.
    Kept,
    /// They do not: they are nearly half of the object, and nobody is going to read them.
    Dropped,
}

/// An object in which every program has a section of its own, named `kind/program`.
pub(super) struct Object<'a> {
    data: &'a [u8],
    header: &'a Header,
    sections: SectionTable<'a, Header>,
}

impl<'a> Object<'a> {
    /// Reads the headers.
    pub(super) fn read(data: &'a [u8]) -> Result<Self, Error> {
        let header = Header::parse(data)?;
        header.endian()?;
        let sections = header.sections(NativeEndian, data)?;
        Ok(Self {
            data,
            header,
            sections,
        })
    }

    /// Whether it has this program.
    pub(super) fn has(&self, program: &str) -> bool {
        self.sections
            .iter()
            .any(|section| self.program(section) == Some(program))
    }

    /// The object without the programs that are not among these. `cast` is the BTF id of `bpf_rdonly_cast()`, if there
    /// is one to call. `globals`: values that are put in for constants, by their names; `None`: programs stay as they
    /// are, as they do where there are lines of source for their instructions.
    pub(super) fn only(
        &self,
        programs: &[&str],
        lines: Lines,
        cast: Option<u32>,
        globals: Option<&[(&str, &[u8])]>,
    ) -> Result<Vec<u8>, Unreadable> {
        let mut parts = Vec::with_capacity(self.sections.len());
        for section in self.sections.iter() {
            let is_wanted = self
                .program(section)
                .is_none_or(|program| programs.contains(&program));
            let mut part = self.part(section, lines, is_wanted)?;
            if let Some(function) = cast
                && part.is_code()
            {
                call(&mut part.data, function);
            }
            parts.push(part);
        }
        if let Some(globals) = globals
            && !parts.iter().any(Part::is_about_instructions)
        {
            functions::specialise(&mut parts, globals).ok_or(Unreadable::Functions)?;
        }
        Ok(self.assembled(parts))
    }

    /// The object made of these sections.
    fn assembled(&self, parts: Vec<Part>) -> Vec<u8> {
        let mut out = bytes_of(self.header).to_vec();
        let mut headers = Vec::with_capacity(parts.len());
        for Part {
            mut header, data, ..
        } in parts
        {
            if !matches!(header.sh_type.get(NativeEndian), SHT_NOBITS | SHT_NULL) {
                pad(&mut out, 8);
                header.sh_offset = word(out.len());
                header.sh_size = word(data.len());
                out.extend_from_slice(&data);
            }
            headers.push(header);
        }
        pad(&mut out, align_of::<SectionHeader>());
        let mut header = *self.header;
        header.e_shoff = word(out.len());
        out.splice(..size_of::<Header>(), bytes_of(&header).iter().copied());
        for header in &headers {
            out.extend_from_slice(bytes_of(header));
        }
        out
    }

    /// The program that a section belongs to: `kind/program` has its instructions, `.relkind/program`
    /// their relocations.
    fn program(&self, section: &SectionHeader) -> Option<&'a str> {
        let name = self.sections.section_name(NativeEndian, section).ok()?;
        Some(str::from_utf8(name).ok()?.split_once('/')?.1)
    }

    /// A section, or what is left of it where nobody wants it.
    fn part(&self, section: &SectionHeader, lines: Lines, is_wanted: bool) -> Result<Part, Error> {
        let name = self.sections.section_name(NativeEndian, section)?;
        let mut part = Part {
            name: String::from_utf8_lossy(name).into_owned(),
            header: if is_wanted { *section } else { void(section) },
            data: Vec::new(),
        };
        if is_wanted && part.kind() != SHT_NOBITS {
            let data = section.data(NativeEndian, self.data)?;
            let without_lines = (lines == Lines::Dropped && name == b".BTF.ext")
                .then(|| super::lines::without_lines(data))
                .flatten();
            part.data = without_lines.unwrap_or_else(|| data.to_vec());
        }
        Ok(part)
    }
}

/// A section.
struct Part {
    name: String,
    header: SectionHeader,
    /// Empty of one that has none in the file.
    data: Vec<u8>,
}

impl Part {
    /// SHT_*
    fn kind(&self) -> u32 {
        self.header.sh_type.get(NativeEndian)
    }

    /// Whether it says of single instructions which line of source they are from, or what CO-RE would change in them
    /// (`line_info_len` and `core_relo_len` of `struct btf_ext_header`).
    fn is_about_instructions(&self) -> bool {
        let is_there = |at: usize| self.data.get(at..at + 4).is_some_and(|len| len != [0; 4]);
        self.name == ".BTF.ext" && (is_there(20) || is_there(28))
    }

    /// Whether it has instructions.
    fn is_code(&self) -> bool {
        self.kind() != SHT_NULL
            && self.header.sh_flags.get(NativeEndian) & u64::from(SHF_EXECINSTR) != 0
    }
}

/// Why an object cannot be cut.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is no object.
    #[error(transparent)]
    Elf(#[from] Error),
    /// Its functions cannot be told apart, or call what is none.
    #[error("its functions cannot be told apart")]
    Functions,
}

/// Turns calls of the helper that stands for it into calls of a function of the kernel: `src_reg` is
/// BPF_PSEUDO_KFUNC_CALL, the number its BTF id (include/uapi/linux/bpf.h).
fn call(code: &mut [u8], function: u32) {
    const CALL: u8 = 0x85;
    const KERNEL_FUNCTION: u8 = 2 << 4;
    let [a, b, c, d] = RDONLY_CAST.to_ne_bytes();
    for instruction in code.chunks_exact_mut(8) {
        if instruction == [CALL, 0, 0, 0, a, b, c, d] {
            instruction[1] = KERNEL_FUNCTION;
            instruction[4..].copy_from_slice(&function.to_ne_bytes());
        }
    }
}

/// The header of a section without type and content, which readers pass over.
fn void(section: &SectionHeader) -> SectionHeader {
    SectionHeader {
        sh_type: U32::new(NativeEndian, SHT_NULL),
        sh_offset: word(0),
        sh_size: word(0),
        ..*section
    }
}

fn pad(out: &mut Vec<u8>, alignment: usize) {
    out.resize(out.len().next_multiple_of(alignment), 0);
}

fn word(value: usize) -> U64<NativeEndian> {
    U64::new(NativeEndian, value as u64)
}
