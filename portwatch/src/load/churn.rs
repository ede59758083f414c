//! The programs of `churn`, and the tables they count in.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    num::NonZeroUsize,
    os::fd::AsFd as _,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray},
    programs::Iter,
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use portwatch_ebpf::abi::churn::{Counts, Hold, Key, PLACES, Place, Row, TAILS, state};

use super::{
    LoadError, NOT_OF_ITERATOR, attach_program, detach_program, failed, find, load_program, map,
    planned, read,
};
use crate::{
    facts::Gathered,
    plan::{Attachment, Plan},
};

/// How much the tables hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Tuples and processes that are told apart.
    pub tuples: u32,
    /// Ports that are remembered while they are held.
    pub holds: u32,
}

/// Nothing goes through the ring: as small as a ring can be on any machine.
const RING: u32 = 64 << 10;

/// Loaded programs and their tables. Dropping it detaches them.
pub struct Counting {
    ebpf: Ebpf,
    rows: Rows,
    tuple_rows: HashMap<MapData, [u8; size_of::<Key>()], u32>,
    place_slots: HashMap<MapData, u32, u32>,
    place_claims: Array<MapData, u64>,
    place_counts: PerCpuArray<MapData, [u8; size_of::<Place>()]>,
    holds: HashMap<MapData, u64, [u8; size_of::<Hold>()]>,
    look: Array<MapData, u32>,
    descendants: HashMap<MapData, u32, u8>,
    ids: BTreeMap<&'static str, u32>,
}

/// Loads the programs of a plan; nothing is attached yet. `iterators`: those that [`Counting::look`] may use.
///
/// # Errors
/// When the kernel refuses a map or a program, named.
pub fn load(
    gathered: &Gathered,
    plan: &Plan,
    iterators: &[Attachment],
    sizes: Sizes,
) -> Result<Counting, LoadError> {
    let Gathered { facts, ids } = gathered;
    let btf = super::ids::types(plan.attachments.iter().copied(), ids)?;
    let programs = plan.programs().chain(iterators.iter().copied());
    let object = planned(facts, programs, plan.config.diagnostics)?;
    let rows = sizes.tuples + TAILS;
    let mut config = plan.config;
    config.rows = rows;
    // What follows calls from entry to return, and a command, is in use here too.
    let unneeded: Vec<&str> = NOT_OF_ITERATOR
        .iter()
        .copied()
        .filter(|name| !["CALLS", "DESCENDANTS", "INFLIGHT", "STARTED"].contains(name))
        .collect();
    let mut ebpf = read(
        &object,
        facts,
        &config,
        RING,
        &unneeded,
        &[
            ("ROWS", rows),
            ("TUPLE_ROWS", sizes.tuples),
            ("HOLDS", sizes.holds),
        ],
    )?;
    for attachment in &plan.attachments {
        load_program(&mut ebpf, *attachment, &btf)?;
    }
    Ok(Counting {
        rows: Rows::map(&mut ebpf, rows)?,
        tuple_rows: map(&mut ebpf, "TUPLE_ROWS")?,
        place_slots: map(&mut ebpf, "PLACE_SLOTS")?,
        place_claims: map(&mut ebpf, "PLACE_CLAIMS")?,
        place_counts: map(&mut ebpf, "PLACE_COUNTS")?,
        holds: map(&mut ebpf, "HOLDS")?,
        look: map(&mut ebpf, "LOOK")?,
        descendants: map(&mut ebpf, "DESCENDANTS")?,
        ids: ids.clone(),
        ebpf,
    })
}

impl Counting {
    /// Attaches the loaded programs in the order of the plan.
    ///
    /// # Errors
    /// When the kernel refuses one, named.
    pub fn attach(&mut self, plan: &Plan) -> Result<(), LoadError> {
        for attachment in &plan.attachments {
            attach_program(&mut self.ebpf, *attachment)?;
        }
        Ok(())
    }

    /// Detaches them: from now on nothing is counted.
    pub fn detach(&mut self, plan: &Plan) {
        for attachment in plan.attachments.iter().rev() {
            if let Some(program) = find(&mut self.ebpf, attachment.program, attachment.generation) {
                // One that is not attached has nothing to detach.
                let _ = detach_program(program);
            }
        }
    }

