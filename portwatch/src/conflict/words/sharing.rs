//! Why two sockets do not share a port, and which option would let them.

use std::net::IpAddr;

use super::{
    Case,
    owner::{is_own, kin, same_program},
    phrase::{is_any, is_wildcard},
};
use crate::event::{Culprit, Kind, Op, Overlap, Owner, Reason, Transport};

/// How the addresses overlap, unless they are simply the same.
pub(super) fn overlap(case: &Case<'_>, culprit: &Culprit, owner: &Owner) -> Option<String> {
    let asked = case.event.local.address;
    match culprit.overlap {
        Some(Overlap::Wildcard) if is_wildcard(asked) => Some("your wildcard covers it".to_owned()),
        Some(Overlap::Wildcard) => Some("its wildcard covers your address".to_owned()),
        Some(Overlap::DualStack) if is_any(asked) => Some("your [::] takes IPv4 too".to_owned()),
        Some(Overlap::DualStack) => Some("its [::] takes IPv4 too".to_owned()),
        _ => device(case, culprit, owner),
    }
}

/// Sockets on two devices do not meet; one without a device is on all of them.
fn device(case: &Case<'_>, culprit: &Culprit, owner: &Owner) -> Option<String> {
    let set = |device: Option<u32>| device.is_some_and(|device| device != 0);
    let own = set(case.event.socket.device);
    let its = set(culprit.holder.socket.device);
    match (own, its) {
        _ if case.verdict.device != Some(true) => None,
        (false, true) => Some(format!(
            "your socket is bound to no device, so it is on {} too",
            owner.interface.as_deref().unwrap_or("that one")
        )),
        (true, false) => Some("its socket is bound to no device, so it is on yours too".to_owned()),
        _ => None,
    }
}

/// By which rule they do not share, where that is not plain.
pub(super) fn reason(case: &Case<'_>, culprit: &Culprit) -> Option<String> {
    let own = &case.event.socket;
    let words = match (culprit.reason?, culprit.kind) {
        // Of an outgoing connection there is no next run.
        (Reason::NoReuse, _) if case.is_outgoing(culprit) => return None,
        (Reason::ReuseMissingHolder, _) if case.is_outgoing(culprit) => {
            "it did not set SO_REUSEADDR, so yours does not help until it is gone"
        }
        (Reason::NoReuse, Kind::TimeWait) => {
            "the old socket did not set SO_REUSEADDR, so setting it now helps only from the next run on"
        }
        (Reason::NoReuse, Kind::Accepted | Kind::Closing) => {
            "it was made without SO_REUSEADDR, so setting it now helps only from the next run on"
        }
        (Reason::NoReuse, _) => return None,
        (Reason::ReuseMissingSelf, Kind::TimeWait) => {
            "the old socket set SO_REUSEADDR, yours did not"
        }
        (Reason::ReuseMissingSelf, _) => "it set SO_REUSEADDR, yours did not",
        (Reason::ReuseMissingHolder, Kind::TimeWait) => {
            "the old socket did not set SO_REUSEADDR, so yours helps only from the next run on"
        }
        (Reason::ReuseMissingHolder, _) => {
            "it did not set SO_REUSEADDR, so yours does not help until it is gone"
        }
        (Reason::ReuseMismatch, _) if own.options.reuseport == Some(true) => {
            "you set only SO_REUSEPORT, it set only SO_REUSEADDR"
        }
        (Reason::ReuseMismatch, _) => "you set only SO_REUSEADDR, it set only SO_REUSEPORT",
        // Said already, in other words, where listen() was refused.
        (Reason::ReuseListening, _)
            if own.options.reuseaddr == Some(true)
                && culprit.kind == Kind::Listener
                && case.event.op != Op::Listen =>
        {
            "SO_REUSEADDR does not count against a listener"
        }
        (Reason::ReuseListening, _) => return None,
        (Reason::ReuseportMissingSelf, _) => "it set SO_REUSEPORT, yours did not",
        (Reason::ReuseportMissingHolder, _) => {
            "it did not set SO_REUSEPORT, so yours does not help until it is gone"
        }
        (Reason::ReuseportUid, _) => return Some(users(case, culprit)),
    };
    Some(words.to_owned())
}

fn users(case: &Case<'_>, culprit: &Culprit) -> String {
    let rule = "SO_REUSEPORT shares a port among sockets of one user only";
    match (case.event.socket.uid, culprit.holder.socket.uid) {
        (Some(own), Some(its)) => format!("{rule}: yours is of uid {own}, this one of uid {its}"),
        _ => rule.to_owned(),
    }
}

