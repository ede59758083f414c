//! What may end a recorder, fill its disk or harm its file.

use super::*;

/// kill -9, again and again: the file stays sound, and all that is older than a second is in it.
pub(super) fn record_survives_sigkill(bench: &Bench) -> Result<()> {
    let file = bench.file("killed.pwdb")?;
    let rounds: u64 = if bench.long { 25 } else { 5 };
    let mut must: BTreeSet<Ipv4Addr> = BTreeSet::new();
    // Each bind has an address of its own: a cookie not every backend tells, and ports come again.
    let mut next = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    for round in 0..rounds {
        let recorder = Recorder::start(bench, &file, &["-q", "--keep", "all"])?;
        let began = Instant::now();
        let mut binds = Vec::new();
        // Ends in another place of the writer's round each time.
        let length = Duration::from_millis(1500 + 137 * (round % 8));
        while began.elapsed() < length {
            let address = Ipv4Addr::from(next);
            next += 1;
            UdpSocket::bind((address, 0))?;
            binds.push((Instant::now(), address));
            std::thread::sleep(Duration::from_millis(1));
        }
        let killed = Instant::now();
        let output = recorder.end(libc::SIGKILL)?;
        ensure!(
            tracer::code(output.status) == 128 + libc::SIGKILL,
            "{}",
            output.status
        );
        let is_old = |at: &Instant| killed.duration_since(*at) > Duration::from_secs(1);
        let old = binds.iter().filter(|(at, _)| is_old(at));
        must.extend(old.map(|(_, address)| *address));
        let kept: BTreeSet<Ipv4Addr> = replay(bench, &file)?
            .iter()
            .filter(|line| is_own(line))
            .filter_map(|line| {
                lookup(line, "network.local.address")?
                    .as_str()?
                    .parse()
                    .ok()
            })
            .collect();
        let missing = must.difference(&kept).count();
        ensure!(
            missing == 0,
            "round {round}: {missing} of {} events are missing",
            must.len()
        );
    }
    ensure!(must.len() > 100, "only {} binds", must.len());
    Ok(())
}

/// A disk that fills up and is emptied: said once, nothing is lost without being counted.
pub(super) fn record_full_disk_catches_up(bench: &Bench) -> Result<()> {
    let directory = bench.file("small-disk")?;
    fs::create_dir_all(&directory)?;
    let disk = Tmpfs::new(&directory, 12 << 20)?;
    let result = full_disk(bench, &directory);
    drop(disk);
    fs::remove_dir(&directory)?;
    result
}

fn full_disk(bench: &Bench, directory: &Path) -> Result<()> {
    let ballast = directory.join("ballast");
    fs::write(&ballast, vec![0; 11 << 20])?;
    let file = directory.join("full.pwdb");
    let words = bench.file("full.err")?;
    let mut command = command(bench, &file, &["--keep", "all", "-u"]);
    command.stderr(fs::File::create(&words)?);
    let mut child = command.spawn()?;
    let said = |what: &str| -> Result<bool> { Ok(fs::read_to_string(&words)?.contains(what)) };
    let filled = bench::until("the disk to be full", || {
        for _ in 0..500 {
            bind()?;
        }
        ensure!(
            child.try_wait()?.is_none(),
            "it ended: {}",
            fs::read_to_string(&words)?
        );
        said("cannot write to")
    });
    if filled.is_err() {
        child.kill()?;
        child.wait()?;
        return filled;
    }
    let after = bind()?;
    std::thread::sleep(Duration::from_secs(2));
    fs::remove_file(&ballast)?;
    let caught_up = bench::until("it to catch up", || said("again"));
    task::signal(child.id(), libc::SIGTERM)?;
    let output = bench::ended(child)?;
    caught_up?;
    let words = fs::read_to_string(&words)?;
    ensure!(output.status.success(), "{}: {words}", output.status);
    ensure!(
        words.matches("cannot write to").count() == 1,
        "said more than once: {words}"
    );
    let lines = replay(bench, &file)?;
    let end = lines.last().context("nothing was recorded")?;
    ensure!(lookup(end, "event.name") == Some(&"end".into()), "{end}");
    ensure!(
        lookup(end, "totals.lost") == Some(&0.into()),
        "memory was enough: {end}"
    );
    let is_after =
        |line: &Value| is_own(line) && lookup(line, "network.local.port") == Some(&after.into());
    ensure!(
        lines.iter().any(is_after),
        "what came while the disk was full is missing"
    );
    Ok(())
}

pub(super) fn record_cut_anywhere_is_refused(bench: &Bench) -> Result<()> {
    let file = bench.file("cut.pwdb")?;
    short(bench, &file)?;
    let whole = fs::read(&file)?;
    let pages = whole.len() / 4096;
    ensure!(pages > 8, "{pages} pages");
    for page in 0..pages {
        fs::write(&file, &whole[..page * 4096])?;
        let words = if page == 0 { "is empty" } else { "is damaged" };
        refused(&portwatch(bench, &["replay"], &file)?, words)?;
        refused(&portwatch(bench, &["report"], &file)?, words)?;
        if page > 0 {
            let output = bench::ended(command(bench, &file, &[]).spawn()?)?;
            refused(&output, words)?;
            ensure!(fs::read(&file)?.len() == page * 4096, "it was written to");
        }
    }
    fs::write(&file, &whole)?;
    replay(bench, &file).map(drop)
}

/// Somebody removes the file: the recorder ends at once and says why, and does not look alive for days.
pub(super) fn record_without_its_file_ends(bench: &Bench) -> Result<()> {
    let file = bench.file("removed.pwdb")?;
    let mut recorder = Recorder::start(bench, &file, &["-q", "--keep", "all"])?;
    fs::remove_file(&file)?;
    let ended = bench::until("it to end", || {
        bind()?;
        Ok(recorder.status()?.is_some())
    });
    let output = recorder.end(libc::SIGKILL)?;
    ended?;
    refused(&output, "removed.pwdb was moved or removed")
}
