//! The shape of a line: structs in the order of the keys, borrowing from the item. What is not
//! known is left out.

use std::{fmt, io, net::IpAddr};

use serde::{Serialize, Serializer};

use crate::{
    errno,
    event::{
        Conflict, Container, End, Endpoint, Errno, Event, Holder, Item, Lost, Op, Outcome,
        PortClass, PortFacts, Process, Sighting, Socket, SocketOptions, Start, Task, Time,
        UnknownReason, Via,
    },
    sink::clock,
};

/// The name and version of the schema.
const SCHEMA: &str = "portwatch/1";

/// OpenTelemetry's word for an error that has no name of its own.
const OTHER: &str = "_OTHER";

/// Appends an item as an object, number `seq` of the stream.
pub(super) fn print(out: &mut Vec<u8>, seq: u64, item: &Item, args: bool) -> io::Result<()> {
    match item {
        Item::Event(sighting) => write(out, seq, sighting.time, &EventLine::of(sighting, args)),
        Item::Start(start) => write(out, seq, start.time, &StartLine::of(start)),
        Item::Lost(lost) => write(out, seq, lost.time, &LostLine::of(lost)),
        Item::End(end) => write(out, seq, end.time, &EndLine::of(end)),
    }
}

fn write<T: Serialize>(out: &mut Vec<u8>, seq: u64, time: Time, rest: &T) -> io::Result<()> {
    // A flattened struct would be collected in memory first, so the common keys are written here
    // and the opening brace of the rest is replaced by a comma.
    serde_json::to_writer(
        &mut *out,
        &Head {
            schema: SCHEMA,
            seq,
            time: Stamp(time.utc),
            time_boot: time.boot,
        },
    )?;
    out.pop();
    let joint = out.len();
    serde_json::to_writer(&mut *out, rest)?;
    out[joint] = b',';
    Ok(())
}

#[derive(Serialize)]
struct Head {
    schema: &'static str,
    seq: u64,
    time: Stamp,
    time_boot: u64,
}

#[derive(Serialize)]
struct Named {
    name: &'static str,
}

#[derive(Serialize)]
struct StartLine<'a> {
    event: Named,
    portwatch: Portwatch<'a>,
    kernel: Kernel<'a>,
    host: Host<'a>,
    backend: &'static str,
    degraded: &'a [String],
}

#[derive(Serialize)]
struct Portwatch<'a> {
    version: &'a str,
}

#[derive(Serialize)]
struct Kernel<'a> {
    release: &'a str,
}

#[derive(Serialize)]
struct Host<'a> {
    name: &'a str,
}

impl<'a> StartLine<'a> {
    fn of(start: &'a Start) -> Self {
        let Start {
            version,
            kernel_release,
            host_name,
            backend,
            degraded,
            time: _,
        } = start;
        Self {
            event: Named { name: "start" },
            portwatch: Portwatch { version },
            kernel: Kernel {
                release: kernel_release,
            },
            host: Host { name: host_name },
            backend: backend.as_str(),
            degraded,
        }
    }
}

#[derive(Serialize)]
struct LostLine {
    event: Named,
    lost: LostPart,
}

#[derive(Serialize)]
struct LostPart {
    count: u64,
    reason: &'static str,
}

impl LostLine {
    fn of(lost: &Lost) -> Self {
        let Lost {
            count,
            reason,
            time: _,
        } = *lost;
        Self {
            event: Named { name: "lost" },
            lost: LostPart {
                count,
                reason: reason.as_str(),
            },
        }
    }
}

#[derive(Serialize)]
struct EndLine {
    event: Named,
    totals: Totals,
}

#[derive(Serialize)]
struct Totals {
    events: u64,
    failures: u64,
    lost: u64,
}

impl EndLine {
    fn of(end: &End) -> Self {
        let End {
            events,
            failures,
            lost,
            time: _,
        } = *end;
        Self {
            event: Named { name: "end" },
            totals: Totals {
                events,
                failures,
                lost,
            },
        }
    }
}

#[derive(Serialize)]
struct EventLine<'a> {
    event: EventPart,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorPart>,
    network: Network<'a>,
    socket: SocketPart,
    process: ProcessPart<'a>,
    thread: Thread,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<ContainerPart<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    systemd: Option<Systemd<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conflict: Option<ConflictPart<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    missing: &'a [&'static str],
}

