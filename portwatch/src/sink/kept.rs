//! What was printed of a process the last time: most events come from a process that has just had
//! another one, and describing it is most of a line.

use std::sync::Arc;

use crate::event::{Process, Task};

/// Processes that are kept. More than are busy at once on most machines, and little memory.
const SLOTS: usize = 16;

/// A small, bounded, direct-mapped cache.
#[derive(Debug, Default)]
pub(super) struct Kept {
    slots: [Slot; SLOTS],
}

#[derive(Debug, Default)]
struct Slot {
    key: Option<Key>,
    bytes: Vec<u8>,
    columns: usize,
}

#[derive(Debug)]
struct Key {
    task: Task,
    /// Held, so that no other process can come to lie at its address.
    process: Arc<Process>,
    variant: usize,
}

impl Kept {
    /// What `print` appends for this process, and the columns it says that takes. It is called
    /// again only when something about the process, or `variant`, has changed.
    pub(super) fn get(
        &mut self,
        task: &Task,
        process: &Arc<Process>,
        variant: usize,
        print: impl FnOnce(&mut Vec<u8>) -> usize,
    ) -> (&[u8], usize) {
        let Slot {
            key,
            bytes,
            columns,
        } = &mut self.slots[task.tid as usize % SLOTS];
        let is_kept = key.as_ref().is_some_and(|key| {
            Arc::ptr_eq(&key.process, process) && key.variant == variant && key.task == *task
        });
        if !is_kept {
            bytes.clear();
            *columns = print(bytes);
            *key = Some(Key {
                task: task.clone(),
                process: Arc::clone(process),
                variant,
            });
        }
        (bytes, *columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_again_when_anything_changes() {
        let mut kept = Kept::default();
        let mut printed = 0;
        let mut get = |task: &Task, process: &Arc<Process>, variant| {
            kept.get(task, process, variant, |bytes| {
                printed += 1;
                bytes.extend_from_slice(printed.to_string().as_bytes());
                printed
            })
            .1
        };
        let task = Task::default();
        let process = Arc::new(Process::default());
        assert_eq!(get(&task, &process, 0), 1);
        assert_eq!(get(&task, &process, 0), 1);
        assert_eq!(get(&task, &process, 1), 2);
        let renamed = Task {
            comm: Some("new".into()),
            ..Task::default()
        };
        assert_eq!(get(&renamed, &process, 1), 3);
        assert_eq!(get(&renamed, &Arc::new(Process::default()), 1), 4);
        let elsewhere = Task {
            tid: 1,
            ..Task::default()
        };
        assert_eq!(get(&elsewhere, &process, 1), 5);
        assert_eq!(get(&elsewhere, &process, 1), 5);
    }
}
