//! The sockets that own a port: a walk over the kernel's bind hash (TCP) or UDP table, at the moment
//! a bind or listen was refused.
//!
//! It runs just after the kernel dropped the bucket's lock, so a socket that closes right then can
//! be missed; every read is checked by the kernel, so it can be wrong but never harmful.

use portwatch_ebpf::abi::{
    layout::ABSENT,
    record::{
        HOLDER_CLASSES, Header, HolderRecord, MAX_HOLDERS, OwnersRecord, VERSION, flags, kind,
        present,
    },
};

use super::{
    memory::{Memory, Probed, Ptr, offset, set},
    repeat::{Bounded, Looped, Repeat, Step},
    sock::{self, state},
    task,
};
use crate::emit;

/// What is being looked for.
#[derive(Clone, Copy)]
struct Wanted {
    /// The socket that was refused: not a holder, though it may be in the list.
    own: Ptr,
    net: Ptr,
    port: u16,
}

/// Sends the owners of the port that matter most, ahead of the event they explain.
///
/// Global functions: the verifier looks at them once a program, not once for every way to get here.
/// Their arguments are plain numbers.
#[unsafe(no_mangle)]
pub(super) extern "C" fn portwatch_send_owners(own: u64, net: u64, port: u64, tcp: u64) -> i32 {
    send::<Looped>(
        Wanted {
            own: own as Ptr,
            net: net as Ptr,
            port: port as u16,
        },
        tcp != 0,
    );
    0
}

/// The same without bpf_loop().
#[unsafe(no_mangle)]
pub(super) extern "C" fn portwatch_send_owners_bounded(
    own: u64,
    net: u64,
    port: u64,
    tcp: u64,
) -> i32 {
    send::<Bounded>(
        Wanted {
            own: own as Ptr,
            net: net as Ptr,
            port: port as u16,
        },
        tcp != 0,
    );
    0
}

#[inline(always)]
fn send<R: Repeat>(wanted: Wanted, tcp: bool) {
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
    for word in &mut record.scratch {
        *word = 0;
    }
    let complete = if tcp {
        collect_tcp::<R>(record, wanted)
    } else {
        collect_udp::<R>(record, wanted)
    };
    if !complete {
        set(&mut record.flags, flags::TRUNCATED);
    }
    R::repeat(&mut Pick {
        record: &raw mut *record,
    });
    for word in &mut record.scratch {
        *word = 0;
    }
    entry.submit(0);
}

/// Reads a pointer, or 0: the end of every list.
#[inline(always)]
fn follow(from: Ptr, offset: u32) -> Ptr {
    Probed::load::<Ptr>(from, offset).unwrap_or(core::ptr::null())
}

#[inline(always)]
fn number(from: Ptr, offset: u32) -> u32 {
    Probed::load::<u32>(from, offset).unwrap_or(0)
}

/// The search for the bucket of a port in its hash chain.
struct Chain {
    link: Ptr,
    net: Ptr,
    port: u64,
    bucket: Ptr,
}

impl Step for Chain {
    const BOUND: u32 = 24;
    const LIMIT: u32 = 4096;

    #[inline(always)]
    fn step(&mut self, _round: u32) -> bool {
        let link = self.link;
        if link.is_null() {
            return false;
        }
        let bucket = link.wrapping_byte_sub(offset!(bucket_node) as usize);
        if Probed::load::<u16>(bucket, offset!(bucket_port)) == Some(self.port as u16)
            && follow(bucket, offset!(bucket_net)) == self.net
        {
            self.bucket = bucket;
            return false;
        }
        self.link = follow(link, 0);
        true
    }
}

/// include/net/inet_hashtables.h `inet_bhashfn`, net/ipv4/inet_hashtables.c. False: the walk was cut
/// short. No bucket: the holder has closed in the meantime.
#[inline(always)]
fn collect_tcp<R: Repeat>(record: &mut OwnersRecord, wanted: Wanted) -> bool {
    let hashinfo = follow(wanted.net, offset!(net_hashinfo));
    let size = number(hashinfo, offset!(hashinfo_bhash_size));
    let slot = u32::from(wanted.port).wrapping_add(number(wanted.net, offset!(net_hash_mix)))
        & size.wrapping_sub(1);
    let head = follow(hashinfo, offset!(hashinfo_bhash))
        .wrapping_byte_add(slot as usize * offset!(hashbucket_size) as usize);
    let mut chain = Chain {
        link: follow(head, offset!(hashbucket_chain)),
        net: wanted.net,
        port: u64::from(wanted.port),
        bucket: core::ptr::null(),
    };
    R::repeat(&mut chain);
    if chain.bucket.is_null() {
        return chain.link.is_null();
    }
    // One list, or since 6.8 a list of (address, port) buckets of which each has a list.
    let layered = offset!(bucket_bhash2) != ABSENT;
    let (outer, link) = if layered {
        (
            follow(chain.bucket, offset!(bucket_bhash2)),
            core::ptr::null(),
        )
    } else {
        (
            core::ptr::null(),
            follow(chain.bucket, offset!(bucket_owners)),
        )
    };
    let mut owners = Owners {
        record: &raw mut *record,
        own: wanted.own,
        outer,
        link,
    };
    R::repeat(&mut owners);
    owners.link.is_null() && owners.outer.is_null()
}

