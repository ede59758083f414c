//! Many sockets in many processes: what a busy machine has before portwatch is started.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::sys::{
    sock::{Kind, Sock},
    task::{self, Background},
};

/// Ports of a process: the same for each, at an address of its own.
const FIRST_PORT: u16 = 10_000;
/// Descriptors that a process has besides.
const OTHERS: u32 = 64;

/// Processes that hold sockets until this value is dropped.
pub(crate) struct Crowd(Vec<Background>);

impl Crowd {
    /// So many processes, each with so many sockets in the caller's network namespace.
    ///
    /// Only for single-threaded callers.
    pub(crate) fn gather(processes: u16, sockets: u16) -> Result<Self> {
        let (mut ready, tell) = task::pipe()?;
        let mut members = Vec::with_capacity(processes.into());
        for process in 0..processes {
            let mut tell = tell.try_clone().context("cannot copy a pipe")?;
            members.push(Background::spawn(|| {
                let held = hold(process, sockets);
                if let Err(error) = &held {
                    eprintln!("process {process} of a crowd: {error:#}");
                }
                let said = tell.write_all(&[u8::from(held.is_ok())]);
                // Until it is killed.
                while said.is_ok() {
                    std::thread::sleep(Duration::from_secs(3600));
                }
            })?);
        }
        drop(tell);
        let mut answers = vec![0; processes.into()];
        ready
            .read_exact(&mut answers)
            .context("a process of a crowd is gone")?;
        ensure!(
            answers.iter().all(|&answer| answer == 1),
            "not all sockets of a crowd could be made"
        );
        Ok(Self(members))
    }

    /// Pids of the processes, in their order.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.0.iter().map(Background::pid).collect()
    }
}

/// A socket of a crowd: a listener, one that is only bound, a UDP socket, and so on.
pub(crate) fn place(process: u16, socket: u16) -> (Kind, SocketAddr) {
    let kind = if socket % 3 == 2 {
        Kind::Udp4
    } else {
        Kind::Tcp4
    };
    let [high, low] = process.to_be_bytes();
    let address = IpAddr::V4(Ipv4Addr::new(127, 1 + high, low, 1));
    (kind, SocketAddr::new(address, FIRST_PORT + socket))
}

fn hold(process: u16, sockets: u16) -> Result<Vec<Sock>> {
    task::allow_descriptors(u32::from(sockets) + OTHERS)?;
    (0..sockets)
        .map(|socket| {
            let (kind, address) = place(process, socket);
            let sock = Sock::new(kind).context("socket")?;
            sock.bind(&address.into())
                .with_context(|| format!("bind to {address}"))?;
            if socket % 3 == 0 {
                sock.listen(1).context("listen")?;
            }
            Ok(sock)
        })
        .collect()
}
