#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    time::{Duration, Instant},
};

use aya_obj::btf::BtfKind;
use proptest::prelude::*;

use super::{build::Builder, *};

const WANTED: [&str; 12] = [
    "sock",
    "sock_common",
    "inet_sock",
    "flags_word",
    "loop",
    "inet_bind",
    "inet_autobind",
    "returns_pointer",
    "btf_trace_sys_exit",
    "btf_trace_nothing",
    "FLAG_B",
    "WIDE",
];

/// A small kernel. With the ids of what can be attached to.
struct Sample {
    data: Vec<u8>,
    inet_bind: u32,
    inet_autobind: u32,
    sys_exit: u32,
}

fn sample() -> Sample {
    let mut b = Builder::new();
    let int = b.int("int", 4);
    let u8 = b.int("unsigned char", 1);
    let short = b.int("short unsigned int", 2);
    let u16 = b.typedef("__u16", short);
    let be16 = b.typedef("__be16", u16);
    let u32 = b.int("unsigned int", 4);
    let u64 = b.int("long unsigned int", 8);
    b.oddities(int);
    let state = b.constant(u8);
    let state = b.volatile(state);
    let ports = b.structure("", 4, &[("dport", be16, 0, 0), ("num", u16, 16, 0)]);
    let pair = b.union("", 4, &[("portpair", u32, 0, 0), ("", ports, 0, 0)]);
    let words = b.array(u32, 4);
    let net = b.forward("net");
    let net = b.pointer(net);
    // The name is that of another, smaller type too.
    b.structure("sock_common", 4, &[("other", u32, 0, 0)]);
    let common = b.structure(
        "sock_common",
        56,
        &[
            ("daddr", u32, 0, 0),
            ("", pair, 64, 0),
            ("state", state, 96, 0),
            ("reuse", u8, 104, 4),
            ("reuseport", u8, 108, 1),
            ("v6", words, 128, 0),
            ("net", net, 256, 0),
        ],
    );
    let sock = b.structure(
        "sock",
        64,
        &[("common", common, 0, 0), ("uid", u32, 448, 0)],
    );
    b.structure(
        "inet_sock",
        80,
        &[("sk", sock, 0, 0), ("flags", u64, 576, 0)],
    );
    b.enumeration("flags_word", &[("FLAG_A", 0), ("FLAG_B", 17)]);
    let sock_pointer = b.pointer(sock);
    let constant = b.constant(sock);
    let constant_pointer = b.pointer(constant);
    let tagged = b.tagged("rcu", sock);
    let tagged_pointer = b.pointer(tagged);
    let double = b.pointer(sock_pointer);
    let proto = b.prototype(int, &[sock_pointer, u16]);
    let inet_bind = b.function("inet_bind", proto);
    let proto = b.prototype(int, &[constant_pointer]);
    let inet_autobind = b.function("inet_autobind", proto);
    let callback = b.pointer(proto);
    let nothing = b.pointer(0);
    let proto = b.prototype(double, &[tagged_pointer, callback, nothing]);
    b.function("returns_pointer", proto);
    let proto = b.prototype(0, &[nothing, sock_pointer, u64]);
    let proto = b.pointer(proto);
    let sys_exit = b.typedef("btf_trace_sys_exit", proto);
    let proto = b.prototype(0, &[nothing]);
    let proto = b.pointer(proto);
    b.typedef("btf_trace_nothing", proto);
    // Structs without names that contain one another, which no compiler makes.
    let own = b.next_id();
    b.structure(
        "loop",
        4,
        &[("", own, 0, 0), ("", own, 0, 0), ("", own, 0, 0)],
    );
    Sample {
        data: b.build(),
        inet_bind,
        inet_autobind,
        sys_exit,
    }
}

fn parsed() -> Btf {
    Btf::parse(sample().data, &WANTED).unwrap()
}

#[test]
fn members_are_found_through_structs_unions_and_typedefs() {
    let btf = parsed();
    for (structure, path, bits, bitfield, bytes) in [
        ("sock_common", "daddr", 0, None, Some(4)),
        ("sock_common", "portpair", 64, None, Some(4)),
        ("sock_common", "dport", 64, None, Some(2)),
        ("sock_common", "num", 80, None, Some(2)),
        ("sock_common", "state", 96, None, Some(1)),
        ("sock_common", "reuse", 104, Some(4), Some(1)),
        ("sock_common", "reuseport", 108, Some(1), Some(1)),
        ("sock_common", "v6", 128, None, Some(16)),
        ("sock_common", "net", 256, None, Some(8)),
        ("sock_common", "other", 0, None, Some(4)),
        ("sock", "common", 0, None, Some(56)),
        ("sock", "common.num", 80, None, Some(2)),
        ("sock", "uid", 448, None, Some(4)),
        ("inet_sock", "sk.common.reuseport", 108, Some(1), Some(1)),
        ("inet_sock", "sk.uid", 448, None, Some(4)),
        ("inet_sock", "flags", 576, None, Some(8)),
    ] {
        let path: Vec<&str> = path.split('.').collect();
        let member = btf.member(structure, &path).unwrap();
        assert_eq!(member.bits, bits, "{structure} {path:?}");
        assert_eq!(member.bitfield, bitfield, "{structure} {path:?}");
        assert_eq!(btf.member_size(member), bytes, "{structure} {path:?}");
    }
}