/// The walk over the sockets of a bucket, flat: old verifiers do not follow nested loops well.
struct Owners {
    record: *mut OwnersRecord,
    own: Ptr,
    outer: Ptr,
    link: Ptr,
}

impl Step for Owners {
    const BOUND: u32 = 64;
    const LIMIT: u32 = 1 << 16;

    #[inline(always)]
    fn step(&mut self, _round: u32) -> bool {
        let link = self.link;
        if link.is_null() {
            let outer = self.outer;
            if outer.is_null() {
                return false;
            }
            let bucket2 = outer.wrapping_byte_sub(offset!(bucket2_bhash_node) as usize);
            self.link = follow(bucket2, offset!(bucket2_owners));
            self.outer = follow(outer, 0);
            return true;
        }
        let sk = link.wrapping_byte_sub(offset!(skc_bind_node) as usize);
        if sk != self.own {
            // SAFETY: the record outlives the walk.
            candidate(unsafe { &mut *self.record }, sk);
        }
        self.link = follow(link, 0);
        true
    }
}

/// net/ipv4/udp.c `udp_lib_get_port`: the slot of the port, which other ports share.
#[inline(always)]
fn collect_udp<R: Repeat>(record: &mut OwnersRecord, wanted: Wanted) -> bool {
    let table = udp_table(wanted);
    if table.is_null() {
        return false;
    }
    let slot = u32::from(wanted.port).wrapping_add(number(wanted.net, offset!(net_hash_mix)))
        & number(table, offset!(udp_table_mask));
    let head = follow(table, offset!(udp_table_hash))
        .wrapping_byte_add(slot as usize * offset!(udp_hslot_size) as usize);
    let mut walk = Slot {
        record: &raw mut *record,
        own: wanted.own,
        net: wanted.net,
        port: u64::from(wanted.port),
        link: follow(head, offset!(udp_hslot_head)),
    };
    R::repeat(&mut walk);
    walk.link.is_null()
}

/// The walk over a slot of the UDP table.
struct Slot {
    record: *mut OwnersRecord,
    own: Ptr,
    net: Ptr,
    port: u64,
    link: Ptr,
}

impl Step for Slot {
    const BOUND: u32 = 64;
    const LIMIT: u32 = 1 << 16;

    #[inline(always)]
    fn step(&mut self, _round: u32) -> bool {
        let link = self.link;
        if link.is_null() {
            return false;
        }
        let sk = link.wrapping_byte_sub(offset!(skc_node) as usize);
        if sk != self.own
            && sock::port::<Probed>(sk) == Some(self.port as u16)
            && follow(sk, offset!(skc_net)) == self.net
        {
            // SAFETY: the record outlives the walk.
            candidate(unsafe { &mut *self.record }, sk);
        }
        self.link = follow(link, 0);
        true
    }
}

/// The protocol's own table, else the namespace's (7.x has only that).
#[inline(always)]
fn udp_table(wanted: Wanted) -> Ptr {
    if offset!(proto_udp_table) != ABSENT {
        let table = follow(
            follow(wanted.own, offset!(skc_prot)),
            offset!(proto_udp_table),
        );
        if !table.is_null() {
            return table;
        }
    }
    if offset!(net_udp_table) == ABSENT {
        return core::ptr::null();
    }
    follow(wanted.net, offset!(net_udp_table))
}

/// Classes in the order they are told: what listens, what is bound, what talks, the rest.
fn class(state: u8) -> usize {
    match state {
        state::LISTEN => 0,
        state::CLOSE => 1,
        state::ESTABLISHED | state::SYN_SENT => 2,
        _ => 3,
    }
}

