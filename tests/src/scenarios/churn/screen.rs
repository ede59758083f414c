//! What the terminal shows: one screen, drawn anew in place, and left behind.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::AsFd as _,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result, ensure};
use nix::pty::{Winsize, openpty};

use super::{
    super::{Session, sessions},
    totals::{LO, connected, listener},
    watched::{in_new_namespace, sees_all},
};
use crate::{
    bench::{self, Bench},
    sys::task,
};

pub(super) const ALL: &[Session] = sessions![
    churn_draws_in_place: each_kernel,
    churn_fits_a_small_terminal: once,
];

/// What is on a terminal of that size, line by line, and where the cursor is, once `churn` has drawn what is there
/// after `work` and was interrupted. How long an interval takes is the machine's affair: its drawings are counted.
fn shown(
    bench: &Bench,
    (rows, columns): (u16, u16),
    work: impl FnOnce() -> Result<()>,
) -> Result<(Vec<String>, u16)> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(&size, None).context("no pseudo-terminal")?;
    let mut slave = File::from(pty.slave);
    // The shell's prompt, say: it has to stay.
    slave.write_all(b"$ portwatch churn\r\n")?;
    let mut command = bench.command(["churn", "--interval", "100ms", "--attach"]);
    let child = command
        .arg(bench.backend.as_str())
        .env("TERM", "xterm")
        .stdout(Stdio::from(slave.as_fd().try_clone_to_owned()?))
        .spawn()?;
    // Only they hold it now: the end of both is the end of what is read.
    drop(command);
    drop(slave);
    let mut master = File::from(pty.master);
    let draws = Arc::new(AtomicUsize::new(0));
    let drawn = Arc::clone(&draws);
    let reader = thread::spawn(move || {
        let mut terminal = vt100::Parser::new(rows, columns, 100);
        let mut bytes = [0; 4096];
        // EIO: nobody has the other end any more (pty(7)).
        while let Ok(count @ 1..) = master.read(&mut bytes) {
            let part = bytes.get(..count).unwrap_or_default();
            terminal.process(part);
            let count = part.windows(3).filter(|part| part == b"\x1b[J").count();
            drawn.fetch_add(count, Ordering::Relaxed);
        }
        terminal
    });
    let more_draws = |count: usize| {
        let before = draws.load(Ordering::Relaxed);
        bench::until("the screen to be drawn", || {
            Ok(draws.load(Ordering::Relaxed) >= before + count)
        })
    };
    more_draws(1)?;
    work()?;
    // The interval in which it was done, and one that shows it for certain.
    more_draws(3)?;
    task::signal(child.id(), libc::SIGINT)?;
    let output = bench::ended(child)?;
    ensure!(output.status.success(), "{output:?}");
    let terminal = reader
        .join()
        .map_err(|_| anyhow::anyhow!("the reader panicked"))?;
    let screen = terminal.screen();
    let lines = screen
        .rows(0, columns)
        .map(|line| line.trim_end().to_owned())
        .collect();
    Ok((lines, screen.cursor_position().0))
}

fn churn_draws_in_place(bench: &Bench) -> Result<()> {
    in_new_namespace(|netns| {
        let server = listener(LO, 8080)?;
        let mut open = Vec::new();
        let (lines, cursor) = shown(bench, (50, 160), || {
            for _ in 0..6 {
                open.push(connected(&server)?);
            }
            Ok(())
        })?;
        let text = lines.join("\n");
        let count = |part: &str| text.matches(part).count();
        ensure!(
            lines
                .first()
                .is_some_and(|line| line == "$ portwatch churn"),
            "{text}"
        );
        ensure!(
            count("automatic ports in the last") == 1,
            "not in place:\n{text}"
        );
        ensure!(
            count(&format!("netns {}: range", netns.inode)) == 1,
            "{text}"
        );
        let last = lines
            .iter()
            .rposition(|line| !line.is_empty())
            .context("empty")?;
        ensure!(
            usize::from(cursor) == last + 1,
            "the cursor is in line {cursor}:\n{text}"
        );
        if sees_all(bench) {
            let pool = lines
                .iter()
                .find(|line| line.contains("tcp 127.0.0.1 → 127.0.0.1:8080"))
                .with_context(|| format!("no pool:\n{text}"))?;
            ensure!(
                pool.split_whitespace().take(2).eq(["6", "28,232"]),
                "not six of the range:\n{text}"
            );
        }
        Ok(())
    })
}

fn churn_fits_a_small_terminal(bench: &Bench) -> Result<()> {
    in_new_namespace(|_| {
        let server = listener(LO, 8080)?;
        let mut open = Vec::new();
        let (lines, _) = shown(bench, (8, 40), || {
            open.push(connected(&server)?);
            Ok(())
        })?;
        let text = lines.join("\n");
        ensure!(text.matches("automatic ports").count() == 1, "{text}");
        // Nothing has scrolled: the first line is that of the drawing, or what was before it.
        ensure!(
            lines
                .iter()
                .take(2)
                .any(|line| line.contains("automatic ports")),
            "{text}"
        );
        Ok(())
    })
}
