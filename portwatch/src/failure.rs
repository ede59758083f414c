//! Why a command failed, as the user is told: what was tried, why it did not work, what to do next,
//! and the exit status.

use std::io;

use crate::{
    errno,
    host::{
        btf::BtfError,
        cgroup::CgroupError,
        kernel::{Release, perf_event_paranoid},
        lockdown::{self, Lockdown},
        privilege::{Capability, Obstacle, Privileges},
    },
    load::LoadError,
    plan::{Facts, PREFERENCE, PlanError},
    sink::{Destination, OpenError, escape::harmless},
    stderr::say,
    store::database::StoreError,
};

/// The kinds of failure, which are exit statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 2
    Usage,
    /// 3: not permitted, or not possible on this kernel
    Impossible,
    /// 4
    Other,
}

/// A failure.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    error: anyhow::Error,
    hints: Vec<String>,
    /// Many lines for those who asked for them.
    details: Option<String>,
}

impl Failure {
    /// A failure of a kind.
    pub fn new(kind: Kind, error: impl Into<anyhow::Error>) -> Self {
        Self {
            kind,
            error: error.into(),
            hints: Vec::new(),
            details: None,
        }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// No way into the kernel works: names the privileges that are missing, if that is why.
    #[must_use]
    pub fn no_way_in(error: PlanError, facts: &Facts) -> Self {
        Self::no_way_in_because(error, facts, &obstacles())
    }

    fn no_way_in_because(error: PlanError, facts: &Facts, obstacles: &[Obstacle]) -> Self {
        let reasons = error.clone();
        let error = anyhow::Error::new(error).context("cannot trace on this machine");
        let mut failure = Self::new(Kind::Impossible, error);
        failure
            .hints
            .extend(obstacles.iter().map(ToString::to_string));
        // Only one that was not asked for can be possible here.
        let refused = |backend| match &reasons {
            PlanError::NoBackend(list) => list.iter().any(|(one, _)| *one == backend),
            PlanError::Fields(_) => true,
        };
        let possible = PREFERENCE
            .into_iter()
            .find(|&backend| facts.allows(backend).is_ok() && !refused(backend));
        if let Some(backend) = possible {
            return failure.hint(format!(
                "{} works here: leave --attach out",
                backend.as_str()
            ));
        }
        if failure.hints.is_empty() {
            failure = failure.hint("portwatch doctor says what would help");
        }
        failure
    }

    /// The kernel's type information is not to be had.
    #[must_use]
    pub fn no_btf(error: BtfError) -> Self {
        let next = error.next_step();
        let error = anyhow::Error::new(error).context("cannot trace on this machine");
        Self::new(Kind::Impossible, error).hint(next)
    }

    /// The kernel refused a map, a program or an attachment. `whole`: with all that its verifier
    /// said.
    #[must_use]
    pub fn from_load(error: LoadError, whole: bool) -> Self {
        Self::refused(error, whole, &obstacles(), Strictness::read())
    }

    fn refused(error: LoadError, whole: bool, obstacles: &[Obstacle], kernel: Strictness) -> Self {
        let sets_kprobe = matches!(
            &error,
            LoadError::Program {
                way: "kprobe" | "kretprobe",
                ..
            }
        );
        let log = match &error {
            LoadError::Verifier { log, .. } => log.trim().to_owned(),
            _ => String::new(),
        };
        let error = anyhow::Error::new(error);
        let errno = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .find_map(io::Error::raw_os_error);
        let mut failure = Self::new(Kind::Impossible, error);
        if whole && !log.is_empty() {
            failure.details = Some(log.clone());
        }
        match errno {
            // The verifier does not know a helper that is locked away: the kernel's errno is any.
            _ if kernel.is_locked_down => {
                return failure.hint(format!("{}: {}", lockdown::NO_READING, lockdown::UNLOCK));
            }
            Some(libc::EPERM) if !obstacles.is_empty() => {
                let obstacles = obstacles.iter().map(ToString::to_string);
                failure.hints.extend(obstacles);
            }
            // kernel/bpf/syscall.c of 5.10, bpf_charge_memlock
            Some(libc::EPERM) if kernel.counts_as_memlock => {
                return failure.hint(
                    "this kernel counts BPF maps as locked memory: raise that limit (ulimit -l \
                     unlimited) or give a smaller --buffer",
                );
            }
            Some(libc::EACCES) if sets_kprobe && kernel.wants_admin_for_kprobes => {
                return failure.hint(
                    "CAP_SYS_ADMIN missing, which this kernel wants for kprobes while \
                     kernel.perf_event_paranoid is above 2: grant it, set that to 2, or leave \
                     --attach kprobe out",
                );
            }
            Some(libc::ENOMEM) => return failure.hint("give a smaller --buffer"),
            // kernel/bpf/trampoline.c, BPF_MAX_TRAMP_LINKS
            Some(libc::E2BIG | libc::EBUSY) => {
                return failure.hint(
                    "other tracers may hold the function: end them, or try --attach kprobe or \
                     --attach raw_tp",
                );
            }
            _ => {}
        }
        if !whole && !log.is_empty() {
            failure = failure.hint("-vv shows all that the kernel's verifier says");
        }
        failure.hint("portwatch doctor says which ways in work here")
    }

    /// The destination cannot be opened.
    #[must_use]
    pub fn from_open(error: OpenError) -> Self {
        Self::new(Kind::Other, error)
    }

    /// A file cannot be recorded to.
    #[must_use]
    pub fn cannot_record(error: StoreError) -> Self {
        let hint = error.hint_to_record();
        Self::of_store(error, hint)
    }

    /// A recording cannot be read.
    #[must_use]
    pub fn cannot_read(error: StoreError) -> Self {
        let hint = error.hint_to_read();
        Self::of_store(error, hint)
    }

    fn of_store(error: StoreError, hint: Option<String>) -> Self {
        let mut failure = Self::new(Kind::Other, error);
        failure.hints.extend(hint);
        failure
    }

    /// The output cannot be written.
    #[must_use]
    pub fn from_write(error: io::Error, destination: &Destination) -> Self {
        let error = match error.downcast::<StoreError>() {
            Ok(store) => return Self::cannot_record(store),
            Err(error) => error,
        };
        let full = error.kind() == io::ErrorKind::StorageFull;
        let error = anyhow::Error::from(error);
        let error = match destination {
            Destination::File(path) => error.context(format!("cannot write to {}", path.display())),
            Destination::Stdout | Destination::Stderr => error.context("cannot write the output"),
        };
        let failure = Self::new(Kind::Other, error);
        if full {
            failure.hint("make room, or choose another place with -w FILE")
        } else {
            failure
        }
    }

    /// Whether the reader of the output went away.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        self.error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit status.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self.kind {
            Kind::Usage => 2,
            Kind::Impossible => 3,
            Kind::Other => 4,
        }
    }

    /// What is wrong, in one line. Names of files and what SQLite quotes of one may be anybody's.
    pub(crate) fn line(&self) -> String {
        harmless(&errno::words(&format_args!("{:#}", self.error)))
    }

    /// Prints it.
    pub fn report(&self) {
        say(format_args!("portwatch: {}", self.line()));
        if let Some(details) = &self.details {
            say(details);
        }
        for hint in &self.hints {
            say(format_args!("hint: {}", harmless(hint)));
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Kind::Other, error)
    }
}

