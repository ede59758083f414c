//! As a service.

use super::*;

pub(super) fn record_tells_the_service_manager(bench: &Bench) -> Result<()> {
    let path = bench.file("notify")?;
    let manager = UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(PATIENCE))?;
    let file = bench.file("service.pwdb")?;
    let child = command(bench, &file, &["-q"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "400000")
        .spawn()?;
    let mut told = Vec::new();
    let mut buffer = [0; 512];
    let heard = bench::until("the watchdog to be told twice", || {
        let length = manager.recv(&mut buffer)?;
        told.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        Ok(told
            .iter()
            .filter(|text| text.contains("WATCHDOG=1"))
            .count()
            >= 2)
    });
    task::signal(child.id(), libc::SIGTERM)?;
    let output = bench::ended(child)?;
    heard.with_context(|| stderr(&output))?;
    ensure!(told[0].contains("READY=1"), "{told:?}");
    ensure!(output.status.success(), "{}", stderr(&output));
    Ok(())
}

/// What systemd says of the unit: 10 is a service that may do everything.
pub(super) fn record_unit_has_few_privileges(bench: &Bench) -> Result<()> {
    let unit = bench.file("portwatch-record.service")?;
    fs::write(
        &unit,
        include_str!("../../../../packaging/portwatch-record.service"),
    )?;
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=30", "--no-pager"])
        .arg(&unit)
        .output();
    match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skip("no systemd-analyze here")
        }
        Err(error) => Err(error.into()),
        Ok(output) => {
            let said = stderr(&output);
            if said.contains("unrecognized option") {
                return skip("this systemd-analyze cannot look at files");
            }
            let text = String::from_utf8_lossy(&output.stdout);
            let last = text.trim().lines().last().unwrap_or_default();
            ensure!(output.status.success(), "{last} {said}");
            Ok(())
        }
    }
}
