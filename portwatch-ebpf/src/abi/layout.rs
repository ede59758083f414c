//! The kernel fields the programs read, declared once: name, where to find it in the kernel's BTF,
//! and what it is for.
//!
//! User space resolves every path against the BTF of the running kernel and hands the results over
//! as one read-only [`Layout`], which the verifier sees as constants. A required field that is
//! missing is an error that names it; an optional one is [`ABSENT`] and what depends on it is
//! reported as missing.

/// Value of a field that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// What a field's number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Offset in bytes of a member of exactly so many bytes.
    Offset(u32),
    /// Offset in bytes of a member of any size (an embedded struct, an array).
    Place,
    /// Offset in *bits*, counted as on a little-endian machine, of a bitfield so many bits wide, or
    /// of one bit of a flag word.
    Bits(u32),
    /// Size of a type in bytes.
    Size,
}

/// One field of the table.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name in [`Layout`].
    pub name: &'static str,
    /// What the number means.
    pub kind: Kind,
    /// Where to look, in order; the first that exists wins. `struct.member.member` descends through
    /// anonymous members; `a.b#ENUMERATOR` is the bit of a flag word
    /// that the enumerator numbers; `struct` alone with [`Kind::Size`] is the size of the type.
    pub paths: &'static [&'static str],
    /// Whether portwatch can work without it.
    pub required: bool,
}

