//! When nobody recorded, what was kept, and what was lost.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::event::{Lost, LostReason, Start, Time};

use super::{Keeping, Kept, Scope, tally::Tally};

/// Runs of the recorder so far.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    pub(super) host: Option<String>,
    pub(super) runs: u64,
    run: Option<Run>,
    pub(super) kept: Kept,
    pub(super) pauses: Vec<Pause>,
    pub(super) more_pauses: u64,
    pub(super) lost: HashMap<LostReason, (Tally, u64)>,
}

/// A run of the recorder.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// The last sign of life, and whether it was an end.
    last: Time,
    ended: bool,
    /// Its start was seen.
    started: bool,
    /// What it kept, and when it said that it was there; where it says so.
    keeping: Option<Keeping>,
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

impl Run {
    /// Its last sign of life. The stream is in order, whatever the clock said; what a run says of itself
    /// may be later than the last of its events.
    fn last(&self) -> Time {
        let said = self.keeping.and_then(|keeping| keeping.alive);
        match said {
            Some(said) if !self.ended && said.boot > self.last.boot => said,
            _ => self.last,
        }
    }
}

impl Gaps {
    /// Runs are followed from the beginning, so that a pause is known that began before the scope does.
    pub(super) fn start(&mut self, start: &Start, scope: &Scope) {
        let Start {
            host_name, time, ..
        } = start;
        self.host = Some(host_name.clone());
        self.runs += u64::from(scope.has(time.utc));
        let run = Run {
            last: *time,
            ended: false,
            started: true,
            keeping: None,
        };
        let Some(before) = self.run.replace(run) else {
            return;
        };
        let pause = Pause {
            from: before.last(),
            to: *time,
            killed: !before.ended,
        };
        if !scope.meets(pause.from.utc, pause.to.utc) {
            return;
        }
        if self.pauses.len() < MOST {
            self.pauses.push(pause);
        } else {
            self.more_pauses += 1;
        }
    }

    /// What the run that has just begun says of itself.
    pub(super) fn keeping(&mut self, keeping: Keeping, scope: &Scope) {
        let Some(run) = &mut self.run else {
            return;
        };
        run.keeping = Some(keeping);
        if scope.has(run.last.utc) {
            self.kept.add(keeping);
        }
    }

    /// Something was recorded.
    pub(super) fn alive(&mut self, time: Time, is_counted: bool) {
        let run = self.run.get_or_insert(Run {
            last: time,
            ended: false,
            started: false,
            keeping: None,
        });
        run.last = time;
        run.ended = false;
        if is_counted && let Some(keeping) = run.keeping {
            self.kept.add(keeping);
        }
    }

    pub(super) const fn end(&mut self, time: Time) {
        if let Some(run) = &mut self.run {
            run.last = time;
            run.ended = true;
        }
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

    /// The last sign of life of a run that has no end.
    pub(super) fn unended(&self, until: Option<Timestamp>) -> Option<Time> {
        let run = self.run.filter(|run| run.started && !run.ended)?;
        let last = run.last();
        until.is_none_or(|until| last.utc < until).then_some(last)
    }
}