impl From<CgroupError> for Failure {
    fn from(error: CgroupError) -> Self {
        let kind = match error {
            CgroupError::TooMany | CgroupError::Unknown { .. } => Kind::Usage,
            CgroupError::NotMounted => Kind::Impossible,
        };
        Self::new(kind, error)
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::from_load(error, false)
    }
}

/// What this kernel is stricter in than others.
#[derive(Clone, Copy, Debug, Default)]
struct Strictness {
    /// It counts BPF maps as locked memory.
    counts_as_memlock: bool,
    /// It lets only CAP_SYS_ADMIN, which this process does not have, open perf events.
    wants_admin_for_kprobes: bool,
    /// Nobody may read its memory.
    is_locked_down: bool,
}

impl Strictness {
    fn read() -> Self {
        let counts = Release::read().and_then(|release| release.bpf_counts_as_memlock());
        let admin =
            Privileges::read().is_none_or(|own| own.effective.contains(Capability::SysAdmin));
        Self {
            counts_as_memlock: counts == Some(true),
            is_locked_down: Lockdown::read() == Some(Lockdown::Confidentiality),
            // A level of Debian's and Ubuntu's own ("security,perf: Allow further restriction of
            // perf_event_open"): measured on Debian's 6.1, 6.12 and 7.3.
            wants_admin_for_kprobes: !admin && perf_event_paranoid().is_some_and(|level| level > 2),
        }
    }
}

