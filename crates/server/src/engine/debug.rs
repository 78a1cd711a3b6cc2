//! What an outside tester may do to a server that was started for it: stop its clockwork, turn it by hand, look at
//! everything, empty it.

use crate::engine::{Engine, SubmitError};
use base::Timestamp;
use protocol::{Body, Debug, Response, Snapshot};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether testers may do this, and whether the clockwork stands.
#[derive(Debug, Default)]
pub(super) struct Switch {
    pub(super) is_on: bool,
    paused: AtomicBool,
}

impl Switch {
    pub(super) fn new(is_on: bool) -> Switch {
        Switch { is_on, paused: AtomicBool::new(false) }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }
}

impl Engine {
    /// Performs one operation for testers.
    pub(super) async fn debug(&self, debug: Debug) -> Result<Response, SubmitError> {
        match debug {
            Debug::Start => self.pause(true),
            Debug::Stop => self.pause(false),
            Debug::Reset => return self.reset().await,
            Debug::Tick(at) => return self.turn(at).await,
            Debug::Snap => {
                self.flush().await?;
                let mut core = self.shared.lock();
                self.shared.warm_all(&mut core)?;
                return Ok(Response::ok(Body::Snapshot(Box::new(Snapshot::of(&core.memory)))));
            }
        }
        Ok(Response::ok(Body::Empty))
    }

    fn pause(&self, paused: bool) {
        self.shared.debug.paused.store(paused, Ordering::Release);
        self.shared.stir.notify_one();
    }

    /// One sweep of everything that is due at an instant.
    async fn turn(&self, at: Timestamp) -> Result<Response, SubmitError> {
        {
            let mut core = self.shared.lock();
            self.shared.writable(&core)?;
            let firings = core.firings(at, u32::MAX);
            self.shared.warm(&mut core, firings.iter().map(String::as_str))?;
            core.tick(at, u32::MAX);
        }
        self.flush().await?;
        Ok(Response::ok(Body::Swept))
    }

    /// Empties the store of promises, tasks, schedules and messages; never of incidents, holds or evidence.
    async fn reset(&self) -> Result<Response, SubmitError> {
        // What is on its way to the disk arrives first: a row is taken away where it lies.
        self.flush().await?;
        {
            let mut core = self.shared.lock();
            self.shared.writable(&core)?;
            if core.holds_reserved() {
                let told = "the store holds incidents or holds, which are not thrown away; use another data directory";
                return Ok(Response::refuse(403, told));
            }
            core.empty(self.shared.env.now());
        }
        self.flush().await?;
        Ok(Response::ok(Body::Empty))
    }
}
