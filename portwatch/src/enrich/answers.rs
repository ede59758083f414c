//! What was found out about refusals in the last second: who is refused is often refused a thousand times
//! a second, and nobody is to keep portwatch from reading its events that way.

use std::{num::NonZeroUsize, time::Instant};

use lru::LruCache;

use super::descriptors::budget::Budget;

/// Namespaces remembered.
const CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);

/// Answers of one namespace that are kept.
const PER_NETNS: usize = 16;

/// How long an answer holds, ns of event time.
const VALIDITY: u64 = 1_000_000_000;

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// Inode of the network namespace.
    pub netns: u32,
    /// The process whose call was refused.
    pub pid: u32,
    /// CLOCK_BOOTTIME, ns.
    pub now: u64,
}

#[derive(Debug)]
struct Answer<Q, T> {
    time: u64,
    /// On behalf of which process.
    pid: u32,
    question: Q,
    answer: T,
}

/// Answers to questions of one kind.
#[derive(Debug)]
pub struct Answers<Q, T> {
    known: LruCache<u32, Vec<Answer<Q, T>>>,
    budget: Budget,
}

impl<Q, T> Default for Answers<Q, T> {
    fn default() -> Self {
        Self {
            known: LruCache::new(CAPACITY),
            budget: Budget::limited(),
        }
    }
}

impl<Q: PartialEq, T: Clone> Answers<Q, T> {
    /// The answer to a question: from the last second, or found out by `find`; `None` where there is no
    /// time for that. `is_same`: whether the namespace is still the one in which another process asked, for
    /// inodes are given out again.
    pub fn get(
        &mut self,
        Asker { netns, pid, now }: Asker,
        question: Q,
        is_same: impl Fn(u32) -> bool,
        find: impl FnOnce(&Q) -> T,
    ) -> Option<T> {
        let kept = self.known.get_or_insert_mut(netns, Vec::new);
        kept.retain(|answer| now.saturating_sub(answer.time) < VALIDITY);
        if let Some(known) = kept.iter().find(|known| known.question == question)
            && is_same(known.pid)
        {
            return Some(known.answer.clone());
        }
        let began = Instant::now();
        if !self.budget.allows(began) {
            return None;
        }
        let answer = find(&question);
        self.budget.spend(began.elapsed());
        kept.retain(|known| known.question != question);
        if kept.len() == PER_NETNS {
            kept.remove(0);
        }
        kept.push(Answer {
            time: now,
            pid,
            question,
            answer: answer.clone(),
        });
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn asker(pid: u32, now: u64) -> Asker {
        Asker { netns: 7, pid, now }
    }

    #[test]
    fn a_storm_asks_once_a_second() {
        let mut answers = Answers::default();
        let mut asked = 0;
        let mut ask = |question: u32, asker| {
            let same = |pid| pid == 1;
            answers.get(asker, question, same, |_| {
                asked += 1;
                asked
            })
        };
        assert_eq!(ask(9, asker(1, 5)), Some(1));
        assert_eq!(ask(9, asker(2, 4 + VALIDITY)), Some(1));
        assert_eq!(ask(8, asker(2, 6)), Some(2));
        assert_eq!(ask(9, asker(2, 5 + VALIDITY)), Some(3));
        // Process 2 is gone, and its namespace's inode is another's.
        assert_eq!(ask(9, asker(3, 5 + VALIDITY)), Some(4));
        for question in 100..200 {
            ask(question, asker(1, VALIDITY));
        }
        let kept: usize = answers.known.iter().map(|(_, kept)| kept.len()).sum();
        assert_eq!(kept, PER_NETNS);
    }

    #[test]
    fn there_is_time_for_so_much_of_it() {
        let mut answers = Answers::default();
        answers.budget.spend(Duration::from_secs(2));
        assert_eq!(answers.get(asker(1, 5), 9, |_| true, |_| 1), None);
    }
}
