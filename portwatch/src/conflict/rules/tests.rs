//! Every row of the table that was measured, and what it taught.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

/// A socket with no options of user 0 that is bound.
fn claim(transport: Transport, address: &str) -> Claim {
    Claim {
        transport,
        address: address.parse().unwrap(),
        v6only: false,
        device: None,
        reuseaddr: false,
        reuseport: false,
        uid: 0,
        state: TcpState::Closed,
    }
}

fn tcp(address: &str) -> Claim {
    claim(Transport::Tcp, address)
}

fn udp(address: &str) -> Claim {
    claim(Transport::Udp, address)
}

impl Claim {
    fn addr(self) -> Self {
        Self {
            reuseaddr: true,
            ..self
        }
    }

    fn port(self) -> Self {
        Self {
            reuseport: true,
            ..self
        }
    }

    fn only(self) -> Self {
        Self {
            v6only: true,
            ..self
        }
    }

    fn user(self, uid: u32) -> Self {
        Self { uid, ..self }
    }

    fn on(self, device: u32) -> Self {
        Self {
            device: Some(device),
            ..self
        }
    }

    fn is(self, state: TcpState) -> Self {
        Self { state, ..self }
    }

    fn listens(self) -> Self {
        self.is(TcpState::Listen)
    }
}

fn refused(new: Claim, held: Claim) -> (Overlap, Reason) {
    let clash = clash(&new, &held).unwrap_or_else(|| panic!("they share: {new:?} {held:?}"));
    (clash.overlap, clash.reason)
}

fn share(new: Claim, held: Claim) {
    assert_eq!(clash(&new, &held), None, "{new:?} {held:?}");
}

/// The field guide's table C0, measured on Linux 6.18.
#[test]
fn the_measured_table() {
    use Overlap::{DualStack, Exact, Wildcard};
    use Reason::{
        NoReuse, ReuseListening, ReuseMismatch, ReuseMissingHolder, ReuseMissingSelf,
        ReuseportMissingSelf, ReuseportUid,
    };
    let lo = "127.0.0.1";
    let any = "0.0.0.0";
    assert_eq!(refused(tcp(lo), tcp(lo)), (Exact, NoReuse));
    share(tcp(lo).addr(), tcp(lo).addr());
    assert_eq!(
        refused(tcp(lo).addr(), tcp(lo).addr().listens()),
        (Exact, ReuseListening)
    );
    assert_eq!(refused(tcp(any), tcp(lo).listens()), (Wildcard, NoReuse));
    assert_eq!(
        refused(tcp(any).addr(), tcp(lo).listens()),
        (Wildcard, ReuseListening)
    );
    share(tcp("127.0.0.2"), tcp(lo).listens());
    assert_eq!(refused(tcp(any), tcp("::").listens()), (DualStack, NoReuse));
    share(tcp(any), tcp("::").only().listens());
    let client = tcp(lo).is(TcpState::Established);
    assert_eq!(refused(tcp(any), client), (Wildcard, NoReuse));
    assert_eq!(
        refused(tcp(any).addr(), client),
        (Wildcard, ReuseMissingHolder)
    );
    share(tcp("127.0.0.2"), client);
    let waits = tcp(lo).is(TcpState::TimeWait);
    assert_eq!(refused(tcp(lo), waits), (Exact, NoReuse));
    assert_eq!(refused(tcp(lo).addr(), waits), (Exact, ReuseMissingHolder));
    assert_eq!(refused(tcp(lo), waits.addr()), (Exact, ReuseMissingSelf));
    share(tcp(lo).addr(), waits.addr());
    let accepted = client.addr();
    assert_eq!(refused(tcp(lo), accepted), (Exact, ReuseMissingSelf));
    share(tcp(lo).addr(), accepted);
    let group = tcp(lo).port();
    assert_eq!(refused(tcp(lo), group), (Exact, ReuseportMissingSelf));
    assert_eq!(refused(tcp(lo).addr(), group), (Exact, ReuseMismatch));
    assert_eq!(refused(group.user(1000), group), (Exact, ReuseportUid));
    share(group, group.listens());
    assert_eq!(
        refused(udp(lo).addr(), udp(lo)),
        (Exact, ReuseMissingHolder)
    );
    assert_eq!(
        refused(udp(lo).port(), udp(lo).addr()),
        (Exact, ReuseMismatch)
    );
}

#[test]
fn the_least_that_would_have_to_be_different() {
    use Reason::{
        NoReuse, ReuseListening, ReuseMissingHolder, ReuseMissingSelf, ReuseportMissingHolder,
        ReuseportMissingSelf,
    };
    let none = tcp("::1");
    let both = none.addr().port();
    for (new, held, reason) in [
        (none, none.listens(), NoReuse),
        (none, none.addr(), ReuseMissingSelf),
        (none, none.addr().listens(), ReuseListening),
        (none.addr(), none, ReuseMissingHolder),
        (none.addr(), none.listens(), ReuseListening),
        (none.port(), none, ReuseportMissingHolder),
        (none, both, ReuseMissingSelf),
        (none, both.listens(), ReuseportMissingSelf),
        (none.addr(), both.listens(), ReuseportMissingSelf),
        (both, none, ReuseMissingHolder),
        (both, none.listens(), ReuseportMissingHolder),
        (both, none.addr().listens(), ReuseportMissingHolder),
    ] {
        assert_eq!(refused(new, held).1, reason, "{new:?} {held:?}");
    }
}

