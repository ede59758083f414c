//! One typed value each: text in, value or a sentence out. Pure.

use std::{num::IntErrorKind, ops::RangeInclusive, path::PathBuf, time::Duration};

pub(super) use super::moment::parse as moment;
use super::{NetnsArg, UserArg};
use crate::store::retention::LEAST;

/// Highest process id that Linux gives (PID_MAX_LIMIT, include/linux/threads.h).
const MAX_PID: u32 = 4 * 1024 * 1024;

/// Default of `--buffer`.
pub(super) const DEFAULT_BUFFER: &str = "8M";

/// Largest ring buffer: `max_entries` of a map is 32 bits wide and a power of two here.
const MAX_BUFFER: u64 = 1 << 31;

/// Default of `--max-size`.
pub(super) const DEFAULT_STORE: &str = "1G";

/// `8080` or `8000-8100`.
pub(super) fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let Some((first, last)) = text.split_once('-') else {
        let port = port(text)?;
        return Ok(port..=port);
    };
    if first.is_empty() || last.is_empty() {
        return Err("a range needs both ends, as in 8000-8100".to_owned());
    }
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!(
            "the range is backwards: did you mean {last}-{first}?"
        ));
    }
    Ok(first..=last)
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    if text.is_empty() {
        return Err("a port number is missing".to_owned());
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text:?} is not a port number"));
    }
    match text.parse::<u16>() {
        Ok(0) => Err("port 0 only asks the kernel to choose one: ports are 1 to 65535".to_owned()),
        Ok(port) => Ok(port),
        Err(_) => Err(format!("{text} is too large: ports are 1 to 65535")),
    }
}

/// `10s`, `2m`, `1h30m`; a bare number counts seconds, as with sleep(1).
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time: write it like 10s, 2m or 1h30m");
    let duration = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(text.parse().map_err(|_| wrong())?)
    } else {
        let signed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
        Duration::try_from(signed).map_err(|_| wrong())?
    };
    if duration.is_zero() {
        return Err("the time must be longer than nothing".to_owned());
    }
    Ok(duration)
}

/// `256K`, `8M`, `65536`: bytes, in powers of 1024.
pub(super) fn buffer_size(text: &str) -> Result<u64, String> {
    let too_large = || format!("{text} is too large: a buffer has at most 2G");
    let bytes = size(text, "256K or 8M", too_large)?;
    if bytes == 0 {
        return Err("a buffer cannot be empty".to_owned());
    }
    if bytes > MAX_BUFFER {
        return Err(too_large());
    }
    Ok(bytes)
}

/// `100M`, `1G`, `2T`: bytes of a recording.
pub(super) fn store_size(text: &str) -> Result<u64, String> {
    let too_large = || format!("{text} is too large: no file system holds that");
    let bytes = size(text, "100M or 1G", too_large)?;
    if bytes < LEAST {
        return Err(format!(
            "{text} is too small: a recording needs {}M at least",
            LEAST >> 20
        ));
    }
    if bytes > i64::MAX as u64 {
        return Err(too_large());
    }
    Ok(bytes)
}

fn size(text: &str, like: &str, too_large: impl Fn() -> String) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size: write it like {like}");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 =
        number
            .parse()
            .map_err(|error: std::num::ParseIntError| match error.kind() {
                IntErrorKind::PosOverflow => too_large(),
                _ => wrong(),
            })?;
    number.checked_mul(1 << shift).ok_or_else(too_large)
}

/// `12h`, `7d`, `4w`.
pub(super) fn age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not an age: write it like 12h, 7d or 4w");
    let span: jiff::Span = text.parse().map_err(|_| wrong())?;
    let age = span
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .map_err(|_| wrong())?;
    let age = Duration::try_from(age).map_err(|_| wrong())?;
    if age.is_zero() {
        return Err("nothing would be kept".to_owned());
    }
    Ok(age)
}

/// `4711`.
pub(super) fn pid(text: &str) -> Result<u32, String> {
    let pid = text.parse().ok();
    pid.filter(|pid| (1..=MAX_PID).contains(pid))
        .ok_or_else(|| format!("{text:?} is not a process id, 1 to {MAX_PID}; --comm takes a name"))
}

/// `100`.
pub(super) fn count(text: &str) -> Result<u64, String> {
    let count = text.parse().ok();
    count
        .filter(|count| *count != 0)
        .ok_or_else(|| format!("{text:?} is not a number, 1 or more"))
}

