//! How long it takes. With `--release -- --ignored --nocapture descriptors`.

use std::net::UdpSocket;

use nix::sys::resource::{Resource, getrlimit};

use super::{
    real::{Forked, inode_of},
    *,
};

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn time(rounds: usize, mut work: impl FnMut()) -> Duration {
    let times = (0..rounds).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed()
    });
    median(times.collect())
}

#[test]
#[ignore = "a measurement: 20,000 sockets in 100 processes"]
fn twenty_thousand_sockets_in_a_hundred_processes() {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if limit < 300 {
        println!("skip: a process may have only {limit} descriptors");
        return;
    }
    let last = UdpSocket::bind("127.0.0.1:0").unwrap();
    let inode = inode_of(&last);
    let children: Vec<_> = (0..100)
        .map(|_| {
            Forked::run(&last, |_| {
                for _ in 0..200 {
                    std::mem::forget(UdpSocket::bind("127.0.0.1:0"));
                }
            })
        })
        .collect();
    thread::sleep(Duration::from_secs(2));
    let pid = children[50].0.as_raw().cast_unsigned();
    let there = fs::read_link(format!("/proc/{pid}/fd/100")).unwrap();
    let there = link::inode(there.as_os_str().as_encoded_bytes()).unwrap();
    let new = || Descriptors::at(Path::new("/proc"));
    let ask = |descriptors: &mut Descriptors, wanted| descriptors.of(&[wanted]).remove(0).pids;

    println!(
        "first: {:?}",
        time(1, || drop(ask(&mut new(), wanted(inode, None, None))))
    );
    for workers in [1, 2, 4] {
        let whole = time(9, || {
            let mut descriptors = new();
            descriptors.workers = workers;
            assert_eq!(ask(&mut descriptors, wanted(there, None, None)), [pid]);
        });
        println!("all of it, {workers} threads: {whole:?}");
    }
    println!(
        "nobody's: {:?}",
        time(9, || drop(ask(&mut new(), wanted(1, None, None))))
    );
    let early = time(9, || {
        assert_eq!(ask(&mut new(), wanted(there, Some(1), None)), [pid]);
    });
    println!("up to the reference: {early:?}");
    let likely = time(99, || {
        assert_eq!(ask(&mut new(), wanted(there, Some(1), Some(pid))), [pid]);
    });
    println!("likely: {likely:?}");
    let mut descriptors = new();
    descriptors.prime();
    let known = time(99, || {
        assert_eq!(ask(&mut descriptors, wanted(there, Some(1), None)), [pid]);
    });
    println!("seen before: {known:?}");
}
