//! A port that the kernel opened for a program which ignored that its bind() was refused.

use std::net::IpAddr;

use super::{
    owner::{known_as, service},
    phrase::{endpoint, harmless, sentence},
};
use crate::{
    errno,
    event::{Event, Hazard, Process, Refused, Warning},
};

/// The warning for the listen() in `event`.
#[must_use]
pub fn exposed(event: &Event, process: &Process, refused: Refused) -> Warning {
    let name = known_as(&event.task, process);
    let Refused {
        time_boot: _,
        errno: number,
        local,
    } = refused;
    let asked = if local.address.is_some() || local.port.is_some() {
        format!(" to {}", endpoint(&local, None))
    } else {
        String::new()
    };
    let why = errno::name(number).map_or_else(|| format!("errno {}", number.0), str::to_owned);
    let given = endpoint(&event.local, None);
    let addresses = match event.local.address {
        Some(IpAddr::V6(_)) if event.socket.options.v6only == Some(false) => "all addresses",
        Some(IpAddr::V6(_)) => "all IPv6 addresses",
        _ => "all IPv4 addresses",
    };
    let message = format!(
        "{name} listens though bind(){asked} failed ({why}), so the kernel gave it {given}, open on {addresses}"
    );
    let port = event
        .local
        .port
        .map_or_else(|| "the port".to_owned(), |port| format!("port {port}"));
    let what = match service(process.systemd_unit.as_deref()) {
        Some(unit) => unit.to_owned(),
        None => format!("{name} (pid {})", event.task.pid),
    };
    let hint = sentence(&format!(
        "stop {what} or close {port} in a firewall until {name} checks the result of bind()"
    ));
    Warning {
        kind: Hazard::ListenAfterFailedBind,
        refused: Some(refused),
        message: harmless(&message),
        hint: Some(harmless(&hint)),
        processes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;
    use crate::{
        event::{Endpoint, Errno, Op},
        sample::{endpoint as end, sighting},
    };

    fn said(local: &str, asked: Endpoint, v6only: Option<bool>) -> String {
        let mut sighting = sighting(Op::Listen, local);
        sighting.event.socket.options.v6only = v6only;
        let refused = Refused {
            time_boot: 1,
            errno: Errno(98),
            local: asked,
        };
        let warning = exposed(&sighting.event, &sighting.process, refused);
        format!("{}. {}\n", warning.message, warning.hint.unwrap())
    }

    #[test]
    fn words() {
        let any_port = Endpoint {
            port: None,
            ..end("10.0.0.2:1")
        };
        insta::assert_snapshot!(
            [
                said("0.0.0.0:46007", end("10.0.0.2:587"), None),
                said("[::]:46007", end("[2001:db8::1]:587"), Some(false)),
                said("[::]:46007", end("[::]:587"), Some(true)),
                said("[::]:46007", any_port, None),
                said("0.0.0.0:46007", Endpoint::default(), None),
            ]
            .concat()
        );
    }
}
