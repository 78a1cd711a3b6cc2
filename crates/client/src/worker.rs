use crate::leases::Leases;
use crate::operations::Suspended;
use crate::pause::{BACKOFF_MIN, longer};
use crate::promises::Client;
use base::Millis;
use protocol::wire::{self, Incoming};
use protocol::{Promise, Resolution, TaskRef, TaskState, Value};
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// LIMIT: tasks that one worker works on at the same time; more are left to others and to the retry.
pub const JOBS_MAX: usize = 64;
/// LIMIT: times that a job runs again because what it suspends on has settled already; then it is given back.
pub const REPLAYS_MAX: u32 = 100;

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
    /// The work waits for one of these promises. It runs again from its top when one has settled, here or elsewhere; at
    /// once if one has settled already. If the server does not let them be awaited, the task is given back.
    Suspend(Vec<String>),
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

    pub(crate) fn lose(&self) {
        self.lost.cancel();
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
        // Ends with this future, however that ends.
        let mut beating = JoinSet::new();
        beating.spawn(Arc::clone(&jobs.leases).beat(self.client.clone(), self.pid.clone(), self.ttl));
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
                let id =
                    jobs.running.spawn(self.clone().perform(task.clone(), Arc::clone(&jobs.leases), work.clone())).id();
                jobs.ids.push((id, task));
            }
        }
    }

    /// Acquires one offered task, works on it under its lease, and ends it.
    async fn perform<F, R>(self, offered: TaskRef, leases: Arc<Leases>, work: F)
    where
        F: Fn(Job) -> R + Send + Sync,
        R: Future<Output = Outcome> + Send + 'static,
    {
        let asked = Instant::now();
        // A failed acquire is repaired by the retry, or by the lease if only its answer was lost.
        let Ok(Some((task, promise, mut preload))) = self.client.acquire(&offered, &self.pid, self.ttl).await else {
            return;
        };
        if task.state != TaskState::Acquired {
            return;
        }
        let lease = Lease { task: TaskRef { id: task.id, version: task.version }, lost: CancellationToken::new() };
        // Heartbeats end with the work; the work learns of a loss from its lease and ends itself.
        let _kept = leases.keep(&lease, asked);
        for _ in 0..=REPLAYS_MAX {
            let job = Job { promise: Arc::clone(&promise), preload, lease: lease.clone() };
            let outcome = work(job).await;
            if lease.is_lost() {
                return;
            }
            match self.end(&lease, outcome).await {
                Some(more) => preload = more,
                None => return,
            }
        }
        drop(self.client.release(&lease.task).await);
    }

    /// Ends a job as its work says; `Some` if the work is to go on, with these promises of its branch.
    ///
    /// If an answer is lost the lease runs out, which is what the release or the successor is for.
    async fn end(&self, lease: &Lease, outcome: Outcome) -> Option<Vec<Arc<Promise>>> {
        match outcome {
            Outcome::Settled => {}
            Outcome::Release => drop(self.client.release(&lease.task).await),
            Outcome::Fulfill(state, value) => drop(self.client.fulfill(&lease.task, state, value).await),
            Outcome::Suspend(awaited) => match self.client.suspend(&lease.task, &awaited).await {
                Ok(Suspended::Ready(preload)) => return Some(preload),
                Ok(Suspended::Waiting | Suspended::Lost) => {}
                Err(error) if error.may_have_acted() => {}
                Err(_) => drop(self.client.release(&lease.task).await),
            },
        }
        None
    }
}

/// The jobs of a worker, so that an offer that comes twice is taken once.
#[derive(Default)]
struct Jobs {
    leases: Arc<Leases>,
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
