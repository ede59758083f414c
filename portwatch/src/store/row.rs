//! What the tables hold, as values. No SQL here.

use std::{
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::Arc,
};

use jiff::Timestamp;

use crate::event::{
    Family, Freed, Kind, Op, Outcome, Overlap, PortFacts, Process, Reason, SocketOptions,
    Transport, Via,
};

/// The number of a row.
pub type Id = i64;

/// What many events have in common: a row of `call`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// What was done.
    pub op: Op,
    /// How it ended.
    pub outcome: Outcome,
    /// Who asked.
    pub via: Option<Via>,
    /// Transport.
    pub transport: Transport,
    /// Family of the socket.
    pub family: Family,
    /// Local address.
    pub local: Option<IpAddr>,
    /// Of the local port.
    pub local_facts: PortFacts,
    /// It has a peer.
    pub has_peer: bool,
    /// Of the peer's port.
    pub peer_facts: PortFacts,
    /// The kernel chose the port.
    pub auto_port: bool,
    /// listen only.
    pub backlog: Option<u32>,
    /// Inode of the network namespace.
    pub netns: Option<u32>,
    /// release only.
    pub freed: Option<Freed>,
    /// Owner of the socket.
    pub uid: Option<u32>,
    /// Options of the socket.
    pub options: SocketOptions,
    /// Name of the bound device or scope.
    pub interface: Option<String>,
    /// A security module's hook was seen to refuse.
    pub by_policy: bool,
    /// The owners of the port were looked at.
    pub sought: bool,
    /// Paths of what is missing.
    pub missing: Vec<&'static str>,
}

/// What a process runs, as whom and where: a row of `program`. Compared by all of it but the time of its
/// start, which is the process'.
#[derive(Clone, Debug)]
pub struct Program {
    /// Executable, arguments, user name, place.
    pub process: Arc<Process>,
    /// Real user.
    pub uid: u32,
}

impl PartialEq for Program {
    fn eq(&self, other: &Self) -> bool {
        let Process {
            executable_path,
            args,
            creation: _,
            user_name,
            cgroup,
            container,
            systemd_unit,
        } = &*self.process;
        let them = &*other.process;
        self.uid == other.uid
            && (Arc::ptr_eq(&self.process, &other.process)
                || (*executable_path == them.executable_path
                    && *args == them.args
                    && *user_name == them.user_name
                    && *cgroup == them.cgroup
                    && *container == them.container
                    && *systemd_unit == them.systemd_unit))
    }
}

impl Eq for Program {}

impl Hash for Program {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let process = &*self.process;
        self.uid.hash(state);
        process.executable_path.hash(state);
        process.args.hash(state);
        process.cgroup.hash(state);
    }
}

/// A process, or a thread of it with a name of its own: a row of `process`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// What it runs.
    pub program: Id,
    /// Process id.
    pub pid: u32,
    /// Parent's process id.
    pub parent_pid: Option<u32>,
    /// Process id in its own pid namespace.
    pub vpid: Option<u32>,
    /// Task name.
    pub comm: Option<String>,
    /// Start, UTC.
    pub creation: Option<Timestamp>,
}

/// Why an event was refused, or what is dangerous about it: a row of `conflict` or `warning`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// All of it, as `sink::json::stored` writes it.
    pub json: String,
    /// Every process that it names, each as often as it is named.
    pub processes: Vec<Id>,
}

/// Of a conflict, what questions begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// What stood in the way.
    pub kind: Kind,
    /// How the addresses overlap.
    pub overlap: Option<Overlap>,
    /// By which rule they do not share.
    pub reason: Option<Reason>,
    /// Who has the first socket in the way.
    pub holder: Option<Id>,
}

