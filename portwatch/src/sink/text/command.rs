//! The command column.

use crate::{
    event::{Process, Task, Via, name},
    sink::escape::Escape,
};

/// Appends the name by which a person knows the process, and its arguments.
pub(super) fn command(
    out: &mut Escape<'_>,
    task: &Task,
    process: &Process,
    via: Option<Via>,
    with_args: bool,
) {
    let args = process.args.as_deref().filter(|_| with_args).unwrap_or(&[]);
    match name(task, process, args.first()) {
        Some(name) => out.push(name),
        None if via == Some(Via::Kernel) => out.push("kernel"),
        None => out.push("-"),
    }
    for arg in args.iter().skip(1) {
        out.push(" ");
        out.push(arg);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]
    use super::*;

    #[test]
    fn the_name_that_a_person_expects() {
        for (comm, path, args, expected) in [
            ("node", "/usr/bin/node", "node server.js", "node server.js"),
            (
                "python3",
                "/usr/bin/python3.11",
                "/usr/bin/python3 -m http.server",
                "python3 -m http.server",
            ),
            ("nc", "/bin/busybox", "nc -l", "nc -l"),
            ("nginx", "/usr/sbin/nginx", "nginx: worker process", "nginx"),
            ("bash", "/bin/bash", "-bash", "bash"),
            // A script: the kernel names the task after it.
            (
                "server.py",
                "/usr/bin/python3.11",
                "python3 ./server.py",
                "python3.11 ./server.py",
            ),
            (
                "victoria-metric",
                "/opt/victoria-metrics-prod",
                "/opt/victoria-metrics-prod -x",
                "victoria-metrics-prod -x",
            ),
            // A lie in the first argument and in the name.
            ("sshd", "/tmp/miner", "[kworker/0:1]", "miner"),
            ("nc", "/bin/busybox", "", "nc"),
            (
                "victoria-metric",
                "/opt/victoria-metrics-prod",
                "",
                "victoria-metrics-prod",
            ),
            ("kworker/0:1", "", "", "kworker/0:1"),
            ("", "/bin/true", "", "true"),
            ("", "", "", "-"),
        ] {
            let task = Task {
                comm: (!comm.is_empty()).then(|| comm.to_owned()),
                ..Task::default()
            };
            let process = Process {
                executable_path: (!path.is_empty()).then(|| path.to_owned()),
                args: (!args.is_empty()).then(|| {
                    if args.contains(": ") {
                        vec![args.to_owned()]
                    } else {
                        args.split(' ').map(str::to_owned).collect()
                    }
                }),
                ..Process::default()
            };
            assert_eq!(shown(&task, &process, true), expected);
        }
    }

    #[test]
    fn threads_go_by_the_name_of_their_program() {
        let task = Task {
            pid: 1,
            tid: 2,
            comm: Some("http-nio-8080".into()),
            ..Task::default()
        };
        let process = Process {
            executable_path: Some("/usr/bin/java".into()),
            ..Process::default()
        };
        assert_eq!(shown(&task, &process, true), "java");
    }

    #[test]
    fn no_args() {
        let task = Task {
            comm: Some("curl".into()),
            ..Task::default()
        };
        let process = Process {
            executable_path: Some("/usr/bin/curl".into()),
            args: Some(vec!["curl".into(), "--user=secret".into()]),
            ..Process::default()
        };
        assert_eq!(shown(&task, &process, false), "curl");
    }

    fn shown(task: &Task, process: &Process, args: bool) -> String {
        let mut out = Vec::new();
        command(
            &mut Escape::new(&mut out, usize::MAX),
            task,
            process,
            None,
            args,
        );
        String::from_utf8(out).unwrap()
    }
}
