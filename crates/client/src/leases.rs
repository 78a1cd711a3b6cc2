//! The leases of one worker: kept alive with one heartbeat for all of them, and known to be lost as soon as they are.

use crate::http::Error;
use crate::pause::jittered;
use crate::promises::Client;
use crate::worker::Lease;
use base::Millis;
use protocol::{TaskRef, TaskState};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A heartbeat that was not answered is tried again after this part of the lease.
const AGAIN: u32 = 8;

/// The leases that are held now.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: Mutex<BTreeMap<TaskRef, Held>>,
    /// There is a first one.
    came: Notify,
}

#[derive(Debug)]
struct Held {
    lease: Lease,
    /// The last instant at which the server is known to have counted the lease anew.
    confirmed: Instant,
}

/// A lease among those that are kept; it ends with this.
#[derive(Debug)]
pub(crate) struct Kept {
    leases: Arc<Leases>,
    task: TaskRef,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.leases.lock().remove(&self.task);
    }
}

impl Leases {
    /// Keeps a lease that was asked for at this instant.
    pub(crate) fn keep(self: &Arc<Self>, lease: &Lease, asked: Instant) -> Kept {
        let task = lease.task().clone();
        self.lock().insert(task.clone(), Held { lease: lease.clone(), confirmed: asked });
        self.came.notify_one();
        Kept { leases: Arc::clone(self), task }
    }

    /// Heartbeats for ever, every half lease or a little sooner, naming everything that is held in one request.
    ///
    /// The server does not report a lost lease with the heartbeat, so the tasks are read after each. A lease that could
    /// not be confirmed for its whole length counts as lost, since the server has then given the task away.
    pub(crate) async fn beat(self: Arc<Self>, client: Client, pid: String, ttl: Millis) {
        let ttl = Duration::from_millis(ttl.0);
        let (mut number, mut pause) = (0, ttl / 2);
        loop {
            let Some(lapse) = self.first_confirmed().map(|confirmed| confirmed + ttl) else {
                self.came.notified().await;
                pause = ttl / 2;
                continue;
            };
            number += 1;
            tokio::time::sleep_until(lapse.min(Instant::now() + jittered(pause, &pid, number))).await;
            let (tasks, asked) = (self.tasks(), Instant::now());
            let lapse = self.first_confirmed().map_or(asked, |confirmed| confirmed + ttl);
            let beat = tokio::time::timeout_at(lapse, beat(&client, &pid, &tasks)).await;
            pause = match beat {
                Ok(Ok(states)) => {
                    states.iter().for_each(|(task, is_held)| self.note(task, *is_held, asked));
                    ttl / 2
                }
                Ok(Err(_)) | Err(_) => ttl / AGAIN,
            };
            self.lose_lapsed(ttl);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskRef, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> Vec<TaskRef> {
        self.lock().keys().cloned().collect()
    }

    fn first_confirmed(&self) -> Option<Instant> {
        self.lock().values().map(|held| held.confirmed).min()
    }

    /// Notes what the server said of a task.
    fn note(&self, task: &TaskRef, is_held: bool, asked: Instant) {
        let mut all = self.lock();
        if is_held {
            all.entry(task.clone()).and_modify(|held| held.confirmed = asked);
        } else if let Some(held) = all.remove(task) {
            held.lease.lose();
        }
    }

    fn lose_lapsed(&self, ttl: Duration) {
        self.lock().retain(|_, held| {
            let is_live = held.confirmed.elapsed() < ttl;
            if !is_live {
                held.lease.lose();
            }
            is_live
        });
    }
}

/// One heartbeat; says of each task that could be read whether it is still held.
async fn beat(client: &Client, pid: &str, tasks: &[TaskRef]) -> Result<Vec<(TaskRef, bool)>, Error> {
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    client.heartbeat(pid, tasks).await?;
    let mut reads = JoinSet::new();
    for task in tasks.iter().cloned() {
        let client = client.clone();
        reads.spawn(async move { client.task(&task.id).await.map(|found| (task, found)) });
    }
    let mut states = Vec::with_capacity(tasks.len());
    while let Some(read) = reads.join_next().await {
        // What could not be read is neither confirmed nor lost; it lapses if that goes on.
        if let Ok(Ok((task, found))) = read {
            let is_held =
                |found: protocol::TaskRecord| found.state == TaskState::Acquired && found.version == task.version;
            let is_held = found.is_some_and(is_held);
            states.push((task, is_held));
        }
    }
    Ok(states)
}
