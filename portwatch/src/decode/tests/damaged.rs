//! Records that the kernel programs wrote, and what damage makes of records.

use std::time::{Duration, Instant};

use super::*;

#[test]
fn another_version_is_refused_with_both_numbers() {
    let mut record = socket_record();
    record.header.version = VERSION + 41;
    assert_eq!(
        refusal(&bytes(&record)),
        format!(
            "record version {}, this portwatch reads version {VERSION}",
            VERSION + 41
        )
    );
}

#[test]
fn lengths_that_lie_are_refused() {
    let good = bytes(&socket_record());
    let told = |len: u32| {
        let mut data = good.clone();
        data[4..8].copy_from_slice(&len.to_ne_bytes());
        data
    };
    for len in [0, 8, 191, 193, u32::MAX] {
        assert_eq!(
            refusal(&told(len)),
            format!("record of kind 1 with length {len}")
        );
    }
    let mut record = socket_record();
    for kind in [0, 4, u16::MAX] {
        record.header.kind = kind;
        let message = format!("record of unknown kind {kind}");
        assert_eq!(refusal(&bytes(&record)), message);
    }
    // The length of one kind under the name of another.
    record.header.kind = kind::PROCESS;
    assert_eq!(refusal(&bytes(&record)), "record of kind 3 with length 192");
}

#[test]
fn cut_anywhere_a_record_is_refused() {
    for data in [
        bytes(&socket_record()),
        bytes(&owners_record(8)),
        bytes(&process_record(b"a\0", b"a\0")),
    ] {
        for len in 0..data.len() {
            assert_eq!(refusal(&data[..len]), "record cut short", "{len}");
        }
        // The ring hands out multiples of eight bytes: more than the record is no harm.
        let longer = [&data[..], &[0xff; 7]].concat();
        assert_eq!(decode(&longer), decode(&data));
    }
}

/// Records that the kernel programs wrote, one of each sort; also the seeds of the fuzz target.
const RECORDED: [(&str, &[u8]); 12] = {
    macro_rules! seed {
        ($name:literal) => {
            (
                $name,
                include_bytes!(concat!("../../../../tests/fuzz/seeds/decode/", $name)) as &[u8],
            )
        };
    }
    [
        seed!("process"),
        seed!("bind-tcp4"),
        seed!("listen-tcp4"),
        seed!("bind-tcp6-v6only"),
        seed!("connect-established"),
        seed!("owners-tcp4"),
        seed!("bind-refused-tcp4"),
        seed!("connect-refused"),
        seed!("owners-udp6"),
        seed!("connect-udp"),
        seed!("bind-not-local"),
        seed!("bind-mptcp"),
    ]
};

/// A kernel of little-endian byte order wrote them.
#[cfg(target_endian = "little")]
#[test]
fn recorded_records_mean_what_happened() {
    let mut text = String::new();
    for (name, data) in RECORDED {
        text.push_str(&format!("{name}: {:#?}\n", decode(data).unwrap()));
    }
    insta::assert_snapshot!(text);
}

/// xorshift64*: the same bytes in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
    }
}

/// Where no fuzzer is at hand, this is what stands in for it: recorded records, some bytes of them
/// changed, cut or swapped with those of others, the same ones in every run.
#[test]
fn damaged_records_are_survived() {
    const VALUES: [u8; 8] = [0, 1, 2, 10, 0x7f, 0x80, 0xfe, 0xff];
    let began = Instant::now();
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let (mut decoded, mut refused) = (0u64, 0u64);
    for _ in 0..400_000 {
        // Slow machines do less; the first rounds are the same everywhere.
        if began.elapsed() > Duration::from_secs(5) {
            break;
        }
        let (_, seed) = RECORDED[noise.next(RECORDED.len())];
        let mut data = seed.to_vec();
        for _ in 0..=noise.next(6) {
            let at = noise.next(data.len());
            match noise.next(4) {
                0 => data[at] = VALUES[noise.next(VALUES.len())],
                1 => data[at] ^= 1 << noise.next(8),
                2 => {
                    let (_, other) = RECORDED[noise.next(RECORDED.len())];
                    let len = noise.next(64).min(data.len() - at).min(other.len());
                    let from = noise.next(other.len() - len + 1);
                    data[at..at + len].copy_from_slice(&other[from..from + len]);
                }
                _ => {
                    let len = (at + noise.next(16)).min(data.len());
                    data[at..len].fill(VALUES[noise.next(VALUES.len())]);
                }
            }
        }
        if noise.next(16) == 0 {
            data.truncate(noise.next(data.len()));
        }
        match decode(&data) {
            Ok(Record::Owners { conflict, .. }) => {
                assert!(conflict.holders.len() <= MAX_HOLDERS);
                decoded += 1;
            }
            Ok(Record::Image(image)) => {
                let path = image.executable_path.map_or(0, |path| path.len());
                // A byte that is no UTF-8 becomes three.
                assert!(path <= 3 * (PATH_LEN + NAME_LEN) + 1);
                decoded += 1;
            }
            Ok(Record::Socket { .. }) => decoded += 1,
            Err(_) => refused += 1,
        }
    }
    // Neither all good nor all bad: the damage reaches what lies behind the header.
    assert!(decoded > 1000 && refused > 1000, "{decoded} {refused}");
}
