//! When nobody recorded, and what was lost.

use std::collections::HashMap;

use crate::event::{Lost, LostReason, Start, Time};

use super::{Scope, tally::Tally};

/// Runs of the recorder so far.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    pub(super) host: Option<String>,
    pub(super) runs: u64,
    /// The last sign of life, and whether it was an end.
    last: Option<(Time, bool)>,
    pub(super) pauses: Vec<Pause>,
    pub(super) more_pauses: u64,
    pub(super) lost: HashMap<LostReason, (Tally, u64)>,
}

/// A time in which nobody recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    /// The last sign of life before it: of one that was killed the last event that it kept, or that it was
    /// there with nothing to keep, which it writes once a minute.
    pub(super) from: Time,
    /// The start after it.
    pub(super) to: Time,
    /// The recorder had not ended by itself.
    pub(super) killed: bool,
}

/// Pauses that are told one by one.
const MOST: usize = 10_000;

impl Gaps {
    pub(super) fn start(&mut self, start: &Start, scope: &Scope) {
        let Start {
            host_name, time, ..
        } = start;
        self.host = Some(host_name.clone());
        if !scope.has(time.utc) {
            self.last = Some((*time, false));
            return;
        }
        self.runs += 1;
        if let Some((from, ended)) = self.last.replace((*time, false)) {
            if self.pauses.len() < MOST {
                self.pauses.push(Pause {
                    from,
                    to: *time,
                    killed: !ended,
                });
            } else {
                self.more_pauses += 1;
            }
        }
    }

    /// Something was recorded, or the recorder was there.
    pub(super) const fn alive(&mut self, time: Time) {
        self.last = Some((time, false));
    }

    pub(super) const fn end(&mut self, time: Time) {
        self.last = Some((time, true));
    }

    pub(super) fn lost(&mut self, lost: &Lost, scope: &Scope) {
        let Lost {
            count,
            reason,
            time,
        } = *lost;
        if scope.has(time.utc) {
            let (tally, sum) = self.lost.entry(reason).or_default();
            tally.note(time);
            *sum += count;
        }
    }
}
