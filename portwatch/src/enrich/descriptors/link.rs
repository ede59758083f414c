//! What the links and names in `/proc/PID/fd` say.

/// Room for a link: one byte more than the longest of a socket, `socket:[18446744073709551615]`. What
/// fills it is something else.
pub(super) const ROOM: usize = 30;

/// The inode in the link of a socket: `socket:[INODE]` (net/socket.c, `sockfs_dname`). No file can
/// have such a name: the links of files are paths, which start with `/` or `(unreachable)`
/// (fs/d_path.c), and other files without a path have other words in front.
pub(super) fn inode(link: &[u8]) -> Option<u64> {
    let digits = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    decimal(digits)
}

/// A pid or a descriptor: the name of an entry.
pub(super) fn number(name: &[u8]) -> Option<u32> {
    u32::try_from(decimal(name)?).ok()
}

/// A number as the kernel prints it: digits only, none too many.
fn decimal(digits: &[u8]) -> Option<u64> {
    match digits {
        [] | [b'0', _, ..] => None,
        _ => digits.iter().try_fold(0u64, |number, &digit| {
            let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
            number.checked_mul(10)?.checked_add(digit)
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_sockets_have_the_inode_of_a_socket() {
        for (link, expected) in [
            ("socket:[12345]", Some(12345)),
            ("socket:[0]", Some(0)),
            ("socket:[18446744073709551615]", Some(u64::MAX)),
            ("socket:[18446744073709551616]", None),
            ("socket:[]", None),
            ("socket:[007]", None),
            ("socket:[+7]", None),
            ("socket:[7", None),
            ("socket:[7] ", None),
            ("socket:[7] (deleted)", None),
            ("socket:", None),
            ("pipe:[7]", None),
            ("anon_inode:[eventfd]", None),
            ("/tmp/socket:[7]", None),
            ("(unreachable)/socket:[7]", None),
            ("", None),
        ] {
            assert_eq!(inode(link.as_bytes()), expected, "{link}");
        }
    }

    #[test]
    fn names_that_are_no_numbers_are_none() {
        for (name, expected) in [
            ("0", Some(0)),
            ("4294967295", Some(u32::MAX)),
            ("4294967296", None),
            ("self", None),
            (".", None),
            ("01", None),
        ] {
            assert_eq!(number(name.as_bytes()), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_inode_comes_back(number: u64) {
            let link = format!("socket:[{number}]");
            prop_assert_eq!(inode(link.as_bytes()), Some(number));
            // A link cut to the buffer is never one.
            prop_assert!(link.len() < ROOM);
        }

        #[test]
        fn what_is_taken_for_a_socket_is_one(link in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(number) = inode(&link) {
                prop_assert_eq!(link, format!("socket:[{number}]").into_bytes());
            }
        }

        #[test]
        fn what_is_almost_a_socket_is_read_right(link in r"(socket|socke|pipe):?\[?[0-9+ ]{0,21}\]?") {
            let number = link
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'))
                .filter(|digits| *digits == "0" || !digits.starts_with(['0', '+']))
                .and_then(|digits| digits.parse::<u64>().ok());
            prop_assert_eq!(inode(link.as_bytes()), number);
        }
    }
}