#[test]
fn what_is_not_there_is_not_found() {
    let btf = parsed();
    for (structure, path) in [
        ("sock", "num"),
        ("sock", "common.uid"),
        ("sock", "uid.low"),
        ("sock_common", "net.inum"),
        ("net", "inum"),
        ("task_struct", "pid"),
        ("sock", ""),
    ] {
        let path: Vec<&str> = path.split('.').collect();
        assert_eq!(btf.member(structure, &path), None, "{structure} {path:?}");
    }
    assert_eq!(btf.function_id("inet_listen"), None);
    assert_eq!(btf.prototype("inet_listen"), None);
    assert_eq!(btf.tracepoint_prototype("sys_enter"), None);
    assert_eq!(btf.enumerator("FLAG_A"), None, "nobody asked for it");
    assert_eq!(btf.struct_size("net"), None);
}

#[test]
fn sizes_and_enumerators() {
    let btf = parsed();
    assert_eq!(btf.struct_size("sock"), Some(64));
    assert_eq!(btf.enumerator("FLAG_B"), Some(17));
    // The first of two types of the same name.
    assert_eq!(btf.struct_size("sock_common"), Some(4));
}

#[test]
fn prototypes_read_as_c() {
    let btf = parsed();
    for (function, text) in [
        ("inet_bind", "int (struct sock *, __u16)"),
        ("inet_autobind", "int (struct sock *)"),
        (
            "returns_pointer",
            "struct sock ** (struct sock *, fn *, void *)",
        ),
    ] {
        assert_eq!(btf.prototype(function).as_deref(), Some(text));
        assert!(btf.has_function(function));
    }
    assert_eq!(
        btf.tracepoint_prototype("sys_exit").as_deref(),
        Some("void (struct sock *, long unsigned int)")
    );
}

#[test]
fn a_tracepoint_without_arguments_has_an_empty_list() {
    let text = parsed().tracepoint_prototype("nothing");
    assert_eq!(text.as_deref(), Some("void ()"));
}

#[test]
fn types_are_numbered_as_aya_numbers_them() {
    let Sample {
        data,
        inet_bind,
        inet_autobind,
        sys_exit,
    } = sample();
    let aya = aya_obj::btf::Btf::parse(&data, aya::Endianness::default()).unwrap();
    let id = |name, kind| aya.id_by_type_name_kind(name, kind).unwrap();
    let btf = Btf::parse(data, &WANTED).unwrap();
    for (name, expected) in [("inet_bind", inet_bind), ("inet_autobind", inet_autobind)] {
        assert_eq!(btf.function_id(name), Some(expected));
        assert_eq!(id(name, BtfKind::Func), expected);
    }
    assert_eq!(btf.tracepoint_id("sys_exit"), Some(sys_exit));
    assert_eq!(id("btf_trace_sys_exit", BtfKind::Typedef), sys_exit);
    assert_eq!(btf.tracepoint_id("sys_enter"), None);
}

#[test]
fn every_type_is_found_by_its_id() {
    let Sample { data, sys_exit, .. } = sample();
    let btf = Btf::parse(data, &WANTED).unwrap();
    let mut at = 0;
    let mut ids = 1..;
    while at < btf.types().len() {
        let id = ids.next().unwrap();
        let ty = btf.by_id(id).unwrap();
        assert_eq!(ty.at, at, "{id}");
        at = ty.end().unwrap();
    }
    let count = ids.start - 1;
    assert!(count > sys_exit);
    assert!(btf.by_id(0).is_none());
    assert!(btf.by_id(count + 1).is_none());
    assert!(btf.by_id(u32::MAX).is_none());
}

