//! The names asked for, found among all names of the kernel.

/// Bits of the filter.
const BITS: usize = 4096;

/// A hundred names among a hundred thousand: nearly all are turned away by one bit for their first
/// eight bytes, before their ends are looked for.
pub(super) struct Names<'a> {
    sorted: Vec<&'a str>,
    starts: [u64; BITS / 64],
}

impl<'a> Names<'a> {
    pub(super) fn new(names: &[&'a str]) -> Self {
        let mut sorted = names.to_vec();
        sorted.sort_unstable();
        let mut starts = [0; BITS / 64];
        for name in names {
            let mut start = [0; 8];
            for (place, byte) in start.iter_mut().zip(name.bytes()) {
                *place = byte;
            }
            let bit = bit(start);
            starts[bit / 64] |= 1 << (bit % 64);
        }
        Self { sorted, starts }
    }

    /// The name at an offset into the string section, if it is one of these.
    #[inline]
    pub(super) fn at(&self, strings: &[u8], offset: u32) -> Option<&'a str> {
        let rest = strings.get(offset as usize..)?;
        // Close to the end of the section there are no eight bytes; that is for the search to tell.
        if let Some(start) = rest.first_chunk() {
            let bit = bit(*start);
            if self.starts[bit / 64] >> (bit % 64) & 1 == 0 {
                return None;
            }
        }
        self.find(rest)
    }

    #[cold]
    fn find(&self, rest: &[u8]) -> Option<&'a str> {
        let name = &rest[..memchr::memchr(0, rest)?];
        let found = self
            .sorted
            .binary_search_by(|wanted| wanted.as_bytes().cmp(name));
        Some(self.sorted[found.ok()?])
    }
}

/// The filter's bit for a name by its first bytes; what follows its end does not count.
fn bit(start: [u8; 8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    // 2^64 divided by the golden ratio, for Fibonacci hashing (Knuth, TAOCP 6.4).
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let word = u64::from_le_bytes(start);
    // The lowest bit of these is in the first byte that is zero (Hacker's Delight 6-1).
    let zeros = word.wrapping_sub(ONES) & !word & ONES << 7;
    let name = ((zeros & zeros.wrapping_neg()) >> 7).wrapping_sub(1);
    ((word & name).wrapping_mul(GOLDEN) >> (64 - BITS.ilog2())) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found<'a>(wanted: &[&'a str], strings: &[u8]) -> Vec<(u32, &'a str)> {
        let names = Names::new(wanted);
        (0..strings.len() as u32 + 2)
            .filter_map(|at| Some((at, names.at(strings, at)?)))
            .collect()
    }

    #[test]
    fn names_are_found_where_they_stand_whole() {
        let strings = b"\0sock\0inet_bind\0inet_bind_sk\0socket\0net\0";
        let wanted = ["net", "sock", "inet_bind", "absent", "inet_bind_sk"];
        // "sock" is no end of another name, as "bind" might be: the compiler may share those.
        assert_eq!(
            found(&wanted, strings),
            [
                (1, "sock"),
                (6, "inet_bind"),
                (16, "inet_bind_sk"),
                (36, "net")
            ]
        );
        assert_eq!(found(&["bind_sk"], strings), [(21, "bind_sk")]);
    }

    #[test]
    fn names_shorter_than_the_filter_are_found_whatever_follows() {
        for follows in [&b""[..], b"\0", b"sock\0", b"\x01\x80\xff\0longer\0"] {
            let strings = [b"\0fd\0", follows].concat();
            assert_eq!(found(&["fd"], &strings), [(1, "fd")]);
        }
    }

    #[test]
    fn the_filter_sees_the_name_and_nothing_else() {
        assert_eq!(bit(*b"fd\0sock\0"), bit(*b"fd\0\x01\0\xff\x80\0"));
        assert_eq!(bit(*b"\0sock\0ab"), bit([0; 8]));
        assert_ne!(bit(*b"inet_bin"), bit(*b"inet_bio"));
        assert_ne!(bit(*b"\x80\0\0\0\0\0\0\0"), bit([0; 8]));
    }

    #[test]
    fn a_name_without_an_end_is_none() {
        assert_eq!(found(&["sock", "ock"], b"\0sock"), []);
    }

    proptest! {
        #[test]
        fn as_many_as_a_plain_search_finds(
            wanted in prop::collection::vec("[ab_]{1,6}", 0..8),
            strings in prop::collection::vec("[ab_]{0,6}", 0..24),
        ) {
            let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
            let strings = strings.join("\0").into_bytes();
            let plain: Vec<_> = (0..strings.len())
                .filter_map(|at| {
                    let rest = &strings[at..];
                    let name = &rest[..rest.iter().position(|&byte| byte == 0)?];
                    let name = wanted.iter().find(|wanted| wanted.as_bytes() == name)?;
                    Some((at as u32, *name))
                })
                .collect();
            prop_assert_eq!(found(&wanted, &strings), plain);
        }

        #[test]
        fn any_bytes_are_survived(strings: Vec<u8>) {
            let _ = found(&["a", "sock", "inet_bind"], &strings);
        }
    }
}
