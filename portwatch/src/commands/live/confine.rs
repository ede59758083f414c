//! Once every hook is attached, what is no longer needed is given up: capabilities, and calls that are
//! never made again. This happens while there is one thread, because capset(2) and seccomp(2) change the
//! calling one, and those that it starts afterwards are like it.

use std::path::Path;

use anyhow::Context as _;

use crate::{
    errno,
    failure::Failure,
    host::{
        privilege::{
            Capability,
            features::{self, Feature},
            sets,
        },
        profile,
    },
};

use super::Notes;

/// What this run needs capabilities for, beside what every run does.
pub(in crate::commands) struct Needs<'a> {
    /// A COMMAND is to get the signals that we get.
    pub(in crate::commands) command: bool,
    /// The directory of a file that is still to be removed.
    pub(in crate::commands) directory: Option<&'a Path>,
}

impl Needs<'_> {
    /// The features of the table that hold on a condition: the kernel is asked, where it can be.
    fn features(&self, are_readable: impl Fn() -> bool) -> Vec<Feature> {
        // Where it cannot be found out, it is kept.
        let works_without = |capabilities: &[Capability], act: &mut dyn FnMut() -> bool| {
            sets::without(capabilities, act) == Some(true)
        };
        // Either of them allows bpf().
        let counters = [Capability::Bpf, Capability::SysAdmin];
        let counters = !works_without(&counters, &mut || are_readable());
        let directory = self.directory.is_some_and(|directory| {
            let change = [Capability::DacOverride];
            !works_without(&change, &mut || sets::may_change(directory))
        });
        [
            (counters, Feature::Counters),
            (self.command, Feature::Command),
            (directory, Feature::Recording),
        ]
        .into_iter()
        .filter_map(|(needed, feature)| needed.then_some(feature))
        .collect()
    }
}

/// Gives up the rest, for good. `are_readable`: whether the kernel lets the programs' counters be read now.
///
/// # Errors
/// When something keeps this process from having less. A kernel without seccomp filters is none.
pub(in crate::commands) fn confine(
    needs: &Needs<'_>,
    are_readable: impl Fn() -> bool,
    say: &Notes,
) -> Result<(), Failure> {
    let keep = features::while_running(&needs.features(are_readable));
    sets::keep_only(keep).context("cannot give up capabilities")?;
    if let Err(error) = profile::put_in_force() {
        say.detail(|| format!("no seccomp filter: {}", errno::words(&error)));
    }
    Ok(())
}
