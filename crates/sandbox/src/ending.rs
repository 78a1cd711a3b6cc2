//! How a process of the shop ends: cleanly when asked, at once when its lifeline ends.

use std::io::Read as _;
use tokio::signal::unix::{SignalKind, signal};

/// Why a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It was asked: finish what is at work.
    Asked,
    /// Whoever started it is gone.
    Abandoned,
}

/// Returns when the process shall end. A lifeline is a pipe on standard input that nobody ever writes to.
pub(crate) async fn requested(lifeline: bool) -> Ending {
    tokio::select! {
        () = asked() => Ending::Asked,
        () = abandoned(), if lifeline => Ending::Abandoned,
    }
}

async fn asked() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn abandoned() {
    let (over, end) = tokio::sync::oneshot::channel::<()>();
    // WHY: a thread of its own, because reading standard input cannot be canceled.
    std::thread::spawn(move || {
        let _over = over;
        let mut scrap = [0_u8; 64];
        while std::io::stdin().read(&mut scrap).is_ok_and(|read| read > 0) {}
    });
    let _ = end.await;
}
