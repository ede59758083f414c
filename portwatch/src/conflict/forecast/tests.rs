#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;
use crate::{
    conflict::rules::Port,
    event::{Family, Socket, SocketOptions},
    sample::endpoint,
};

fn claim(address: &str) -> Claim {
    Claim {
        transport: Transport::Tcp,
        address: address.parse().unwrap(),
        v6only: false,
        device: None,
        reuseaddr: false,
        reuseport: false,
        uid: 0,
        state: TcpState::Closed,
    }
}

/// A socket of which everything is known.
fn holder(claim: &Claim) -> Holder {
    let mut local = endpoint("0.0.0.0:80");
    local.address = Some(claim.address);
    let is_v6 = claim.address.is_ipv6();
    let family = if is_v6 { Family::Ipv6 } else { Family::Ipv4 };
    Holder {
        remnant: claim.state == TcpState::TimeWait,
        socket: Socket {
            inode: Some(1).filter(|_| claim.state != TcpState::TimeWait),
            device: claim.device,
            uid: Some(claim.uid),
            options: SocketOptions {
                reuseaddr: Some(claim.reuseaddr),
                reuseport: Some(claim.reuseport),
                v6only: is_v6.then_some(claim.v6only),
                ..SocketOptions::default()
            },
            ..Socket::default()
        },
        ..Holder::new(claim.transport, family, claim.state, local)
    }
}

/// One whose options could not be read.
fn closed_book(claim: &Claim) -> Holder {
    let mut holder = holder(claim);
    holder.socket.options = SocketOptions::default();
    holder
}

fn ask(new: &Claim, holders: &[Holder]) -> Forecast {
    forecast(new, holders, Peculiar::default())
}

#[test]
fn a_port_without_sockets_is_free() {
    assert_eq!(ask(&claim("0.0.0.0"), &[]), Forecast::Free);
}

#[test]
fn who_has_no_option_is_refused_whatever_others_have() {
    let any = claim("0.0.0.0");
    for state in [TcpState::Listen, TcpState::Closed, TcpState::TimeWait] {
        let held = Claim {
            state,
            ..claim("127.0.0.1")
        };
        assert_eq!(ask(&any, &[closed_book(&held)]), Forecast::Taken(vec![0]));
    }
}

#[test]
fn what_depends_on_an_unknown_option_is_not_told() {
    let new = Claim {
        reuseaddr: true,
        ..claim("0.0.0.0")
    };
    let held = |state| Claim {
        state,
        ..claim("127.0.0.1")
    };
    let doubt = Forecast::Doubt(Doubt::Options, vec![0]);
    assert_eq!(ask(&new, &[closed_book(&held(TcpState::TimeWait))]), doubt);
    // SO_REUSEADDR does not count against a listener.
    let listener = closed_book(&held(TcpState::Listen));
    assert_eq!(
        ask(&new, std::slice::from_ref(&listener)),
        Forecast::Taken(vec![0])
    );
    let sharer = Claim {
        reuseport: true,
        ..new
    };
    assert_eq!(ask(&sharer, &[listener]), doubt);
    // One that is in the way for certain is enough.
    let both = [
        closed_book(&held(TcpState::TimeWait)),
        holder(&held(TcpState::Listen)),
    ];
    assert_eq!(ask(&new, &both), Forecast::Taken(vec![1]));
}

#[test]
fn a_listener_without_reuseport_leaves_no_group_behind() {
    let new = Claim {
        reuseport: true,
        ..claim("0.0.0.0")
    };
    let listener = Claim {
        state: TcpState::Listen,
        ..claim("0.0.0.0")
    };
    assert_eq!(ask(&new, &[holder(&listener)]), Forecast::Taken(vec![0]));
    // On another device there may have been one that the kernel remembers.
    let on_device = Claim {
        device: Some(3),
        ..listener
    };
    assert_eq!(
        ask(&new, &[holder(&on_device)]),
        Forecast::Doubt(Doubt::Group, vec![0])
    );
    // A connection takes the port without being asked, and makes nobody forget.
    let connection = Claim {
        state: TcpState::Established,
        ..listener
    };
    assert_eq!(
        ask(&new, &[holder(&connection)]),
        Forecast::Doubt(Doubt::Group, vec![0])
    );
}

#[test]
fn a_request_for_a_connection_may_not_have_the_port() {
    let new = Claim {
        reuseaddr: true,
        ..claim("127.0.0.1")
    };
    let mut request = closed_book(&Claim {
        state: TcpState::SynReceived,
        ..claim("127.0.0.1")
    });
    request.socket.inode = None;
    let doubt = Forecast::Doubt(Doubt::Options, vec![0]);
    assert_eq!(
        ask(&claim("127.0.0.1"), std::slice::from_ref(&request)),
        doubt
    );
    assert_eq!(ask(&new, &[request]), doubt);
}

