//! Programs as people run them, whose numbers are known.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    super::{Session, sessions},
    totals::{LO, connected, listener},
    watched::{Churn, in_new_namespace, namespace, number},
};
use crate::{
    bench::{self, Bench},
    script::skip,
    sys::task,
};

pub(super) const ALL: &[Session] = sessions![
    churn_of_pgbench: once,
    churn_in_tmux: once,
];

const NOBODY: u32 = 65_534;

/// A program of this machine.
fn installed(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/bin", "/usr/sbin", "/usr/lib/postgresql/15/bin"];
    let mut places = folders.iter().map(|folder| Path::new(folder).join(name));
    places.find(|place| place.is_file())
}

/// A PostgreSQL of its own, which keeps a log of its connections.
struct Database {
    server: Child,
    log: PathBuf,
}

impl Database {
    const PORT: &str = "5432";

    fn start(bench: &Bench, initdb: &Path, postgres: &Path) -> Result<Self> {
        let folder = bench.file("database")?;
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        std::os::unix::fs::chown(&folder, Some(NOBODY), Some(NOBODY))?;
        let mut command = Command::new(initdb);
        let made = command
            .args(["-N", "-A", "trust", "-U", "postgres", "--no-locale", "-D"])
            .arg(&folder)
            .uid(NOBODY)
            .gid(NOBODY)
            .current_dir("/")
            .output()?;
        ensure!(made.status.success(), "initdb: {made:?}");
        let log = bench.file("database.log")?;
        let server = Command::new(postgres)
            .arg("-D")
            .arg(&folder)
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"])
            .args(["-c", "unix_socket_directories=", "-c", "log_connections=on"])
            .args(["-c", "autovacuum=off"])
            .uid(NOBODY)
            .gid(NOBODY)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        let database = Self { server, log };
        bench::until("PostgreSQL to be ready", || {
            Ok(database.log()?.contains("ready to accept connections"))
        })?;
        Ok(database)
    }

    fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// Connections that it has got.
    fn connections(&self) -> Result<u64> {
        Ok(self.log()?.matches("connection received").count() as u64)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A fast shutdown (pg_ctl(1)); if it is gone already, so much the better.
        let _ = task::signal(self.server.id(), libc::SIGINT);
        let _ = self.server.wait();
    }
}

/// `pgbench -C` connects anew for each transaction.
fn churn_of_pgbench(bench: &Bench) -> Result<()> {
    const TRANSACTIONS: u64 = 60;
    let programs = ["pgbench", "initdb", "postgres"].map(installed);
    let [Some(pgbench), Some(initdb), Some(postgres)] = programs else {
        return skip("no PostgreSQL on this machine");
    };
    in_new_namespace(|netns| {
        let database = Database::start(bench, &initdb, &postgres)?;
        let script = bench.file("script.sql")?;
        fs::write(&script, "SELECT 1;\n")?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o644))?;
        let mut churn = Churn::start(bench, &["--top", "100"])?;
        let ran: Output = Command::new(pgbench)
            .args(["-C", "-n", "-c", "2", "-t"])
            .arg((TRANSACTIONS / 2).to_string())
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                Database::PORT,
                "-U",
                "postgres",
                "-f",
            ])
            .arg(&script)
            .arg("postgres")
            .env("PGSSLMODE", "disable")
            .env("PGGSSENCMODE", "disable")
            .stdin(Stdio::null())
            .output()?;
        ensure!(ran.status.success(), "{ran:?}");
        let connections = database.connections()?;
        ensure!(
            connections >= TRANSACTIONS,
            "{connections} connections for {TRANSACTIONS} transactions"
        );
        let line = churn.settled()?;
        let told = namespace(&line, netns).context("nothing of the namespace")?;
        let taken = number(told, "total.taken.connect")?;
        ensure!(
            taken == connections,
            "{taken} taken for {connections}: {told}"
        );
        let failed = number(told, "total.failed")?;
        ensure!(failed == 0, "{told}");
        churn.stop()?;
        Ok(())
    })
}

/// A terminal of tmux's.
struct Terminal {
    tmux: PathBuf,
    socket: PathBuf,
}

impl Terminal {
    fn ask(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(&self.tmux)
            .arg("-S")
            .arg(&self.socket)
            .args(["-f", "/dev/null"])
            .args(args)
            .env_remove("TMUX")
            .output()?;
        ensure!(output.status.success(), "tmux {args:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn shown(&self) -> Result<String> {
        self.ask(&["capture-pane", "-p"])
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may not have been started.
        let _ = self.ask(&["kill-server"]);
    }
}

/// The screen is drawn in place, and left behind above the next prompt.
fn churn_in_tmux(bench: &Bench) -> Result<()> {
    let Some(tmux) = installed("tmux") else {
        return skip("no tmux on this machine");
    };
    in_new_namespace(|_| {
        let server = listener(LO, 8080)?;
        let terminal = Terminal {
            tmux,
            socket: bench.file("tmux")?,
        };
        terminal.ask(&[
            "new-session",
            "-d",
            "-x",
            "150",
            "-y",
            "45",
            "PS1='ready> ' sh",
        ])?;
        bench::until("a prompt", || Ok(terminal.shown()?.contains("ready>")))?;
        let typed = format!(
            "{} churn --interval 200ms --attach {}",
            bench.portwatch.display(),
            bench.backend.as_str()
        );
        terminal.ask(&["send-keys", &typed, "Enter"])?;
        bench::until("a screen", || {
            Ok(terminal.shown()?.contains("automatic ports in the last"))
        })?;
        let open: Vec<_> = (0..6).map(|_| connected(&server)).collect::<Result<_>>()?;
        let pool = "tcp 127.0.0.1 → 127.0.0.1:8080";
        let mut last = String::new();
        bench::until("the pool", || {
            last = terminal.shown()?;
            Ok(last.contains(pool))
        })?;
        let drawn = last.matches("automatic ports in the last").count();
        ensure!(
            drawn == 1 && last.matches(pool).count() == 1,
            "not in place:\n{last}"
        );
        terminal.ask(&["send-keys", "C-c"])?;
        bench::until("the next prompt", || {
            Ok(terminal.shown()?.matches("ready>").count() == 2)
        })?;
        let text = terminal.shown()?;
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let place = |part: &str| lines.iter().position(|line| line.contains(part));
        let count = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
        ensure!(
            count("automatic ports in the last 0.2 s") == 1,
            "no whole interval is left behind:\n{text}"
        );
        let last = lines.iter().rposition(|line| !line.is_empty());
        ensure!(
            lines
                .first()
                .is_some_and(|line| line.starts_with("ready> "))
                && place("automatic ports").is_some()
                && last
                    .and_then(|last| lines.get(last))
                    .is_some_and(|line| line.ends_with("ready>")),
            "not left behind:\n{text}"
        );
        drop(open);
        Ok(())
    })
}
