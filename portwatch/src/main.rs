//! The command line tool: parse, run, exit code.

use portwatch::{event::*, selection::Selection, *};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let attach = match std::env::args().nth(1).as_deref() {
        Some("tracing") => plan::Attach::Only(Backend::Tracing),
        Some("kprobe") => plan::Attach::Only(Backend::Kprobe),
        Some("raw_tp") => plan::Attach::Only(Backend::RawTp),
        _ => plan::Attach::Auto,
    };
    let gathered = host::facts::gather()?;
    eprintln!("{:?}", gathered.facts);
    let evs: Vec<Op> = Op::ALL.into_iter().filter(|o| std::env::var("PW_OPS").map_or(true, |v| v.contains(o.as_str()))).collect(); let selection = Selection { events: evs, ..Selection::default() };
    let plan = plan::plan(&gathered.facts, &selection, attach)?;
    eprintln!("{plan:?}");
    let mut loaded = load::load(&gathered, &plan, &selection, &Default::default(), 4 << 20)?;
    loaded.attach(&plan)?;
    eprintln!("attached");
    let load::Loaded { .. } = &loaded;
    let (ring, _rest) = loaded.split();
    let mut ring = source::ring::Ring::new(ring)?;
    let end = tokio::time::sleep(std::time::Duration::from_secs(std::env::args().nth(2).map_or(10, |n| n.parse().unwrap_or(10))));
    tokio::pin!(end);
    loop {
        tokio::select! {
            ready = ring.ready() => ready?,
            () = &mut end => break,
        }
        ring.drain(|bytes| println!("{:?}", decode::record(bytes)));
    }
    Ok(())
}
