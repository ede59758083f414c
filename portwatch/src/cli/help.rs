//! The sections that stand behind the options, in `--help` and in the man page. Lines that begin
//! with two spaces are kept as they are; the others flow.

use std::fmt::Write as _;

/// A section of help text.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// In capitals.
    pub title: &'static str,
    /// Paragraphs, separated by empty lines.
    pub body: &'static str,
}

/// Sections of the whole program.
pub const PORTWATCH: &[Section] = &[
    Section {
        title: "EXIT STATUS",
        body: "  0  done; a trace in which nothing happened, or that was interrupted, is done
  1  nothing found, not free
  2  wrong usage
  3  not permitted, or not possible on this kernel
  4  anything else

portwatch trace -- COMMAND exits with the status of COMMAND: 128 and the number of the signal that \
ended it, 126 if it cannot be run, 127 if it is not found. When portwatch itself fails before \
COMMAND starts, it is 2, 3 or 4, and COMMAND is not run.",
    },
    Section {
        title: "ENVIRONMENT",
        body: "  NO_COLOR    no colours where it is set, unless --color always is given
  SUDO_UID    runs the COMMAND of trace as this user; then DOAS_USER, PKEXEC_UID",
    },
];

/// Sections of `churn`.
pub const CHURN: &[Section] = &[
    Section {
        title: "WHAT RUNS OUT",
        body: "\
A connection needs a port that no other connection from its address to the same peer has: ports run out \
for each source address, destination address and destination port by itself. bind() to port 0 and listen() \
need one that nobody has on that address. So there is no single percentage: each such pool is shown \
against the range, the fullest first.

A connection that its own side has closed first keeps its port for 60 seconds more, in TIME_WAIT. The kernel \
no longer knows whose it was; portwatch does, if it has watched.",
    },
    Section {
        title: "WHAT IS FORETOLD",
        body: "\
What a pool needs in the steady state is the ports that are open, and as many as enter TIME_WAIT in the \
time they stay there. It is compared with what the range gives. The rate at which it fails is that of the \
same mixture.",
    },
    Section {
        title: "NAT",
        body: "\
On a gateway that translates sources, the ports of its external addresses are shown too, for each destination, \
with the clients that have them. They are read from the kernel's table of tracked connections, which takes \
CAP_NET_ADMIN.",
    },
    Section {
        title: "WHAT IS COUNTED",
        body: "\
The kernel's programs count; nothing is sent for each port. --tuples bounds what they tell apart: what is \
beyond is summed. Where something was missed, all sockets are looked at again, and a line says so. \
-o json prints one object for each interval, docs/schema/churn-1.json in the sources.",
    },
];

/// Sections of `trace`.
pub const TRACE: &[Section] = &[
    Section {
        title: "HOW FILTERS COMBINE",
        body: "\
Kinds of filter are joined by AND, the values of one kind by OR: --port 80 --port 443 --failed shows \
failures on either port. -t and -u are one kind, -4 and -6 another. A fact that is not known matches \
no value.",
    },
    Section {
        title: "FOLLOWING A COMMAND",
        body: "\
With -- COMMAND only this command and its descendants are shown, also after they have forked twice \
into the background. Processes that others start on its behalf are not descendants: a service that \
systemctl asks systemd to start, a container that docker asks dockerd to start. To see those, use \
--cgroup, --container or --comm.

COMMAND runs as the user who called sudo, doas or pkexec, with that user's groups and HOME. Ctrl-C \
reaches both, and portwatch ends after it; SIGTERM is passed on to it.

--duration and --count end the trace, not COMMAND: it runs on by itself, and the status is 0 unless \
COMMAND has ended as well.",
    },
    Section {
        title: "WHAT IS PRINTED",
        body: "\
Data goes to stdout, one line for each event as it happens; header, totals and notes go to stderr. \
Under a failed call a line marked with an arrow says why and what stood in the way. Events that the \
kernel could not hand over show as LOST where they are missing, and in the totals.

Text is for people and may change. Scripts should use -o json: one object a line, the first is named \
start, the last end. What is not known is absent there, never null, 0 or empty. The schema, \
portwatch/1, is docs/schema/portwatch-1.json in the sources.",
    },
    Section {
        title: "EXIT STATUS",
        body: "  0  done, also when nothing happened or it was interrupted
  2  wrong usage
  3  not permitted, or not possible on this kernel
  4  anything else

With -- COMMAND the status of COMMAND: 128+N after signal N, 126 if it cannot be run, 127 if it is \
not found; 0 when --duration or --count ends the trace before it ends. When portwatch fails before COMMAND starts, it is 2, 3 or 4, and COMMAND is not run.",
    },
    Section {
        title: "EXAMPLES",
        body: "\
Who takes port 8080, and who would like to?

  portwatch trace --port 8080

Every failure on this machine, for a minute:

  portwatch trace --failed --duration 1m

Why does my server not start?

  portwatch trace --conflicts -- ./server --listen 0.0.0.0:8080

What does nginx listen on, once it is restarted?

  portwatch trace -e bind,listen --comm nginx

Who connects to the database, as JSON for a script?

  portwatch trace -e connect --peer-port 5432 -o json | jq .process

When is port 8080 free again, and who had it last?

  portwatch trace -e release --port 8080

The first UDP port that anybody takes, without asking for it:

  portwatch trace -u -e autobind -c 1",
    },
];

