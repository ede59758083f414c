//! Answers of `check`.

use super::*;
use crate::{conflict::words, event::Missed};

/// Free, held, in doubt, any port, and one beside a socket that may listen first, with a name that would
/// harm a terminal.
pub(crate) fn checked() -> Vec<Checked> {
    let of = |local: &str| {
        let Sighting { event, local, .. } = sighting(Op::Bind, local);
        Checked {
            transport: event.transport,
            family: event.family,
            local: event.local,
            facts: local,
            interface: None,
            socket: Socket {
                cookie: None,
                inode: None,
                ..event.socket
            },
            outlook: Outlook::Free,
            explanation: None,
            sought: true,
            rivals: Vec::new(),
            missing: Vec::new(),
        }
    };
    let in_use = refused_by(sighting(Op::Bind, "0.0.0.0:8080"), vec![nginx()]);
    let held_by = Checked {
        outlook: Outlook::Refused(Errno(libc::EADDRINUSE.unsigned_abs())),
        explanation: in_use.explanation.map(Arc::unwrap_or_clone),
        ..of("0.0.0.0:8080")
    };
    let Held { culprit, owner, .. } = held(Kind::TimeWait, "127.0.0.1:8080");
    let waiting = std::slice::from_ref(&culprit.holder);
    let (message, hint) = words::doubt(Doubt::Options, waiting, Missed::Nothing);
    let doubted = Checked {
        outlook: Outlook::Unknown(Doubt::Options),
        explanation: Some(Explanation {
            verdict: Verdict {
                kind: Kind::Unknown,
                overlap: None,
                reason: None,
                device: None,
                culprits: vec![culprit],
                total: 3,
                truncated: true,
            },
            owners: vec![owner],
            findings: Findings::default(),
            message,
            hint,
        }),
        ..of("127.0.0.1:8080")
    };
    let mut any = of("[::]:8080");
    any.local.port = None;
    any.facts = PortFacts::default();
    any.interface = Some("eth0".to_owned());
    let rival = Checked {
        rivals: vec![listings().remove(1)],
        ..of("[::1]:8080")
    };
    vec![of("0.0.0.0:80"), held_by, doubted, any, rival]
}

/// Ranges: clear, given out by the kernel, and with sockets on it.
pub(crate) fn ranges() -> Vec<CheckedRange> {
    let of = |range| CheckedRange {
        range,
        ephemeral: 32_768..=60_999,
        reserved: vec![8080..=8080, 33_000..=33_009],
        sockets: Vec::new(),
        netns: Some(4_026_531_840),
        elsewhere: false,
        may_hide: false,
    };
    let used = CheckedRange {
        sockets: listings(),
        may_hide: true,
        ..of(30_000..=33_005)
    };
    vec![of(30_000..=32_767), of(33_000..=33_099), used]
}
