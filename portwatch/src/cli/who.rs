//! The arguments of `who`.

use clap::Args;

use super::{
    help,
    target::{Target, target},
};

/// What was typed after `who`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = help::text(help::WHO))]
pub struct WhoArgs {
    /// Port: 443, https, udp/53, 127.0.0.1:8080, [::1]:80
    #[arg(value_name = "PORT", value_parser = target)]
    pub target: Target,

    /// Print process ids and nothing else, one a line
    #[arg(long, conflicts_with = "output")]
    pub pids: bool,

    /// Print the first socket and its first process only
    #[arg(long)]
    pub first: bool,
}
