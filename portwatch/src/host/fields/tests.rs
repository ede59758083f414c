#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use super::*;
use crate::host::btf::{self, build::Builder};

fn resolved(b: &Builder) -> Fields {
    resolve(&Btf::parse(b.build(), &names()).unwrap())
}

/// A kernel with `struct inet_sock` before 6.6, its options at these bits.
fn bitfields(freebind: u32, transparent: u32, no_port: u32) -> Fields {
    let mut b = Builder::new();
    let byte = b.int("unsigned char", 1);
    b.structure(
        "inet_sock",
        1000,
        &[
            ("freebind", byte, freebind, 1),
            ("transparent", byte, transparent, 1),
            ("bind_address_no_port", byte, no_port, 1),
        ],
    );
    resolved(&b)
}

fn options(fields: &Fields) -> [Option<u32>; 3] {
    OPTIONS.map(|name| fields.get(name))
}

#[test]
fn options_that_were_bitfields() {
    // 5.10
    let fields = bitfields(808 * 8 + 2, 808 * 8 + 6, 809 * 8);
    assert_eq!(options(&fields), [Some(6466), Some(6470), Some(6472)]);
}

#[test]
fn options_that_are_bits_of_a_word() {
    let mut b = Builder::new();
    let long = b.int("long unsigned int", 8);
    b.structure("inet_sock", 1000, &[("inet_flags", long, 784 * 8, 0)]);
    b.enumeration(
        "",
        &[
            ("INET_FLAGS_FREEBIND", 11),
            ("INET_FLAGS_TRANSPARENT", 15),
            ("INET_FLAGS_BIND_ADDRESS_NO_PORT", 18),
        ],
    );
    let fields = resolved(&b);
    assert_eq!(options(&fields), [Some(6283), Some(6287), Some(6290)]);
    let at = FIELDS
        .iter()
        .position(|field| field.name == "inet_freebind");
    assert_eq!(
        fields.paths[at.unwrap()],
        Some("inet_sock.inet_flags#INET_FLAGS_FREEBIND")
    );
}

#[test]
fn options_that_do_not_share_a_word_are_not_read_at_all() {
    for (freebind, transparent, no_port) in [
        // Too far behind, by one bit.
        (800, 801, 864),
        (807, 864, 801),
        // Before the byte of the first.
        (808, 807, 809),
        (808, 809, 0),
    ] {
        let fields = bitfields(freebind, transparent, no_port);
        assert_eq!(options(&fields), [None; 3], "{freebind}");
        for name in OPTIONS {
            let told = fields.absent.iter().filter(|absent| **absent == name);
            assert_eq!(told.count(), 1, "{name}");
        }
    }
    // The last bit of the word still counts.
    let fields = bitfields(807, 800, 863);
    assert_eq!(options(&fields), [Some(807), Some(800), Some(863)]);
}

#[test]
fn without_one_of_the_options_the_others_stay() {
    let mut b = Builder::new();
    let byte = b.int("unsigned char", 1);
    b.structure("inet_sock", 1000, &[("freebind", byte, 808, 1)]);
    assert_eq!(options(&resolved(&b)), [Some(808), None, None]);
}

#[test]
fn a_field_of_another_size_is_missing() {
    for (bytes, found) in [(2, Some(14)), (4, None)] {
        let mut b = Builder::new();
        let int = b.int("int", bytes);
        b.structure("sock_common", 136, &[("skc_num", int, 112, 0)]);
        let fields = resolved(&b);
        assert_eq!(fields.get("skc_num"), found);
        assert_eq!(fields.missing.contains(&"skc_num"), found.is_none());
    }
}

#[test]
fn a_bitfield_is_no_place_and_a_width_must_fit() {
    let mut b = Builder::new();
    let byte = b.int("unsigned char", 1);
    b.structure(
        "sock_common",
        136,
        &[
            ("skc_state", byte, 144, 7),
            ("skc_reuse", byte, 152, 3),
            ("skc_reuseport", byte, 156, 1),
            ("skc_bind_node", byte, 161, 0),
        ],
    );
    let fields = resolved(&b);
    for name in ["skc_state", "skc_reuse", "skc_bind_node"] {
        assert_eq!(fields.get(name), None, "{name}");
    }
    assert_eq!(fields.get("skc_reuseport"), Some(156));
}

#[test]
fn a_bitfield_may_grow_to_a_member_of_its_own() {
    // sk_userlocks, 6.1 and 6.12.
    for (bits, width) in [(512 * 8 + 4, 4), (243 * 8, 0)] {
        let mut b = Builder::new();
        let byte = b.int("unsigned char", 1);
        b.structure("sock", 776, &[("sk_userlocks", byte, bits, width)]);
        assert_eq!(resolved(&b).get("sk_userlocks"), Some(bits));
    }
}

#[test]
fn a_renamed_member_is_found_under_its_older_name() {
    let mut b = Builder::new();
    let long = b.int("long long unsigned int", 8);
    b.structure("task_struct", 4096, &[("real_start_time", long, 8000, 0)]);
    let fields = resolved(&b);
    assert_eq!(fields.get("task_start_boottime"), Some(1000));
    assert!(fields.has("task_start_boottime"));
}

#[test]
fn nothing_is_found_in_nothing() {
    let fields = resolved(&Builder::new());
    assert_eq!(fields.words, [ABSENT; FIELDS.len()]);
    assert_eq!(
        fields.missing.len() + fields.absent.len(),
        FIELDS.len(),
        "each is told once"
    );
    assert_eq!(fields.get("no such field"), None);
}

#[test]
fn the_running_kernel_has_every_field_that_is_needed() {
    match Btf::read(Path::new(btf::VMLINUX), &names()) {
        Ok(btf) => {
            let fields = resolve(&btf);
            assert_eq!(fields.missing, [""; 0]);
            // The same on all kernels so far.
            for (name, number) in [("skc_num", 14), ("skc_family", 16), ("socket_sk", 24)] {
                assert_eq!(fields.get(name), Some(number), "{name}");
            }
            for (at, field) in FIELDS.iter().enumerate() {
                assert_eq!(fields.paths[at].is_some(), fields.has(field.name));
            }
        }
        Err(error) => println!("skip: {error}"),
    }
}
