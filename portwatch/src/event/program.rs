//! What tells one program from another.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::{Process, Task};

/// A number that is the same for two processes that run the same program with the same arguments, for the
/// same unit and in the same container: what is started again, or forks. An interpreter runs many programs,
/// which only their arguments tell apart; where these are not known, neither is the difference.
#[must_use]
pub fn identity(task: &Task, process: &Process) -> u64 {
    let mut hasher = DefaultHasher::new();
    match &process.executable_path {
        Some(path) => path.hash(&mut hasher),
        None => task.comm.hash(&mut hasher),
    }
    process.args.hash(&mut hasher);
    process.systemd_unit.hash(&mut hasher);
    let container = process.container.as_ref();
    container.map(|container| &container.id).hash(&mut hasher);
    hasher.finish()
}
