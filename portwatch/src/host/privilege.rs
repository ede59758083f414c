//! What this process may do: capabilities, user namespace, seccomp.

pub mod features;
pub mod sets;

use std::{fmt, fs};

/// A capability that portwatch has a use for (capabilities(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[expect(missing_docs, reason = "capabilities(7), and `purpose` below")]
pub enum Capability {
    DacOverride = 1,
    DacReadSearch = 2,
    Kill = 5,
    SetPcap = 8,
    NetAdmin = 12,
    SysPtrace = 19,
    SysAdmin = 21,
    SysResource = 24,
    Perfmon = 38,
    Bpf = 39,
}

impl Capability {
    /// Those by which a trace tells more, the most needed first.
    pub const ALL: [Self; 7] = [
        Self::Bpf,
        Self::Perfmon,
        Self::SysAdmin,
        Self::SysPtrace,
        Self::DacReadSearch,
        Self::NetAdmin,
        Self::SysResource,
    ];

    /// Without these nothing is loaded.
    pub const REQUIRED: [Self; 2] = [Self::Bpf, Self::Perfmon];

    /// The name of capabilities(7).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DacOverride => "CAP_DAC_OVERRIDE",
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::Kill => "CAP_KILL",
            Self::SetPcap => "CAP_SETPCAP",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::SysResource => "CAP_SYS_RESOURCE",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        }
    }
}

/// A set of capabilities, bit by bit as in `/proc/PID/status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySet(pub u64);

impl CapabilitySet {
    /// Whether the capability itself is in the set.
    #[must_use]
    pub const fn contains(self, capability: Capability) -> bool {
        self.0 >> (capability as u8) & 1 == 1
    }

    /// Whether the kernel lets the holder of this set do what the capability is for: CAP_SYS_ADMIN
    /// stands in for CAP_BPF and CAP_PERFMON (include/linux/capability.h, `bpf_capable`,
    /// `perfmon_capable`).
    #[must_use]
    pub const fn allows(self, capability: Capability) -> bool {
        self.contains(capability)
            || (matches!(capability, Capability::Bpf | Capability::Perfmon)
                && self.contains(Capability::SysAdmin))
    }

    /// Those that are in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// This set without those.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Those of `wanted` that the holder of this set lacks, in that order.
    #[must_use]
    pub fn lacking(self, wanted: &[Capability]) -> Vec<Capability> {
        wanted
            .iter()
            .copied()
            .filter(|&capability| !self.allows(capability))
            .collect()
    }
}

impl FromIterator<Capability> for CapabilitySet {
    fn from_iter<T: IntoIterator<Item = Capability>>(capabilities: T) -> Self {
        let bits = capabilities.into_iter().map(|one| 1 << (one as u8));
        Self(bits.fold(0, |set, bit: u64| set | bit))
    }
}

/// The privileges of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privileges {
    /// Effective user id.
    pub uid: u32,
    /// In force.
    pub effective: CapabilitySet,
    /// May be put in force.
    pub permitted: CapabilitySet,
    /// May ever be had: what is not here, even root cannot get back.
    pub bounding: CapabilitySet,
    /// exec gives no more privileges: sudo would not help either.
    pub no_new_privileges: bool,
    /// A seccomp filter is in force, which may refuse `bpf()` and the like.
    pub seccomp_filter: bool,
    /// In the first user namespace. In any other, capabilities count for nothing towards BPF.
    pub initial_user_namespace: bool,
}

impl Privileges {
    /// Reads `/proc/self/status` and the inode of the user namespace.
    #[must_use]
    pub fn read() -> Option<Self> {
        let initial = super::namespaces::is_initial(super::namespaces::Kind::User)?;
        Self::parse(&fs::read_to_string("/proc/self/status").ok()?, initial)
    }

    /// From the text of `/proc/PID/status` (fs/proc/array.c).
    #[must_use]
    pub fn parse(status: &str, initial_user_namespace: bool) -> Option<Self> {
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        let set = |name: &str| {
            field(name)
                .and_then(|bits| u64::from_str_radix(bits, 16).ok())
                .map(CapabilitySet)
        };
        Some(Self {
            // Real, effective, saved, file system.
            uid: field("Uid")?
                .split_ascii_whitespace()
                .nth(1)?
                .parse()
                .ok()?,
            effective: set("CapEff")?,
            permitted: set("CapPrm")?,
            bounding: set("CapBnd")?,
            no_new_privileges: field("NoNewPrivs") == Some("1"),
            seccomp_filter: field("Seccomp") == Some("2"),
            initial_user_namespace,
        })
    }

    /// Which of the capabilities that loading needs are missing.
    #[must_use]
    pub fn missing_required(&self) -> Vec<Capability> {
        self.effective.lacking(&Capability::REQUIRED)
    }

    /// What stands in the way of loading, and what to do about it. Empty where privileges are not
    /// the cause; a seccomp filter is named though it may let `bpf()` pass.
    #[must_use]
    pub fn obstacles(&self) -> Vec<Obstacle> {
        let mut obstacles = Vec::new();
        let mut add = |what: String, next: &'static str| obstacles.push(Obstacle { what, next });
        if !self.initial_user_namespace {
            add(
                "this is not the first user namespace (a rootless container?), where capabilities \
                 count for nothing"
                    .to_owned(),
                "run portwatch on the host",
            );
        }
        let missing = self.missing_required();
        if !missing.is_empty() {
            let names = names(&missing);
            let never: Vec<Capability> = self.bounding.lacking(&Capability::REQUIRED);
            if !never.is_empty() && self.uid == 0 {
                add(
                    format!("{names} missing and outside the bounding set"),
                    "let what started this (a container runtime, a systemd unit) grant them",
                );
            } else if self.no_new_privileges {
                add(
                    format!("{names} missing, and no_new_privs is set, so that sudo cannot help"),
                    "run it with sudo from another shell",
                );
            } else {
                add(format!("{names} missing"), "run it with sudo");
            }
        }
        if self.seccomp_filter && self.uid == 0 {
            add(
                "a seccomp filter is in force and may refuse bpf()".to_owned(),
                "in a container, start it with --privileged or --security-opt seccomp=unconfined",
            );
        }
        obstacles
    }
}

