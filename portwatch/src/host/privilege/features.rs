//! The closed table of what portwatch needs capabilities for, and when. What is not in it is given up
//! before the first event.

use super::{Capability, CapabilitySet};

/// Something that takes a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Programs and maps are loaded and attached.
    Programs,
    /// Kprobes are set, on some kernels.
    Kprobes,
    /// RLIMIT_MEMLOCK is raised.
    Memlock,
    /// The bounding set is cut down.
    Bounding,
    /// What the programs have counted is read.
    Counters,
    /// Processes of others.
    Processes,
    /// Cgroups of processes that are gone.
    PastCgroups,
    /// Network namespaces of others.
    Namespaces,
    /// Programs on cgroups that refuse calls.
    CgroupPrograms,
    /// Sockets of others through sock_diag.
    Sockets,
    /// Connections that are tracked.
    Nat,
    /// SIGTERM is passed on to COMMAND.
    Command,
    /// A recording in a directory of somebody else.
    Recording,
}

/// When a feature needs its capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Until every hook is attached.
    Start,
    /// To the end.
    Running,
    /// To the end, where this holds.
    RunningIf(&'static str),
}

impl When {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Running => "running",
            Self::RunningIf(_) => "running_if",
        }
    }

    /// What has to hold.
    #[must_use]
    pub const fn condition(self) -> Option<&'static str> {
        match self {
            Self::Start | Self::Running => None,
            Self::RunningIf(condition) => Some(condition),
        }
    }
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// What for.
    pub feature: Feature,
    /// Its name in the output.
    pub name: &'static str,
    /// All of them are needed.
    pub capabilities: &'static [Capability],
    /// When.
    pub when: When,
    /// What is not told without them, as `missing` of events has it; empty where nothing is, or nothing
    /// can be at all.
    pub missing: &'static [&'static str],
    /// In words: what it is for.
    pub purpose: &'static str,
}

use Capability::{
    Bpf, DacOverride, DacReadSearch, Kill, NetAdmin, Perfmon, SetPcap, SysAdmin, SysPtrace,
    SysResource,
};

