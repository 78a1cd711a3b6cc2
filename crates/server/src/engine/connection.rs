//! A worker's connection: what it is told, and what happens when it drops.

use crate::engine::delivery::{CONNECTION_BUFFER_MAX, TooManyConnections};
use crate::engine::shared::Shared;
use protocol::Message;
use std::sync::Arc;
use tokio::sync::Notify;

/// The messages for one worker, from now on until it is dropped.
pub struct Connection {
    shared: Arc<Shared>,
    id: String,
    line: u64,
    wake: Arc<Notify>,
}

impl Connection {
    pub(super) fn open(shared: &Arc<Shared>, group: &str, id: &str) -> Result<Connection, TooManyConnections> {
        // What waits for this worker is handed over now, not at the next retry.
        let (line, wake) = shared.lock().delivery.connect(group, id)?;
        shared.meters.streams.inc();
        Ok(Connection { shared: Arc::clone(shared), id: id.to_owned(), line, wake })
    }

    /// The next message; `None` once the engine has ended. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Message> {
        let taken = self.take(1).await?;
        taken.first().map(|message| Message::clone(message))
    }

    /// The next messages, as many as belong into one write and at least one; `None` once the engine has ended.
    /// Dropping the future loses nothing.
    pub async fn next_chunk(&mut self) -> Option<Vec<Arc<Message>>> {
        self.take(CONNECTION_BUFFER_MAX).await
    }

    async fn take(&mut self, count_max: usize) -> Option<Vec<Arc<Message>>> {
        loop {
            {
                let mut core = self.shared.lock();
                let now = self.shared.env.now();
                let was_idle = core.delivery.next_ack().is_none();
                let taken = core.delivery.take(self.line, count_max, now);
                drop(core);
                if !taken.is_empty() {
                    if was_idle {
                        // Nobody knows yet that frames will be due to be counted as received.
                        self.shared.stir.notify_one();
                    }
                    return Some(taken);
                }
            }
            tokio::select! {
                biased;
                () = self.shared.stopped.cancelled() => return None,
                () = self.wake.notified() => {}
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.meters.streams.dec();
        let mut core = self.shared.lock();
        let now = self.shared.env.now();
        core.delivery.disconnect(self.line, now);
        if !core.delivery.is_present(&self.id) {
            let held = core.memory.held_by(&self.id);
            if !held.is_empty() {
                let until = now.plus(self.shared.reconnect_grace);
                core.delivery.leave(&self.id, held, until);
            }
        }
        drop(core);
        self.shared.stir.notify_one();
    }
}
