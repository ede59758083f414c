//! Others who take part: processes that take ports and keep them while the workload goes on.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, Command, Stdio},
    rc::Rc,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{Ctx, Script, holder::Portrait};
use crate::{
    expect::Expected,
    sys::{bpf::Cgroup, copy::Copy, proc::Me, sock::Sock, task},
};

/// What such a process does; the sockets that it returns stay open.
pub(crate) type Part = fn(&mut Script) -> Result<Vec<Sock>>;

/// A part under the name by which a program is told to play it.
#[derive(Clone, Copy)]
pub(crate) struct Role {
    pub(crate) name: &'static str,
    pub(crate) play: Part,
}

/// A process that keeps sockets open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The process.
    pub(crate) me: Me,
    /// Its sockets, in the order that its part returned them.
    pub(crate) socks: Vec<Portrait>,
    /// What it has started in its turn, and left its sockets to.
    pub(crate) heirs: Vec<u32>,
}

impl Kept {
    /// Its only socket.
    pub(crate) fn sock(&self) -> Result<&Portrait> {
        match &self.socks[..] {
            [sock] => Ok(sock),
            socks => bail!("{} sockets instead of one", socks.len()),
        }
    }
}

/// What programs are told that only keep what they have.
const IDLE: [&str; 2] = ["helper", "idle"];

/// What such a process reports.
#[derive(Serialize, Deserialize)]
struct Report {
    expected: Expected,
    kept: Kept,
}

/// Such processes. They end when this is dropped.
#[derive(Default)]
pub(crate) struct Keepers {
    running: Vec<Keeper>,
    /// Their heirs end with these pipes.
    pipes: Vec<ChildStdin>,
    /// They can go away when the processes have.
    cgroups: Vec<Cgroup>,
    copies: Vec<Copy>,
}

struct Keeper {
    child: Child,
    program: Rc<Copy>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // It may have ended already; either way it has to be waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Plays a part, reports in a line on stdout, and waits to be killed.
pub(crate) fn play(ctx: Ctx, role: Role) -> Result<()> {
    task::die_with_parent()?;
    let mut script = Script::new(ctx)?;
    let socks = (role.play)(&mut script)?;
    let kept = Kept {
        me: Me::learn()?,
        socks: socks.iter().map(Portrait::of).collect::<Result<_>>()?,
        heirs: std::mem::take(&mut script.heirs),
    };
    let next = script.next.take();
    let (expected, _keepers) = script.end();
    let mut line = serde_json::to_vec(&Report { expected, kept })?;
    line.push(b'\n');
    std::io::stdout().lock().write_all(&line)?;
    if let Some(program) = next {
        return Err(Command::new(program).args(IDLE).exec().into());
    }
    loop {
        std::thread::park();
    }
}

impl Script {
    /// Starts another program that plays a part and keeps its sockets. It is called `name`, as is its
    /// executable; `args` stand behind its own arguments.
    pub(crate) fn program(&mut self, name: &str, role: &str, args: &[&str]) -> Result<Kept> {
        self.start(Rc::new(Copy::new(name)?), role, args)
    }

    /// Starts the program of another one once more.
    pub(crate) fn again(&mut self, kept: &Kept, role: &str, args: &[&str]) -> Result<Kept> {
        let program = Rc::clone(&self.keepers.running[self.place(kept)?].program);
        self.start(program, role, args)
    }

    fn start(&mut self, program: Rc<Copy>, role: &str, args: &[&str]) -> Result<Kept> {
        let mut command = Command::new(&program.path);
        command
            .args(["part", role, "--attach", self.ctx.backend.as_str(), "--"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", program.path.display()))?;
        let stdout = child.stdout.take().context("no pipe")?;
        self.keepers.pipes.extend(child.stdin.take());
        self.keepers.running.push(Keeper { child, program });
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(!line.is_empty(), "{role} failed");
        let Report { expected, kept } = serde_json::from_str(&line)?;
        self.merge(expected);
        Ok(kept)
    }

    /// Ends such a process at once, and waits until it has.
    pub(crate) fn dismiss(&mut self, kept: &Kept) -> Result<()> {
        let place = self.place(kept)?;
        drop(self.keepers.running.remove(place));
        Ok(())
    }

    fn place(&self, kept: &Kept) -> Result<usize> {
        let running = &self.keepers.running;
        running
            .iter()
            .position(|one| one.child.id() == kept.me.pid)
            .with_context(|| format!("{} is none of ours", kept.me.pid))
    }

    /// Makes a cgroup beside the own one, which others may join; `None` without cgroup v2.
    pub(crate) fn cgroup(&mut self, name: &str) -> Result<bool> {
        let cgroup = Cgroup::beside_own(name)?;
        let is_there = cgroup.is_some();
        self.keepers.cgroups.extend(cgroup);
        Ok(is_there)
    }

    /// Lets a cgroup be there until the workload ends: portwatch may look at it.
    pub(crate) fn keep(&mut self, cgroup: Cgroup) {
        self.keepers.cgroups.push(cgroup);
    }

    /// A copy of this program under this name, there until the workload ends; its path.
    pub(crate) fn copy(&mut self, name: &str) -> Result<String> {
        let copy = Copy::new(name)?;
        let path = copy.text();
        self.keepers.copies.push(copy);
        Ok(path)
    }

    /// Of a part: leaves what it has without close-on-exec to a program, a copy of this one, which does
    /// nothing until the workload ends.
    pub(crate) fn bequeath(&mut self, program: &str) -> Result<()> {
        let child = Command::new(program)
            .args(IDLE)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        self.heir(child.id());
        Ok(())
    }

    /// Of a part: a process that it has started has what it has.
    pub(crate) fn heir(&mut self, pid: u32) {
        self.heirs.push(pid);
    }

    /// Of a part: the process then executes a program, a copy of this one, which does nothing.
    pub(crate) fn becomes(&mut self, program: &str) {
        self.next = Some(program.to_owned());
    }
}

/// What the calling program was told behind `--`.
pub(crate) fn tags() -> Vec<String> {
    std::env::args()
        .skip_while(|arg| arg != "--")
        .skip(1)
        .collect()
}
