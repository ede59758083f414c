//! Rows to items: the inverse of `encode`.

use std::sync::Arc;

use crate::{
    event::{Conflict, Endpoint, Event, Item, Occupant, Op, Process, Sighting, Socket, Task, Time},
    source::json::{self, Numbered, Wrong},
};

use super::row::{Call, Member, Note, Program, Row};

/// A process as its rows tell it.
#[must_use]
pub fn occupant(member: Member, program: &Program) -> Occupant {
    let Member {
        program: _,
        pid,
        parent_pid,
        vpid,
        comm,
        creation,
    } = member;
    let process = Process {
        creation,
        ..(*program.process).clone()
    };
    Occupant {
        task: Task {
            pid,
            tid: pid,
            parent_pid,
            vpid,
            uid: program.uid,
            comm,
            ..Task::default()
        },
        process: Arc::new(process),
    }
}

/// An event; `people` knows the processes that its details name.
///
/// # Errors
/// When a detail is none of ours.
pub fn sighting(
    row: Row,
    call: &Call,
    caller: Occupant,
    people: Numbered<'_>,
) -> Result<Sighting, Wrong> {
    let Row {
        seq: _,
        utc,
        boot,
        call: _,
        process: _,
        thread,
        duration,
        port,
        peer,
        peer_port,
        cookie,
        inode,
        conflict,
        warning,
    } = row;
    let Call {
        op,
        outcome,
        via,
        transport,
        family,
        local,
        local_facts,
        has_peer,
        peer_facts,
        auto_port,
        backlog,
        netns,
        freed,
        uid,
        options,
        interface,
        by_policy,
        sought,
        missing,
    } = call;
    let Occupant { mut task, process } = caller;
    task.tid = thread.unwrap_or(task.pid);
    let (duration, held) = match op {
        Op::Release => (None, duration),
        _ => (duration, None),
    };
    let explanation = conflict
        .map(|conflict| json::explanation(&conflict.1.json, &mut *people))
        .transpose()?;
    let warning = warning
        .map(|detail| json::warning(&detail.json, &mut *people))
        .transpose()?;
    Ok(Sighting {
        event: Box::new(Event {
            time_boot: boot,
            duration,
            op: *op,
            outcome: *outcome,
            via: *via,
            transport: *transport,
            family: *family,
            local: Endpoint {
                address: *local,
                port,
            },
            peer: has_peer.then_some(Endpoint {
                address: peer,
                port: peer_port,
            }),
            auto_port: *auto_port,
            backlog: *backlog,
            socket: Socket {
                cookie,
                inode,
                netns: *netns,
                device: None,
                uid: *uid,
                options: *options,
            },
            task,
            refused_by_policy: *by_policy,
            may_bind_low: None,
            no_port_left: false,
            bound_port: None,
            own_range: None,
            freed: *freed,
            held,
            conflict: sought.then(Conflict::default),
        }),
        time: Time { boot, utc },
        process,
        local: local_facts.clone(),
        peer: peer_facts.clone(),
        interface: interface.clone(),
        explanation: explanation.map(Arc::new),
        warning: warning.map(Box::new),
        missing: missing.clone(),
    })
}

