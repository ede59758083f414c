#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeSet, HashSet};

use aya_obj::Object as Parsed;
use proptest::prelude::*;

use super::{super::lines::without_lines, *};
use crate::{
    load::{OBJECT, version_name},
    plan::{PREFERENCE, generation::Generation, hooks, programs},
};

const GENERATIONS: [Generation; 3] = [Generation::Bounded, Generation::Looped, Generation::Casting];

fn cut(programs: &[&str], lines: Lines) -> Vec<u8> {
    let object = Object::read(OBJECT).unwrap();
    object.only(programs, lines, None).unwrap()
}

/// Instructions, functions and lines of a program as the kernel would get them.
#[derive(Debug, PartialEq)]
struct Linked {
    section: String,
    instructions: Vec<u8>,
    functions: Vec<u8>,
    lines: Vec<u8>,
}

fn linked(object: &[u8], program: &str) -> Linked {
    let mut parsed = Parsed::parse(object).unwrap();
    let sections: HashSet<usize> = parsed.functions.keys().map(|key| key.0).collect();
    parsed.relocate_calls(&sections).unwrap();
    let found = &parsed.programs[program];
    let function = &parsed.functions[&found.function_key()];
    let instructions = function.instructions.iter();
    Linked {
        section: format!("{:?}", found.section),
        instructions: instructions
            .flat_map(|one| {
                let registers = one.dst_reg() | one.src_reg() << 4;
                let head = [one.code, registers].into_iter();
                head.chain(one.off.to_ne_bytes())
                    .chain(one.imm.to_ne_bytes())
            })
            .collect(),
        functions: function.func_info.func_info_bytes(),
        lines: function.line_info.line_info_bytes(),
    }
}

#[test]
fn the_plans_programs_are_all_that_is_left_and_are_what_they_were() {
    let wanted = [
        "bind4_enter_tracing",
        "bind4_tracing_looped",
        "sys_exit_raw_casting",
    ];
    let object = cut(&wanted, Lines::Kept);
    assert!(object.len() < OBJECT.len());
    let parsed = Parsed::parse(&object).unwrap();
    let names: BTreeSet<&str> = parsed.programs.keys().map(String::as_str).collect();
    assert_eq!(names, wanted.into());
    for name in wanted {
        assert_eq!(linked(&object, name), linked(OBJECT, name), "{name}");
    }
}

#[test]
fn calls_are_turned_into_those_of_the_kernels_function() {
    let name = "sys_exit_raw_casting";
    let object = Object::read(OBJECT).unwrap();
    let function = 0x0123_4567u32;
    let with = object
        .only(&[name], Lines::Dropped, Some(function))
        .unwrap();
    let (with, without) = (
        linked(&with, name),
        linked(&cut(&[name], Lines::Dropped), name),
    );
    let pairs = with
        .instructions
        .chunks(8)
        .zip(without.instructions.chunks(8));
    let changed: Vec<_> = pairs.filter(|(with, without)| with != without).collect();
    assert!(changed.len() > 10, "{}", changed.len());
    for (with, without) in changed {
        assert_eq!(with[..4], [0x85, 2 << 4, 0, 0]);
        assert_eq!(with[4..], function.to_ne_bytes());
        assert_eq!(without[..4], [0x85, 0, 0, 0]);
        assert_eq!(without[4..], RDONLY_CAST.to_ne_bytes());
    }
    // Other generations have none.
    let name = "sys_exit_raw_looped";
    let other = object
        .only(&[name], Lines::Dropped, Some(function))
        .unwrap();
    assert_eq!(
        linked(&other, name).instructions,
        linked(OBJECT, name).instructions
    );
}

#[test]
fn maps_and_constants_stay() {
    let names = |object: &[u8]| -> BTreeSet<String> {
        Parsed::parse(object).unwrap().maps.into_keys().collect()
    };
    assert_eq!(names(&cut(&[], Lines::Dropped)), names(OBJECT));
}

#[test]
fn without_lines_a_program_is_the_same_but_for_them() {
    let name = "bind4_tracing_looped";
    let object = cut(&[name], Lines::Dropped);
    let expected = Linked {
        lines: Vec::new(),
        ..linked(OBJECT, name)
    };
    assert!(!expected.functions.is_empty());
    assert_eq!(linked(&object, name), expected);
    assert!(object.len() * 2 < cut(&[name], Lines::Kept).len());
}

#[test]
fn every_program_of_every_plan_has_a_section_of_its_own() {
    let object = Object::read(OBJECT).unwrap();
    for hook in hooks::all() {
        for backend in PREFERENCE {
            for program in programs(hook, backend) {
                for generation in GENERATIONS {
                    let name = version_name(program.0, generation, |name| object.has(name));
                    assert!(object.has(&name), "{name}");
                }
            }
        }
    }
    assert!(object.has("bind4_tracing_bounded"));
    assert!(!object.has("bind4_tracing"));
}

#[test]
fn line_information_that_is_laid_out_otherwise_is_left_alone() {
    let data = |words: [u32; 7]| -> Vec<u8> {
        let words = words.iter().flat_map(|word| word.to_ne_bytes());
        let start = [0x9f, 0xeb, 1, 0].into_iter().chain(words);
        start.chain([7; 40]).collect()
    };
    let cut = |words| without_lines(&data(words));
    // Length of the header; functions, lines and relocations of CO-RE: where, how much.
    let mut expected = data([32, 0, 16, 16, 0, 0, 0]);
    expected.truncate(32 + 16);
    assert_eq!(cut([32, 0, 16, 16, 24, 40, 0]), Some(expected));
    assert_eq!(cut([32, 24, 16, 0, 24, 40, 0]), None, "lines first");
    assert_eq!(cut([32, 0, 16, 16, 16, 32, 8]), None, "relocations");
    assert_eq!(cut([20, 0, 16, 16, 24, 40, 0]), None, "short header");
    assert_eq!(cut([32, 0, 16, 900, 24, 40, 0]), None, "outside");
    let short = &data([32, 0, 16, 16, 24, 40, 0])[..31];
    assert_eq!(without_lines(short), None);
}

proptest! {
    #[test]
    fn damage_is_survived(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        // An object without programs is small enough to be damaged where it hurts.
        let mut data = cut(&[], Lines::Dropped);
        for (at, byte) in damage {
            let at = at.index(data.len());
            data[at] = byte;
        }
        if let Ok(object) = Object::read(&data) {
            let _ = object.has("sys_exit_raw_casting");
            let _ = object.only(&["sys_exit_raw_casting"], Lines::Dropped, Some(1));
        }
    }

    #[test]
    fn an_object_cut_short_is_survived(len in any::<prop::sample::Index>()) {
        let data = cut(&[], Lines::Dropped);
        if let Ok(object) = Object::read(&data[..len.index(data.len())]) {
            let _ = object.only(&[], Lines::Dropped, Some(1));
        }
    }
}