/// What stands in this process' way.
fn obstacles() -> Vec<Obstacle> {
    let mut obstacles = Privileges::read().map_or_else(Vec::new, |own| own.obstacles());
    if Lockdown::read() == Some(Lockdown::Confidentiality) {
        obstacles.push(Obstacle {
            what: lockdown::NO_READING.to_owned(),
            next: lockdown::UNLOCK,
        });
    }
    obstacles
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Backend,
        plan::kernels::{self, Kernel},
    };

    fn shown(failure: &Failure) -> String {
        let mut text = format!("{} {:#}", failure.code(), failure.error);
        for hint in &failure.hints {
            text.push_str("\nhint: ");
            text.push_str(hint);
        }
        text
    }

    fn none_of_all(reason: &str) -> PlanError {
        PlanError::NoBackend(
            PREFERENCE
                .into_iter()
                .map(|backend| (backend, reason.to_owned()))
                .collect(),
        )
    }

    fn no_sudo() -> Obstacle {
        Obstacle {
            what: "CAP_BPF and CAP_PERFMON missing".to_owned(),
            next: "run it with sudo",
        }
    }

    #[test]
    fn without_privileges_the_next_step_is_sudo() {
        let mut facts = kernels::facts(Kernel::V6_12);
        for backend in PREFERENCE {
            facts.refuse(backend, "not permitted".to_owned());
        }
        let failure =
            Failure::no_way_in_because(none_of_all("not permitted"), &facts, &[no_sudo()]);
        assert_eq!(
            shown(&failure),
            "3 cannot trace on this machine: tracing: not permitted; kprobe: not permitted; \
             raw_tp: not permitted\n\
             hint: CAP_BPF and CAP_PERFMON missing: run it with sudo"
        );
    }

    #[test]
    fn an_impossible_attach_names_one_that_is_possible() {
        let facts = kernels::facts(Kernel::V6_18Locked);
        let error = PlanError::NoBackend(vec![(Backend::Kprobe, "no kprobes".to_owned())]);
        assert_eq!(
            shown(&Failure::no_way_in_because(error, &facts, &[])),
            "3 cannot trace on this machine: kprobe: no kprobes\n\
             hint: raw_tp works here: leave --attach out"
        );
    }

    #[test]
    fn without_any_clue_doctor_is_the_next_step() {
        let mut facts = kernels::facts(Kernel::V6_1);
        for backend in PREFERENCE {
            facts.refuse(backend, "odd".to_owned());
        }
        let failure = Failure::no_way_in_because(none_of_all("odd"), &facts, &[]);
        assert!(shown(&failure).ends_with("hint: portwatch doctor says what would help"));
    }

    #[test]
    fn a_kernel_without_btf_is_told_so() {
        let failure = Failure::no_btf(BtfError::Absent {
            path: "/sys/kernel/btf/vmlinux".to_owned(),
        });
        let text = shown(&failure);
        assert!(
            text.starts_with(
                "3 cannot trace on this machine: this kernel shows no type information (BTF): \
                 there is no /sys/kernel/btf/vmlinux\nhint: "
            ),
            "{text}"
        );
        assert!(text.contains("CONFIG_DEBUG_INFO_BTF=y"), "{text}");
    }

    fn load_error(errno: i32, log: &str) -> LoadError {
        LoadError::Verifier {
            program: "bind4_tracing",
            way: "fexit",
            target: "inet_bind",
            log: log.to_owned(),
            source: io::Error::from_raw_os_error(errno),
        }
    }

    #[test]
    fn a_refused_program_is_named_with_the_next_step() {
        for (errno, obstacles, memlock, hint) in [
            (libc::EPERM, vec![no_sudo()], true, "run it with sudo"),
            (libc::EPERM, vec![], true, "ulimit -l unlimited"),
            (libc::EPERM, vec![], false, "portwatch doctor"),
            (libc::ENOMEM, vec![], false, "smaller --buffer"),
            (libc::EBUSY, vec![], false, "other tracers"),
            (libc::EINVAL, vec![no_sudo()], false, "portwatch doctor"),
        ] {
            let kernel = Strictness {
                counts_as_memlock: memlock,
                ..Strictness::default()
            };
            let failure = Failure::refused(load_error(errno, ""), false, &obstacles, kernel);
            let text = shown(&failure);
            assert!(
                text.starts_with("3 cannot load the hook \"bind4_tracing\" (fexit inet_bind): "),
                "{text}"
            );
            assert!(text.contains(hint), "{text}");
        }
    }

    #[test]
    fn a_locked_kernel_is_told_so_whatever_its_errno() {
        let kernel = Strictness {
            is_locked_down: true,
            ..Strictness::default()
        };
        for errno in [libc::EPERM, libc::EINVAL, libc::ENOMEM] {
            let failure = Failure::refused(load_error(errno, ""), false, &[no_sudo()], kernel);
            let text = shown(&failure);
            assert!(text.contains("hint: the kernel is locked down"), "{text}");
            assert!(!text.contains("sudo"), "{text}");
        }
    }

    #[test]
    fn perf_events_that_want_more_are_told_apart_from_the_verifier() {
        let kernel = Strictness {
            wants_admin_for_kprobes: true,
            ..Strictness::default()
        };
        let by = |way| LoadError::Program {
            verb: "attach",
            program: "bind_kprobe",
            way,
            target: "inet_bind",
            source: Box::new(aya::programs::ProgramError::SyscallError(
                aya::sys::SyscallError {
                    call: "perf_event_open",
                    io_error: io::Error::from_raw_os_error(libc::EACCES),
                },
            )),
        };
        let hint = "CAP_SYS_ADMIN missing";
        for way in ["kprobe", "kretprobe"] {
            assert!(shown(&Failure::refused(by(way), false, &[], kernel)).contains(hint));
            let other = Failure::refused(by(way), false, &[], Strictness::default());
            assert!(!shown(&other).contains(hint));
        }
        let fexit = Failure::refused(by("fexit"), false, &[], kernel);
        assert!(!shown(&fexit).contains(hint));
        let verifier = Failure::refused(load_error(libc::EACCES, "log"), false, &[], kernel);
        assert!(!shown(&verifier).contains(hint));
    }

    #[test]
    fn the_verifier_is_quoted_in_full_only_on_demand() {
        let error = || load_error(libc::EACCES, "0: R1=ctx()\n");
        let short = Failure::refused(error(), false, &[], Strictness::default());
        assert_eq!(short.details, None);
        assert!(shown(&short).contains("-vv"), "{short:?}");
        let whole = Failure::refused(error(), true, &[], Strictness::default());
        assert_eq!(whole.details.as_deref(), Some("0: R1=ctx()"));
        assert!(!shown(&whole).contains("-vv"), "{whole:?}");
    }

    #[test]
    fn a_closed_pipe_is_found_behind_its_context() {
        let closed = Failure::from_write(io::ErrorKind::BrokenPipe.into(), &Destination::Stdout);
        assert!(closed.is_closed_pipe());
        let full = Failure::from_write(io::ErrorKind::StorageFull.into(), &Destination::Stdout);
        assert!(!full.is_closed_pipe());
        assert_eq!(full.code(), 4);
        assert!(shown(&full).contains("make room"));
    }

    #[test]
    fn a_full_disk_is_told_with_the_file_that_did_not_fit() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let failure = Failure::from_write(full(), &Destination::File("/mnt/trace.json".into()));
        assert_eq!(failure.code(), 4);
        let text = format!("{:#}", failure.error);
        assert!(
            text.starts_with("cannot write to /mnt/trace.json: "),
            "{text}"
        );
        assert_eq!(failure.hints.len(), 1);
        let text = format!(
            "{:#}",
            Failure::from_write(full(), &Destination::Stdout).error
        );
        assert!(text.starts_with("cannot write the output: "), "{text}");
    }
}