impl<'a> EventLine<'a> {
    fn of(sighting: &'a Sighting, args: bool) -> Self {
        let Sighting {
            event,
            time: _,
            process,
            local: local_facts,
            peer: peer_facts,
            interface,
            missing,
        } = sighting;
        let Event {
            time_boot: _, // of `time`
            duration,
            op,
            outcome,
            via,
            transport,
            family,
            local,
            peer,
            auto_port,
            backlog,
            socket,
            task,
            refused_by_policy: _, // a word of `conflict.kind`, which is decided elsewhere
            conflict,
        } = event;
        Self {
            event: EventPart::of(*op, *outcome, *via, *duration),
            error: match *outcome {
                Outcome::Failure(errno) => Some(ErrorPart::of(errno)),
                Outcome::Success | Outcome::Unknown(_) => None,
            },
            network: Network {
                transport: transport.as_str(),
                family: family.as_str(),
                connection: None,
                local: Side::of(local, local_facts),
                peer: peer.as_ref().and_then(|peer| Side::of(peer, peer_facts)),
                interface: interface.as_deref().map(|name| Interface { name }),
            },
            socket: SocketPart {
                auto_port: Some(*auto_port),
                backlog: *backlog,
                ..SocketPart::of(socket)
            },
            process: ProcessPart::of(task, process, args),
            thread: Thread { id: task.tid },
            container: process.container.as_ref().map(ContainerPart::of),
            systemd: process.systemd_unit.as_deref().map(|unit| Systemd { unit }),
            conflict: conflict.as_ref().map(ConflictPart),
            missing,
        }
    }
}

#[derive(Serialize)]
struct EventPart {
    name: &'static str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<u64>,
}

impl EventPart {
    fn of(op: Op, outcome: Outcome, via: Option<Via>, duration: Option<u64>) -> Self {
        let (outcome, reason) = match outcome {
            Outcome::Success => ("success", None),
            Outcome::Failure(_) => ("failure", None),
            Outcome::Unknown(UnknownReason::Closed) => ("unknown", Some("closed")),
            Outcome::Unknown(UnknownReason::TraceEnded) => ("unknown", Some("trace_ended")),
        };
        Self {
            name: op.as_str(),
            outcome,
            reason,
            via: via.map(Via::as_str),
            duration,
        }
    }
}

#[derive(Serialize)]
struct ErrorPart {
    r#type: &'static str,
    code: u32,
}

impl ErrorPart {
    fn of(errno: Errno) -> Self {
        Self {
            r#type: errno::name(errno).unwrap_or(OTHER),
            code: errno.0,
        }
    }
}

#[derive(Serialize)]
struct Network<'a> {
    transport: &'static str,
    #[serde(rename = "type")]
    family: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<Connection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local: Option<Side<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Side<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<Interface<'a>>,
}

#[derive(Serialize)]
struct Connection {
    state: &'static str,
}

#[derive(Serialize)]
struct Interface<'a> {
    name: &'a str,
}

/// One end of a socket.
#[derive(Serialize)]
struct Side<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port_class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ephemeral: Option<bool>,
}

impl<'a> Side<'a> {
    /// `None` where nothing is known: an empty object says nothing.
    fn of(endpoint: &Endpoint, facts: &'a PortFacts) -> Option<Self> {
        let Endpoint { address, port } = *endpoint;
        let PortFacts {
            service,
            class,
            ephemeral,
        } = facts;
        (address.is_some() || port.is_some()).then(|| Self {
            address,
            port,
            service: service.as_deref(),
            port_class: class.map(PortClass::as_str),
            ephemeral: *ephemeral,
        })
    }

    /// Of a holder, of which the kernel alone has told.
    fn bare(endpoint: &Endpoint) -> Option<Self> {
        let Endpoint { address, port } = *endpoint;
        (address.is_some() || port.is_some()).then(|| Self {
            address,
            port,
            service: None,
            port_class: port.map(|port| PortClass::of(port).as_str()),
            ephemeral: None,
        })
    }
}

#[derive(Serialize)]
struct SocketPart {
    #[serde(skip_serializing_if = "Option::is_none")]
    cookie: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inode: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auto_port: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reuseaddr: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reuseport: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    v6only: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    freebind: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transparent: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bind_no_port: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mptcp: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backlog: Option<u32>,
}

