//! The name by which a person knows a process.

use super::{Occupant, Process, Task};

/// Programs that run others, whose names say little: interpreters, and one file for many commands.
const RUNNERS: &[&str] = &[
    "python",
    "pypy",
    "graalpy",
    "node",
    "nodejs",
    "deno",
    "bun",
    "electron",
    "java",
    "ruby",
    "perl",
    "php",
    "lua",
    "luajit",
    "dotnet",
    "mono",
    "mono-sgen",
    "beam.smp",
    "erl",
    "escript",
    "tclsh",
    "wish",
    "expect",
    "guile",
    "racket",
    "sbcl",
    "clisp",
    "ocamlrun",
    "R",
    "Rscript",
    "julia",
    "raku",
    "awk",
    "gawk",
    "mawk",
    "wine",
    "wine-preloader",
    "ld-linux-x86-64.so",
    "ld-linux-aarch64.so",
    "busybox",
    "toybox",
    "bash",
    "dash",
    "ash",
    "ksh",
    "tcsh",
    "fish",
    "sh",
    "zsh",
    "pwsh",
];

/// The first argument's base name where it is a name that the kernel confirms (`nc` of `busybox`,
/// `python3` of `python3.11`): it keeps 15 bytes, and what is longer is not confirmed. What a process
/// or its parent made up (`nginx: worker process`, `-bash`) is not either. Else the executable, else
/// the task's name, which a process may choose.
///
/// `first`: the first argument, where arguments are wanted.
#[must_use]
pub fn name<'a>(
    task: &'a Task,
    process: &'a Process,
    first: Option<&'a String>,
) -> Option<&'a str> {
    let comm = task.comm.as_deref().filter(|comm| !comm.is_empty());
    let typed = first.and_then(|first| first.rsplit('/').next());
    match (typed, process.executable_name(), comm) {
        (Some(typed), _, Some(comm)) if comm == typed => Some(typed),
        // Without arguments the task's name tells `nc` from `busybox`, unless it was cut, or is a
        // thread's.
        (None, Some(_), Some(comm))
            if process.runs_others() && task.tid == task.pid && comm.len() < 15 =>
        {
            Some(comm)
        }
        (_, Some(executable), _) => Some(executable),
        (_, None, comm) => comm,
    }
}

impl Process {
    /// Whether it is the program that it runs that matters, and not its executable.
    #[must_use]
    pub fn runs_others(&self) -> bool {
        let version = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-');
        self.executable_name()
            .is_some_and(|name| RUNNERS.contains(&name.trim_end_matches(version)))
    }
}

impl Occupant {
    /// See [`name`].
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        let first = self.process.args.as_deref().and_then(<[String]>::first);
        name(&self.task, &self.process, first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn only_confirmed_names_count() {
        for (comm, path, first, expected) in [
            ("nc", "/bin/busybox", Some("nc"), "nc"),
            ("nc", "/bin/busybox", None, "nc"),
            ("python3", "/usr/bin/python3.11", Some("python3"), "python3"),
            ("nginx", "/usr/sbin/nginx", Some("nginx: master"), "nginx"),
            // 15 bytes say nothing of the rest.
            (
                "systemd-resolve",
                "/usr/lib/systemd/systemd-resolved",
                Some("systemd-resolve-or-not"),
                "systemd-resolved",
            ),
            ("sshd", "/tmp/miner", None, "miner"),
            ("a-busybox-apple", "/bin/busybox", None, "busybox"),
        ] {
            let mut process = sample::process(path, &[]);
            process.args = first.map(|first| vec![first.to_owned()]);
            let task = Task {
                comm: Some(comm.to_owned()),
                ..Task::default()
            };
            let occupant = Occupant {
                task,
                process: process.into(),
            };
            assert_eq!(occupant.name(), Some(expected), "{comm} {path} {first:?}");
        }
    }
}
