//! Programs that start others again when these end, and how each is told to stop one.

use super::owner::{called, stem, unit};
use crate::event::{Occupant, Owner, Task};

/// Supervisors: the kernel's name of their processes (at most 15 bytes; pm2's goes on with a version), what people call them, and the command that makes them stop a program.
const KNOWN: [(&str, &str, &str); 7] = [
    ("supervisord", "supervisord", "supervisorctl stop"),
    ("PM2 v", "pm2", "pm2 stop"),
    ("circusd", "circusd", "circusctl stop"),
    ("runsv", "runsv", "sv stop"),
    ("s6-supervise", "s6-supervise", "s6-svc -d"),
    ("supervise", "supervise", "svc -d"),
    (
        "supervise-daemo",
        "supervise-daemon",
        "rc-service NAME stop",
    ),
];

/// How to stop the first process of an owner where a supervisor started it: it would be back in a moment.
pub(super) fn stop(owner: &Owner) -> Option<String> {
    let first = owner.processes.first()?;
    let (supervisor, command) = owner
        .parent
        .as_deref()
        .and_then(of_parent)
        .or_else(|| of_unit(owner))?;
    let pid = first.task.pid;
    Some(format!(
        "stop {} (pid {pid}) through {supervisor} ({command}), which would start it again",
        called(first)
    ))
}

/// Whether a process is one of them.
#[must_use]
pub fn is_supervisor(task: &Task) -> bool {
    known(task).is_some()
}

fn known(task: &Task) -> Option<(&'static str, &'static str)> {
    let comm = task.comm.as_deref()?;
    let is_one = |known: &str| comm == known || known == "PM2 v" && comm.starts_with(known);
    let (_, name, command) = KNOWN.into_iter().find(|(known, ..)| is_one(known))?;
    Some((name, command))
}

fn of_parent(parent: &Occupant) -> Option<(&'static str, String)> {
    let (name, command) = known(&parent.task)?;
    // runsv(8) and the like have the service directory for an argument.
    let directory = matches!(name, "runsv" | "s6-supervise" | "supervise")
        .then(|| parent.process.args.as_deref()?.get(1).cloned())
        .flatten();
    let command = match directory {
        Some(directory) => format!("{command} {directory}"),
        None => command.to_owned(),
    };
    Some((name, command))
}

/// What runs in supervisord's unit and is not that is one of its programs, or what these have started.
fn of_unit(owner: &Owner) -> Option<(&'static str, String)> {
    let name = stem(unit(owner)?);
    let is_itself = owner
        .processes
        .first()
        .is_some_and(|first| first.task.comm.as_deref() == Some("supervisord"));
    (matches!(name, "supervisor" | "supervisord") && !is_itself)
        .then(|| ("supervisord", "supervisorctl stop".to_owned()))
}