    /// Makes the programs follow a process and its descendants.
    ///
    /// # Errors
    /// When the kernel refuses the entry.
    pub fn follow(&mut self, pid: u32) -> Result<(), LoadError> {
        self.descendants
            .insert(pid, 1, 0)
            .map_err(|source| failed("DESCENDANTS", source))
    }

    /// Instructions the verifier looked at, by program; those that are attached.
    #[must_use]
    pub fn verified(&self, plan: &Plan) -> Vec<(&'static str, u32)> {
        super::verified(&self.ebpf, plan.programs())
    }

    /// Times the kernel skipped a program, because it was running already on that CPU. 0 where it does
    /// not count them (before 5.12).
    #[must_use]
    pub fn skipped(&self) -> u64 {
        super::skipped(&self.ebpf)
    }

    /// Whether the kernel lets the tables be read.
    #[must_use]
    pub fn are_readable(&self) -> bool {
        self.look.get(&0, 0).is_ok()
    }

    /// The file of an iterator; [`run`] of a copy of it in a network namespace runs it there.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn iterator(&mut self, iterator: Attachment) -> Result<Link, LoadError> {
        let types = super::ids::types([iterator], &self.ids)?;
        load_program(&mut self.ebpf, iterator, &types)?;
        let mut link = None;
        super::with_program(&mut self.ebpf, iterator, "attach", |program, _| {
            let program: &mut Iter = program.try_into()?;
            link = Some(link_iterator(program)?);
            Ok(())
        })?;
        link.ok_or(LoadError::Lacks(iterator.program))
    }

    /// Begins a look at all sockets: what is seen or taken from now on has its number.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn begin_look(&mut self, number: u32) -> Result<(), LoadError> {
        self.look
            .set(0, number, 0)
            .map_err(|source| failed("LOOK", source))
    }

    /// Forgets what a look has not seen, as given back; how many that was.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn end_look(&mut self, number: u32) -> Result<u64, LoadError> {
        let gone: Vec<(u64, Hold)> = self
            .holds
            .iter()
            .filter_map(Result::ok)
            .map(|(sk, bytes)| (sk, plain::<Hold>(&bytes)))
            .filter(|(_, hold)| hold.look != number)
            .collect();
        let mut count = 0;
        for (sk, hold) in gone {
            // It may have been given back meanwhile, which the programs have counted.
            if self.holds.remove(&sk).is_err() {
                continue;
            }
            count += 1;
            self.rows.gone(hold);
        }
        Ok(count)
    }

    /// The rows.
    #[must_use]
    pub const fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Gives up a row: from now on its tuple gets another one. What is counted there still comes from
    /// programs that have found it before, or from ports that are held.
    pub fn abandon(&mut self, key: &Key) {
        let mut bytes = [0; size_of::<Key>()];
        // SAFETY: as many bytes as the key has, all of them plain integers without padding.
        unsafe {
            std::ptr::copy_nonoverlapping(
                std::ptr::from_ref(key).cast(),
                bytes.as_mut_ptr(),
                bytes.len(),
            );
        }
        // Not there: it was abandoned before.
        let _ = self.tuple_rows.remove(&bytes);
    }

    /// What happened in each network namespace, over all CPUs; 0 is all that there was no room for.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn places(&self) -> Result<Vec<(u32, Place)>, LoadError> {
        let slots = self.place_slots.iter().filter_map(Result::ok);
        [(0, 0)]
            .into_iter()
            .chain(slots)
            .map(|(netns, slot)| {
                let counts = self
                    .place_counts
                    .get(&(slot % PLACES), 0)
                    .map_err(|source| failed("PLACE_COUNTS", source))?;
                let all = counts.iter().map(|bytes| plain::<Place>(bytes));
                Ok((netns, all.fold(NOTHING, |sum, one| plus(&sum, &one))))
            })
            .collect()
    }

    /// Gives the slot of a network namespace that is gone to others, whose counters begin there.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn forget_place(&mut self, netns: u32) -> Result<(), LoadError> {
        let Ok(slot) = self.place_slots.get(&netns, 0) else {
            return Ok(());
        };
        self.place_slots
            .remove(&netns)
            .map_err(|source| failed("PLACE_SLOTS", source))?;
        let cpus = aya::util::nr_cpus().unwrap_or(1);
        let zeros = vec![[0; size_of::<Place>()]; cpus];
        let zeros = aya::maps::PerCpuValues::try_from(zeros)
            .map_err(|error| failed("PLACE_COUNTS", MapError::IoError(error)))?;
        self.place_counts
            .set(slot, zeros, 0)
            .map_err(|source| failed("PLACE_COUNTS", source))?;
        self.place_claims
            .set(slot, 0, 0)
            .map_err(|source| failed("PLACE_CLAIMS", source))
    }
}

