//! The arguments of `check` and `check-range`.

use std::ops::RangeInclusive;

use clap::Args;

use super::{
    NetnsArg, UserArg, help, parse,
    target::{Target, target_or_any},
};

/// What was typed after `check`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = help::text(help::CHECK))]
pub struct CheckArgs {
    /// Address and port: 0.0.0.0:8080, [::1]:80, 8080, udp/53, https; port 0 is any that is free
    #[arg(value_name = "ADDR:PORT", value_parser = target_or_any)]
    pub target: Target,

    /// Of UDP, not TCP; the same as udp/PORT
    #[arg(short, long)]
    pub udp: bool,

    /// The socket sets SO_REUSEADDR before bind(), as servers usually do
    #[arg(long)]
    pub reuseaddr: bool,

    /// The socket sets SO_REUSEPORT before bind()
    #[arg(long)]
    pub reuseport: bool,

    /// The socket sets IPV6_V6ONLY before bind(): its [::] does not take IPv4
    #[arg(long)]
    pub v6only: bool,

    /// The user who asks, by name or number; other than root without capabilities. Else who runs portwatch
    #[arg(long, value_name = "USER", value_parser = parse::user)]
    pub uid: Option<UserArg>,

    /// In this network namespace: name of ip netns, path or inode
    #[arg(short = 'N', long, value_name = "NETNS", value_parser = parse::netns)]
    pub netns: Option<NetnsArg>,

    /// The socket is bound to this interface (SO_BINDTODEVICE)
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
}

/// What was typed after `check-range`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = help::text(help::CHECK_RANGE))]
pub struct CheckRangeArgs {
    /// The ports that are to be given out: 30000-32767
    #[arg(value_name = "LO-HI", value_parser = parse::ports)]
    pub range: RangeInclusive<u16>,

    /// In this network namespace: name of ip netns, path or inode
    #[arg(short = 'N', long, value_name = "NETNS", value_parser = parse::netns)]
    pub netns: Option<NetnsArg>,
}
