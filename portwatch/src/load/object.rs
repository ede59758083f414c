//! The object, cut down to the programs of a plan.
//!
//! aya copies, links and keeps every program of the object it is given, where a plan needs between
//! two and twenty of a hundred. So it is given one in which the sections of all others are void: their
//! headers stay in their places, since symbols and relocations refer to sections by number.

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

    /// The object without the programs that are not among these. `cast` is the BTF id of
    /// `bpf_rdonly_cast()`, if there is one to call.
    pub(super) fn only(
        &self,
        programs: &[&str],
        lines: Lines,
        cast: Option<u32>,
    ) -> Result<Vec<u8>, Error> {
        let mut out = bytes_of(self.header).to_vec();
        let mut headers = Vec::with_capacity(self.sections.len());
        for section in self.sections.iter() {
            let wanted = self
                .program(section)
                .is_none_or(|program| programs.contains(&program));
            headers.push(if wanted {
                let header = self.copy(section, lines, &mut out)?;
                if let Some(function) = cast
                    && section.sh_flags(NativeEndian) & u64::from(SHF_EXECINSTR) != 0
                    && let Some(code) = out.get_mut(header.sh_offset.get(NativeEndian) as usize..)
                {
                    call(code, function);
                }
                header
            } else {
                void(section)
            });
        }
        pad(&mut out, align_of::<SectionHeader>());
        let mut header = *self.header;
        header.e_shoff = word(out.len());
        out.splice(..size_of::<Header>(), bytes_of(&header).iter().copied());
        for header in &headers {
            out.extend_from_slice(bytes_of(header));
        }
        Ok(out)
    }

    /// The program that a section belongs to: `kind/program` has its instructions, `.relkind/program`
    /// their relocations.
    fn program(&self, section: &SectionHeader) -> Option<&'a str> {
        let name = self.sections.section_name(NativeEndian, section).ok()?;
        Some(str::from_utf8(name).ok()?.split_once('/')?.1)
    }

    /// Appends the content of a section; the value is its new header.
    fn copy(
        &self,
        section: &SectionHeader,
        lines: Lines,
        out: &mut Vec<u8>,
    ) -> Result<SectionHeader, Error> {
        let mut header = *section;
        if section.sh_type(NativeEndian) == SHT_NOBITS {
            return Ok(header);
        }
        let data = section.data(NativeEndian, self.data)?;
        pad(out, 8);
        header.sh_offset = word(out.len());
        if lines == Lines::Dropped
            && self.sections.section_name(NativeEndian, section)? == b".BTF.ext"
            && let Some(data) = super::lines::without_lines(data)
        {
            header.sh_size = word(data.len());
            out.extend_from_slice(&data);
        } else {
            out.extend_from_slice(data);
        }
        Ok(header)
    }
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
