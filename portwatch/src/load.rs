//! Carries a plan out: loads the programs it names, fills their maps, attaches them.

use std::ops::RangeInclusive;

use aya::{
    maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf},
    programs::{Program, ProgramError},
    Btf, BtfError, Ebpf, EbpfError, EbpfLoader, Endianness,
};
use thiserror::Error;

use crate::{
    host::facts::Gathered,
    plan::{hooks::Way, Attachment, Plan},
    selection::Selection,
};

/// The programs, built by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portwatch-ebpf"));

/// Why the plan could not be carried out.
#[derive(Debug, Error)]
pub enum LoadError {
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

/// Attached programs. Dropping it detaches them.
pub struct Loaded {
    /// Keeps programs and links.
    ebpf: Ebpf,
    /// Records.
    pub ring: RingBuf<MapData>,
    /// Losses per CPU, see `portwatch_ebpf::abi::record::loss`.
    pub lost: PerCpuArray<MapData, u64>,
    /// Connection attempts whose outcome is open.
    pub connecting: HashMap<MapData, u64, [u8; CONNECTING_LEN]>,
    /// The command that is followed.
    pub descendants: HashMap<MapData, u32, u8>,
}

/// A socket record and where the attempt stands (`state.rs` of the kernel programs).
pub const CONNECTING_LEN: usize = size_of::<portwatch_ebpf::abi::record::SocketRecord>() + 8;

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
    let btf = Btf::parse(&gathered.skeleton, Endianness::default())?;
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .override_global("LAYOUT", &gathered.facts.fields.words[..], true)
        .override_global("CONFIG", &plan.config.words()[..], true)
        .map_max_entries("EVENTS", buffer)
        .load(OBJECT)?;
    fill_filters(&mut ebpf, selection, values)?;
    for attachment in &plan.attachments {
        load_program(&mut ebpf, *attachment, &btf)?;
        if std::env::var_os("PW_DEBUG").is_some() { let info = find(&mut ebpf, attachment.program, attachment.bounded).unwrap().info().unwrap(); eprintln!("{} {:?} {:?}", attachment.program, info.verified_instruction_count(), info.size_jitted()); }
    }
    Ok(Loaded {
        ring: RingBuf::try_from(take(&mut ebpf, "EVENTS")?).map_err(|source| failed("EVENTS", source))?,
        lost: PerCpuArray::try_from(take(&mut ebpf, "LOST")?).map_err(|source| failed("LOST", source))?,
        connecting: HashMap::try_from(take(&mut ebpf, "CONNECTING")?)
            .map_err(|source| failed("CONNECTING", source))?,
        descendants: HashMap::try_from(take(&mut ebpf, "DESCENDANTS")?)
            .map_err(|source| failed("DESCENDANTS", source))?,
        ebpf,
    })
}

impl Loaded {
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

    /// The ring, and what must be kept while it is read.
    #[must_use]
    pub fn split(self) -> (RingBuf<MapData>, Ebpf) {
        (self.ring, self.ebpf)
    }

    /// Times the kernel skipped a program because it was running already on that CPU. 0 where the
    /// kernel (before 5.12) does not count them.
    #[must_use]
    pub fn recursion_misses(&self, plan: &Plan) -> u64 {
        let _ = plan;
        0
    }
}

fn failed(map: &'static str, source: aya::maps::MapError) -> LoadError {
    LoadError::Map { map, source }
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or(LoadError::Lacks(name))
}

fn way_name(way: Way) -> &'static str {
    match way {
        Way::FEntry => "fentry",
        Way::FExit => "fexit",
        Way::BtfTracepoint => "tp_btf",
        Way::KProbe => "kprobe",
        Way::KRetProbe => "kretprobe",
        Way::RawTracepoint => "raw_tp",
    }
}

/// A program by its name; entry programs and the like exist once, the others in two versions.
fn find<'a>(ebpf: &'a mut Ebpf, program: &str, bounded: bool) -> Option<&'a mut Program> {
    let other = format!("{program}_bounded");
    let name = if bounded && ebpf.program(&other).is_some() { &other } else { program };
    ebpf.program_mut(name)
}

fn with_program(
    ebpf: &mut Ebpf,
    attachment: Attachment,
    verb: &'static str,
    act: impl FnOnce(&mut Program, &'static str) -> Result<(), ProgramError>,
) -> Result<(), LoadError> {
    let Attachment { program, bounded, way, target } = attachment;
    let found = find(ebpf, program, bounded).ok_or(LoadError::Lacks(program))?;
    act(found, target).map_err(|source| LoadError::Program {
        verb,
        program,
        way: way_name(way),
        target,
        source: Box::new(source),
    })
}

fn load_program(ebpf: &mut Ebpf, attachment: Attachment, btf: &Btf) -> Result<(), LoadError> {
    with_program(ebpf, attachment, "load", |program, target| match program {
        Program::FEntry(program) => program.load(target, btf),
        Program::FExit(program) => program.load(target, btf),
        Program::BtfTracePoint(program) => program.load(target, btf),
        Program::KProbe(program) => program.load(),
        Program::RawTracePoint(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    })
}

fn attach_program(ebpf: &mut Ebpf, attachment: Attachment) -> Result<(), LoadError> {
    with_program(ebpf, attachment, "attach", |program, target| match program {
        Program::FEntry(program) => program.attach().map(drop),
        Program::FExit(program) => program.attach().map(drop),
        Program::BtfTracePoint(program) => program.attach().map(drop),
        Program::KProbe(program) => program.attach(target, 0).map(drop),
        Program::RawTracePoint(program) => program.attach(target).map(drop),
        _ => Err(ProgramError::UnexpectedProgramType),
    })
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
    fill_array(ebpf, "PORTS", port_words(&selection.ports, &selection.peer_ports))
}

fn fill_set(ebpf: &mut Ebpf, name: &'static str, keys: &[u32]) -> Result<(), LoadError> {
    let map = ebpf.map_mut(name).ok_or(LoadError::Lacks(name))?;
    let mut map: HashMap<_, u32, u8> =
        HashMap::try_from(map).map_err(|source| failed(name, source))?;
    for key in keys {
        map.insert(key, 1, 0).map_err(|source| failed(name, source))?;
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
        map.set(index as u32, word, 0).map_err(|source| failed(name, source))?;
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
