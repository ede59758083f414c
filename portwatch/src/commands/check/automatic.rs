//! Port 0: whether the kernel would find a port of its own choice.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::RangeInclusive,
};

use super::ask::{Answer, IN_USE, peculiar};
use crate::{
    conflict::{
        forecast::{Forecast, Peculiar, forecast},
        rules::Claim,
    },
    enrich::netns::{Limits, reuses_for_bind},
    event::{Doubt, Holder, Outlook, TcpState, Transport},
    sockets::port::survey,
};

/// Whether any automatic port is left.
///
/// # Errors
/// When the range cannot be read, or the kernel does not show its sockets.
pub(super) fn any(claim: &Claim, limits: &Limits) -> io::Result<Answer> {
    let Limits {
        range: Some(range),
        reserved: Some(reserved),
        ..
    } = limits
    else {
        return Err(io::Error::other(
            "the range of automatic ports cannot be read",
        ));
    };
    let seen = survey(claim.transport, range)?;
    let mut by_port: BTreeMap<u16, Owners> = BTreeMap::new();
    for (place, row) in seen.rows.iter().enumerate() {
        if let Some(port) = row.socket.local.port {
            let owners = by_port.entry(port).or_default();
            owners.sockets.push(row.socket.clone());
            owners.places.push(place);
        }
    }
    let kernel = peculiar();
    let Tried { always, either } = tried(claim, range);
    let mut doubt = None;
    let mut involved = BTreeSet::new();
    for pass in passes(claim, reuses_for_bind()) {
        let mut is_free = |port: u16| {
            if reserved.iter().any(|list| list.contains(&port)) {
                return false;
            }
            let none = Owners::default();
            let owners = by_port.get(&port).unwrap_or(&none);
            match pass.forecast(&owners.sockets, kernel) {
                Forecast::Free if seen.may_hide => doubt = doubt.max(Some(Doubt::Unseen)),
                Forecast::Free => return true,
                Forecast::Taken(_) => {}
                Forecast::Doubt(why, among) => {
                    let places = among.iter().filter_map(|&at| owners.places.get(at));
                    involved.extend(places.copied());
                    doubt = doubt.max(Some(why));
                }
            }
            false
        };
        // Of two that are free, it tries one.
        let [one, other] = either.map_or([false, false], |ports| ports.map(&mut is_free));
        if (one && other) || always.iter().cloned().flatten().any(&mut is_free) {
            return Ok(Answer::early(Outlook::Free));
        }
        if one || other {
            doubt = doubt.max(Some(Doubt::Chance));
        }
    }
    Ok(Answer {
        outlook: doubt.map_or(IN_USE, Outlook::Unknown),
        survey: Some(seen),
        involved: involved.into_iter().collect(),
        rivals: Vec::new(),
    })
}

/// Who has a port, and the places of these sockets in what was seen.
#[derive(Debug, Default)]
struct Owners {
    sockets: Vec<Holder>,
    places: Vec<usize>,
}

/// A way to look through the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pass {
    /// What the socket claims of a port that others have.
    claim: Claim,
    /// Beside what it is refused too if the other has SO_REUSEPORT and the same user.
    group: Option<Claim>,
}

impl Pass {
    fn forecast(&self, holders: &[Holder], kernel: Peculiar) -> Forecast {
        let found = forecast(&self.claim, holders, kernel);
        let Some(group) = self.group.filter(|_| found == Forecast::Free) else {
            return found;
        };
        let meets = |holder: &Holder| forecast(&group, std::slice::from_ref(holder), kernel);
        let mut doubtful = Vec::new();
        for (at, holder) in holders.iter().enumerate() {
            let is_own = holder.state == TcpState::TimeWait
                || holder.socket.uid.is_none_or(|uid| uid == group.uid);
            let reuseport = holder.socket.options.reuseport;
            if reuseport == Some(false) || !is_own || meets(holder) == Forecast::Free {
                continue;
            }
            if reuseport == Some(true) && holder.socket.uid.is_some() {
                return Forecast::Taken(vec![at]);
            }
            doubtful.push(at);
        }
        match doubtful.is_empty() {
            true => found,
            false => Forecast::Doubt(Doubt::Options, doubtful),
        }
    }
}