#[test]
fn two_devices_keep_sockets_apart_and_one_does_not() {
    share(tcp("0.0.0.0").on(1), tcp("0.0.0.0").on(2));
    for (new, held, device) in [
        (tcp("0.0.0.0"), tcp("0.0.0.0").on(2), true),
        (tcp("0.0.0.0").on(1), tcp("0.0.0.0").on(1), true),
        (tcp("0.0.0.0"), tcp("0.0.0.0"), false),
    ] {
        assert_eq!(clash(&new, &held).unwrap().device, device);
    }
}

#[test]
fn transports_do_not_meet() {
    share(tcp("0.0.0.0"), udp("0.0.0.0"));
}

#[test]
fn mapped_addresses_are_ipv4() {
    use Overlap::{DualStack, Exact, Wildcard};
    for (new, held, overlap) in [
        ("::ffff:127.0.0.1", "127.0.0.1", Exact),
        ("127.0.0.1", "::ffff:127.0.0.1", Exact),
        ("::ffff:0.0.0.0", "127.0.0.1", Wildcard),
        ("127.0.0.1", "::ffff:0.0.0.0", Wildcard),
        ("::", "::ffff:127.0.0.1", DualStack),
        ("::ffff:127.0.0.1", "::", DualStack),
        ("::", "::1", Wildcard),
        ("::1", "::", Wildcard),
    ] {
        assert_eq!(refused(tcp(new), tcp(held)).0, overlap, "{new} {held}");
    }
    share(tcp("::ffff:127.0.0.1"), tcp("::").only());
    share(tcp("::1"), tcp("127.0.0.1"));
    share(tcp("127.0.0.1"), tcp("::1"));
    // Of IPv6 there is no difference.
    assert_eq!(refused(tcp("::1"), tcp("::").only()).0, Wildcard);
    assert_eq!(refused(tcp("::").only(), tcp("::")).0, Exact);
}

/// The kernel compares the third socket with the second alone.
#[test]
fn the_last_of_a_reuseport_group_hides_an_owner_without_it() {
    let first = tcp("127.0.0.1").addr();
    let second = first.port();
    let third = tcp("127.0.0.1").port();
    let mut port = Port::default();
    port.taken(&first, 0);
    assert_eq!(port.admits(&second, &[first]), Ok(()));
    port.taken(&second, 1);
    assert!(clash(&third, &first).is_some());
    assert_eq!(port.admits(&third, &[second, first]), Ok(()));
    let other = third.user(1000);
    assert_eq!(port.admits(&other, &[second, first]).unwrap_err().len(), 2);
}

#[test]
fn of_udp_sockets_the_newest_that_overlaps_decides() {
    let port = Port::default();
    let old = udp("127.0.0.1").addr();
    let group = old.port();
    let new = udp("127.0.0.1").port();
    assert_eq!(port.admits(&new, &[group, old]), Ok(()));
    let refused = port.admits(&new, &[old, group]).unwrap_err();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].0, 0);
}

/// A connection to `::` has the local address ::1, but takes no part in what bind() does for such an
/// address: it stays open to IPv4.
#[test]
fn a_connection_of_a_dual_stack_socket_is_in_the_way_of_ipv4() {
    for held in [tcp("::1"), udp("::1")] {
        let new = claim(held.transport, "0.0.0.0");
        let held = held.is(TcpState::Established);
        assert_eq!(refused(new, held), (Overlap::DualStack, Reason::NoReuse));
        share(new, held.only());
        share(claim(held.transport, "127.0.0.1"), held);
        share(claim(held.transport, "::ffff:0.0.0.0"), held);
    }
    share(tcp("0.0.0.0"), tcp("::1").listens());
}

/// `::ffff:0.0.0.0` is remembered as an address of IPv6, which `::` is not equal to.
#[test]
fn a_group_at_the_mapped_wildcard_does_not_cover_all() {
    let first = tcp("0.0.0.0").addr();
    let second = tcp("::ffff:0.0.0.0").addr().port();
    let mut port = Port::default();
    port.taken(&first, 0);
    port.taken(&second, 1);
    let owners = [second, first];
    assert!(port.admits(&tcp("::").port(), &owners).is_err());
    assert_eq!(port.admits(&tcp("0.0.0.0").port(), &owners), Ok(()));
    // An IPv4 socket is remembered with 0.0.0.0, which `::` has as its address of IPv4.
    let mut port = Port::default();
    port.taken(&first, 0);
    port.taken(&tcp("0.0.0.0").addr().port(), 1);
    assert_eq!(port.admits(&tcp("::").port(), &owners), Ok(()));
}

