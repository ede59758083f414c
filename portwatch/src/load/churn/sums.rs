//! A network namespace over all CPUs.

use portwatch_ebpf::abi::churn::Place;

pub(super) const NOTHING: Place = Place {
    taken: [0; _],
    given: [0; _],
    failed: [0; _],
    waited: 0,
    ended: 0,
    forgotten: 0,
    odd: 0,
    held: [0; _],
    searched: [0; _],
};

pub(super) fn plus(one: &Place, other: &Place) -> Place {
    fn each<const N: usize>(one: &[u64; N], other: &[u64; N]) -> [u64; N] {
        std::array::from_fn(|at| one[at].wrapping_add(other[at]))
    }
    Place {
        taken: each(&one.taken, &other.taken),
        given: each(&one.given, &other.given),
        failed: each(&one.failed, &other.failed),
        waited: one.waited.wrapping_add(other.waited),
        ended: one.ended.wrapping_add(other.ended),
        forgotten: one.forgotten.wrapping_add(other.forgotten),
        odd: one.odd.wrapping_add(other.odd),
        held: each(&one.held, &other.held),
        searched: each(&one.searched, &other.searched),
    }
}
