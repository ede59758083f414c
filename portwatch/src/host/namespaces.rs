//! Whether this process sees the machine or a part of it: namespaces and containers.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// A kind of namespace (namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Process ids.
    Pid,
    /// Users and capabilities.
    User,
    /// Cgroup paths.
    Cgroup,
    /// Sockets and interfaces.
    Net,
}

impl Kind {
    /// Name of the link under `/proc/PID/ns`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pid => "pid",
            Self::User => "user",
            Self::Cgroup => "cgroup",
            Self::Net => "net",
        }
    }

    /// Inode of the first namespace of this kind, for the kinds where the kernel fixes it
    /// (include/linux/proc_ns.h). The first network namespace has one only from 6.18 on.
    const fn initial_inode(self) -> Option<u64> {
        match self {
            Self::Cgroup => Some(0xEFFF_FFFB),
            Self::Pid => Some(0xEFFF_FFFC),
            Self::User => Some(0xEFFF_FFFD),
            Self::Net => None,
        }
    }
}

/// Inode of this process' namespace of that kind.
#[must_use]
pub fn inode(kind: Kind) -> Option<u64> {
    let path = Path::new("/proc/self/ns").join(kind.as_str());
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

/// Whether this process is in the first namespace of that kind; `None` where that cannot be told.
#[must_use]
pub fn is_initial(kind: Kind) -> Option<bool> {
    Some(inode(kind)? == kind.initial_inode()?)
}

/// What hints at a container around this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerHints {
    /// What the environment or a marker file calls it: `docker`, `podman`, `lxc`, …
    pub runtime: Option<String>,
    /// In the first pid namespace. In any other, the pids in events are not those of this `/proc`.
    pub initial_pid_namespace: Option<bool>,
    /// In the first cgroup namespace. In any other, cgroup paths are relative.
    pub initial_cgroup_namespace: Option<bool>,
}

impl ContainerHints {
    /// Looks for marker files, `container=` in the environment and the inodes of the namespaces.
    #[must_use]
    pub fn read() -> Self {
        let environment = std::env::var("container").ok();
        let markers = [
            ("/run/.containerenv", "podman"),
            ("/.dockerenv", "docker"),
            ("/var/run/secrets/kubernetes.io", "kubernetes"),
        ];
        let marker = markers
            .into_iter()
            .find(|(path, _)| Path::new(path).exists())
            .map(|(_, runtime)| runtime);
        Self {
            runtime: runtime(environment.as_deref(), marker),
            initial_pid_namespace: is_initial(Kind::Pid),
            initial_cgroup_namespace: is_initial(Kind::Cgroup),
        }
    }
}

/// What cannot be seen from inside a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blindness {
    /// What, and why.
    pub what: &'static str,
    /// What to do about it.
    pub next: &'static str,
}

/// Of a pid namespace that is not the first.
pub const OWN_PIDS: Blindness = Blindness {
    what: "this is a pid namespace of its own: events show the machine's pids, and /proc here does not \
           know them",
    next: "run portwatch on the host, or the container with --pid=host",
};

/// Of a cgroup namespace that is not the first.
pub const OWN_CGROUPS: Blindness = Blindness {
    what: "this is a cgroup namespace of its own: units and containers of other processes may stay \
           unknown",
    next: "run portwatch on the host, or the container with --cgroupns=host",
};

impl ContainerHints {
    /// What cannot be seen from here.
    pub fn blindness(&self) -> impl Iterator<Item = Blindness> {
        let Self {
            runtime: _, // a name hides nothing
            initial_pid_namespace,
            initial_cgroup_namespace,
        } = self;
        [
            (*initial_pid_namespace, OWN_PIDS),
            (*initial_cgroup_namespace, OWN_CGROUPS),
        ]
        .into_iter()
        .filter_map(|(is_initial, blindness)| (is_initial == Some(false)).then_some(blindness))
    }
}

/// `container=` is the interface that runtimes have agreed on (systemd's Container Interface); the
/// marker files are what those leave behind that do not keep to it.
fn runtime(environment: Option<&str>, marker: Option<&str>) -> Option<String> {
    environment
        .filter(|name| !name.is_empty())
        .or(marker)
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_environment_goes_before_marker_files() {
        assert_eq!(runtime(Some("lxc"), Some("docker")), Some("lxc".to_owned()));
        assert_eq!(runtime(Some(""), Some("docker")), Some("docker".to_owned()));
        assert_eq!(runtime(None, Some("podman")), Some("podman".to_owned()));
        assert_eq!(runtime(None, None), None);
    }

    #[test]
    fn what_is_not_known_hides_nothing() {
        let hints = |pid, cgroup| ContainerHints {
            runtime: Some("docker".to_owned()),
            initial_pid_namespace: pid,
            initial_cgroup_namespace: cgroup,
        };
        let seen = |hints: ContainerHints| hints.blindness().collect::<Vec<_>>();
        assert_eq!(seen(hints(None, Some(true))), []);
        assert_eq!(seen(hints(Some(false), None)), [OWN_PIDS]);
        assert_eq!(
            seen(hints(Some(false), Some(false))),
            [OWN_PIDS, OWN_CGROUPS]
        );
    }

    #[test]
    fn pid_1_of_the_machine_maps_all_users_or_this_is_no_initial_namespace() {
        // The first user namespace maps every id to itself; others rarely do.
        let map = fs::read_to_string("/proc/self/uid_map").unwrap();
        let identity: Vec<&str> = map.split_ascii_whitespace().collect();
        if is_initial(Kind::User).unwrap() {
            assert_eq!(identity, ["0", "0", "4294967295"]);
        }
    }

    #[test]
    fn the_inode_is_the_one_in_the_link() {
        for kind in [Kind::Pid, Kind::User, Kind::Cgroup, Kind::Net] {
            let name = kind.as_str();
            let link = fs::read_link(Path::new("/proc/self/ns").join(name)).unwrap();
            assert_eq!(
                link.to_string_lossy(),
                format!("{name}:[{}]", inode(kind).unwrap())
            );
        }
    }

    #[test]
    fn the_first_network_namespace_has_no_fixed_inode() {
        assert_eq!(is_initial(Kind::Net), None);
    }
}
