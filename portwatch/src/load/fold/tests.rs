#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    instruction::{BY_REGISTER, LOAD_WIDE, alu, class, jump},
    *,
};

/// Constants at the beginning of section 1.
struct Words(Vec<u32>);

impl Constants for Words {
    fn load(&self, section: usize, offset: u64, size: usize) -> Option<u64> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let start = usize::try_from(offset).ok().filter(|_| section == 1)?;
        let bytes = bytes.get(start..start + size)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        )
    }
}

fn op(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: src << 4 | dst,
        offset,
        immediate,
    }
}

fn mov(dst: u8, number: i32) -> Instruction {
    op(class::ALU64 | alu::MOV, dst, 0, 0, number)
}

fn exit() -> Instruction {
    op(class::JMP | jump::EXIT, 0, 0, 0, 0)
}

fn call() -> Instruction {
    op(class::JMP | jump::CALL, 0, 0, 0, 7)
}

/// The address of the constants.
fn address(dst: u8) -> [Instruction; 2] {
    [op(LOAD_WIDE, dst, 0, 0, 0), op(0, 0, 0, 0, 0)]
}

/// Loads four bytes.
fn load(dst: u8, src: u8, offset: i16) -> Instruction {
    op(0x61, dst, src, offset, 0)
}

fn jump_if(operation: u8, dst: u8, number: i32, by: i16) -> Instruction {
    op(class::JMP | operation, dst, 0, by, number)
}

/// Those of the code's wide loads that begin at these slots are of the constants.
fn folded(code: &[Instruction], constants: &[u32], addresses: &[usize]) -> Folded {
    let reference = |slot: usize| {
        addresses.contains(&slot).then_some(Reference::Constant {
            section: 1,
            offset: 0,
        })
    };
    fold(code, &reference, &Words(constants.to_vec()))
}

fn code(parts: &[&[Instruction]]) -> Vec<Instruction> {
    parts.concat()
}

#[test]
fn a_constant_takes_the_place_of_its_load() {
    // r0 = r1 + *(u32 *)(constants + 4)
    let add = op(class::ALU64 | alu::ADD | BY_REGISTER, 0, 2, 0, 0);
    let take = op(class::ALU64 | alu::MOV | BY_REGISTER, 0, 1, 0, 0);
    let before = code(&[&[take], &address(2), &[load(2, 2, 4), add, exit()]]);
    let Folded { code, moved } = folded(&before, &[1, 600], &[1]);
    let with_number = op(class::ALU64 | alu::ADD, 0, 0, 0, 600);
    assert_eq!(code, [take, with_number, exit()]);
    assert_eq!(moved, [Some(0), None, None, None, Some(1), Some(2)]);
}

#[test]
fn what_a_constant_rules_out_goes() {
    // if (constant == 0) r0 = 1; else r0 = 2;
    let before = code(&[
        &address(2),
        &[
            load(2, 2, 0),
            jump_if(jump::NE, 2, 0, 2),
            mov(0, 1),
            jump_if(jump::ALWAYS, 0, 0, 1),
            mov(0, 2),
            exit(),
        ],
    ]);
    assert_eq!(folded(&before, &[0], &[0]).code, [mov(0, 1), exit()]);
    assert_eq!(folded(&before, &[5], &[0]).code, [mov(0, 2), exit()]);
    // Nothing is known of it: everything stays.
    assert_eq!(folded(&before, &[5], &[]).code, before);
}

#[test]
fn jumps_lead_to_where_they_led() {
    let before = code(&[
        &[jump_if(jump::EQ, 1, 7, 5)],
        &address(2),
        &[
            load(2, 2, 0),
            jump_if(jump::EQ, 2, 9, 2),
            mov(0, 1),
            mov(3, 1),
            mov(0, 2),
            exit(),
        ],
    ]);
    assert_eq!(
        folded(&before, &[9], &[1]).code,
        // Nothing is left that the first branch leads past, or to.
        [mov(0, 2), exit()]
    );
    let add = op(class::ALU64 | alu::ADD, 0, 0, 0, 2);
    let before = code(&[
        &[jump_if(jump::EQ, 1, 7, 6)],
        &address(2),
        &[
            load(2, 2, 0),
            jump_if(jump::EQ, 2, 9, 1),
            mov(0, 1),
            mov(0, 3),
            add,
            exit(),
        ],
    ]);
    assert_eq!(
        folded(&before, &[9], &[1]).code,
        [jump_if(jump::EQ, 1, 7, 1), mov(0, 3), add, exit()]
    );
}

