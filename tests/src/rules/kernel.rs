//! What differs between kernels without being a rule of sharing: each entry is one change of the
//! kernel, and the version it came with.

use anyhow::{Context as _, Result};

use crate::sys::proc;

/// The running kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel {
    /// Before 6.8 a port that all its sockets took with SO_REUSEPORT, for one user, lets in any other
    /// such one: also where it clashes with a connection that belongs to somebody else
    /// (FASTREUSEPORT_ANY in `sk_reuseport_match`). From then on it looks at addresses first.
    pub(super) any_of_group: bool,
    /// 6.1's stable series has "tcp: Use bhash2 for v4-mapped-v6 non-wildcard address" (5e07e672412b,
    /// 6.1.168) without "tcp: Save address type in inet_bind2_bucket": there a TCP socket with a
    /// specific v4-mapped address does not see those at IPv4's wildcard if the first of them is at
    /// ::ffff:0.0.0.0, not 0.0.0.0 (`inet_bind2_bucket_match_addr_any`).
    pub(super) mapped_wildcard_unseen: bool,
    /// 6.17 gave sockets an owner of their own (`sk_uid`). Until then it was that of the file
    /// (`sock_i_uid`), and one without a file, not accepted yet or closed already, was root's.
    pub(super) owner_without_file: bool,
    /// 6.18 makes a port whose last owners all got it from connect() forget its past
    /// (`inet_bind_bucket_destroy`).
    pub(super) forgets: bool,
}

impl Kernel {
    /// Of this machine.
    pub(super) fn running() -> Result<Self> {
        let release = proc::kernel_release()?;
        let version = proc::version_of(&release)
            .with_context(|| format!("cannot make sense of kernel release {release:?}"))?;
        Ok(Self {
            any_of_group: version < (6, 8),
            mapped_wildcard_unseen: version == (6, 1),
            owner_without_file: version >= (6, 17),
            forgets: version >= (6, 18),
        })
    }
}
