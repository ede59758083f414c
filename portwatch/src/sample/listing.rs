//! Sockets that were looked up.

use super::*;

/// A listener of two processes, one that is bound in another network namespace, a connection that ended,
/// and one whose owner is hidden; with names that would harm a terminal.
pub(crate) fn listings() -> Vec<Listing> {
    let listing = |held: Held| Listing {
        socket: held.culprit.holder,
        owner: held.owner,
        elsewhere: false,
    };
    let occupants = |pids: &[u32], name: &str| {
        let Sighting { event, process, .. } = sighting(Op::Bind, "0.0.0.0:8080");
        let named = |&pid: &u32| Occupant {
            task: Task {
                pid,
                comm: Some(name.to_owned()),
                ..event.task.clone()
            },
            process: process.clone(),
        };
        pids.iter().map(named).collect::<Vec<_>>()
    };
    let mut listener = listing(held(Kind::Listener, "0.0.0.0:8080"));
    listener.owner.processes = occupants(&[812, 813], "node");
    listener.owner.systemd_unit = Some("web.service\u{1b}[2J".to_owned());
    let mut elsewhere = listing(held(Kind::Bound, "[::1]:8080"));
    elsewhere.elsewhere = true;
    elsewhere.owner.processes = occupants(&[4_194_304], "x\u{1b}]0;\n");
    let mut ended = listing(held(Kind::TimeWait, "127.0.0.1:8080").to("127.0.0.1:51234"));
    ended.owner.expires = Some(Time {
        boot: time().boot + 41_500_000_000,
        utc: time().utc + jiff::SignedDuration::from_millis(41_500),
    });
    let mut hidden = listing(held(Kind::Client, "10.0.0.1:8080").to("10.0.0.2:443"));
    hidden.owner.incomplete = true;
    vec![listener, elsewhere, ended, hidden]
}