#[test]
fn a_value_that_a_loop_changes_is_not_known() {
    // r0 = 0; do { r0 += 1; } while (r0 < 3);
    let add = op(class::ALU64 | alu::ADD, 0, 0, 0, 1);
    let before = [mov(0, 0), add, jump_if(jump::LT, 0, 3, -2), exit()];
    assert_eq!(folded(&before, &[], &[]).code, before);
}

#[test]
fn a_call_leaves_nothing_in_the_registers_it_may_write() {
    let before = [
        mov(1, 4),
        mov(6, 4),
        call(),
        jump_if(jump::EQ, 1, 4, 1),
        jump_if(jump::EQ, 6, 4, 1),
        mov(0, 3),
        exit(),
    ];
    let after = folded(&before, &[], &[]).code;
    // r6 is kept; r1 is an argument, and unknown afterwards.
    assert_eq!(
        after.iter().map(|one| one.code).collect::<Vec<_>>(),
        [0xb7, 0x85, 0x15, 0x05, 0xb7, 0x95]
    );
}

#[test]
fn what_a_call_does_not_take_need_not_be_there() {
    let helper = |number| op(class::JMP | jump::CALL, 0, 0, 0, number);
    // bpf_map_lookup_elem takes two, bpf_get_current_pid_tgid none, and of another one it is not known.
    let before = [
        mov(1, 4),
        mov(2, 5),
        mov(3, 6),
        helper(1),
        mov(1, 7),
        helper(14),
        exit(),
    ];
    let after = [mov(1, 4), mov(2, 5), helper(1), helper(14), exit()];
    assert_eq!(folded(&before, &[], &[]).code, after);
    let before = [mov(1, 4), mov(5, 5), helper(7), exit()];
    assert_eq!(folded(&before, &[], &[]).code, before);
    // A function of the program that has such a number.
    let before = [mov(1, 4), op(class::JMP | jump::CALL, 0, 1, 0, 14), exit()];
    assert_eq!(folded(&before, &[], &[]).code, before);
}

#[test]
fn what_the_verifier_would_refuse_is_left_to_it() {
    let by_register = |class: u8, operation: u8| op(class | operation | BY_REGISTER, 0, 2, 0, 0);
    for (class, operation, number) in [
        (class::ALU64, alu::DIV, 0),
        (class::ALU, alu::MOD, 0),
        (class::ALU64, alu::LSH, 64),
        (class::ALU, alu::RSH, 32),
        (class::ALU64, alu::ARSH, u64::MAX),
        (class::ALU64, alu::ADD, 1 << 40),
    ] {
        let one = by_register(class, operation);
        assert_eq!(one.by_number(number), None, "{one:?} {number}");
    }
    let wide = by_register(class::ALU64, alu::ADD)
        .by_number(u64::MAX)
        .unwrap();
    assert_eq!((wide.immediate, wide.is_by_register()), (-1, false));
}

#[test]
fn what_no_compiler_makes_is_left_alone() {
    for before in [
        // Out of the function, into the middle of an instruction, and not to an end.
        vec![jump_if(jump::ALWAYS, 0, 0, 7), exit()],
        code(&[&[jump_if(jump::EQ, 1, 0, 1)], &address(2), &[exit()]]),
        vec![jump_if(jump::ALWAYS, 0, 0, -9), exit()],
        // BPF_LD | BPF_ABS; a jump and a call through a register; operations that there are not.
        vec![op(0x20, 0, 0, 0, 0), exit()],
        vec![op(0x0d, 1, 0, 0, 0), exit()],
        vec![op(0x8d, 0, 0, 0, 1), exit()],
        vec![op(0xf5, 0, 0, 0, 0), exit()],
        vec![op(0x86, 0, 0, 0, 0), exit()],
        Vec::new(),
    ] {
        let Folded { code, moved } = folded(&before, &[], &[1]);
        assert_eq!(code, before);
        assert!(moved.iter().enumerate().all(|(at, to)| *to == Some(at)));
    }
}