const NOTHING: Place = Place {
    taken: [0; _],
    given: [0; _],
    failed: [0; _],
    waited: 0,
    ended: 0,
    forgotten: 0,
    odd: 0,
    held: [0; _],
    searched: [0; _],
};

fn plus(one: &Place, other: &Place) -> Place {
    fn each<const N: usize>(one: &[u64; N], other: &[u64; N]) -> [u64; N] {
        std::array::from_fn(|at| one[at].wrapping_add(other[at]))
    }
    Place {
        taken: each(&one.taken, &other.taken),
        given: each(&one.given, &other.given),
        failed: each(&one.failed, &other.failed),
        waited: one.waited.wrapping_add(other.waited),
        ended: one.ended.wrapping_add(other.ended),
        forgotten: one.forgotten.wrapping_add(other.forgotten),
        odd: one.odd.wrapping_add(other.odd),
        held: each(&one.held, &other.held),
        searched: each(&one.searched, &other.searched),
    }
}

/// Types of the ABI that a map's bytes are: plain integers, for which any bytes are a value.
trait Plain: Copy {}
impl Plain for Place {}
impl Plain for Hold {}

fn plain<T: Plain>(bytes: &[u8]) -> T {
    assert_eq!(bytes.len(), size_of::<T>());
    // SAFETY: as many bytes as it has, and any bytes are one.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}

/// An iterator, ready to run in any network namespace.
#[derive(Clone)]
pub struct Link(std::sync::Arc<std::os::fd::OwnedFd>);

fn link_iterator(program: &mut Iter) -> Result<Link, aya::programs::ProgramError> {
    const BPF_LINK_CREATE: libc::c_long = 28;
    const BPF_TRACE_ITER: u32 = 28;
    let program = std::os::fd::AsRawFd::as_raw_fd(&program.fd()?.as_fd());
    let attr = [program.cast_unsigned(), 0, BPF_TRACE_ITER, 0];
    let fd = bpf(BPF_LINK_CREATE, &attr).map_err(aya::programs::ProgramError::IOError)?;
    Ok(Link(std::sync::Arc::new(fd)))
}

impl Link {
    /// Runs it in the network namespace of the calling thread, to the end.
    ///
    /// # Errors
    /// When the kernel cannot make or read the file.
    pub fn run(&self) -> io::Result<()> {
        const BPF_ITER_CREATE: libc::c_long = 33;
        let attr = [std::os::fd::AsRawFd::as_raw_fd(&*self.0).cast_unsigned(), 0];
        let mut file = File::from(bpf(BPF_ITER_CREATE, &attr)?);
        // The programs write nothing; what is read is the end.
        let mut nothing = [0; 4096];
        while file.read(&mut nothing)? != 0 {}
        Ok(())
    }
}

/// bpf(2), which returns a descriptor. aya has these two calls too, but not so that an iterator can run in
/// several network namespaces.
fn bpf(command: libc::c_long, attr: &[u32]) -> io::Result<std::os::fd::OwnedFd> {
    // SAFETY: the attributes are as long as told.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of_val(attr)) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) })
}

/// The rows, where they lie.
pub struct Rows {
    base: NonNull<Row>,
    count: u32,
    bytes: NonZeroUsize,
    /// Programs that are loaded later name the map by its descriptor.
    _map: MapData,
}

impl Rows {
    fn map(ebpf: &mut Ebpf, count: u32) -> Result<Self, LoadError> {
        const NAME: &str = "ROWS";
        let Some(Map::Array(rows)) = ebpf.take_map(NAME) else {
            return Err(LoadError::Lacks(NAME));
        };
        let bytes =
            NonZeroUsize::new(size_of::<Row>() * count as usize).ok_or(LoadError::Lacks(NAME))?;
        // SAFETY: a new mapping of a map that the kernel lets be mapped.
        let base = unsafe {
            mmap(
                None,
                bytes,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                rows.fd().as_fd(),
                0,
            )
        };
        let base = base.map_err(|errno| failed(NAME, MapError::IoError(errno.into())))?;
        Ok(Self {
            base: base.cast(),
            count,
            bytes,
            _map: rows,
        })
    }

    /// How many there are, the tails too.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.count
    }

    /// Whether there are none, which is never so.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn at(&self, index: u32) -> *mut Row {
        assert!(index < self.count);
        // SAFETY: within the mapping.
        unsafe { self.base.as_ptr().add(index as usize) }
    }

    /// The counters of a row, each read by itself.
    #[must_use]
    pub fn counts(&self, index: u32) -> Counts {
        let counts = self.word(index, std::mem::offset_of!(Row, counts));
        let read = |at: usize| {
            // SAFETY: a word of the counters.
            unsafe { (*counts.cast::<AtomicU64>().add(at)).load(Ordering::Acquire) }
        };
        // What comes later of a port is read before what comes earlier: a gauge is never below zero.
        let (odd_given, ended, given) = (read(7), read(4), read(2));
        let (held, timed) = (read(9), read(8));
        let (searched, searches) = (read(11), read(10));
        Counts {
            waited: read(3),
            odd: read(6),
            taken: read(0),
            found: read(1),
            failed: read(5),
            given,
            ended,
            odd_given,
            timed,
            held,
            searches,
            searched,
        }
    }

    /// What a row is about, if it is somebody's; its counters are not to be used.
    #[must_use]
    pub fn row(&self, index: u32) -> Option<Row> {
        let state = self.word(index, std::mem::offset_of!(Row, state));
        // SAFETY: a word of the row. What was written before it is ready does not change while it is.
        unsafe {
            ((*state.cast::<AtomicU64>()).load(Ordering::Acquire) == state::READY)
                .then(|| self.at(index).read_volatile())
        }
    }

    /// Lets others have a row. Nobody may count there any more.
    pub fn free(&self, index: u32) {
        let row = self.at(index);
        let claims = self.word(index, std::mem::offset_of!(Row, claims));
        // SAFETY: a row that no program has found for a while, and that no port is held of.
        unsafe {
            let start = row.cast::<u8>();
            let rest = std::mem::offset_of!(Row, state);
            start.add(rest).write_bytes(0, size_of::<Row>() - rest);
            (*claims.cast::<AtomicU64>()).store(0, Ordering::Release);
        }
    }

    /// Counts a port that was given back unseen.
    fn gone(&self, hold: Hold) {
        let counts = self.word(hold.row, std::mem::offset_of!(Row, counts));
        let add = |at: usize, value: u64| {
            // SAFETY: a word of the counters.
            unsafe { (*counts.cast::<AtomicU64>().add(at)).fetch_add(value, Ordering::AcqRel) };
        };
        add(2, 1);
        add(4, u64::from(hold.waits));
        add(7, u64::from(hold.port & 1));
    }

    fn word(&self, index: u32, offset: usize) -> *mut u64 {
        // SAFETY: within the row.
        unsafe { self.at(index).cast::<u8>().add(offset).cast() }
    }
}

// The order of the words above.
const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(Counts, taken) == 0);
    assert!(offset_of!(Counts, found) == 8);
    assert!(offset_of!(Counts, given) == 2 * 8);
    assert!(offset_of!(Counts, waited) == 3 * 8);
    assert!(offset_of!(Counts, ended) == 4 * 8);
    assert!(offset_of!(Counts, failed) == 5 * 8);
    assert!(offset_of!(Counts, odd) == 6 * 8);
    assert!(offset_of!(Counts, odd_given) == 7 * 8);
    assert!(offset_of!(Counts, timed) == 8 * 8);
    assert!(offset_of!(Counts, held) == 9 * 8);
    assert!(offset_of!(Counts, searches) == 10 * 8);
    assert!(offset_of!(Counts, searched) == 11 * 8);
    assert!(offset_of!(Row, claims) == 0);
};

impl Drop for Rows {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody refers to it any more.
        let _ = unsafe { munmap(self.base.cast(), self.bytes.get()) };
    }
}