/// Since 6.8 a group is compared with its last member from the start.
#[test]
fn a_group_of_one_user_is_not_open_to_all_addresses() {
    let listener = tcp("127.0.0.1").port().listens();
    let accepted = tcp("127.0.0.1").port().user(1000).is(TcpState::Established);
    let mut port = Port::default();
    port.taken(&tcp("127.0.0.1").port(), 0);
    port.taken(&listener, 0);
    let owners = [accepted, listener];
    assert_eq!(port.admits(&tcp("127.0.0.1").port(), &owners), Ok(()));
    let refused = port.admits(&tcp("0.0.0.0").port(), &owners).unwrap_err();
    assert_eq!((refused.len(), refused[0].0), (1, 0));
}

#[test]
fn one_that_listens_alone_does_not_begin_anew() {
    let first = tcp("127.0.0.1").port();
    let gone = tcp("::").port();
    let mut port = Port::default();
    port.taken(&first, 0);
    port.taken(&gone, 1);
    port.taken(&first.listens(), 0);
    let accepted = first.user(1000).is(TcpState::Established);
    let new = tcp("0.0.0.0").port();
    assert_eq!(port.admits(&new, &[accepted, first.listens()]), Ok(()));
    // A socket that comes to a free port does.
    port.taken(&first, 0);
    assert!(port.admits(&new, &[accepted, first]).is_err());
}

#[test]
fn udp_sockets_of_an_ipv6_group_are_looked_at_last() {
    let port = Port::default();
    let group = udp("::ffff:0.0.0.0").on(2).port();
    let old = udp("::").on(1).addr();
    let new = udp("::ffff:127.0.0.1").port();
    assert_eq!(port.admits(&new, &[group, old]).unwrap_err()[0].0, 1);
    let of_ipv4 = udp("0.0.0.0").on(2).port();
    assert_eq!(port.admits(&new, &[of_ipv4, old]), Ok(()));
    // Among themselves the oldest comes first.
    let other = udp("::").port().user(1000);
    assert_eq!(port.admits(&new, &[other, group]), Ok(()));
    assert!(port.admits(&new, &[group, other]).is_err());
}

fn any_claim() -> impl Strategy<Value = Claim> {
    let address = prop_oneof![
        Just("0.0.0.0"),
        Just("127.0.0.1"),
        Just("127.0.0.2"),
        Just("::"),
        Just("::1"),
        Just("::ffff:0.0.0.0"),
        Just("::ffff:127.0.0.1"),
    ];
    let state = prop_oneof![
        Just(TcpState::Closed),
        Just(TcpState::Listen),
        Just(TcpState::Established)
    ];
    (
        (any::<bool>(), address, any::<bool>()),
        (proptest::option::of(1u32..3), any::<bool>(), any::<bool>()),
        (0u32..2, state),
    )
        .prop_map(
            |((is_tcp, address, v6only), (device, reuseaddr, reuseport), (uid, state))| Claim {
                transport: if is_tcp {
                    Transport::Tcp
                } else {
                    Transport::Udp
                },
                address: address.parse().unwrap(),
                v6only: v6only && address == "::",
                device,
                reuseaddr,
                reuseport,
                uid,
                state: if is_tcp { state } else { TcpState::Closed },
            },
        )
}

proptest! {
    /// Whether addresses overlap does not depend on who came first.
    #[test]
    fn overlap_has_two_sides(a in any_claim(), b in any_claim()) {
        // A connection never comes second.
        let a = a.is(TcpState::Closed);
        let b = b.is(TcpState::Closed);
        let (there, back) = (overlap(&a, &b), overlap(&b, &a));
        prop_assert_eq!(there, back, "{:?} {:?}", a, b);
    }

    /// Where one option alone is said to be missing, adding it makes them share.
    #[test]
    fn a_reason_names_what_would_help(new in any_claim(), held in any_claim()) {
        let new = if new.state == TcpState::Established { new.is(TcpState::Closed) } else { new };
        let Some(found) = clash(&new, &held) else {
            return Ok(());
        };
        let helped = match found.reason {
            Reason::ReuseMissingSelf => clash(&new.addr(), &held),
            Reason::ReuseMissingHolder => clash(&new, &held.addr()),
            Reason::ReuseportMissingSelf => clash(&new.port().user(held.uid), &held),
            Reason::ReuseportMissingHolder => clash(&new.user(held.uid), &held.port()),
            Reason::ReuseportUid => clash(&new.user(held.uid), &held),
            Reason::ReuseListening => clash(&new.addr(), &held.addr().is(TcpState::Closed)),
            Reason::ReuseMismatch | Reason::NoReuse => clash(&new.addr().port().user(held.uid), &held.addr().port()),
        };
        prop_assert_eq!(helped, None);
        if found.reason == Reason::ReuseListening {
            prop_assert!(clash(&new.addr(), &held.addr()).is_some());
        }
    }
}
