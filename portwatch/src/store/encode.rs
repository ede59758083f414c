//! Items to rows. Pure: what was written before is known by what the dictionaries remember of it.

use std::{num::NonZeroUsize, sync::Arc};

use crate::{
    event::{Event, Item, Lost, Occupant, Process, Sighting, Socket, Start, Task, Time},
    sink::json::stored,
};

use super::{
    dictionary::Dictionary,
    row::{Call, Cause, Detail, Entry, Id, Member, Note, Program, Row, Table},
};

/// Calls, programs and processes that are remembered: more than are at work at once on most machines.
/// One that was forgotten and comes again gets another row.
pub(super) const CALLS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2047);
pub(super) const PROGRAMS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2047);
pub(super) const PROCESSES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);
/// Bytes that each of the three may take.
const BYTES: usize = 2 << 20;

/// Turns a stream into rows.
#[derive(Debug)]
pub struct Encoder {
    seq: Id,
    calls: Dictionary<Call>,
    programs: Dictionary<Program>,
    processes: Dictionary<Member>,
    /// What the item at hand made the dictionaries forget: told behind it, which may still use it.
    released: Vec<Entry>,
}

/// Where the numbers of a store that is written on begin.
#[derive(Clone, Copy, Debug)]
pub struct Next {
    /// Of items.
    pub seq: Id,
    /// Of calls.
    pub call: Id,
    /// Of programs.
    pub program: Id,
    /// Of processes.
    pub process: Id,
}

impl Default for Next {
    fn default() -> Self {
        Self {
            seq: 1,
            call: 1,
            program: 1,
            process: 1,
        }
    }
}

impl Encoder {
    /// One that goes on from there.
    #[must_use]
    pub fn new(next: Next) -> Self {
        let Next {
            seq,
            call,
            program,
            process,
        } = next;
        Self {
            seq,
            calls: Dictionary::new(CALLS, BYTES, call),
            programs: Dictionary::new(PROGRAMS, BYTES, program),
            processes: Dictionary::new(PROCESSES, BYTES, process),
            released: Vec::new(),
        }
    }

    /// Remembers a row that is written already, so that it is not written again.
    pub fn learn(&mut self, entry: Entry) {
        // What the bounds make it forget at once was never used.
        let forget = |_| ();
        match entry {
            Entry::Call(id, call) => self.calls.learn(id, *call, CALL, forget),
            Entry::Program(id, program) => {
                let weight = weight_of_program(&program);
                self.programs.learn(id, program, weight, forget);
            }
            Entry::Member(id, member) => self.processes.learn(id, *member, MEMBER, forget),
            Entry::Release(..) | Entry::Row(_) | Entry::Note(_) => {}
        }
    }

    /// Appends the rows of an item.
    pub fn item(&mut self, item: &Item, out: &mut Vec<Entry>) {
        let seq = self.seq;
        self.seq += 1;
        let (name, time) = match item {
            Item::Event(sighting) => return self.sighting(seq, sighting, out),
            Item::Start(Start { time, .. }) => ("start", time),
            Item::Lost(Lost { time, .. }) => ("lost", time),
            Item::End(end) => ("end", &end.time),
        };
        let Time { boot, utc } = *time;
        out.extend(stored::note(item).map(|json| {
            Entry::Note(Box::new(Note {
                seq,
                utc,
                boot,
                name,
                json,
            }))
        }));
    }

