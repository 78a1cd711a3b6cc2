use crate::http::Error;
use crate::promises::Client;
use base::Millis;
use protocol::wire::{self, Incoming};
use protocol::{Promise, Resolution, TaskRef, TaskState, Value};
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// LIMIT: tasks that one worker works on at the same time; more are left to others and to the retry.
pub const JOBS_MAX: usize = 64;
/// The first pause before a lost stream is opened again; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest pause before a lost stream is opened again.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Heartbeats per lease.
const BEATS: u32 = 3;

/// A worker of one group: takes what it is offered and hands it to a closure.
#[derive(Clone, Debug)]
pub struct Worker {
    client: Client,
    group: String,
    pid: String,
    ttl: Millis,
}

/// A task that was acquired.
#[derive(Debug)]
pub struct Job {
    /// The promise that the work settles.
    pub promise: Arc<Promise>,
    /// Promises of the same branch, as many as the server sent.
    pub preload: Vec<Arc<Promise>>,
    /// The right to do the work.
    pub lease: Lease,
}

/// The right to work on a task, kept alive by heartbeats until it is dropped or lost; cheap to clone.
#[derive(Clone, Debug)]
pub struct Lease {
    task: TaskRef,
    lost: CancellationToken,
}

/// How the work on a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The promise was settled on another way, or the lease was lost: there is nothing left to do.
    Settled,
    /// Somebody else shall go on.
    Release,
    /// The promise settles so.
    Fulfill(Resolution, Value),
}

impl Lease {
    /// The right to work on a task that is held without heartbeats: it is never seen to be lost.
    #[must_use]
    pub fn unwatched(task: TaskRef) -> Lease {
        Lease { task, lost: CancellationToken::new() }
    }

    /// The task and the version at which it is held.
    #[must_use]
    pub fn task(&self) -> &TaskRef {
        &self.task
    }

    /// Whether the lease is known to be lost. Nothing more may be done then.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Completes when the lease is lost, or could not be confirmed for as long as it lasts.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Worker {
    /// A worker of `group` that calls itself `pid`, which no other worker may, and takes leases of `ttl`.
    #[must_use]
    pub fn new(client: Client, group: impl Into<String>, pid: impl Into<String>, ttl: Millis) -> Worker {
        Worker { client, group: group.into(), pid: pid.into(), ttl }
    }

