//! A portwatch that several scenarios share: it is started once, as a user leaves it running, and each of
//! them is compared with what it printed meanwhile.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{
    degraded::Backend,
    expect::{Expected, lookup},
    runner::{Told, Workload},
    sys::{bpf, netns::Netns},
    tracer::{Mark, Tracer},
};

/// A running portwatch, and what was seen with it.
pub(crate) struct Shared {
    tracer: Tracer,
    mark: Mark,
    /// Whose lines were compared.
    seen: Expected,
    /// Their namespaces, where what they have left behind is told later: with another one that gets the number
    /// of one that is gone it would be taken for that one's.
    kept: Vec<Netns>,
    /// See [`Shared::has_skipped`].
    skipped: u64,
}

/// Times that one who misses lines of a release asks again, and how long it waits for that: a connection lets
/// go of its port when the kernel gets to it, not when its process ends.
const AGAIN: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);

impl Shared {
    /// `trace` with that backend; without an event, of all that are shown unless asked otherwise.
    pub(crate) fn start(portwatch: &Path, backend: Backend, event: Option<&str>) -> Result<Self> {
        let mark = Mark::among(event)?;
        let mut args = vec!["trace", "-o", "json", "--attach", backend.as_str()];
        args.extend(event.iter().flat_map(|event| ["-e", event]));
        Ok(Self {
            tracer: Tracer::start(portwatch, args)?,
            mark,
            seen: Expected::default(),
            kept: Vec::new(),
            skipped: 0,
        })
    }

    /// Runs a workload to its end: what it told, and the lines that are its own.
    pub(crate) fn watch(
        &mut self,
        netns: Netns,
        mut workload: Workload,
    ) -> Result<(Told, Vec<Value>)> {
        let told = workload.told()?;
        let (told, mut lines) = if self.mark == Mark::Bind {
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
        lines.retain(|line| expected.owns(line));
        if self.mark == Mark::Release {
            self.kept.push(netns);
            for _ in 0..AGAIN {
                if lines.len() >= expected.lines.len() {
                    break;
                }
                std::thread::sleep(PAUSE);
                let later = self.tracer.until(self.mark)?;
                lines.extend(later.into_iter().filter(|line| expected.owns(line)));
            }
        }
        Ok((told, lines))
    }

    /// Whether the kernel has skipped one of its programs since this was asked last, because that was running already
    /// on the CPU: what it should have told is lost, which portwatch counts at its end. Kernels before 5.12 do not
    /// tell.
    pub(crate) fn has_skipped(&mut self) -> Result<bool> {
        let all = bpf::recursion_misses(self.tracer.pid())
            .context("cannot ask what the kernel skipped")?;
        Ok(std::mem::replace(&mut self.skipped, all) != all)
    }

    /// Ends it; how many events were lost in all.
    pub(crate) fn lost(self) -> Result<u64> {
        let finished = self.tracer.stop()?;
        finished.ended_well(0)?;
        Ok(finished.totals.2)
    }

    /// After all of them: a clean end, right totals, nothing lost, and no attempt of theirs that portwatch
    /// still takes for open.
    pub(crate) fn end(self) -> Result<()> {
        let finished = self.tracer.stop()?;
        finished.ended_well(0)?;
        // A connection in TIME_WAIT lets go of its port later, and that is told when it does.
        let is_late = |line: &Value| self.mark != Mark::Release && self.seen.owns(line);
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
