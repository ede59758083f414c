//! What the typed arguments mean. Pure but for [`Names`].

use std::{ffi::OsString, path::Path, time::Duration};

use clap::{CommandFactory, error::ErrorKind};
use thiserror::Error;

use super::{Cli, FilterArgs, KernelArgs, NetnsArg, OutputArgs, TraceArgs, UserArg};
use crate::{
    event::{Backend, Family, Transport},
    selection::Selection,
    sink::{Destination, Format, OutputOptions},
};

/// What `trace` is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceOptions {
    /// Which events.
    pub selection: Selection,
    /// The way into the kernel, `None` for the best.
    pub backend: Option<Backend>,
    /// Size of the ring buffer in bytes: a power of two, at least a page.
    pub buffer: u32,
    /// End after this time.
    pub duration: Option<Duration>,
    /// End after this many events; at least 1.
    pub count: Option<u64>,
    /// Show the arguments of processes.
    pub args: bool,
    /// The command to run and follow, program first; `None` without one, else never empty.
    pub command: Option<Vec<OsString>>,
    /// How and where to print.
    pub output: OutputOptions,
    /// What the user should know about how this was understood, for stderr.
    pub notes: Vec<String>,
}

/// Names that only the running system can resolve.
pub trait Names {
    /// The user id of a name.
    ///
    /// # Errors
    ///
    /// A sentence, when there is no such user or the user database cannot be read.
    fn user(&self, name: &str) -> Result<u32, String>;

    /// The inode of the network namespace that a file stands for.
    ///
    /// # Errors
    ///
    /// A sentence, when the file cannot be opened or is something else.
    fn netns(&self, path: &Path) -> Result<u32, String>;

    /// Size of a page of memory in bytes.
    fn page_size(&self) -> u64;
}

/// A value that parses but means nothing here. Usage: exit code 2.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("invalid value '{value}' for '{option}': {reason}")]
pub struct UsageError {
    /// The option, as `--help` names it.
    pub option: &'static str,
    /// What was typed.
    pub value: String,
    /// Why not.
    pub reason: String,
}

impl UsageError {
    /// As clap would report it: usage of the verb on stderr, exit code 2.
    #[must_use]
    pub fn into_clap(self, verb: &str) -> clap::Error {
        verb_error(verb, ErrorKind::ValueValidation, self)
    }
}

/// An error of ours in the arguments of a verb.
pub(super) fn verb_error(
    verb: &str,
    kind: ErrorKind,
    error: impl std::fmt::Display,
) -> clap::Error {
    let mut all = Cli::command();
    // Gives the verbs their full names.
    all.build();
    match all.find_subcommand_mut(verb) {
        Some(verb) => verb.error(kind, error),
        None => all.error(kind, error),
    }
}

impl OutputArgs {
    /// How and where to print; without `-w` to `default`.
    #[must_use]
    pub fn resolve(self, default: Destination) -> OutputOptions {
        let Self {
            output,
            write,
            numeric,
            color,
            quiet,
            verbose,
        } = self;
        OutputOptions {
            format: output,
            destination: match write {
                Some(path) if path.as_os_str() == "-" => Destination::Stdout,
                Some(path) => Destination::File(path),
                None => default,
            },
            numeric,
            color,
            quiet,
            verbosity: verbose,
        }
    }
}

impl FilterArgs {
    /// Which events were meant. `descendants`: of a command only; `brief`: see [`Selection::brief`].
    ///
    /// # Errors
    ///
    /// When a user or network namespace does not exist or cannot be looked up.
    pub(super) fn resolve(
        self,
        names: &impl Names,
        descendants: bool,
        brief: bool,
    ) -> Result<Selection, UsageError> {
        let Self {
            ports,
            peer_ports,
            pids,
            comms,
            uids,
            netns,
            cgroups,
            containers,
            tcp,
            udp,
            ipv4,
            ipv6,
            events,
            failed,
            conflicts,
        } = self;
        Ok(Selection {
            ports,
            peer_ports,
            pids,
            comms: comms.iter().map(|name| kernel_name(name)).collect(),
            uids: resolve_all(uids, |user| user_id(user, names))?,
            netns: resolve_all(netns, |netns| netns_inode(netns, names))?,
            cgroups: cgroups.iter().map(|path| cgroup_path(path)).collect(),
            containers,
            transports: [(tcp, Transport::Tcp), (udp, Transport::Udp)]
                .into_iter()
                .filter_map(|(wanted, transport)| wanted.then_some(transport))
                .collect(),
            families: [(ipv4, Family::Ipv4), (ipv6, Family::Ipv6)]
                .into_iter()
                .filter_map(|(wanted, family)| wanted.then_some(family))
                .collect(),
            events,
            failed,
            conflicts,
            descendants,
            brief,
        })
    }
}