/// How the kernel looks for a port, one time after the other.
///
/// Of TCP it takes none that it would have to share (net/ipv4/inet_connection_sock.c,
/// `inet_csk_find_open_port`: neither `relax` nor `reuseport_ok`), unless `ip_autobind_reuse` has it
/// look again (`relax`), when sockets with SO_REUSEADDR may meet.
fn passes(claim: &Claim, reuses: Option<bool>) -> Vec<Pass> {
    let alone = |claim| Pass { claim, group: None };
    if claim.transport != Transport::Tcp {
        return vec![alone(*claim)];
    }
    let strict = Claim {
        reuseaddr: false,
        reuseport: false,
        ..*claim
    };
    let mut passes = vec![alone(strict)];
    if claim.reuseaddr && reuses != Some(false) {
        passes.push(Pass {
            claim: Claim {
                reuseaddr: true,
                ..strict
            },
            group: claim.reuseport.then_some(strict),
        });
    }
    passes
}

/// Which ports of the range are tried.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tried {
    /// Whenever it is asked.
    always: Vec<RangeInclusive<u16>>,
    /// One of these, by where it begins to look, which is by chance.
    either: Option<[u16; 2]>,
}

/// Of UDP all (net/ipv4/udp.c, `udp_lib_get_port`).
///
/// Of TCP those with an odd distance from the first, beginning anywhere, then the others; of a range with
/// an odd number of ports each of the two turns makes as many steps, and by where it began the second one
/// leaves out the first or the last port. With SO_REUSEADDR the lower half comes first, by itself.
fn tried(claim: &Claim, range: &RangeInclusive<u16>) -> Tried {
    let (low, high) = (u32::from(*range.start()), u32::from(*range.end()));
    let mut tried = Tried::default();
    if claim.transport != Transport::Tcp {
        tried.always.push(range.clone());
        return tried;
    }
    let end = high + 1;
    let count = end.saturating_sub(low);
    if claim.reuseaddr && count >= 4 {
        let half = low + ((count >> 2) << 1);
        by_parity(&mut tried, low, half);
        by_parity(&mut tried, half, end);
    } else {
        by_parity(&mut tried, low, end);
    }
    tried
}