/// An event: a row of `event`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its place in the stream.
    pub seq: Id,
    /// UTC.
    pub utc: Timestamp,
    /// CLOCK_BOOTTIME, ns.
    pub boot: u64,
    /// What was called, and how it ended.
    pub call: Id,
    /// Who called.
    pub process: Id,
    /// Thread id, where it is not the process id.
    pub thread: Option<u32>,
    /// Time the call took, ns; of a release the time for which the port was held.
    pub duration: Option<u64>,
    /// Local port.
    pub port: Option<u16>,
    /// Peer address.
    pub peer: Option<IpAddr>,
    /// Peer port.
    pub peer_port: Option<u16>,
    /// Cookie of the socket.
    pub cookie: Option<u64>,
    /// Inode of the socket.
    pub inode: Option<u64>,
    /// Why it was refused.
    pub conflict: Option<Box<(Cause, Detail)>>,
    /// What is dangerous about it.
    pub warning: Option<Box<Detail>>,
}

/// An item that is no event: a row of `note`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Its place in the stream.
    pub seq: Id,
    /// UTC.
    pub utc: Timestamp,
    /// CLOCK_BOOTTIME, ns.
    pub boot: u64,
    /// `start`, `lost`, `end`.
    pub name: &'static str,
    /// All of it, as `sink::json::stored` writes it.
    pub json: String,
}

/// Bytes of the numbers of a row, and of what names it.
const NUMBERS: usize = 64;

impl Note {
    /// See [`Entry::size`].
    #[must_use]
    pub const fn size(&self) -> usize {
        NUMBERS + self.json.len()
    }
}

/// Tables whose rows others refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// `call`
    Call,
    /// `program`
    Program,
    /// `process`
    Process,
}

/// What is to be written, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// A row that later ones refer to.
    Call(Id, Box<Call>),
    /// Likewise.
    Program(Id, Program),
    /// Likewise.
    Member(Id, Box<Member>),
    /// A row that no later one will refer to by this number, unless it is in use already.
    Release(Table, Id),
    /// An event.
    Row(Box<Row>),
    /// What is no event.
    Note(Box<Note>),
}

impl Entry {
    /// The place in the stream of a start.
    #[must_use]
    pub fn start(&self) -> Option<Id> {
        match self {
            Self::Note(note) if note.name == "start" => Some(note.seq),
            _ => None,
        }
    }

    /// Space that it takes in the file, bytes, roughly and rather more.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Call(_, call) => 4 * NUMBERS + call.missing.len() * 20,
            Self::Program(_, program) => {
                let Process {
                    executable_path,
                    args,
                    cgroup,
                    ..
                } = &*program.process;
                let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
                let args = args.iter().flatten().map(|arg| arg.len() + 4);
                3 * NUMBERS + text(executable_path) + text(cgroup) + args.sum::<usize>()
            }
            Self::Member(..) => NUMBERS,
            Self::Release(..) => 0,
            Self::Row(row) => {
                let detail = |detail: &Detail| {
                    NUMBERS + detail.json.len() + detail.processes.len() * NUMBERS / 4
                };
                let conflict = row.conflict.as_ref().map(|conflict| detail(&conflict.1));
                let warning = row.warning.as_deref().map(detail);
                NUMBERS + conflict.unwrap_or(0) + warning.unwrap_or(0)
            }
            Self::Note(note) => note.size(),
        }
    }

    /// Memory that it takes, bytes, roughly.
    #[must_use]
    pub fn weight(&self) -> usize {
        let detail = |detail: &Detail| {
            size_of::<Detail>() + detail.json.len() + detail.processes.len() * size_of::<Id>()
        };
        // The queue's slot, and what an allocation costs.
        size_of::<Self>()
            + 16
            + match self {
                Self::Call(_, call) => size_of_val(&**call) + call.missing.len() * 16,
                // Shared with whoever knows the process.
                Self::Program(..) => 64,
                Self::Member(_, member) => size_of_val(&**member) + 32,
                Self::Release(..) => 0,
                Self::Row(row) => {
                    let Row {
                        conflict, warning, ..
                    } = &**row;
                    size_of_val(&**row)
                        + conflict.as_ref().map_or(0, |conflict| detail(&conflict.1))
                        + warning.as_deref().map_or(0, detail)
                }
                Self::Note(note) => size_of_val(&**note) + note.json.len(),
            }
    }
}