/// Their names, in a sentence.
#[must_use]
pub fn names(capabilities: &[Capability]) -> String {
    let names: Vec<&str> = capabilities.iter().map(|one| one.as_str()).collect();
    names.join(" and ")
}

/// Something in the way, and the way round it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// What is wrong.
    pub what: String,
    /// What to do next.
    pub next: &'static str,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, next } = self;
        write!(f, "{what}: {next}")
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    const FULL: u64 = 0x1ff_ffff_ffff;

    fn status(uid: u32, effective: u64, bounding: u64, no_new: u8, seccomp: u8) -> String {
        format!(
            "Name:\tcat\nUmask:\t0022\nTgid:\t8013\nUid:\t1000\t{uid}\t0\t0\nGid:\t0\t0\t0\t0\n\
             CapInh:\t0000000000000000\nCapPrm:\t{effective:016x}\nCapEff:\t{effective:016x}\n\
             CapBnd:\t{bounding:016x}\nCapAmb:\t0000000000000000\nNoNewPrivs:\t{no_new}\n\
             Seccomp:\t{seccomp}\nSeccomp_filters:\t0\n"
        )
    }

    #[test]
    fn root_user_and_container() {
        let cap = |capability: Capability| 1 << (capability as u8);
        // What Docker leaves to root by default.
        let docker = 0xa804_25fb;
        for (text, initial, missing, obstacles) in [
            (status(0, FULL, FULL, 0, 0), true, vec![], 0),
            (
                status(1000, 0, FULL, 0, 0),
                true,
                vec![Capability::Bpf, Capability::Perfmon],
                1,
            ),
            (
                status(0, docker, docker, 0, 2),
                true,
                vec![Capability::Bpf, Capability::Perfmon],
                2,
            ),
            (status(0, FULL, FULL, 0, 0), false, vec![], 1),
            (
                status(0, cap(Capability::SysAdmin), FULL, 0, 0),
                true,
                vec![],
                0,
            ),
            (
                status(1000, cap(Capability::Bpf), FULL, 1, 0),
                true,
                vec![Capability::Perfmon],
                1,
            ),
        ] {
            let privileges = Privileges::parse(&text, initial).unwrap();
            assert_eq!(privileges.missing_required(), missing, "{text}");
            assert_eq!(
                privileges.obstacles().len(),
                obstacles,
                "{:?}",
                privileges.obstacles()
            );
        }
    }

    #[test]
    fn the_advice_fits_the_cause() {
        let advice = |text: String| {
            Privileges::parse(&text, true)
                .unwrap()
                .obstacles()
                .remove(0)
                .to_string()
        };
        assert_eq!(
            advice(status(1000, 0, FULL, 0, 0)),
            "CAP_BPF and CAP_PERFMON missing: run it with sudo"
        );
        assert!(advice(status(1000, 0, FULL, 1, 0)).contains("no_new_privs"));
        assert!(advice(status(0, 0, 0, 0, 0)).contains("bounding set"));
    }

    #[test]
    fn the_effective_user_is_the_second_column() {
        let privileges = Privileges::parse(&status(33, 0, 0, 0, 0), true).unwrap();
        assert_eq!(privileges.uid, 33);
    }

    #[test]
    fn a_status_without_capabilities_is_none() {
        assert_eq!(
            Privileges::parse("Name:\tcat\nUid:\t0\t0\t0\t0\n", true),
            None
        );
        assert_eq!(Privileges::parse("", true), None);
    }

    #[test]
    fn only_sys_admin_stands_in_and_only_for_two() {
        let admin = CapabilitySet(1 << (Capability::SysAdmin as u8));
        assert_eq!(
            admin.lacking(&Capability::ALL),
            [
                Capability::SysPtrace,
                Capability::DacReadSearch,
                Capability::NetAdmin,
                Capability::SysResource
            ]
        );
        let bpf = CapabilitySet(1 << (Capability::Bpf as u8));
        assert!(!bpf.allows(Capability::SysAdmin));
        assert!(!bpf.allows(Capability::Perfmon));
    }

    #[test]
    fn this_process_agrees_with_the_system_calls() {
        let privileges = Privileges::read().unwrap();
        assert_eq!(privileges.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(privileges.effective.0 & !privileges.permitted.0, 0);
    }

    proptest! {
        #[test]
        fn any_sets_are_read_back(effective: u64, bounding: u64, uid: u32) {
            let privileges = Privileges::parse(&status(uid, effective, bounding, 0, 0), true);
            let privileges = privileges.unwrap();
            prop_assert_eq!(privileges.effective.0, effective);
            prop_assert_eq!(privileges.bounding.0, bounding);
            prop_assert_eq!(privileges.uid, uid);
        }

        #[test]
        fn any_text_is_survived(text in "(Uid|CapEff|CapPrm|CapBnd)?:?.*") {
            let _ = Privileges::parse(&text, true);
        }
    }
}
