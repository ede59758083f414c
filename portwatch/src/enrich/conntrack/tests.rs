#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

/// What 6.18 answered of a gateway that masquerades: a TCP connection that is open, one that has closed, a
/// datagram that nobody has answered, and a TCP connection over IPv6.
const TRANSLATED: &[u8] = include_bytes!("translated.bin");

/// What it answered about its two CPUs.
const STATISTICS: &[u8] = include_bytes!("statistics.bin");

fn connections(bytes: &[u8]) -> Vec<Connection> {
    let mut found = Vec::new();
    let more = take(bytes, &mut |message| {
        if let ConntrackMessage::New(attributes) = message {
            found.extend(connection(&attributes));
        }
    });
    assert!(!more.unwrap(), "the answer has no end");
    found
}

#[test]
fn recorded_connections_mean_what_was_connected() {
    let found = connections(TRANSLATED);
    let told: Vec<String> = found
        .iter()
        .map(|one| {
            let Ends {
                source,
                destination,
            } = one.original;
            format!(
                "{} {}:{} as {}:{} to {}:{}, waits: {}",
                one.transport.as_str(),
                source.0,
                source.1,
                one.reply.destination.0,
                one.reply.destination.1,
                destination.0,
                destination.1,
                one.is_waiting(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "tcp 10.1.0.7:40001 as 203.0.113.1:40001 to 203.0.113.9:443, waits: false",
            "tcp 10.1.0.7:40002 as 203.0.113.1:40002 to 203.0.113.9:443, waits: true",
            "udp 10.1.0.7:40004 as 203.0.113.1:40004 to 203.0.113.9:53, waits: false",
            "tcp fd01::7:40003 as fd02::1:40003 to fd02::9:443, waits: false",
        ]
    );
    for one in &found {
        assert_eq!(one.zone, 0);
        assert_eq!(one.reply.source, one.original.destination);
    }
    let mut ids: Vec<u32> = found.iter().map(|one| one.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

/// Kernels before CTA_STATUS_MASK send all that is tracked.
#[test]
fn what_was_not_translated_is_passed_over() {
    // CTA_STATUS (3), eight bytes with its header: IPS_SRC_NAT (16) is taken away.
    let attribute = [8, 0, 3, 0];
    let mut bytes = TRANSLATED.to_vec();
    let at = bytes.windows(4).position(|part| part == attribute).unwrap();
    bytes[at + 7] &= !16;
    assert_eq!(connections(&bytes).len(), 3);
}

#[test]
fn failures_of_all_cpus_are_in_the_answer() {
    // include/uapi/linux/netfilter/nfnetlink_conntrack.h, `enum ctattr_stats_cpu`: each attribute of each CPU gets
    // a value of its own.
    let mut bytes = STATISTICS.to_vec();
    for kind in [8, 9, 10] {
        let header = [8, 0, kind, 0];
        let places: Vec<usize> = (0..bytes.len() - 8)
            .filter(|&at| bytes[at..at + 4] == header)
            .collect();
        assert_eq!(places.len(), 2, "{kind}");
        for (cpu, at) in (1..).zip(places) {
            bytes[at + 7] = 10 * kind + cpu;
        }
    }
    let mut found = Vec::new();
    let more = take(&bytes, &mut |message| {
        if let ConntrackMessage::Other { attributes, .. } = message {
            let mut own = attributes
                .iter()
                .filter(|nla| nla.kind() == CTA_STATS_INSERT_FAILED);
            found.push(own.find_map(number));
        }
    });
    assert!(!more.unwrap());
    assert_eq!(found, [Some(91), Some(92)]);
}

#[test]
fn a_damaged_answer_is_an_error_and_no_panic() {
    for cut in 0..TRANSLATED.len() {
        let mut visit = |_| ();
        // What is whole before the cut may be taken.
        let _ = take(&TRANSLATED[..cut], &mut visit);
    }
    let mut bytes = TRANSLATED.to_vec();
    for at in 0..bytes.len() {
        let before = bytes[at];
        for value in [0, 1, 0xff] {
            bytes[at] = value;
            let _ = take(&bytes, &mut |message| {
                if let ConntrackMessage::New(attributes) = message {
                    let _ = connection(&attributes);
                }
            });
        }
        bytes[at] = before;
    }
}

#[test]
fn the_question_is_for_translated_sources_of_both_families() {
    let bytes = message(of_translated());
    // nlmsghdr: length, type (CTNETLINK << 8 | CT_GET), flags (REQUEST, DUMP); nfgenmsg: AF_UNSPEC; CTA_STATUS,
    // CTA_STATUS_MASK.
    assert_eq!(bytes[..4], 36u32.to_ne_bytes());
    assert_eq!(bytes[4..8], [1, 1, 1, 3]);
    assert_eq!(bytes[16..20], [0; 4]);
    assert_eq!(bytes[20..28], [8, 0, 3, 0, 0, 0, 0, 16]);
    assert_eq!(bytes[28..], [8, 0, 26, 0, 0, 0, 0, 16]);
}
