//! Records on their way to the sink: put together, enriched, filtered, counted, and what is missing
//! among them told where it is missing. Knows no ring and no programs.

use std::io;

use super::held::Before;
use crate::{
    decode::{self, Record},
    enrich::{Enricher, descriptors::Entry},
    event::{Backend, End, Event, Item, Lost, LostReason, Outcome, Start, UnknownReason},
    filter,
    host::kernel,
    plan::blind,
    selection::Selection,
    sink::Sink,
    source::assemble::{Assembled, Assembler},
};

/// Losses since the last time, by reason.
pub(super) type News = Vec<(LostReason, u64)>;

/// What is left to tell when the programs are detached and the ring is empty.
#[derive(Default)]
pub(super) struct Rest {
    /// Attempts whose outcome is open.
    pub(super) open: Vec<Event>,
    /// Calls whose return was missed.
    pub(super) unreturned: u64,
    /// Times that the kernel skipped a program because it was running already on that CPU.
    pub(super) skipped: u64,
}

/// A stream from its start to its end. `L` asks the kernel programs what they could not hand over.
pub(super) struct Stream<'a, L> {
    assembler: Assembler,
    enricher: Enricher,
    /// What was held before, where that is asked.
    before: Option<Before>,
    selection: &'a Selection,
    sink: Box<dyn Sink>,
    /// Events to print at most.
    limit: u64,
    events: u64,
    failures: u64,
    lost: u64,
    losses: L,
    /// Losses seen so far in the records of each CPU.
    seen: Vec<u32>,
}

impl<'a, L: FnMut() -> io::Result<News>> Stream<'a, L> {
    pub(super) fn new(
        sink: Box<dyn Sink>,
        enricher: Enricher,
        selection: &'a Selection,
        limit: Option<u64>,
        losses: L,
    ) -> Self {
        Self {
            assembler: Assembler::default(),
            enricher,
            before: None,
            selection,
            sink,
            limit: limit.unwrap_or(u64::MAX),
            events: 0,
            failures: 0,
            lost: 0,
            losses,
            seen: Vec::new(),
        }
    }

    /// Prints the first item.
    pub(super) fn start(&mut self, backend: Backend) -> io::Result<()> {
        let time = self.enricher.now()?;
        self.sink.take(Item::Start(Start {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel_release: kernel::Release::read()
                .map_or_else(String::new, |release| release.text),
            host_name: kernel::host_name().unwrap_or_default(),
            backend,
            degraded: blind::of(backend).map(ToString::to_string).collect(),
            time,
        }))?;
        self.sink.flush()
    }

    /// Takes what was held when the trace began.
    pub(super) fn before(&mut self, before: Option<Before>) {
        self.before = before;
    }

    /// See [`Enricher::look_around`].
    pub(super) fn look_around(&mut self) -> usize {
        self.enricher.look_around()
    }

    /// See [`Enricher::remember`].
    pub(super) fn remember(&mut self, seen: Vec<Entry>) -> usize {
        self.enricher.remember(seen)
    }

    /// Whether all the events that were asked for are printed.
    pub(super) fn is_full(&self) -> bool {
        self.events >= self.limit
    }

    /// Takes the clocks' offset again.
    pub(super) fn resample(&mut self) -> io::Result<()> {
        self.enricher.resample()
    }

