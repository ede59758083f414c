//! RLIMIT_MEMLOCK, which BPF maps count against before 5.11.

use std::fs;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// A soft and a hard limit; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// In force now, bytes.
    pub soft: Option<u64>,
    /// How far the soft limit may be raised, bytes.
    pub hard: Option<u64>,
}

/// RLIMIT_MEMLOCK of this process, from `/proc/self/limits`.
#[must_use]
pub fn memlock() -> Option<Limit> {
    parse_memlock(&fs::read_to_string("/proc/self/limits").ok()?)
}

/// Runs something while this process may open no file.
pub fn without_files<T>(act: impl FnOnce() -> T) -> T {
    let limit = getrlimit(Resource::RLIMIT_NOFILE);
    if let Ok((_, hard)) = limit {
        // That it does not work only makes the act cost more.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, 0, hard);
    }
    let result = act();
    if let Ok((soft, hard)) = limit {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
    }
    result
}

/// Raises RLIMIT_MEMLOCK as far as it goes, for kernels that count BPF maps against it. Where that
/// is not far enough, creating a map says so.
pub fn raise_memlock() {
    let memlock = Resource::RLIMIT_MEMLOCK;
    if setrlimit(memlock, RLIM_INFINITY, RLIM_INFINITY).is_err()
        && let Ok((_, hard)) = getrlimit(memlock)
    {
        let _ = setrlimit(memlock, hard, hard);
    }
}

/// RLIMIT_MEMLOCK from the text of `/proc/PID/limits` (fs/proc/base.c, `proc_pid_limits`).
#[must_use]
pub fn parse_memlock(limits: &str) -> Option<Limit> {
    let mut values = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))?
        .split_ascii_whitespace()
        .map(|value| match value {
            "unlimited" => Some(None),
            bytes => bytes.parse().ok().map(Some),
        });
    Some(Limit {
        soft: values.next()??,
        hard: values.next()??,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    const HEADER: &str =
        "Limit                     Soft Limit           Hard Limit           Units     \n";

    #[test]
    fn limits_as_the_kernel_prints_them() {
        let limits = format!(
            "{HEADER}Max processes             127000               unlimited            processes \n\
             Max locked memory         8388608              unlimited            bytes     \n\
             Max address space         unlimited            unlimited            bytes     \n"
        );
        assert_eq!(
            parse_memlock(&limits),
            Some(Limit {
                soft: Some(8_388_608),
                hard: None
            })
        );
        assert_eq!(parse_memlock(HEADER), None);
        assert_eq!(parse_memlock("Max locked memory 8388608"), None);
        assert_eq!(parse_memlock("Max locked memory many few bytes"), None);
    }

    #[test]
    fn this_process_has_a_limit() {
        let limit = memlock().unwrap();
        assert!(limit.hard.is_none_or(|hard| limit.soft.unwrap() <= hard));
    }

    proptest! {
        #[test]
        fn any_pair_of_numbers_is_read_back(soft: u64, hard: u64) {
            let text = format!("{HEADER}Max locked memory  {soft} {hard} bytes\n");
            let limit = Limit { soft: Some(soft), hard: Some(hard) };
            prop_assert_eq!(parse_memlock(&text), Some(limit));
        }

        #[test]
        fn any_text_is_survived(text in ".*") {
            let _ = parse_memlock(&text);
        }
    }
}
