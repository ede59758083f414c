//! The functions of an object, with the constants put in that the loader knows.
//!
//! What refers to a function or to an instruction goes along: symbols, relocations, calls within a section, and the
//! function information of BTF.

use std::collections::{BTreeMap, BTreeSet};

use object::{
    NativeEndian, U16, U64,
    elf::{R_BPF_64_64, Rel64, SHN_UNDEF, SHT_REL, SHT_SYMTAB, STT_FUNC, STT_SECTION, Sym64},
    pod::{Pod, slice_from_all_bytes, slice_from_all_bytes_mut},
};

use super::Part;
use crate::load::fold::{
    Constants, Folded, Reference, fold,
    instruction::{Instruction, SLOT},
};

type Symbol = Sym64<NativeEndian>;
type Relocation = Rel64<NativeEndian>;

/// A function: its section, and where it begins there, in bytes.
type At = (usize, u64);

/// Puts constants into the functions of an object. Programs are the functions outside of `.text`; what none of them
/// calls goes. `globals`: values of constants, by their symbols' names; others are as they are in the object.
///
/// `None` where the object is laid out as no linker does it.
pub(super) fn specialise(parts: &mut [Part], globals: &[(&str, &[u8])]) -> Option<()> {
    let object = Linked::read(parts, globals)?;
    let changes = object.changes()?;
    changes.apply(parts)
}

/// What the sections have to do with each other.
struct Linked<'a> {
    parts: &'a [Part],
    symbols: &'a [Symbol],
    /// By section and offset.
    relocations: BTreeMap<At, &'a Relocation>,
    /// Their sizes in bytes.
    functions: BTreeMap<At, u64>,
    data: Data,
}

/// The constants, by section.
struct Data(BTreeMap<usize, Vec<u8>>);

impl Constants for Data {
    fn load(&self, section: usize, offset: u64, size: usize) -> Option<u64> {
        let start = usize::try_from(offset).ok()?;
        let bytes = self.0.get(&section)?.get(start..start.checked_add(size)?)?;
        Some(match *bytes {
            [byte] => byte.into(),
            [a, b] => u16::from_ne_bytes([a, b]).into(),
            [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
            _ => u64::from_ne_bytes(bytes.try_into().ok()?),
        })
    }
}

impl<'a> Linked<'a> {
    fn read(parts: &'a [Part], globals: &[(&str, &[u8])]) -> Option<Self> {
        let table = parts.iter().find(|part| part.kind() == SHT_SYMTAB)?;
        let names = parts.get(table.header.sh_link.get(NativeEndian) as usize)?;
        let symbols: &[Symbol] = all(&table.data)?;
        let is_code = |section: usize| parts.get(section).is_some_and(Part::is_code);
        let functions = symbols
            .iter()
            .filter(|symbol| symbol.st_type() == STT_FUNC && is_code(section_of(symbol)))
            .map(|symbol| {
                let at = (section_of(symbol), symbol.st_value.get(NativeEndian));
                (at, symbol.st_size.get(NativeEndian))
            })
            .collect();
        let mut relocations = BTreeMap::new();
        for part in parts.iter().filter(|part| part.kind() == SHT_REL) {
            let section = part.header.sh_info.get(NativeEndian) as usize;
            for relocation in all::<Relocation>(&part.data)? {
                let at = (section, relocation.r_offset.get(NativeEndian));
                relocations.insert(at, relocation);
            }
        }
        let mut data: BTreeMap<usize, Vec<u8>> = parts
            .iter()
            .enumerate()
            .filter(|(_, part)| part.name.starts_with(".rodata"))
            .map(|(section, part)| (section, part.data.clone()))
            .collect();
        for symbol in symbols {
            let name = names
                .data
                .get(symbol.st_name.get(NativeEndian) as usize..)?;
            let name = name.split(|&byte| byte == 0).next()?;
            let Some((_, value)) = globals.iter().find(|(global, _)| global.as_bytes() == name)
            else {
                continue;
            };
            let start = usize::try_from(symbol.st_value.get(NativeEndian)).ok()?;
            let place = data.get_mut(&section_of(symbol))?;
            place
                .get_mut(start..start.checked_add(value.len())?)?
                .copy_from_slice(value);
        }
        Some(Self {
            parts,
            symbols,
            relocations,
            functions,
            data: Data(data),
        })
    }