/// An item that is no event.
///
/// # Errors
/// When its detail is none of ours.
pub fn note(note: &Note) -> Result<Item, Wrong> {
    let Note {
        seq: _,
        utc,
        boot,
        name: _, // stands in the detail too
        json,
    } = note;
    json::note(
        json,
        Time {
            boot: *boot,
            utc: *utc,
        },
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        event::LostReason,
        sample,
        sink::{Sink as _, json::Json, text},
        store::{
            encode::{Encoder, Next},
            row::{Entry, Id},
        },
    };

    /// A store of no disk: what entries say, read back.
    #[derive(Default)]
    struct Memory {
        calls: HashMap<Id, Call>,
        programs: HashMap<Id, Program>,
        members: HashMap<Id, Member>,
        items: Vec<Item>,
    }

    impl Memory {
        fn take(&mut self, entry: Entry) {
            match entry {
                Entry::Call(id, call) => assert!(self.calls.insert(id, *call).is_none()),
                Entry::Program(id, program) => {
                    assert!(self.programs.insert(id, program).is_none());
                }
                Entry::Member(id, member) => assert!(self.members.insert(id, *member).is_none()),
                Entry::Release(..) => {}
                Entry::Note(note) => self.items.push(super::note(&note).unwrap()),
                Entry::Row(row) => {
                    let call = self.calls[&row.call].clone();
                    let caller = self.occupant(row.process).unwrap();
                    let mut people = |id| self.occupant(id);
                    let sighting = sighting(*row, &call, caller, &mut people).unwrap();
                    self.items.push(Item::Event(Box::new(sighting)));
                }
            }
        }

        fn occupant(&self, id: Id) -> Option<Occupant> {
            let member = self.members.get(&id)?;
            Some(occupant(member.clone(), &self.programs[&member.program]))
        }
    }

    fn back(items: &[Item]) -> Vec<Item> {
        let mut encoder = Encoder::new(Next::default());
        let mut memory = Memory::default();
        let mut entries = Vec::new();
        for item in items {
            encoder.item(item, &mut entries);
            entries.drain(..).for_each(|entry| memory.take(entry));
        }
        memory.items
    }

    fn json(items: &[Item]) -> String {
        let mut out = Vec::new();
        let mut sink = Json::new(&mut out, true);
        items.iter().for_each(|item| sink.item(item).unwrap());
        sink.flush().unwrap();
        String::from_utf8(out).unwrap()
    }

    fn text(items: &[Item]) -> String {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let options = text::TextOptions {
            width: Some(100),
            color: true,
            args: true,
            quiet: false,
            zone: jiff::tz::TimeZone::UTC,
        };
        let mut sink = text::Text::new(&mut out, &mut notes, options);
        items.iter().for_each(|item| sink.item(item).unwrap());
        sink.flush().unwrap();
        drop(sink);
        String::from_utf8(out).unwrap() + &String::from_utf8(notes).unwrap()
    }

    fn everything() -> Vec<Item> {
        sample::stream()
            .into_iter()
            .chain(sample::hostile())
            .chain([sample::lost(3, LostReason::StoreFull)])
            .collect()
    }

    #[test]
    fn every_line_comes_back_as_it_was() {
        let items = everything();
        assert_eq!(json(&back(&items)), json(&items));
    }

    #[test]
    fn every_row_of_text_comes_back_as_it_was() {
        let items = everything();
        assert_eq!(text(&back(&items)), text(&items));
    }

    proptest! {
        #[test]
        fn any_event_comes_back(sightings in proptest::collection::vec(sample::any_sighting(), 1..8)) {
            let items: Vec<_> = sightings.into_iter().map(sample::event).collect();
            prop_assert_eq!(json(&back(&items)), json(&items));
            prop_assert_eq!(text(&back(&items)), text(&items));
        }
    }

    #[test]
    fn a_thread_with_a_name_of_its_own_shares_what_its_process_runs() {
        let mut worker = sample::sighting(Op::Bind, "0.0.0.0:80");
        worker.event.task.tid = 2215;
        worker.event.task.comm = Some("worker".into());
        let items = [
            sample::event(sample::sighting(Op::Bind, "0.0.0.0:80")),
            sample::event(worker),
        ];
        let mut encoder = Encoder::new(Next::default());
        let mut entries = Vec::new();
        items
            .iter()
            .for_each(|item| encoder.item(item, &mut entries));
        let count = |wanted: fn(&Entry) -> bool| entries.iter().filter(|one| wanted(one)).count();
        assert_eq!(count(|entry| matches!(entry, Entry::Program(..))), 1);
        assert_eq!(count(|entry| matches!(entry, Entry::Member(..))), 2);
        assert_eq!(count(|entry| matches!(entry, Entry::Call(..))), 1);
        assert_eq!(json(&back(&items)), json(&items));
    }
}
