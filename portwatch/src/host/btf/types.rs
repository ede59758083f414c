//! One type of BTF: what it is, and where the next one begins.

/// Kinds of type, `BTF_KIND_*`.
pub(super) mod kind {
    pub(in super::super) const INT: u32 = 1;
    pub(in super::super) const PTR: u32 = 2;
    pub(in super::super) const ARRAY: u32 = 3;
    pub(in super::super) const STRUCT: u32 = 4;
    pub(in super::super) const UNION: u32 = 5;
    pub(in super::super) const ENUM: u32 = 6;
    pub(in super::super) const FWD: u32 = 7;
    pub(in super::super) const TYPEDEF: u32 = 8;
    pub(in super::super) const VOLATILE: u32 = 9;
    pub(in super::super) const CONST: u32 = 10;
    pub(in super::super) const RESTRICT: u32 = 11;
    pub(in super::super) const FUNC: u32 = 12;
    pub(in super::super) const FUNC_PROTO: u32 = 13;
    pub(in super::super) const VAR: u32 = 14;
    pub(in super::super) const DATASEC: u32 = 15;
    pub(in super::super) const FLOAT: u32 = 16;
    pub(in super::super) const DECL_TAG: u32 = 17;
    pub(in super::super) const TYPE_TAG: u32 = 18;
    pub(in super::super) const ENUM64: u32 = 19;
}

/// One type: `struct btf_type`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Type {
    /// Where it begins among the types.
    pub(super) at: usize,
    /// Offset of its name.
    pub(super) name: u32,
    info: u32,
    /// Size of a struct and the like, or the id of the type it refers to.
    pub(super) size_or_type: u32,
}

impl Type {
    /// Bytes that every type has; what a kind has more of follows.
    pub(super) const LEN: usize = 12;

    /// The type that begins there.
    pub(super) fn read(types: &[u8], at: usize) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = types.get(at..)?.first_chunk()?;
        let [name, info, size_or_type] = words(bytes);
        Some(Self {
            at,
            name,
            info,
            size_or_type,
        })
    }

    /// Where the next type begins. Nothing for an unknown kind.
    pub(super) fn end(self) -> Option<usize> {
        let extra = match self.kind() {
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
        };
        Some(self.at + Self::LEN + extra)
    }

    pub(super) fn kind(self) -> u32 {
        self.info >> 24 & 0x1f
    }

    pub(super) fn vlen(self) -> usize {
        (self.info & 0xffff) as usize
    }

    /// Members have bitfield sizes.
    pub(super) fn kind_flag(self) -> bool {
        self.info >> 31 != 0
    }
}

fn words(bytes: &[u8; Type::LEN]) -> [u32; 3] {
    let &[a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_ne_bytes)
}