    fn sighting(&mut self, seq: Id, sighting: &Sighting, out: &mut Vec<Entry>) {
        let Sighting {
            event,
            time,
            process,
            local: local_facts,
            peer: peer_facts,
            interface,
            explanation,
            warning,
            missing,
        } = sighting;
        let Event {
            time_boot: _, // that of `time`
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
            freed,
            held,
            task,
            refused_by_policy,
            may_bind_low: _, // said by the explanation, as are the next three
            no_port_left: _,
            bound_port: _,
            own_range: _,
            conflict: owners,
        } = &**event;
        let Socket {
            cookie,
            inode,
            netns,
            device: _, // told by its name
            uid,
            options,
        } = *socket;
        let call = Call {
            op: *op,
            outcome: *outcome,
            via: *via,
            transport: *transport,
            family: *family,
            local: local.address,
            local_facts: local_facts.clone(),
            has_peer: peer.is_some(),
            peer_facts: peer_facts.clone(),
            auto_port: *auto_port,
            backlog: *backlog,
            netns,
            freed: *freed,
            uid,
            options,
            interface: interface.clone(),
            by_policy: *refused_by_policy,
            sought: owners.is_some(),
            missing: missing.clone(),
        };
        let call = self.call(call, out);
        let caller = self.process(task, process, out);
        let conflict = explanation.as_ref().map(|explanation| {
            let mut processes = Vec::new();
            let mut number = |occupant: &Occupant| self.occupant(occupant, &mut processes, out);
            let json = stored::explanation(explanation, owners.is_some(), &mut number);
            let owner = explanation.owners.first();
            let holder = owner.and_then(|owner| {
                let creator = owner.creator.as_ref().map(|creator| &creator.occupant);
                owner.processes.first().or(creator)
            });
            let holder = holder.map(|occupant| self.occupant(occupant, &mut processes, out));
            let verdict = &explanation.verdict;
            let cause = Cause {
                kind: verdict.kind,
                overlap: verdict.overlap,
                reason: verdict.reason,
                holder,
            };
            Box::new((cause, Detail { json, processes }))
        });
        let warning = warning.as_ref().map(|warning| {
            let mut processes = Vec::new();
            let mut number = |occupant: &Occupant| self.occupant(occupant, &mut processes, out);
            let json = stored::warning(warning, &mut number);
            Box::new(Detail { json, processes })
        });
        let peer = peer.unwrap_or_default();
        out.push(Entry::Row(Box::new(Row {
            seq,
            utc: time.utc,
            boot: time.boot,
            call,
            process: caller,
            thread: (task.tid != task.pid).then_some(task.tid),
            duration: duration.or(*held),
            port: local.port,
            peer: peer.address,
            peer_port: peer.port,
            cookie,
            inode,
            conflict,
            warning,
        })));
        out.append(&mut self.released);
    }

    fn call(&mut self, call: Call, out: &mut Vec<Entry>) -> Id {
        let forget = |old| self.released.push(Entry::Release(Table::Call, old));
        let (id, is_new) = self.calls.number(&call, CALL, forget);
        if is_new {
            out.push(Entry::Call(id, Box::new(call)));
        }
        id
    }

    fn occupant(
        &mut self,
        occupant: &Occupant,
        processes: &mut Vec<Id>,
        out: &mut Vec<Entry>,
    ) -> Id {
        let id = self.process(&occupant.task, &occupant.process, out);
        processes.push(id);
        id
    }

    fn process(&mut self, task: &Task, process: &Arc<Process>, out: &mut Vec<Entry>) -> Id {
        let Task {
            pid,
            tid: _, // the event's
            parent_pid,
            vpid,
            uid,
            comm,
            start_boot: _, // `creation`
            key: _,        // means nothing to others
            cgroup: _,     // the program's, by path
        } = task;
        let program = Program {
            process: process.clone(),
            uid: *uid,
        };
        let weight = weight_of_program(&program);
        let forget = |old| self.released.push(Entry::Release(Table::Program, old));
        let (number, is_new) = self.programs.number(&program, weight, forget);
        if is_new {
            out.push(Entry::Program(number, program));
        }
        let member = Member {
            program: number,
            pid: *pid,
            parent_pid: *parent_pid,
            vpid: *vpid,
            comm: comm.clone(),
            creation: process.creation,
        };
        let forget = |old| self.released.push(Entry::Release(Table::Process, old));
        let (id, is_new) = self.processes.number(&member, MEMBER, forget);
        if is_new {
            out.push(Entry::Member(id, Box::new(member)));
        }
        id
    }
}

/// What a remembered call takes, with its slot.
const CALL: usize = size_of::<Call>() + 128;
/// Likewise.
const MEMBER: usize = size_of::<Member>() + 96;

fn weight_of_program(program: &Program) -> usize {
    let Process {
        executable_path,
        args,
        cgroup,
        ..
    } = &*program.process;
    let strings = args.as_ref().map_or(0, |args| {
        args.iter()
            .map(|arg| arg.len() + size_of::<String>() + 8)
            .sum()
    });
    128 + size_of::<Process>()
        + strings
        + executable_path.as_ref().map_or(0, String::len)
        + cgroup.as_ref().map_or(0, String::len)
}
