//! A portwatch that several scenarios share: it is started once, as a user leaves it running, and each of
//! them is compared with what it printed meanwhile.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use crate::{
    degraded::Backend,
    expect::{Expected, lookup},
    runner::{Told, Workload},
    sys::netns::Netns,
    tracer::{Mark, Tracer},
};

/// A running portwatch, and what was seen with it.
pub(crate) struct Shared {
    tracer: Tracer,
    mark: Mark,
    /// Whose lines were compared.
    seen: Expected,
}

impl Shared {
    /// `trace` with that backend; without an event, of all that are shown unless asked otherwise.
    pub(crate) fn start(portwatch: &Path, backend: Backend, event: Option<&str>) -> Result<Self> {
        let mut args = vec!["trace", "-o", "json", "--attach", backend.as_str()];
        args.extend(event.iter().flat_map(|event| ["-e", event]));
        Ok(Self {
            tracer: Tracer::start(portwatch, args)?,
            mark: Mark::among(event),
            seen: Expected::default(),
        })
    }

    /// Runs a workload in a namespace of its own: what it told, and the lines that are its own.
    pub(crate) fn watch(
        &mut self,
        name: &str,
        backend: Backend,
        long: bool,
    ) -> Result<(Told, Vec<Value>)> {
        let netns = Netns::new()?;
        let mut workload = Workload::start(&netns, name, backend, long, false)?;
        let told = workload.told()?;
        let (told, lines) = if self.mark == Mark::Bind {
            let lines = self.tracer.until(self.mark)?;
            (workload.end(told)?, lines)
        } else {
            // The end of a process lets go of ports too.
            let told = workload.end(told)?;
            (told, self.tracer.until(self.mark)?)
        };
        let Told::Expect(expected) = &told else {
            return Ok((told, Vec::new()));
        };
        self.seen.pids.extend(&expected.pids);
        self.seen.netns.extend(&expected.netns);
        let own = lines.into_iter().filter(|line| expected.owns(line));
        let own = own.collect();
        Ok((told, own))
    }

    /// After all of them: a clean end, right totals, nothing lost, and no attempt of theirs that portwatch
    /// still takes for open.
    pub(crate) fn end(self) -> Result<()> {
        let finished = self.tracer.stop()?;
        finished.ended_well(0)?;
        // What lets go of a port later, a connection in TIME_WAIT, is told when it does.
        let is_late = |line: &Value| self.mark == Mark::Bind && self.seen.owns(line);
        if let Some(line) = finished.lines.iter().find(|line| is_late(line)) {
            bail!("told at the very end: {line}");
        }
        let (_, _, lost) = finished.totals;
        // The kernel also counts a program that it skipped where there was nothing to tell: a change of
        // state that interrupts another one on the same CPU. That everything was told is known by now.
        let reasons: Vec<_> = finished
            .lines
            .iter()
            .filter_map(|line| lookup(line, "lost.reason"))
            .map(ToString::to_string)
            .collect();
        let skipped = !reasons.is_empty() && reasons.iter().all(|reason| reason == "\"recursion\"");
        ensure!(
            lost == 0 || skipped,
            "{lost} events were lost: {}",
            reasons.join(", ")
        );
        Ok(())
    }
}