    /// What becomes of all of it.
    fn changes(&self) -> Option<Changes> {
        let mut folded: BTreeMap<At, Folded> = BTreeMap::new();
        let is_program = |section: usize| {
            self.parts
                .get(section)
                .is_some_and(|part| part.name.contains('/'))
        };
        let programs = self
            .functions
            .keys()
            .filter(|(section, _)| is_program(*section));
        let mut wanted: BTreeSet<At> = programs.copied().collect();
        while let Some(at) = wanted.pop_first() {
            let code = self.code(at)?;
            let (section, start) = at;
            let reference = |slot: usize| self.reference((section, start + bytes(slot)));
            let result = fold(&code, &reference, &self.data);
            for (slot, instruction) in code.iter().enumerate() {
                // What is left out calls nobody.
                if result.moved.get(slot).copied().flatten().is_none() {
                    continue;
                }
                if let Called::Function { at, .. } =
                    self.called((section, start + bytes(slot)), *instruction)?
                    && !folded.contains_key(&at)
                {
                    wanted.insert(at);
                }
            }
            folded.insert(at, result);
        }
        // Side by side, in the order in which they were.
        let mut ends: BTreeMap<usize, u64> = BTreeMap::new();
        let starts = folded
            .iter()
            .map(|(&at, folded)| {
                let end = ends.entry(at.0).or_default();
                let start = *end;
                *end += bytes(folded.code.len());
                (at, start)
            })
            .collect();
        let mut changes = Changes {
            starts,
            folded,
            code: BTreeMap::new(),
        };
        changes.code = self.linked(&changes)?;
        Some(changes)
    }

    /// The code of each section that has functions, with calls that lead to where these are now.
    fn linked(&self, changes: &Changes) -> Option<BTreeMap<usize, Vec<u8>>> {
        let mut sections: BTreeMap<usize, Vec<u8>> =
            self.functions.keys().map(|at| (at.0, Vec::new())).collect();
        for (&(section, start), folded) in &changes.folded {
            let old = self.code((section, start))?;
            let mut code = folded.code.clone();
            for (slot, instruction) in old.iter().enumerate() {
                let Some(now) = folded.moved.get(slot).copied().flatten() else {
                    continue;
                };
                let called = self.called((section, start + bytes(slot)), *instruction)?;
                let Called::Function { at, by } = called else {
                    continue;
                };
                let target = *changes.starts.get(&at)?;
                let here = *changes.starts.get(&(section, start))? + bytes(now);
                let immediate = match by {
                    By::Symbol => continue,
                    By::Slots => (target / SLOT as u64) as i64 - 1,
                    By::Bytes => target as i64,
                    By::Distance => (target as i64 - here as i64) / SLOT as i64 - 1,
                };
                code.get_mut(now)?.immediate = i32::try_from(immediate).ok()?;
            }
            let section = sections.entry(section).or_default();
            section.extend(code.iter().flat_map(|instruction| instruction.bytes()));
        }
        Some(sections)
    }

    /// The instructions of a function.
    fn code(&self, at: At) -> Option<Vec<Instruction>> {
        let (section, start) = at;
        let start = usize::try_from(start).ok()?;
        let size = usize::try_from(*self.functions.get(&at)?).ok()?;
        let code = self
            .parts
            .get(section)?
            .data
            .get(start..start.checked_add(size)?)?;
        let (slots, rest) = code.as_chunks();
        rest.is_empty().then(|| {
            slots
                .iter()
                .map(|slot| Instruction::from_bytes(*slot))
                .collect()
        })
    }

    /// The symbol that the instruction there refers to.
    fn symbol(&self, at: At) -> Option<(&Symbol, &Relocation)> {
        let relocation = *self.relocations.get(&at)?;
        let symbol = self.symbols.get(relocation.r_sym(NativeEndian) as usize)?;
        Some((symbol, relocation))
    }