impl SocketPart {
    fn of(socket: &Socket) -> Self {
        let Socket {
            cookie,
            inode,
            netns,
            device: _, // printed by name, as network.interface
            uid,
            options,
        } = *socket;
        let SocketOptions {
            reuseaddr,
            reuseport,
            v6only,
            freebind,
            transparent,
            bind_no_port,
            mptcp,
        } = options;
        Self {
            cookie: cookie.map(Hex),
            inode,
            netns,
            auto_port: None,
            reuseaddr,
            reuseport,
            v6only,
            freebind,
            transparent,
            bind_no_port,
            mptcp,
            uid,
            backlog: None,
        }
    }
}

#[derive(Serialize)]
struct ProcessPart<'a> {
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vpid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    executable: Option<Executable<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command_args: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    creation: Option<Creation>,
    user: User<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    linux: Option<Linux<'a>>,
}

#[derive(Serialize)]
struct Executable<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    path: &'a str,
}

#[derive(Serialize)]
struct Creation {
    time: Stamp,
}

#[derive(Serialize)]
struct User<'a> {
    id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

#[derive(Serialize)]
struct Linux<'a> {
    cgroup: &'a str,
}

impl<'a> ProcessPart<'a> {
    fn of(task: &'a Task, process: &'a Process, with_args: bool) -> Self {
        let Task {
            pid,
            tid: _, // printed as thread.id
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
            args,
            creation,
            user_name,
            cgroup,
            container: _,    // beside `process`
            systemd_unit: _, // beside `process`
        } = process;
        Self {
            pid: *pid,
            parent_pid: *parent_pid,
            vpid: *vpid,
            comm: comm.as_deref(),
            executable: executable_path.as_deref().map(|path| Executable {
                name: process.executable_name(),
                path,
            }),
            command_args: args.as_deref().filter(|_| with_args),
            creation: creation.map(|time| Creation { time: Stamp(time) }),
            user: User {
                id: *uid,
                name: user_name.as_deref(),
            },
            linux: cgroup.as_deref().map(|cgroup| Linux { cgroup }),
        }
    }
}

#[derive(Serialize)]
struct Thread {
    id: u32,
}

#[derive(Serialize)]
struct ContainerPart<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<Named>,
}

impl<'a> ContainerPart<'a> {
    fn of(container: &'a Container) -> Self {
        let Container { id, runtime } = container;
        Self {
            id,
            runtime: runtime.map(|name| Named { name }),
        }
    }
}

#[derive(Serialize)]
struct Systemd<'a> {
    unit: &'a str,
}

struct ConflictPart<'a>(&'a Conflict);

impl Serialize for ConflictPart<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Part<'a> {
            holders: Holders<'a>,
            holders_total: u32,
            truncated: bool,
        }
        let Conflict {
            holders,
            total,
            truncated,
        } = self.0;
        Part {
            holders: Holders(holders),
            holders_total: *total,
            truncated: *truncated,
        }
        .serialize(serializer)
    }
}

struct Holders<'a>(&'a [Holder]);

impl Serialize for Holders<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(HolderPart::of))
    }
}

#[derive(Serialize)]
struct HolderPart<'a> {
    network: Network<'a>,
    socket: SocketPart,
}

impl HolderPart<'_> {
    fn of(holder: &Holder) -> Self {
        let Holder {
            transport,
            family,
            state,
            local,
            peer,
            socket,
        } = holder;
        Self {
            network: Network {
                transport: transport.as_str(),
                family: family.as_str(),
                connection: Some(Connection {
                    state: state.as_str(),
                }),
                local: Side::bare(local),
                peer: peer.as_ref().and_then(Side::bare),
                interface: None,
            },
            socket: SocketPart::of(socket),
        }
    }
}

/// RFC 3339, UTC, nine digits.
struct Stamp(jiff::Timestamp);

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stamp = clock::stamp(self.0);
        serializer.serialize_str(std::str::from_utf8(&stamp).map_err(serde::ser::Error::custom)?)
    }
}

/// A socket cookie as `ss -e` prints it behind `sk:`.
struct Hex(u64);

impl fmt::Display for Hex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, formatter)
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
