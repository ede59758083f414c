//! Lines of a network namespace.

use std::time::Duration;

use super::numbers::{known, percentiles, rate};
use crate::{churn::figures::Namespace, conflict::words::phrase::thousands};

pub(super) fn namespace(one: &Namespace, interval: Duration) -> Vec<String> {
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
