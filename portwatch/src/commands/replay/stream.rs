//! What of a recording is shown, and what that comes to. No I/O.

use crate::{
    event::{End, Item, Time},
    filter,
    selection::Selection,
};

/// A recording on its way to a sink.
#[derive(Debug)]
pub(super) struct Replayed<'a> {
    selection: &'a Selection,
    /// Events to print at most.
    limit: u64,
    events: u64,
    /// Of the run at hand: events printed, failures among them, events lost.
    run: (u64, u64, u64),
    last: Option<Time>,
    is_open: bool,
}

impl<'a> Replayed<'a> {
    pub(super) fn new(selection: &'a Selection, limit: Option<u64>) -> Self {
        Self {
            selection,
            limit: limit.unwrap_or(u64::MAX),
            events: 0,
            run: (0, 0, 0),
            last: None,
            is_open: false,
        }
    }

    /// Whether all the events that were asked for are shown.
    pub(super) const fn is_full(&self) -> bool {
        self.events >= self.limit
    }

    /// Whether nothing that was recorded lacks its end.
    pub(super) const fn is_whole(&self) -> bool {
        !self.is_open || self.is_full()
    }

    /// Takes the next item of the recording; the value is what is shown of it.
    pub(super) fn take(&mut self, item: Item) -> Option<Item> {
        if self.is_full() {
            return None;
        }
        match item {
            Item::Start(start) => {
                self.run = (0, 0, 0);
                self.is_open = true;
                Some(Item::Start(start))
            }
            Item::Event(sighting) => {
                self.is_open = true;
                if !filter::wants(self.selection, &sighting) {
                    return None;
                }
                self.events += 1;
                self.run.0 += 1;
                self.run.1 += u64::from(sighting.event.outcome.is_failure());
                self.last = Some(sighting.time);
                Some(Item::Event(sighting))
            }
            Item::Lost(lost) => {
                self.is_open = true;
                self.run.2 += lost.count;
                Some(Item::Lost(lost))
            }
            Item::End(end) => {
                self.is_open = false;
                Some(self.totals(end.time))
            }
        }
    }

    /// The end of a replay that had shown what was asked for before the recording ended.
    pub(super) fn end(&self) -> Option<Item> {
        let last = self.last.filter(|_| self.is_full() && self.is_open)?;
        Some(self.totals(last))
    }

    /// What was shown since the start: what was recorded may be more.
    const fn totals(&self, time: Time) -> Item {
        let (events, failures, lost) = self.run;
        Item::End(End {
            events,
            failures,
            lost,
            time,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{LostReason, Op},
        sample::{end, event, failed, lost, sighting, start},
    };

    fn replay(selection: &Selection, limit: Option<u64>, items: Vec<Item>) -> (Vec<Item>, bool) {
        let mut replayed = Replayed::new(selection, limit);
        let mut shown: Vec<_> = items
            .into_iter()
            .filter_map(|item| replayed.take(item))
            .collect();
        shown.extend(replayed.end());
        (shown, replayed.is_whole())
    }

    fn all() -> Selection {
        Selection {
            events: Op::ALL.to_vec(),
            ..Selection::default()
        }
    }

    fn recording() -> Vec<Item> {
        vec![
            start(),
            event(sighting(Op::Bind, "0.0.0.0:1")),
            event(failed(sighting(Op::Bind, "0.0.0.0:2"), libc::EADDRINUSE)),
            lost(5, LostReason::RingFull),
            end(2, 1, 5),
            start(),
            event(sighting(Op::Listen, "0.0.0.0:3")),
            end(1, 0, 0),
        ]
    }

    #[test]
    fn everything_is_shown_as_it_was() {
        assert_eq!(replay(&all(), None, recording()), (recording(), true));
    }

    #[test]
    fn totals_count_what_is_shown_of_each_run() {
        let failures = Selection {
            failed: true,
            ..all()
        };
        let (shown, _) = replay(&failures, None, recording());
        assert_eq!(shown.len(), 6);
        assert_eq!(shown[3], end(1, 1, 5));
        assert_eq!(shown[5], end(0, 0, 0));
    }

    #[test]
    fn a_limit_ends_it_with_its_totals() {
        let (shown, is_whole) = replay(&all(), Some(1), recording());
        assert_eq!(shown.len(), 3);
        assert_eq!(shown[2], end(1, 0, 0));
        assert!(is_whole);
    }

    #[test]
    fn a_killed_recorder_leaves_no_end_and_none_is_made_up() {
        let cut = recording()[..4].to_vec();
        assert_eq!(replay(&all(), None, cut.clone()), (cut, false));
    }
}
