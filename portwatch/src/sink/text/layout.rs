//! Where the columns are.

/// First column of the event.
pub(super) const EVENT: usize = 13;
/// First column of the transport.
pub(super) const TRANSPORT: usize = 22;
/// First column of the addresses.
pub(super) const ADDRESS: usize = 28;

/// Room for the longest of the frequent errno names, EADDRNOTAVAIL.
const SHORT_RESULT: usize = 13;
/// Room for a name and its reason: `unknown (closed before it was known)`.
const LONG_RESULT: usize = 36;

/// Columns behind the address. Addresses are on the left and process ids on the right of one field,
/// so that either may be long where the other is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Columns of the terminal, if it is one.
    pub(super) width: Option<usize>,
    /// Column behind the process id.
    pub(super) pid_end: usize,
    /// First column of the result.
    pub(super) result: usize,
}

impl Layout {
    pub(super) const fn new(width: Option<usize>) -> Self {
        let (address_and_pid, command) = match width {
            // Two IPv4 endpoints, an arrow and a short process id.
            None => (50, 32),
            Some(width) if width >= 83 + LONG_RESULT => {
                let spare = width - 83 - LONG_RESULT;
                let command = if spare < 24 { spare } else { 24 };
                let address = spare - command;
                (37 + if address < 30 { address } else { 30 }, 16 + command)
            }
            Some(width) => {
                // 80 columns are the least that shows everything; below, lines wrap.
                let spare = width.saturating_sub(80);
                let address = if spare < 11 { spare } else { 11 };
                (
                    26 + address,
                    80 - ADDRESS - 26 - 2 - SHORT_RESULT + spare - address,
                )
            }
        };
        let pid_end = ADDRESS + address_and_pid;
        Self {
            width,
            pid_end,
            result: pid_end + 1 + command + 1,
        }
    }

    /// First column of the command, where nothing pushes it.
    pub(super) const fn command(&self) -> usize {
        self.pid_end + 1
    }

    /// The titles of the columns, as a line.
    pub(super) fn header(&self) -> String {
        let mut line = String::new();
        for (column, title) in [
            (0, "TIME"),
            (EVENT, "EVENT"),
            (TRANSPORT, "PROTO"),
            (ADDRESS, "LOCAL → PEER"),
            (self.pid_end - 3, "PID"),
            (self.command(), "COMMAND"),
            (self.result, "RESULT"),
        ] {
            let used = line.chars().count();
            line.extend(std::iter::repeat_n(' ', column.saturating_sub(used)));
            line.push_str(title);
        }
        line.push('\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_from_80_on_holds_the_columns() {
        for width in 80..400 {
            let layout = Layout::new(Some(width));
            assert!(layout.result + SHORT_RESULT <= width, "{width}");
            assert!(layout.result >= layout.command() + 9, "{width}");
            if width >= 120 {
                assert!(layout.result + LONG_RESULT <= width, "{width}");
            }
        }
        assert_eq!(Layout::new(Some(20)).result, Layout::new(Some(80)).result);
    }
}
