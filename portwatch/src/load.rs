//! Carries a plan out: loads the programs it names, fills their maps, attaches them.

pub mod churn;
mod fold;
mod ids;
mod lines;
mod object;
mod verify;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::File,
    io,
    ops::RangeInclusive,
    os::fd::{AsFd as _, AsRawFd as _},
    rc::Rc,
};

use aya::{
    BtfError, Ebpf, EbpfError, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf},
    programs::{Iter, Program, ProgramError, links::LinkError},
};
use aya_log::EbpfLogger;
use log::Log;
use portwatch_ebpf::abi::{
    calls,
    config::Config,
    record::{SocketRecord, loss},
};
use thiserror::Error;

use crate::{
    decode,
    event::{Backend, Event, LostReason, Op},
    facts::Gathered,
    host::limits::without_files,
    plan::{self, Attachment, Facts, Plan, generation::Generation, hooks::Way},
    selection::Selection,
};
use object::{Lines, Object, Unreadable};

/// The programs, built by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portwatch-ebpf"));

/// Why the plan could not be carried out.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The object, before aya sees it: a defect of portwatch.
    #[error("cannot read the kernel programs that portwatch carries")]
    Carried(#[from] Unreadable),
    /// The object or its maps.
    #[error("cannot set up the kernel programs")]
    Object(#[from] EbpfError),
    /// The type information made for attaching.
    #[error("cannot prepare the kernel's type information")]
    Btf(#[from] BtfError),
    /// The object lacks a program or map that the plan names: a defect of portwatch.
    #[error("the kernel programs lack {0}")]
    Lacks(&'static str),
    /// A program.
    #[error("cannot {verb} the hook \"{program}\" ({way} {target})")]
    Program {
        /// `load` or `attach`.
        verb: &'static str,
        /// Program.
        program: &'static str,
        /// How.
        way: &'static str,
        /// Function.
        target: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// A program that the kernel's verifier turned away.
    #[error("cannot load the hook \"{program}\" ({way} {target})")]
    Verifier {
        /// Program.
        program: &'static str,
        /// How.
        way: &'static str,
        /// Function.
        target: &'static str,
        /// What the verifier said, line by line; empty where it said nothing.
        log: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A map.
    #[error("cannot fill the map {map}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        #[source]
        source: aya::maps::MapError,
    },
}

impl LoadError {
    /// Whether the kernel has refused a program, where another way in has others. What is wrong with
    /// the object or its maps (memory, mostly) is wrong with every way in.
    #[must_use]
    pub const fn is_about_a_program(&self) -> bool {
        matches!(self, Self::Program { .. } | Self::Verifier { .. })
    }
}

/// Loaded programs and their maps. Dropping it detaches them.
pub struct Loaded {
    /// Keeps programs and links.
    ebpf: Ebpf,
    /// For the iterator, which is loaded later: ids in the kernel's BTF.
    ids: BTreeMap<&'static str, u32>,
    ring: Option<RingBuf<MapData>>,
    connecting: HashMap<MapData, u64, [u8; size_of::<SocketRecord>()]>,
    descendants: HashMap<MapData, u32, u8>,
    lost: Rc<PerCpuArray<MapData, u64>>,
    skipped: u64,
}

/// Values for the kernel's filters that the plan's constants do not hold.
#[derive(Debug, Default)]
pub struct FilterValues {
    /// Ids and depths of cgroups: `depth << 56 | id`.
    pub cgroups: Vec<u64>,
}

/// Loads the programs of a plan; nothing is attached yet.
///
/// # Errors
/// When the kernel refuses a map or a program, named.
pub fn load(
    gathered: &Gathered,
    plan: &Plan,
    selection: &Selection,
    values: &FilterValues,
    buffer: u32,
) -> Result<Loaded, LoadError> {
    let btf = ids::types(plan.attachments.iter().copied(), &gathered.ids)?;
    let globals = Globals::of(&gathered.facts, &plan.config);
    let object = planned(&gathered.facts, plan.programs(), &globals)?;
    let mut unneeded = OF_CHURN.to_vec();
    if !selection.events.contains(&Op::Release) {
        unneeded.extend(OF_RELEASES);
    }
    if !selection.descendants {
        unneeded.push("DESCENDANTS");
    }
    let mut ebpf = read(&object, &globals, buffer, &unneeded, &[])?;
    fill_filters(&mut ebpf, selection, values)?;
    verify::all(&mut ebpf, &plan.attachments, &btf)?;
    Ok(Loaded {
        ring: Some(map(&mut ebpf, "EVENTS")?),
        lost: Rc::new(map(&mut ebpf, "LOST")?),
        skipped: 0,
        connecting: map(&mut ebpf, "CONNECTING")?,
        descendants: map(&mut ebpf, "DESCENDANTS")?,
        ids: gathered.ids.clone(),
        ebpf,
    })
}

/// The file of an iterator that is loaded alone; reading it runs the iterator, which goes with it.
///
/// # Errors
/// When the kernel refuses a map or the program, named.
pub fn iterate(gathered: &Gathered, iterator: Attachment) -> Result<File, LoadError> {
    /// Nothing goes through the ring: as small as a ring can be on any machine (a page, a power of two).
    const RING: u32 = 64 << 10;
    let Gathered { facts, ids } = gathered;
    let globals = Globals::of(facts, &plan::lone_config(facts));
    let object = planned(facts, [iterator], &globals)?;
    let mut ebpf = read(
        &object,
        &globals,
        RING,
        &[NOT_OF_ITERATOR, OF_CHURN].concat(),
        &[],
    )?;
    if let Some(absent) = NOT_OF_ITERATOR.iter().find(|map| ebpf.map(map).is_none()) {
        return Err(LoadError::Lacks(absent));
    }
    open(&mut ebpf, iterator, ids)
}

/// Loads an iterator and opens its file.
fn open(
    ebpf: &mut Ebpf,
    iterator: Attachment,
    ids: &BTreeMap<&'static str, u32>,
) -> Result<File, LoadError> {
    let types = ids::types([iterator], ids)?;
    verify::all(ebpf, &[iterator], &types)?;
    let mut file = None;
    with_program(ebpf, iterator, "attach", |program, _| {
        let program: &mut Iter = program.try_into()?;
        let link = program.attach()?;
        let opened = program.take_link(link)?.into_file();
        file = Some(opened.map_err(|error| match error {
            LinkError::SyscallError(error) => error.into(),
            _ => ProgramError::NotAttached,
        })?);
        Ok(())
    })?;
    file.ok_or(LoadError::Lacks(iterator.program))
}

/// Large maps that are the hooks' alone: some 16 MB, which the kernel would fill with zeros for nothing. What the programs
/// have as sections (`.bss`) is made whole in any case, and written once more by aya: nothing large belongs there.
const NOT_OF_ITERATOR: &[&str] = &[
    "CALLS",
    "CLOSERS",
    "CONNECTING",
    "DESCENDANTS",
    "HELD",
    "INFLIGHT",
    "LEAVING",
    "TAKERS",
];

/// Large maps that are `churn`'s alone, which has none of the others.
const OF_CHURN: &[&str] = &[
    "HOLDS",
    "HOLD_SLOTS",
    "LAST_ROW",
    "PLACE_COUNTS",
    "PLACE_CLAIMS",
    "PLACE_SLOTS",
    "ROWS",
    "TUPLE_ROWS",
];

/// Maps that nothing uses but releases: some 6 MB.
const OF_RELEASES: &[&str] = &["HELD", "LEAVING"];

/// Has aya read an object and make its maps; those that are not needed with one entry, others with so many.
fn read(
    object: &[u8],
    globals: &Globals,
    buffer: u32,
    unneeded: &[&'static str],
    sizes: &[(&'static str, u32)],
) -> Result<Ebpf, LoadError> {
    let mut loader = loader();
    for map in unneeded {
        loader.map_max_entries(map, 1);
    }
    for (map, size) in sizes {
        loader.map_max_entries(map, *size);
    }
    // What was put in is there too, for what could not be.
    for (name, value) in globals.all() {
        loader.override_global(name, value, true);
    }
    Ok(loader
        .btf(None)
        .map_max_entries("EVENTS", buffer)
        .load(object)?)
}

/// Words as they lie in memory.
fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Constants of the programs.
struct Globals {
    layout: Vec<u8>,
    config: Vec<u8>,
    log_level: [u8; 1],
    diagnostics: bool,
}

impl Globals {
    fn of(facts: &Facts, config: &Config) -> Self {
        let diagnostics = config.diagnostics != 0;
        Self {
            layout: bytes(&facts.fields.words),
            config: bytes(&config.words()),
            // Of the programs' diagnostics, all are wanted or none.
            log_level: [if diagnostics { u8::MAX } else { 0 }],
            diagnostics,
        }
    }

    /// By name.
    fn all(&self) -> [(&'static str, &[u8]); 3] {
        [
            ("LAYOUT", &self.layout),
            ("CONFIG", &self.config),
            (aya_log::LEVEL, &self.log_level),
        ]
    }
}

/// The object with these programs alone.
fn planned(
    facts: &Facts,
    programs: impl IntoIterator<Item = Attachment>,
    globals: &Globals,
) -> Result<Vec<u8>, Unreadable> {
    let object = Object::read(OBJECT)?;
    let names: Vec<_> = programs
        .into_iter()
        .map(|attachment| {
            version_name(attachment.program, attachment.generation, |name| {
                object.has(name)
            })
        })
        .collect();
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    // Only those who see all that the verifier says see the lines it quotes; a release has none (build.rs).
    let lines = if globals.diagnostics {
        Lines::Kept
    } else {
        Lines::Dropped
    };
    object.only(
        &names,
        lines,
        facts.cast.map(|cast| cast.function),
        Some(&globals.all()),
    )
}

/// aya's loader. Its only constructor reads and parses all of the kernel's type information, more
/// than all the rest of a start costs, only to have it replaced in the next call; where it cannot open
/// the file it goes on without. So for this one call no file can be opened.
fn loader<'a>() -> EbpfLoader<'a> {
    without_files(EbpfLoader::new)
}

impl Loaded {
    /// The ring buffer, once.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn take_ring(&mut self) -> Result<RingBuf<MapData>, LoadError> {
        self.ring.take().ok_or(LoadError::Lacks("EVENTS"))
    }

    /// What the programs say of their work, once; only where the plan wants it.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn take_diagnostics<T: Log>(&mut self, logger: T) -> Result<EbpfLogger<T>, LoadError> {
        EbpfLogger::init_with_logger(&mut self.ebpf, logger)
            .map_err(|_| LoadError::Lacks("AYA_LOGS"))
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

    /// Instructions the verifier looked at, by program. Empty where the kernel does not tell (before
    /// 5.16).
    #[must_use]
    pub fn verified(&self, plan: &Plan) -> Vec<(&'static str, u32)> {
        verified(&self.ebpf, plan.programs())
    }

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

    /// Loads the iterator of the plan; reading the file runs it. The hooks do not need it, so that it is
    /// not loaded with them.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn descriptors(&mut self, iterator: Attachment) -> Result<File, LoadError> {
        open(&mut self.ebpf, iterator, &self.ids)
    }

    /// Detaches them: from now on no record is added.
    pub fn detach(&mut self, plan: &Plan) {
        // The count goes with the programs.
        self.skipped = skipped(&self.ebpf);
        // Entries first, as they come last when attaching: a call that has entered is not half known.
        for attachment in plan.attachments.iter().rev() {
            if let Some(program) = find(&mut self.ebpf, attachment.program, attachment.generation) {
                let _ = detach_program(program);
            }
        }
    }

    /// Counters of lost events.
    #[must_use]
    pub fn losses(&self) -> Losses {
        Losses {
            map: Rc::clone(&self.lost),
            told: [0; REASONS.len()],
        }
    }

    /// Connection attempts whose outcome is open. To be read after [`Loaded::detach`].
    pub fn pending(&mut self) -> Vec<Event> {
        let attempts = self.connecting.iter().filter_map(Result::ok);
        attempts
            .filter_map(|(_, record)| decode::pending(&record).ok())
            .collect()
    }

    /// Calls whose return was missed, and that no later call of the thread has shown: what waits for a
    /// return still. Only kprobes miss them uncounted. To be read after [`Loaded::detach`], which takes
    /// longer than what they are on.
    #[must_use]
    pub fn unreturned(&self, plan: &Plan) -> u64 {
        if plan.backend != Backend::Kprobe {
            return 0;
        }
        let places = self
            .ebpf
            .map("CALLS")
            .map(Array::<_, calls::Place>::try_from);
        let spilled = self
            .ebpf
            .map("INFLIGHT")
            .map(HashMap::<_, u64, [u8; 32]>::try_from);
        let (Some(Ok(places)), Some(Ok(spilled))) = (places, spilled) else {
            return 0;
        };
        let places = places.iter().filter_map(Result::ok);
        let keys = places.map(|place| place[calls::WHO]);
        let keys = keys.chain(spilled.keys().filter_map(Result::ok));
        keys.filter(|&key| calls::tells(key)).count() as u64
    }

    /// Times the kernel skipped a program because it was running already on that CPU. 0 where the
    /// kernel does not count them (before 5.12). To be read after [`Loaded::detach`].
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

/// Instructions the verifier looked at, of programs that are loaded.
fn verified(ebpf: &Ebpf, programs: impl Iterator<Item = Attachment>) -> Vec<(&'static str, u32)> {
    programs
        .filter_map(|attachment| {
            let name = version_name(attachment.program, attachment.generation, |name| {
                ebpf.program(name).is_some()
            });
            let info = ebpf.program(&name)?.info().ok()?;
            Some((attachment.program, info.verified_instruction_count()?))
        })
        .collect()
}

/// Times the kernel skipped one of the programs, because it was running already on that CPU.
fn skipped(ebpf: &Ebpf) -> u64 {
    let programs = ebpf.programs().filter_map(|(_, program)| program.fd().ok());
    programs
        .filter_map(|fd| {
            let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
            let text = std::fs::read_to_string(path).ok()?;
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("recursion_misses:"))?;
            line.trim().parse::<u64>().ok()
        })
        .sum()
}

/// Reasons in the order of `portwatch_ebpf::abi::record::loss`.
const REASONS: [LostReason; 4] = [
    LostReason::RingFull,
    LostReason::TableFull,
    LostReason::Unreadable,
    LostReason::ReturnMissed,
];

const _: () = assert!(
    loss::RING_FULL == 0
        && loss::TABLE_FULL == 1
        && loss::UNREADABLE == 2
        && loss::RETURN_MISSED == 3
        && loss::ALL == REASONS.len() as u32
);

/// What the programs could not hand over.
pub struct Losses {
    map: Rc<PerCpuArray<MapData, u64>>,
    told: [u64; REASONS.len()],
}

impl Losses {
    /// Whether the kernel lets them be read.
    #[must_use]
    pub fn are_readable(&self) -> bool {
        self.map.get(&0, 0).is_ok()
    }

    /// What was lost since the last call, by reason.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn since_last(&mut self) -> io::Result<Vec<(LostReason, u64)>> {
        let mut news = Vec::new();
        for (index, reason) in REASONS.into_iter().enumerate() {
            let counts = self.map.get(&(index as u32), 0).map_err(io::Error::other)?;
            let total: u64 = counts.iter().sum();
            if total > self.told[index] {
                news.push((reason, total - self.told[index]));
                self.told[index] = total;
            }
        }
        Ok(news)
    }
}

fn map<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, LoadError>
where
    M: TryFrom<Map, Error = aya::maps::MapError>,
{
    let map = ebpf.take_map(name).ok_or(LoadError::Lacks(name))?;
    M::try_from(map).map_err(|source| failed(name, source))
}

fn failed(map: &'static str, source: aya::maps::MapError) -> LoadError {
    LoadError::Map { map, source }
}

fn way_name(way: Way) -> &'static str {
    match way {
        Way::FEntry => "fentry",
        Way::FExit => "fexit",
        Way::BtfTracepoint => "tp_btf",
        Way::KProbe => "kprobe",
        Way::KRetProbe => "kretprobe",
        Way::RawTracepoint => "raw_tp",
        Way::Iterator => "iter",
    }
}

/// The name of a program in the object: entry programs and the like exist once, the others once for
/// each generation of kernels.
fn version_name(
    program: &str,
    generation: Generation,
    exists: impl FnOnce(&str) -> bool,
) -> Cow<'_, str> {
    let own = format!("{program}_{}", generation.as_str());
    if exists(&own) {
        own.into()
    } else {
        program.into()
    }
}

fn find<'a>(ebpf: &'a mut Ebpf, program: &str, generation: Generation) -> Option<&'a mut Program> {
    let name = version_name(program, generation, |name| ebpf.program(name).is_some());
    ebpf.program_mut(&name)
}

fn with_program(
    ebpf: &mut Ebpf,
    attachment: Attachment,
    verb: &'static str,
    act: impl FnOnce(&mut Program, &'static str) -> Result<(), ProgramError>,
) -> Result<(), LoadError> {
    let Attachment {
        program,
        generation,
        target,
        ..
    } = attachment;
    let found = find(ebpf, program, generation).ok_or(LoadError::Lacks(program))?;
    act(found, target).map_err(|source| refused(attachment, verb, source))
}

/// What it means that the kernel refuses a program.
fn refused(attachment: Attachment, verb: &'static str, source: ProgramError) -> LoadError {
    let Attachment {
        program,
        way,
        target,
        ..
    } = attachment;
    let way = way_name(way);
    match source {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => LoadError::Verifier {
            program,
            way,
            target,
            log: verifier_log.to_string(),
            source: io_error,
        },
        source => LoadError::Program {
            verb,
            program,
            way,
            target,
            source: Box::new(source),
        },
    }
}

fn attach_program(ebpf: &mut Ebpf, attachment: Attachment) -> Result<(), LoadError> {
    with_program(
        ebpf,
        attachment,
        "attach",
        |program, target| match program {
            Program::FEntry(program) => program.attach().map(drop),
            Program::FExit(program) => program.attach().map(drop),
            Program::BtfTracePoint(program) => program.attach().map(drop),
            Program::KProbe(program) => program.attach(target, 0).map(drop),
            Program::RawTracePoint(program) => program.attach(target).map(drop),
            _ => Err(ProgramError::UnexpectedProgramType),
        },
    )
}

/// Dropping a link detaches; aya keeps the links, so the program is unloaded with them.
fn detach_program(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::BtfTracePoint(program) => program.unload(),
        Program::KProbe(program) => program.unload(),
        Program::RawTracePoint(program) => program.unload(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn fill_filters(
    ebpf: &mut Ebpf,
    selection: &Selection,
    values: &FilterValues,
) -> Result<(), LoadError> {
    fill_set(ebpf, "PIDS", &selection.pids)?;
    fill_set(ebpf, "UIDS", &selection.uids)?;
    fill_set(ebpf, "NETNS", &selection.netns)?;
    fill_array(ebpf, "CGROUPS", values.cgroups.iter().copied().enumerate())?;
    fill_array(
        ebpf,
        "PORTS",
        port_words(&selection.ports, &selection.peer_ports),
    )
}

fn fill_set(ebpf: &mut Ebpf, name: &'static str, keys: &[u32]) -> Result<(), LoadError> {
    let map = ebpf.map_mut(name).ok_or(LoadError::Lacks(name))?;
    let mut map: HashMap<_, u32, u8> =
        HashMap::try_from(map).map_err(|source| failed(name, source))?;
    for key in keys {
        map.insert(key, 1, 0)
            .map_err(|source| failed(name, source))?;
    }
    Ok(())
}

fn fill_array(
    ebpf: &mut Ebpf,
    name: &'static str,
    words: impl Iterator<Item = (usize, u64)>,
) -> Result<(), LoadError> {
    let map = ebpf.map_mut(name).ok_or(LoadError::Lacks(name))?;
    let mut map: Array<_, u64> = Array::try_from(map).map_err(|source| failed(name, source))?;
    for (index, word) in words {
        map.set(index as u32, word, 0)
            .map_err(|source| failed(name, source))?;
    }
    Ok(())
}

/// Non-zero words of the bitmap of wanted ports: local ports, then peer ports.
fn port_words(
    local: &[RangeInclusive<u16>],
    peer: &[RangeInclusive<u16>],
) -> impl Iterator<Item = (usize, u64)> {
    const WORDS: usize = 65536 / 64;
    let mut words = vec![0u64; 2 * WORDS];
    for (base, ranges) in [(0, local), (WORDS, peer)] {
        for port in ranges.iter().cloned().flatten() {
            words[base + usize::from(port) / 64] |= 1 << (port % 64);
        }
    }
    words.into_iter().enumerate().filter(|(_, word)| *word != 0)
}
