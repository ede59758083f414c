//! Which registers are read later: what is computed for no one goes.

use super::{
    blocks::Blocks,
    flow::{self, Fate},
    instruction::{Instruction, LOAD_WIDE, Next, alu, class},
};

/// A bit for each register.
type Set = u16;

/// r1 to r5, which calls may read.
const ARGUMENTS: Set = 0b11_1110;

/// Helpers of which the programs make most calls, and how many arguments they take (include/uapi/linux/bpf.h).
const TAKEN: &[(i32, u32)] = &[
    (1, 2),   // bpf_map_lookup_elem
    (5, 0),   // bpf_ktime_get_ns
    (8, 0),   // bpf_get_smp_processor_id
    (14, 0),  // bpf_get_current_pid_tgid
    (15, 0),  // bpf_get_current_uid_gid
    (35, 0),  // bpf_get_current_task
    (80, 0),  // bpf_get_current_cgroup_id
    (113, 3), // bpf_probe_read_kernel
    (125, 0), // bpf_ktime_get_boot_ns
    (131, 3), // bpf_ringbuf_reserve
    (132, 2), // bpf_ringbuf_submit
    (158, 0), // bpf_get_current_task_btf
];
/// The registers that calls leave nothing in.
const CLOBBERED: Set = (1 << flow::CLOBBERED) - 1;
const RESULT: Set = 1;

/// Has instructions go that only compute what nobody reads. `code`: with the fates applied.
pub(super) fn without_dead(code: &[Instruction], blocks: &Blocks, fates: &mut [Fate]) {
    let mut before: Vec<Set> = vec![0; blocks.len()];
    let mut is_settled = false;
    while !is_settled {
        is_settled = true;
        for (block, range) in blocks.iter().enumerate().rev() {
            let mut live = after(code, blocks, &before, block);
            for (slot, instruction) in blocks.instructions(code, range).rev() {
                if fates.get(slot) != Some(&Fate::Goes) {
                    live = live_before(instruction, live);
                }
            }
            if let Some(known) = before.get_mut(block).filter(|known| **known != live) {
                *known = live;
                is_settled = false;
            }
        }
    }
    for (block, range) in blocks.iter().enumerate() {
        let mut live = after(code, blocks, &before, block);
        for (slot, instruction) in blocks.instructions(code, range).rev() {
            if fates.get(slot) == Some(&Fate::Goes) {
                continue;
            }
            if is_for_no_one(instruction, live) {
                for fate in fates.iter_mut().skip(slot).take(instruction.width()) {
                    *fate = Fate::Goes;
                }
            }
            live = live_before(instruction, live);
        }
    }
}

/// What is read after a block.
fn after(code: &[Instruction], blocks: &Blocks, before: &[Set], block: usize) -> Set {
    let ways = blocks.ways(code, block);
    [ways.follows, ways.there]
        .into_iter()
        .flatten()
        .filter_map(|block| before.get(block))
        .fold(0, |all, live| all | live)
}

/// Whether it does nothing but write a register that is not read.
fn is_for_no_one(instruction: Instruction, live: Set) -> bool {
    let is_pure = instruction.is_alu() || instruction.code == LOAD_WIDE;
    is_pure && live & bit(instruction.dst()) == 0
}

/// What is read from an instruction on, by what is after it.
fn live_before(instruction: Instruction, live: Set) -> Set {
    let (dst, src) = (bit(instruction.dst()), bit(instruction.src()));
    let by_register = if instruction.is_by_register() { src } else { 0 };
    match instruction.class() {
        _ if is_for_no_one(instruction, live) => live,
        class::ALU | class::ALU64 => match instruction.operation() {
            alu::MOV => live & !dst | by_register,
            // The bit says something else of END.
            alu::END | alu::NEG => live | dst,
            _ => live | dst | by_register,
        },
        class::LD => live & !dst,
        class::LDX => live & !dst | src,
        class::ST => live | dst,
        // Some atomic ones read r0 too.
        class::STX => live | dst | src | RESULT,
        _ if instruction.is_call() => live & !CLOBBERED | arguments(instruction),
        _ => match instruction.next() {
            Next::Ends => RESULT,
            Next::Branches(_) => live | dst | by_register,
            _ => live,
        },
    }
}

/// What a call reads.
fn arguments(call: Instruction) -> Set {
    let known = TAKEN
        .iter()
        .find(|(helper, _)| call.is_call_of_helper() && call.immediate == *helper);
    known.map_or(ARGUMENTS, |(_, count)| ARGUMENTS & ((2 << count) - 1))
}

const fn bit(register: usize) -> Set {
    1 << (register & 0xf)
}
