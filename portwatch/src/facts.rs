//! Gathers what `plan` needs to know about the kernel.

use std::{borrow::Cow, collections::BTreeMap, path::Path};

use portwatch_ebpf::abi::config::helper;

use crate::{
    host::{
        btf::{self, Btf, BtfError},
        fields, kernel, limits,
        probe::{self, ProgramKind},
    },
    plan::{
        Facts,
        churn::CONNECTIONS,
        generation::Cast,
        hooks::{self, DESCRIPTORS, MPTCP_CONNECT, Way},
    },
};

/// The facts, and the BTF that attaching needs.
#[derive(Debug)]
pub struct Gathered {
    /// For the plan.
    pub facts: Facts,
    /// For the loader: ids of the hooked functions and tracepoints this kernel has, in its BTF.
    pub ids: BTreeMap<&'static str, u32>,
}

/// Asks the running kernel, and makes room for maps: before 5.11 they count as locked memory.
///
/// # Errors
/// When its type information cannot be read.
pub fn prepare() -> Result<Gathered, BtfError> {
    if kernel::Release::read().and_then(|release| release.bpf_counts_as_memlock()) != Some(false) {
        limits::raise_memlock();
    }
    gather()
}

/// Asks the running kernel.
///
/// # Errors
/// When its type information cannot be read.
pub fn gather() -> Result<Gathered, BtfError> {
    gather_with(Path::new(btf::VMLINUX))
}

/// Asks the running kernel, with type information from this file.
///
/// # Errors
/// When the file cannot be read or is damaged.
pub fn gather_with(path: &Path) -> Result<Gathered, BtfError> {
    let names = wanted_names();
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    let btf = Btf::read(path, &names)?;
    let fields = fields::resolve(&btf);
    let prototypes = prototypes(&btf);
    // Any function of the table will do: the kind of program is what is asked about.
    let target = hooks::all()
        .flat_map(|hook| hook.targets)
        .find_map(|target| btf.function_id(target.name));
    let tracing_kind = target.map(ProgramKind::Tracing);
    let tracing = match tracing_kind {
        Some(kind) => probe::program(kind),
        None => Err("the kernel's type information has none of the hooked functions".to_owned()),
    };
    let kprobe = match kernel::kprobe_pmu() {
        Some(_) => probe::program(ProgramKind::Kprobe),
        None => Err("the kernel is built without kprobes".to_owned()),
    };
    let raw_tp = probe::program(ProgramKind::RawTracepoint);
    let iterator = match btf.function_id(DESCRIPTORS.name) {
        Some(id) => probe::program(ProgramKind::Iterator(id)),
        None => Err("the kernel has no iterator over descriptors".to_owned()),
    };
    // What a raw tracepoint may call the other kinds may call too; cookies are for tracing alone.
    let mut helpers = probe::helpers(ProgramKind::RawTracepoint) & !helper::SOCKET_COOKIE;
    if let (Some(kind), Ok(())) = (tracing_kind, &tracing) {
        helpers |= probe::helpers(kind) & helper::SOCKET_COOKIE;
    }
    let loops = probe::loops(ProgramKind::RawTracepoint);
    let cast = cast(&btf);
    let facts = Facts {
        fields,
        prototypes,
        tracing,
        kprobe,
        raw_tp,
        iterator,
        helpers,
        loops,
        cast,
        mptcp_connects: btf.has_function(MPTCP_CONNECT),
        preempts: kernel::preempts(),
    };
    Ok(Gathered {
        facts,
        ids: ids(&btf),
    })
}

/// The function that makes a pointer of a number.
const RDONLY_CAST: &str = "bpf_rdonly_cast";
/// A struct that begins with a word (x86-64; elsewhere the probe decides).
const WORD: &str = "pt_regs";
/// A function of 6.11. Before 6.5 (dced881ead78) a load that faults in a program with functions
/// crashes the kernel, before 6.10 (b599d7d26d6a) so may one from the page of the old vsyscalls, and
/// nothing in the type information tells.
const SINCE_6_11: &str = "bpf_iter_bits_new";

fn cast(btf: &Btf) -> Option<Cast> {
    btf.function_id(SINCE_6_11)?;
    let cast = Cast {
        function: btf.function_id(RDONLY_CAST)?,
        word: btf.struct_id(WORD)?,
    };
    probe::casts(ProgramKind::RawTracepoint, cast).then_some(cast)
}

fn is_tracepoint(way: Way) -> bool {
    matches!(way, Way::BtfTracepoint | Way::RawTracepoint)
}

/// Names of the hooked functions, and of the tracepoints.
fn targets() -> (Vec<&'static str>, Vec<&'static str>) {
    let (mut functions, mut tracepoints) = (Vec::new(), Vec::new());
    for hook in hooks::all() {
        let mut programs = hook.tracing.iter().chain(hook.kprobe).chain(hook.raw_tp);
        let list = if programs.any(|program| is_tracepoint(program.1)) {
            &mut tracepoints
        } else {
            &mut functions
        };
        list.extend(hook.targets.iter().map(|target| target.name));
    }
    functions.extend([DESCRIPTORS.name, CONNECTIONS.name]);
    // Hooks of several verbs have functions in common.
    functions.sort_unstable();
    functions.dedup();
    tracepoints.sort_unstable();
    tracepoints.dedup();
    (functions, tracepoints)
}

fn wanted_names() -> Vec<Cow<'static, str>> {
    let (functions, tracepoints) = targets();
    let plain = fields::names().into_iter().chain(functions).chain([
        MPTCP_CONNECT,
        RDONLY_CAST,
        WORD,
        SINCE_6_11,
    ]);
    // The typedefs of tracepoints have names of their own (include/trace/bpf_probe.h).
    let typedefs = tracepoints.iter().map(|name| format!("btf_trace_{name}"));
    plain
        .map(Cow::Borrowed)
        .chain(typedefs.map(Cow::Owned))
        .collect()
}

fn prototypes(btf: &Btf) -> BTreeMap<&'static str, String> {
    let (functions, tracepoints) = targets();
    let functions = functions
        .into_iter()
        .filter_map(|name| Some((name, btf.prototype(name)?)));
    let tracepoints = tracepoints
        .into_iter()
        .filter_map(|name| Some((name, btf.tracepoint_prototype(name)?)));
    functions.chain(tracepoints).collect()
}

fn ids(btf: &Btf) -> BTreeMap<&'static str, u32> {
    let (functions, tracepoints) = targets();
    let functions = functions
        .into_iter()
        .filter_map(|name| Some((name, btf.function_id(name)?)));
    let tracepoints = tracepoints
        .into_iter()
        .filter_map(|name| Some((name, btf.tracepoint_id(name)?)));
    functions.chain(tracepoints).collect()
}