#[test]
fn of_udp_sockets_the_first_decides() {
    let udp = |reuseaddr, reuseport| Claim {
        transport: Transport::Udp,
        reuseaddr,
        reuseport,
        ..claim("0.0.0.0")
    };
    let new = udp(true, true);
    let holders = [holder(&udp(false, true)), holder(&udp(false, false))];
    assert_eq!(ask(&new, &holders), Forecast::Doubt(Doubt::Order, vec![1]));
    assert_eq!(ask(&new, &holders[..1]), Forecast::Free);
    assert_eq!(ask(&new, &holders[1..]), Forecast::Taken(vec![0]));
}

#[test]
fn one_kernel_overlooks_the_wildcard() {
    let kernel = Peculiar {
        overlooks_mapped: true,
    };
    let held = [holder(&claim("0.0.0.0"))];
    let mapped = claim("::ffff:127.0.0.1");
    assert_eq!(
        forecast(&mapped, &held, kernel),
        Forecast::Doubt(Doubt::Options, vec![0])
    );
    assert_eq!(ask(&mapped, &held), Forecast::Taken(vec![0]));
    let plain = claim("127.0.0.1");
    assert_eq!(forecast(&plain, &held, kernel), Forecast::Taken(vec![0]));
}

fn any_claim(transport: Transport) -> impl Strategy<Value = Claim> {
    let addresses = [
        "0.0.0.0",
        "127.0.0.1",
        "127.0.0.2",
        "::",
        "::1",
        "::ffff:0.0.0.0",
        "::ffff:127.0.0.1",
    ];
    let options = (any::<bool>(), any::<bool>(), any::<bool>());
    let device = prop::sample::select(vec![None, None, None, Some(1), Some(2)]);
    (
        prop::sample::select(addresses.to_vec()),
        options,
        device,
        0..2u32,
    )
        .prop_map(
            move |(address, (v6only, reuseaddr, reuseport), device, uid)| Claim {
                transport,
                v6only: v6only && address == "::",
                reuseaddr,
                reuseport,
                device,
                uid,
                ..claim(address)
            },
        )
}

/// Sockets that come and go: those that are left, newest first, and what the kernel remembers.
fn history(steps: Vec<(Claim, bool, u8)>) -> (Port, Vec<Claim>) {
    let mut port = Port::default();
    let mut owners: Vec<Claim> = Vec::new();
    for (new, listens, leaver) in steps {
        if port.admits(&new, &owners).is_ok() {
            port.taken(&new, owners.len());
            let listener = Claim {
                state: TcpState::Listen,
                ..new
            };
            let is_listener = new.transport == Transport::Tcp && listens;
            if is_listener && port.admits(&listener, &owners).is_ok() {
                port.taken(&listener, owners.len());
                owners.insert(0, listener);
            } else {
                owners.insert(0, new);
            }
        }
        // Some stay to the end.
        if let Some(place) = usize::from(leaver).checked_sub(3)
            && place < owners.len()
        {
            owners.remove(place);
        }
    }
    (port, owners)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Whatever came before, and whatever is not known: what is told is what happens.
    #[test]
    fn what_is_told_happens(
        (steps, new) in prop::sample::select(vec![Transport::Tcp, Transport::Udp])
            .prop_flat_map(|transport| {
                let step = (any_claim(transport), any::<bool>(), 0..6u8);
                (prop::collection::vec(step, 0..6), any_claim(transport))
            }),
        unread in any::<u8>(),
    ) {
        let (port, owners) = history(steps);
        let holders: Vec<Holder> = owners
            .iter()
            .enumerate()
            .map(|(at, claim)| match unread >> at & 1 {
                1 if unread > 128 => closed_book(claim),
                _ => holder(claim),
            })
            .collect();
        let happens = port.admits(&new, &owners);
        match ask(&new, &holders) {
            Forecast::Free => prop_assert!(happens.is_ok(), "{new:?} {owners:?}"),
            Forecast::Taken(places) => {
                let clashes = happens.unwrap_err();
                for place in places {
                    prop_assert!(clashes.iter().any(|(at, _)| *at == place));
                }
            }
            Forecast::Doubt(_, places) => prop_assert!(!places.is_empty()),
        }
    }
}

#[test]
fn two_that_share_by_reuseaddr_cannot_both_listen() {
    let new = Claim {
        reuseaddr: true,
        ..claim("0.0.0.0")
    };
    let bound = holder(&new);
    let connected = holder(&Claim {
        state: TcpState::Established,
        ..new
    });
    let elsewhere = holder(&Claim {
        device: Some(3),
        ..new
    });
    let holders = [connected, bound, elsewhere];
    assert_eq!(ask(&new, &holders), Forecast::Free);
    assert_eq!(rivals(&new, &holders), [1, 2]);
    let other = Claim {
        address: "127.0.0.1".parse().unwrap(),
        ..new
    };
    let apart = holder(&Claim {
        address: "127.0.0.2".parse().unwrap(),
        ..new
    });
    assert_eq!(rivals(&other, &[apart]), [0usize; 0]);
    let shared = Claim {
        reuseport: true,
        ..new
    };
    assert_eq!(rivals(&shared, &[holder(&shared)]), [0usize; 0]);
}
