//! Building blocks: ends of sockets, lengths of time, alternatives, sentences.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

/// Names of processes are what their authors like.
pub(crate) use crate::sink::escape::harmless;

use crate::event::{Endpoint, Event};

/// `127.0.0.1:80`, `[::1]:80`, `127.0.0.53%lo:53` as ss prints them.
pub(super) fn endpoint(end: &Endpoint, device: Option<&str>) -> String {
    let on = device.map_or_else(String::new, |device| format!("%{device}"));
    let address = match end.address {
        Some(IpAddr::V4(address)) => format!("{address}{on}"),
        Some(IpAddr::V6(address)) => format!("[{address}{on}]"),
        None => format!("*{on}"),
    };
    match end.port {
        Some(port) => format!("{address}:{port}"),
        None => address,
    }
}

/// `port 80`, or what it is where it has no number.
pub(super) fn port(event: &Event) -> String {
    match event.local.port {
        Some(port) if port != 0 => format!("port {port}"),
        _ => "the port".to_owned(),
    }
}

/// Whether an address is its family's wildcard; of a mapped one, IPv4's.
pub(super) fn is_wildcard(address: Option<IpAddr>) -> bool {
    address.is_some_and(|address| address.to_canonical().is_unspecified())
}

/// Whether an address is `::`, which may take IPv4 too.
pub(super) fn is_any(address: Option<IpAddr>) -> bool {
    address == Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
}

/// `for 3 d 2 h`: the two largest units, one below an hour.
pub(super) fn lasting(time: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let seconds = time.as_secs();
    let Some(at) = UNITS.iter().position(|(size, _)| seconds >= *size) else {
        return "since a moment ago".to_owned();
    };
    let (size, unit) = UNITS[at];
    let count = seconds / size;
    let (smaller, small_unit) = UNITS[(at + 1).min(3)];
    match seconds % size / smaller {
        rest if rest > 0 && size >= 3_600 => format!("for {count} {unit} {rest} {small_unit}"),
        _ => format!("for {count} {unit}"),
    }
}

/// `28,232`
pub(crate) fn thousands<N: Into<u64>>(number: N) -> String {
    let digits = number.into().to_string();
    let mut words = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            words.push(',');
        }
        words.push(digit);
    }
    words
}

/// `a`, `a, or b`, `a, b, or c`; `None` of none.
pub(super) fn either(choices: &[String]) -> Option<String> {
    let (last, others) = choices.split_last()?;
    Some(if others.is_empty() {
        last.clone()
    } else {
        format!("{}, or {last}", others.join(", "))
    })
}

/// With a capital and a full stop.
pub(super) fn sentence(words: &str) -> String {
    let mut characters = words.chars();
    characters.next().map_or_else(String::new, |first| {
        format!("{}{}.", first.to_uppercase(), characters.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        const HOUR: u64 = 3_600;
        for (seconds, words) in [
            (0, "since a moment ago"),
            (1, "for 1 s"),
            (59, "for 59 s"),
            (60, "for 1 min"),
            (5 * 60 + 7, "for 5 min"),
            (HOUR, "for 1 h"),
            (HOUR + 59, "for 1 h"),
            (2 * HOUR + 60, "for 2 h 1 min"),
            (24 * HOUR + 59 * 60, "for 1 d"),
            (74 * HOUR, "for 3 d 2 h"),
            (400 * 24 * HOUR, "for 400 d"),
        ] {
            assert_eq!(lasting(Duration::from_secs(seconds)), words);
        }
        assert_eq!(lasting(Duration::from_millis(999)), "since a moment ago");
    }

    #[test]
    fn large_numbers() {
        for (number, words) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (28_232, "28,232"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(thousands::<u32>(number), words);
        }
    }

    #[test]
    fn choices() {
        let choices = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(either(&choices[..0]), None);
        assert_eq!(either(&choices[..1]).as_deref(), Some("a"));
        assert_eq!(either(&choices[..2]).as_deref(), Some("a, or b"));
        assert_eq!(either(&choices).as_deref(), Some("a, b, or c"));
    }

    #[test]
    fn sentences() {
        assert_eq!(sentence("stop a (pid 1)"), "Stop a (pid 1).");
        assert_eq!(sentence(""), "");
    }
}
