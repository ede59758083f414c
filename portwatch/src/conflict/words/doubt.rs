//! Why it cannot be told whether a bind() would work.

use super::phrase::harmless;
use crate::event::{Doubt, Holder, Missed, TcpState, Transport};

/// What cannot be told, and what would help. `holders`: the sockets that may be in the way; `missed`: what
/// kept their options from being read.
#[must_use]
pub fn doubt(doubt: Doubt, holders: &[Holder], missed: Missed) -> (String, Option<String>) {
    let root = || match missed {
        Missed::Hidden => Some("Run it as root: then it sees more.".to_owned()),
        _ => None,
    };
    let (message, hint) = match doubt {
        Doubt::Options => (options(holders), root().or_else(|| ended(holders))),
        Doubt::Group => (
            "it depends on which sockets with SO_REUSEPORT had the port before: the kernel remembers the last of them and tells nobody".to_owned(),
            None,
        ),
        Doubt::Order => (
            "UDP sockets with and without SO_REUSEPORT are on the port, and the one that the kernel meets first decides".to_owned(),
            None,
        ),
        Doubt::Chance => (
            "of the automatic ports only such are free as the kernel tries or leaves out by chance: the first and the last of an odd number".to_owned(),
            Some("Name a port, or widen net.ipv4.ip_local_port_range by one.".to_owned()),
        ),
        Doubt::Unseen => (
            "nothing that can be seen is in the way, but sockets that are bound and do not listen are not shown to everybody by this kernel".to_owned(),
            root(),
        ),
        Doubt::Address => (
            "whether the address can be used there could not be found out: the device belongs to a VRF, or the kernel does not say".to_owned(),
            None,
        ),
        Doubt::Privilege => (
            "the port may need CAP_NET_BIND_SERVICE, and whether the asker has it could not be found out".to_owned(),
            Some("Say for whom, with --uid.".to_owned()),
        ),
    };
    (harmless(&message), hint)
}

fn options(holders: &[Holder]) -> String {
    let waiting = |holder: &Holder| holder.state == TcpState::TimeWait;
    let what = match holders {
        [one] if waiting(one) => {
            "a connection in TIME_WAIT has the port, and whether its socket".to_owned()
        }
        all if !all.is_empty() && all.iter().all(waiting) => format!(
            "{} connections in TIME_WAIT have the port, and whether their sockets",
            all.len()
        ),
        [one] if one.transport == Transport::Tcp && one.socket.inode.is_none() => {
            "a connection that no process has open has the port, and whether its socket".to_owned()
        }
        [_] => "a socket has the port, and whether it".to_owned(),
        all => format!("{} sockets may be in the way, and whether they", all.len()),
    };
    format!("{what} set SO_REUSEADDR or SO_REUSEPORT, on which it depends, cannot be seen")
}

/// What is left of connections goes by itself.
fn ended(holders: &[Holder]) -> Option<String> {
    let ends = |holder: &Holder| holder.state == TcpState::TimeWait;
    (!holders.is_empty() && holders.iter().all(ends))
        .then(|| "Wait up to 60 s, and it is free.".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Kind, sample::held};

    #[test]
    fn what_cannot_be_told_and_what_would_help() {
        let one = |kind| held(kind, "0.0.0.0:8080").culprit.holder;
        let waiting = one(Kind::TimeWait);
        let cases: [(Doubt, Vec<Holder>, Missed); 10] = [
            (Doubt::Options, vec![waiting.clone()], Missed::Nothing),
            (Doubt::Options, vec![waiting.clone(); 3], Missed::Nothing),
            (Doubt::Options, vec![one(Kind::Listener)], Missed::Hidden),
            (
                Doubt::Options,
                vec![one(Kind::Bound), waiting],
                Missed::Nothing,
            ),
            (Doubt::Group, vec![], Missed::Nothing),
            (Doubt::Order, vec![], Missed::Nothing),
            (Doubt::Chance, vec![], Missed::Nothing),
            (Doubt::Unseen, vec![], Missed::Hidden),
            (Doubt::Address, vec![], Missed::Nothing),
            (Doubt::Privilege, vec![], Missed::Nothing),
        ];
        let lines = cases.map(|(why, holders, missed)| {
            let (message, hint) = doubt(why, &holders, missed);
            format!("{message}\n  {}\n", hint.unwrap_or_default())
        });
        insta::assert_snapshot!(lines.concat());
    }
}
