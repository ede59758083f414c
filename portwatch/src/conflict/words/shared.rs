//! A port that programs share which have nothing to do with each other.

use super::{
    owner::{known_as, service, with_pid},
    phrase::{endpoint, harmless, sentence},
};
use crate::event::{Event, Hazard, Occupant, Process, Transport, Warning};

/// The warning for the bind() in `event`: `others` have its address too. `None` without any.
#[must_use]
pub fn shared(event: &Event, process: &Process, others: Vec<Occupant>) -> Option<Warning> {
    let (first, more) = others.split_first()?;
    let name = known_as(&event.task, process);
    let more = match more.len() {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    let what = match event.transport {
        Transport::Udp => "datagrams",
        _ => "connections",
    };
    let message = format!(
        "{name} now shares {} through SO_REUSEPORT with another program, {}{more}: the kernel spreads {what} over them",
        endpoint(&event.local, None),
        with_pid(first),
    );
    let way = match service(first.process.systemd_unit.as_deref()) {
        Some(unit) => format!("stop {unit}"),
        None => "stop one of them".to_owned(),
    };
    let hint = sentence(&format!(
        "if that is not meant, {way}; without SO_REUSEPORT on {name}'s socket this bind() would have failed"
    ));
    Some(Warning {
        kind: Hazard::SharedPort,
        refused: None,
        message: harmless(&message),
        hint: Some(harmless(&hint)),
        processes: others,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;
    use crate::{
        event::Op,
        sample::{conflict::occupant, sighting},
    };

    #[test]
    fn words() {
        let said = |transport, others| {
            let mut sighting = sighting(Op::Bind, "127.0.0.1:5000");
            sighting.event.transport = transport;
            let warning = shared(&sighting.event, &sighting.process, others).unwrap();
            format!("{}. {}\n", warning.message, warning.hint.unwrap())
        };
        insta::assert_snapshot!(
            [
                said(Transport::Tcp, vec![occupant(812, "nanomsg")]),
                said(
                    Transport::Tcp,
                    vec![occupant(812, "nginx").of("nginx.service")]
                ),
                said(
                    Transport::Udp,
                    vec![occupant(812, "avahi-daemon"), occupant(9, "dnsmasq")]
                ),
            ]
            .concat()
        );
    }
}
