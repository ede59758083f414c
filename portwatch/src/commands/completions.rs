//! `portwatch completions SHELL`.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;

/// Writes the completion script of `shell` to `out`.
///
/// # Errors
///
/// When `out` cannot be written to.
pub fn run(shell: Shell, out: &mut dyn Write) -> io::Result<()> {
    // By way of a buffer: clap_complete panics where it cannot write, a closed pipe included.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "portwatch", &mut script);
    out.write_all(&script)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_completes_verbs_and_options() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for word in ["trace", "doctor", "peer-port"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }

    // clap_complete writes no values for elvish and PowerShell.
    #[test]
    fn the_common_shells_complete_values() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            for word in ["raw_tp", "autobind", "never"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }

    fn script(shell: Shell) -> String {
        let mut script = Vec::new();
        run(shell, &mut script).unwrap();
        String::from_utf8(script).unwrap()
    }

    #[test]
    fn a_closed_pipe_is_an_error_not_a_panic() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        let error = run(Shell::Bash, &mut writer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
