//! The arguments of `report`.

use std::{ops::RangeInclusive, path::PathBuf};

use clap::{Args, ValueHint};

pub use super::moment::Moment;
use super::{help, parse};

/// What was typed after `report`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = help::text(help::REPORT))]
pub struct ReportArgs {
    /// The recording; - reads JSON Lines of trace or replay from standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,

    /// Leave out what was before: 2026-11-28, "2026-11-28 03:00", 36h (so long ago)
    #[arg(long, value_name = "TIME", value_parser = parse::moment, help_heading = WHAT)]
    pub since: Option<Moment>,

    /// Leave out what was from then on
    #[arg(long, value_name = "TIME", value_parser = parse::moment, help_heading = WHAT)]
    pub until: Option<Moment>,

    /// Port, or a range of ports: 8080, 8000-8100; of failures the port asked for, of connects the peer's too
    #[arg(
        long = "port",
        value_name = "PORT[-PORT]",
        value_parser = parse::ports,
        value_delimiter = ',',
        help_heading = WHAT
    )]
    pub ports: Vec<RangeInclusive<u16>>,

    /// So many of each kind
    #[arg(long, value_name = "N", value_parser = parse::count, default_value = "10", help_heading = WHAT)]
    pub top: u64,
}

const WHAT: &str = "What to sum up";
