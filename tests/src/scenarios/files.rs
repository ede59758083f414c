//! The files that portwatch writes: nobody else's to read, and nobody else's to choose.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink},
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};

use super::{Session, sessions};
use crate::{
    bench::{self, Bench},
    sys::task,
    tracer,
};

pub(super) const ALL: &[Session] = sessions![
    files_are_private: once,
    files_of_others_stay: once,
];

/// nobody
const OTHER: u32 = 65534;

/// Forbids nothing to whoever opens files from here on.
fn without_umask(command: &mut Command) -> &mut Command {
    // SAFETY: umask(2) may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::umask(0);
            Ok(())
        })
    }
}

/// The modes of all that is in a directory and below.
fn modes(directory: &Path) -> Result<Vec<(String, u32)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        // What SQLite keeps beside a file comes and goes.
        let Ok(metadata) = path.symlink_metadata() else {
            continue;
        };
        found.push((path.display().to_string(), metadata.mode() & 0o7777));
        if metadata.is_dir() {
            found.extend(modes(&path)?);
        }
    }
    Ok(found)
}

/// Whatever the umask: files 0600, directories 0700.
fn files_are_private(bench: &Bench) -> Result<()> {
    let directory = bench.file("private")?;
    fs::create_dir(&directory)?;
    let at = |name: &str| directory.join(name).into_os_string();
    let trace = bench.trace_args([
        OsStr::new("-w"),
        &at("trace.txt"),
        "--duration".as_ref(),
        "1ms".as_ref(),
    ]);
    let list = ["list".into(), "-w".into(), at("list.txt")];
    for args in [&trace[..], &list] {
        let output = bench::ended(without_umask(&mut bench.command(args)).spawn()?)?;
        ensure!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    // A recording where it goes by itself, looked at while it is open.
    let args = ["record", "--attach", bench.backend.as_str()];
    let mut command = bench.command(args);
    command
        .env("STATE_DIRECTORY", at("state"))
        .env_remove("NOTIFY_SOCKET");
    let child = without_umask(&mut command).spawn()?;
    let open = bench::until("a recording with its log", || {
        Ok(modes(&directory)?
            .iter()
            .any(|(path, _)| path.ends_with("-wal")))
    });
    let while_open = modes(&directory);
    task::signal(child.id(), libc::SIGTERM)?;
    let output = bench::ended(child)?;
    open.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let all = [while_open?, modes(&directory)?].concat();
    fs::remove_dir_all(&directory)?;
    ensure!(all.len() >= 8, "too few: {all:?}");
    for (path, mode) in all {
        let expected = if path.ends_with("/state") {
            0o700
        } else {
            0o600
        };
        ensure!(mode == expected, "{path} has mode {mode:o}");
    }
    Ok(())
}

fn refused(output: &Output, link: &Path) -> Result<()> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        tracer::code(output.status) == 4
            && stderr.contains(&link.display().to_string())
            && stderr.contains("link"),
        "{}: {}",
        output.status,
        stderr.trim()
    );
    Ok(())
}

/// A link that somebody else has laid, in a directory where everybody may and in one of his own, to a file
/// and to nothing: not followed by `trace`, nor by `record`.
fn files_of_others_stay(bench: &Bench) -> Result<()> {
    let file = bench.file("ours.txt")?;
    fs::write(&file, "precious")?;
    let fresh = bench.file("fresh.txt")?;
    for (name, mode, owner) in [("everybodys", 0o1777, 0), ("his", 0o755, OTHER)] {
        let directory = bench.file(name)?;
        fs::create_dir(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(mode))?;
        lchown(&directory, Some(owner), Some(owner))?;
        for target in [&file, &fresh] {
            let link = directory.join("link");
            symlink(target, &link)?;
            lchown(&link, Some(OTHER), Some(OTHER))?;
            let trace = bench.trace_args([
                OsStr::new("--duration"),
                "1ms".as_ref(),
                "-w".as_ref(),
                link.as_ref(),
            ]);
            let record = [
                "record".into(),
                "--duration".into(),
                "1ms".into(),
                "-w".into(),
                link.clone().into(),
            ];
            for args in [&trace[..], &record] {
                refused(&bench::ended(bench.command(args).spawn()?)?, &link)?;
            }
            fs::remove_file(&link)?;
        }
        fs::remove_dir(&directory)?;
    }
    ensure!(
        fs::read_to_string(&file)? == "precious",
        "it was written to"
    );
    ensure!(!fresh.exists(), "it was made");
    Ok(())
}
