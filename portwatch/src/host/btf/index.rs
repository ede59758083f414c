//! The one pass over all types: where they are, and which have a name that was asked for.

use std::collections::HashMap;

use super::{
    BtfError,
    names::Names,
    types::{Type, kind},
    u32_at,
};

/// Of so many types the place of one is kept; the few that are looked up are walked to from there.
const STRIDE: u32 = 8;

const CUT: BtfError = BtfError::Damaged("a type is cut short");

/// What the pass leaves.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Places of the types 1, 9, 17 and so on.
    marks: Vec<u32>,
    /// How many types there are; `void`, 0, not counted.
    count: u32,
    /// Structs and unions by name: there are several of some names.
    pub(super) structs: HashMap<String, Vec<u32>>,
    pub(super) functions: HashMap<String, u32>,
    pub(super) typedefs: HashMap<String, u32>,
    pub(super) enumerators: HashMap<String, u64>,
}

impl Index {
    /// Of several functions, typedefs or enumerators of one name the first counts.
    pub(super) fn new(types: &[u8], strings: &[u8], names: &Names<'_>) -> Result<Self, BtfError> {
        let mut index = Self::default();
        let mut at = 0;
        while at < types.len() {
            let Some(ty) = Type::read(types, at) else {
                return Err(CUT);
            };
            let Some(end) = ty.end() else {
                return Err(BtfError::Damaged("a type is of unknown kind"));
            };
            if index.count.is_multiple_of(STRIDE) {
                index.marks.push(at as u32);
            }
            index.count += 1;
            match ty.kind() {
                kind::STRUCT | kind::UNION | kind::FUNC | kind::TYPEDEF => {
                    if let Some(name) = names.at(strings, ty.name) {
                        index.add(name, ty.kind());
                    }
                }
                kind::ENUM => {
                    for entry in (at + Type::LEN..end).step_by(8) {
                        let Some(name) = u32_at(types, entry) else {
                            return Err(CUT);
                        };
                        if let Some(name) = names.at(strings, name) {
                            let value = u32_at(types, entry + 4).ok_or(CUT)?;
                            let value = u64::from(value);
                            let known = &mut index.enumerators;
                            known.entry(name.to_owned()).or_insert(value);
                        }
                    }
                }
                _ => {}
            }
            at = end;
        }
        if at == types.len() {
            Ok(index)
        } else {
            Err(CUT)
        }
    }

    /// Adds the type that was counted last.
    #[cold]
    fn add(&mut self, name: &str, kind: u32) {
        let id = self.count;
        let name = name.to_owned();
        match kind {
            kind::FUNC => {
                self.functions.entry(name).or_insert(id);
            }
            kind::TYPEDEF => {
                self.typedefs.entry(name).or_insert(id);
            }
            _ => self.structs.entry(name).or_default().push(id),
        }
    }

    /// A type by its id.
    pub(super) fn by_id(&self, types: &[u8], id: u32) -> Option<Type> {
        let index = id.checked_sub(1)?;
        let mark = *self.marks.get((index / STRIDE) as usize)?;
        let mut ty = Type::read(types, mark as usize)?;
        for _ in 0..index % STRIDE {
            ty = Type::read(types, ty.end()?)?;
        }
        Some(ty)
    }
}
