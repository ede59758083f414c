//! Which sockets on a port matter most to the one that wants it, and which cannot be in its way. User space
//! judges exactly (`conflict::rules`, which names the kernel's functions); this only has to be right where it
//! says yes.

use portwatch_ebpf::abi::record::{HOLDER_CLASSES, OwnersRecord, flags};

use super::word;
use crate::kernel::{
    generation::Generation,
    memory::{Cast, Memory, Probed, offset, peek, poke, unknown},
    request::{AF_INET, AF_INET6},
    sock::{self, state},
};

/// What the socket that wants the port claims: bits of [`word::CLAIM`], below its device.
mod claim {
    /// SO_REUSEADDR
    pub(super) const REUSEADDR: u64 = 1 << 0;
    /// SO_REUSEPORT
    pub(super) const REUSEPORT: u64 = 1 << 1;
    /// IPV6_V6ONLY
    pub(super) const V6ONLY: u64 = 1 << 2;
    /// An IPv4 address, in whatever form.
    pub(super) const IPV4: u64 = 1 << 3;
    /// An address that is not the wildcard.
    pub(super) const SPECIFIC: u64 = 1 << 4;
    /// Where the index of the device begins, 0 of none.
    pub(super) const DEVICE: u32 = 32;
}

// The options of a socket are taken over as they are.
const _: () = assert!(
    claim::REUSEADDR == flags::REUSEADDR as u64
        && claim::REUSEPORT == flags::REUSEPORT as u64
        && claim::V6ONLY == flags::V6ONLY as u64
);

/// Notes what the socket claims. `address`: its two words in memory, IPv4 in the first half of the first.
/// `refused`: else it has the port, and those it shares that with are who is asked for.
#[inline(always)]
pub(super) fn claim<F: Memory>(
    record: &mut OwnersRecord,
    own: u64,
    address: [u64; 2],
    refused: bool,
) {
    let family = F::fetch::<u16>(own, offset!(skc_family));
    let [mut first, mut second] = address;
    let mut claim = u64::from(sock::common_flags::<F>(own as _));
    if !refused {
        claim &= !(claim::REUSEADDR | claim::REUSEPORT);
    }
    if family != AF_INET6 {
        claim |= claim::IPV4;
        first &= u64::from(u32::MAX);
        second = 0;
    } else if is_mapped(first, second) {
        claim |= claim::IPV4;
        first = second >> 32;
        second = 0;
    }
    if first | second != 0 {
        claim |= claim::SPECIFIC;
    }
    let device = F::fetch::<u32>(own, offset!(skc_bound_dev_if));
    let uid = F::fetch::<u32>(own, offset!(sk_uid));
    for (at, value) in [
        (word::ADDRESS[0], first),
        (word::ADDRESS[1], second),
        (word::CLAIM, claim | u64::from(device) << claim::DEVICE),
        (word::UID, u64::from(uid)),
    ] {
        poke(&mut record.scratch, at, value);
    }
}

/// ::ffff:0:0/96, by the two words in memory.
#[inline(always)]
fn is_mapped(first: u64, second: u64) -> bool {
    first == 0 && second as u32 == 0xffff_u32.to_be()
}

/// The class of a socket on the port, of [`HOLDER_CLASSES`].
#[inline(always)]
pub(super) fn class_of<G: Generation>(record: &OwnersRecord, sk: u64) -> usize {
    let word = |at| peek(&record.scratch, at);
    let [first, second] = word::ADDRESS.map(word);
    let class = G::class_of_owner(sk, word(word::CLAIM), first, second, word(word::UID));
    // The compiler knows what comes back; the verifier does not, and has to see the check.
    unknown(u64::from(class as u32)) as usize
}

/// Classes in the order they are told: what listens, what is bound, what talks, the rest.
fn class_of_state(state: u8) -> usize {
    match state {
        state::LISTEN => 0,
        state::CLOSE => 1,
        state::ESTABLISHED | state::SYN_SENT => 2,
        _ => 3,
    }
}

/// What is on the port and cannot be in the way comes last of all: a server with an address for each of
/// its customers would take the place of the one that is.
const ELSEWHERE: usize = HOLDER_CLASSES - 1;