    /// Works until `stop` is cancelled, then lets the jobs at hand end. Reconnects by itself.
    pub async fn run<F, R>(&self, stop: CancellationToken, work: F)
    where
        F: Fn(Job) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Outcome> + Send + 'static,
    {
        let mut jobs = Jobs::default();
        let mut backoff = BACKOFF_MIN;
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                connected = self.attend(&mut jobs, &work) => {
                    if connected {
                        backoff = BACKOFF_MIN;
                    }
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(backoff) => backoff = longer(backoff),
            }
        }
        while jobs.running.join_next().await.is_some() {}
    }

    /// Holds one stream open and starts a job for each offer; answers whether there was a stream at all.
    async fn attend<F, R>(&self, jobs: &mut Jobs, work: &F) -> bool
    where
        F: Fn(Job) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Outcome> + Send + 'static,
    {
        let Ok(mut events) = self.client.events(&format!("/poll/{}/{}", self.group, self.pid)).await else {
            return false;
        };
        loop {
            let event = tokio::select! {
                biased;
                event = events.next() => event,
                Some(ended) = jobs.running.join_next_with_id() => {
                    jobs.forget(&ended);
                    continue;
                }
            };
            let Ok(Some(event)) = event else { return true };
            let Ok(Incoming::Execute { task, .. }) = wire::parse_message(&event) else { continue };
            // What is not taken now is offered again after the retry time.
            if jobs.running.len() < JOBS_MAX && jobs.offered.insert(task.clone()) {
                let id = jobs.running.spawn(self.clone().perform(task.clone(), work.clone())).id();
                jobs.ids.push((id, task));
            }
        }
    }

    /// Acquires one offered task, works on it under its lease, and ends it.
    async fn perform<F, R>(self, offered: TaskRef, work: F)
    where
        F: Fn(Job) -> R + Send + Sync,
        R: Future<Output = Outcome> + Send + 'static,
    {
        let asked = Instant::now();
        // A failed acquire is repaired by the retry, or by the lease if only its answer was lost.
        let Ok(Some((task, promise, preload))) = self.client.acquire(&offered, &self.pid, self.ttl).await else {
            return;
        };
        if task.state != TaskState::Acquired {
            return;
        }
        let lease = Lease { task: TaskRef { id: task.id, version: task.version }, lost: CancellationToken::new() };
        let job = Job { promise, preload, lease: lease.clone() };
        let outcome = tokio::select! {
            biased;
            outcome = work(job) => outcome,
            // Heartbeats end with the work; the work learns of a loss from its lease and ends itself.
            () = self.keep(&lease, asked) => Outcome::Settled,
        };
        if lease.is_lost() {
            return;
        }
        // If the answer is lost the lease runs out, which is what the release or the successor is for.
        match outcome {
            Outcome::Settled => {}
            Outcome::Release => drop(self.client.release(&lease.task).await),
            Outcome::Fulfill(state, value) => drop(self.client.fulfill(&lease.task, state, value).await),
        }
    }

    /// Keeps a lease alive; never completes, so that the work decides when it ends.
    ///
    /// The server does not report a lost lease with the heartbeat, so the task is read after each. A lease that could
    /// not be confirmed for its whole length counts as lost, since the server has then given the task away.
    async fn keep(&self, lease: &Lease, acquired: Instant) {
        let ttl = Duration::from_millis(self.ttl.0);
        let mut confirmed = acquired;
        loop {
            tokio::time::sleep(ttl / BEATS).await;
            let asked = Instant::now();
            let beat = tokio::time::timeout_at(confirmed + ttl, self.beat(lease)).await;
            match beat {
                Ok(Ok(true)) => confirmed = asked,
                Ok(Ok(false)) => break,
                Ok(Err(_)) if confirmed.elapsed() < ttl => {}
                Ok(Err(_)) | Err(_) => break,
            }
        }
        lease.lost.cancel();
        std::future::pending().await
    }

    /// One heartbeat; false if the task is not ours any more.
    async fn beat(&self, lease: &Lease) -> Result<bool, Error> {
        self.client.heartbeat(&self.pid, std::slice::from_ref(&lease.task)).await?;
        let task = self.client.task(&lease.task.id).await?;
        Ok(task.is_some_and(|task| task.state == TaskState::Acquired && task.version == lease.task.version))
    }
}

/// The pause after the next failure.
fn longer(backoff: Duration) -> Duration {
    (backoff * 2).min(BACKOFF_MAX)
}

/// The jobs of a worker, so that an offer that comes twice is taken once.
#[derive(Default)]
struct Jobs {
    running: JoinSet<()>,
    offered: BTreeSet<TaskRef>,
    ids: Vec<(Id, TaskRef)>,
}

impl Jobs {
    fn forget(&mut self, ended: &Result<(Id, ()), tokio::task::JoinError>) {
        let ended = match ended {
            Ok((id, ())) => *id,
            Err(failed) => failed.id(),
        };
        if let Some(at) = self.ids.iter().position(|(id, _)| *id == ended) {
            let (_, task) = self.ids.swap_remove(at);
            self.offered.remove(&task);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses: Vec<Duration> =
            std::iter::successors(Some(BACKOFF_MIN), |last| Some(longer(*last))).take(9).collect();
        assert_eq!(pauses[1], 2 * BACKOFF_MIN);
        assert_eq!(pauses[6..], [BACKOFF_MAX; 3]);
    }
}
