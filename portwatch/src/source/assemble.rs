//! Puts records together that the kernel sends one after the other: the owners of a port come ahead
//! of the refused call they explain.

use std::collections::VecDeque;

use crate::{
    decode::Record,
    event::{Conflict, Event, Outcome, ProcessImage},
};

/// Calls that may be refused at the same moment. Owners without a call (it was lost) go first.
const WAITING: usize = 1024;

/// What the stream of records amounts to.
#[derive(Debug)]
pub enum Assembled {
    /// An event, complete.
    Event {
        /// What happened.
        event: Box<Event>,
        /// CPU it was written on.
        cpu: u16,
        /// Events lost so far on that CPU.
        lost: u32,
    },
    /// A process, ahead of its first event.
    Image(ProcessImage),
}

/// Records waiting for the one they belong to.
#[derive(Debug, Default)]
pub struct Assembler {
    waiting: VecDeque<(u32, Conflict)>,
}

impl Assembler {
    /// Takes the next record of the stream.
    pub fn take(&mut self, record: Record) -> Option<Assembled> {
        match record {
            Record::Image(image) => Some(Assembled::Image(image)),
            Record::Owners { tid, conflict } => {
                if self.waiting.len() == WAITING {
                    self.waiting.pop_front();
                }
                self.waiting.push_back((tid, conflict));
                None
            }
            Record::Socket {
                mut event,
                cpu,
                lost,
            } => {
                if let Some(at) = self
                    .waiting
                    .iter()
                    .position(|(tid, _)| *tid == event.task.tid)
                {
                    event.conflict = self
                        .waiting
                        .remove(at)
                        .map(|(_, conflict)| conflict)
                        .filter(|conflict| explains(conflict, &event));
                }
                Some(Assembled::Event { event, cpu, lost })
            }
        }
    }
}

/// Whether the owners can be those of this call: what an earlier call of the thread left behind (its
/// own record was lost) is not.
fn explains(conflict: &Conflict, event: &Event) -> bool {
    // One that worked may share its port with others.
    (matches!(event.outcome, Outcome::Failure(_)) || event.socket.options.reuseport == Some(true))
        && conflict
            .holders
            .iter()
            .all(|holder| holder.local.port == event.local.port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Endpoint, Errno, Holder, Op, TcpState, Transport},
        sample,
    };

    fn owners(tid: u32, port: u16) -> Record {
        Record::Owners {
            tid,
            conflict: Conflict {
                holders: vec![Holder::new(
                    Transport::Tcp,
                    crate::event::Family::Ipv4,
                    TcpState::Listen,
                    Endpoint {
                        address: None,
                        port: Some(port),
                    },
                )],
                total: 1,
                rest_apart: false,
                connect_only: false,
                last: None,
                truncated: false,
            },
        }
    }

    fn refused(tid: u32, port: u16) -> Record {
        let mut event = sample::sighting(Op::Bind, "127.0.0.1:80").event;
        event.task.tid = tid;
        event.local.port = Some(port);
        event.outcome = Outcome::Failure(Errno(98));
        event.conflict = None;
        Record::Socket {
            event,
            cpu: 0,
            lost: 0,
        }
    }

    fn conflict(assembled: Option<Assembled>) -> Option<Conflict> {
        match assembled {
            Some(Assembled::Event { event, .. }) => event.conflict,
            other => panic!("not an event: {other:?}"),
        }
    }

    #[test]
    fn owners_join_the_call_of_their_thread() {
        let mut assembler = Assembler::default();
        assert!(assembler.take(owners(1, 80)).is_none());
        assert!(assembler.take(owners(2, 81)).is_none());
        assert_eq!(
            conflict(assembler.take(refused(2, 81)))
                .and_then(|conflict| conflict.holders[0].local.port),
            Some(81)
        );
        assert!(conflict(assembler.take(refused(1, 80))).is_some());
        assert!(
            conflict(assembler.take(refused(1, 80))).is_none(),
            "they are used once"
        );
    }

    #[test]
    fn owners_of_a_lost_call_explain_no_other() {
        let mut assembler = Assembler::default();
        assembler.take(owners(1, 80));
        assert!(conflict(assembler.take(refused(1, 90))).is_none());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut assembler = Assembler::default();
        for tid in 0..10 * WAITING as u32 {
            assembler.take(owners(tid, 80));
        }
        assert_eq!(assembler.waiting.len(), WAITING);
        assert!(conflict(assembler.take(refused(10 * WAITING as u32 - 1, 80))).is_some());
    }
}
