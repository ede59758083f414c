//! No automatic port was left: of what, and who uses them up.

use super::{
    Case,
    owner::with_pid,
    phrase::{endpoint, is_wildcard, thousands},
};
use crate::event::{Consumer, Errno, Exhausted, Outcome, Scope, Transport};

/// Processes that are named.
const NAMED: usize = 3;

pub(super) fn exhausted(case: &Case<'_>) -> String {
    let event = case.event;
    let udp = match event.transport {
        Transport::Udp => "UDP ",
        _ => "",
    };
    let range = case.exhausted().and_then(range).unwrap_or_default();
    let usage = case.exhausted().and_then(usage);
    let specific = event
        .local
        .address
        .filter(|&address| !is_wildcard(Some(address)));
    if case.exhausted().and_then(|exhausted| exhausted.scope) == Some(Scope::Tuple) {
        let to = event
            .peer
            .map_or_else(String::new, |peer| format!(" to {}", endpoint(&peer, None)));
        let of = specific.map_or_else(String::new, |address| format!(" of {address}"));
        let usage = usage.map_or_else(String::new, |usage| format!(" ({usage})"));
        if case.exhausted().is_some_and(Exhausted::is_all_bound) {
            return format!(
                "no automatic {udp}port{of} is free for a connection{to}, nor to anywhere else: each is bound{usage}{range}"
            );
        }
        return format!(
            "no automatic {udp}port{of} is free for a connection{to}: each is bound, or connected to it already{usage}; other destinations may still have some{range}"
        );
    }
    let on = specific.map_or_else(String::new, |address| format!(" on {address}"));
    let again = Outcome::Failure(Errno(libc::EAGAIN.unsigned_abs()));
    // Whoever reads "temporarily unavailable" thinks of anything but ports.
    let errno = if event.outcome == again {
        ", which is what EAGAIN means here"
    } else {
        ""
    };
    let usage = usage.map_or_else(String::new, |usage| format!(": {usage}"));
    format!("no automatic {udp}port is left{on}{errno}{usage}{range}")
}

/// `28,232 of 28,232 used, 27,950 by ss-server (pid 812), 24 in TIME_WAIT`
fn usage(exhausted: &Exhausted) -> Option<String> {
    let used = exhausted.used?;
    let available = exhausted.available()?;
    let verb = match exhausted.scope? {
        _ if exhausted.is_all_bound() => "bound",
        Scope::Address => "used",
        Scope::Tuple => "bound or connected",
    };
    // Some may have been closed since, and who has them may have changed.
    let when = if used < available || !exhausted.top.is_empty() {
        " when portwatch looked"
    } else {
        ""
    };
    let mut words = format!(
        "{} of {} {verb}{when}",
        thousands(used),
        thousands(available)
    );
    for Consumer { occupant, count } in exhausted.top.iter().take(NAMED) {
        words += &format!(", {} by {}", thousands(*count), with_pid(occupant));
    }
    if let Some(waiting) = exhausted.time_wait.filter(|&waiting| waiting > 0) {
        words += &format!(", {} in TIME_WAIT", thousands(waiting));
    }
    Some(words)
}

/// `; the namespace's range is 32768-60999 (28232 ports)`
fn range(exhausted: &Exhausted) -> Option<String> {
    let range = exhausted.range.as_ref()?;
    let (low, high) = (*range.start(), *range.end());
    let size = exhausted.size()?;
    let count = match exhausted.reserved {
        // It is in the words before.
        Some(_) if exhausted.used.is_some() => String::new(),
        None => String::new(),
        Some(0) => format!(" ({size} ports)"),
        Some(reserved) => format!(
            " ({} ports that are not reserved)",
            size.saturating_sub(reserved)
        ),
    };
    if exhausted.range_of_socket {
        return Some(format!(
            "; the socket's own range is {low}-{high}{count} (IP_LOCAL_PORT_RANGE)"
        ));
    }
    Some(format!("; the namespace's range is {low}-{high}{count}"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use crate::{
        event::{Op, Scope, Sighting},
        sample::{again, connect, exhausted, explanation_of, occupant, sighting, used_by},
    };

    fn said(sighting: &Sighting) -> String {
        let explanation = sighting.explanation.as_ref().unwrap();
        format!("{}\n", explanation.message)
    }

    #[test]
    fn who_uses_the_ports_up() {
        let bind = |local| exhausted(sighting(Op::Bind, local), Scope::Address, libc::EADDRINUSE);
        let connect = || {
            exhausted(
                connect("10.0.0.1:1", "10.0.0.9:443"),
                Scope::Tuple,
                libc::EADDRNOTAVAIL,
            )
        };
        let many: Vec<_> = (1..=4)
            .map(|pid| (occupant(pid, "worker"), 7_000))
            .collect();
        let mut reserving = used_by(bind("0.0.0.0:1"), 28_000, 0, &many);
        let explanation = explanation_of(&mut reserving);
        explanation.findings.exhausted.as_mut().unwrap().reserved = Some(232);
        let mut all_bound = used_by(connect(), 28_232, 0, &[(occupant(77, "perl"), 28_232)]);
        let findings = &mut explanation_of(&mut all_bound).findings;
        findings.exhausted.as_mut().unwrap().bound = Some(28_232);
        let all_bound = again(all_bound);
        let of_socket = |mut sighting: Sighting, range| {
            let findings = &mut explanation_of(&mut sighting).findings;
            let exhausted = findings.exhausted.as_mut().unwrap();
            exhausted.range = Some(range);
            exhausted.range_of_socket = true;
            again(sighting)
        };
        insta::assert_snapshot!(
            [
                said(&used_by(
                    bind("10.0.0.1:1"),
                    28_232,
                    0,
                    &[(occupant(812, "ss-server"), 27_950)]
                )),
                said(&used_by(bind("[::]:1"), 28_232, 28_232, &[])),
                said(&again(reserving)),
                said(&used_by(
                    connect(),
                    28_000,
                    24_000,
                    &[(occupant(9, "envoy"), 4_000)]
                )),
                said(&all_bound),
                said(&of_socket(
                    used_by(bind("0.0.0.0:1"), 2, 0, &[]),
                    41_000..=41_001
                )),
                // What is not known goes without saying.
                said(&connect()),
            ]
            .concat()
        );
    }
}
