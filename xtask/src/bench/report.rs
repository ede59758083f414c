//! The table: budget, figure, verdict.

use std::fmt::Write as _;

use super::budget::{self, Row, Source, Verdict};
use super::figures::Figures;
use super::native::Native;
use super::peers;

/// All that a run has found out.
pub(crate) struct Report {
    /// What was typed after `cargo xtask`.
    pub(crate) command: String,
    /// Of the sources.
    pub(crate) commit: String,
    /// ISO 8601.
    pub(crate) date: String,
    /// The guest's.
    pub(crate) kernel: String,
    /// Its version.
    pub(crate) qemu: (u32, u32),
    /// Those that were measured.
    pub(crate) backends: Vec<String>,
    /// The boot that counts instructions.
    pub(crate) counted: Figures,
    /// The boot at full speed.
    pub(crate) timed: Figures,
    /// This machine.
    pub(crate) native: Option<Native>,
}

/// `12,345` or `-1.5`
pub(super) fn number(value: f64) -> String {
    if value.abs() < 100.0 && value.fract().abs() > 0.05 {
        return format!("{value:.1}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if value <= -0.5 {
        format!("-{text}")
    } else {
        text
    }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Shown => String::new(),
        Verdict::Met => "met".into(),
        Verdict::Unclear => "unclear: noise".into(),
        Verdict::Exceeded(by) => format!("**exceeded by {}**", number(*by)),
    }
}

