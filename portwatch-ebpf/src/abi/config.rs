//! What the programs are told at load: which events, which filters, which helpers this kernel has.

/// Bits of [`Config::filters`]: kinds that are filtered. The values lie in the maps.
pub mod filter {
    /// `PIDS`
    pub const PID: u32 = 1 << 0;
    /// `UIDS`
    pub const UID: u32 = 1 << 1;
    /// `NETNS`
    pub const NETNS: u32 = 1 << 2;
    /// `PORTS`, local
    pub const PORT: u32 = 1 << 3;
    /// `PORTS`, peer
    pub const PEER_PORT: u32 = 1 << 4;
    /// `CGROUPS`
    pub const CGROUP: u32 = 1 << 5;
    /// `DESCENDANTS`
    pub const DESCENDANTS: u32 = 1 << 6;
}

/// Bits of [`Config::helpers`]: helpers newer than 5.10 that this kernel has.
pub mod helper {
    /// bpf_get_current_task_btf (5.11)
    pub const TASK_BTF: u32 = 1 << 0;
    /// bpf_get_socket_cookie in tracing programs (5.12)
    pub const SOCKET_COOKIE: u32 = 1 << 1;
    /// bpf_get_current_ancestor_cgroup_id in tracing programs
    pub const ANCESTOR_CGROUP: u32 = 1 << 2;
    /// bpf_task_pt_regs (5.15)
    pub const TASK_PT_REGS: u32 = 1 << 3;
}

/// Number of the helper whose calls in the object stand for calls of the kernel's function
/// `bpf_rdonly_cast()`: user space puts its BTF id there. No kernel has so many helpers.
pub const RDONLY_CAST: u32 = 0x0043_4153;

/// Bits of [`Config::details`]: what is collected beside what every output shows.
pub mod detail {
    /// The caller's user id.
    pub const USER: u32 = 1 << 0;
    /// The caller's cgroup.
    pub const CGROUP: u32 = 1 << 1;
    /// The rest: the caller's parent, who asked; inode, cookie, owner, device and options of
    /// the socket.
    pub const REST: u32 = 1 << 2;
    /// All of it.
    pub const ALL: u32 = USER | CGROUP | REST;
}

/// Bits of [`Config::protocols`].
pub mod protocol {
    /// TCP, MPTCP
    pub const TCP: u32 = 1 << 0;
    /// UDP, UDP-Lite
    pub const UDP: u32 = 1 << 1;
    /// SCTP, DCCP
    pub const OTHER: u32 = 1 << 2;
}

/// Bits of [`Config::families`].
pub mod family {
    /// AF_INET
    pub const V4: u32 = 1 << 0;
    /// AF_INET6
    pub const V6: u32 = 1 << 1;
}

macro_rules! config {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Read-only data of the programs. Who loads them puts it in as constants and leaves out the branches that
        /// are not taken; what stays of it the verifier sees as constants.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Config {
            $($(#[$doc])* pub $name: u32,)+
        }

        impl Config {
            /// Nothing selected: what the object file carries until the loader fills it in.
            pub const EMPTY: Self = Self { $($name: 0,)+ };

            /// The members in order, as the loader hands them over.
            #[must_use]
            pub fn words(&self) -> [u32; size_of::<Self>() / 4] {
                let Self { $($name),+ } = *self;
                [$($name),+]
            }
        }
    };
}

config! {
    /// Bit `1 << op` for each [`super::record::op`] wanted.
    ops,
    /// Bits of [`protocol`] wanted.
    protocols,
    /// Bits of [`family`] wanted.
    families,
    /// Bits of [`filter`].
    filters,
    /// The process id that is wanted where it is only one; else 0.
    only_pid,
    /// The network namespace that is wanted, by its inode, where it is only one; else 0.
    only_netns,
    /// 1: failures only.
    failed_only,
    /// Bits of [`helper`].
    helpers,
    /// BTF id of a struct that begins with a word, by which any word of the kernel may be loaded
    /// through bpf_rdonly_cast(); 0 where the kernel does not have that.
    word_type,
    /// 1: the bind hooks are functions that take a `struct socket` (before 6.6 or so), not a sock.
    bind_takes_socket,
    /// 1: so does the listen hook.
    listen_takes_socket,
    /// 1: only the return of the system call connect() is seen, not that of other ways to connect.
    connect_returns_by_syscall,
    /// 1: connect() of an MPTCP socket passes __inet_stream_connect itself (mptcp_connect, 6.1 or so),
    /// not only the TCP socket inside.
    mptcp_connects,
    /// Bits of [`detail`].
    details,
    /// Rows of the map `ROWS`.
    rows,
    /// Elements of the map `HOLD_SLOTS`.
    hold_buckets,
    /// 1: diagnostics through aya-log.
    diagnostics,
}

/// Slots of the map `CGROUPS`.
pub const MAX_CGROUPS: u32 = 8;
