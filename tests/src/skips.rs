//! The skips that are in order on the kernels of the test matrix. A skip that is not listed is a
//! failure there: a scenario must not quietly stop being run.

/// What a kernel lacks: start of its tag, names of the scenarios that skip.
const EXPECTED: &[(&str, &[&str])] = &[
    (
        "5.10",
        &[
            // CONFIG_MPTCP is off in Debian's 5.10.
            "way_mptcp4",
            "way_mptcp6",
            "way_mptcp_conflict",
            "way_mptcp_connect",
            // Landlock came with 5.13, its network rules with 6.7.
            "policy_landlock",
            "policy_landlock_mptcp",
            // 6.11
            "way_io_uring_bind_and_listen",
            // 5.12
            "way_io_uring_connect_kernel_thread",
            // 6.3
            "exhausted_port_range_of_socket",
            "refusal_impossible_attach",
        ],
    ),
    (
        "6.1",
        &[
            "policy_landlock",
            "policy_landlock_mptcp",
            "way_io_uring_bind_and_listen",
            "refusal_impossible_attach",
        ],
    ),
    ("6.12", &["refusal_impossible_attach"]),
    // UDP-Lite is gone from 7.3.
    ("7", &["bind_udplite", "refusal_impossible_attach"]),
];

/// Whether a scenario may skip on this kernel. Without a tag, on the host, any may.
pub(crate) fn in_order(tag: Option<&str>, name: &str) -> bool {
    let Some(tag) = tag else { return true };
    EXPECTED
        .iter()
        .find(|(kernel, _)| tag == *kernel || tag.split('.').next() == Some(kernel))
        .is_none_or(|(_, names)| names.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_skips_are_in_order_on_a_known_kernel() {
        assert!(in_order(Some("5.10"), "way_mptcp4"));
        assert!(!in_order(Some("6.1"), "way_mptcp4"));
        assert!(!in_order(Some("6.12"), "policy_landlock"));
        assert!(in_order(Some("7.3"), "bind_udplite"));
        assert!(in_order(None, "anything"));
    }

    #[test]
    fn every_listed_name_exists() {
        let names: Vec<_> = crate::runner::names().collect();
        for name in EXPECTED.iter().flat_map(|(_, skips)| *skips) {
            assert!(names.contains(name), "{name}");
        }
    }
}
