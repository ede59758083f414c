//! The sockets that own a port: a walk over the kernel's bind hash (TCP) or UDP table, at the moment
//! a bind or listen was refused.
//!
//! It runs just after the kernel dropped the bucket's lock, so a socket that closes right then can
//! be missed; every read is checked by the kernel, so it can be wrong but never harmful.

mod elsewhere;
mod holder;
mod search;

use core::marker::PhantomData;

pub(super) use elsewhere::{portwatch_class_of_owner_cast, portwatch_class_of_owner_probed};

use portwatch_ebpf::abi::{
    layout::ABSENT,
    record::{
        HOLDER_CLASSES, Header, MAX_HOLDERS, OwnersRecord, SCRATCH, VERSION, flags, kind, present,
    },
};

use super::{
    generation::{Bounded, Casting, Generation, Looped, NO_ROOM, Step},
    memory::{Memory, Ptr, offset, peek, poke, set, zero},
    sock, task,
};
use crate::{
    emit,
    state::closers::{self, Place},
};

/// Words of the record's scratch, behind the candidates and their counts.
mod word {
    use super::{HOLDER_CLASSES, MAX_HOLDERS};

    /// The socket that was refused: not a holder, though it may be in the list.
    pub(super) const OWN: usize = (MAX_HOLDERS + 1) * HOLDER_CLASSES;
    /// Its network namespace.
    pub(super) const NET: usize = OWN + 1;
    /// The port.
    pub(super) const PORT: usize = OWN + 2;
    /// The address asked for, as it lies in memory, IPv4 in the first half of the first word, v4-mapped ones
    /// too; zeros are the wildcard.
    pub(super) const ADDRESS: [usize; 2] = [OWN + 3, OWN + 4];
    /// What it claims besides, see [`super::elsewhere`].
    pub(super) const CLAIM: usize = OWN + 5;
    /// The link of a list that comes next.
    pub(super) const LINK: usize = OWN + 6;
    /// The link of the list of lists that comes next.
    pub(super) const OUTER: usize = OWN + 7;
    /// The bucket that was found.
    pub(super) const BUCKET: usize = OWN + 8;
    /// The owner of the socket that was refused.
    pub(super) const UID: usize = OWN + 9;
    /// Where in a sock its link of the list is.
    pub(super) const NODE: usize = OWN + 10;
}

const _: () = assert!(word::NODE < SCRATCH);

/// What is asked: the port in the lower half word, and these bits.
pub(crate) mod asked {
    /// Of TCP; else of UDP.
    pub(crate) const TCP: u64 = 1 << 16;
    /// The port was refused; else the sock has it.
    pub(crate) const REFUSED: u64 = 1 << 17;
}

