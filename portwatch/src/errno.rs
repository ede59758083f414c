//! The names of the error numbers that socket calls return, and what they mean in a few words.
//!
//! The names are those of errno(3); numbers come from libc, because some differ per architecture.
//! The words are shorter than strerror(3)'s and say what they mean for a port.

use crate::event::Errno;

/// What an error says, without the ` (os error N)` that std appends to words that say it already.
#[must_use]
pub fn words(error: &impl std::fmt::Display) -> String {
    const NUMBER: &str = " (os error ";
    let text = error.to_string();
    let mut words = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find(NUMBER) {
        words.push_str(&rest[..at]);
        let after = &rest[at + NUMBER.len()..];
        let number = after
            .split_once(')')
            .filter(|(number, _)| number.parse::<i32>().is_ok());
        rest = if let Some((_, after)) = number {
            after
        } else {
            words.push_str(NUMBER);
            after
        };
    }
    words.push_str(rest);
    words
}

macro_rules! errors {
    ($($name:ident = $number:expr, $reason:literal;)*) => {
        /// The symbolic name, as errno(3) has it. `None` for a number that no socket call is
        /// known to return.
        #[must_use]
        pub const fn name(errno: Errno) -> Option<&'static str> {
            $(if errno.0 == $number as u32 { return Some(stringify!($name)); })*
            None
        }

        /// What it means, in at most 24 characters.
        #[must_use]
        pub const fn reason(errno: Errno) -> Option<&'static str> {
            $(if errno.0 == $number as u32 { return Some($reason); })*
            None
        }

        #[cfg(test)]
        const ALL: &[(&str, u32, &str)] = &[$((stringify!($name), $number as u32, $reason),)*];
    };
}

// The frequent ones first. The last two never leave the kernel (include/linux/errno.h) but are
// what its functions return.
errors! {
    EADDRINUSE = libc::EADDRINUSE, "address already in use";
    ECONNREFUSED = libc::ECONNREFUSED, "connection refused";
    EADDRNOTAVAIL = libc::EADDRNOTAVAIL, "address not available";
    EACCES = libc::EACCES, "permission denied";
    EPERM = libc::EPERM, "operation not permitted";
    EINVAL = libc::EINVAL, "invalid argument";
    EAGAIN = libc::EAGAIN, "no free port";
    ETIMEDOUT = libc::ETIMEDOUT, "timed out";
    ENETUNREACH = libc::ENETUNREACH, "network unreachable";
    EHOSTUNREACH = libc::EHOSTUNREACH, "host unreachable";
    ECONNRESET = libc::ECONNRESET, "connection reset";
    ECONNABORTED = libc::ECONNABORTED, "connection aborted";
    EISCONN = libc::EISCONN, "already connected";
    EALREADY = libc::EALREADY, "already in progress";
    EINPROGRESS = libc::EINPROGRESS, "in progress";
    EAFNOSUPPORT = libc::EAFNOSUPPORT, "wrong address family";
    EOPNOTSUPP = libc::EOPNOTSUPP, "not supported";
    EPROTONOSUPPORT = libc::EPROTONOSUPPORT, "protocol not supported";
    EPROTOTYPE = libc::EPROTOTYPE, "wrong protocol type";
    EPROTO = libc::EPROTO, "protocol error";
    ENOPROTOOPT = libc::ENOPROTOOPT, "protocol not available";
    EDESTADDRREQ = libc::EDESTADDRREQ, "no destination address";
    EMSGSIZE = libc::EMSGSIZE, "message too long";
    ENOTCONN = libc::ENOTCONN, "not connected";
    ENOTSOCK = libc::ENOTSOCK, "not a socket";
    EBADF = libc::EBADF, "bad file descriptor";
    EFAULT = libc::EFAULT, "bad memory address";
    EINTR = libc::EINTR, "interrupted by a signal";
    EIO = libc::EIO, "input/output error";
    EBUSY = libc::EBUSY, "busy";
    ENODEV = libc::ENODEV, "no such device";
    ENXIO = libc::ENXIO, "no such device";
    ENOENT = libc::ENOENT, "does not exist";
    ENOMEM = libc::ENOMEM, "out of memory";
    ENOBUFS = libc::ENOBUFS, "no buffer space";
    EMFILE = libc::EMFILE, "too many open files";
    ENFILE = libc::ENFILE, "too many open files";
    ENETDOWN = libc::ENETDOWN, "network is down";
    ENETRESET = libc::ENETRESET, "dropped by the network";
    EHOSTDOWN = libc::EHOSTDOWN, "host is down";
    ENONET = libc::ENONET, "not on the network";
    EPIPE = libc::EPIPE, "connection closed";
    ESHUTDOWN = libc::ESHUTDOWN, "already shut down";
    EUSERS = libc::EUSERS, "too many users";
    ENOSYS = libc::ENOSYS, "not implemented";
    ENOKEY = libc::ENOKEY, "key not available";
    EKEYREJECTED = libc::EKEYREJECTED, "key rejected";
    ESRCH = libc::ESRCH, "no such entry";
    E2BIG = libc::E2BIG, "too big";
    ERANGE = libc::ERANGE, "out of range";
    EOVERFLOW = libc::EOVERFLOW, "value too large";
    EEXIST = libc::EEXIST, "already exists";
    EXDEV = libc::EXDEV, "wrong device";
    ERESTARTSYS = 512, "interrupted by a signal";
    ENOTSUPP = 524, "not supported";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_without_the_number_that_repeats_them() {
        let refused = std::io::Error::from_raw_os_error(libc::EACCES);
        assert_eq!(words(&refused), "Permission denied");
        for (text, expected) in [
            (
                "a: No such file (os error 2); b: Busy (os error 16): c",
                "a: No such file; b: Busy: c",
            ),
            (
                "cannot write to /tmp/ (os error x)",
                "cannot write to /tmp/ (os error x)",
            ),
            ("unfinished (os error 2", "unfinished (os error 2"),
            ("", ""),
        ] {
            assert_eq!(words(&text), expected);
        }
    }

    #[test]
    fn names_and_reasons() {
        assert_eq!(name(Errno(98)), Some("EADDRINUSE"));
        assert_eq!(reason(Errno(98)), Some("address already in use"));
        assert_eq!(name(Errno(13)), Some("EACCES"));
        assert_eq!(name(Errno(0)), None);
        assert_eq!(reason(Errno(4095)), None);
    }

    #[test]
    fn every_entry_is_reachable_and_short() {
        for &(expected, number, words) in ALL {
            assert_eq!(name(Errno(number)), Some(expected));
            assert!(words.len() <= 24, "{expected}: {words}");
        }
    }
}