/// Copies a register.
fn copy(dst: u8, src: u8) -> Instruction {
    op(class::ALU64 | alu::MOV | BY_REGISTER, dst, src, 0, 0)
}

fn add(dst: u8, number: i32) -> Instruction {
    op(class::ALU64 | alu::ADD, dst, 0, 0, number)
}

#[test]
fn an_address_that_is_computed_for_one_load_goes_into_it() {
    let before = [copy(3, 1), add(3, 8), load(0, 3, 4), exit()];
    assert_eq!(folded(&before, &[], &[]).code, [load(0, 1, 12), exit()]);
    // What it is computed from changes in between: by a number, and by more than is known.
    let before = [copy(3, 1), add(1, 4), load(0, 3, 4), load(1, 1, 0), exit()];
    assert_eq!(
        folded(&before, &[], &[]).code,
        [load(0, 1, 4), load(1, 1, 4), exit()]
    );
    // It would lie before the register.
    let before = [copy(3, 1), add(1, 8), load(0, 3, 4), load(1, 1, 0), exit()];
    assert_eq!(
        folded(&before, &[], &[]).code,
        [copy(3, 1), load(0, 3, 4), load(1, 1, 8), exit()]
    );
    let before = [copy(3, 1), load(1, 1, 0), load(0, 3, 4), exit()];
    assert_eq!(folded(&before, &[], &[]).code, before);
    // In the register itself, which is then written anew; or read once more, or may be.
    let before = [add(1, 8), load(1, 1, 4), load(0, 1, 0), exit()];
    assert_eq!(
        folded(&before, &[], &[]).code,
        [load(1, 1, 12), load(0, 1, 0), exit()]
    );
    let before = [add(1, 8), load(0, 1, 4), call(), exit()];
    assert_eq!(folded(&before, &[], &[]).code, before);
    // A fetch leaves in the source what was there.
    let fetch = op(0xdb, 10, 1, -8, 1);
    let before = [copy(3, 1), fetch, load(0, 3, 4), exit()];
    assert_eq!(folded(&before, &[], &[]).code, before);
    // Too far.
    let before = [copy(3, 1), add(3, 32_767), load(0, 3, 1), exit()];
    assert_eq!(folded(&before, &[], &[]).code, before);
}

