//! An address that could not be bound: nobody has it, not yet, no longer, or not for this socket.

use std::net::IpAddr;

use super::Case;
use crate::event::{AddressState, Bearer};

/// What stands in the way of an address.
enum Why<'a> {
    /// It was not looked, or could not be.
    Unknown,
    /// No interface has it.
    Absent,
    /// An interface has it and may not use it.
    Unusable(&'a Bearer),
    /// An interface has it, but not the one that the socket is bound to.
    Elsewhere(&'a Bearer, &'a str),
    /// An interface has it.
    There(&'a Bearer),
}

impl<'a> Why<'a> {
    fn of(case: &Case<'a>) -> Self {
        let Some(bearers) = &case.findings.interfaces else {
            return Self::Unknown;
        };
        let device = case.findings.device.as_deref();
        let on_device = bearers
            .iter()
            .find(|bearer| Some(bearer.name.as_str()) == device);
        let Some(first) = on_device.or_else(|| bearers.first()) else {
            return Self::Absent;
        };
        match (first.state, device) {
            (AddressState::Usable, Some(device)) if on_device.is_none() => {
                Self::Elsewhere(first, device)
            }
            (AddressState::Usable, _) => Self::There(first),
            _ => Self::Unusable(first),
        }
    }
}

fn is_ipv6(case: &Case<'_>) -> bool {
    let address = case.event.local.address;
    matches!(
        address.map(|address| address.to_canonical()),
        Some(IpAddr::V6(_))
    )
}

pub(super) fn message(case: &Case<'_>) -> String {
    let address = case.event.local.address;
    let name = address.map_or_else(|| "the address".to_owned(), |address| address.to_string());
    let why = match Why::of(case) {
        Why::Unknown if is_ipv6(case) => {
            "no interface of this network namespace has it, or not for this socket, or it is still tentative".to_owned()
        }
        Why::Unknown => {
            "no interface of this network namespace has it, or not for this socket".to_owned()
        }
        Why::Absent => "no interface of this network namespace has it".to_owned(),
        Why::Unusable(Bearer { name, state }) => match state {
            AddressState::DadFailed => format!(
                "{name} has it, but another machine has it too (duplicate address detection failed)"
            ),
            _ => format!(
                "{name} has it, but it is still tentative (duplicate address detection has not finished)"
            ),
        },
        Why::Elsewhere(bearer, device) => format!(
            "{} has it, and not {device}, to which the socket is bound",
            bearer.name
        ),
        Why::There(bearer) => format!(
            "{} has it now; it did not when bind() was called, or belongs to a VRF of which the socket is no part",
            bearer.name
        ),
    };
    format!("{name} is not usable here: {why}")
}

pub(super) fn hint(case: &Case<'_>) -> Vec<String> {
    let is_ipv6 = is_ipv6(case);
    let (option, sysctl) = if is_ipv6 {
        ("IPV6_FREEBIND", "net.ipv6.ip_nonlocal_bind=1")
    } else {
        ("IP_FREEBIND", "net.ipv4.ip_nonlocal_bind=1")
    };
    let early =
        format!("to bind an address before it is there, set {option} on the socket, or {sysctl}");
    match Why::of(case) {
        Why::Unknown if is_ipv6 => vec![
            "check with ip -6 addr, also for dadfailed (the address is used twice)".to_owned(),
            early,
        ],
        Why::Unknown | Why::Absent => vec!["check with ip addr".to_owned(), early],
        Why::Unusable(Bearer { name, state }) => match state {
            AddressState::DadFailed => vec![format!(
                "find the other machine, then take the address off {name} and add it again"
            )],
            _ => vec![
                "try again in a second or two".to_owned(),
                format!("{early}, or add it to {name} with nodad"),
            ],
        },
        Why::Elsewhere(bearer, device) => vec![format!(
            "name {} instead of {device}, as scope of the address or with SO_BINDTODEVICE",
            bearer.name
        )],
        Why::There(bearer) => vec![format!(
            "try again; if {} belongs to a VRF, bind the socket to that (SO_BINDTODEVICE)",
            bearer.name
        )],
    }
}