/// `1000` or `alice`.
pub(super) fn user(text: &str) -> Result<UserArg, String> {
    if text.is_empty() {
        return Err("a user is missing".to_owned());
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(UserArg::Name(text.to_owned()));
    }
    match text.parse() {
        // (uid_t)-1 is "no user" in every system call.
        Ok(uid) if uid != u32::MAX => Ok(UserArg::Uid(uid)),
        _ => Err(format!("{text} is too large: user ids are 0 to 4294967294")),
    }
}

/// `4026531840`, `net:[4026531840]` (as readlink(1) shows it), a path, or a name of `ip netns`.
pub(super) fn netns(text: &str) -> Result<NetnsArg, String> {
    let inode = text
        .strip_prefix("net:[")
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if inode.is_empty() {
        return Err("a network namespace is missing".to_owned());
    }
    if inode.bytes().all(|byte| byte.is_ascii_digit()) {
        return match inode.parse() {
            Ok(0) | Err(_) => Err(format!("{inode} is not the inode of a network namespace")),
            Ok(inode) => Ok(NetnsArg::Inode(inode)),
        };
    }
    if text.contains('/') {
        return Ok(NetnsArg::Path(PathBuf::from(text)));
    }
    Ok(NetnsArg::Name(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges() {
        assert_eq!(ports("8080"), Ok(8080..=8080));
        assert_eq!(ports("8000-8100"), Ok(8000..=8100));
        assert_eq!(ports("1-65535"), Ok(1..=65535));
        for (text, part) in [
            ("0", "port 0 only asks"),
            ("0-80", "port 0 only asks"),
            ("65536", "65536 is too large"),
            ("99999999999", "too large"),
            ("80-70", "did you mean 70-80?"),
            ("80-", "both ends"),
            ("-80", "both ends"),
            ("", "missing"),
            ("+80", "not a port number"),
            ("http", "\"http\" is not a port number"),
            ("80-90-100", "not a port number"),
        ] {
            let refusal = ports(text).expect_err(text);
            assert!(refusal.contains(part), "{text}: {refusal}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        for text in ["", "0", "0s", "-5s", "5 parsecs", "s", "10s ago"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn buffer_sizes() {
        assert_eq!(buffer_size("256K"), Ok(256 << 10));
        assert_eq!(buffer_size("8m"), Ok(8 << 20));
        assert_eq!(buffer_size("8MiB"), Ok(8 << 20));
        assert_eq!(buffer_size("65536"), Ok(65536));
        assert_eq!(buffer_size("2G"), Ok(1 << 31));
        for text in [
            "",
            "0",
            "K",
            "3G",
            "99999999999999999999",
            "8X",
            "-8M",
            "1.5M",
        ] {
            assert!(buffer_size(text).is_err(), "{text}");
        }
        assert!(buffer_size(DEFAULT_BUFFER).is_ok());
    }

    #[test]
    fn sizes_and_ages_of_recordings() {
        assert_eq!(store_size("1G"), Ok(1 << 30));
        assert_eq!(store_size("2T"), Ok(2 << 40));
        assert!(store_size("1M").is_err_and(|words| words.contains("4M at least")));
        assert!(store_size("9999999999999G").is_err());
        assert!(store_size(DEFAULT_STORE).is_ok());

        assert_eq!(age("12h"), Ok(Duration::from_secs(12 * 3600)));
        assert_eq!(age("7d"), Ok(Duration::from_secs(7 * 86400)));
        assert_eq!(age("1w2d"), Ok(Duration::from_secs(9 * 86400)));
        for text in ["", "0s", "-1d", "1y", "7", "soon"] {
            assert!(age(text).is_err(), "{text}");
        }
    }

    #[test]
    fn users_and_namespaces() {
        assert_eq!(user("0"), Ok(UserArg::Uid(0)));
        assert_eq!(user("www-data"), Ok(UserArg::Name("www-data".into())));
        assert!(user("4294967295").is_err());
        assert!(user("").is_err());

        assert_eq!(netns("4026531840"), Ok(NetnsArg::Inode(4_026_531_840)));
        assert_eq!(
            netns("net:[4026531840]"),
            Ok(NetnsArg::Inode(4_026_531_840))
        );
        assert_eq!(
            netns("/proc/1/ns/net"),
            Ok(NetnsArg::Path("/proc/1/ns/net".into()))
        );
        assert_eq!(netns("blue"), Ok(NetnsArg::Name("blue".into())));
        assert!(netns("0").is_err());
        assert!(netns("99999999999").is_err());
        assert!(netns("").is_err());
    }
}
