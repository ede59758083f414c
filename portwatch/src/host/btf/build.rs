//! Makes BTF for tests (Documentation/bpf/btf.rst).

use super::{MAGIC, kind};

/// BTF in the making. Types are numbered in the order they are added, from 1.
#[derive(Debug)]
pub(crate) struct Builder {
    strings: Vec<u8>,
    types: Vec<u8>,
    count: u32,
}

/// A member: name (empty for none), type, offset in bits, width of a bitfield or 0.
pub(crate) type Field<'a> = (&'a str, u32, u32, u32);

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            strings: vec![0],
            types: Vec::new(),
            count: 0,
        }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        // Every name stands once, as pahole leaves them.
        let wanted = [name.as_bytes(), b"\0"].concat();
        let found = self
            .strings
            .windows(wanted.len() + 1)
            .position(|window| window[0] == 0 && window[1..] == wanted);
        if let Some(at) = found {
            return at as u32 + 1;
        }
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(&wanted);
        at
    }

    fn words(&mut self, words: &[u32]) {
        for word in words {
            self.types.extend_from_slice(&word.to_ne_bytes());
        }
    }

    fn add(&mut self, name: &str, kind: u32, vlen: usize, size_or_type: u32, flag: bool) -> u32 {
        let name = self.name(name);
        let info = kind << 24 | vlen as u32 | u32::from(flag) << 31;
        self.words(&[name, info, size_or_type]);
        self.count += 1;
        self.count
    }

    /// The id that the next type gets.
    pub(crate) fn next_id(&self) -> u32 {
        self.count + 1
    }

    pub(crate) fn int(&mut self, name: &str, bytes: u32) -> u32 {
        let id = self.add(name, kind::INT, 0, bytes, false);
        self.words(&[bytes * 8]);
        id
    }

    pub(crate) fn pointer(&mut self, to: u32) -> u32 {
        self.add("", kind::PTR, 0, to, false)
    }

    pub(crate) fn constant(&mut self, of: u32) -> u32 {
        self.add("", kind::CONST, 0, of, false)
    }

    pub(crate) fn volatile(&mut self, of: u32) -> u32 {
        self.add("", kind::VOLATILE, 0, of, false)
    }

    pub(crate) fn tagged(&mut self, tag: &str, of: u32) -> u32 {
        self.add(tag, kind::TYPE_TAG, 0, of, false)
    }

    pub(crate) fn typedef(&mut self, name: &str, of: u32) -> u32 {
        self.add(name, kind::TYPEDEF, 0, of, false)
    }

    pub(crate) fn forward(&mut self, name: &str) -> u32 {
        self.add(name, kind::FWD, 0, 0, false)
    }

    pub(crate) fn array(&mut self, of: u32, count: u32) -> u32 {
        let id = self.add("", kind::ARRAY, 0, 0, false);
        self.words(&[of, of, count]);
        id
    }

    pub(crate) fn structure(&mut self, name: &str, bytes: u32, fields: &[Field<'_>]) -> u32 {
        self.composite(name, kind::STRUCT, bytes, fields)
    }

    pub(crate) fn union(&mut self, name: &str, bytes: u32, fields: &[Field<'_>]) -> u32 {
        self.composite(name, kind::UNION, bytes, fields)
    }

    fn composite(&mut self, name: &str, kind: u32, bytes: u32, fields: &[Field<'_>]) -> u32 {
        // The flag says that offsets carry widths; a compiler sets it only where one does.
        let widths = fields.iter().any(|(.., width)| *width != 0);
        let id = self.add(name, kind, fields.len(), bytes, widths);
        for (name, of, bits, width) in fields {
            let name = self.name(name);
            self.words(&[name, *of, bits | width << 24]);
        }
        id
    }

    pub(crate) fn enumeration(&mut self, name: &str, values: &[(&str, u32)]) -> u32 {
        let id = self.add(name, kind::ENUM, values.len(), 4, false);
        for (name, value) in values {
            let name = self.name(name);
            self.words(&[name, *value]);
        }
        id
    }

    pub(crate) fn prototype(&mut self, returns: u32, parameters: &[u32]) -> u32 {
        let id = self.add("", kind::FUNC_PROTO, parameters.len(), returns, false);
        for of in parameters {
            self.words(&[0, *of]);
        }
        id
    }

    pub(crate) fn function(&mut self, name: &str, prototype: u32) -> u32 {
        self.add(name, kind::FUNC, 0, prototype, false)
    }

    /// One of each kind that portwatch has no use for, but has to step over.
    pub(crate) fn oddities(&mut self, of: u32) {
        let variable = self.add("jiffies", kind::VAR, 0, of, false);
        self.words(&[1]);
        self.add(".data", kind::DATASEC, 1, 8, false);
        self.words(&[variable, 0, 8]);
        self.add("float", kind::FLOAT, 0, 4, false);
        self.add("__user", kind::DECL_TAG, 0, of, false);
        self.words(&[u32::MAX]);
        self.add("", kind::RESTRICT, 0, of, false);
        self.add("wide", kind::ENUM64, 1, 8, false);
        let name = self.name("WIDE");
        self.words(&[name, 1, 1]);
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC.to_ne_bytes());
        out.extend_from_slice(&[1, 0]);
        let types = self.types.len() as u32;
        for word in [24, 0, types, types, self.strings.len() as u32] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        out.extend_from_slice(&self.types);
        out.extend_from_slice(&self.strings);
        out
    }
}
