//! Whose a file is, by its first bytes. No I/O.

/// "PrtW", at the place where a program marks its SQLite files (sqlite.org/fileformat2.html, 1.3.17).
pub const APPLICATION: i32 = i32::from_be_bytes(*b"PrtW");
/// Bytes that have to be read.
pub const HEADER: usize = 100;

const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Nobody's: nothing is in it.
    Empty,
    /// A recording.
    Own(Header),
    /// A database of another program.
    Database,
    /// Something else.
    Foreign,
}

/// What the first bytes of a recording tell. While it is written, the log may have newer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version of the schema.
    pub version: i32,
    /// Length that the file should have, bytes.
    pub length: u64,
    /// It was not closed: what came last is, or was, in a log beside it.
    pub is_open: bool,
}

/// Whose a file is that begins with these bytes.
#[must_use]
pub fn of(bytes: &[u8]) -> Identity {
    if bytes.is_empty() {
        return Identity::Empty;
    }
    if !bytes.starts_with(MAGIC) {
        return Identity::Foreign;
    }
    let number = |at: usize| {
        let four = bytes.get(at..at + 4)?;
        Some(u32::from_be_bytes(four.try_into().ok()?))
    };
    let short = |at: usize| {
        let two = bytes.get(at..at + 2)?;
        Some(u16::from_be_bytes(two.try_into().ok()?))
    };
    let (Some(page), Some(pages), Some(version), Some(application)) =
        (short(16), number(28), number(60), number(68))
    else {
        return Identity::Foreign;
    };
    if application.cast_signed() != APPLICATION {
        return Identity::Database;
    }
    // 1 stands for 65536.
    let page = if page == 1 { 65536 } else { u64::from(page) };
    Identity::Own(Header {
        version: version.cast_signed(),
        length: u64::from(pages) * page,
        // Read version (sqlite.org/fileformat2.html, 1.3.3): 2 is that of a file with a log.
        is_open: bytes.get(19) == Some(&2),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(application: i32, version: u32) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.resize(HEADER, 0);
        bytes[16..18].copy_from_slice(&4096u16.to_be_bytes());
        bytes[28..32].copy_from_slice(&7u32.to_be_bytes());
        bytes[60..64].copy_from_slice(&version.to_be_bytes());
        bytes[68..72].copy_from_slice(&application.to_be_bytes());
        bytes
    }

    #[test]
    fn files_are_told_apart() {
        let own = Header {
            version: 3,
            length: 7 * 4096,
            is_open: false,
        };
        assert_eq!(of(&header(APPLICATION, 3)), Identity::Own(own));
        let mut written = header(APPLICATION, 3);
        written[19] = 2;
        assert!(matches!(of(&written), Identity::Own(own) if own.is_open));
        assert_eq!(of(&header(0, 3)), Identity::Database);
        assert_eq!(of(b""), Identity::Empty);
        assert_eq!(of(b"{\"schema\":\"portwatch/1\"}"), Identity::Foreign);
        assert_eq!(of(&header(APPLICATION, 3)[..60]), Identity::Foreign);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = of(&bytes);
            let _ = of(&[MAGIC.as_slice(), &bytes].concat());
        }
    }
}
