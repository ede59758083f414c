//! What a socket is, as it stands.

use portwatch_ebpf::abi::{
    layout::ABSENT,
    record::{FoundRecord, flags, present},
};

use super::{
    memory::{Memory, Ptr, offset, set},
    sock::{self, Handle, IPPROTO_TCP, state},
};

/// Fills in the record, which is zeroed. Whether somebody may have got a port for the socket by itself,
/// as 1 or 0: not for connections that came in, nor for what no program holds.
#[inline(always)]
pub(super) fn describe<F: Memory>(found: &mut FoundRecord, sk: Ptr) -> u32 {
    let family = F::load::<u16>(sk, offset!(skc_family));
    let state = F::load::<u8>(sk, offset!(skc_state));
    found.family = family;
    found.state = state;
    found.local_port = sock::port::<F>(sk);
    found.device = F::load(sk, offset!(skc_bound_dev_if));
    set(&mut found.flags, sock::common_flags::<F>(sk));
    set(
        &mut found.present,
        present::SOCKET | present::LOCAL_PORT | present::SOCKET_FLAGS | present::DEVICE,
    );
    let (v4, v6) = (offset!(skc_rcv_saddr), offset!(skc_v6_rcv_saddr));
    if sock::address::<F>(&raw mut found.local_address, sk, family, v4, v6) {
        set(&mut found.present, present::LOCAL_ADDRESS);
    }
    let (v4, v6) = (offset!(skc_daddr), offset!(skc_v6_daddr));
    let peer_port = F::load::<u16>(sk, offset!(skc_dport));
    if peer_port != 0 && sock::address::<F>(&raw mut found.peer_address, sk, family, v4, v6) {
        found.peer_port = u16::from_be(peer_port);
        set(&mut found.present, present::PEER);
    }
    found.cookie = sock::existing_cookie::<F>(sk);
    if found.cookie != 0 {
        set(&mut found.present, present::COOKIE);
    }
    if state == state::TIME_WAIT
        && offset!(tw_substate) != ABSENT
        && F::load::<u8>(sk, offset!(tw_substate)) == state::FIN_WAIT2
    {
        set(&mut found.flags, flags::FIN_WAIT2);
    }
    // TIME_WAIT and embryonic sockets are smaller structs: nothing lies behind sock_common.
    if state == state::TIME_WAIT || state == state::NEW_SYN_RECV {
        return 0;
    }
    found.protocol = F::load(sk, offset!(sk_protocol));
    found.socket_uid = F::load(sk, offset!(sk_uid));
    set(&mut found.present, present::SOCKET_UID);
    if sock::chose_port::<F>(sk) {
        set(&mut found.flags, flags::CHOSE_PORT);
    }
    if state != state::CLOSE
        && state != state::LISTEN
        && F::load::<u32>(sk, offset!(sk_max_ack_backlog)) != 0
    {
        set(&mut found.flags, flags::ACCEPTED);
    }
    let handle = Handle::of::<F>(sk);
    if handle.sk != sk {
        set(&mut found.flags, flags::MPTCP);
    }
    if !handle.has_socket() {
        return 0;
    }
    found.inode = handle.inode::<F, F>();
    set(&mut found.present, present::INODE);
    let has_file = !handle.is_of_kernel();
    if !has_file && !handle.is_released() {
        // One that carries an MPTCP connection is the program's, though it has no file of its own. Only a
        // TCP socket has that mark: a UDP one ends before it, and what lies there is somebody else's.
        let is_tcp = found.protocol == u16::from(IPPROTO_TCP);
        if is_tcp && sock::inside_mptcp::<F>(sk) != 0 {
            set(&mut found.flags, flags::MPTCP);
        } else {
            set(&mut found.flags, flags::OF_KERNEL);
        }
        return 0;
    }
    let references = if has_file {
        sock::references::<F>(handle.file())
    } else {
        Some(0)
    };
    if let Some(references) = references {
        found.references = references;
        set(&mut found.present, present::REFERENCES);
    }
    u32::from(found.flags & flags::ACCEPTED == 0)
}