/// The option that would let the caller have the port, if there is one: it has to do for all sockets
/// in the way.
pub(super) fn advice(case: &Case<'_>) -> Option<String> {
    let udp = case.event.transport != Transport::Tcp;
    let all = |test: &dyn Fn(&Culprit, &Owner) -> bool| {
        case.all_known() && case.held().all(|(culprit, owner)| test(culprit, owner))
    };
    // A stranger's port is not one to share: each connection would go to either of them. Of UDP
    // sockets one may want that, for the multicasts, which one with a unicast address does not get: it gets
    // all else that is sent there.
    let asked = case.event.local.address;
    let for_multicasts = |culprit: &Culprit| {
        let address = culprit.holder.local.address;
        udp && gets_multicasts(asked) && gets_multicasts(address)
    };
    let is_wanted = |culprit: &Culprit, owner: &Owner| {
        for_multicasts(culprit)
            || is_own(case, owner)
            || owner.processes.first().is_some_and(|first| {
                same_program(case, first).is_some() || kin(case, first).is_some()
            })
    };
    let one_user = |culprit: &Culprit| {
        culprit.kind == Kind::TimeWait
            || case.event.socket.uid.is_some() && case.event.socket.uid == culprit.holder.socket.uid
    };
    let split = if !udp {
        ""
    } else if all(&|c, _| for_multicasts(c)) {
        ": both get multicasts, but only one of them each other datagram"
    } else if all(&|c, _| c.overlap == Some(Overlap::Exact)) {
        ": only one of them gets each datagram"
    } else {
        ": what is sent to the address of one goes to that one only"
    };
    let share = &format!("share the port{split}");
    // Beside a socket that is bound and may listen, bind() would pass and then one listen() fail.
    let is_left_alone = |culprit: &Culprit| {
        matches!(
            culprit.kind,
            Kind::Client | Kind::Accepted | Kind::Closing | Kind::TimeWait
        )
    };
    match case.verdict.reason? {
        Reason::ReuseMissingSelf
            if all(&|c, owner| {
                c.reason == Some(Reason::ReuseMissingSelf)
                    && if udp {
                        is_wanted(c, owner)
                    } else {
                        is_left_alone(c)
                    }
            }) =>
        {
            let share = if udp { share } else { "have the port" };
            Some(format!(
                "SO_REUSEADDR on your socket, set before bind(), would let you {share}"
            ))
        }
        Reason::ReuseportMissingSelf
            if all(&|c, owner| {
                c.reason == Some(Reason::ReuseportMissingSelf)
                    && one_user(c)
                    && (c.kind == Kind::TimeWait || is_wanted(c, owner))
            }) =>
        {
            let share = match case.verdict.kind {
                Kind::TimeWait => "have the port",
                _ => share,
            };
            Some(format!(
                "SO_REUSEPORT on your socket, set before bind(), would let you {share}"
            ))
        }
        // Options that differ are the newcomer's to change where the other is not to be shared with.
        Reason::ReuseMismatch
            if all(&|c, _| {
                let own_port = case.event.socket.options.reuseport == Some(true);
                c.reason == Some(Reason::ReuseMismatch)
                    && if own_port {
                        !udp && is_left_alone(c)
                    } else {
                        c.kind == Kind::TimeWait
                    }
            }) =>
        {
            let option = match case.event.socket.options.reuseport {
                Some(true) => "SO_REUSEADDR",
                _ => "SO_REUSEPORT",
            };
            Some(format!(
                "{option} on your socket, set before bind(), would let you have the port"
            ))
        }
        Reason::ReuseMismatch
            if all(&|c, owner| c.reason == Some(Reason::ReuseMismatch) && is_wanted(c, owner)) =>
        {
            let (option, user) = match (udp, all(&|c, _| one_user(c))) {
                (true, true) => ("the same option", ""),
                (true, false) => ("SO_REUSEADDR", ""),
                // SO_REUSEADDR lets both bind, but only one listen.
                (false, true) => ("SO_REUSEPORT", ""),
                (false, false) => ("SO_REUSEPORT", ", and run both as one user"),
            };
            Some(format!(
                "to share the port, set {option} on both before bind(){user}{split}"
            ))
        }
        Reason::ReuseportUid
            if all(&|c, owner| c.reason == Some(Reason::ReuseportUid) && is_wanted(c, owner)) =>
        {
            Some(format!("to share the port, run both as one user{split}"))
        }
        _ => None,
    }
}

/// Whether a UDP socket with this address gets multicasts.
fn gets_multicasts(address: Option<IpAddr>) -> bool {
    is_wildcard(address) || address.is_some_and(|address| address.is_multicast())
}
