//! `ottla completions`: what a shell needs to complete our command lines.

use std::io;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{CommandError, CommandLine};

const EXAMPLES: &str = "\
Examples:
  source <(ottla completions bash)
  ottla completions zsh > ~/.zfunc/_ottla
  ottla completions fish > ~/.config/fish/completions/ottla.fish";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Flags {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub(super) fn run(flags: Flags) -> Result<(), CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut CommandLine::command(), "ottla", &mut script);
    io::Write::write_all(&mut io::stdout(), &script).map_err(CommandError::Output)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut CommandLine::command(), "ottla", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("reset-offsets") && script.contains("consume"), "{shell}");
        }
    }
}
