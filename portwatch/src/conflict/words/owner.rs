//! Who has a socket, and in which role: that decides how to call them and how to get rid of them.

use super::Case;
use crate::event::{Container, Creator, Occupant, Owner, Process, Task, name};

/// Programs that hold a host's port in order to forward it to a container.
const FORWARDERS: [&str; 7] = [
    "docker-proxy",
    "rootlesskit",
    "rootlessport",
    "containerd-rootless",
    "slirp4netns",
    "pasta",
    "gvproxy",
];

/// How a process is called.
pub(super) fn called(occupant: &Occupant) -> &str {
    occupant.name().unwrap_or("a process")
}

/// How the caller is called.
pub(super) fn caller<'a>(case: &Case<'a>) -> &'a str {
    known_as(&case.event.task, case.process)
}

/// How a process is called that makes a call.
pub(super) fn known_as<'a>(task: &'a Task, process: &'a Process) -> &'a str {
    let first = process.args.as_deref().and_then(<[String]>::first);
    name(task, process, first).unwrap_or("the process")
}

/// A unit that is stopped and started as a service.
pub(super) fn service(unit: Option<&str>) -> Option<&str> {
    unit.filter(|unit| unit.ends_with(".service") && !unit.starts_with("user@"))
}

/// Whether the caller itself has the socket.
pub(super) fn is_own(case: &Case<'_>, owner: &Owner) -> bool {
    let pid = case.event.task.pid;
    owner.processes.iter().any(|other| other.task.pid == pid)
}

/// ` and 4 others` that have the caller's socket too.
pub(super) fn besides(case: &Case<'_>, owner: &Owner) -> String {
    let pid = case.event.task.pid;
    let others = owner.processes.iter().filter(|other| other.task.pid != pid);
    let (by_systemd, others): (Vec<_>, Vec<_>) = others.partition(|other| is_systemd(other));
    let count = match others.len() {
        0 => String::new(),
        1 => "1 other".to_owned(),
        more => format!("{more} others"),
    };
    match (count.is_empty(), by_systemd.is_empty()) {
        (true, true) => String::new(),
        (true, false) => " and systemd".to_owned(),
        (false, true) => format!(" and {count}"),
        (false, false) => format!(", {count} and systemd"),
    }
}

/// How two processes run one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Same {
    /// They execute the same file.
    Program,
    /// They execute an interpreter, with the same arguments.
    Command,
}

/// Whether the caller is another process of the same program, started by itself.
pub(super) fn same_program(case: &Case<'_>, other: &Occupant) -> Option<Same> {
    let Case { event, process, .. } = case;
    if event.task.pid == other.task.pid || kin(case, other).is_some() {
        return None;
    }
    same(process, &other.process)
}

/// Whether a process runs the program that the caller runs.
pub(super) fn runs_same(case: &Case<'_>, other: &Occupant) -> bool {
    same(case.process, &other.process).is_some()
}

/// Which of two processes has started the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kin {
    /// The other one is the caller's parent.
    Parent,
    /// The caller has started the other one.
    Child,
}

/// How a process is related to the caller. Everybody's parent, the first process, is nobody's.
pub(super) fn kin(case: &Case<'_>, other: &Occupant) -> Option<Kin> {
    let (own, other) = (&case.event.task, &other.task);
    if own.parent_pid == Some(other.pid) && other.pid > 1 {
        Some(Kin::Parent)
    } else if other.parent_pid == Some(own.pid) && own.pid > 1 {
        Some(Kin::Child)
    } else {
        None
    }
}

/// Whether a process is the caller.
pub(super) fn is_caller(case: &Case<'_>, other: &Task) -> bool {
    let own = &case.event.task;
    // Pids are given out again.
    let starts = own.start_boot.zip(other.start_boot);
    own.pid == other.pid && starts.is_none_or(|(one, other)| one == other)
}

fn same(process: &Process, other: &Process) -> Option<Same> {
    let path = process.executable_path.as_deref();
    if path.is_none() || path != other.executable_path.as_deref() {
        return None;
    }
    // That two processes execute an interpreter does not make them the same program.
    if !process.runs_others() {
        return Some(Same::Program);
    }
    (process.args.is_some() && process.args == other.args).then_some(Same::Command)
}

