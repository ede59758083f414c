//! Whether a port has a socket: a walk over the kernel's bind hash (TCP) or UDP table, right after one has
//! left it.

use core::marker::PhantomData;

use super::{
    generation::{Generation, Step},
    memory::{Memory, offset, peek, poke},
    owners::{container, tcp_chain, udp_chain, udp_table},
};
use crate::state::held::Leaving;

/// [`Leaving::words`].
mod word {
    /// The link of the list that comes next.
    pub(super) const LINK: usize = 0;
    /// The network namespace.
    pub(super) const NET: usize = 1;
    /// Something on the port was met.
    pub(super) const MET: usize = 2;
    /// The UDP table.
    pub(super) const TABLE: usize = 3;
}

/// What is found on a port.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Free,
    Occupied,
    /// The list is longer than this kernel lets programs walk.
    Unknown,
}

/// Remembers of a socket what the walk needs when it is gone.
#[inline(always)]
pub(crate) fn prepare<F: Memory>(leaving: &mut Leaving, sk: u64, is_tcp: bool) {
    let net = F::fetch::<u64>(sk, offset!(skc_net));
    poke(&mut leaving.words, word::LINK, 0);
    poke(&mut leaving.words, word::NET, net);
    poke(&mut leaving.words, word::MET, 0);
    let table = if is_tcp { 0 } else { udp_table::<F>(sk, net) };
    poke(&mut leaving.words, word::TABLE, table);
}

/// Looks at the port. The kernel frees a bucket with the last socket in it (net/ipv4/inet_hashtables.c,
/// `inet_bind_bucket_destroy`), so that what is there for TCP is in use.
#[inline(always)]
pub(crate) fn look<G: Generation>(leaving: &mut Leaving) -> Port {
    let net = peek(&leaving.words, word::NET);
    let table = peek(&leaving.words, word::TABLE);
    let port = u32::from(leaving.record.local_port);
    let first = if table == 0 {
        tcp_chain::<G::Far>(net, port)
    } else {
        udp_chain::<G::Far>(table, net, port)
    };
    poke(&mut leaving.words, word::LINK, first);
    if table == 0 {
        G::repeat::<Buckets<G::Far>>(leaving);
    } else {
        G::repeat::<Sockets<G::Far>>(leaving);
    }
    if peek(&leaving.words, word::MET) != 0 {
        Port::Occupied
    } else if peek(&leaving.words, word::LINK) != 0 {
        Port::Unknown
    } else {
        Port::Free
    }
}

/// Goes on, unless this is on the port.
#[inline(always)]
fn pass<F: Memory>(leaving: &mut Leaving, link: u64, port: u16, net: u64) -> bool {
    if port == leaving.record.local_port && net == peek(&leaving.words, word::NET) {
        poke(&mut leaving.words, word::MET, 1);
        return false;
    }
    poke(&mut leaving.words, word::LINK, F::fetch::<u64>(link, 0));
    true
}

/// The walk over the buckets of a hash chain.
struct Buckets<F>(PhantomData<F>);

impl<F: Memory> Step for Buckets<F> {
    type Record = Leaving;
    const BOUND: u32 = 64;
    const LIMIT: u32 = 4096;

    #[inline(always)]
    fn step(leaving: &mut Leaving, _round: u32) -> bool {
        let link = peek(&leaving.words, word::LINK);
        if link == 0 {
            return false;
        }
        let bucket = container(link, offset!(bucket_node));
        let port = F::fetch::<u16>(bucket, offset!(bucket_port));
        let net = F::fetch::<u64>(bucket, offset!(bucket_net));
        pass::<F>(leaving, link, port, net)
    }
}

/// The walk over the sockets of a slot of the UDP table.
struct Sockets<F>(PhantomData<F>);

impl<F: Memory> Step for Sockets<F> {
    type Record = Leaving;
    const BOUND: u32 = 128;
    const LIMIT: u32 = 1 << 16;

    #[inline(always)]
    fn step(leaving: &mut Leaving, _round: u32) -> bool {
        let link = peek(&leaving.words, word::LINK);
        if link == 0 {
            return false;
        }
        let sk = container(link, offset!(skc_node));
        let port = F::fetch::<u16>(sk, offset!(skc_num));
        let net = F::fetch::<u64>(sk, offset!(skc_net));
        pass::<F>(leaving, link, port, net)
    }
}
