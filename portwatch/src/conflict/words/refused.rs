//! Refusals in which no other socket is in the way, or none that is known.

use std::net::IpAddr;

use super::{
    Case,
    owner::caller,
    phrase::{endpoint, is_wildcard, port},
};
use crate::{
    errno,
    event::{Errno, Event, Exhausted, Op, Outcome, Scope, Transport},
};

pub(super) fn gone(event: &Event) -> String {
    format!("whoever had {} has closed it since", port(event))
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

pub(super) fn not_local(event: &Event) -> String {
    match event.local.address {
        Some(address) => format!("no interface of this network namespace has {address}"),
        None => "no interface of this network namespace has the address".to_owned(),
    }
}

pub(super) fn policy() -> String {
    "refused by a cgroup program or a security module (SELinux, AppArmor, Landlock …)".to_owned()
}

pub(super) fn exhausted(case: &Case<'_>) -> String {
    let event = case.event;
    let udp = match event.transport {
        Transport::Udp => "UDP ",
        _ => "",
    };
    let range = case.exhausted.and_then(range);
    let specific = event
        .local
        .address
        .filter(|&address| !is_wildcard(Some(address)));
    if case.exhausted.and_then(|exhausted| exhausted.scope) == Some(Scope::Tuple) {
        let to = event
            .peer
            .map_or_else(String::new, |peer| format!(" to {}", endpoint(&peer, None)));
        let all = range.map_or_else(String::new, |range| format!(" ({range})"));
        let of = specific.map_or_else(String::new, |address| format!(" of {address}"));
        return format!(
            "each automatic {udp}port{of} has a connection{to} already{all}; other destinations are not affected"
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
    let all = range.map_or_else(String::new, |range| format!(": {range} are taken"));
    format!("no automatic {udp}port is left{on}{errno}{all}")
}

/// `all 28232 from 32768 to 60999`
fn range(exhausted: &Exhausted) -> Option<String> {
    let range = exhausted.range.as_ref()?;
    let (low, high) = (*range.start(), *range.end());
    let size = u32::from(high.checked_sub(low)?) + 1;
    Some(match exhausted.reserved {
        Some(reserved) if reserved > 0 => format!(
            "all {} from {low} to {high} that are not reserved",
            size.saturating_sub(reserved)
        ),
        _ => format!("all {size} from {low} to {high}"),
    })
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
        let port = port(event);
        return match (&event.conflict, case.verdict.total) {
            (None, _) => format!("who has {port} could not be seen"),
            (Some(_), 0) => format!("no socket on {port} was seen"),
            (Some(_), _) if case.verdict.truncated => {
                format!(
                    "{port} has too many sockets to look at, and none that was seen is in the way"
                )
            }
            (Some(_), 1) => format!("the one socket on {port} should not be in the way"),
            (Some(_), total) => {
                format!("none of the {total} sockets on {port} should be in the way")
            }
        };
    }
    errno::reason(errno).map_or_else(|| format!("errno {}", errno.0), str::to_owned)
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
