//! Whose file it is, and who may write to it.

use super::*;

pub(super) fn record_one_recorder_a_file(bench: &Bench) -> Result<()> {
    let file = bench.file("one.pwdb")?;
    let first = Recorder::start(bench, &file, &["-q"])?;
    let second = bench::ended(command(bench, &file, &[]).spawn()?)?;
    refused(
        &second,
        &format!("is being recorded to by process {}", first.pid()),
    )?;
    ensure!(
        stderr(&second).contains("hint: "),
        "no next step: {}",
        stderr(&second)
    );
    first.end(libc::SIGTERM)?;
    // It is free again, and continued.
    Recorder::start(bench, &file, &["-q"])?.end(libc::SIGTERM)?;
    let starts = replay(bench, &file)?;
    let starts = starts
        .iter()
        .filter(|line| lookup(line, "event.name") == Some(&"start".into()));
    ensure!(starts.count() == 2, "not continued");
    Ok(())
}

pub(super) fn record_leaves_strangers_alone(bench: &Bench) -> Result<()> {
    let file = bench.file("diary.txt")?;
    fs::write(&file, "dear diary")?;
    let output = bench::ended(command(bench, &file, &[]).spawn()?)?;
    refused(&output, "is not a recording of portwatch")?;
    ensure!(fs::read(&file)? == b"dear diary", "it was changed");
    let link = bench.file("link.pwdb")?;
    std::os::unix::fs::symlink(&file, &link)?;
    let output = bench::ended(command(bench, &link, &[]).spawn()?)?;
    refused(&output, "is a symbolic link")?;
    ensure!(fs::read(&file)? == b"dear diary", "it was changed");
    // Nor is a pipe waited for that nobody writes to.
    let pipe = bench.file("pipe")?;
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU)?;
    for verb in ["replay", "report"] {
        refused(&portwatch(bench, &[verb], &pipe)?, "is no regular file")?;
    }
    // What is not there is not asked to be made by somebody who wants to read.
    let absent = bench.file("nothere")?;
    for verb in ["replay", "report"] {
        let output = portwatch(bench, &[verb], &absent)?;
        refused(&output, "hint: portwatch record says where it records to")?;
    }
    Ok(())
}

/// Who made a file, or may write to it, could change what is recorded in it.
pub(super) fn record_trusts_no_file_of_others(bench: &Bench) -> Result<()> {
    let mode =
        |file: &Path| Ok::<_, std::io::Error>(fs::metadata(file)?.permissions().mode() & 0o777);
    let open_to_all = |file: &Path| fs::set_permissions(file, fs::Permissions::from_mode(0o666));
    let record = |file: &Path| bench::ended(command(bench, file, &[]).spawn()?);
    let theirs = bench.file("theirs.pwdb")?;
    fs::write(&theirs, "")?;
    std::os::unix::fs::chown(&theirs, Some(65534), Some(65534))?;
    open_to_all(&theirs)?;
    refused(&record(&theirs)?, "belongs to user 65534")?;
    ensure!(fs::read(&theirs)?.is_empty(), "it was written to");

    let own = bench.file("open.pwdb")?;
    fs::write(&own, "")?;
    open_to_all(&own)?;
    short(bench, &own)?;
    let closed = mode(&own)?;
    ensure!(closed == 0o600, "mode {closed:o}");
    open_to_all(&own)?;
    let output = record(&own)?;
    refused(&output, "can be written by others: its mode is 666")?;
    refused(&output, "hint: chmod go-w ")?;
    Ok(())
}

/// A recording is not overwritten by what is printed of it.
pub(super) fn record_overwrites_no_recording(bench: &Bench) -> Result<()> {
    let recording = bench.file("overwritten.pwdb")?;
    short(bench, &recording)?;
    let log = bench.file("overwritten.pwdb-wal")?;
    let before = fs::read(&recording)?;
    for verb in ["replay", "report"] {
        for (to, words) in [
            (&recording, "is the recording itself"),
            (&log, "is a part of the recording"),
        ] {
            let mut command = bench.command([verb, "-w"]);
            let output = bench::ended(command.arg(to).arg(&recording).spawn()?)?;
            let said = stderr(&output);
            ensure!(
                tracer::code(output.status) == 2 && said.contains(words),
                "{verb}: {}: {said}",
                output.status
            );
            ensure!(fs::read(&recording)? == before, "{verb}: it was changed");
            ensure!(!log.exists(), "{verb}: a log was made up");
        }
    }
    Ok(())
}

/// Whom the kernel refuses is not told that it records, and finds no file afterwards.
pub(super) fn record_refused_start_leaves_no_file(bench: &Bench) -> Result<()> {
    let directory = bench.file("of-nobody")?;
    fs::create_dir(&directory)?;
    std::os::unix::fs::chown(&directory, Some(65534), Some(65534))?;
    let file = directory.join("refused.pwdb");
    let path = file.to_str().context("an odd path")?;
    let output = as_nobody(bench, &Netns::current()?, &["record", "-w", path])?;
    let left: Vec<_> = fs::read_dir(&directory)?.collect();
    fs::remove_dir_all(&directory)?;
    let said = stderr(&output);
    ensure!(
        tracer::code(output.status) == 3,
        "{}: {said}",
        output.status
    );
    ensure!(!said.contains("recording to"), "{said}");
    ensure!(left.is_empty(), "{left:?} is left");
    Ok(())
}

pub(super) fn record_newer_schema(bench: &Bench) -> Result<()> {
    let file = bench.file("newer.pwdb")?;
    short(bench, &file)?;
    let mut bytes = fs::read(&file)?;
    // PRAGMA user_version (sqlite.org/fileformat2.html, 1.3)
    let version = bytes.get_mut(60..64).context("no header")?;
    version.copy_from_slice(&1000u32.to_be_bytes());
    fs::write(&file, &bytes)?;
    refused(
        &portwatch(bench, &["replay"], &file)?,
        "by a newer portwatch",
    )?;
    let output = bench::ended(command(bench, &file, &[]).spawn()?)?;
    refused(&output, "its schema is 1000")?;
    ensure!(fs::read(&file)? == bytes, "it was changed");
    Ok(())
}
