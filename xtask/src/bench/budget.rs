//! What portwatch may cost, row by row.

use super::figures::Figures;

/// Where a figure comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Source {
    /// Added to an operation on the whole machine.
    Total(&'static str),
    /// Added to an operation inside the traced process.
    Own(&'static str),
    /// A value by its name.
    Value(&'static str),
}

/// One line of the budget. Without a limit the figure is only shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// In words.
    pub(crate) what: &'static str,
    /// The tracer's label in the figures.
    pub(crate) who: &'static str,
    /// Which figure.
    pub(crate) source: Source,
    /// At most this.
    pub(crate) limit: Option<f64>,
    /// The figure is divided by this to be shown and compared.
    pub(crate) unit: f64,
    /// What is shown after it.
    pub(crate) suffix: &'static str,
}

const fn row(who: &'static str, what: &'static str, source: Source, limit: Option<f64>) -> Row {
    Row {
        what,
        who,
        source,
        limit,
        unit: 1.0,
        suffix: "",
    }
}

const fn value(
    who: &'static str,
    what: &'static str,
    name: &'static str,
    limit: f64,
    unit: f64,
    suffix: &'static str,
) -> Row {
    Row {
        what,
        who,
        source: Source::Value(name),
        limit: Some(limit),
        unit,
        suffix,
    }
}

const fn shown(
    who: &'static str,
    what: &'static str,
    name: &'static str,
    unit: f64,
    suffix: &'static str,
) -> Row {
    Row {
        what,
        who,
        source: Source::Value(name),
        limit: None,
        unit,
        suffix,
    }
}

use Source::{Own, Total};

/// Filters that no operation of the workload matches.
pub(crate) const UNMATCHED: &[&str] = &["--pid 1", "--port 1"];

/// The modes of the workload in which they are measured.
pub(crate) const UNMATCHED_MODES: &str = "bind,connect";

/// What it may cost a socket that is bound and closed, inside the process, to note who has its port.
const OWNERS: f64 = 800.0;

/// What an operation that no filter matches may cost in all, notes of owners included.
const NO_MATCH: f64 = 1250.0;

/// Instructions per operation, on the kernel the budget is written for.
pub(crate) const OPS: &[Row] = &[
    row("tracing", "bind", Total("bind"), Some(4500.0 + OWNERS)),
    row(
        "tracing",
        "bind, inside",
        Own("bind"),
        Some(1000.0 + OWNERS),
    ),
    row(
        "tracing",
        "bind refused by policy",
        Total("bind-refused"),
        Some(4500.0),
    ),
    row(
        "tracing",
        "bind refused by policy, inside",
        Own("bind-refused"),
        Some(1200.0),
    ),
    row("tracing", "bind, EADDRINUSE", Total("bind-conflict"), None),
    row(
        "tracing",
        "bind, EADDRINUSE, inside",
        Own("bind-conflict"),
        None,
    ),
    row(
        "tracing",
        "UDP bind",
        Total("udp-bind"),
        Some(4500.0 + OWNERS),
    ),
    row(
        "tracing",
        "UDP bind, inside",
        Own("udp-bind"),
        Some(1000.0 + OWNERS),
    ),
    row(
        "tracing",
        "connect",
        Total("connect"),
        Some(7000.0 + OWNERS),
    ),
    row(
        "tracing",
        "connect, inside",
        Own("connect"),
        Some(2500.0 + OWNERS),
    ),
    row("tracing", "getppid", Total("getppid"), Some(0.0)),
    row("tracing", "read", Total("read"), Some(0.0)),
    row("tracing", "write", Total("write"), Some(0.0)),
    row("tracing", "open+close", Total("open-close"), Some(0.0)),
    row("tracing", "fork+exit", Total("fork"), Some(1500.0)),
    row("tracing", "fork+exec+exit", Total("exec"), Some(6000.0)),
    row(
        "tracing --pid 1",
        "bind, no match",
        Total("bind"),
        Some(NO_MATCH),
    ),
    row(
        "tracing --pid 1",
        "connect, no match",
        Total("connect"),
        Some(NO_MATCH),
    ),
    row(
        "tracing --port 1",
        "bind, no match",
        Total("bind"),
        Some(NO_MATCH),
    ),
    row(
        "tracing --port 1",
        "connect, no match",
        Total("connect"),
        Some(NO_MATCH),
    ),
    row("kprobe", "bind", Total("bind"), None),
    row("kprobe", "bind, inside", Own("bind"), Some(2600.0)),
    row(
        "kprobe",
        "bind refused by policy, inside",
        Own("bind-refused"),
        Some(2600.0),
    ),
    row(
        "kprobe",
        "bind, EADDRINUSE, inside",
        Own("bind-conflict"),
        None,
    ),
    row("kprobe", "UDP bind, inside", Own("udp-bind"), Some(2600.0)),
    row("kprobe", "connect", Total("connect"), None),
    row("kprobe", "connect, inside", Own("connect"), None),
    row("kprobe", "getppid", Total("getppid"), None),
    row("kprobe", "fork+exit", Total("fork"), None),
    row("kprobe", "fork+exec+exit", Total("exec"), None),
    row("kprobe --pid 1", "bind, no match", Total("bind"), None),
    row("raw_tp", "bind", Total("bind"), None),
    row("raw_tp", "bind, inside", Own("bind"), Some(2000.0)),
    row(
        "raw_tp",
        "bind refused by policy, inside",
        Own("bind-refused"),
        Some(2000.0),
    ),
    row(
        "raw_tp",
        "bind, EADDRINUSE, inside",
        Own("bind-conflict"),
        None,
    ),
    row("raw_tp", "UDP bind, inside", Own("udp-bind"), Some(2000.0)),
    row("raw_tp", "connect", Total("connect"), None),
    row("raw_tp", "connect, inside", Own("connect"), None),
    row("raw_tp", "getppid", Total("getppid"), Some(240.0)),
    row("raw_tp", "read", Total("read"), Some(240.0)),
    row("raw_tp", "write", Total("write"), Some(240.0)),
    row(
        "raw_tp",
        "open+close (two calls)",
        Total("open-close"),
        Some(480.0),
    ),
    row("raw_tp", "fork+exit", Total("fork"), None),
    row("raw_tp", "fork+exec+exit", Total("exec"), None),
];

/// What no start goes below: nothing but the hooks.
const EMPTY: &str = "its hooks, with programs that do nothing";

/// What is measured in the same boot, but is not about operations.
pub(crate) const START: &[Row] = &[
    value("tracing", "exec to `start`", "start-run", 120.0, 1e6, " M"),
    shown(
        "tracing",
        "of that in the kernel",
        "start-kernel",
        1e6,
        " M",
    ),
    shown("tracing", EMPTY, "start-hooks", 1e6, " M"),
    value("kprobe", "exec to `start`", "start-run", 120.0, 1e6, " M"),
    shown("kprobe", "of that in the kernel", "start-kernel", 1e6, " M"),
    shown("kprobe", EMPTY, "start-hooks", 1e6, " M"),
    value("raw_tp", "exec to `start`", "start-run", 120.0, 1e6, " M"),
    shown("raw_tp", "of that in the kernel", "start-kernel", 1e6, " M"),
    shown("raw_tp", EMPTY, "start-hooks", 1e6, " M"),
    value(
        "tracing",
        "run when idle, per second",
        "idle-run-per-second",
        0.0,
        1.0,
        "",
    ),
    value(
        "kprobe",
        "run when idle, per second",
        "idle-run-per-second",
        0.0,
        1.0,
        "",
    ),
    value(
        "raw_tp",
        "run when idle, per second",
        "idle-run-per-second",
        0.0,
        1.0,
        "",
    ),
];

/// Measured on two CPUs at full speed.
pub(crate) const SPEED: &[Row] = &[
    value(
        "tracing",
        "memory without the ring",
        "rss-without-ring-kb",
        12.0,
        1e6 / 1024.0,
        " MB",
    ),
    value(
        "kprobe",
        "memory without the ring",
        "rss-without-ring-kb",
        12.0,
        1e6 / 1024.0,
        " MB",
    ),
    value(
        "raw_tp",
        "memory without the ring",
        "rss-without-ring-kb",
        12.0,
        1e6 / 1024.0,
        " MB",
    ),
    value(
        "tracing",
        "event to line in a pipe, worst of 20",
        "latency-worst-us",
        100.0,
        1e3,
        " ms",
    ),
    value(
        "kprobe",
        "event to line in a pipe, worst of 20",
        "latency-worst-us",
        100.0,
        1e3,
        " ms",
    ),
    value(
        "raw_tp",
        "event to line in a pipe, worst of 20",
        "latency-worst-us",
        100.0,
        1e3,
        " ms",
    ),
    value("tracing", "lost of the burst", "burst-lost", 0.0, 1.0, ""),
    value("kprobe", "lost of the burst", "burst-lost", 0.0, 1.0, ""),
    value("raw_tp", "lost of the burst", "burst-lost", 0.0, 1.0, ""),
];

/// How a figure compares.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// There is no limit.
    Shown,
    /// At most the limit, or above it by less than two runs without a tracer differ.
    Met,
    /// Two runs without a tracer differ by more than the limit.
    Unclear,
    /// Above, by this much.
    Exceeded(f64),
}