/// Sections of `list`.
pub const LIST: &[Section] = &[
    Section {
        title: "WHAT IS PRINTED",
        body: "\
What occupies ports, in every network namespace: TCP sockets that listen, UDP sockets that are bound \
and not connected, TCP sockets that are bound and do not listen. A socket takes a line for each process \
that has a descriptor of it. Sockets that share an address and port by SO_REUSEPORT and belong to one \
user are one entry, with their number under N.

  N        sockets of such a group
  LEFT     how long TIME_WAIT lasts still
  NETNS    network namespace, where it is not portwatch's own
  CLASS    IANA's class of the port; ephemeral: of the range from which the kernel picks ports
  OPTIONS  as the socket stands; ? where that cannot be read
  UP       how long the process has been running: since when it has the socket, no kernel keeps

A ? under PID is an owner that cannot be seen, a - is none. On a terminal, columns in which nothing \
stands are left out, and of the others those that do not fit, CLASS first. Elsewhere every column is \
there, in every line, with - where nothing stands.

Without root only what this user may see; notes say how many sockets have hidden owners, and whether \
network namespaces may be missing. JSON has one socket a line, groups included.",
    },
    Section {
        title: "EXIT STATUS",
        body: "  0  there is such a socket
  1  there is none
  2  wrong usage
  3  not permitted, or not possible on this kernel
  4  anything else",
    },
    Section {
        title: "EXAMPLES",
        body: "\
What ss -tulnp shows, and what is bound and does not listen:

  portwatch list -tun

Only what listens on TCP:

  portwatch list -tl

Everything in the network namespace of a container's process, connections too:

  portwatch list -a -N /proc/812/ns/net

Which ports do the services of this machine take from the range the kernel picks from?

  portwatch list -o json | jq 'select(.network.local.ephemeral)'",
    },
];

/// Sections of `who`.
pub const WHO: &[Section] = &[
    Section {
        title: "WHAT IS PRINTED",
        body: "\
A socket, with a line for each process that has a descriptor of it: those that listen, those that are \
bound and do not listen, connections whose local port it is, and what is left of ended ones, which no \
process has. With an address, also sockets of the wildcard, which take what comes to that address. With \
a name, the ports of that name in /etc/services.

After those, connections to a port of that number, here or on another machine: their PEER has it. They do \
not count for --pids, --first and the exit status.

Without root only what this user may see; notes say how many sockets have hidden owners, and whether \
network namespaces may be missing.",
    },
    Section {
        title: "EXIT STATUS",
        body: "  0  a socket has the port
  1  none has
  2  wrong usage
  3  not permitted, or not possible on this kernel
  4  anything else",
    },
    Section {
        title: "EXAMPLES",
        body: "\
Who has port 8080?

  portwatch 8080

Who answers to DNS on the loopback address?

  portwatch who udp/127.0.0.53:domain

End whoever has it:

  portwatch who 8080 --pids | xargs kill",
    },
];

/// Sections of `check`.
pub const CHECK: &[Section] = &[
    Section {
        title: "WHAT IS PRINTED",
        body: "\
The answer, with who is in the way and why, and what would help, as under a refused call of trace. Without an \
address the socket is bound to all of them: to [::], which takes IPv4 too, or to 0.0.0.0 where there is no \
IPv6. Where the socket could be bound beside another one that does not listen yet, a line says so: only one \
of the two can.

Some things cannot be seen from outside: the options of a socket that no process has, such as one in \
TIME_WAIT; which sockets with SO_REUSEPORT had the port before; without root, the options of others' sockets. \
Where the answer depends on them there is none. Programs on cgroups (BPF) and security modules are not \
asked: they may refuse what is free.",
    },
    Section {
        title: "EXIT STATUS",
        body: "  0  free
  1  not free
  2  wrong usage
  3  cannot be told, not permitted, or not possible on this kernel
  4  anything else",
    },
    Section {
        title: "EXAMPLES",
        body: "\
Could my server be started?

  portwatch check 0.0.0.0:8080 --reuseaddr

Could www-data have port 80?

  portwatch check [::]:80 --uid www-data

Wait for a port:

  until portwatch check 8080 > /dev/null; do sleep 1; done

Is an automatic UDP port left?

  portwatch check udp/0.0.0.0:0",
    },
];

