//! Records made by hand.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

/// The bytes of a record as the kernel would send them.
fn bytes(record: &SocketRecord) -> &[u8] {
    // SAFETY: plain integers without padding (their sizes are checked where they are defined).
    unsafe {
        std::slice::from_raw_parts(
            std::ptr::from_ref(record).cast::<u8>(),
            size_of::<SocketRecord>(),
        )
    }
}

/// A bind() to 127.0.0.1 port 8080 that was refused.
fn refused_bind() -> SocketRecord {
    // SAFETY: all of it is plain integers.
    let zero: SocketRecord = unsafe { std::mem::zeroed() };
    let mut local_address = [0; 16];
    local_address[0] = 127;
    local_address[3] = 1;
    SocketRecord {
        header: Header {
            version: VERSION,
            kind: kind::SOCKET,
            len: size_of::<SocketRecord>() as u32,
        },
        present: present::LOCAL_ADDRESS | present::LOCAL_PORT | present::SOCKET,
        error: 98,
        local_address,
        local_port: 8080,
        family: AF_INET,
        address_family: AF_INET,
        protocol: 6,
        op: op::BIND,
        ..zero
    }
}

fn event(bytes: &[u8]) -> Event {
    match record(bytes).unwrap() {
        Record::Socket { event, .. } => *event,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_refused_bind_tells_what_was_asked_for() {
    let event = event(bytes(&refused_bind()));
    assert_eq!(event.outcome, Outcome::Failure(Errno(98)));
    assert_eq!(
        event.local,
        Endpoint {
            address: Some(Ipv4Addr::LOCALHOST.into()),
            port: Some(8080)
        }
    );
}

#[test]
fn a_bind_to_port_0_that_found_none_has_no_port() {
    let event = event(bytes(&SocketRecord {
        local_port: 0,
        flags: flags::AUTO_PORT,
        ..refused_bind()
    }));
    assert_eq!(event.local.port, None);
    assert!(event.auto_port);
}

#[test]
fn an_attempt_that_is_open_at_the_end_needs_no_header() {
    let mut open = bytes(&refused_bind()).to_vec();
    open[..size_of::<Header>()].fill(0xff);
    assert!(record(&open).is_err());
    let event = pending(&open).unwrap();
    assert_eq!(event.local.port, Some(8080));
    assert_eq!(pending(&open[..100]), Err(DecodeError::Short));
}
