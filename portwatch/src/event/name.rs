//! The name by which a person knows a process.

use super::{Occupant, Process, Task};

/// The first argument's base name where it is a name that the kernel or the file system confirms
/// (`nc` of `busybox`, `python3` of `python3.11`); what a process or its parent made up
/// (`nginx: worker process`, `-bash`) is not. Else the executable, else the task's name.
///
/// `first`: the first argument, where arguments are wanted.
#[must_use]
pub fn name<'a>(
    task: &'a Task,
    process: &'a Process,
    first: Option<&'a String>,
) -> Option<&'a str> {
    let comm = task.comm.as_deref().filter(|comm| !comm.is_empty());
    let executable = process.executable_name();
    let typed = first.and_then(|first| first.rsplit('/').next());
    match (typed, executable, comm) {
        (Some(typed), _, Some(comm)) if is_comm_of(comm, typed) => Some(typed),
        (_, Some(executable), Some(comm)) if task.tid != task.pid => {
            // A thread's name says nothing about the program.
            Some(if is_comm_of(comm, executable) {
                comm
            } else {
                executable
            })
        }
        // Without arguments the task's name tells `nc` from `busybox`, unless it was cut.
        (None, Some(executable), Some(comm)) => {
            Some(if comm.len() < 15 { comm } else { executable })
        }
        (_, Some(executable), _) => Some(executable),
        (_, None, comm) => comm,
    }
}

/// Whether the kernel names a task `comm` that executes a file called `name`: it keeps 15 bytes.
fn is_comm_of(comm: &str, name: &str) -> bool {
    comm == name || (comm.len() == 15 && name.starts_with(comm))
}

impl Occupant {
    /// See [`name`].
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        let first = self.process.args.as_deref().and_then(<[String]>::first);
        name(&self.task, &self.process, first)
    }
}
