//! The kernel's name, the host's name, and the switches that decide what may be loaded.

use std::{fs, path::Path};

/// The release of the running kernel (`uname -r`). For messages and for sizing memory limits only:
/// what the kernel can do is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// As the kernel says it.
    pub text: String,
    /// The two leading numbers, where the text starts with them.
    pub version: Option<(u32, u32)>,
}

impl Release {
    /// Reads `/proc/sys/kernel/osrelease`.
    #[must_use]
    pub fn read() -> Option<Self> {
        read_line("/proc/sys/kernel/osrelease").map(|text| Self::parse(&text))
    }

    /// From the text of `uname -r`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        let number = |digits: &str| {
            let end = digits
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(digits.len());
            digits[..end].parse().ok()
        };
        let mut parts = text.split('.');
        let version = parts
            .next()
            .and_then(|major| major.parse().ok())
            .zip(parts.next().and_then(number));
        Self {
            text: text.to_owned(),
            version,
        }
    }

    /// Whether BPF memory counts against RLIMIT_MEMLOCK: before 5.11, which moved it to the memory
    /// cgroup (kernel/bpf/syscall.c, "bpf: Eliminate rlimit-based memory accounting"). `None` where
    /// the version cannot be told.
    #[must_use]
    pub fn bpf_counts_as_memlock(&self) -> Option<bool> {
        self.version.map(|version| version < (5, 11))
    }
}

/// Whether sock_diag shows TCP sockets that are bound and nothing else (91051f003948, Linux 6.8). To find it
/// out with a socket one would have to bind it, so the state that they are shown in is looked for among
/// the names of the kernel's types. Without those: no.
#[must_use]
pub fn shows_bound() -> bool {
    fs::read("/sys/kernel/btf/vmlinux")
        .is_ok_and(|types| memchr::memmem::find(&types, b"TCP_BOUND_INACTIVE\0").is_some())
}

/// How the kernel preempts, with what is in use in brackets; root's, and only where debugfs is mounted
/// (kernel/sched/debug.c, `sched_dynamic_show`).
const PREEMPTION: &str = "/sys/kernel/debug/sched/preempt";

/// Whether the kernel preempts what runs in it. Where it does not say so: 7.x does, unless it is built
/// otherwise ("sched: Further restrict the preemption modes"), older ones only when told at the boot.
#[must_use]
pub fn preempts() -> bool {
    let model = read_line(PREEMPTION).and_then(|text| model(&text).map(str::to_owned));
    let told = || {
        let parameters = read_line("/proc/cmdline").unwrap_or_default();
        // The last one counts.
        let told = parameters.split_ascii_whitespace().rev();
        told.filter_map(|one| one.strip_prefix("preempt="))
            .next()
            .map(str::to_owned)
    };
    match model.or_else(told) {
        Some(model) => matches!(model.as_str(), "full" | "lazy"),
        None => Release::read()
            .and_then(|release| release.version)
            .is_some_and(|version| (7, 0) <= version),
    }
}

/// `lazy` of `full (lazy)`.
fn model(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('(')?;
    rest.split_once(')').map(|(model, _)| model)
}

/// Name of the host, from `/proc/sys/kernel/hostname`.
#[must_use]
pub fn host_name() -> Option<String> {
    read_line("/proc/sys/kernel/hostname").filter(|name| !name.is_empty())
}

/// `kernel.unprivileged_bpf_disabled` (Documentation/admin-guide/sysctl/kernel.rst).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnprivilegedBpf {
    /// 0: anyone may load some kinds of program. Tracing still needs privilege.
    Allowed,
    /// 1: refused until the next boot. Before 5.19 every `bpf()` command then needs CAP_BPF.
    DisabledForGood,
    /// 2: refused, an administrator may allow it again.
    Disabled,
}

impl UnprivilegedBpf {
    /// Reads the setting.
    #[must_use]
    pub fn read() -> Option<Self> {
        read_line("/proc/sys/kernel/unprivileged_bpf_disabled").and_then(|text| Self::parse(&text))
    }

