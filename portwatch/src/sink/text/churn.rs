//! An interval of automatic ports, for people: one screen, or plain lines.

use std::{net::SocketAddr, time::Duration};

use jiff::tz::TimeZone;

use crate::{
    churn::{
        causes::outlook,
        figures::{Failure, Figures, Group, GroupName, Loss, Namespace, Pool, Use, Who},
        histogram::Percentiles,
    },
    conflict::words::phrase::{harmless, thousands},
    errno,
};

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

fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else {
        format!("{seconds:.0} s")
    }
}

/// `450`, `4.5`: events per second.
fn rate(count: u64, interval: Duration) -> String {
    let seconds = interval.as_secs_f64();
    if seconds <= 0.0 {
        return "-".to_owned();
    }
    let rate = count as f64 / seconds;
    if rate > 0.0 && rate < 10.0 {
        format!("{rate:.1}")
    } else {
        thousands(rate.round() as u64)
    }
}

fn known(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), thousands)
}

fn namespace(one: &Namespace, interval: Duration) -> Vec<String> {
    let name = one.netns.map_or_else(
        || "other namespaces".to_owned(),
        |netns| format!("netns {netns}"),
    );
    let mut settings = Vec::new();
    if let Some(range) = &one.range {
        let of = one.available.map_or_else(String::new, |available| {
            format!(" ({} ports)", thousands(available))
        });
        settings.push(format!("range {}-{}{of}", range.start(), range.end()));
    }
    if let Some(reserved) = one.reserved.filter(|&reserved| reserved > 0) {
        settings.push(format!("{} reserved", thousands(reserved)));
    }
    if let Some(reuse) = one.tw_reuse {
        settings.push(format!("tcp_tw_reuse {reuse}"));
    }
    if one.autobind_reuse == Some(true) {
        settings.push("ip_autobind_reuse 1".to_owned());
    }
    for (range, held) in &one.own_ranges {
        settings.push(format!(
            "own range {}-{}: {} held",
            range.start(),
            range.end(),
            thousands(*held)
        ));
    }
    let taken = &one.now.taken;
    let udp = match one.now.given {
        Some(_) => rate(taken.udp, interval),
        None => "-".to_owned(),
    };
    let given = one
        .now
        .given
        .map_or_else(|| "-".to_owned(), |given| rate(given, interval));
    let mut lines = vec![
        String::new(),
        format!("{name}: {}", settings.join(", ")),
        format!(
            "  taken/s: connect {}, bind(0) {}, listen {}, UDP {udp}; given back/s: {given}; failed/s: {}",
            rate(taken.connect, interval),
            rate(taken.bind, interval),
            rate(taken.listen, interval),
            rate(one.now.failed, interval)
        ),
        format!(
            "  held now: {}, of these odd: {}; in TIME_WAIT now: {}, with an automatic port: {}",
            known(one.held),
            known(one.held_odd),
            known(one.time_wait),
            known(one.waiting)
        ),
    ];
    let times: Vec<String> = [
        one.held_for
            .as_ref()
            .map(|times| format!("held for {}", percentiles(times))),
        one.searched
            .as_ref()
            .map(|times| format!("connect() searched for {}", percentiles(times))),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !times.is_empty() {
        lines.push(format!("  {}", times.join("; ")));
    }
    lines
}

fn percentiles(times: &Percentiles) -> String {
    let Percentiles { p50, p90, p99 } = times;
    format!(
        "p50 {}, p90 {}, p99 {}",
        short(*p50),
        short(*p90),
        short(*p99)
    )
}

/// `850 ns`, `12 µs`, `3 ms`, `60 s`
fn short(time: Duration) -> String {
    const UNITS: [(f64, &str); 4] = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")];
    let seconds = time.as_secs_f64();
    let (size, unit) = UNITS
        .into_iter()
        .find(|(size, _)| seconds >= *size)
        .unwrap_or((1e-9, "ns"));
    let number = seconds / size;
    if number < 9.95 {
        format!("{number:.1} {unit}")
    } else {
        format!("{number:.0} {unit}")
    }
}

fn called(who: &Who) -> String {
    let name = who.comm.as_deref().unwrap_or("a process that is not known");
    let container = who.container.as_deref().map_or_else(String::new, |id| {
        format!(" in {}", id.get(..12).unwrap_or(id))
    });
    match who.pid {
        Some(pid) => format!("{name} (pid {pid}){container}"),
        None => format!("{name}{container}"),
    }
}

fn numbers(used: &str, of: &str, one: &Use, interval: Duration, sees: bool) -> String {
    let waiting = if sees {
        thousands(one.waiting)
    } else {
        "-".to_owned()
    };
    format!(
        "{used:>7} {of:>7} {waiting:>9} {:>8} {:>7}",
        rate(one.taken, interval),
        thousands(one.failed)
    )
}

fn pool(pool: &Pool, interval: Duration, sees: bool) -> Vec<String> {
    let used = if sees {
        thousands(pool.used())
    } else {
        "-".to_owned()
    };
    let of = pool.available.map_or_else(|| "-".to_owned(), thousands);
    let ends = match pool.peer {
        Some((address, port)) => format!("{} → {}", pool.local, SocketAddr::new(address, port)),
        None => pool.local.to_string(),
    };
    let whose: Vec<String> = pool
        .shares
        .iter()
        .take(2)
        .map(|(who, _)| called(who))
        .collect();
    let more = pool.processes.saturating_sub(whose.len());
    let more = if more > 0 {
        format!(" and {} more", thousands(more as u64))
    } else {
        String::new()
    };
    let mut lines = vec![format!(
        "{}  {} {ends}  {}{more}",
        numbers(&used, &of, &pool.total, interval, sees),
        pool.transport.as_str(),
        whose.join(", ")
    )];
    lines.extend(outlook(pool).map(|words| format!("        {words}")));
    lines
}

fn group(group: &Group, interval: Duration, sees: bool) -> String {
    let held = if sees {
        thousands(group.total.held)
    } else {
        "-".to_owned()
    };
    let name = match &group.name {
        GroupName::Process(who, processes) if *processes > 1 => {
            format!("{}, {} processes", called(who), thousands(*processes))
        }
        GroupName::Process(who, _) => called(who),
        GroupName::Destination(Some((address, port))) => {
            SocketAddr::new(*address, *port).to_string()
        }
        GroupName::Destination(None) => "no peer of its own (bind, listen, UDP)".to_owned(),
        GroupName::Source(address) => address.to_string(),
        GroupName::Netns(netns) => netns.to_string(),
        GroupName::Container(Some(id)) => id.clone(),
        GroupName::Container(None) => "outside of containers".to_owned(),
    };
    format!(
        "{}  {name}",
        numbers(&held, "", &group.total, interval, sees)
    )
}

fn failure(failure: &Failure) -> Vec<String> {
    let Failure {
        pool: _,
        who,
        errno,
        now,
        total,
        cause,
    } = failure;
    let name = errno::name(*errno).map_or_else(|| errno.0.to_string(), str::to_owned);
    let mut lines = vec![format!(
        "{} of {}: {} now, {} in all: {}",
        name,
        called(who),
        thousands(*now),
        thousands(*total),
        cause.message
    )];
    lines.extend(cause.hint.as_ref().map(|hint| format!("  hint: {hint}")));
    lines
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
