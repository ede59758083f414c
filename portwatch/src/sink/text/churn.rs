//! An interval of automatic ports, for people: one screen, or plain lines.

mod namespace;
mod nat;
mod numbers;
mod rows;

use jiff::tz::TimeZone;

use crate::{
    churn::figures::{Figures, Loss, Use},
    conflict::words::phrase::{harmless, thousands},
};
use namespace::namespace;
use numbers::seconds;
use rows::{failure, group, pool};

/// What the lines are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Columns of the terminal, if it is one: lines are cut there.
    pub width: Option<usize>,
    /// Lines of the terminal.
    pub height: Option<usize>,
}

/// The lines of an interval. `by`: the title of the groups.
#[must_use]
pub fn lines(figures: &Figures, by: &str, zone: &TimeZone, look: Look) -> Vec<String> {
    let mut lines = vec![head(figures, zone)];
    for one in &figures.namespaces {
        lines.extend(namespace(one, figures.interval));
    }
    let sees = figures.unseen.is_empty();
    if !figures.pools.is_empty() {
        lines.push(String::new());
        lines.push(format!(
            "{:>7} {:>7} {:>9} {:>8} {:>7}  PORTS OF",
            "USED", "OF", "TIME_WAIT", "TAKEN/s", "FAILED"
        ));
        for one in &figures.pools {
            lines.extend(pool(one, figures.interval, sees));
        }
        more(&mut lines, figures.pools_total, figures.pools.len());
    }
    if !figures.groups.is_empty() {
        lines.push(String::new());
        lines.push(format!(
            "{:>7} {:>7} {:>9} {:>8} {:>7}  {by}",
            "HELD", "", "TIME_WAIT", "TAKEN/s", "FAILED"
        ));
        for one in &figures.groups {
            lines.push(group(one, figures.interval, sees));
        }
        more(&mut lines, figures.groups_total, figures.groups.len());
    }
    if !figures.failures.is_empty() {
        lines.push(String::new());
        for one in &figures.failures {
            lines.extend(failure(one));
        }
        more(&mut lines, figures.failures_total, figures.failures.len());
    }
    if let Some(nat) = &figures.nat {
        lines.extend(nat::lines(nat, figures.interval));
    }
    lines.extend(others(&figures.tail, sees));
    lines.extend(lost(&figures.loss));
    if let Some(height) = look.height {
        // The last line stays free for the cursor.
        let room = height.saturating_sub(1).max(1);
        if lines.len() > room {
            let left = lines.len() - room + 1;
            lines.truncate(room - 1);
            lines.push(format!(
                "… {left} lines more: a taller terminal, or fewer with --top"
            ));
        }
    }
    for line in &mut lines {
        let clean = harmless(line);
        *line = match look.width {
            Some(width) => cut(&clean, width),
            None => clean,
        };
    }
    lines
}

fn more(lines: &mut Vec<String>, total: usize, shown: usize) {
    if total > shown {
        lines.push(format!(
            "        … and {} more",
            thousands((total - shown) as u64)
        ));
    }
}

/// As many columns of a line as there are.
fn cut(line: &str, width: usize) -> String {
    use unicode_width::UnicodeWidthChar as _;
    let mut used = 0;
    line.chars()
        .take_while(|one| {
            used += one.width().unwrap_or(0);
            used <= width
        })
        .collect()
}

fn head(figures: &Figures, zone: &TimeZone) -> String {
    let time = figures.time.utc.to_zoned(zone.clone()).strftime("%H:%M:%S");
    let unseen = if figures.unseen.is_empty() {
        String::new()
    } else {
        "; of ports given back, TIME_WAIT by process and UDP sends it sees nothing".to_owned()
    };
    format!(
        "{time}  automatic ports in the last {}, watched for {} ({}{unseen})",
        seconds(figures.interval),
        seconds(figures.watched),
        figures.backend.as_str()
    )
}

fn others(tail: &Use, sees: bool) -> Option<String> {
    (*tail != Use::default()).then(|| {
        let held = if sees {
            format!("{} ports held, ", thousands(tail.held))
        } else {
            String::new()
        };
        format!(
            "others that there was no room to tell apart: {held}{} taken, {} failed",
            thousands(tail.taken),
            thousands(tail.failed)
        )
    })
}

fn lost(loss: &Loss) -> Option<String> {
    let Loss {
        forgotten,
        skipped,
        looks: _,
        corrected,
        looked,
    } = loss;
    if *looked {
        return Some(format!(
            "something was missed ({} without room, {} calls skipped): all sockets were looked at again, {} ports \
             were given back unseen",
            thousands(*forgotten),
            thousands(*skipped),
            thousands(*corrected)
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn drawn(look: Look) -> String {
        let all = sample::churn::figures();
        let screens = all
            .iter()
            .map(|figures| lines(figures, "BY PROCESS", &TimeZone::UTC, look).join("\n"));
        screens.collect::<Vec<_>>().join("\n--\n")
    }

    #[test]
    fn an_interval_in_plain_lines() {
        let look = Look {
            width: None,
            height: None,
        };
        insta::assert_snapshot!(drawn(look));
    }

    #[test]
    fn a_screen_is_neither_wider_nor_higher_than_the_terminal() {
        for (width, height) in [(80, 24), (40, 10), (20, 1)] {
            let look = Look {
                width: Some(width),
                height: Some(height),
            };
            for figures in sample::churn::figures() {
                let lines = lines(&figures, "BY PROCESS", &TimeZone::UTC, look);
                assert!(lines.len() <= height.saturating_sub(1).max(1), "{lines:?}");
                assert!(
                    lines.iter().all(|line| line.chars().count() <= width),
                    "{lines:?}"
                );
                assert!(!lines.concat().contains('\x1b'));
            }
        }
    }
}