    /// From the text of the setting.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.trim() {
            "0" => Self::Allowed,
            "1" => Self::DisabledForGood,
            "2" => Self::Disabled,
            _ => return None,
        })
    }
}

/// `kernel.perf_event_paranoid`: above 1, CAP_PERFMON is needed to trace the kernel; above 2, on kernels that
/// know it (Debian's, Ubuntu's), CAP_SYS_ADMIN to open any perf event.
#[must_use]
pub fn perf_event_paranoid() -> Option<i32> {
    read_line("/proc/sys/kernel/perf_event_paranoid").and_then(|text| text.trim().parse().ok())
}

/// Number of the perf event source that kprobes are opened through; `None` where the kernel was
/// built without kprobes (CONFIG_KPROBE_EVENTS).
#[must_use]
pub fn kprobe_pmu() -> Option<u32> {
    read_line("/sys/bus/event_source/devices/kprobe/type").and_then(|text| text.trim().parse().ok())
}

/// Where tracefs is mounted, if it is. Not needed for any backend, but its absence explains what
/// other tools say.
#[must_use]
pub fn tracefs() -> Option<&'static Path> {
    ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .into_iter()
        .map(Path::new)
        .find(|path| path.join("events").is_dir())
}

fn read_line(path: &str) -> Option<String> {
    let text = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&text).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_model_of_preemption_stands_in_brackets() {
        assert_eq!(model("none (voluntary) full lazy"), Some("voluntary"));
        assert_eq!(model("full (lazy)"), Some("lazy"));
        assert_eq!(model("none voluntary"), None);
    }

    #[test]
    fn releases_of_the_matrix_and_odd_ones() {
        for (text, version) in [
            ("5.10.0-46-cloud-amd64", Some((5, 10))),
            ("6.1.0-55-cloud-amd64\n", Some((6, 1))),
            ("6.12.95+deb12-cloud-amd64", Some((6, 12))),
            ("7.3.4+deb13-cloud-amd64", Some((7, 3))),
            ("6.18-rc1", Some((6, 18))),
            ("5.15.167.4-microsoft-standard-WSL2", Some((5, 15))),
            ("6", None),
            ("", None),
            ("six.one", None),
            ("99999999999.1", None),
        ] {
            assert_eq!(Release::parse(text).version, version, "{text}");
        }
        assert_eq!(Release::parse("6.1.0\n").text, "6.1.0");
    }

    #[test]
    fn memlock_matters_before_5_11() {
        for (text, counts) in [
            ("5.10.0", Some(true)),
            ("5.11.0", Some(false)),
            ("6.1.0", Some(false)),
            ("?", None),
        ] {
            assert_eq!(
                Release::parse(text).bpf_counts_as_memlock(),
                counts,
                "{text}"
            );
        }
    }

    #[test]
    fn unprivileged_bpf_has_three_values() {
        assert_eq!(
            UnprivilegedBpf::parse("0\n"),
            Some(UnprivilegedBpf::Allowed)
        );
        assert_eq!(
            UnprivilegedBpf::parse("1\n"),
            Some(UnprivilegedBpf::DisabledForGood)
        );
        assert_eq!(UnprivilegedBpf::parse("2"), Some(UnprivilegedBpf::Disabled));
        assert_eq!(UnprivilegedBpf::parse("3"), None);
    }

    #[test]
    fn this_kernel_has_a_release_and_a_name() {
        let release = Release::read().unwrap();
        assert!(release.version.unwrap() >= (5, 10), "{release:?}");
        assert_eq!(
            host_name().unwrap(),
            nix::unistd::gethostname().unwrap().to_string_lossy()
        );
    }

    proptest! {
        #[test]
        fn any_release_parses_without_panic(text in ".*") {
            let release = Release::parse(&text);
            prop_assert_eq!(release.text, text.trim());
        }
    }
}