/// Who got the port and has no descriptor of the socket any more, where others have.
fn former(owner: &Owner) -> Option<&Creator> {
    let creator = owner.creator.as_deref()?;
    let pid = creator.occupant.task.pid;
    let still_has_it = owner.processes.iter().any(|other| other.task.pid == pid);
    (!still_has_it).then_some(creator)
}

/// The process that got the port, where it is gone and left the socket to others.
pub(super) fn deceased(owner: &Owner) -> Option<&Occupant> {
    let creator = former(owner).filter(|creator| creator.exited)?;
    Some(&creator.occupant)
}

/// The process that got the port and then left the socket to a process of another program; the caller to
/// any.
pub(super) fn testator<'a>(case: &Case<'_>, owner: &'a Owner) -> Option<(&'a Occupant, bool)> {
    let creator = former(owner)?;
    let task = &creator.occupant.task;
    // A server that goes into the background binds first and forks then.
    let heir_is_alike = owner.processes.first().is_some_and(|heir| {
        match paths(&creator.occupant, heir) {
            Some((path, of_heir)) => path == of_heir,
            // A thread's name says nothing about the program.
            None => task.comm == heir.task.comm || task.tid != task.pid,
        }
    });
    (!heir_is_alike || is_caller(case, task)).then_some((&creator.occupant, creator.exited))
}

/// The executables of two processes, where both are known.
pub(super) fn paths<'a>(one: &'a Occupant, other: &'a Occupant) -> Option<(&'a str, &'a str)> {
    let path = |of: &'a Occupant| of.process.executable_path.as_deref();
    path(one).zip(path(other))
}

/// Whether a process forwards to a container; if so, and if its arguments tell, where to.
pub(super) fn forwards(occupant: &Occupant) -> Option<Option<String>> {
    let names = [
        occupant.process.executable_name(),
        occupant.task.comm.as_deref(),
    ];
    // The kernel cuts names off, and some have a variant behind a dot or dash (`pasta.avx2`).
    let is_one = names.iter().flatten().any(|name| {
        FORWARDERS.iter().any(|known| {
            name.strip_prefix(known)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
                || (name.len() == 15 && known.starts_with(name))
        })
    });
    is_one.then(|| target(occupant.process.args.as_deref().unwrap_or_default()))
}

/// Where docker-proxy forwards to.
fn target(args: &[String]) -> Option<String> {
    let value = |name: &str| {
        let place = args.iter().position(|arg| arg == name)?;
        args.get(place + 1)
    };
    let (address, port) = (value("-container-ip")?, value("-container-port")?);
    let address: std::net::IpAddr = address.parse().ok()?;
    Some(std::net::SocketAddr::new(address, port.parse().ok()?).to_string())
}

/// Whether a process is systemd, of the system or of a user: it opens sockets for others.
pub(super) fn is_systemd(occupant: &Occupant) -> bool {
    occupant.process.executable_name() == Some("systemd")
        || occupant.task.pid == 1 && occupant.task.comm.as_deref() == Some("systemd")
}

/// The service or socket unit of an owner. Scopes (a login, an application) are no places where
/// something is started again, and a user's whole manager is not what one would stop.
pub(super) fn unit(owner: &Owner) -> Option<&str> {
    owner
        .systemd_unit
        .as_deref()
        .or_else(|| owner.processes.first()?.process.systemd_unit.as_deref())
        .filter(|unit| unit.ends_with(".service") || unit.ends_with(".socket"))
        .filter(|unit| !unit.starts_with("user@"))
}

/// Units that run what their users like; to stop them would stop all of that.
const HOSTS: [&str; 8] = [
    "cron",
    "crond",
    "cronie",
    "atd",
    "ssh",
    "sshd",
    "supervisor",
    "supervisord",
];

/// Whether `unit` only started the first process of an owner, and is not what that belongs to.
pub(super) fn only_started(unit: &str, owner: &Owner) -> bool {
    let name = stem(unit).split('@').next().unwrap_or_default();
    let is_its_own = owner.processes.first().is_some_and(|first| {
        // `ssh` in ssh.service is somebody's tunnel.
        let program = if name == "ssh" { "sshd" } else { name };
        let names = [Some(called(first)), first.task.comm.as_deref()];
        first.task.parent_pid == Some(1) && names.iter().flatten().any(|it| it.starts_with(program))
    });
    HOSTS.contains(&name) && !is_its_own
}

