//! A worker's connection: what it is told, and what happens when it drops.

use crate::engine::delivery::TooManyConnections;
use crate::engine::meters::Delivery;
use crate::engine::shared::Shared;
use protocol::Message;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The messages for one worker, from now on until it is dropped.
pub struct Connection {
    shared: Arc<Shared>,
    group: String,
    id: String,
    line: u64,
    frames: mpsc::Receiver<Message>,
}

impl Connection {
    pub(super) fn open(shared: &Arc<Shared>, group: &str, id: &str) -> Result<Connection, TooManyConnections> {
        let (line, frames) = shared.lock().delivery.connect(group, id)?;
        shared.meters.streams.inc();
        // What waits for this worker is delivered now, not at the next retry.
        shared.stir.notify_one();
        Ok(Connection { shared: Arc::clone(shared), group: group.to_owned(), id: id.to_owned(), line, frames })
    }

    /// The next message; `None` once the engine has ended. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Message> {
        let message = tokio::select! {
            biased;
            message = self.frames.recv() => message,
            () = self.shared.stopped.cancelled() => None,
        };
        self.shared.meters.delivered(Delivery::Sent, usize::from(message.is_some()));
        if self.frames.is_empty() {
            // There is room again for what did not fit.
            self.shared.stir.notify_one();
        }
        message
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.meters.streams.dec();
        let held = {
            let mut core = self.shared.lock();
            core.delivery.disconnect(&self.group, self.line);
            core.memory.held_by(&self.id)
        };
        self.shared.stir.notify_one();
        if held.is_empty() {
            return;
        }
        // Outside a runtime there is nobody to wait: the leases lapse by themselves.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (shared, group, id) = (Arc::clone(&self.shared), self.group.clone(), self.id.clone());
        let grace_ends = shared.env.now().plus(shared.reconnect_grace);
        let env = shared.env.clone();
        env.spawn(async move {
            tokio::select! {
                biased;
                () = shared.stopped.cancelled() => return,
                () = shared.env.sleep_until(grace_ends) => {}
            }
            let mut core = shared.lock();
            let now = shared.env.now();
            if !core.delivery.is_connected(&group, &id) && shared.writable(&core).is_ok() && core.reclaim(&held, now) {
                drop(core);
                shared.wake();
                shared.stir.notify_one();
            }
        });
    }
}
