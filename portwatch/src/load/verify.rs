//! Hands programs to the kernel's verifier.

use std::{
    collections::{HashMap, HashSet},
    num::NonZero,
    panic,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use aya::{
    Btf, Ebpf,
    programs::{Program, ProgramError},
};

use super::{LoadError, refused, version_name};
use crate::plan::Attachment;

/// Threads at most.
const THREADS: usize = 4;

/// How the functions of iterators are called; aya puts it in front.
const ITERATOR: &str = "bpf_iter_";

/// Loads the programs, several at once: that is most of a start, and the verifier looks at each by itself
/// (kernel/bpf/verifier.c, `bpf_check`: only who has neither CAP_BPF nor CAP_SYS_ADMIN waits for a lock).
///
/// # Errors
/// One is missing, or the kernel refuses it: of those that were looked at the first in the plan.
pub(super) fn all(ebpf: &mut Ebpf, attachments: &[Attachment], btf: &Btf) -> Result<(), LoadError> {
    let programs = programs(ebpf, attachments)?;
    let cpus = || thread::available_parallelism().map_or(1, NonZero::get);
    let threads = if programs.len() < 2 { 1 } else { cpus() };
    each(programs, threads.min(THREADS), |(attachment, program)| {
        load(program, attachment, btf).map_err(|error| refused(attachment, "load", error))
    })
}

/// Does something with each, the first of them first, in as many threads; they are gone at the end. After a
/// failure no other is begun.
///
/// # Errors
/// Of several failures that of the item that comes first.
fn each<T: Send, E: Send>(
    items: Vec<T>,
    threads: usize,
    act: impl Fn(T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let waiting: Mutex<Vec<_>> = Mutex::new(items.into_iter().enumerate().rev().collect());
    let failed: Mutex<Option<(usize, E)>> = Mutex::new(None);
    let work = || {
        loop {
            // By a statement of its own: the others wait while the list is locked.
            let next = lock(&waiting).pop();
            let Some((place, item)) = next else {
                break;
            };
            if let Err(error) = act(item) {
                lock(&waiting).clear();
                let mut failed = lock(&failed);
                if failed.as_ref().is_none_or(|(first, _)| place < *first) {
                    *failed = Some((place, error));
                }
            }
        }
    };
    thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads)
            // Without a helper the others do it all.
            .filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok())
            .collect();
        work();
        // Not before they are gone as threads: capabilities are given up by thread.
        for helper in helpers {
            if let Err(panicked) = helper.join() {
                panic::resume_unwind(panicked);
            }
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// A thread that panics is told of after it has ended.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The programs of a plan, each once, with the first of its attachments.
fn programs<'a>(
    ebpf: &'a mut Ebpf,
    attachments: &[Attachment],
) -> Result<Vec<(Attachment, &'a mut Program)>, LoadError> {
    let mut met = HashSet::new();
    let first = attachments.iter().filter(|one| met.insert(one.program));
    let named: Vec<_> = first
        .map(|one| {
            let exists = |name: &str| ebpf.program(name).is_some();
            let name = version_name(one.program, one.generation, exists);
            (*one, name.into_owned())
        })
        .collect();
    let mut programs: HashMap<&str, &mut Program> = ebpf.programs_mut().collect();
    let each = named.into_iter();
    each.map(|(attachment, name)| {
        let program = programs.remove(name.as_str());
        let program = program.ok_or(LoadError::Lacks(attachment.program))?;
        Ok((attachment, program))
    })
    .collect()
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

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;

    #[test]
    fn all_are_done_by_however_many() {
        for threads in [0, 1, 2, 9] {
            let sum = AtomicUsize::new(0);
            let done = each(vec![1, 2, 4, 8, 16], threads, |item| {
                sum.fetch_add(item, Ordering::Relaxed);
                Ok::<(), ()>(())
            });
            assert_eq!((done, sum.into_inner()), (Ok(()), 31), "{threads} threads");
        }
        assert_eq!(each(Vec::<u8>::new(), 2, |_| Err(())), Ok(()));
    }

    #[test]
    fn two_are_done_at_once() {
        // Each waits for the other to be begun.
        let begun = AtomicUsize::new(0);
        let together = each(vec![(), ()], 2, |()| {
            begun.fetch_add(1, Ordering::AcqRel);
            (0..5000)
                .any(|_| {
                    thread::sleep(Duration::from_millis(1));
                    begun.load(Ordering::Acquire) == 2
                })
                .then_some(())
                .ok_or(())
        });
        assert_eq!(together, Ok(()));
    }

    #[test]
    fn a_failure_ends_it_and_the_first_is_told() {
        let begun = AtomicUsize::new(0);
        let failed = each((0..100).collect(), 1, |item| {
            begun.fetch_add(1, Ordering::Relaxed);
            if item < 3 { Ok(()) } else { Err(item) }
        });
        assert_eq!((failed, begun.into_inner()), (Err(3), 4));
        // The later one fails while the earlier one is looked at, which fails too.
        let later = AtomicUsize::new(0);
        let failed = each(vec![1, 2], 2, |item| {
            if item == 1 {
                while later.load(Ordering::Acquire) == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            later.store(item, Ordering::Release);
            Err::<(), _>(item)
        });
        assert_eq!(failed, Err(1));
    }
}
