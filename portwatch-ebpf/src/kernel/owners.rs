//! The sockets that own a port: a walk over the kernel's bind hash (TCP) or UDP table, at the moment
//! a bind or listen was refused.
//!
//! It runs just after the kernel dropped the bucket's lock, so a socket that closes right then can
//! be missed; every read is checked by the kernel, so it can be wrong but never harmful.

use portwatch_ebpf::abi::{
    layout::ABSENT,
    record::{flags, present, ConflictRecord, HolderRecord, HOLDER_CLASSES, MAX_HOLDERS, SCRATCH},
};

use super::{
    memory::{config, offset, set, Memory, Probed, Ptr},
    sock::{self, state, Kind},
};

/// Buckets of one hash chain that are looked at.
const MAX_CHAIN: u32 = 32;
/// Links followed at most, whatever the configuration says: the verifier walks them all.
const MAX_LINKS: u32 = 256;

/// What is being looked for.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// The socket that was refused: not a holder, though it may be in the list.
    pub(crate) own: Ptr,
    pub(crate) net: Ptr,
    pub(crate) port: u16,
    pub(crate) kind: Kind,
}

/// Fills `record.holders` with the owners that matter most.
#[inline(always)]
pub(crate) fn collect(record: &mut ConflictRecord, wanted: Wanted) {
    for word in &mut record.scratch {
        *word = 0;
    }
    record.socket.holders = 0;
    record.socket.holders_total = 0;
    let complete = if wanted.kind.is_tcp() {
        tcp(record, wanted)
    } else if wanted.kind.is_udp() {
        udp(record, wanted)
    } else {
        Some(true)
    };
    if complete != Some(true) {
        set(&mut record.socket.flags, flags::TRUNCATED);
    }
    pick(record);
    for word in &mut record.scratch {
        *word = 0;
    }
}

/// include/net/inet_hashtables.h `inet_bhashfn`, net/ipv4/inet_hashtables.c. `None`: memory could
/// not be read; `Some(false)`: the walk was cut short.
#[inline(always)]
fn tcp(record: &mut ConflictRecord, wanted: Wanted) -> Option<bool> {
    let hashinfo = Probed::load::<Ptr>(wanted.net, offset!(net_hashinfo))?;
    let table = Probed::load::<Ptr>(hashinfo, offset!(hashinfo_bhash))?;
    let size = Probed::load::<u32>(hashinfo, offset!(hashinfo_bhash_size))?;
    let mix = Probed::load::<u32>(wanted.net, offset!(net_hash_mix))?;
    let slot = u32::from(wanted.port).wrapping_add(mix) & size.wrapping_sub(1);
    let chain = table.wrapping_byte_add(slot as usize * offset!(hashbucket_size) as usize);
    let mut link = Probed::load::<Ptr>(chain, offset!(hashbucket_chain))?;
    for _ in 0..MAX_CHAIN {
        if link.is_null() {
            // No bucket: the holder has closed in the meantime.
            return Some(true);
        }
        let bucket = link.wrapping_byte_sub(offset!(bucket_node) as usize);
        if Probed::load::<u16>(bucket, offset!(bucket_port)) == Some(wanted.port)
            && Probed::load::<Ptr>(bucket, offset!(bucket_net)) == Some(wanted.net)
        {
            return bucket_owners(record, wanted, bucket);
        }
        link = Probed::load(link, 0)?;
    }
    Some(false)
}

/// The sockets of a bucket: one list, or since 6.8 a list of (address, port) buckets of which each
/// has a list. Both as one flat loop, which old verifiers can follow.
#[inline(always)]
fn bucket_owners(record: &mut ConflictRecord, wanted: Wanted, bucket: Ptr) -> Option<bool> {
    let layered = offset!(bucket_bhash2) != ABSENT;
    let mut outer = core::ptr::null();
    let mut link = core::ptr::null();
    if layered {
        outer = Probed::load::<Ptr>(bucket, offset!(bucket_bhash2))?;
    } else {
        link = Probed::load::<Ptr>(bucket, offset!(bucket_owners))?;
    }
    for step in 0..MAX_LINKS {
        if step >= config!(walk_max) {
            return Some(false);
        }
        if link.is_null() {
            if outer.is_null() {
                return Some(true);
            }
            let bucket2 = outer.wrapping_byte_sub(offset!(bucket2_bhash_node) as usize);
            link = Probed::load::<Ptr>(bucket2, offset!(bucket2_owners))?;
            outer = Probed::load::<Ptr>(outer, 0)?;
            continue;
        }
        let sk = link.wrapping_byte_sub(offset!(skc_bind_node) as usize);
        if sk != wanted.own {
            candidate(record, sk)?;
        }
        link = Probed::load(link, 0)?;
    }
    Some(false)
}