impl TraceArgs {
    /// What was meant.
    ///
    /// # Errors
    ///
    /// When a user or network namespace does not exist or cannot be looked up.
    pub fn resolve(
        self,
        output: OutputArgs,
        names: &impl Names,
    ) -> Result<TraceOptions, UsageError> {
        let Self {
            filters,
            duration,
            count,
            no_args,
            kernel: KernelArgs { attach, buffer },
            command,
        } = self;

        let command = (!command.is_empty()).then_some(command);
        let mut notes = Vec::new();
        let output = output.resolve(if command.is_some() {
            Destination::Stderr
        } else {
            Destination::Stdout
        });
        let brief = output.format == Format::Text;
        Ok(TraceOptions {
            selection: filters.resolve(names, command.is_some(), brief)?,
            backend: attach.backend(),
            buffer: round_buffer(buffer, names.page_size(), &mut notes),
            duration,
            count,
            args: !no_args,
            output,
            command,
            notes,
        })
    }
}

fn resolve_all<T, U>(
    values: Vec<T>,
    resolve: impl Fn(T) -> Result<U, UsageError>,
) -> Result<Vec<U>, UsageError> {
    values.into_iter().map(resolve).collect()
}

fn user_id(user: UserArg, names: &impl Names) -> Result<u32, UsageError> {
    match user {
        UserArg::Uid(uid) => Ok(uid),
        UserArg::Name(name) => names.user(&name).map_err(|reason| UsageError {
            option: "--uid <USER>",
            value: name,
            reason,
        }),
    }
}

/// Where named namespaces are (ip-netns(8)): /var/run/netns, and /var/run is /run.
pub(super) const NAMED: &str = "/run/netns";

/// The inode of a network namespace.
///
/// # Errors
/// When it does not exist.
pub(super) fn netns_inode(netns: NetnsArg, names: &impl Names) -> Result<u32, UsageError> {
    let look = |path: &Path, value| {
        names.netns(path).map_err(|reason| UsageError {
            option: "--netns <NETNS>",
            value,
            reason,
        })
    };
    match netns {
        NetnsArg::Inode(inode) => Ok(inode),
        NetnsArg::Path(path) => look(&path, path.display().to_string()),
        NetnsArg::Name(name) => look(&Path::new(NAMED).join(&name), name),
    }
}

/// The part of a name that the kernel keeps: TASK_COMM_LEN is 16 with the NUL
/// (include/linux/sched.h). What the cut leaves of a character is replaced as it is in events.
fn kernel_name(name: &str) -> String {
    String::from_utf8_lossy(&name.as_bytes()[..name.len().min(15)]).into_owned()
}

/// A path in the cgroup hierarchy, wherever the user took it from: `/proc/PID/cgroup`, `systemctl
/// show -p ControlGroup`, or a shell in `/sys/fs/cgroup`.
fn cgroup_path(typed: &str) -> String {
    let inside = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .iter()
        .find_map(|mount| {
            typed
                .strip_prefix(mount)
                .filter(|rest| rest.is_empty() || rest.starts_with('/'))
        })
        .or_else(|| typed.strip_prefix("0::"))
        .unwrap_or(typed);
    let mut path = String::with_capacity(inside.len() + 1);
    for part in inside.split('/').filter(|part| !part.is_empty()) {
        path.push('/');
        path.push_str(part);
    }
    if path.is_empty() {
        path.push('/');
    }
    path
}

/// The kernel takes powers of two that are multiples of a page (kernel/bpf/ringbuf.c,
/// `ringbuf_map_alloc`).
fn round_buffer(bytes: u64, page_size: u64, notes: &mut Vec<String>) -> u32 {
    let rounded = bytes.next_power_of_two().max(page_size);
    if rounded != bytes {
        notes.push(format!("--buffer {bytes} is rounded up to {rounded} bytes"));
    }
    // The parser lets nothing above 2 GiB pass, which is a power of two itself.
    u32::try_from(rounded).unwrap_or(1 << 31)
}
