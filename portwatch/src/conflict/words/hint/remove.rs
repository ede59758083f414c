//! How to get a holder off a port, so that it stays off: what a unit, a runtime or a supervisor would
//! start again is stopped through that.

use super::super::{
    Case,
    owner::{called, container, forwards, is_own, is_systemd, others, short, stem, unit},
};
use crate::event::Owner;

/// What to do about the owners of all sockets in the way, as choices; empty where nothing is known.
pub(super) fn choices(case: &Case<'_>) -> Vec<String> {
    let mut ways = Vec::new();
    for (_, owner) in case.held() {
        for way in ways_of(case, owner) {
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
    }
    let owners = case.verdict.culprits.len();
    match &ways[..] {
        // Alternatives of one owner.
        _ if owners == 1 => ways,
        [] | [_] => ways,
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
    if let Some(container) = container(owner).filter(|container| outside(&container.id)) {
        let id = short(container);
        return vec![if is_in(owner, "kubepods") {
            // Its kubelet would start it again.
            format!("delete the pod of container {id}")
        } else {
            format!("stop container {id}")
        }];
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
    vec![format!(
        "stop {} (pid {}{})",
        called(first),
        first.task.pid,
        others(owner)
    )]
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

fn is_in(owner: &Owner, part: &str) -> bool {
    owner
        .processes
        .first()
        .and_then(|first| first.process.cgroup.as_deref())
        .is_some_and(|cgroup| cgroup.contains(part))
}
