//! The report for people.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use portwatch_ebpf::abi::layout::Kind;
use textwrap::{Options, WordSplitter};

use super::report::{FieldReport, HookReport, HookStatus, Problem, Report, Severity};
use crate::{
    event::Backend,
    host::{
        kernel::UnprivilegedBpf,
        limits::Limit,
        privilege::{
            self, Capability, Privileges,
            features::{self, When},
        },
    },
    sink::escape::Escape,
};

/// Columns where there is no terminal.
pub(super) const WIDTH: usize = 80;

/// How the report is to look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Columns.
    pub(super) width: usize,
    /// Use colours.
    pub(super) color: bool,
    /// Problems only.
    pub(super) quiet: bool,
    /// Every hook and field.
    pub(super) verbose: bool,
}

/// The report as text.
pub(super) fn render(report: &Report, look: Look) -> String {
    let mut page = Page {
        out: String::new(),
        look,
    };
    if !look.quiet {
        verdict(&mut page, report);
        backends(&mut page, report);
        machine(&mut page, report);
        if look.verbose {
            hooks(&mut page, &report.hooks);
            fields(&mut page, &report.fields);
        }
        capabilities(&mut page, report.privileges.as_ref());
        blind_spots(&mut page, report);
    }
    problems(&mut page, report);
    page.out
}

/// Where the text of a row begins.
const COLUMN: usize = 16;

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const POOR: Style = AnsiColor::Yellow.on_default();
const PLAIN: Style = Style::new();
const TITLE: Style = Style::new().bold();

/// Text that grows line by line within a width.
struct Page {
    out: String,
    look: Look,
}