const _: () = assert!(ELSEWHERE == 4);

/// The class of a socket on the port, beside one that claims this. Global functions: the verifier looks at
/// them once, not in every round of the walk.
#[unsafe(no_mangle)]
#[inline(never)]
pub(in crate::kernel) extern "C" fn portwatch_class_of_owner_probed(
    sk: u64,
    claim: u64,
    first: u64,
    second: u64,
    uid: u64,
) -> i32 {
    class::<Probed>(
        sk,
        &Wish {
            claim,
            address: [first, second],
            uid,
        },
    ) as i32
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(in crate::kernel) extern "C" fn portwatch_class_of_owner_cast(
    sk: u64,
    claim: u64,
    first: u64,
    second: u64,
    uid: u64,
) -> i32 {
    class::<Cast>(
        sk,
        &Wish {
            claim,
            address: [first, second],
            uid,
        },
    ) as i32
}

/// What the socket wants that was refused, see [`word`].
struct Wish {
    claim: u64,
    address: [u64; 2],
    uid: u64,
}

#[inline(always)]
fn class<F: Memory>(sk: u64, wish: &Wish) -> usize {
    let state = F::fetch::<u8>(sk, offset!(skc_state));
    if is_elsewhere::<F>(sk, wish, state) {
        ELSEWHERE
    } else {
        class_of_state(state)
    }
}

/// Whether a socket on the port cannot be in the way: it has another device, another address, or no
/// address in common because one side takes only its own family; or the two share the port.
#[inline(always)]
fn is_elsewhere<F: Memory>(sk: u64, wish: &Wish, state: u8) -> bool {
    let device = (wish.claim >> claim::DEVICE) as u32;
    if device != 0 {
        let its = F::fetch::<u32>(sk, offset!(skc_bound_dev_if));
        if its != 0 && its != device {
            return true;
        }
    }
    is_apart::<F>(sk, wish) || shares::<F>(sk, wish, state)
}

/// Whether the addresses have nothing in common (`inet_rcv_saddr_equal`).
#[inline(always)]
fn is_apart<F: Memory>(sk: u64, wish: &Wish) -> bool {
    let (claim, [first, second]) = (wish.claim, wish.address);
    let is_specific = claim & claim::SPECIFIC != 0;
    if F::fetch::<u16>(sk, offset!(skc_family)) == AF_INET {
        if claim & claim::IPV4 == 0 {
            return claim & (claim::SPECIFIC | claim::V6ONLY) != 0;
        }
        let address = u64::from(F::fetch::<u32>(sk, offset!(skc_rcv_saddr)));
        return is_specific && address != 0 && address != first;
    }
    let is_ipv4 = claim & claim::IPV4 != 0;
    if is_ipv4 && F::bit(sk as _, offset!(skc_ipv6only)) != 0 {
        return true;
    }
    // Where there is an IPv6 socket the kernel has the field.
    let at = offset!(skc_v6_rcv_saddr);
    if !is_specific {
        return false;
    }
    let (its_first, its_second) = (F::fetch::<u64>(sk, at), F::fetch::<u64>(sk, at + 8));
    if its_first | its_second == 0 {
        return false;
    }
    if is_ipv4 && is_mapped(its_first, its_second) {
        let address = its_second >> 32;
        return address != 0 && address != first;
    }
    is_ipv4 || its_first != first || its_second != second
}

/// Whether the socket was refused beside one that it shares the port with by SO_REUSEADDR
/// or SO_REUSEPORT. Whom a connection without a file belongs to depends on the kernel.
#[inline(always)]
fn shares<F: Memory>(sk: u64, wish: &Wish, state: u8) -> bool {
    let claim = wish.claim;
    if claim & claim::REUSEADDR != 0
        && state != state::LISTEN
        && sock::common_flags::<F>(sk as _) & flags::REUSEADDR != 0
    {
        return true;
    }
    claim & claim::REUSEPORT != 0
        && (state == state::LISTEN || state == state::CLOSE)
        && F::bit(sk as _, offset!(skc_reuseport)) != 0
        && u64::from(F::fetch::<u32>(sk, offset!(sk_uid))) == wish.uid
}
