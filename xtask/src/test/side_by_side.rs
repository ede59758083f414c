//! Several guests at once: how many, and the order of what they come to.

use std::collections::VecDeque;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

/// How many guests to run at once, of as many as are wished for: each may fill its memory, and as much
/// again is left to the rest of the machine.
///
/// Of a guest's two CPUs one is idle at nearly all times, and both are in a quarter of it (samples of a
/// 6.12 guest in which portwatch starts and ends): a scenario is one process that waits for another. So
/// a guest takes about one CPU of ours; where it gets less, tests of load see too little.
pub(super) fn at_once(wished: usize, available: u64, each: u64) -> usize {
    let fit = usize::try_from((available / each).saturating_sub(1)).unwrap_or(usize::MAX);
    wished.min(fit).max(1)
}

/// Memory that new programs can have, in megabytes (proc(5), MemAvailable).
///
/// # Errors
/// It cannot be read or does not say.
pub(super) fn available_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    parse_available(&text).context("/proc/meminfo has no MemAvailable")
}

fn parse_available(text: &str) -> Option<u64> {
    let rest = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = rest.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes / 1024)
}

/// Does the work on all of the items, on at most `at_once` of them at a time, begun in their order; what
/// came of each, in their order.
pub(super) fn each<T: Send, R: Send>(
    at_once: usize,
    items: Vec<T>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let count = items.len();
    let waiting: Mutex<VecDeque<(usize, T)>> = Mutex::new(items.into_iter().enumerate().collect());
    let next = || {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_front()
    };
    let mut done: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once.clamp(1, count.max(1)))
            .map(|_| {
                scope.spawn(|| {
                    let mut done = Vec::new();
                    while let Some((index, item)) = next() {
                        done.push((index, work(item)));
                    }
                    done
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn guests_fit_the_machine() {
        assert_eq!(at_once(2, 16_000, 2048), 2);
        assert_eq!(at_once(8, 16_000, 2048), 6);
        assert_eq!(at_once(2, 5_000, 2048), 1);
        // There is always one: it may swap, but it runs.
        assert_eq!(at_once(2, 1_000, 2048), 1);
    }

    #[test]
    fn memory_is_read_in_megabytes() {
        let text = "MemTotal:       16000000 kB\nMemAvailable:    2097152 kB\n";
        assert_eq!(parse_available(text), Some(2048));
        assert_eq!(parse_available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn results_stand_in_the_order_of_the_items() {
        let running = AtomicUsize::new(0);
        let most = AtomicUsize::new(0);
        let results = each(2, vec![40, 5, 5, 20], |milliseconds| {
            let now = running.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(now, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(milliseconds));
            running.fetch_sub(1, Ordering::SeqCst);
            milliseconds + 1
        });
        assert_eq!(results, [41, 6, 6, 21]);
        assert_eq!(most.into_inner(), 2);
    }

    #[test]
    fn nothing_to_do_is_done() {
        assert_eq!(each(2, Vec::<u32>::new(), |item| item), [0; 0]);
    }
}
