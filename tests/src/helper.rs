//! Small programs that scenarios start: `portwatch-tests helper WHAT …`.

use std::{
    ffi::OsString,
    fs,
    io::{Read as _, Write as _},
    net::Ipv4Addr,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::sys::{
    capabilities::{self, Way},
    sock::{Kind, Sock},
    task,
};

/// What a helper may be asked to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Helper {
    /// Binds 127.0.0.1:PORT and exits. Tags only make its arguments distinct.
    Bind { port: u16, tags: Vec<OsString> },
    /// The same with its own executable unlinked before.
    BindAfterUnlink { port: u16 },
    /// Binds PORT, PORT+1 in a child, PORT+2 in a daemon (two forks, a session of its own).
    Family { port: u16 },
    /// Accepts a connection of a child on 127.0.0.1:PORT, which resets it.
    Serve { port: u16 },
    /// Exits with this code.
    Exit { code: u8 },
    /// Dies of this signal.
    Die { signal: i32 },
    /// Makes an empty file.
    Touch { path: PathBuf },
    /// Waits for the end of stdin.
    Idle,
    /// Copies stdin to stdout and says so on stderr.
    Cat,
    /// Prints as JSON who runs it and what it holds.
    Whoami,
    /// Binds PORT and waits for a signal to end it.
    Wait { port: u16 },
    /// Runs a program that sees no BTF of the kernel.
    WithoutBtf {
        program: OsString,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Runs a program that sees no iterator over descriptors in the kernel's BTF.
    WithoutIterator {
        program: OsString,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Runs a program that sees the kernel's BTF as others might have it.
    WithDoctoredBtf {
        /// What is wrong with it.
        #[arg(long)]
        how: Doctored,
        program: OsString,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Runs a program to which no process of others is visible.
    WithHiddenProcesses {
        program: OsString,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Runs a program as the first process of a pid namespace, with a /proc that shows no other.
    InPidNamespace {
        program: OsString,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Runs a program in another root file system, whose /tmp is the folder WORK.
    InRoot {
        root: PathBuf,
        work: PathBuf,
        program: OsString,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Runs a program as nobody, with no capabilities but these.
    AsNobody {
        #[arg(long = "with", value_name = "CAP")]
        capabilities: Vec<String>,
        /// The program's file is to give them.
        #[arg(long)]
        by_file: bool,
        /// It may lock so many bytes of memory; without this, as many as it can be given.
        #[arg(long)]
        memlock: Option<u64>,
        program: OsString,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// Does it.
pub(crate) fn run(helper: Helper) -> Result<ExitCode> {
    match helper {
        Helper::Bind { port, tags: _ } => bind(port).map(drop)?,
        Helper::BindAfterUnlink { port } => {
            fs::remove_file(fs::read_link("/proc/self/exe")?).context("cannot unlink myself")?;
            bind(port)?;
        }
        Helper::Family { port } => family(port)?,
        Helper::Serve { port } => serve(port)?,
        Helper::Exit { code } => return Ok(ExitCode::from(code)),
        Helper::Die { signal } => {
            task::signal(std::process::id(), signal)?;
            bail!("signal {signal} did not kill");
        }
        Helper::Touch { path } => fs::write(path, "")?,
        Helper::Idle => {
            std::io::stdin().read_to_end(&mut Vec::new())?;
        }
        Helper::Cat => {
            let mut text = Vec::new();
            std::io::stdin().read_to_end(&mut text)?;
            std::io::stdout().write_all(&text)?;
            eprintln!("copied {} bytes", text.len());
        }
        Helper::Whoami => whoami()?,
        Helper::Wait { port } => {
            let _sock = bind(port)?;
            loop {
                std::thread::park();
            }
        }
        Helper::WithoutBtf { program, args } => {
            crate::sys::mount::hide(VMLINUX)?;
            return Err(Command::new(program).args(args).exec().into());
        }
        Helper::WithoutIterator { program, args } => {
            hide_iterator()?;
            return Err(Command::new(program).args(args).exec().into());
        }
        Helper::WithDoctoredBtf { how, program, args } => {
            show_types(how.doctor(fs::read(VMLINUX)?)?)?;
            return Err(Command::new(program).args(args).exec().into());
        }
        Helper::WithHiddenProcesses { program, args } => {
            crate::sys::mount::hide_processes()?;
            return Err(Command::new(program).args(args).exec().into());
        }
        Helper::InPidNamespace { program, args } => return task::contain(&program, &args),
        Helper::InRoot {
            root,
            work,
            program,
            args,
        } => {
            crate::sys::root::enter(&root, &work)?;
            return Err(Command::new(program).args(args).exec().into());
        }
        Helper::AsNobody {
            capabilities,
            by_file,
            memlock,
            program,
            args,
        } => {
            let way = if by_file { Way::File } else { Way::Ambient };
            task::limit_locked_memory(memlock)?;
            capabilities::become_user_with(65534, &capabilities, way)?;
            return Err(Command::new(program).args(args).exec().into());
        }
    }
    Ok(ExitCode::SUCCESS)
}

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// What may be wrong with BTF.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Doctored {
    /// It ends in the middle.
    Truncated,
    /// It is something else.
    Garbage,
    /// A field that every program needs has another name.
    FieldGone,
    /// So has a function that every fast backend needs.
    FunctionGone,
}

impl Doctored {
    fn doctor(self, mut types: Vec<u8>) -> Result<Vec<u8>> {
        match self {
            Self::Truncated => types.truncate(types.len() / 2),
            Self::Garbage => types[..2].copy_from_slice(b"no"),
            Self::FieldGone => rename(&mut types, "skc_num")?,
            Self::FunctionGone => rename(&mut types, "inet_autobind")?,
        }
        Ok(types)
    }
}

/// Gives something another name, of the same length.
fn rename(types: &mut [u8], name: &str) -> Result<()> {
    let whole = [b"\0", name.as_bytes(), b"\0"].concat();
    let place = types.windows(whole.len()).position(|name| name == whole);
    let place = place.with_context(|| format!("the kernel's types have no {name}"))?;
    types[place + 1] = b'X';
    Ok(())
}

/// Gives the iterator's function another name.
fn hide_iterator() -> Result<()> {
    let mut types = fs::read(VMLINUX).with_context(|| format!("cannot read {VMLINUX}"))?;
    rename(&mut types, "bpf_iter_task_file")?;
    show_types(types)
}

/// Puts these types in the place of the kernel's, for this process and what it starts.
fn show_types(types: Vec<u8>) -> Result<()> {
    let path = std::env::temp_dir().join(format!("portwatch-types-{}", std::process::id()));
    fs::write(&path, types).with_context(|| format!("cannot write {}", path.display()))?;
    let text = path.to_str().context("a path that is no text");
    let replaced = text.and_then(|text| crate::sys::mount::replace(VMLINUX, text));
    fs::remove_file(&path)?;
    replaced
}

fn bind(port: u16) -> Result<Sock> {
    let sock = Sock::new(Kind::Tcp4)?;
    sock.bind(&(Ipv4Addr::LOCALHOST, port).into())
        .with_context(|| format!("cannot bind port {port}"))?;
    Ok(sock)
}

/// A program with a child and a daemon; it waits for both.
fn family(port: u16) -> Result<()> {
    bind(port)?;
    task::fork_and(|| bind(port + 1).map(drop))?;
    let (mut read, write) = task::pipe()?;
    task::fork_and(|| {
        task::new_session()?;
        task::detach(|| {
            // Its parent is gone before it does anything.
            let intermediate = std::process::id();
            while task::parent() != 1 && task::parent() == intermediate {
                std::thread::yield_now();
            }
            if let Err(error) = bind(port + 2) {
                eprintln!("in the daemon: {error:#}");
            }
        })
    })?;
    // The daemon holds the other end until it is done.
    drop(write);
    read.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// A server that ends after its first connection, of which nothing stays in TIME_WAIT.
fn serve(port: u16) -> Result<()> {
    let server = bind(port)?;
    server.listen(4).context("listen")?;
    let address = (Ipv4Addr::LOCALHOST, port).into();
    task::fork_and(|| {
        let client = Sock::new(Kind::Tcp4)?;
        client.connect(&address).context("connect")?;
        client.reset_on_close()?;
        Ok(())
    })?;
    server.accept().context("accept")?;
    Ok(())
}

fn whoami() -> Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let fds: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    // One of them is the directory being read.
    let stdout = std::io::stdout();
    serde_json::to_writer(
        stdout.lock(),
        &json!({
            "uid": line("Uid:"),
            "gid": line("Gid:"),
            "groups": line("Groups:"),
            "capabilities": line("CapEff:"),
            "bounding": line("CapBnd:"),
            "home": std::env::var("HOME").ok(),
            "descriptors": fds.len() - 1,
        }),
    )?;
    Ok(())
}