/// What a program comes to, in an interpreter that shares nothing with what is tested; `None` after too many steps.
fn outcome(
    code: &[Instruction],
    constants: &[u32],
    argument: u64,
) -> Option<(u64, BTreeMap<u64, u8>)> {
    // Where constants are; no value comes to it by itself.
    const BASE: u64 = 1 << 40;
    const STACK: u64 = 1 << 41;
    let constants: Vec<u8> = constants
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    // What lies elsewhere depends on where, until something else is written there.
    let mut written: BTreeMap<u64, u8> = BTreeMap::new();
    let byte = |written: &BTreeMap<u64, u8>, address: u64| {
        let constant = usize::try_from(address.wrapping_sub(BASE)).ok();
        let constant = constant.and_then(|at| constants.get(at));
        let somewhere = (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        *written.get(&address).or(constant).unwrap_or(&somewhere)
    };
    let load = |written: &BTreeMap<u64, u8>, address: u64, offset: i16, size: u64| {
        let start = address.wrapping_add_signed(offset.into());
        (0..size).rev().fold(0, |sum, at| {
            sum << 8 | u64::from(byte(written, start.wrapping_add(at)))
        })
    };
    let store = |written: &mut BTreeMap<u64, u8>, address: u64, offset: i16, value: u64| {
        let start = address.wrapping_add_signed(offset.into());
        for (at, byte) in (0..).zip(value.to_le_bytes()) {
            let address = start.wrapping_add(at);
            // Constants cannot be written.
            if address.wrapping_sub(BASE) >= constants.len() as u64 {
                written.insert(address, byte);
            }
        }
    };
    let mut registers = [0_u64; 11];
    registers[1] = argument;
    registers[10] = STACK;
    let mut at = 0_usize;
    for _ in 0..1_000 {
        let Instruction {
            code: what,
            registers: packed,
            offset,
            immediate,
        } = code[at];
        let (dst, src) = (usize::from(packed & 15), usize::from(packed >> 4));
        at += 1;
        let wide = i64::from(immediate).cast_unsigned();
        let second = if what & 8 == 0 { wide } else { registers[src] };
        let first = registers[dst];
        let (low, second_low) = (first as u32, second as u32);
        let is_taken = match what & 0xf0 {
            0x10 => first == second,
            0x20 => first > second,
            0x40 => first & second != 0,
            0x50 => first != second,
            0x60 => first.cast_signed() > second.cast_signed(),
            0xa0 => first < second,
            0xb0 => first <= second,
            _ => first.cast_signed() < second.cast_signed(),
        };
        let is_taken_low = match what & 0xf0 {
            0x10 => low == second_low,
            0x30 => low >= second_low,
            0x50 => low != second_low,
            _ => low.cast_signed() <= second_low.cast_signed(),
        };
        let mut go = |is_taken: bool| {
            if is_taken {
                at = at.checked_add_signed(offset.into()).unwrap();
            }
        };
        match what {
            0x18 => {
                registers[dst] = BASE;
                at += 1;
            }
            0x61 => registers[dst] = load(&written, registers[src], offset, 4),
            0x69 => registers[dst] = load(&written, registers[src], offset, 2),
            0x71 => registers[dst] = load(&written, registers[src], offset, 1),
            0x79 => registers[dst] = load(&written, registers[src], offset, 8),
            0x7a => store(&mut written, first, offset, wide),
            0x7b => store(&mut written, first, offset, registers[src]),
            // BPF_ATOMIC: fetch and add.
            0xdb => {
                let before = load(&written, first, offset, 8);
                store(
                    &mut written,
                    first,
                    offset,
                    before.wrapping_add(registers[src]),
                );
                registers[src] = before;
            }
            0x07 | 0x0f => registers[dst] = first.wrapping_add(second),
            0x04 | 0x0c => registers[dst] = low.wrapping_add(second_low).into(),
            0x17 | 0x1f => registers[dst] = first.wrapping_sub(second),
            0x27 | 0x2f => registers[dst] = first.wrapping_mul(second),
            0x47 | 0x4f => registers[dst] = first | second,
            0x57 | 0x5f => registers[dst] = first & second,
            0x64 => registers[dst] = (low << second).into(),
            0x67 => registers[dst] = first << second,
            0x74 => registers[dst] = (low >> second).into(),
            0x87 => registers[dst] = first.wrapping_neg(),
            0xa4 | 0xac => registers[dst] = (low ^ second_low).into(),
            0xb7 => registers[dst] = second,
            0xbf if offset == 8 => registers[dst] = i64::from(second as i8).cast_unsigned(),
            0xbf => registers[dst] = second,
            0xb4 | 0xbc => registers[dst] = second_low.into(),
            0xc7 => registers[dst] = (first.cast_signed() >> second).cast_unsigned(),
            // To big endian.
            0xdc => registers[dst] = (first as u16).swap_bytes().into(),
            0x05 => go(true),
            // What a helper takes is read by it, of others all that may be.
            0x85 => {
                let result = match immediate {
                    _ if src != 0 => {
                        (1..6).fold(7, |all: u64, at| all.rotate_left(1) ^ registers[at])
                    }
                    14 => 14,
                    1 => registers[1] ^ registers[2].rotate_left(1),
                    113 => registers[1] ^ registers[2].rotate_left(1) ^ registers[3].rotate_left(2),
                    _ => (1..6).fold(0, |all: u64, at| all.rotate_left(1) ^ registers[at]),
                };
                registers[..6].copy_from_slice(&[result, 1, 2, 3, 4, 5]);
            }
            0x95 => return Some((registers[0], written)),
            _ if what & 7 == 5 => go(is_taken),
            _ if what & 7 == 6 => go(is_taken_low),
            other => panic!("{other:#x}"),
        }
    }
    None
}

/// A part of a program, jumps by how many parts, forwards or (bounded by a counter in r9) backwards.
#[derive(Clone, Debug)]
enum Piece {
    Compute(u8, u8, u8, i32),
    Constant(u8, u8, u8),
    Memory(u8, u8, u8, i32),
    Far(u8, u8, u8, u8, i32),
    Branch(u8, u8, u8, i32, u8),
    Always(u8),
    Again(u8),
    Call(u8),
}

const COMPUTE: [u8; 22] = [
    0x07, 0x0f, 0x04, 0x0c, 0x1f, 0x27, 0x2f, 0x4f, 0x57, 0x5f, 0x64, 0x67, 0x74, 0x87, 0xa4, 0xac,
    0xb7, 0xbf, 0xbc, 0xc7, 0xdc, 0xb4,
];
const LOADS: [u8; 4] = [0x61, 0x69, 0x71, 0x79];
const MEMORY: [u8; 4] = [0x79, 0x7a, 0x7b, 0xdb];
const FAR: [u8; 6] = [0x61, 0x71, 0x79, 0x7a, 0x7b, 0xdb];
const BRANCH: [u8; 16] = [
    0x15, 0x1d, 0x25, 0x2d, 0x45, 0x4d, 0x55, 0x5d, 0x65, 0xa5, 0xbd, 0xcd, 0x16, 0x3e, 0x56, 0xde,
];

fn piece() -> impl Strategy<Value = Piece> {
    let register = 0_u8..9;
    let number = -3..9_i32;
    prop_oneof![
        4 => (0..COMPUTE.len() as u8, register.clone(), register.clone(), number.clone())
            .prop_map(|(what, dst, src, number)| Piece::Compute(what, dst, src, number)),
        4 => (0..LOADS.len() as u8, register.clone(), 0_u8..5)
            .prop_map(|(what, dst, which)| Piece::Constant(what, dst, which)),
        3 => (0..MEMORY.len() as u8, register.clone(), 1_u8..4, number.clone())
            .prop_map(|(what, register, place, number)| Piece::Memory(what, register, place, number)),
        6 => (0..FAR.len() as u8, register.clone(), register.clone(), 0_u8..4, number.clone())
            .prop_map(|(what, one, other, way, by)| Piece::Far(what, one, other, way, by)),
        4 => (0..BRANCH.len() as u8, register.clone(), register, number, 0_u8..5)
            .prop_map(|(what, dst, src, number, by)| Piece::Branch(what, dst, src, number, by)),
        1 => (0_u8..4).prop_map(Piece::Always),
        1 => (1_u8..6).prop_map(Piece::Again),
        2 => (0_u8..8).prop_map(Piece::Call),
    ]
}

/// The code of these pieces, and where its wide loads are.
fn assembled(pieces: &[Piece]) -> (Vec<Instruction>, Vec<usize>) {
    let size = |piece: &Piece| match piece {
        Piece::Constant(..) | Piece::Again(_) => 3,
        Piece::Far(.., way, _) => 1 + usize::from(way & 1) + usize::from(way >> 1),
        _ => 1,
    };
    let first = [0, 2, 3, 4, 5, 6, 7, 8, 9];
    let mut code: Vec<Instruction> = first.map(|register| mov(register, 0)).to_vec();
    let mut starts = vec![code.len()];
    for piece in pieces {
        starts.push(starts.last().unwrap() + size(piece));
    }
    let mut addresses = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let slot = code.len();
        let forwards = |by: u8| {
            let to = starts[(at + 1 + usize::from(by)).min(pieces.len())];
            i16::try_from(to - slot - 1).unwrap()
        };
        match *piece {
            Piece::Compute(what, dst, src, number) => {
                let what = COMPUTE[usize::from(what)];
                let (offset, number) = match what {
                    0x64 | 0x67 | 0x74 | 0xc7 => (0, number.rem_euclid(8)),
                    0xdc => (0, 16),
                    // With sign extension, now and then.
                    0xbf if number > 4 => (8, 0),
                    _ => (0, number),
                };
                code.push(op(what, dst, src, offset, number));
            }
            Piece::Constant(what, dst, which) => {
                addresses.push(slot);
                code.extend(address(dst));
                let offset = i16::from(which) * 4;
                code.push(op(LOADS[usize::from(what)], dst, dst, offset, 0));
            }
            Piece::Memory(what, register, place, number) => {
                let offset = -8 * i16::from(place);
                code.push(match MEMORY[usize::from(what)] {
                    0x79 => op(0x79, register, 10, offset, 0),
                    0x7a => op(0x7a, 10, 0, offset, number),
                    // BPF_ADD | BPF_FETCH
                    0xdb => op(0xdb, 10, register, offset, 1),
                    other => op(other, 10, register, offset, 0),
                });
            }
            Piece::Far(what, one, other, way, by) => {
                // Of a copy of the other register, further on, or both.
                let base = if way & 1 == 0 {
                    other
                } else {
                    (one ^ other) % 9
                };
                if way & 1 != 0 {
                    code.push(op(class::ALU64 | alu::MOV | BY_REGISTER, base, other, 0, 0));
                }
                if way & 2 != 0 {
                    code.push(op(class::ALU64 | alu::ADD, base, 0, 0, by * 8191));
                }
                code.push(match FAR[usize::from(what)] {
                    0x7a => op(0x7a, base, 0, 8, by),
                    0x7b => op(0x7b, base, one, -8, 0),
                    0xdb => op(0xdb, base, one, 0, 1),
                    load => op(load, one, base, 16, 0),
                });
            }
            Piece::Branch(what, dst, src, number, by) => {
                let what = BRANCH[usize::from(what)];
                code.push(op(what, dst, src, forwards(by), number));
            }
            Piece::Always(by) => code.push(jump_if(jump::ALWAYS, 0, 0, forwards(by))),
            Piece::Again(by) => {
                code.push(op(class::ALU64 | alu::ADD, 9, 0, 0, 1));
                code.push(jump_if(jump::GT, 9, 3, 1));
                let to = starts[at.saturating_sub(by.into())];
                let by = i16::try_from(slot + 3 - to).unwrap();
                code.push(jump_if(jump::ALWAYS, 0, 0, -by));
            }
            Piece::Call(which) => code.push(op(
                class::JMP | jump::CALL,
                0,
                which / 4,
                0,
                [7, 14, 1, 113][usize::from(which % 4)],
            )),
        }
    }
    code.push(exit());
    (code, addresses)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(6_000)
    })]

    /// Whatever a program does, it does the same, and each instruction that stays is where it is said to be.
    #[test]
    fn a_folded_program_does_the_same(
        pieces in prop::collection::vec(piece(), 0..24),
        constants in prop::collection::vec(prop_oneof![0_u32..9, any::<u32>()], 6),
        arguments in prop::collection::vec(prop_oneof![0_u64..9, any::<u64>()], 4),
    ) {
        let (code, addresses) = assembled(&pieces);
        let Folded { code: shorter, moved } = folded(&code, &constants, &addresses);
        let kept: Vec<usize> = moved.iter().copied().flatten().collect();
        prop_assert_eq!(kept, (0..shorter.len()).collect::<Vec<_>>());
        for (slot, to) in moved.iter().enumerate() {
            if let Some(to) = *to {
                let is_store = matches!(code[slot].class(), class::ST | class::STX);
                let is_of_same_register = is_store || shorter[to].registers & 15 == code[slot].registers & 15;
                prop_assert!(is_of_same_register || shorter[to].code == 0x05, "{slot} -> {to}");
            }
        }
        for argument in arguments {
            let before = outcome(&code, &constants, argument);
            prop_assert!(before.is_some());
            prop_assert_eq!(before, outcome(&shorter, &constants, argument));
        }
    }
}
