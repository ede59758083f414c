//! The fields of a process: the caller, and those that have a socket in its way.

use super::object::{Object, key, string};
use crate::{
    event::{Container, Occupant, Process, Task},
    sink::clock::Clock,
};

/// How processes beside the caller are written.
pub(super) struct People<'a> {
    /// With their arguments.
    pub(super) args: bool,
    /// Writes times.
    pub(super) clock: &'a mut Clock,
    /// Gives each a number that stands for it; without, they are written out.
    pub(super) number: Option<&'a mut dyn FnMut(&Occupant) -> i64>,
}

impl<'a> People<'a> {
    /// Processes are written out.
    pub(super) fn in_full(args: bool, clock: &'a mut Clock) -> Self {
        Self {
            args,
            clock,
            number: None,
        }
    }
}

/// The fields of a process beside the caller.
pub(super) fn occupant(part: &mut Object<'_>, occupant: &Occupant, people: &mut People<'_>) {
    let Occupant { task, process } = occupant;
    match &mut people.number {
        None => fields(part, task, process, people.args, people.clock),
        Some(number) => {
            part.number(key!("id"), number(occupant));
            // Its name may be that of a thread.
            let thread = (task.tid != task.pid).then_some(task.tid);
            part.maybe_number(key!("thread"), thread);
        }
    }
}

/// The fields of `process`; `args`: with the arguments.
pub(super) fn fields(
    part: &mut Object<'_>,
    task: &Task,
    process: &Process,
    args: bool,
    clock: &mut Clock,
) {
    let Task {
        pid,
        tid: _, // the caller's is `thread.id`
        parent_pid,
        vpid,
        uid,
        comm,
        start_boot: _, // printed as creation.time
        key: _,        // means nothing to others
        cgroup: _,     // printed by path
    } = task;
    let Process {
        executable_path,
        args: arguments,
        creation,
        user_name,
        cgroup,
        container: _, // beside the process, as is the next
        systemd_unit: _,
    } = process;
    part.number(key!("pid"), *pid);
    part.maybe_number(key!("parent_pid"), *parent_pid);
    part.maybe_number(key!("vpid"), *vpid);
    part.text(key!("comm"), comm.as_deref());
    part.object(key!("executable"), |part| {
        part.text(key!("name"), process.executable_name());
        part.text(key!("path"), executable_path.as_deref());
    });
    if let Some(arguments) = arguments.as_deref().filter(|_| args) {
        part.list(key!("command_args"), arguments, |out, arg| string(out, arg));
    }
    if let Some(creation) = *creation {
        part.object(key!("creation"), |part| {
            part.time(key!("time"), clock, creation);
        });
    }
    part.object(key!("user"), |part| {
        part.number(key!("id"), *uid);
        part.text(key!("name"), user_name.as_deref());
    });
    part.object(key!("linux"), |part| {
        part.text(key!("cgroup"), cgroup.as_deref());
    });
}

/// `container`
pub(super) fn container(part: &mut Object<'_>, container: Option<&Container>) {
    if let Some(Container { id, runtime }) = container {
        part.object(key!("container"), |part| {
            part.text(key!("id"), id.as_str());
            part.object(key!("runtime"), |part| part.word(key!("name"), *runtime));
        });
    }
}

/// `systemd`
pub(super) fn unit(part: &mut Object<'_>, unit: Option<&str>) {
    part.object(key!("systemd"), |part| part.text(key!("unit"), unit));
}