    /// What the instruction there refers to.
    fn reference(&self, at: At) -> Option<Reference> {
        let (symbol, _) = self.symbol(at)?;
        let section = section_of(symbol);
        let immediate = self.slot(at).map_or(0, |slot| slot.immediate);
        let offset = symbol
            .st_value
            .get(NativeEndian)
            .checked_add_signed(immediate.into());
        Some(match offset {
            Some(offset) if self.data.0.contains_key(&section) => {
                Reference::Constant { section, offset }
            }
            _ => Reference::Other,
        })
    }

    fn slot(&self, at: At) -> Option<Instruction> {
        let start = usize::try_from(at.1).ok()?;
        let bytes = self.parts.get(at.0)?.data.get(start..start + SLOT)?;
        Some(Instruction::from_bytes(bytes.try_into().ok()?))
    }

    /// The function that an instruction calls or has the address of. `None` where there is no such function.
    fn called(&self, at: At, instruction: Instruction) -> Option<Called> {
        let (target, by) = match self.symbol(at) {
            Some((symbol, relocation)) => {
                let section = section_of(symbol);
                if !self.parts.get(section).is_some_and(Part::is_code) {
                    return Some(Called::Nothing);
                }
                let value = symbol.st_value.get(NativeEndian);
                let immediate = i64::from(instruction.immediate);
                let (offset, by) = match symbol.st_type() {
                    STT_FUNC => (value, By::Symbol),
                    STT_SECTION if relocation.r_type(NativeEndian) == R_BPF_64_64 => {
                        (value.checked_add_signed(immediate)?, By::Bytes)
                    }
                    STT_SECTION => (
                        value.checked_add_signed((immediate + 1) * SLOT as i64)?,
                        By::Slots,
                    ),
                    _ => return None,
                };
                ((section, offset), by)
            }
            None if instruction.is_call_of_function() => {
                let by = (i64::from(instruction.immediate) + 1) * SLOT as i64;
                ((at.0, at.1.checked_add_signed(by)?), By::Distance)
            }
            None => return Some(Called::Nothing),
        };
        self.functions
            .contains_key(&target)
            .then_some(Called::Function { at: target, by })
    }
}

/// What an instruction calls.
enum Called {
    /// No function of the object.
    Nothing,
    /// This one.
    Function {
        at: At,
        /// What its operand says.
        by: By,
    },
}

/// How an instruction says which function it means.
enum By {
    /// By a symbol of that function.
    Symbol,
    /// Slots from the beginning of the section, less one.
    Slots,
    /// Bytes from there.
    Bytes,
    /// Slots from the instruction after it.
    Distance,
}

/// What becomes of the object.
struct Changes {
    /// Where functions begin now.
    starts: BTreeMap<At, u64>,
    folded: BTreeMap<At, Folded>,
    /// The code of each section that has functions.
    code: BTreeMap<usize, Vec<u8>>,
}

impl Changes {
    fn apply(&self, parts: &mut [Part]) -> Option<()> {
        let names: Vec<String> = parts.iter().map(|part| part.name.clone()).collect();
        for part in &mut *parts {
            match part.kind() {
                SHT_SYMTAB => self.move_symbols(all_mut(&mut part.data)?),
                SHT_REL => {
                    let section = part.header.sh_info.get(NativeEndian) as usize;
                    if self.code.contains_key(&section) {
                        part.data = self.relocations(section, all(&part.data)?);
                    }
                }
                _ => {}
            }
        }
        let strings = parts
            .iter()
            .find(|part| part.name == ".BTF")
            .map(|part| part.data.clone());
        if let Some(information) = parts.iter_mut().find(|part| part.name == ".BTF.ext") {
            self.move_information(&mut information.data, &strings?, &names)?;
        }
        for (&section, code) in &self.code {
            parts.get_mut(section)?.data.clone_from(code);
        }
        Some(())
    }