    /// Takes the next record of the ring.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        match decode::record(bytes) {
            Ok(record) => self.record(record),
            Err(_) => self.tell_lost(LostReason::Malformed, 1),
        }
    }

    fn record(&mut self, record: Record) -> io::Result<()> {
        match self.assembler.take(record) {
            None => Ok(()),
            Some(Assembled::Image(image)) => {
                self.enricher.image(image);
                Ok(())
            }
            Some(Assembled::Event { event, cpu, lost }) => {
                if self.is_new_loss(cpu, lost) {
                    self.account()?;
                }
                self.event(event)
            }
        }
    }

    /// Writes what the records have come to.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }

    fn event(&mut self, mut event: Box<Event>) -> io::Result<()> {
        if self.is_full() {
            return Ok(());
        }
        if let Some(before) = &mut self.before {
            before.judge(&mut event);
        }
        let sighting = self.enricher.event(event);
        if !filter::wants(self.selection, &sighting) {
            return Ok(());
        }
        self.events += 1;
        self.failures += u64::from(sighting.event.outcome.is_failure());
        self.sink.take(Item::Event(Box::new(sighting)))
    }

    fn is_new_loss(&mut self, cpu: u16, lost: u32) -> bool {
        let cpu = usize::from(cpu);
        if self.seen.len() <= cpu {
            self.seen.resize(cpu + 1, 0);
        }
        let is_new = self.seen[cpu] != lost;
        self.seen[cpu] = lost;
        is_new
    }

    /// Tells what the kernel programs have lost since the last time.
    fn account(&mut self) -> io::Result<()> {
        for (reason, count) in (self.losses)()? {
            self.tell_lost(reason, count)?;
        }
        Ok(())
    }

    fn tell_lost(&mut self, reason: LostReason, count: u64) -> io::Result<()> {
        if count == 0 {
            return Ok(());
        }
        self.lost += count;
        self.enricher.lost();
        let time = self.enricher.now()?;
        self.sink.take(Item::Lost(Lost {
            count,
            reason,
            time,
        }))
    }

    /// Prints, once the programs are detached and the ring is empty, what is left to tell, the last losses
    /// and the totals.
    pub(super) fn finish(&mut self, rest: Rest) -> io::Result<()> {
        let Rest {
            open,
            unreturned,
            skipped,
        } = rest;
        for mut event in open {
            event.outcome = Outcome::Unknown(UnknownReason::TraceEnded);
            self.event(Box::new(event))?;
        }
        self.account()?;
        self.tell_lost(LostReason::ReturnMissed, unreturned)?;
        self.tell_lost(LostReason::Recursion, skipped)?;
        let time = self.enricher.now()?;
        self.sink.take(Item::End(End {
            events: self.events,
            failures: self.failures,
            lost: self.lost,
            time,
        }))?;
        self.sink.close()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use std::{cell::RefCell, rc::Rc};

    use super::*;
    use crate::{
        enrich,
        event::Op,
        sample::{connect, failed, sighting},
    };

    /// Keeps what it was given.
    #[derive(Clone, Default)]
    struct Kept(Rc<RefCell<Vec<Item>>>);

    impl Sink for Kept {
        fn item(&mut self, item: &Item) -> io::Result<()> {
            self.0.borrow_mut().push(item.clone());
            Ok(())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Kept {
        /// One word for each item: its name, what is counted, why.
        fn words(&self) -> Vec<String> {
            self.0.borrow().iter().map(word).collect()
        }
    }

    fn word(item: &Item) -> String {
        match item {
            Item::Start(start) => format!("start {}", start.backend.as_str()),
            Item::Event(sighting) => {
                let Event {
                    op, local, outcome, ..
                } = &*sighting.event;
                let outcome = match outcome {
                    Outcome::Success => "",
                    Outcome::Failure(_) => " failed",
                    Outcome::Unknown(UnknownReason::Closed) => " closed",
                    Outcome::Unknown(UnknownReason::TraceEnded) => " open",
                };
                format!("{} {}{outcome}", op.as_str(), local.port.unwrap())
            }
            Item::Lost(lost) => format!("lost {} {}", lost.count, lost.reason.as_str()),
            Item::End(end) => format!("end {} {} {}", end.events, end.failures, end.lost),
        }
    }

    fn all() -> Selection {
        Selection {
            events: Op::ALL.to_vec(),
            ..Selection::default()
        }
    }

    fn enricher() -> Enricher {
        Enricher::new(enrich::Options {
            numeric: true,
            args: true,
            brief: false,
            backend: Backend::RawTp,
        })
        .unwrap()
    }

    /// Runs a stream; the words of what came out.
    fn stream(
        selection: &Selection,
        limit: Option<u64>,
        mut losses: Vec<News>,
        run: impl FnOnce(&mut Stream<'_, &mut dyn FnMut() -> io::Result<News>>),
    ) -> Vec<String> {
        let kept = Kept::default();
        let mut next = || {
            Ok(if losses.is_empty() {
                Vec::new()
            } else {
                losses.remove(0)
            })
        };
        let next: &mut dyn FnMut() -> io::Result<News> = &mut next;
        let mut stream = Stream::new(Box::new(kept.clone()), enricher(), selection, limit, next);
        run(&mut stream);
        kept.words()
    }

    fn open(event: Event) -> Rest {
        Rest {
            open: vec![event],
            ..Rest::default()
        }
    }

    fn bind(port: u16) -> Event {
        *sighting(Op::Bind, &format!("127.0.0.1:{port}")).event
    }

    fn record(event: Event, cpu: u16, lost: u32) -> Record {
        Record::Socket {
            event: Box::new(event),
            cpu,
            lost,
        }
    }

    #[test]
    fn a_limit_is_exact_even_inside_a_batch() {
        let words = stream(&all(), Some(2), Vec::new(), |stream| {
            for port in 1..=5 {
                assert_eq!(stream.is_full(), port > 2);
                stream.record(record(bind(port), 0, 0)).unwrap();
            }
            // What is open at the end counts too.
            stream.finish(open(bind(6))).unwrap();
        });
        assert_eq!(words, ["bind 1", "bind 2", "end 2 0 0"]);
    }

    #[test]
    fn what_the_filter_leaves_out_does_not_count() {
        let failures = Selection {
            failed: true,
            ..all()
        };
        let words = stream(&failures, Some(1), Vec::new(), |stream| {
            stream.record(record(bind(1), 0, 0)).unwrap();
            assert!(!stream.is_full());
            let refused = failed(sighting(Op::Bind, "127.0.0.1:2"), libc::EADDRINUSE);
            stream.record(record(*refused.event, 0, 0)).unwrap();
            assert!(stream.is_full());
            stream.finish(Rest::default()).unwrap();
        });
        assert_eq!(words, ["bind 2 failed", "end 1 1 0"]);
    }

    #[test]
    fn a_loss_stands_before_the_event_that_showed_it() {
        let losses = vec![
            vec![(LostReason::RingFull, 3), (LostReason::TableFull, 1)],
            vec![(LostReason::RingFull, 2)],
        ];
        let words = stream(&all(), None, losses, |stream| {
            stream.record(record(bind(1), 0, 0)).unwrap();
            stream.record(record(bind(2), 7, 4)).unwrap();
            // The same loss on the same CPU is told; another CPU has its own count.
            stream.record(record(bind(3), 7, 4)).unwrap();
            stream.record(record(bind(4), 0, 2)).unwrap();
            stream.finish(Rest::default()).unwrap();
        });
        assert_eq!(
            words,
            [
                "bind 1",
                "lost 3 ring_full",
                "lost 1 table_full",
                "bind 2",
                "bind 3",
                "lost 2 ring_full",
                "bind 4",
                "end 4 0 6",
            ]
        );
    }

    #[test]
    fn losses_that_no_later_event_showed_stand_before_the_totals() {
        let losses = vec![vec![(LostReason::Unreadable, 5)]];
        let words = stream(&all(), None, losses, |stream| {
            stream.bytes(b"not a record").unwrap();
            let rest = Rest {
                unreturned: 3,
                skipped: 2,
                ..Rest::default()
            };
            stream.finish(rest).unwrap();
        });
        assert_eq!(
            words,
            [
                "lost 1 malformed",
                "lost 5 unreadable",
                "lost 3 return_missed",
                "lost 2 recursion",
                "end 0 0 11",
            ]
        );
    }

    #[test]
    fn losses_are_told_after_the_last_event_that_was_asked_for() {
        let losses = vec![vec![(LostReason::RingFull, 9)]];
        let words = stream(&all(), Some(1), losses, |stream| {
            stream.record(record(bind(1), 0, 0)).unwrap();
            stream.record(record(bind(2), 0, 9)).unwrap();
            stream.finish(Rest::default()).unwrap();
        });
        assert_eq!(words, ["bind 1", "lost 9 ring_full", "end 1 0 9"]);
    }

    #[test]
    fn what_is_open_at_the_end_has_an_unknown_outcome() {
        let words = stream(&all(), None, Vec::new(), |stream| {
            stream.start(Backend::RawTp).unwrap();
            let event = *connect("127.0.0.1:40000", "127.0.0.1:80").event;
            stream.finish(open(event)).unwrap();
        });
        assert_eq!(words, ["start raw_tp", "connect 40000 open", "end 1 0 0"]);
    }
}