impl Row {
    /// The figure and how far it may be off, in the row's unit.
    pub(crate) fn measured(&self, figures: &Figures) -> Option<(f64, f64)> {
        let (figure, noise) = match self.source {
            Total(mode) => {
                let added = figures.added(self.who, mode)?;
                (added.total, added.noise)
            }
            Own(mode) => {
                let added = figures.added(self.who, mode)?;
                (added.own, added.noise)
            }
            Source::Value(name) => (figures.number(self.who, name)?, 0.0),
        };
        Some((figure / self.unit, noise / self.unit))
    }

    /// Compares.
    pub(crate) fn verdict(&self, (figure, noise): (f64, f64)) -> Verdict {
        match self.limit {
            None => Verdict::Shown,
            Some(limit) if limit > 0.0 && noise > limit => Verdict::Unclear,
            // One instruction is what reading the clock costs.
            Some(limit) if figure <= limit + noise.max(1.0 / self.unit) => Verdict::Met,
            Some(limit) => Verdict::Exceeded(figure - limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_no_excess_and_a_limit_of_zero_is_one() {
        let row = row("tracing", "getppid", Total("getppid"), Some(0.0));
        assert_eq!(row.verdict((0.4, 0.0)), Verdict::Met);
        assert_eq!(row.verdict((30.0, 40.0)), Verdict::Met);
        assert_eq!(row.verdict((154.0, 2.0)), Verdict::Exceeded(154.0));
        let row = Row {
            limit: Some(1500.0),
            ..row
        };
        assert_eq!(row.verdict((-900.0, 6000.0)), Verdict::Unclear);
    }

    #[test]
    fn values_are_compared_in_their_unit() {
        let mut figures = Figures::default();
        assert!(figures.line("value\ttracing\tstart-run\t130000000"));
        let verdicts: Vec<_> = START
            .iter()
            .filter_map(|row| Some(row.verdict(row.measured(&figures)?)))
            .collect();
        assert_eq!(verdicts, [Verdict::Exceeded(10.0)]);
    }
}
