//! Refusals in which no other socket is in the way, or none that is known.

use std::net::IpAddr;

use super::{
    Case,
    held::ago,
    owner::{caller, with_pid},
    phrase::port,
};
use crate::{
    conflict::verdict::claim_of,
    errno,
    event::{Departure, Event, Op, Outcome},
};

pub(super) fn gone(case: &Case<'_>) -> String {
    let port = port(case.event);
    if let Some(departure) = &case.findings.gone {
        let Departure {
            occupant, closed, ..
        } = departure;
        let when = match closed.boot.checked_sub(case.event.time_boot) {
            Some(later) if later >= 1_000_000 => format!("{} ms later", later / 1_000_000),
            _ => ago(case, closed.boot),
        };
        let who = if occupant.task.pid == case.event.task.pid {
            "this very process".to_owned()
        } else {
            with_pid(occupant)
        };
        return format!(
            "{who} closed a socket on {port} {when}: nothing that was left was in the way"
        );
    }
    match case.verdict.total {
        0 => format!(
            "nothing had {port} any more when portwatch looked: whoever had it has closed it"
        ),
        1 => format!(
            "whoever had {port} has closed it since; the one socket that is on it is not in the way"
        ),
        total => format!(
            "whoever had {port} has closed it since; the {total} sockets that are on it are not in the way"
        ),
    }
}

pub(super) fn already_bound(event: &Event) -> String {
    match event.bound_port {
        Some(port) if port != 0 => format!("this socket is bound to port {port} already"),
        _ => "this socket is bound already".to_owned(),
    }
}

pub(super) fn privileged(case: &Case<'_>) -> String {
    format!(
        "{} needs CAP_NET_BIND_SERVICE, which {} (uid {}) does not have",
        port(case.event),
        caller(case),
        case.event.task.uid
    )
}

/// Nothing but what is known.
pub(super) fn unknown(case: &Case<'_>) -> String {
    let event = case.event;
    let Outcome::Failure(errno) = event.outcome else {
        return "not refused".to_owned();
    };
    if let Some(address) = scopeless(event) {
        return format!("{address} is link-local: bind() has to be told which interface is meant");
    }
    if errno.0 == libc::EADDRINUSE.unsigned_abs() {
        return undecided(case);
    }
    errno::reason(errno).map_or_else(|| format!("errno {}", errno.0), str::to_owned)
}

/// A port was in use, and it could not be told by whom.
fn undecided(case: &Case<'_>) -> String {
    let Case { event, verdict, .. } = case;
    let port = port(event);
    let Some(conflict) = &event.conflict else {
        return format!("who has {port} could not be seen");
    };
    let is_claim_known = claim_of(event).is_some();
    let (kept, total) = (conflict.holders.len(), verdict.total);
    let least = if verdict.truncated { "at least " } else { "" };
    match (kept, total) {
        (_, 0) if verdict.truncated => format!("the sockets on {port} could not be looked at"),
        (_, 0) => gone(case),
        (0, 1) => format!("the socket on {port} could not be looked at"),
        (0, _) => format!("none of {least}{total} sockets on {port} could be looked at"),
        // The walk was cut short right behind them.
        _ if is_claim_known && u32::try_from(kept).is_ok_and(|kept| kept >= total) => format!(
            "only {kept} of the sockets on {port} were looked at; none of these is in the way"
        ),
        _ if is_claim_known => format!(
            "only {kept} of {least}{total} sockets on {port} were looked at; none of these is in the way"
        ),
        (_, 1) => format!("{port} has a socket; whether it is in the way could not be told"),
        _ => format!(
            "{port} has {least}{total} sockets; which of them is in the way could not be told"
        ),
    }
}

/// The link-local address of a bind() that did not say on which interface (`__inet6_bind`:
/// "Binding to link-local address requires an interface").
pub(super) fn scopeless(event: &Event) -> Option<std::net::Ipv6Addr> {
    let Outcome::Failure(errno) = event.outcome else {
        return None;
    };
    match event.local.address {
        Some(IpAddr::V6(address))
            if address.is_unicast_link_local()
                && event.op == Op::Bind
                && errno.0 == libc::EINVAL.unsigned_abs()
                && event.socket.device.is_none_or(|device| device == 0) =>
        {
            Some(address)
        }
        _ => None,
    }
}