/// The ports from `low` to before `end`, tried as TCP does.
fn by_parity(tried: &mut Tried, low: u32, end: u32) {
    let port = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    let mut always = |from: u32, till: u32| tried.always.push(port(from)..=port(till));
    match end.saturating_sub(low) {
        0 => {}
        // One step a turn.
        3 => always(low, low + 1),
        count if count == 1 || count % 2 == 0 => always(low, end - 1),
        _ => {
            always(low + 1, end - 2);
            tried.either = Some([port(low), port(end - 1)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::event::Kind;

    fn claim(transport: Transport, reuseaddr: bool) -> Claim {
        Claim {
            transport,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            v6only: false,
            device: None,
            reuseaddr,
            reuseport: false,
            uid: 0,
            state: TcpState::Closed,
        }
    }

    /// `inet_csk_find_open_port` with these random numbers, where no port is free: what it tries.
    fn kernel(low: u32, end: u32, reuseaddr: bool, random: [u32; 2]) -> BTreeSet<u32> {
        let mut tries = BTreeSet::new();
        let mut random = random.into_iter();
        let mut half_of = u32::from(reuseaddr && end - low >= 4);
        loop {
            let half = low + (((end - low) >> 2) << 1);
            let (from, till) = match half_of {
                1 => (low, half),
                2 => (half, end),
                _ => (low, end),
            };
            let mut remaining = till - from;
            if remaining > 1 {
                remaining &= !1;
            }
            let mut offset = random.next().unwrap_or_default() % remaining;
            offset |= 1;
            loop {
                let mut port = from + offset;
                let mut step = 0;
                while step < remaining {
                    if port >= till {
                        port -= remaining;
                    }
                    tries.insert(port);
                    step += 2;
                    port += 2;
                }
                offset = offset.wrapping_sub(1);
                if offset & 1 == 1 {
                    break;
                }
            }
            if half_of != 1 {
                return tries;
            }
            half_of = 2;
        }
    }

    #[test]
    fn the_kernels_search_tries_these() {
        let low = 40_000;
        for (count, reuseaddr) in (1..24).flat_map(|count| [(count, false), (count, true)]) {
            let mut always: Option<BTreeSet<u32>> = None;
            let mut runs = Vec::new();
            for random in 0..count * count {
                let random = [random % count, random / count];
                let tries = kernel(low, low + count, reuseaddr, random);
                always = Some(always.map_or_else(|| tries.clone(), |all| &all & &tries));
                runs.push(tries);
            }
            let always = always.unwrap_or_default();
            let high = u16::try_from(low + count - 1).unwrap_or_default();
            let told = tried(&claim(Transport::Tcp, reuseaddr), &(40_000..=high));
            let flat: BTreeSet<u32> = told.always.into_iter().flatten().map(u32::from).collect();
            assert_eq!(flat, always, "{count} ports, reuseaddr {reuseaddr}");
            let either: BTreeSet<u32> = told.either.into_iter().flatten().map(u32::from).collect();
            for tries in runs {
                let rest = &tries - &always;
                assert!(rest.is_subset(&either), "{count} ports: {rest:?}");
                assert_eq!(rest.len(), either.len() / 2, "{count} ports: {rest:?}");
            }
        }
    }

    #[test]
    fn udp_and_the_last_port_there_is() {
        let udp = tried(&claim(Transport::Udp, true), &(40_000..=40_004));
        assert_eq!(udp.always, [40_000..=40_004]);
        let tcp = tried(&claim(Transport::Tcp, false), &(65_534..=65_535));
        assert_eq!(tcp.always, [65_534..=65_535]);
    }

    #[test]
    fn a_port_is_shared_only_where_the_system_allows_it() {
        let reusing = claim(Transport::Tcp, true);
        assert_eq!(passes(&reusing, Some(false)).len(), 1);
        assert!(!passes(&reusing, Some(false))[0].claim.reuseaddr);
        assert!(passes(&reusing, Some(true))[1].claim.reuseaddr);
        assert_eq!(passes(&claim(Transport::Tcp, false), Some(true)).len(), 1);
        assert!(
            passes(&claim(Transport::Udp, true), Some(true))[0]
                .claim
                .reuseaddr
        );
    }

    #[test]
    fn who_reuses_addresses_does_not_join_a_group_of_the_same_user() {
        let grouped = Claim {
            reuseport: true,
            ..claim(Transport::Tcp, true)
        };
        let again = passes(&grouped, Some(true))[1];
        let held = crate::sample::held(Kind::Bound, "127.0.0.1:8080");
        let mut holder = held.culprit.holder;
        holder.socket.options.reuseaddr = Some(true);
        let mut with = |reuseport, uid| {
            holder.socket.options.reuseport = reuseport;
            holder.socket.uid = Some(uid);
            again.forecast(std::slice::from_ref(&holder), Peculiar::default())
        };
        assert_eq!(with(Some(true), 33), Forecast::Free);
        assert_eq!(with(Some(false), 0), Forecast::Free);
        assert_eq!(with(None, 0), Forecast::Doubt(Doubt::Options, vec![0]));
        assert_eq!(with(Some(true), 0), Forecast::Taken(vec![0]));
        let elsewhere = Pass {
            group: again.group.map(|group| Claim {
                address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)),
                ..group
            }),
            ..again
        };
        let found = elsewhere.forecast(&[holder], Peculiar::default());
        assert_eq!(found, Forecast::Free);
    }
}
