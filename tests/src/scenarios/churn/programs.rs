//! Programs as people run them, whose numbers are known.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    super::{
        Session,
        programs::{inside, root, work},
        sessions,
    },
    totals::{LO, connected, listener},
    watched::{Churn, in_new_namespace, namespace, number},
};
use crate::{
    bench::{self, Bench},
    script::skip,
    sys::{netns::Netns, task},
};

pub(super) const ALL: &[Session] = sessions![
    programs_churn_of_pgbench: once,
    programs_churn_of_ab: once,
    churn_in_tmux: once,
];

/// A program of this machine.
fn installed(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/bin", "/usr/sbin"];
    let mut places = folders.iter().map(|folder| Path::new(folder).join(name));
    places.find(|place| place.is_file())
}

/// Debian's programs, with a folder that they have as their /tmp.
struct Programs<'a> {
    root: &'a Path,
    work: PathBuf,
}

impl<'a> Programs<'a> {
    fn new(bench: &'a Bench) -> Result<Self> {
        Ok(Self {
            root: root(bench)?,
            work: work(bench)?,
        })
    }

    fn command(&self, args: &[&str]) -> Command {
        inside(self.root, &self.work, args)
    }

    /// Runs one to its end, which has to be a good one; what it printed.
    fn run(&self, args: &[&str]) -> Result<String> {
        let ran: Output = self.command(args).output()?;
        ensure!(ran.status.success(), "{args:?}: {ran:?}");
        Ok(String::from_utf8(ran.stdout)?)
    }

    /// Starts one that stays, and waits until it listens.
    fn serve(&self, args: &[&str], port: u16, ends_on: i32) -> Result<Server> {
        let log = self.work.join("log");
        let child = self
            .command(args)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        let server = Server {
            child,
            log,
            ends_on,
        };
        let listens = format!("0100007F:{port:04X} 00000000:0000 0A");
        bench::until("a server that listens", || {
            // Of the namespace that this thread is in.
            Ok(fs::read_to_string("/proc/thread-self/net/tcp")?.contains(&listens))
        })?;
        Ok(server)
    }
}

impl Drop for Programs<'_> {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.work) {
            eprintln!("{} stays: {error}", self.work.display());
        }
    }
}

/// A program that serves until a signal ends it.
struct Server {
    child: Child,
    log: PathBuf,
    ends_on: i32,
}

impl Drop for Server {
    fn drop(&mut self) {
        // If it is gone already, so much the better.
        let _ = task::signal(self.child.id(), self.ends_on);
        let _ = self.child.wait();
    }
}

/// How many ports connect() has taken in the namespace so far; no attempt has failed.
fn taken(churn: &mut Churn, netns: &Netns) -> Result<u64> {
    let line = churn.settled()?;
    let told = namespace(&line, netns).context("nothing of the namespace")?;
    let failed = number(told, "total.failed")?;
    ensure!(failed == 0, "{told}");
    number(told, "total.taken.connect")
}

/// `pgbench -C` connects anew for each transaction; PostgreSQL logs each connection.
fn programs_churn_of_pgbench(bench: &Bench) -> Result<()> {
    const TRANSACTIONS: u64 = 60;
    const AS: &[&str] = &["/usr/sbin/chroot", "--userspec=postgres:postgres", "/"];
    let programs = Programs::new(bench)?;
    in_new_namespace(|netns| {
        let of_postgres = |name: &str| format!("/usr/lib/postgresql/17/bin/{name}");
        let initdb = of_postgres("initdb");
        let made = [
            "-N",
            "-A",
            "trust",
            "-U",
            "postgres",
            "--no-locale",
            "-D",
            "/tmp/data",
        ];
        programs.run(&[AS, &[initdb.as_str()], &made].concat())?;
        let postgres = of_postgres("postgres");
        let options = [
            "-D",
            "/tmp/data",
            "-clisten_addresses=127.0.0.1",
            "-cunix_socket_directories=",
            "-cfsync=off",
            "-clog_connections=on",
            "-cautovacuum=off",
        ];
        let server = [AS, &[postgres.as_str()], &options].concat();
        // A fast shutdown (pg_ctl(1)).
        let server = programs.serve(&server, 5432, libc::SIGINT)?;
        bench::until("PostgreSQL to be ready", || {
            Ok(fs::read_to_string(&server.log)?.contains("ready to accept connections"))
        })?;
        fs::write(programs.work.join("script.sql"), "SELECT 1;\n")?;
        let mut churn = Churn::start(bench, &["--top", "100"])?;
        let each = (TRANSACTIONS / 2).to_string();
        let url = "host=127.0.0.1 user=postgres dbname=postgres sslmode=disable gssencmode=disable";
        let pgbench = of_postgres("pgbench");
        let pgbench = [
            pgbench.as_str(),
            "-C",
            "-n",
            "-c",
            "2",
            "-t",
            &each,
            "-f",
            "/tmp/script.sql",
            url,
        ];
        programs.run(&pgbench)?;
        let connections = fs::read_to_string(&server.log)?
            .matches("connection received")
            .count();
        let connections = connections as u64;
        ensure!(
            connections >= TRANSACTIONS,
            "{connections} connections for {TRANSACTIONS} transactions"
        );
        let taken = taken(&mut churn, netns)?;
        ensure!(taken == connections, "{taken} taken for {connections}");
        churn.stop()?;
        Ok(())
    })
}

const NGINX: &str = "
daemon off;
user nobody nogroup;
worker_processes 2;
pid /tmp/nginx.pid;
events { worker_connections 64; }
http {
    access_log off;
    server {
        listen 127.0.0.1:8080;
        location / { return 200 served; }
        location /status { stub_status; }
    }
}
";

/// ab, without `-k`, connects anew for each request, and now and then once more: those that it has begun when
/// the last request is sent. nginx counts what comes.
fn programs_churn_of_ab(bench: &Bench) -> Result<()> {
    const REQUESTS: u64 = 200;
    let programs = Programs::new(bench)?;
    in_new_namespace(|netns| {
        fs::write(programs.work.join("nginx.conf"), NGINX)?;
        // The folders that Debian's nginx has its temporary files in lie under /var, which is empty.
        let start = "mkdir -p /var/lib/nginx /var/log/nginx && exec nginx -c /tmp/nginx.conf";
        // A quick shutdown (nginx(8)).
        let _server = programs.serve(&["/usr/bin/bash", "-c", start], 8080, libc::SIGTERM)?;
        let mut churn = Churn::start(bench, &["--top", "100"])?;
        let requests = REQUESTS.to_string();
        let url = "http://127.0.0.1:8080";
        let ab = [
            "/usr/bin/ab",
            "-n",
            &requests,
            "-c",
            "8",
            &format!("{url}/"),
        ];
        let said = programs.run(&ab)?;
        let done = said
            .lines()
            .find_map(|line| line.strip_prefix("Complete requests:"));
        ensure!(done.map(str::trim) == Some(requests.as_str()), "{said}");
        let taken = taken(&mut churn, netns)?;
        churn.stop()?;
        let status = programs.run(&["/usr/bin/curl", "-sS", &format!("{url}/status")])?;
        // The third line: accepted, handled, requests.
        let accepted = status
            .lines()
            .nth(2)
            .and_then(|line| line.split_whitespace().next());
        let accepted: u64 = accepted.context("no figures of nginx's")?.parse()?;
        // One of them was curl's.
        ensure!(
            taken + 1 == accepted && taken >= REQUESTS,
            "{taken} taken for {REQUESTS} requests: {status}"
        );
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
