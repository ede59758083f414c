//! Hands programs to the kernel's verifier.

use std::{
    collections::HashMap,
    num::NonZero,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use aya::{
    Btf, Ebpf,
    programs::{Program, ProgramError},
};

use super::{LoadError, refused, version_name};
use crate::plan::Attachment;

/// Threads at most: with more of them one program is what the others wait for.
const THREADS: usize = 4;

/// How the functions of iterators are called; aya puts it in front.
const ITERATOR: &str = "bpf_iter_";

/// A program, its place in the plan, and what it is for.
type Waiting<'a> = (usize, Attachment, &'a mut Program);

/// Loads the programs, several at once: that is most of a start, and the verifier looks at each by itself
/// (kernel/bpf/verifier.c, `bpf_check`: only who has not CAP_BPF waits for a lock).
///
/// # Errors
/// One is missing, or the kernel refuses it: of several the first in the plan.
pub(super) fn all(ebpf: &mut Ebpf, attachments: &[Attachment], btf: &Btf) -> Result<(), LoadError> {
    let mut waiting = waiting(ebpf, attachments)?;
    // The last is taken first.
    waiting.reverse();
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    let helpers = cpus.min(THREADS).min(waiting.len()).saturating_sub(1);
    let waiting = Mutex::new(waiting);
    let failed = Mutex::new(None);
    let work = || {
        while let Some((place, attachment, program)) = lock(&waiting).pop() {
            if let Err(error) = load(program, attachment, btf) {
                note(&failed, place, refused(attachment, "load", error));
                // Those before it in the plan are being looked at; the rest need not be.
                lock(&waiting).clear();
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..helpers {
            // Without a helper this thread does it all.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// The programs of a plan, each with its attachment.
fn waiting<'a>(
    ebpf: &'a mut Ebpf,
    attachments: &[Attachment],
) -> Result<Vec<Waiting<'a>>, LoadError> {
    let names: Vec<_> = attachments
        .iter()
        .map(|one| {
            let exists = |name: &str| ebpf.program(name).is_some();
            version_name(one.program, one.generation, exists).into_owned()
        })
        .collect();
    let mut programs: HashMap<&str, &mut Program> = ebpf.programs_mut().collect();
    let each = attachments.iter().zip(names).enumerate();
    each.map(|(place, (attachment, name))| {
        let program = programs.remove(name.as_str());
        let program = program.ok_or(LoadError::Lacks(attachment.program))?;
        Ok((place, *attachment, program))
    })
    .collect()
}

/// What a thread that panicked has left is as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the failure that comes first in the plan.
fn note(failed: &Mutex<Option<(usize, LoadError)>>, place: usize, error: LoadError) {
    let mut failed = lock(failed);
    if failed.as_ref().is_none_or(|(first, _)| place < *first) {
        *failed = Some((place, error));
    }
}

fn load(program: &mut Program, attachment: Attachment, btf: &Btf) -> Result<(), ProgramError> {
    let target = attachment.target;
    match program {
        Program::FEntry(program) => program.load(target, btf),
        Program::FExit(program) => program.load(target, btf),
        Program::BtfTracePoint(program) => program.load(target, btf),
        Program::KProbe(program) => program.load(),
        Program::RawTracePoint(program) => program.load(),
        Program::Iter(program) => program.load(target.trim_start_matches(ITERATOR), btf),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}