impl Page {
    fn title(&mut self, text: &str) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        let text = self.painted(TITLE, text);
        self.out.push_str(&text);
        self.out.push('\n');
    }

    /// A label, and beside it a text that is wrapped.
    fn row(&mut self, style: Style, label: &str, text: &str) {
        self.hanging(style, &format!("  {label}"), COLUMN, text);
    }

    /// A beginning, and from a column on a text that is wrapped.
    fn hanging(&mut self, style: Style, begin: &str, column: usize, text: &str) {
        let gap = " ".repeat(column.saturating_sub(begin.chars().count()).max(1));
        let indent = " ".repeat(column);
        // Wrapped before it is painted: escape sequences take no columns.
        let options = Options::new(self.look.width.max(40))
            .initial_indent(&indent)
            .subsequent_indent(&indent)
            .word_splitter(WordSplitter::NoHyphenation)
            .break_words(false);
        let text = textwrap::fill(&harmless(text), options);
        let painted = self.painted(style, begin);
        let _ = writeln!(self.out, "{painted}{gap}{}", text.trim_start());
    }

    fn painted(&self, style: Style, text: &str) -> String {
        if self.look.color {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}

/// Without anything that acts on a terminal.
fn harmless(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    Escape::new(&mut bytes, usize::MAX).push(text);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn verdict(page: &mut Page, report: &Report) {
    let release = report.release.as_deref().map_or_else(
        || "an unknown kernel".to_owned(),
        |text| format!("Linux {text}"),
    );
    let title = format!(
        "portwatch {} on {}",
        env!("CARGO_PKG_VERSION"),
        harmless(&release)
    );
    page.title(&title);
    let line = match report.chosen {
        Some(backend) => {
            let text = format!("trace works here, through {}", backend.as_str());
            page.painted(GOOD, &text)
        }
        None => page.painted(BAD, "trace cannot run here"),
    };
    page.out.push_str(&line);
    page.out.push('\n');
}

fn backends(page: &mut Page, report: &Report) {
    page.title("Ways into the kernel, the best first");
    for (backend, verdict) in &report.backends {
        let (style, word, text) = match verdict {
            Ok(()) if report.chosen == Some(*backend) => (GOOD, "yes", "trace takes this one"),
            Ok(()) => (PLAIN, "yes", "possible too"),
            Err(refusal) => (POOR, "no", refusal.reason.as_str()),
        };
        let begin = format!("  {word:<4} {}", backend.as_str());
        page.hanging(style, &begin, COLUMN, text);
    }
}

fn machine(page: &mut Page, report: &Report) {
    page.title("This machine");
    match &report.btf {
        Ok(()) => page.row(PLAIN, "BTF", "there and sound"),
        Err(what) => page.row(BAD, "BTF", what),
    }
    if report.btf.is_ok() {
        hook_summary(page, report);
        field_summary(page, &report.fields);
    }
    match &report.privileges {
        Some(privileges) => privilege_rows(page, privileges),
        None => page.row(POOR, "privileges", "cannot be read from /proc/self/status"),
    }
    let confined = if report.confinable {
        "a trace is confined to what it does once it has begun (seccomp)"
    } else {
        "no seccomp filters here: a trace is not confined once it has begun"
    };
    page.row(PLAIN, "confinement", confined);
    if let Some(lockdown) = report.lockdown {
        page.row(PLAIN, "lockdown", lockdown.as_str());
    }
    if let Some(built_in) = report.kprobes {
        let text = if built_in { "built in" } else { "not built in" };
        page.row(PLAIN, "kprobes", text);
    }
    if let Some((limit, counted)) = &report.memlock
        && (page.look.verbose || *counted != Some(false))
    {
        page.row(PLAIN, "memlock", &memlock(limit, *counted));
    }
    if let Some(runtime) = &report.container.runtime {
        page.row(PLAIN, "container", runtime);
    }
    if page.look.verbose {
        switches(page, report);
    }
}

fn switches(page: &mut Page, report: &Report) {
    if let Some(switch) = report.unprivileged_bpf {
        let text = match switch {
            UnprivilegedBpf::Allowed => "allowed, for programs that do not trace",
            UnprivilegedBpf::Disabled => "disabled, an administrator may allow it",
            UnprivilegedBpf::DisabledForGood => "disabled until the next boot",
        };
        page.row(PLAIN, "users' BPF", text);
    }
    if let Some(level) = report.perf_event_paranoid {
        let above = if level > 2 {
            "CAP_PERFMON, and for kprobes CAP_SYS_ADMIN, stand above it"
        } else {
            "CAP_PERFMON stands above it"
        };
        let text = format!("perf_event_paranoid is {level}; {above}");
        page.row(PLAIN, "perf events", &text);
    }
    let tracefs = report
        .tracefs
        .unwrap_or("not mounted; portwatch does not need it");
    page.row(PLAIN, "tracefs", tracefs);
}

fn memlock(limit: &Limit, counted: Option<bool>) -> String {
    let Limit { soft, hard } = limit;
    let bytes = |limit: Option<u64>| {
        limit.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{bytes} bytes"))
    };
    let why = match counted {
        Some(true) => "this kernel counts BPF maps against it",
        Some(false) => "not counted for BPF on this kernel",
        None => "counted for BPF before Linux 5.11",
    };
    format!(
        "{}, at most {}; {why}",
        bytes(*soft),
        bytes(*hard).replace("unlimited", "without limit")
    )
}

fn privilege_rows(page: &mut Page, privileges: &Privileges) {
    let missing = privileges.effective.lacking(&Capability::ALL);
    let user = match privileges.uid {
        0 => "root".to_owned(),
        uid => format!("user id {uid}"),
    };
    let style = if privileges.missing_required().is_empty() {
        PLAIN
    } else {
        BAD
    };
    if missing.is_empty() {
        page.row(style, "privileges", &format!("{user}, nothing is missing"));
    } else {
        let names: Vec<&str> = missing.iter().map(|one| one.as_str()).collect();
        let text = format!("{user}, without {}", names.join(", "));
        page.row(style, "privileges", &text);
    }
    let mut around = Vec::new();
    if privileges.no_new_privileges {
        around.push("no_new_privs is set");
    }
    if privileges.seccomp_filter {
        around.push("a seccomp filter is in force");
    }
    if !privileges.initial_user_namespace {
        around.push("a user namespace of its own");
    }
    if !around.is_empty() {
        page.row(PLAIN, "", &around.join(", "));
    }
}

/// What matters for the backend that runs; for all where none does.
fn matters(hook: &HookReport, chosen: Option<Backend>) -> bool {
    chosen.is_none_or(|backend| hook.backends.contains(&backend))
}

fn hook_summary(page: &mut Page, report: &Report) {
    let hooks: Vec<_> = report
        .hooks
        .iter()
        .filter(|hook| matters(hook, report.chosen))
        .collect();
    let found = hooks
        .iter()
        .filter(|hook| hook.status == HookStatus::Found)
        .count();
    let whose = match report.chosen {
        Some(backend) => format!(" for {}", backend.as_str()),
        None => String::new(),
    };
    let text = format!("{found} of {} found{whose}{}", hooks.len(), more(page));
    page.row(PLAIN, "hooks", &text);
    if !page.look.verbose {
        for hook in hooks.iter().filter(|hook| hook.status != HookStatus::Found) {
            hook_row(page, hook);
        }
    }
}

/// Where the rest can be seen.
fn more(page: &Page) -> &'static str {
    if page.look.verbose {
        ""
    } else {
        " (-v lists them)"
    }
}

fn hook_row(page: &mut Page, hook: &HookReport) {
    let HookReport {
        purpose,
        target,
        backends,
        status,
        prototype,
    } = hook;
    let style = match status {
        HookStatus::Found => PLAIN,
        HookStatus::Absent => POOR,
        HookStatus::Missing | HookStatus::Changed => BAD,
    };
    let names: Vec<&str> = backends.iter().map(|one| one.as_str()).collect();
    let mut text = format!("{target}: {purpose} ({})", names.join(", "));
    if let Some(prototype) = prototype
        && (page.look.verbose || *status == HookStatus::Changed)
    {
        let _ = write!(text, "; {prototype}");
    }
    page.row(style, status.as_str(), &text);
}

fn field_summary(page: &mut Page, fields: &[FieldReport]) {
    let with = |status: &str| {
        let names = fields.iter().filter(|field| field.status() == status);
        names.map(|field| field.field.name).collect::<Vec<_>>()
    };
    let found = with("found").len();
    let text = format!("{found} of {} found{}", fields.len(), more(page));
    page.row(PLAIN, "fields", &text);
    if page.look.verbose {
        return;
    }
    for (style, status, note) in [
        (PLAIN, "absent", " (not every kernel has them)"),
        (BAD, "missing", ""),
    ] {
        let names = with(status);
        if !names.is_empty() {
            page.row(style, status, &format!("{}{note}", names.join(", ")));
        }
    }
}

fn hooks(page: &mut Page, hooks: &[HookReport]) {
    if !hooks.is_empty() {
        page.title("Hooks");
    }
    for hook in hooks {
        hook_row(page, hook);
    }
}

fn fields(page: &mut Page, fields: &[FieldReport]) {
    if !fields.is_empty() {
        page.title("Kernel fields");
    }
    for field in fields {
        let style = match (field.found, field.field.required) {
            (Some(_), _) => PLAIN,
            (None, false) => POOR,
            (None, true) => BAD,
        };
        let mut text = field.path().to_owned();
        if let Some((_, number)) = field.found {
            let unit = match field.field.kind {
                Kind::Offset(_) | Kind::Place => "byte",
                Kind::Bits(_) => "bit",
                Kind::Size => "size",
            };
            let _ = write!(text, ", {unit} {number}");
        }
        page.row(style, field.status(), &text);
    }
}

/// The table of features: what each needs, and for how long.
fn capabilities(page: &mut Page, privileges: Option<&Privileges>) {
    page.title("Capabilities that trace and record use; all others are given up at start");
    for row in features::TABLE {
        let lacking = privileges.map(|own| own.effective.lacking(row.capabilities));
        let style = match &lacking {
            Some(lacking) if !lacking.is_empty() => POOR,
            _ => PLAIN,
        };
        let when = match row.when {
            When::Start => "at start".to_owned(),
            When::Running => "while running".to_owned(),
            When::RunningIf(condition) => format!("while running, if {condition}"),
        };
        let text = format!(
            "{}, {when}: {}",
            privilege::names(row.capabilities),
            row.purpose
        );
        page.hanging(style, &format!("  {}", row.name), 20, &text);
    }
}

fn blind_spots(page: &mut Page, report: &Report) {
    let Some(backend) = report.chosen.filter(|_| !report.degraded.is_empty()) else {
        return;
    };
    page.title(&format!("Not seen through {}", backend.as_str()));
    let column = 4 + report
        .degraded
        .iter()
        .map(|spot| spot.feature.len())
        .max()
        .unwrap_or_default();
    for spot in &report.degraded {
        let begin = format!("  {}", spot.feature);
        page.hanging(PLAIN, &begin, column, spot.reason);
    }
}

fn problems(page: &mut Page, report: &Report) {
    for (severity, title, style) in [
        (Severity::Blocks, "What is in the way", BAD),
        (Severity::Limits, "What would help to see more", POOR),
    ] {
        let mut some = report
            .problems
            .iter()
            .filter(|problem| problem.severity == severity)
            .peekable();
        if some.peek().is_some() {
            page.title(title);
        }
        for Problem { what, next, .. } in some {
            page.hanging(style, "  -", 4, what);
            page.hanging(PLAIN, "    →", 6, next);
        }
    }
}