/// Sends the owners of the port that matter most, ahead of the event they explain.
///
/// Global functions: the verifier looks at them once a program, not once for every way to get here.
/// Their arguments are plain numbers: a sock, see [`asked`], and the words of the address.
#[unsafe(no_mangle)]
pub(super) extern "C" fn portwatch_send_owners_bounded(
    own: u64,
    asked: u64,
    first: u64,
    second: u64,
) -> i32 {
    send::<Bounded<NO_ROOM>>(own, asked, [first, second]);
    0
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn portwatch_send_owners_looped(
    own: u64,
    asked: u64,
    first: u64,
    second: u64,
) -> i32 {
    send::<Looped<NO_ROOM>>(own, asked, [first, second]);
    0
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn portwatch_send_owners_casting(
    own: u64,
    asked: u64,
    first: u64,
    second: u64,
) -> i32 {
    send::<Casting<NO_ROOM>>(own, asked, [first, second]);
    0
}

#[inline(always)]
fn send<G: Generation>(own: u64, asked: u64, address: [u64; 2]) {
    let Some(mut entry) = emit::EVENTS.reserve::<OwnersRecord>(0) else {
        // The event itself will tell that they are missing.
        return;
    };
    // SAFETY: the entry is ours and as large as the record; all of it is plain integers.
    let record = unsafe { &mut *entry.as_mut_ptr() };
    record.header = Header {
        version: VERSION,
        kind: kind::OWNERS,
        len: size_of::<OwnersRecord>() as u32,
    };
    record.tid = task::ids().tid;
    record.total = 0;
    record.count = 0;
    record.flags = 0;
    // SAFETY: words.
    unsafe { zero(&raw mut record.scratch) };
    poke(&mut record.scratch, word::OWN, own);
    let net = G::Far::fetch::<u64>(own, offset!(skc_net));
    poke(&mut record.scratch, word::NET, net);
    let port = u64::from(asked as u16);
    poke(&mut record.scratch, word::PORT, port);
    elsewhere::claim::<G::Far>(record, own, address, asked & asked::REFUSED != 0);
    if asked & asked::TCP != 0 {
        start_tcp::<G>(record);
    } else {
        start_udp::<G>(record);
    }
    G::repeat::<Owners<G>>(record);
    truncated_unless_at_end(record);
    last::<G::Far>(record, net, port);
    let count = |class| peek(&record.scratch, MAX_HOLDERS * HOLDER_CLASSES + class);
    let near: u64 = count(0) + count(1) + count(2) + count(3);
    if near <= MAX_HOLDERS as u64 {
        set(&mut record.flags, flags::REST_APART);
    }
    G::repeat::<Pick>(record);
    G::repeat::<Describe<G::Far>>(record);
    search::search::<G>(record);
    // SAFETY: words.
    unsafe { zero(&raw mut record.scratch) };
    entry.submit(0);
}

/// Who had the port last, without a peer.
#[inline(always)]
fn last<F: Memory>(record: &mut OwnersRecord, net: u64, port: u64) {
    let own = peek(&record.scratch, word::OWN) as Ptr;
    let place = Place {
        netns: F::fetch(net, offset!(net_inum)),
        port: port as u16,
        peer_port: 0,
        addresses: 0,
        transport: sock::protocol::<F>(own),
    };
    let last = &mut record.last;
    // SAFETY: words.
    unsafe { zero(&raw mut *last) };
    let (noted, addresses) = closers::copy(place, &mut last.closed, &mut last.task);
    last.addresses = addresses;
    if noted != 0 {
        set(&mut last.present, noted | present::CLOSER);
    }
}

/// The place of a struct, given that of a member.
#[inline(always)]
pub(super) fn container(member: u64, offset: u32) -> u64 {
    member.wrapping_sub(u64::from(offset))
}

/// Goes on to the next link of the list that is walked.
#[inline(always)]
fn advance<F: Memory>(record: &mut OwnersRecord, link: u64) {
    poke(&mut record.scratch, word::LINK, F::fetch::<u64>(link, 0));
}

/// The search for the bucket of a port in its hash chain.
struct Chain<F>(PhantomData<F>);

impl<F: Memory> Step for Chain<F> {
    type Record = OwnersRecord;
    const BOUND: u32 = 24;
    const LIMIT: u32 = 4096;

    #[inline(always)]
    fn step(record: &mut OwnersRecord, _round: u32) -> bool {
        let link = peek(&record.scratch, word::LINK);
        if link == 0 {
            return false;
        }
        let bucket = container(link, offset!(bucket_node));
        let port = F::fetch::<u16>(bucket, offset!(bucket_port));
        if u64::from(port) == peek(&record.scratch, word::PORT)
            && F::fetch::<u64>(bucket, offset!(bucket_net)) == peek(&record.scratch, word::NET)
        {
            poke(&mut record.scratch, word::BUCKET, bucket);
            return false;
        }
        advance::<F>(record, link);
        true
    }
}

/// The first link of the chain that a port's bucket is in (include/net/inet_hashtables.h, `inet_bhashfn`).
#[inline(always)]
pub(super) fn tcp_chain<F: Memory>(net: u64, port: u32) -> u64 {
    let hashinfo = F::fetch::<u64>(net, offset!(net_hashinfo));
    let size = F::fetch::<u32>(hashinfo, offset!(hashinfo_bhash_size));
    let slot =
        port.wrapping_add(F::fetch::<u32>(net, offset!(net_hash_mix))) & size.wrapping_sub(1);
    let head = F::fetch::<u64>(hashinfo, offset!(hashinfo_bhash))
        .wrapping_add(u64::from(slot) * u64::from(offset!(hashbucket_size)));
    F::fetch(head, offset!(hashbucket_chain))
}

/// Where that over the owners of a TCP port begins (net/ipv4/inet_hashtables.c). Without a bucket the holder has
/// closed in the meantime.
#[inline(always)]
fn start_tcp<G: Generation>(record: &mut OwnersRecord) {
    let net = peek(&record.scratch, word::NET);
    let port = peek(&record.scratch, word::PORT) as u32;
    let first = tcp_chain::<G::Far>(net, port);
    poke(&mut record.scratch, word::LINK, first);
    G::repeat::<Chain<G::Far>>(record);
    let bucket = peek(&record.scratch, word::BUCKET);
    if bucket == 0 {
        // A search that was left in the middle has a link, which is of no socket.
        truncated_unless_at_end(record);
        poke(&mut record.scratch, word::LINK, 0);
        return;
    }
    if G::Far::fetch::<u8>(bucket, offset!(bucket_fastreuse)) == u8::MAX {
        set(&mut record.flags, flags::CONNECT_ONLY);
    }
    // One list, or since 6.8 a list of (address, port) buckets of which each has a list.
    let (outer, link) = if offset!(bucket_bhash2) != ABSENT {
        (G::Far::fetch::<u64>(bucket, offset!(bucket_bhash2)), 0)
    } else {
        (0, G::Far::fetch::<u64>(bucket, offset!(bucket_owners)))
    };
    poke(&mut record.scratch, word::OUTER, outer);
    poke(&mut record.scratch, word::LINK, link);
    poke(
        &mut record.scratch,
        word::NODE,
        u64::from(offset!(skc_bind_node)),
    );
}

/// Notes that a walk has left links.
#[inline(always)]
fn truncated_unless_at_end(record: &mut OwnersRecord) {
    if peek(&record.scratch, word::LINK) | peek(&record.scratch, word::OUTER) != 0 {
        set(&mut record.flags, flags::TRUNCATED);
    }
}

/// The walk over the sockets of a bucket, or of a slot of the UDP table, flat: old verifiers do not follow
/// nested loops well. One for both, since old verifiers walk through each of its rounds.
struct Owners<G>(PhantomData<G>);

impl<G: Generation> Step for Owners<G> {
    type Record = OwnersRecord;
    const BOUND: u32 = 64;
    const LIMIT: u32 = 1 << 16;

    #[inline(always)]
    fn step(record: &mut OwnersRecord, _round: u32) -> bool {
        let link = peek(&record.scratch, word::LINK);
        if link == 0 {
            let outer = peek(&record.scratch, word::OUTER);
            if outer == 0 {
                return false;
            }
            let bucket2 = container(outer, offset!(bucket2_bhash_node));
            let first = G::Far::fetch::<u64>(bucket2, offset!(bucket2_owners));
            poke(&mut record.scratch, word::LINK, first);
            poke(
                &mut record.scratch,
                word::OUTER,
                G::Far::fetch::<u64>(outer, 0),
            );
            return true;
        }
        let sk = link.wrapping_sub(peek(&record.scratch, word::NODE));
        // All that a bucket has is on its port; a slot of the UDP table has others too.
        let is_there = peek(&record.scratch, word::BUCKET) != 0
            || u64::from(G::Far::fetch::<u16>(sk, offset!(skc_num)))
                == peek(&record.scratch, word::PORT)
                && G::Far::fetch::<u64>(sk, offset!(skc_net)) == peek(&record.scratch, word::NET);
        if is_there && sk != peek(&record.scratch, word::OWN) {
            candidate::<G>(record, sk);
        }
        advance::<G::Far>(record, link);
        true
    }
}

/// The first link of the slot that a port's sockets are in, which other ports share (net/ipv4/udp.c,
/// `udp_lib_get_port`).
#[inline(always)]
pub(super) fn udp_chain<F: Memory>(table: u64, net: u64, port: u32) -> u64 {
    let slot = port.wrapping_add(F::fetch::<u32>(net, offset!(net_hash_mix)))
        & F::fetch::<u32>(table, offset!(udp_table_mask));
    let head = F::fetch::<u64>(table, offset!(udp_table_hash))
        .wrapping_add(u64::from(slot) * u64::from(offset!(udp_hslot_size)));
    F::fetch(head, offset!(udp_hslot_head))
}

/// Where the walk over the owners of a UDP port begins.
#[inline(always)]
fn start_udp<G: Generation>(record: &mut OwnersRecord) {
    let net = peek(&record.scratch, word::NET);
    let table = udp_table::<G::Far>(peek(&record.scratch, word::OWN), net);
    let port = peek(&record.scratch, word::PORT) as u32;
    let first = udp_chain::<G::Far>(table, net, port);
    poke(&mut record.scratch, word::LINK, first);
    poke(
        &mut record.scratch,
        word::NODE,
        u64::from(offset!(skc_node)),
    );
}

/// The protocol's own table, else the namespace's (7.x has only that).
#[inline(always)]
pub(super) fn udp_table<F: Memory>(own: u64, net: u64) -> u64 {
    if offset!(proto_udp_table) != ABSENT {
        let table = F::fetch::<u64>(
            F::fetch::<u64>(own, offset!(skc_prot)),
            offset!(proto_udp_table),
        );
        if table != 0 {
            return table;
        }
    }
    if offset!(net_udp_table) == ABSENT {
        return 0;
    }
    F::fetch::<u64>(net, offset!(net_udp_table))
}

/// Notes an owner, up to eight of each class, and counts all. The counts lie in the record: the verifier need
/// not follow them.
#[inline(always)]
fn candidate<G: Generation>(record: &mut OwnersRecord, sk: u64) {
    let class = elsewhere::class_of::<G>(record, sk);
    if class >= HOLDER_CLASSES {
        return;
    }
    record.total = record.total.wrapping_add(1);
    let Some(count) = record.scratch.get_mut(MAX_HOLDERS * HOLDER_CLASSES + class) else {
        return;
    };
    let at = *count as usize;
    *count += 1;
    if at < MAX_HOLDERS
        && let Some(slot) = record
            .scratch
            .get_mut(class * MAX_HOLDERS + (at & (MAX_HOLDERS - 1)))
    {
        *slot = sk;
    }
}

/// The choice of the first eight candidates, class by class: moved to the front of the scratch.
struct Pick;

impl Step for Pick {
    type Record = OwnersRecord;
    const BOUND: u32 = (MAX_HOLDERS * HOLDER_CLASSES) as u32;
    const LIMIT: u32 = Self::BOUND;

    #[inline(always)]
    fn step(record: &mut OwnersRecord, round: u32) -> bool {
        if round >= Self::LIMIT {
            return false;
        }
        let Some(&address) = record.scratch.get(round as usize) else {
            return false;
        };
        if address == 0 {
            return true;
        }
        let filled = count(record);
        if filled >= MAX_HOLDERS {
            return false;
        }
        let Some(slot) = record.scratch.get_mut(filled) else {
            return false;
        };
        *slot = address;
        record.count = filled as u32 + 1;
        true
    }
}

/// How many holders there are, as something the verifier does not follow.
#[inline(always)]
fn count(record: &OwnersRecord) -> usize {
    // SAFETY: a member of ours.
    (unsafe { (&raw const record.count).read_volatile() }) as usize
}

/// The description of the chosen ones.
struct Describe<F>(PhantomData<F>);

impl<F: Memory> Step for Describe<F> {
    type Record = OwnersRecord;
    const BOUND: u32 = MAX_HOLDERS as u32;
    const LIMIT: u32 = Self::BOUND;

    #[inline(always)]
    fn step(record: &mut OwnersRecord, round: u32) -> bool {
        let at = round as usize;
        if at >= MAX_HOLDERS || at >= count(record) {
            return false;
        }
        let (Some(holder), Some(&address)) = (record.holders.get_mut(at), record.scratch.get(at))
        else {
            return false;
        };
        holder::describe::<F>(holder, address as Ptr);
        search::open::<F>(record, at);
        true
    }
}