macro_rules! layout {
    ($($(#[$doc:meta])* $name:ident: $kind:expr, $need:ident, [$($path:literal),+];)+) => {
        /// Offsets of kernel fields, see the module's description.
        #[repr(C)]
        #[derive(Clone, Copy)]
        pub struct Layout {
            $($(#[$doc])* pub $name: u32,)+
        }

        /// The table, in the order of [`Layout`]'s members.
        pub const FIELDS: &[Field] = &[
            $(Field {
                name: stringify!($name),
                kind: $kind,
                paths: &[$($path),+],
                required: layout!(@need $need),
            },)+
        ];

        impl Layout {
            /// Nothing known: what the object file carries until the loader fills it in.
            pub const EMPTY: Self = Self { $($name: ABSENT,)+ };
        }
    };
    (@need required) => { true };
    (@need optional) => { false };
}

layout! {
    // include/net/sock.h, struct sock_common
    /// Peer address, IPv4.
    skc_daddr: Kind::Offset(4), required, ["sock_common.skc_daddr"];
    /// Local address, IPv4.
    skc_rcv_saddr: Kind::Offset(4), required, ["sock_common.skc_rcv_saddr"];
    /// Peer port, network byte order.
    skc_dport: Kind::Offset(2), required, ["sock_common.skc_dport"];
    /// Local port, host byte order.
    skc_num: Kind::Offset(2), required, ["sock_common.skc_num"];
    /// Address family.
    skc_family: Kind::Offset(2), required, ["sock_common.skc_family"];
    /// TCP state.
    skc_state: Kind::Offset(1), required, ["sock_common.skc_state"];
    /// SO_REUSEADDR.
    skc_reuse: Kind::Bits(4), required, ["sock_common.skc_reuse"];
    /// SO_REUSEPORT.
    skc_reuseport: Kind::Bits(1), required, ["sock_common.skc_reuseport"];
    /// IPV6_V6ONLY.
    skc_ipv6only: Kind::Bits(1), required, ["sock_common.skc_ipv6only"];
    /// Interface index of SO_BINDTODEVICE.
    skc_bound_dev_if: Kind::Offset(4), required, ["sock_common.skc_bound_dev_if"];
    /// Link in the owners list of a bind bucket.
    skc_bind_node: Kind::Place, required, ["sock_common.skc_bind_node"];
    /// Link in the UDP hash.
    skc_node: Kind::Place, required, ["sock_common.skc_node"];
    /// struct proto.
    skc_prot: Kind::Offset(8), required, ["sock_common.skc_prot"];
    /// Network namespace.
    skc_net: Kind::Place, required, ["sock_common.skc_net"];
    /// Peer address, IPv6. Missing where the kernel has no IPv6.
    skc_v6_daddr: Kind::Place, optional, ["sock_common.skc_v6_daddr"];
    /// Local address, IPv6.
    skc_v6_rcv_saddr: Kind::Place, optional, ["sock_common.skc_v6_rcv_saddr"];
    /// Socket cookie; 0 until somebody asked for it.
    skc_cookie: Kind::Place, required, ["sock_common.skc_cookie"];

    // struct sock
    /// SOCK_STREAM and the like.
    sk_type: Kind::Offset(2), required, ["sock.sk_type"];
    /// IPPROTO_*.
    sk_protocol: Kind::Offset(2), required, ["sock.sk_protocol"];
    /// Owner.
    sk_uid: Kind::Place, required, ["sock.sk_uid"];
    /// Pending error.
    sk_err: Kind::Offset(4), required, ["sock.sk_err"];
    /// The struct socket of the descriptor.
    sk_socket: Kind::Offset(8), required, ["sock.sk_socket"];
    /// Backlog of listen(); a connection that came in has that of its listener (net/core/sock.c,
    /// `sk_clone_lock` copies it).
    sk_max_ack_backlog: Kind::Offset(4), required, ["sock.sk_max_ack_backlog"];
    /// SOCK_BINDADDR_LOCK (4) and SOCK_BINDPORT_LOCK (8): what the caller asked for itself.
    sk_userlocks: Kind::Bits(4), required, ["sock.sk_userlocks"];

    /// What a connection that nobody has open is in, where the kernel keeps no more of it than of one in
    /// TIME_WAIT: that, or FIN_WAIT2 (include/net/inet_timewait_sock.h).
    tw_substate: Kind::Offset(1), optional, ["inet_timewait_sock.tw_substate"];

    /// Its bind bucket.
    tw_bucket: Kind::Offset(8), optional, ["inet_timewait_sock.tw_tb"];

    // include/linux/net.h, struct socket; include/linux/fs.h
    /// SS_UNCONNECTED and the like.
    socket_state: Kind::Place, required, ["socket.state"];
    /// The open file; NULL for sockets of the kernel.
    socket_file: Kind::Offset(8), required, ["socket.file"];
    /// The sock.
    socket_sk: Kind::Offset(8), required, ["socket.sk"];
    /// The inode that is allocated together with a struct socket.
    socket_alloc_inode: Kind::Place, required, ["socket_alloc.vfs_inode"];
    /// Inode number.
    inode_ino: Kind::Offset(8), required, ["inode.i_ino"];
    /// Inode mode.
    inode_mode: Kind::Offset(2), required, ["inode.i_mode"];
    /// Inode of an open file.
    file_inode: Kind::Offset(8), required, ["file.f_inode"];
    /// References to an open file, before 6.13.
    file_count: Kind::Place, optional, ["file.f_count"];
    /// The same less one, since then (include/linux/file_ref.h).
    file_ref: Kind::Place, optional, ["file.f_ref"];
    /// struct socket of an open socket.
    file_private: Kind::Offset(8), required, ["file.private_data"];
    /// Directory entry of an open file.
    file_dentry: Kind::Offset(8), required, ["file.f_path.dentry"];
    /// Mount of an open file.
    file_mnt: Kind::Offset(8), required, ["file.f_path.mnt"];
    /// Parent directory.
    dentry_parent: Kind::Offset(8), required, ["dentry.d_parent"];
    /// Name, a pointer.
    dentry_name: Kind::Offset(8), required, ["dentry.d_name.name"];
    /// Root of a mount.
    vfsmount_root: Kind::Offset(8), required, ["vfsmount.mnt_root"];
    /// The struct vfsmount inside struct mount (fs/mount.h).
    mount_mnt: Kind::Place, required, ["mount.mnt"];
    /// The mount it is mounted on.
    mount_parent: Kind::Offset(8), required, ["mount.mnt_parent"];
    /// The directory it is mounted on.
    mount_mountpoint: Kind::Offset(8), required, ["mount.mnt_mountpoint"];

    // include/net/inet_sock.h, struct inet_sock
    /// Source port; survives where `skc_num` is cleared. Network byte order.
    inet_sport: Kind::Offset(2), required, ["inet_sock.inet_sport"];
    /// IP_FREEBIND: a bitfield, since 6.6 a bit of a flag word.
    inet_freebind: Kind::Bits(1), optional, ["inet_sock.freebind", "inet_sock.inet_flags#INET_FLAGS_FREEBIND"];
    /// IP_TRANSPARENT.
    inet_transparent: Kind::Bits(1), optional, ["inet_sock.transparent", "inet_sock.inet_flags#INET_FLAGS_TRANSPARENT"];
    /// IP_BIND_ADDRESS_NO_PORT.
    inet_bind_no_port: Kind::Bits(1), optional, ["inet_sock.bind_address_no_port", "inet_sock.inet_flags#INET_FLAGS_BIND_ADDRESS_NO_PORT"];

    /// IP_LOCAL_PORT_RANGE, two numbers of 16 bits (6.3).
    inet_port_range: Kind::Offset(4), optional, ["inet_sock.local_port_range"];

    /// Set on the TCP sockets that carry an MPTCP connection (include/linux/tcp.h).
    tcp_is_mptcp: Kind::Bits(1), optional, ["tcp_sock.is_mptcp"];

    /// The TCP socket inside an MPTCP one that bind and listen act on (net/mptcp/protocol.h).
    mptcp_first: Kind::Offset(8), optional, ["mptcp_sock.first"];

    // include/net/net_namespace.h, struct net
    /// Inode of the namespace.
    net_inum: Kind::Offset(4), required, ["net.ns.inum"];
    /// User namespace that the namespace belongs to.
    net_user_ns: Kind::Offset(8), required, ["net.user_ns"];
    /// What a backlog is cut down to.
    net_somaxconn: Kind::Offset(4), optional, ["net.core.sysctl_somaxconn"];
    /// Salt of the port hashes.
    net_hash_mix: Kind::Offset(4), required, ["net.hash_mix"];
    /// Why accept() failed; the argument has a struct since 6.10 (net/socket.c, `proto_accept_arg`).
    accept_arg_err: Kind::Offset(4), optional, ["proto_accept_arg.err"];
    /// TCP hash tables.
    net_hashinfo: Kind::Offset(8), required, ["net.ipv4.tcp_death_row.hashinfo"];
    /// UDP hash table of the namespace, since 6.2.
    net_udp_table: Kind::Offset(8), optional, ["net.ipv4.udp_table"];

    // include/net/inet_hashtables.h
    /// Buckets by local port.
    hashinfo_bhash: Kind::Offset(8), required, ["inet_hashinfo.bhash"];
    /// Number of buckets, a power of two.
    hashinfo_bhash_size: Kind::Offset(4), required, ["inet_hashinfo.bhash_size"];
    /// Size of a bucket head.
    hashbucket_size: Kind::Size, required, ["inet_bind_hashbucket"];
    /// First bucket of the chain.
    hashbucket_chain: Kind::Place, required, ["inet_bind_hashbucket.chain"];
    /// Network namespace of a bucket.
    bucket_net: Kind::Place, required, ["inet_bind_bucket.ib_net"];
    /// Port of a bucket.
    bucket_port: Kind::Offset(2), required, ["inet_bind_bucket.port"];
    /// -1 where connect() took the port, and bind() has not since (net/ipv4/inet_hashtables.c,
    /// `__inet_hash_connect`).
    bucket_fastreuse: Kind::Offset(1), required, ["inet_bind_bucket.fastreuse"];
    /// Next bucket.
    bucket_node: Kind::Place, required, ["inet_bind_bucket.node"];
    /// Sockets on the port, before 6.8 or so.
    bucket_owners: Kind::Place, optional, ["inet_bind_bucket.owners"];
    /// (address, port) buckets on the port, since then.
    bucket_bhash2: Kind::Place, optional, ["inet_bind_bucket.bhash2"];
    /// Link of an (address, port) bucket in its port's list.
    bucket2_bhash_node: Kind::Place, optional, ["inet_bind2_bucket.bhash_node"];
    /// Sockets on the (address, port).
    bucket2_owners: Kind::Place, optional, ["inet_bind2_bucket.owners"];

    // include/net/udp.h
    /// UDP hash table of a protocol, gone in 7.x.
    proto_udp_table: Kind::Offset(8), optional, ["proto.h.udp_table"];
    /// Slots by local port.
    udp_table_hash: Kind::Offset(8), required, ["udp_table.hash"];
    /// Number of slots less one.
    udp_table_mask: Kind::Offset(4), required, ["udp_table.mask"];
    /// Size of a slot.
    udp_hslot_size: Kind::Size, required, ["udp_hslot"];
    /// First socket of a slot.
    udp_hslot_head: Kind::Place, required, ["udp_hslot.head"];

    // include/linux/sched.h, struct task_struct and around
    /// PF_* flags.
    task_flags: Kind::Offset(4), required, ["task_struct.flags"];
    /// Thread id.
    task_pid: Kind::Offset(4), required, ["task_struct.pid"];
    /// Thread group id.
    task_tgid: Kind::Offset(4), required, ["task_struct.tgid"];
    /// Parent, as getppid() sees it.
    task_real_parent: Kind::Offset(8), required, ["task_struct.real_parent"];
    /// Main thread.
    task_group_leader: Kind::Offset(8), required, ["task_struct.group_leader"];
    /// Start, CLOCK_BOOTTIME; `real_start_time` before 5.5.
    task_start_boottime: Kind::Offset(8), required, ["task_struct.start_boottime", "task_struct.real_start_time"];
    /// Task name.
    task_comm: Kind::Place, required, ["task_struct.comm"];
    /// Counts exec calls.
    task_exec_id: Kind::Offset(8), required, ["task_struct.self_exec_id"];
    /// Address space; NULL for kernel threads.
    task_mm: Kind::Offset(8), required, ["task_struct.mm"];
    /// Open files.
    task_files: Kind::Offset(8), required, ["task_struct.files"];
    /// Credentials that count.
    task_cred: Kind::Offset(8), required, ["task_struct.cred"];
    /// Real user id.
    cred_uid: Kind::Place, required, ["cred.uid"];
    /// Effective capabilities, bit by bit.
    cred_cap_effective: Kind::Place, required, ["cred.cap_effective"];
    /// User namespace that they are of.
    cred_user_ns: Kind::Offset(8), required, ["cred.user_ns"];
    /// Depth of a user namespace; the first one has 0.
    user_ns_level: Kind::Offset(4), required, ["user_namespace.level"];
    /// struct pid.
    task_thread_pid: Kind::Offset(8), required, ["task_struct.thread_pid"];
    /// io_uring context; missing where the kernel has no io_uring.
    task_io_uring: Kind::Offset(8), optional, ["task_struct.io_uring"];
    /// Kernel stack.
    task_stack: Kind::Offset(8), required, ["task_struct.stack"];
    /// TS_COMPAT; x86 only.
    task_status: Kind::Offset(4), optional, ["task_struct.thread_info.status"];
    /// Depth of the pid namespace.
    pid_level: Kind::Offset(4), required, ["pid.level"];
    /// Numbers by depth.
    pid_numbers: Kind::Place, required, ["pid.numbers"];
    /// Size of one.
    upid_size: Kind::Size, required, ["upid"];
    /// The number.
    upid_nr: Kind::Offset(4), required, ["upid.nr"];
    /// Start of the argument area.
    mm_arg_start: Kind::Offset(8), required, ["mm_struct.arg_start"];
    /// End of the argument area.
    mm_arg_end: Kind::Offset(8), required, ["mm_struct.arg_end"];
    /// Executable.
    mm_exe_file: Kind::Offset(8), required, ["mm_struct.exe_file"];
    /// File table.
    files_fdt: Kind::Offset(8), required, ["files_struct.fdt"];
    /// Size of the file table.
    fdt_max_fds: Kind::Offset(4), required, ["fdtable.max_fds"];
    /// The files.
    fdt_fd: Kind::Offset(8), required, ["fdtable.fd"];
    /// Registers of a system call.
    pt_regs_size: Kind::Size, required, ["pt_regs"];
    /// System call number (x86-64).
    regs_orig_ax: Kind::Offset(8), optional, ["pt_regs.orig_ax"];
    /// First argument (x86-64).
    regs_di: Kind::Offset(8), optional, ["pt_regs.di"];
    /// Second argument (x86-64).
    regs_si: Kind::Offset(8), optional, ["pt_regs.si"];
    /// Third argument (x86-64).
    regs_dx: Kind::Offset(8), optional, ["pt_regs.dx"];
    /// First argument of a 32-bit call.
    regs_bx: Kind::Offset(8), optional, ["pt_regs.bx"];
    /// Second argument of a 32-bit call.
    regs_cx: Kind::Offset(8), optional, ["pt_regs.cx"];
}

const _: () = assert!(size_of::<Layout>() == FIELDS.len() * 4);