/// `nginx` of `nginx.service` and `nginx.socket`.
pub(super) fn stem(unit: &str) -> &str {
    unit.rsplit_once('.').map_or(unit, |(stem, _)| stem)
}

/// The container of an owner.
pub(super) fn container(owner: &Owner) -> Option<&Container> {
    owner.processes.first()?.process.container.as_ref()
}

/// The start of a container's id, as the runtimes print it.
pub(super) fn short(container: &Container) -> String {
    container.id.chars().take(12).collect()
}

/// `A (pid 812)`
pub(super) fn with_pid(occupant: &Occupant) -> String {
    let Task { pid, .. } = occupant.task;
    format!("{} (pid {pid})", called(occupant))
}

/// ` and 4 more`, behind the pid of the first of several processes; systemd, which keeps sockets open
/// for others, is named.
pub(super) fn others(owner: &Owner) -> String {
    let Some((first, rest)) = owner.processes.split_first() else {
        return String::new();
    };
    let by_systemd = !is_systemd(first) && rest.iter().any(is_systemd);
    let more = rest.len() - usize::from(by_systemd);
    match (more, by_systemd) {
        (0, false) => String::new(),
        (0, true) => " and systemd".to_owned(),
        (_, false) => format!(" and {more} more"),
        (_, true) => format!(", {more} more and systemd"),
    }
}

/// `, perhaps others too`, where not all processes could be looked at.
pub(super) fn perhaps(owner: &Owner) -> &'static str {
    if owner.incomplete {
        ", perhaps others too"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]
    use super::*;
    use crate::sample;

    #[test]
    fn one_interpreter_runs_many_programs() {
        let run = |path: &str, args: &[&str]| sample::process(path, args);
        for (one, other, expected) in [
            (
                run("/usr/sbin/nginx", &["nginx"]),
                run("/usr/sbin/nginx", &["nginx: master"]),
                Some(Same::Program),
            ),
            (
                run("/usr/sbin/nginx", &["nginx"]),
                run("/opt/sbin/nginx", &["nginx"]),
                None,
            ),
            (
                run("/usr/bin/python3.11", &["python3", "a.py"]),
                run("/usr/bin/python3.11", &["python3", "b.py"]),
                None,
            ),
            (
                run("/usr/bin/python3.11", &["python3", "a.py"]),
                run("/usr/bin/python3.11", &["python3", "a.py"]),
                Some(Same::Command),
            ),
            (
                run("/usr/sbin/php-fpm8.2", &["a"]),
                run("/usr/sbin/php-fpm8.2", &["b"]),
                Some(Same::Program),
            ),
        ] {
            assert_eq!(same(&one, &other), expected, "{one:?} {other:?}");
        }
        assert_eq!(same(&Process::default(), &Process::default()), None);
    }

    #[test]
    fn forwarders_are_known_by_name() {
        let run = |comm: &str, path: Option<&str>, args: &[&str]| {
            let mut process = sample::process(path.unwrap_or("/x"), args);
            process.executable_path = path.map(str::to_owned);
            forwards(&Occupant {
                task: Task {
                    comm: Some(comm.to_owned()),
                    ..Task::default()
                },
                process: process.into(),
            })
        };
        let args = [
            "/usr/bin/docker-proxy",
            "-container-ip",
            "172.17.0.2",
            "-container-port",
            "80",
        ];
        let target = run("docker-proxy", Some("/usr/bin/docker-proxy"), &args);
        assert_eq!(target.unwrap().as_deref(), Some("172.17.0.2:80"));
        for comm in [
            "rootlessport",
            "pasta.avx2",
            "containerd-root",
            "rootlesskit-doc",
        ] {
            assert_eq!(run(comm, None, &[]), Some(None), "{comm}");
        }
        for comm in ["pastaship", "docker", "nginx", "containerd"] {
            assert_eq!(run(comm, None, &[]), None, "{comm}");
        }
    }
}