#[test]
fn what_is_no_btf_is_refused_with_the_reason() {
    let good = sample().data;
    let with = |at: usize, bytes: &[u8]| {
        let mut data = good.clone();
        data[at..at + bytes.len()].copy_from_slice(bytes);
        data
    };
    let types_len = u32_at(&good, 12).unwrap();
    for (data, reason) in [
        (Vec::new(), "the header is cut short"),
        (good[..15].to_vec(), "the header is cut short"),
        (with(0, b"\x7fELF"), "it does not begin as BTF does"),
        (
            with(0, &MAGIC.swap_bytes().to_ne_bytes()),
            "it is of the other byte order",
        ),
        (
            with(20, &u32::MAX.to_ne_bytes()),
            "a section lies outside the file",
        ),
        (
            with(4, &u32::MAX.to_ne_bytes()),
            "a section lies outside the file",
        ),
        (
            with(12, &(types_len - 4).to_ne_bytes()),
            "a type is cut short",
        ),
        (
            with(24 + 4, &(31u32 << 24).to_ne_bytes()),
            "a type is of unknown kind",
        ),
    ] {
        let error = Btf::parse(data, &WANTED).unwrap_err();
        let expected = format!("the kernel's type information (BTF) is damaged: {reason}");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_file_that_is_not_there_and_one_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let error = Btf::read(&folder.path().join("vmlinux"), &[]).unwrap_err();
    assert!(matches!(error, BtfError::Absent { .. }), "{error:?}");
    let error = Btf::read(folder.path(), &[]).unwrap_err();
    assert!(matches!(error, BtfError::Read { .. }), "{error:?}");
}

/// Asks for everything that can be asked, whatever the answers.
fn exercise(data: Vec<u8>) {
    let Ok(btf) = Btf::parse(data, &WANTED) else {
        return;
    };
    for name in WANTED {
        let _ = btf.struct_size(name);
        let _ = btf.prototype(name);
        let _ = btf.enumerator(name);
        for path in [&["num"][..], &["common", "num"], &["sk", "common", "v6"]] {
            let _ = btf.member(name, path).map(|member| btf.member_size(member));
        }
    }
    let _ = btf.tracepoint_prototype("sys_exit");
    let _ = btf.tracepoint_prototype("nothing");
}

#[test]
fn cut_anywhere_it_is_refused() {
    let data = sample().data;
    for len in 0..data.len() {
        assert!(Btf::parse(data[..len].to_vec(), &WANTED).is_err(), "{len}");
    }
    // Cut with lengths that fit: strings and types may end anywhere.
    let types = u32_at(&data, 12).unwrap();
    let strings = u32_at(&data, 20).unwrap();
    for len in 0..strings {
        let mut data = data.clone();
        data[20..24].copy_from_slice(&len.to_ne_bytes());
        exercise(data);
    }
    for len in 0..types {
        let mut data = data.clone();
        data[12..16].copy_from_slice(&len.to_ne_bytes());
        exercise(data);
    }
}

#[test]
fn types_that_contain_themselves_end_the_search() {
    let began = Instant::now();
    assert_eq!(parsed().member("loop", &["anything"]), None);
    let mut b = Builder::new();
    let own = b.next_id();
    let array = b.array(own, 2);
    let own = b.next_id();
    let typedef = b.typedef("alias", own);
    let own = b.next_id();
    let pointer = b.pointer(own);
    b.structure(
        "sock",
        8,
        &[("array", array, 0, 0), ("alias", typedef, 0, 0)],
    );
    let proto = b.prototype(pointer, &[]);
    b.function("inet_bind", proto);
    let btf = Btf::parse(b.build(), &WANTED).unwrap();
    for name in ["array", "alias"] {
        let member = btf.member("sock", &[name]).unwrap();
        assert_eq!(btf.member_size(member), None, "{name}");
    }
    assert_eq!(btf.prototype("inet_bind"), None);
    assert!(began.elapsed() < Duration::from_secs(5));
}

proptest! {
    #[test]
    fn damage_is_survived(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut data = sample().data;
        for (at, byte) in damage {
            let at = at.index(data.len());
            data[at] = byte;
        }
        exercise(data);
    }

    #[test]
    fn words_out_of_place_are_survived(damage in prop::collection::vec((any::<prop::sample::Index>(), 0u32..80), 1..12)) {
        let mut data = sample().data;
        // Words that look like ids, behind the header: references that lead elsewhere.
        for (at, word) in damage {
            let at = 24 + 4 * at.index((data.len() - 24) / 4);
            data[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        exercise(data);
    }

    #[test]
    fn noise_is_survived(noise in prop::collection::vec(any::<u8>(), 0..256)) {
        exercise(noise.clone());
        let mut data = sample().data;
        data.truncate(24);
        data.extend_from_slice(&noise);
        exercise(data);
    }
}

#[test]
fn the_running_kernel_has_what_every_kernel_has() {
    let btf = match Btf::read(
        Path::new(VMLINUX),
        &["sock_common", "inet_bind", "btf_trace_sys_exit"],
    ) {
        Ok(btf) => btf,
        Err(error) => {
            println!("skip: {error}");
            return;
        }
    };
    let member = btf.member("sock_common", &["skc_num"]).unwrap();
    assert_eq!((member.bits, btf.member_size(member)), (14 * 8, Some(2)));
    let reuse = btf.member("sock_common", &["skc_reuse"]).unwrap();
    assert_eq!(reuse.bitfield, Some(4));
    let prototype = btf.prototype("inet_bind").unwrap();
    assert!(
        prototype.starts_with("int (struct socket *, "),
        "{prototype}"
    );
    assert!(btf.tracepoint_prototype("sys_exit").is_some());

    // aya finds the same ids, by another way.
    let data = fs::read(VMLINUX).unwrap();
    let aya = aya_obj::btf::Btf::parse(&data, aya::Endianness::default()).unwrap();
    let id = |name, kind| aya.id_by_type_name_kind(name, kind).ok();
    assert_eq!(btf.function_id("inet_bind"), id("inet_bind", BtfKind::Func));
    let typedef = id("btf_trace_sys_exit", BtfKind::Typedef);
    assert_eq!(btf.tracepoint_id("sys_exit"), typedef);
}
