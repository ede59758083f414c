//! What a holder of a port is.

use portwatch_ebpf::abi::record::{HolderRecord, flags, present};

use crate::{
    kernel::{
        memory::{Memory, Ptr, offset, set, zero},
        sock::{self, Handle, IPPROTO_TCP, state},
    },
    state::{closers, takers},
};

/// A function of its own: inlined, the compiler carries an uninitialised register through the loop.
/// It returns a number because the verifier looks at what is left in the register for one.
#[inline(never)]
pub(super) fn describe<F: Memory>(holder: &mut HolderRecord, sk: Ptr) -> u32 {
    // SAFETY: a record of the ABI: plain integers, a multiple of eight bytes.
    unsafe { zero(&raw mut *holder) };
    let family = F::load::<u16>(sk, offset!(skc_family));
    let state = F::load::<u8>(sk, offset!(skc_state));
    holder.family = family;
    holder.state = state;
    holder.local_port = sock::port::<F>(sk);
    holder.device = F::load(sk, offset!(skc_bound_dev_if));
    set(&mut holder.flags, sock::common_flags::<F>(sk));
    set(
        &mut holder.present,
        present::SOCKET | present::LOCAL_PORT | present::SOCKET_FLAGS | present::DEVICE,
    );
    let (v4, v6) = (offset!(skc_rcv_saddr), offset!(skc_v6_rcv_saddr));
    if sock::address::<F>(&raw mut holder.local_address, sk, family, v4, v6) {
        set(&mut holder.present, present::LOCAL_ADDRESS);
    }
    let (v4, v6) = (offset!(skc_daddr), offset!(skc_v6_daddr));
    let peer_port = F::load::<u16>(sk, offset!(skc_dport));
    if peer_port != 0 && sock::address::<F>(&raw mut holder.peer_address, sk, family, v4, v6) {
        holder.peer_port = u16::from_be(peer_port);
        set(&mut holder.present, present::PEER);
    }
    holder.cookie = sock::existing_cookie::<F>(sk);
    if holder.cookie != 0 {
        set(&mut holder.present, present::COOKIE);
    }
    // TIME_WAIT and embryonic sockets are smaller structs: nothing lies behind sock_common.
    if state == state::TIME_WAIT || state == state::NEW_SYN_RECV {
        let place = sock::place::<F>(sk, holder.local_port, IPPROTO_TCP);
        let noted = closers::copy(place, &mut holder.noted, &mut holder.task);
        if noted != 0 {
            set(&mut holder.present, noted | present::CLOSER);
        }
        return 0;
    }
    holder.protocol = F::load(sk, offset!(sk_protocol));
    holder.socket_uid = F::load(sk, offset!(sk_uid));
    set(&mut holder.present, present::SOCKET_UID);
    if sock::chose_port::<F>(sk) {
        set(&mut holder.flags, flags::CHOSE_PORT);
    }
    if state != state::CLOSE
        && state != state::LISTEN
        && F::load::<u32>(sk, offset!(sk_max_ack_backlog)) != 0
    {
        set(&mut holder.flags, flags::ACCEPTED);
    }
    let handle = Handle::of::<F>(sk);
    if handle.sk != sk {
        set(&mut holder.flags, flags::MPTCP);
    }
    if !handle.has_socket() {
        return 0;
    }
    holder.inode = handle.inode::<F, F>();
    set(&mut holder.present, present::INODE);
    if handle.is_of_kernel() {
        // One that carries an MPTCP connection is the program's, though it has no file of its own.
        if sock::inside_mptcp::<F>(sk) != 0 {
            set(&mut holder.flags, flags::MPTCP);
        } else {
            set(&mut holder.flags, flags::OF_KERNEL);
        }
        return 0;
    }
    if let Some(references) = sock::references::<F>(handle.file()) {
        holder.references = references;
        set(&mut holder.present, present::REFERENCES);
    }
    // Who accepts a connection is not noted; what is found there is of an earlier socket.
    if holder.flags & flags::ACCEPTED == 0 {
        let noted = takers::copy(holder.inode, &mut holder.noted, &mut holder.task);
        if noted != 0 {
            set(&mut holder.present, noted | present::TAKER);
        }
    }
    0
}