/// Notes an owner, up to eight of each class. The counts lie in the record: the verifier need not
/// follow them.
#[inline(always)]
fn candidate(record: &mut OwnersRecord, sk: Ptr) {
    let class = class(Probed::load::<u8>(sk, offset!(skc_state)).unwrap_or(0));
    record.total = record.total.wrapping_add(1);
    let Some(count) = record.scratch.get_mut(MAX_HOLDERS * HOLDER_CLASSES + class) else {
        return;
    };
    let at = *count as usize;
    if at < MAX_HOLDERS {
        *count += 1;
        if let Some(slot) = record
            .scratch
            .get_mut(class * MAX_HOLDERS + (at & (MAX_HOLDERS - 1)))
        {
            *slot = sk as u64;
        }
    }
}

/// The choice of the first eight candidates, class by class.
struct Pick {
    record: *mut OwnersRecord,
}

impl Step for Pick {
    const BOUND: u32 = (MAX_HOLDERS * HOLDER_CLASSES) as u32;
    const LIMIT: u32 = Self::BOUND;

    #[inline(always)]
    fn step(&mut self, round: u32) -> bool {
        // SAFETY: the record outlives the choice.
        let record = unsafe { &mut *self.record };
        let Some(&address) = record.scratch.get(round as usize & 31) else {
            return false;
        };
        if address == 0 {
            return true;
        }
        // SAFETY: a member of ours; volatile so that the verifier does not follow the count.
        let filled = unsafe { (&raw const record.count).read_volatile() };
        let Some(holder) = record.holders.get_mut(filled as usize) else {
            return false;
        };
        describe(holder, address as Ptr);
        record.count = filled + 1;
        true
    }
}

const _: () = assert!(MAX_HOLDERS * HOLDER_CLASSES == 32);

#[inline(never)]
fn describe(holder: &mut HolderRecord, sk: Ptr) {
    *holder = HolderRecord {
        cookie: 0,
        inode: 0,
        present: 0,
        flags: 0,
        socket_uid: 0,
        device: 0,
        local_address: [0; 16],
        peer_address: [0; 16],
        local_port: 0,
        peer_port: 0,
        family: 0,
        protocol: 0,
        state: 0,
        reserved: [0; 7],
    };
    let (Some(family), Some(state), Some(port)) = (
        Probed::load::<u16>(sk, offset!(skc_family)),
        Probed::load::<u8>(sk, offset!(skc_state)),
        sock::port::<Probed>(sk),
    ) else {
        return;
    };
    holder.family = family;
    holder.state = state;
    holder.local_port = port;
    set(&mut holder.present, present::SOCKET | present::LOCAL_PORT);
    if let Some(local) = sock::address::<Probed>(
        sk,
        family,
        offset!(skc_rcv_saddr),
        offset!(skc_v6_rcv_saddr),
    ) {
        holder.local_address = local;
        set(&mut holder.present, present::LOCAL_ADDRESS);
    }
    if let (Some(peer), Some(port)) = (
        sock::address::<Probed>(sk, family, offset!(skc_daddr), offset!(skc_v6_daddr)),
        Probed::load::<u16>(sk, offset!(skc_dport)),
    ) && port != 0
    {
        holder.peer_address = peer;
        holder.peer_port = u16::from_be(port);
        set(&mut holder.present, present::PEER);
    }
    if let Some(bits) = sock::common_flags::<Probed>(sk) {
        set(&mut holder.flags, bits);
        set(&mut holder.present, present::SOCKET_FLAGS);
    }
    if let Some(device) = Probed::load::<u32>(sk, offset!(skc_bound_dev_if)) {
        holder.device = device;
        set(&mut holder.present, present::DEVICE);
    }
    if let Some(cookie) = sock::existing_cookie::<Probed>(sk)
        && cookie != 0
    {
        holder.cookie = cookie;
        set(&mut holder.present, present::COOKIE);
    }
    // TIME_WAIT and embryonic sockets are smaller structs: nothing lies behind sock_common.
    if state == state::TIME_WAIT || state == state::NEW_SYN_RECV {
        return;
    }
    if let Some(protocol) = Probed::load::<u16>(sk, offset!(sk_protocol)) {
        holder.protocol = protocol;
    }
    if let Some(uid) = Probed::load::<u32>(sk, offset!(sk_uid)) {
        holder.socket_uid = uid;
        set(&mut holder.present, present::SOCKET_UID);
    }
    let held = sock::held::<Probed>(sk);
    if held != sk {
        set(&mut holder.flags, flags::MPTCP);
    }
    if let Some(inode) = sock::inode::<Probed>(sk)
        && inode != 0
    {
        holder.inode = inode;
        set(&mut holder.present, present::INODE);
    }
}
