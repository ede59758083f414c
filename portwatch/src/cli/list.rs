//! The arguments of `list`: the habits of ss(8).

use std::path::Path;

use clap::Args;

use super::{Names, NetnsArg, OutputArgs, UsageError, help, parse};
use crate::{
    event::{Family, Transport},
    sink::{Destination, OutputOptions},
    sockets::scope::{Netns, Reach, Scope},
};

/// What was typed after `list`; [`ListArgs::resolve`] says what it means.
#[derive(Args, Clone, Debug, Default)]
#[command(after_long_help = help::text(help::LIST))]
pub struct ListArgs {
    /// TCP, MPTCP included; with -u both
    #[arg(short, long)]
    pub tcp: bool,

    /// UDP; with -t both
    #[arg(short, long)]
    pub udp: bool,

    /// IPv4 sockets; with -6 both
    #[arg(short = '4', long)]
    pub ipv4: bool,

    /// IPv6 sockets, also where they carry IPv4; with -4 both
    #[arg(short = '6', long)]
    pub ipv6: bool,

    /// Only what waits for others: listening TCP, and bound UDP
    #[arg(short, long, overrides_with = "all")]
    pub listening: bool,

    /// Connections and TIME_WAIT too
    #[arg(short, long, overrides_with = "listening")]
    pub all: bool,

    /// For the habit of ss -p: processes are always shown
    #[arg(short, long)]
    pub processes: bool,

    /// Network namespace: inode number, path, or name given by ip netns; repeat it for several
    ///
    /// For example 4026531840, /proc/812/ns/net, or blue for /run/netns/blue. Without it, all of them.
    #[arg(short = 'N', long, value_name = "NETNS", value_parser = parse::netns)]
    pub netns: Vec<NetnsArg>,

    /// No titles above the columns
    #[arg(short = 'H', long)]
    pub no_header: bool,
}

/// What `list` is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct ListOptions {
    /// Which sockets.
    pub scope: Scope,
    /// With titles above the columns.
    pub header: bool,
    /// How and where to print.
    pub output: OutputOptions,
}

impl ListArgs {
    /// What was meant.
    ///
    /// # Errors
    /// When a network namespace does not exist or cannot be looked up.
    pub fn resolve(
        self,
        output: OutputArgs,
        names: &impl Names,
    ) -> Result<ListOptions, UsageError> {
        let Self {
            tcp,
            udp,
            ipv4,
            ipv6,
            listening,
            all,
            processes: _, // they are always shown
            netns,
            no_header,
        } = self;
        let scope = Scope {
            port: None,
            peers: false,
            transports: chosen([(tcp, Transport::Tcp), (udp, Transport::Udp)]),
            families: chosen([(ipv4, Family::Ipv4), (ipv6, Family::Ipv6)]),
            netns: netns
                .into_iter()
                .map(|netns| namespace(netns, names))
                .collect::<Result<_, _>>()?,
            reach: match (all, listening) {
                (true, _) => Reach::All,
                (false, true) => Reach::Listening,
                (false, false) => Reach::Bound,
            },
        };
        Ok(ListOptions {
            scope,
            header: !no_header,
            output: output.resolve(Destination::Stdout),
        })
    }
}

fn chosen<T>(flags: [(bool, T); 2]) -> Vec<T> {
    let wanted = flags.into_iter().filter(|(wanted, _)| *wanted);
    wanted.map(|(_, value)| value).collect()
}

fn namespace(netns: NetnsArg, names: &impl Names) -> Result<Netns, UsageError> {
    let path = match &netns {
        NetnsArg::Inode(_) => None,
        NetnsArg::Path(path) => Some(path.clone()),
        NetnsArg::Name(name) => Some(Path::new(super::resolve::NAMED).join(name)),
    };
    let inode = super::resolve::netns_inode(netns, names)?;
    Ok(Netns { inode, path })
}