/// net/ipv4/udp.c `udp_lib_get_port`: the slot of the port, which other ports share.
#[inline(always)]
fn udp(record: &mut ConflictRecord, wanted: Wanted) -> Option<bool> {
    let table = udp_table(wanted)?;
    let slots = Probed::load::<Ptr>(table, offset!(udp_table_hash))?;
    let mask = Probed::load::<u32>(table, offset!(udp_table_mask))?;
    let mix = Probed::load::<u32>(wanted.net, offset!(net_hash_mix))?;
    let slot = u32::from(wanted.port).wrapping_add(mix) & mask;
    let slot = slots.wrapping_byte_add(slot as usize * offset!(udp_hslot_size) as usize);
    let mut link = Probed::load::<Ptr>(slot, offset!(udp_hslot_head))?;
    for step in 0..MAX_LINKS {
        if step >= config!(walk_max) {
            return Some(false);
        }
        if link.is_null() {
            return Some(true);
        }
        let sk = link.wrapping_byte_sub(offset!(skc_node) as usize);
        if sk != wanted.own
            && sock::port::<Probed>(sk)? == wanted.port
            && sock::net::<Probed>(sk)? == wanted.net
        {
            candidate(record, sk)?;
        }
        link = Probed::load(link, 0)?;
    }
    Some(false)
}

/// The protocol's own table, else the namespace's (7.x has only that).
#[inline(always)]
fn udp_table(wanted: Wanted) -> Option<Ptr> {
    if offset!(proto_udp_table) != ABSENT {
        let proto = Probed::load::<Ptr>(wanted.own, offset!(skc_prot))?;
        let table = Probed::load::<Ptr>(proto, offset!(proto_udp_table))?;
        if !table.is_null() {
            return Some(table);
        }
    }
    if offset!(net_udp_table) == ABSENT {
        return None;
    }
    Probed::load::<Ptr>(wanted.net, offset!(net_udp_table)).filter(|table| !table.is_null())
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
fn candidate(record: &mut ConflictRecord, sk: Ptr) -> Option<()> {
    let state = Probed::load::<u8>(sk, offset!(skc_state))?;
    let class = class(state);
    record.socket.holders_total = record.socket.holders_total.wrapping_add(1);
    let count = record.scratch.get_mut(MAX_HOLDERS * HOLDER_CLASSES + class)?;
    let at = *count as usize;
    if at < MAX_HOLDERS {
        *count += 1;
        *record.scratch.get_mut(class * MAX_HOLDERS + (at & (MAX_HOLDERS - 1)))? = sk as u64;
    }
    Some(())
}

/// Describes the first eight candidates, class by class.
#[inline(always)]
fn pick(record: &mut ConflictRecord) {
    record.socket.holders = 0;
    for at in 0..SCRATCH - HOLDER_CLASSES {
        let Some(&address) = record.scratch.get(at) else {
            break;
        };
        if address == 0 {
            continue;
        }
        // SAFETY: a member of ours; volatile so that the verifier does not follow the count.
        let filled = unsafe { (&raw const record.socket.holders).read_volatile() };
        let Some(holder) = record.holders.get_mut(filled as usize) else {
            break;
        };
        describe(holder, address as Ptr);
        record.socket.holders = filled + 1;
    }
}

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
    if let Some(local) =
        sock::address::<Probed>(sk, family, offset!(skc_rcv_saddr), offset!(skc_v6_rcv_saddr))
    {
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