/// Sections of `check-range`.
pub const CHECK_RANGE: &[Section] = &[
    Section {
        title: "EXIT STATUS",
        body: "  0  nothing overlaps
  1  the kernel gives out ports of the range, or sockets are on them
  2  wrong usage
  3  nothing overlaps that can be seen; not permitted, or not possible on this kernel
  4  anything else",
    },
    Section {
        title: "EXAMPLES",
        body: "\
Are the node ports of Kubernetes safe here?

  portwatch check-range 30000-32767

As a script asks:

  portwatch check-range 30000-32767 -o json | jq -r .sysctl.value",
    },
];

/// Sections of `record`.
pub const RECORD: &[Section] = &[
    Section {
        title: "THE FILE",
        body: "\
Without -w FILE it is a new one, named after host and time, in $STATE_DIRECTORY, else in /var/lib/portwatch \
for root and in $XDG_STATE_HOME/portwatch (~/.local/state/portwatch) for others. Only its owner may read it. \
A recording that is there is continued; what is none is left as it is. Symbolic links are not followed. \
One process records to a file; it can be replayed, reported on and queried meanwhile:

  sqlite3 -readonly FILE 'SELECT * FROM conflicts'

The tables, and the views binds, connects, conflicts and port_timeline, are described in docs/record.md of the \
sources.",
    },
    Section {
        title: "WHAT MAY BE LOST",
        body: "\
A sudden end of the process costs the last second at most, and the file stays sound. Where the disk is full, \
that is said once; events are kept in memory, up to a bound, and written when there is room again. What \
does not fit is counted, and shows as lost where it is missing.",
    },
    Section {
        title: "EXIT STATUS",
        body: "  0  done, also when nothing happened or it was interrupted
  2  wrong usage
  3  not permitted, or not possible on this kernel
  4  anything else: a file that is not a recording, is damaged, or is recorded to by another process",
    },
    Section {
        title: "EXAMPLES",
        body: "\
Whatever fails on this machine, in at most 200 MB and for a month:

  portwatch record --max-size 200M --max-age 4w

Everything that happens to a port tonight:

  portwatch record -w tonight.pwdb --keep all --port 8080 --duration 8h",
    },
];

/// Sections of `replay`.
pub const REPLAY: &[Section] = &[
    Section {
        title: "WHAT IS PRINTED",
        body: "\
What trace would have printed, where everything was kept (record --keep all) line by line; seq counts \
the lines of the replay, and totals what it shows. Every start of the recorder begins anew. A recorder that was \
killed leaves no end.",
    },
    Section {
        title: "EXAMPLES",
        body: "\
Who wanted port 8080, and did not get it?

  portwatch replay tonight.pwdb --port 8080 --failed

All conflicts, for a script:

  portwatch replay tonight.pwdb --conflicts -o json | jq .conflict.message",
    },
];

/// Sections of `report`.
pub const REPORT: &[Section] = &[
    Section {
        title: "WHAT IS PRINTED",
        body: "\
Conflicts, those of one program, port, holder and reason together: how often, first and last, whether the program got \
the port in the end and how long that took, and whether it was started again and again. What worked \
and is dangerous. Other failures. Ports that were taken most often, and programs to which the kernel gave most ports: \
these two need a recording with --keep all. When nobody recorded, and what was lost.",
    },
    Section {
        title: "EXAMPLES",
        body: "\
What happened last night?

  portwatch report web-1.pwdb --since '2026-11-28 22:00' --until '2026-11-29 06:00'

Who fights for port 8080?

  portwatch report web-1.pwdb --port 8080

The same of a trace that was kept as lines:

  portwatch report - < trace.jsonl",
    },
];

/// Sections as `--help` shows them.
#[must_use]
pub fn text(sections: &[Section]) -> String {
    let mut text = String::new();
    for Section { title, body } in sections {
        let gap = if text.is_empty() { "" } else { "\n\n" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{gap}{title}\n{body}");
    }
    text
}
