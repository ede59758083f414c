//! The service manager, where there is one (sd_notify(3), sd_watchdog_enabled(3)).

use std::{
    cell::OnceCell,
    io,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use sd_notify::NotifyState;

use super::super::live::Attendant;
use crate::{errno, stderr::say, store::writer::Pulse};

/// Whether what writes is alive, as soon as it is there.
pub(super) type Writing = Rc<OnceCell<Pulse>>;

/// Tells it that everything is ready, and again and again that it still goes on.
pub(super) struct Service {
    writing: Writing,
    /// Where the recording is.
    directory: PathBuf,
    /// How long it waits before it takes us for dead.
    patience: Option<Duration>,
}

impl Service {
    pub(super) fn new(writing: Writing, directory: PathBuf) -> Self {
        Self {
            writing,
            directory,
            patience: sd_notify::watchdog_enabled(),
        }
    }
}

impl Attendant for Service {
    fn ready(&mut self) {
        tell(sd_notify::notify(&[
            NotifyState::Ready,
            NotifyState::Status("recording"),
        ]));
    }

    fn period(&self) -> Option<Duration> {
        // As sd_watchdog_enabled(3) recommends.
        self.patience.map(|patience| patience / 2)
    }

    /// SQLite removes what it keeps beside the recording when it closes that.
    fn directory(&self) -> Option<&Path> {
        Some(&self.directory)
    }

    fn pulse(&self) -> Option<Pulse> {
        self.writing.get().cloned()
    }

    /// A loop that goes round while nothing is written is not alive.
    fn tick(&mut self) {
        let patience = self.patience.unwrap_or(Duration::MAX);
        if self
            .writing
            .get()
            .is_some_and(|writing| writing.is_alive(patience))
        {
            tell(sd_notify::notify(&[NotifyState::Watchdog]));
        }
    }
}

/// That it cannot be told is for whoever looks why it ends us.
fn tell(told: io::Result<()>) {
    if let Err(error) = told {
        say(format_args!(
            "portwatch: cannot tell the service manager: {}",
            errno::words(&error)
        ));
    }
}

#[cfg(test)]
mod tests {
    /// A file of gigabytes takes more than the 90 seconds that a unit has otherwise.
    #[test]
    fn the_unit_may_take_its_time_to_start() {
        let unit = include_str!("../../../../packaging/portwatch-record.service");
        assert!(unit.contains("\nTimeoutStartSec=infinity\n"));
    }
}