impl Report {
    /// Everything, in Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            text,
            "Kernel {}, portwatch {}, {}, QEMU {}.{} (emulation, `-icount shift=0` where instructions are counted).\n`cargo xtask {}`\n",
            self.kernel, self.commit, self.date, self.qemu.0, self.qemu.1, self.command
        );
        self.operations(&mut text);
        self.others(&mut text);
        self.burst(&mut text);
        self.beside(&mut text);
        self.hooks(&mut text);
        for failure in self.counted.failures.iter().chain(&self.timed.failures) {
            let _ = writeln!(text, "Not measured: {failure}\n");
        }
        text
    }

    fn rows(&self, text: &mut String, rows: &[Row], figures: &Figures) {
        for row in rows {
            let Some(measured) = row.measured(figures) else {
                continue;
            };
            let limit = row
                .limit
                .map_or("–".to_string(), |limit| number(limit) + row.suffix);
            let base = match row.source {
                Source::Total(mode) => figures.base(mode).map(|base| base.total),
                Source::Own(mode) => figures.base(mode).map(|base| base.own),
                Source::Value(_) => None,
            };
            let sign = if base.is_some() && measured.0 >= 0.5 {
                "+"
            } else {
                ""
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {limit} | {sign}{}{} | {} | {} |",
                row.who,
                row.what,
                base.map_or("–".into(), number),
                number(measured.0),
                row.suffix,
                if base.is_some() {
                    format!("±{}", number(measured.1))
                } else {
                    "–".into()
                },
                verdict(&row.verdict(measured)),
            );
        }
    }

    fn operations(&self, text: &mut String) {
        text.push_str(
            "Instructions added per operation, output as text to /dev/null: on the whole machine until the last line is written, or inside the traced process.\n\n\
             | backend | operation | without | budget | measured | noise | verdict |\n|---|---|---:|---:|---:|---:|---|\n",
        );
        self.rows(text, budget::OPS, &self.counted);
        text.push('\n');
    }

    fn others(&self, text: &mut String) {
        text.push_str(
            "Start, idleness, memory, latency.\n\n| backend | what | without | budget | measured | noise | verdict |\n|---|---|---:|---:|---:|---:|---|\n",
        );
        self.rows(text, budget::START, &self.counted);
        self.rows(text, budget::SPEED, &self.timed);
        if let Some(native) = &self.native {
            let megabytes = native.binary as f64 / 1e6;
            let size = Row {
                what: "release binary",
                who: "all",
                source: Source::Value(""),
                // With SQLite in it, of which a recording needs most.
                limit: Some(10.0),
                unit: 1e6,
                suffix: " MB",
            };
            let _ = writeln!(
                text,
                "| all | release binary | – | 10 MB | {megabytes:.2} MB | – | {} |",
                verdict(&size.verdict((megabytes, 0.0)))
            );
            if let Some(start) = native.start {
                let milliseconds = start.as_secs_f64() * 1e3;
                let time = Row {
                    limit: Some(150.0),
                    unit: 1.0,
                    ..size
                };
                let _ = writeln!(
                    text,
                    "| {} | exec to `start` natively, kernel {}, median of 11, load average {} | – | 150 ms | {milliseconds:.0} ms | – | {} |",
                    native.backend,
                    native.kernel,
                    native.load,
                    verdict(&time.verdict((milliseconds, 0.0)))
                );
            }
        }
        text.push('\n');
    }

    fn burst(&self, text: &mut String) {
        let mut rows = String::new();
        let everybody = self
            .backends
            .iter()
            .map(String::as_str)
            .chain(peers::PEERS.iter().map(|(label, ..)| *label));
        for who in everybody {
            let value = |name| self.timed.value(who, name).unwrap_or("–").to_string();
            if self.timed.value(who, "rss-kb").is_none() {
                continue;
            }
            let _ = writeln!(
                rows,
                "| {who} | {} | {} | {} | {} | {} | {} | {} | {} |",
                value("burst-events"),
                value("burst-printed"),
                value("burst-lost"),
                value("rss-kb"),
                value("rss-without-ring-kb"),
                value("rss-peak-kb"),
                value("latency-seen"),
                self.counted.value(who, "idle-wakeups").unwrap_or("–"),
            );
        }
        if !rows.is_empty() {
            text.push_str(
                "Binds at full speed on two CPUs, output (JSON) to a file; resident memory in kB after 2,000 events; events seen in a pipe within a second; context switches when idle.\n\n\
                 | tracer | events | printed | lost | memory | without the ring | peak | in a pipe | idle |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
            );
            text.push_str(&rows);
            text.push('\n');
        }
    }

    /// Beside the neighbours: theirs, and how many times ours that is.
    fn beside(&self, text: &mut String) {
        let mut rows = String::new();
        for (label, _, mode) in peers::PEERS {
            let Some(theirs) = self.counted.added(label, mode) else {
                continue;
            };
            let _ = write!(
                rows,
                "| {label} | {mode} | {} ({}) | {} |",
                number(theirs.total),
                number(theirs.own),
                self.counted
                    .number(label, "start-run")
                    .map_or("–".into(), |run| number(run / 1e6) + " M"),
            );
            for backend in &self.backends {
                let _ = match self.counted.added(backend, mode) {
                    Some(ours) => write!(
                        rows,
                        " {} ({}) = {:.2}× ({:.2}×) |",
                        number(ours.total),
                        number(ours.own),
                        ours.total / theirs.total,
                        ours.own / theirs.own
                    ),
                    None => write!(rows, " – |"),
                };
            }
            rows.push('\n');
        }
        if rows.is_empty() {
            return;
        }
        let heads: String = self
            .backends
            .iter()
            .map(|name| format!(" {name} |"))
            .collect();
        let lines = "---:|".repeat(self.backends.len());
        let _ = writeln!(
            text,
            "Beside its neighbours (Debian 13's packages, same guest): instructions added per operation on the whole machine, in brackets inside the traced process, and what that is of the neighbour's.\n\n\
             | neighbour | operation | adds | to attach |{heads}\n|---|---|---:|---:|{lines}\n{rows}"
        );
    }

    /// What the hooks cost alone.
    fn hooks(&self, text: &mut String) {
        let mut rows = String::new();
        for (label, _, mode) in peers::HOOKS {
            if let Some(added) = self.counted.added(label, mode) {
                let _ = writeln!(
                    rows,
                    "| {label} | {mode} | {} | {} |",
                    number(added.total),
                    number(added.own)
                );
            }
        }
        if !rows.is_empty() {
            let _ = writeln!(
                text,
                "What the hooks cost alone: bpftrace with empty programs on what portwatch hooks on 6.12. No program goes below; an operation that no filter matches costs this and a look.\n\n\
                 | hooks | operation | on the whole machine | inside |\n|---|---|---:|---:|\n{rows}"
            );
        }
    }
}

