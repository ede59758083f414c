//! Random cases; the same seed gives the same case.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;

use super::case::{Case, Device, Label, Spec, Step, is_any, is_mapped};

const LO4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LO6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Accepted connections are called so much more than their listeners.
const CHILD: Label = 10;

/// How many of a hundred sockets of a case have an option. Were every option a coin of its own, hardly
/// a third socket would ever get as far as a rule that needs three.
struct Odds {
    v4: u32,
    reuseaddr: u32,
    reuseport: u32,
    user: u32,
    device: u32,
    v6only: u32,
}

/// The case of a seed.
pub(super) fn case(seed: u64) -> Case {
    let rng = &mut Rng::with_seed(seed);
    let udp = rng.u32(..100) < 25;
    let odds = Odds {
        v4: pick(rng, &[50, 50, 90, 10]),
        reuseaddr: pick(rng, &[10, 50, 90, 100]),
        reuseport: pick(rng, &[0, 30, 60, 95]),
        user: pick(rng, &[0, 0, 30, 50]),
        device: pick(rng, &[0, 0, 30, 60]),
        v6only: pick(rng, &[0, 30, 60]),
    };
    let sockets: Label = pick(rng, &[2, 2, 3, 3, 3]);
    let lives = (0..sockets)
        .map(|label| life(rng, &odds, udp, label, label + 1 == sockets))
        .collect();
    Case {
        udp,
        steps: merge(rng, lives),
    }
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

fn chance(rng: &mut Rng, percent: u32) -> bool {
    rng.u32(..100) < percent
}

fn spec(rng: &mut Rng, odds: &Odds) -> Spec {
    let address = if chance(rng, odds.v4) {
        let [a, b, c, d] = pick(rng, &[[0, 0, 0, 0], [127, 0, 0, 1], [127, 0, 0, 2]]);
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        IpAddr::V6(pick(
            rng,
            &[
                Ipv6Addr::UNSPECIFIED,
                Ipv6Addr::UNSPECIFIED,
                Ipv6Addr::LOCALHOST,
                Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(),
                Ipv4Addr::LOCALHOST.to_ipv6_mapped(),
            ],
        ))
    };
    let v6only = address.is_ipv6() && !is_mapped(address) && chance(rng, odds.v6only);
    let device = chance(rng, odds.device).then(|| pick(rng, &[Device::Lo, Device::Veth]));
    // ::1 is no address of the other device.
    let device = device.filter(|device| *device == Device::Lo || address != LO6);
    Spec {
        address,
        v6only,
        reuseaddr: chance(rng, odds.reuseaddr),
        reuseport: chance(rng, odds.reuseport),
        uid: if chance(rng, odds.user) { 1000 } else { 0 },
        device,
    }
}

/// What one socket does, and the connections it gets.
fn life(rng: &mut Rng, odds: &Odds, udp: bool, label: Label, last: bool) -> Vec<Step> {
    let mut spec = spec(rng, odds);
    let unbound = label == 0 && chance(rng, 12);
    if unbound {
        spec.address = match spec.address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        spec.device = spec.device.map(|_| Device::Lo);
    }
    let to = destination(rng, &spec);
    let reachable = spec.device != Some(Device::Veth);
    let (open, connected) = if unbound {
        (Step::ConnectUnbound(label, spec, to), true)
    } else if label == 0 && chance(rng, 5) {
        (Step::BindZero(label, spec), false)
    } else {
        (Step::Bind(label, spec), false)
    };
    let mut steps = vec![open];
    // What the last one does after bind() matters only if it can be refused.
    if last {
        if !udp && chance(rng, 60) {
            steps.push(Step::Listen(label));
        }
        return steps;
    }
    if connected {
        steps.extend((!udp).then(|| ending(rng, label)).flatten());
        return steps;
    }
    match rng.u32(..10) {
        0..3 => {}
        3..5 if reachable => {
            steps.push(Step::Connect(label, to));
            steps.extend((!udp).then(|| ending(rng, label)).flatten());
        }
        5..7 if !udp => steps.push(Step::Listen(label)),
        7..10 if !udp && reachable => {
            steps.push(Step::Listen(label));
            steps.extend(connection(rng, &spec, label, to));
        }
        _ => {}
    }
    if chance(rng, 8) {
        steps.push(Step::Close(label));
    }
    steps
}

/// A listener's connection, and what becomes of both.
fn connection(rng: &mut Rng, spec: &Spec, listener: Label, to: IpAddr) -> Vec<Step> {
    if chance(rng, 20) {
        return vec![Step::Queue(listener, to)];
    }
    let child = listener + CHILD;
    // Who accepts is nearly always who listens.
    let uid = if chance(rng, 90) {
        spec.uid
    } else {
        1000 - spec.uid
    };
    let mut steps = vec![Step::Accept {
        listener,
        to,
        child,
        uid,
    }];
    steps.extend(ending(rng, child));
    if chance(rng, 60) {
        let at = rng.usize(1..=steps.len());
        steps.insert(at, Step::Close(listener));
    }
    steps
}

fn ending(rng: &mut Rng, label: Label) -> Option<Step> {
    match rng.u32(..10) {
        0..4 => Some(Step::TimeWait(label)),
        4 => Some(Step::Orphan(label)),
        _ => None,
    }
}

/// An address that the socket can reach, and at which it is reached.
fn destination(rng: &mut Rng, spec: &Spec) -> IpAddr {
    match spec.address {
        IpAddr::V6(v6) if v6.is_unspecified() => {
            if spec.v6only || rng.bool() {
                LO6
            } else {
                LO4
            }
        }
        address if is_any(address) => LO4,
        address => address.to_canonical(),
    }
}

/// One order of them all: each life's own order is kept, and the first one begins.
fn merge(rng: &mut Rng, lives: Vec<Vec<Step>>) -> Vec<Step> {
    let mut lives: Vec<_> = lives.into_iter().map(Vec::into_iter).collect();
    let mut steps = Vec::new();
    match rng.u32(..10) {
        0..5 => steps.extend(lives.into_iter().flatten()),
        5..8 => {
            steps.extend(lives.iter_mut().filter_map(Iterator::next));
            steps.extend(lives.into_iter().flatten());
        }
        _ => {
            steps.extend(lives.first_mut().and_then(Iterator::next));
            while !lives.is_empty() {
                let at = rng.usize(..lives.len());
                match lives[at].next() {
                    Some(step) => steps.push(step),
                    None => drop(lives.swap_remove(at)),
                }
            }
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_seed_is_a_case() {
        assert_eq!(case(7), case(7));
        assert!((0..20).any(|seed| case(seed) != case(7)));
    }

    #[test]
    fn what_is_printed_can_be_read() {
        for seed in 0..500 {
            let case = case(seed);
            let text = serde_json::to_string(&case).unwrap();
            assert_eq!(serde_json::from_str::<Case>(&text).unwrap(), case, "{text}");
        }
    }

    #[test]
    fn every_kind_of_step_comes_up() {
        let steps: Vec<Step> = (0..2000).flat_map(|seed| case(seed).steps).collect();
        let kinds: std::collections::HashSet<_> =
            steps.iter().map(std::mem::discriminant).collect();
        assert_eq!(kinds.len(), 10);
    }
}
