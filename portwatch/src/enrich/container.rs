//! The container of a cgroup path. Runtimes name the cgroup after the container, each in its way.

use super::unit::unescape;
use crate::event::Container;

/// Runtimes that put their name before the id: `docker-ID.scope` (systemd driver), `crio-ID`
/// (cgroupfs driver), `…slice:cri-containerd:ID` (a systemd path given to the cgroupfs driver).
/// Monitors such as `libpod-conmon-ID` run outside the container and do not match: what follows the
/// prefix is no id.
const PREFIXES: [(&str, &str); 7] = [
    ("docker", "docker"),
    ("cri-containerd", "containerd"),
    ("nerdctl", "containerd"),
    ("crio", "cri-o"),
    ("libpod", "podman"),
    ("libpod-payload", "podman"),
    ("buildkit", "buildkit"),
];

/// The innermost container on a path in a cgroup hierarchy.
#[must_use]
pub fn of_cgroup(path: &str) -> Option<Container> {
    let mut parts = path.rsplit('/').filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        let found = of_part(part, parts.peek().copied().unwrap_or_default());
        if found.is_some() {
            return found;
        }
    }
    None
}

/// What one part of a path says, given the part above it.
fn of_part(part: &str, parent: &str) -> Option<Container> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    prefixed(name)
        .or_else(|| by_parent(name, parent))
        .or_else(|| machine(part, parent))
        .or_else(|| {
            // Kubernetes with the cgroupfs driver (kubepods/…/podUID/ID), Amazon ECS, and the like:
            // a container for sure, of a runtime that the path does not tell.
            is_id(name).then(|| container(name, None))
        })
}

fn prefixed(name: &str) -> Option<Container> {
    if let Some((rest, id)) = name.rsplit_once(':') {
        let prefix = rest.rsplit_once(':')?.1;
        let (_, runtime) = PREFIXES.into_iter().find(|(p, _)| *p == prefix)?;
        let valid = is_id(id) || (runtime == "buildkit" && is_short_id(id));
        return valid.then(|| container(id, Some(runtime)));
    }
    let (prefix, id) = name.rsplit_once('-')?;
    let (_, runtime) = PREFIXES.into_iter().find(|(p, _)| *p == prefix)?;
    is_id(id).then(|| container(id, Some(runtime)))
}

fn by_parent(name: &str, parent: &str) -> Option<Container> {
    if let Some(name) = name.strip_prefix("lxc.payload.") {
        return by_parent(name, "lxc.payload");
    }
    match parent {
        _ if name.is_empty() => None,
        "docker" if is_id(name) => Some(container(name, Some("docker"))),
        "buildkit" if is_short_id(name) => Some(container(name, Some("buildkit"))),
        "garden" => Some(container(name, Some("garden"))),
        "lxc" | "lxc.payload" => Some(container(name, Some("lxc"))),
        _ => None,
    }
}

/// systemd-nspawn: as a service (`systemd-nspawn@NAME.service`) or started by hand
/// (`machine-NAME.scope`). libvirt registers its guests as machines too, with its driver's name in
/// front.
fn machine(part: &str, parent: &str) -> Option<Container> {
    let name = part
        .strip_prefix("systemd-nspawn@")
        .and_then(|rest| rest.strip_suffix(".service"))
        .or_else(|| {
            (parent == "machine.slice")
                .then(|| part.strip_prefix("machine-")?.strip_suffix(".scope"))
                .flatten()
        })?;
    let name = unescape(name);
    let guest = ["qemu-", "lxc-", "xen-", "ch-"]
        .iter()
        .any(|driver| name.starts_with(driver));
    (!guest && !name.is_empty()).then(|| container(&name, Some("systemd-nspawn")))
}

fn container(id: &str, runtime: Option<&'static str>) -> Container {
    Container {
        id: id.to_owned(),
        runtime,
    }
}