/// The file with a run's section in place of the one of the same command (what was typed after
/// `cargo xtask`), or added to it.
pub(crate) fn kept(old: &str, command: &str, body: &str) -> String {
    const TITLE: &str = "# What portwatch costs\n\nMeasured by `cargo xtask bench`, which writes this file: a section per command, replaced when the command is run again.\n";
    let heading = format!("## `cargo xtask {command}`\n");
    let mut sections: Vec<String> =
        old.split_inclusive('\n')
            .fold(Vec::new(), |mut sections: Vec<String>, line| {
                match sections.last_mut() {
                    Some(section) if !line.starts_with("## ") => section.push_str(line),
                    _ => sections.push(line.to_string()),
                }
                sections
            });
    if sections
        .first()
        .is_none_or(|first| first.starts_with("## "))
    {
        sections.insert(0, TITLE.to_string() + "\n");
    }
    let section = format!("{heading}\n{}\n", body.trim_end());
    match sections
        .iter_mut()
        .find(|section| section.starts_with(&heading))
    {
        Some(old) => *old = section,
        None => sections.push(section),
    }
    let text = sections
        .iter()
        .map(|section| section.trim_end())
        .collect::<Vec<_>>()
        .join("\n\n");
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(command: &str, total: u32) -> Report {
        let mut counted = Figures::default();
        for line in [
            "ops\t-\tbind\t12000\t12000\t0".to_string(),
            format!("ops\ttracing\tbind\t{total}\t12900\t3000"),
            "ops\tbindsnoop\tbind\t28000\t17000\t9000".to_string(),
        ] {
            assert!(counted.line(&line));
        }
        Report {
            command: command.into(),
            commit: "abc".into(),
            date: "2026-01-01".into(),
            kernel: "6.12".into(),
            qemu: (10, 0),
            backends: vec!["tracing".into()],
            counted,
            timed: Figures::default(),
            native: None,
        }
    }

    #[test]
    fn figures_stand_beside_their_budget_and_neighbours() {
        let table = report("bench", 17_800).table();
        for line in [
            "| tracing | bind | 12,000 | 5,300 | +5,800 | ±0 | **exceeded by 500** |",
            "| tracing | bind, inside | 12,000 | 1,800 | +900 | ±0 | met |",
            "| bindsnoop | bind | 16,000 (5,000) | – | 5,800 (900) = 0.36× (0.18×) |",
        ] {
            assert!(table.contains(line), "{line}\nis not in\n{table}");
        }
    }

    #[test]
    fn a_section_is_replaced_by_the_same_command_only() {
        let kept = |old: &str, report: Report| kept(old, &report.command, &report.table());
        let first = kept("", report("bench", 13_000));
        let both = kept(&first, report("bench --peers", 14_000));
        let again = kept(&both, report("bench", 15_000));
        assert!(both.contains("+1,000") && both.contains("+2,000"));
        assert!(!again.contains("+1,000") && again.contains("+2,000") && again.contains("+3,000"));
        assert_eq!(again.matches("\n## ").count(), 2);
        assert!(again.starts_with("# What portwatch costs"));
    }

    #[test]
    fn numbers_read_naturally() {
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(number(-12.34), "-12.3");
        assert_eq!(number(-1200.0), "-1,200");
        assert_eq!(number(0.02), "0");
    }
}
