#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeSet, HashSet};

use aya_obj::Object as Parsed;
use proptest::prelude::*;

use super::{super::lines::without_lines, *};
use crate::{
    event::{Backend, Op},
    load::{Globals, OBJECT, planned, version_name},
    plan::{
        self, Attach, PREFERENCE,
        generation::Generation,
        hooks,
        kernels::{self, Kernel},
        programs,
    },
    selection::Selection,
};

const GENERATIONS: [Generation; 3] = [Generation::Bounded, Generation::Looped, Generation::Casting];

fn cut(programs: &[&str], lines: Lines) -> Vec<u8> {
    let object = Object::read(OBJECT).unwrap();
    object.only(programs, lines, None, None).unwrap()
}

/// Instructions, functions and lines of a program as the kernel would get them.
#[derive(Debug, PartialEq)]
struct Linked {
    section: String,
    instructions: Vec<u8>,
    functions: Vec<u8>,
    lines: Vec<u8>,
}

impl Linked {
    /// The types of its functions, by which these can be told apart.
    fn types(&self) -> BTreeSet<&[u8]> {
        self.functions
            .chunks(8)
            .map(|record| &record[4..])
            .collect()
    }
}

/// An object as the loader has it before it makes maps.
fn parsed(object: &[u8]) -> Parsed {
    let mut parsed = Parsed::parse(object).unwrap();
    let sections: HashSet<usize> = parsed.functions.keys().map(|key| key.0).collect();
    parsed.relocate_calls(&sections).unwrap();
    parsed
}

fn linked(object: &[u8], program: &str) -> Linked {
    linked_of(&parsed(object), program)
}

fn linked_of(parsed: &Parsed, program: &str) -> Linked {
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
        .only(&[name], Lines::Dropped, Some(function), None)
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
        .only(&[name], Lines::Dropped, Some(function), None)
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

/// Programs of a plan, with what it knows put in: whole, and shorter.
#[test]
fn what_a_plan_knows_is_not_asked_for_in_the_kernel() {
    let selection = Selection {
        events: vec![Op::Bind, Op::Listen, Op::Connect, Op::Autobind],
        ..Selection::default()
    };
    let (mut plans, mut before, mut after) = (0, 0, 0);
    let whole = parsed(OBJECT);
    let carried = Object::read(OBJECT).unwrap();
    for kernel in Kernel::ALL {
        let facts = kernels::facts(kernel);
        for backend in PREFERENCE {
            let Ok(plan) = plan::plan(&facts, &selection, Attach::Only(backend)) else {
                continue;
            };
            plans += 1;
            let globals = Globals::of(&facts, &plan.config);
            let object = parsed(&planned(&facts, plan.programs(), &globals).unwrap());
            for program in plan.programs() {
                let name = version_name(program.program, program.generation, |name| {
                    carried.has(name)
                });
                let folded = linked_of(&object, &name);
                is_whole(&folded, &name);
                let full = linked_of(&whole, &name);
                assert!(folded.types().is_subset(&full.types()), "{name}");
                before += full.instructions.len();
                after += folded.instructions.len();
            }
        }
    }
    assert_eq!(plans, 13);
    assert!(after * 4 < before * 3, "{after} of {before} bytes");
}

/// What is put in is what the loader has said, not what the object file carries.
#[test]
fn other_constants_make_another_program() {
    let name = "bind4_tracing_looped";
    let facts = kernels::facts(Kernel::V6_1);
    let selection = Selection {
        events: vec![Op::Bind],
        ..Selection::default()
    };
    let plan = plan::plan(&facts, &selection, Attach::Only(Backend::Tracing)).unwrap();
    let of = |place: u32| {
        let mut facts = facts.clone();
        facts.fields.words.fill(place);
        let globals = Globals::of(&facts, &plan.config);
        let object = planned(&facts, plan.programs(), &globals).unwrap();
        linked(&object, name).instructions
    };
    let (one, other) = (of(40), of(48));
    assert_eq!(one.len(), other.len());
    let changed = one
        .chunks(8)
        .zip(other.chunks(8))
        .filter(|(one, other)| one != other);
    let immediates: BTreeSet<[&[u8]; 2]> = changed
        .map(|(one, other)| [&one[4..], &other[4..]])
        .collect();
    assert!(immediates.contains(&[&40_u32.to_ne_bytes()[..], &48_u32.to_ne_bytes()[..]]));
}

/// Every function of a program begins where the one before has ended.
fn is_whole(program: &Linked, name: &str) {
    let functions = program.functions.chunks(8);
    let starts = functions.map(|record| u32::from_ne_bytes(record[..4].try_into().unwrap()));
    let starts: Vec<usize> = starts.map(|start| start as usize * 8).collect();
    assert_eq!(starts.first(), Some(&0), "{name}");
    assert!(starts.is_sorted_by(|one, next| one < next), "{name}");
    let ends = starts.iter().skip(1).copied();
    for end in ends.chain([program.instructions.len()]) {
        // BPF_EXIT, or BPF_JA
        let last = program.instructions[end - 8];
        assert!([0x95, 0x05].contains(&last), "{name}: {last:#x}");
    }
}

#[test]
fn an_object_without_symbols_cannot_be_folded() {
    let object = Object::read(OBJECT).unwrap();
    let mut parts: Vec<Part> = object
        .sections
        .iter()
        .map(|section| object.part(section, Lines::Dropped, true).unwrap())
        .filter(|part| part.kind() != object::elf::SHT_SYMTAB)
        .collect();
    assert_eq!(functions::specialise(&mut parts, &[]), None);
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
            let _ = object.only(&["sys_exit_raw_casting"], Lines::Dropped, Some(1), Some(&[]));
        }
    }

    #[test]
    fn an_object_cut_short_is_survived(len in any::<prop::sample::Index>()) {
        let data = cut(&[], Lines::Dropped);
        if let Ok(object) = Object::read(&data[..len.index(data.len())]) {
            let _ = object.only(&[], Lines::Dropped, Some(1), Some(&[]));
        }
    }
}
