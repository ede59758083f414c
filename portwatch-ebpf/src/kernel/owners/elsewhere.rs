//! Which sockets on a port cannot be in the way of the one that wants it. User space judges exactly
//! (`conflict::rules`, which names the kernel's functions); this only has to be right where it says yes.

use portwatch_ebpf::abi::record::{OwnersRecord, flags};

use super::word;
use crate::kernel::{
    memory::{Memory, offset, peek, poke},
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

/// Whether a socket on the port cannot be in the way: it has another device, another address, or no
/// address in common because one side takes only its own family; or the two share the port.
#[inline(always)]
pub(super) fn is_elsewhere<F: Memory>(record: &OwnersRecord, sk: u64, state: u8) -> bool {
    let claim = peek(&record.scratch, word::CLAIM);
    let device = (claim >> claim::DEVICE) as u32;
    if device != 0 {
        let its = F::fetch::<u32>(sk, offset!(skc_bound_dev_if));
        if its != 0 && its != device {
            return true;
        }
    }
    is_apart::<F>(record, sk, claim) || shares::<F>(record, sk, claim, state)
}

/// Whether the addresses have nothing in common (`inet_rcv_saddr_equal`).
#[inline(always)]
fn is_apart<F: Memory>(record: &OwnersRecord, sk: u64, claim: u64) -> bool {
    let is_specific = claim & claim::SPECIFIC != 0;
    let first = peek(&record.scratch, word::ADDRESS[0]);
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
    is_ipv4 || its_first != first || its_second != peek(&record.scratch, word::ADDRESS[1])
}

/// Whether the socket was refused beside one that it shares the port with by SO_REUSEADDR
/// or SO_REUSEPORT. Whom a connection without a file belongs to depends on the kernel.
#[inline(always)]
fn shares<F: Memory>(record: &OwnersRecord, sk: u64, claim: u64, state: u8) -> bool {
    if claim & claim::REUSEADDR != 0
        && state != state::LISTEN
        && sock::common_flags::<F>(sk as _) & flags::REUSEADDR != 0
    {
        return true;
    }
    claim & claim::REUSEPORT != 0
        && (state == state::LISTEN || state == state::CLOSE)
        && F::bit(sk as _, offset!(skc_reuseport)) != 0
        && u64::from(F::fetch::<u32>(sk, offset!(sk_uid))) == peek(&record.scratch, word::UID)
}