    fn move_symbols(&self, symbols: &mut [Symbol]) {
        for symbol in symbols {
            let section = section_of(symbol);
            if symbol.st_type() != STT_FUNC || !self.code.contains_key(&section) {
                continue;
            }
            let at = (section, symbol.st_value.get(NativeEndian));
            if let (Some(&start), Some(folded)) = (self.starts.get(&at), self.folded.get(&at)) {
                symbol.st_value = U64::new(NativeEndian, start);
                symbol.st_size = U64::new(NativeEndian, bytes(folded.code.len()));
            } else {
                // A name for nothing.
                symbol.st_info &= 0xf0;
                symbol.st_shndx = U16::new(NativeEndian, SHN_UNDEF);
                symbol.st_value = U64::new(NativeEndian, 0);
                symbol.st_size = U64::new(NativeEndian, 0);
            }
        }
    }

    /// The relocations of a section whose instructions are still there.
    fn relocations(&self, section: usize, relocations: &[Relocation]) -> Vec<u8> {
        let moved = relocations.iter().filter_map(|relocation| {
            let mut relocation = *relocation;
            let offset = self.instruction(section, relocation.r_offset.get(NativeEndian))?;
            relocation.r_offset = U64::new(NativeEndian, offset);
            Some(relocation)
        });
        moved
            .flat_map(|relocation| object::pod::bytes_of(&relocation).to_vec())
            .collect()
    }

    /// Where an instruction is now.
    fn instruction(&self, section: usize, offset: u64) -> Option<u64> {
        let functions = self.folded.range((section, 0)..=(section, offset));
        let (at, folded) = functions.last()?;
        let slot = usize::try_from(offset - at.1).ok()? / SLOT;
        let slot = folded.moved.get(slot).copied().flatten()?;
        Some(self.starts.get(at)? + bytes(slot))
    }

    /// Function information (`struct btf_ext_header`, tools/lib/bpf/libbpf_internal.h): for each section its name,
    /// how many records, and these, which begin with the offset of a function.
    fn move_information(&self, data: &mut [u8], btf: &[u8], names: &[String]) -> Option<()> {
        /// Where no function is.
        const NOWHERE: u32 = u32::MAX;
        let header = word(data, 4)?;
        let mut at = header + word(data, 8)?;
        let end = at + word(data, 12)?;
        let size = word(data, at)?;
        at += 4;
        while at < end {
            let name = string(btf, word(data, at)?)?;
            let section = names.iter().position(|known| known.as_bytes() == name)?;
            let count = word(data, at + 4)?;
            at += 8;
            for record in 0..count {
                let place = data.get_mut(at + record * size..)?.first_chunk_mut::<4>()?;
                let offset = u64::from(u32::from_ne_bytes(*place));
                if self.code.contains_key(&section) {
                    let start = self.starts.get(&(section, offset));
                    let start = start.map_or(Some(NOWHERE), |&start| u32::try_from(start).ok())?;
                    *place = start.to_ne_bytes();
                }
            }
            at += count * size;
        }
        Some(())
    }
}

/// A string of BTF (Documentation/bpf/btf.rst).
fn string(btf: &[u8], offset: usize) -> Option<&[u8]> {
    let strings = word(btf, 4)? + word(btf, 16)?;
    btf.get(strings + offset..)?.split(|&byte| byte == 0).next()
}

fn word(data: &[u8], at: usize) -> Option<usize> {
    let bytes = data.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_ne_bytes(*bytes)).ok()
}

fn section_of(symbol: &Symbol) -> usize {
    symbol.st_shndx.get(NativeEndian).into()
}

const fn bytes(slots: usize) -> u64 {
    (slots * SLOT) as u64
}

fn all<T: Pod>(data: &[u8]) -> Option<&[T]> {
    // Where no byte is it is aligned by chance.
    if data.is_empty() {
        return Some(&[]);
    }
    slice_from_all_bytes(data).ok()
}

fn all_mut<T: Pod>(data: &mut [u8]) -> Option<&mut [T]> {
    if data.is_empty() {
        return Some(&mut []);
    }
    slice_from_all_bytes_mut(data).ok()
}
