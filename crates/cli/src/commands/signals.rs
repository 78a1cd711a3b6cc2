//! What ends a command before its time. It cleans up first and then says by its exit code which signal it was, as a
//! shell would.

use crate::failure::Failure;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C and SIGTERM, watched from its making on.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// Which of them came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// SIGINT
    Interrupt,
    /// SIGTERM
    Terminate,
}

impl Signals {
    /// Watches from now on.
    ///
    /// # Errors
    /// The system has no room for another handler.
    pub(crate) fn watch() -> Result<Signals, Failure> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The first to come.
    pub(crate) async fn any(&mut self) -> Came {
        tokio::select! {
            _ = self.interrupt.recv() => Came::Interrupt,
            _ = self.terminate.recv() => Came::Terminate,
        }
    }
}

impl Came {
    /// The failed command, with what was cleaned up: exit 130 or 143.
    pub(crate) fn failure(self, cleaned: &str) -> Failure {
        let (exit, word) = match self {
            Came::Interrupt => (130, "interrupted"),
            Came::Terminate => (143, "terminated"),
        };
        Failure { exit, message: format!("{word}; {cleaned}"), next: None }
    }
}
