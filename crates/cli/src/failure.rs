//! How a command fails: a message, an exit code, and the command to try next.

use std::path::Path;
use std::process::ExitCode;

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code; see the reference of exit codes.
    pub(crate) exit: u8,
    /// What went wrong, with its causes.
    pub(crate) message: String,
    /// What to do now.
    pub(crate) next: Option<String>,
}

impl Failure {
    /// Exit 1: a fault of ours or of the machine.
    pub(crate) fn internal(message: impl Into<String>) -> Failure {
        Failure { exit: 1, message: message.into(), next: None }
    }

    /// Exit 2: the command was not usable as given.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure { exit: 2, message: message.into(), next: None }
    }

    /// Exit 2: what was given cannot be used; the error and its causes say what, where and why.
    pub(crate) fn refused(error: impl Into<anyhow::Error>) -> Failure {
        Failure::usage(format!("{:#}", error.into()))
    }

    /// Exit 2: a file cannot be used as it is; the message names it.
    pub(crate) fn file(path: &Path, why: impl std::fmt::Display) -> Failure {
        Failure::usage(format!("{}: {why}", path.display()))
    }

    /// The same failure with a next command.
    pub(crate) fn next(self, next: impl Into<String>) -> Failure {
        Failure { next: Some(next.into()), ..self }
    }

    /// Prints it to stderr and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        anstream::eprintln!("\u{1b}[31merror\u{1b}[0m: {}", self.message);
        if let Some(next) = self.next {
            anstream::eprintln!("  try: {next}");
        }
        ExitCode::from(self.exit)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::internal(format!("{error:#}"))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::internal(error.to_string())
    }
}
