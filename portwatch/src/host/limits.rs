//! RLIMIT_MEMLOCK, which BPF maps count against before 5.11.

use std::fs;

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

/// Raises the soft limit as far as it goes, for kernels that count BPF maps against it. Where that is
/// not far enough, creating a map says so.
pub fn raise_memlock() {
    let wanted = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: a valid struct; the call changes nothing but this limit.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const wanted) } == 0;
    if let Some(Limit { hard, .. }) = memlock()
        && !raised
    {
        let hard = hard.unwrap_or(libc::RLIM_INFINITY);
        let allowed = libc::rlimit {
            rlim_cur: hard,
            rlim_max: hard,
        };
        // SAFETY: as above. That it fails shows when a map is created.
        let _ = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const allowed) };
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
