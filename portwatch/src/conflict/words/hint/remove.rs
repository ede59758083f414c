//! How to get a holder off a port, so that it stays off: what a unit, a runtime or a supervisor would
//! start again is stopped through that.

use super::super::{
    Case,
    held::vanishes,
    owner::{
        Kin, called, container, forwards, is_own, is_systemd, kin, only_started, others, short,
        stem, unit,
    },
    supervisor,
};
use crate::event::{Owner, Process};

/// What to do about the owners of all sockets in the way, as choices; empty where nothing is known.
pub(super) fn choices(case: &Case<'_>) -> Vec<String> {
    let mut ways = Vec::new();
    let (mut is_enough, mut is_left) = (case.all_known(), case.all_known());
    let mut owners = 0;
    for (culprit, owner) in case.held().filter(|(culprit, _)| !vanishes(culprit)) {
        owners += 1;
        let of_owner = ways_of(case, owner);
        if of_owner.is_empty() {
            is_enough = false;
            // An orphan ends by itself.
            is_left &= culprit.holder.socket.inode.is_none();
        }
        for way in of_owner {
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
    }
    match &ways[..] {
        [] => ways,
        [way] if !is_enough && is_left => vec![format!("{way} and wait for the others")],
        [first, ..] if !is_enough => vec![format!("{first} and the others")],
        // Alternatives of one owner.
        _ if owners == 1 => ways,
        [_] => ways,
        [first, second] => vec![format!("{first} and {second}")],
        [first, ..] => vec![format!("{first} and the others")],
    }
}

fn ways_of(case: &Case<'_>, owner: &Owner) -> Vec<String> {
    let Some(first) = owner.processes.first() else {
        return Vec::new();
    };
    if is_own(case, owner) {
        // Others besides; the caller knows its own.
        return Vec::new();
    }
    if forwards(first).is_some() {
        return vec!["stop or re-map that container".to_owned()];
    }
    let unit = unit(owner);
    if let Some(unit) = unit.filter(|unit| unit.ends_with(".socket")) {
        return socket_unit(case, unit);
    }
    if is_systemd(first) {
        return vec![
            "stop the socket unit it belongs to".to_owned(),
            "take over its descriptor (LISTEN_FDS)".to_owned(),
        ];
    }
    // In the caller's own container and unit, that would stop the caller too.
    let outside = |id: &str| {
        case.process
            .container
            .as_ref()
            .is_none_or(|own| own.id != id)
    };
    if pod_mate(case, owner).is_some() {
        // What would stop it would stop the caller too.
        return Vec::new();
    }
    if let Some(container) = container(owner).filter(|container| outside(&container.id)) {
        let id = short(container);
        return vec![if is_in(owner, "kubepods") {
            // Its kubelet would start it again.
            format!("delete the pod of container {id}")
        } else {
            format!("stop container {id}")
        }];
    }
    let (name, pid) = (called(first), first.task.pid);
    if kin(case, first) == Some(Kin::Parent) {
        // It would take the caller along, or start it again.
        return vec![format!("have {name} (pid {pid}) close it or pass it on")];
    }
    if let Some(way) = supervisor::stop(owner) {
        return vec![way];
    }
    if let Some(unit) = unit.filter(|unit| only_started(unit, owner)) {
        return vec![format!(
            "stop {name} (pid {pid}{}), which {unit} started",
            others(owner)
        )];
    }
    if let Some(unit) = unit.filter(|unit| case.process.systemd_unit.as_deref() != Some(unit)) {
        let user = if is_in(owner, "/user@") {
            " (systemctl --user)"
        } else {
            ""
        };
        // systemd keeps what it passes on.
        let socket = if owner.processes.iter().any(is_systemd) {
            " and its socket unit"
        } else {
            ""
        };
        return vec![format!("stop {unit}{socket}{user}")];
    }
    // Of a machine or a container, the first process is not one to stop.
    if first.task.pid == 1 || first.task.vpid == Some(1) && container(owner).is_some() {
        return Vec::new();
    }
    vec![format!("stop {name} (pid {pid}{})", others(owner))]
}

/// A socket that systemd opened before the program that is to use it.
fn socket_unit(case: &Case<'_>, unit: &str) -> Vec<String> {
    let own = case.process.systemd_unit.as_deref().map(stem);
    if own == Some(stem(unit)) {
        return vec![format!(
            "take the socket that {unit} hands to you (LISTEN_FDS, from descriptor 3 on)"
        )];
    }
    vec![
        format!("stop {unit}"),
        "take over its descriptor (LISTEN_FDS)".to_owned(),
    ]
}

/// The container of an owner, if it is another one of the caller's pod.
pub(super) fn pod_mate(case: &Case<'_>, owner: &Owner) -> Option<String> {
    let its = container(owner)?;
    let first = owner.processes.first()?;
    let is_mate = pod(case.process).is_some_and(|own| pod(&first.process) == Some(own))
        && case
            .process
            .container
            .as_ref()
            .is_none_or(|own| own.id != its.id);
    is_mate.then(|| short(its))
}

/// The id of a process's pod: `/kubepods/burstable/podUID/…`, or
/// `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice/…` of systemd.
fn pod(process: &Process) -> Option<&str> {
    let cgroup = process.cgroup.as_deref()?;
    let mut parts = cgroup.split('/').filter(|_| cgroup.contains("kubepods"));
    parts.find_map(|part| {
        let part = part.strip_suffix(".slice").unwrap_or(part);
        let behind = part.rsplit_once("-pod").map(|(_, id)| id);
        part.strip_prefix("pod").or(behind)
    })
}

fn is_in(owner: &Owner, part: &str) -> bool {
    owner
        .processes
        .first()
        .and_then(|first| first.process.cgroup.as_deref())
        .is_some_and(|cgroup| cgroup.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_by_their_cgroups() {
        for (cgroup, expected) in [
            ("/kubepods/burstable/pod1b-2/0a1b", Some("1b-2")),
            ("/kubepods/pod1b-2/0a1b", Some("1b-2")),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1b_2.slice/x.scope",
                Some("1b_2"),
            ),
            (
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod1b_2.slice/x.scope",
                Some("1b_2"),
            ),
            ("/system.slice/podman.service", None),
            ("/kubepods.slice", None),
            ("/", None),
        ] {
            let process = Process {
                cgroup: Some(cgroup.to_owned()),
                ..Process::default()
            };
            assert_eq!(pod(&process), expected, "{cgroup}");
        }
    }
}