/// A container id as runtimes make them: 64 hex digits.
fn is_id(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// An id of buildkit: 25 digits and lower-case letters.
fn is_short_id(text: &str) -> bool {
    text.len() == 25
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "4a1bd1c1f2d0a2c7b6c0e2a8f4c1b7f0d9e8c7b6a5f4e3d2c1b0a9f8e7d6c5b4";
    const OUTER: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

    fn check(path: &str, expected: Option<(&str, Option<&str>)>) {
        let found = of_cgroup(path);
        let found = found
            .as_ref()
            .map(|container| (container.id.as_str(), container.runtime));
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn paths_of_real_runtimes() {
        for (path, runtime) in [
            ("/system.slice/docker-ID.scope", Some("docker")),
            ("/docker/ID", Some("docker")),
            ("/docker/ID/init.scope", Some("docker")),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
                Some("docker"),
            ),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod8a_1.slice/cri-containerd-ID.scope",
                Some("containerd"),
            ),
            (
                "/system.slice/containerd.service/kubepods-burstable-pod8a.slice:cri-containerd:ID",
                Some("containerd"),
            ),
            ("/system.slice/nerdctl-ID.scope", Some("containerd")),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/crio-ID.scope/container",
                Some("cri-o"),
            ),
            ("/kubepods/besteffort/pod1/crio-ID", Some("cri-o")),
            ("/machine.slice/libpod-ID.scope/container", Some("podman")),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
                Some("podman"),
            ),
            (
                "/system.slice/web.service/libpod-payload-ID",
                Some("podman"),
            ),
            ("/libpod_parent/libpod-ID", Some("podman")),
            ("/kubepods/burstable/pod5b6e/ID", None),
            ("/ecs/0f1e/ID", None),
            ("/docker/OUTER/kubepods/pod1/ID", None),
            ("/system.slice/docker-OUTER.scope/docker/ID", Some("docker")),
        ] {
            let path = path.replace("ID", ID).replace("OUTER", OUTER);
            check(&path, Some((ID, runtime)));
        }
    }

    #[test]
    fn containers_with_names() {
        check(
            "/lxc.payload.web/system.slice/nginx.service",
            Some(("web", Some("lxc"))),
        );
        check("/lxc.payload/web", Some(("web", Some("lxc"))));
        check("/lxc/web/init.scope", Some(("web", Some("lxc"))));
        check("/garden/0b1c", Some(("0b1c", Some("garden"))));
        check(
            r"/machine.slice/systemd-nspawn@my\x2dbox.service/payload",
            Some(("my-box", Some("systemd-nspawn"))),
        );
        check(
            "/machine.slice/machine-box.scope/payload",
            Some(("box", Some("systemd-nspawn"))),
        );
        check(
            "/docker/buildkit/k0r4ld2lvi7xlyy2hqgbsjmz1",
            Some(("k0r4ld2lvi7xlyy2hqgbsjmz1", Some("buildkit"))),
        );
        check(
            "/system.slice:buildkit:k0r4ld2lvi7xlyy2hqgbsjmz1",
            Some(("k0r4ld2lvi7xlyy2hqgbsjmz1", Some("buildkit"))),
        );
    }

    #[test]
    fn what_is_no_container() {
        for path in [
            "/",
            "",
            "/system.slice/docker.service",
            "/system.slice/docker-abc.scope",
            "/system.slice/containerd.service",
            "/machine.slice/libpod-conmon-ID.scope",
            "/system.slice/crio-conmon-ID.scope",
            "/lxc.monitor.web",
            "/lxc.payload.",
            "/lxc/.scope",
            "/docker/buildkit",
            r"/machine.slice/machine-qemu\x2d1\x2dvm.scope",
            "/user.slice/machine-box.scope",
            "/process_api/f053d396aa2bc522fca9a0fcb01e30b4",
            "/system.slice/a:b",
            "/system.slice/x:docker:short",
        ] {
            check(&path.replace("ID", ID), None);
        }
        check(&format!("/docker/{}", ID.to_uppercase()), None);
    }

    proptest! {
        #[test]
        fn any_path_is_survived(path in r"(/(docker|lxc|machine|libpod|:|-|\.scope|\\x|é|[0-9a-f]{64}){0,4}){0,5}") {
            if let Some(container) = of_cgroup(&path) {
                prop_assert!(!container.id.is_empty());
            }
        }
    }
}