/// Everything. The order is that of the output.
pub const TABLE: &[Row] = &[
    // kernel/bpf/syscall.c, bpf_prog_load; kernel/events/core.c, perf_kprobe_event_init
    Row {
        feature: Feature::Programs,
        name: "programs",
        capabilities: &[Bpf, Perfmon],
        when: When::Start,
        missing: &[],
        purpose: "loads programs, attaches them and reads kernel memory: without it, no trace",
    },
    // Debian's and Ubuntu's patch of kernel/events/core.c, perf_event_open: measured on 6.1, 6.12 and 7.3
    Row {
        feature: Feature::Kprobes,
        name: "kprobes",
        capabilities: &[SysAdmin],
        when: When::Start,
        missing: &[],
        purpose: "sets kprobes on kernels (Debian's, Ubuntu's) where kernel.perf_event_paranoid is above \
                  2; not needed for the other ways in",
    },
    // kernel/bpf/syscall.c of 5.10, bpf_charge_memlock
    Row {
        feature: Feature::Memlock,
        name: "memlock",
        capabilities: &[SysResource],
        when: When::Start,
        missing: &[],
        purpose: "raises the limit of locked memory, which kernels before 5.11 count maps against; \
                  not needed where the limit is high enough",
    },
    // security/commoncap.c, cap_prctl_drop
    Row {
        feature: Feature::Bounding,
        name: "bounding-set",
        capabilities: &[SetPcap],
        when: When::Start,
        missing: &[],
        purpose: "takes what is given up out of the bounding set too; without it no_new_privs alone \
                  keeps it from coming back",
    },
    // kernel/bpf/syscall.c before 5.19 (c8644cd0efe7), __sys_bpf
    Row {
        feature: Feature::Counters,
        name: "counters",
        capabilities: &[Bpf],
        when: When::RunningIf(
            "the kernel permits no bpf() to others, not even reading a map: before 5.19, with \
             kernel.unprivileged_bpf_disabled set",
        ),
        missing: &[],
        purpose: "reads how many events were lost, and what churn has counted",
    },
    // fs/proc/base.c, proc_fd_link, do_proc_readlink; fs/proc/fd.c, proc_fd_permission; kernel/pid.c,
    // __pidfd_fget
    Row {
        feature: Feature::Processes,
        name: "processes",
        capabilities: &[SysPtrace, DacReadSearch],
        when: When::Running,
        missing: &["conflict.holders.processes", "process.executable.path"],
        purpose: "looks at other users' processes: what they execute, and which descriptors they have",
    },
    // fs/fhandle.c, handle_to_path
    Row {
        feature: Feature::PastCgroups,
        name: "past-cgroups",
        capabilities: &[DacReadSearch],
        when: When::Running,
        missing: &["process.linux.cgroup"],
        purpose: "names the cgroup of a process that is already gone",
    },
    // net/core/net_namespace.c, netns_install
    Row {
        feature: Feature::Namespaces,
        name: "namespaces",
        capabilities: &[SysAdmin, SysPtrace],
        when: When::Running,
        missing: &[
            "conflict.exhausted.used",
            "conflict.interfaces",
            "network.interface.name",
            "network.local.ephemeral",
        ],
        purpose: "asks other network namespaces for port ranges, interfaces and sockets",
    },
    // kernel/bpf/syscall.c, bpf_prog_query, bpf_prog_get_fd_by_id
    Row {
        feature: Feature::CgroupPrograms,
        name: "cgroup-programs",
        capabilities: &[NetAdmin, SysAdmin],
        when: When::Running,
        missing: &["conflict.policy.programs"],
        purpose: "names the programs on cgroups that may have refused a call",
    },
    // net/ipv4/inet_diag.c, inet_diag_msg_attrs_fill
    Row {
        feature: Feature::Sockets,
        name: "sockets",
        capabilities: &[NetAdmin],
        when: When::Running,
        missing: &[],
        purpose: "sees every attribute of other users' sockets through sock_diag",
    },
    // net/netfilter/nfnetlink.c, nfnetlink_rcv
    Row {
        feature: Feature::Nat,
        name: "nat",
        capabilities: &[NetAdmin],
        when: When::Running,
        // Of no event: `churn` lists "churn.nat".
        missing: &[],
        purpose: "shows in churn which source ports NAT has taken",
    },
    // kernel/signal.c, kill_ok_by_cred
    Row {
        feature: Feature::Command,
        name: "command",
        capabilities: &[Kill],
        when: When::RunningIf("there is a COMMAND, which runs as another user"),
        missing: &[],
        purpose: "passes SIGTERM on to it",
    },
    // SQLite removes what it keeps beside a file when it closes that.
    Row {
        feature: Feature::Recording,
        name: "recording",
        capabilities: &[DacOverride],
        when: When::RunningIf("record writes into a directory that only somebody else may change"),
        missing: &[],
        purpose: "closes the recording",
    },
];

/// What is needed to the end: of the features that this run has on a condition, and of those that every
/// run has.
#[must_use]
pub fn while_running(conditional: &[Feature]) -> CapabilitySet {
    TABLE
        .iter()
        .filter(|row| match row.when {
            When::Start => false,
            When::Running => true,
            When::RunningIf(_) => conditional.contains(&row.feature),
        })
        .flat_map(|row| row.capabilities)
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_features_stand_once() {
        for (index, row) in TABLE.iter().enumerate() {
            assert!(
                !TABLE[..index]
                    .iter()
                    .any(|other| other.name == row.name || other.feature == row.feature),
                "{}",
                row.name
            );
            assert!(!row.capabilities.is_empty(), "{}", row.name);
        }
    }

    #[test]
    fn what_loads_programs_is_not_kept() {
        let plain = while_running(&[]);
        for capability in [Bpf, Perfmon, SysResource, SetPcap, Kill, DacOverride] {
            assert!(!plain.contains(capability), "{}", capability.as_str());
        }
        for capability in [SysPtrace, DacReadSearch, SysAdmin, NetAdmin] {
            assert!(plain.contains(capability), "{}", capability.as_str());
        }
        // What is needed at the start alone is not to be had on a condition.
        assert_eq!(while_running(&[Feature::Programs]), plain);
    }

    #[test]
    fn conditions_add_what_they_name() {
        for (feature, capability) in [
            (Feature::Counters, Bpf),
            (Feature::Command, Kill),
            (Feature::Recording, DacOverride),
        ] {
            let kept = while_running(&[feature]);
            assert!(kept.contains(capability), "{feature:?}");
            assert!(!kept.contains(Perfmon), "{feature:?}");
        }
    }

    #[test]
    fn what_is_missing_is_what_events_say() {
        let rules = include_str!("../../enrich/missing.rs");
        for path in TABLE.iter().flat_map(|row| row.missing) {
            assert!(rules.contains(&format!("\"{path}\"")), "{path}");
        }
    }
}
