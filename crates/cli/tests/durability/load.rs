//! Clients that write and keep their own record of what was acknowledged to them.

use base::{Millis, Timestamp};
use client::{Client, Error};
use protocol::{
    Callback, Create, EXTERNAL, Promise, PromiseState, Request, Resolution, Response, Settle, TARGET, TaskRef,
    TaskState, Value,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// Beyond every test: no deadline and no lease may change anything by itself.
const FAR: Timestamp = Timestamp(9_000_000_000_000);
const LEASE: Millis = Millis(86_400_000);
const WORKER: &str = "writer";

/// One thing that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Acquire,
    Heartbeat,
    Release,
    CreateChild,
    /// Waits for the child and gives the task up meanwhile.
    Suspend,
    /// Settles the child, which offers the task again: both, or neither.
    SettleChild,
    Fulfill,
    Settle,
}

use Step::{Acquire, CreateChild, Fulfill, Heartbeat, Release, SettleChild, Suspend};

/// A promise that is created and settled.
const PLAIN: &[Step] = &[Step::Create, Step::Settle];
/// A task through every state that it can have.
const WORK: &[Step] =
    &[Step::Create, Acquire, Heartbeat, Release, Acquire, CreateChild, Suspend, SettleChild, Acquire, Fulfill];

/// What anyone sees of a job: its promise, its task and its child.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) promise: Option<Promise>,
    pub(crate) task: Option<(TaskState, u64)>,
    pub(crate) child: Option<Promise>,
}

/// The part of [`Seen`] that follows from the steps alone.
type Shape = (Option<PromiseState>, Option<(TaskState, u64)>, Option<PromiseState>);

impl Seen {
    fn shape(&self) -> Shape {
        let state = |promise: &Option<Promise>| promise.as_ref().map(|promise| promise.state);
        (state(&self.promise), self.task, state(&self.child))
    }
}

/// A promise or a task on its way through its steps, as its writer knows it.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: String,
    steps: &'static [Step],
    /// What was acknowledged, one for each step.
    answers: Vec<Answer>,
    /// The next step was asked for and not answered: it may have happened or not.
    doubt: bool,
}

/// The promise and the child of a job as they were after one step.
#[derive(Clone, Debug)]
struct Answer {
    /// When it was known to be acknowledged, by the writer's clock.
    at: u64,
    promise: Option<Promise>,
    child: Option<Promise>,
}

impl Job {
    fn new(id: String, steps: &'static [Step]) -> Job {
        Job { id, steps, answers: Vec::new(), doubt: false }
    }

    /// The job as its writer knew it at an instant: what came later may have been under way.
    pub(crate) fn at(&self, instant: u64) -> Job {
        let answers = self.answers.iter().filter(|answer| answer.at <= instant).cloned().collect();
        Job { id: self.id.clone(), steps: self.steps, answers, doubt: true }
    }

    fn done(&self) -> usize {
        self.answers.len()
    }

    fn last(&self) -> (Option<Promise>, Option<Promise>) {
        self.answers.last().map(|answer| (answer.promise.clone(), answer.child.clone())).unwrap_or_default()
    }

    pub(crate) fn child_id(&self) -> String {
        format!("{}.child", self.id)
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.done() == self.steps.len()
    }

    /// How many of its steps were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.done()
    }

    /// The version of its task after so many steps: every change of ownership raises it.
    fn version(&self, done: usize) -> u64 {
        self.steps.iter().take(done).filter(|step| matches!(step, Acquire | Release)).count() as u64
    }

    /// What must be seen after so many steps.
    fn shape(&self, done: usize) -> Shape {
        let mut shape: Shape = (None, None, None);
        for (at, step) in self.steps.iter().take(done).enumerate() {
            let task = |state| Some((state, self.version(at + 1)));
            match step {
                Step::Create if self.steps.len() == PLAIN.len() => shape.0 = Some(PromiseState::Pending),
                Step::Create => shape = (Some(PromiseState::Pending), task(TaskState::Pending), None),
                Acquire => shape.1 = task(TaskState::Acquired),
                Heartbeat => {}
                Release => shape.1 = task(TaskState::Pending),
                CreateChild => shape.2 = Some(PromiseState::Pending),
                Suspend => shape.1 = task(TaskState::Suspended),
                SettleChild => (shape.1, shape.2) = (task(TaskState::Pending), Some(PromiseState::Resolved)),
                Fulfill => (shape.0, shape.1) = (Some(PromiseState::Resolved), task(TaskState::Fulfilled)),
                Step::Settle => shape.0 = Some(PromiseState::Rejected),
            }
        }
        shape
    }

    fn request(&self, step: Step) -> Request {
        let (id, version) = (self.id.clone(), self.version(self.done()));
        let child = self.child_id();
        let create = |id: String, tags: BTreeMap<String, String>| {
            let param = Value::text(format!("param of {id}"));
            Request::PromiseCreate(Create { id, timeout_at: FAR, param, tags })
        };
        let settle = |id: String, state| {
            let value = Value::text(format!("value of {id}"));
            Settle { id, state, value }
        };
        let tag = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        match step {
            Step::Create if self.steps.len() == PLAIN.len() => create(id, BTreeMap::new()),
            Step::Create => create(id, tag(TARGET, "poll://any@nobody")),
            Acquire => Request::TaskAcquire { id, version, pid: WORKER.to_owned(), ttl: LEASE },
            Heartbeat => Request::TaskHeartbeat { pid: WORKER.to_owned(), tasks: vec![TaskRef { id, version }] },
            Release => Request::TaskRelease(TaskRef { id, version }),
            CreateChild => create(child, tag(EXTERNAL, "true")),
            Suspend => Request::TaskSuspend {
                id: id.clone(),
                version,
                actions: vec![Callback { awaited: child, awaiter: id }],
            },
            SettleChild => Request::PromiseSettle(settle(child, Resolution::Resolved)),
            Fulfill => Request::TaskFulfill { id: id.clone(), version, action: settle(id, Resolution::Resolved) },
            Step::Settle => Request::PromiseSettle(settle(id, Resolution::Rejected)),
        }
    }

    /// Takes the answer to the next step into the writer's record.
    fn acknowledge(&mut self, step: Step, response: Response, at: u64) {
        let carried = match response.body {
            protocol::Body::Promise(promise) | protocol::Body::Acquired { promise, .. } => {
                Some(Arc::unwrap_or_clone(promise))
            }
            _ => None,
        };
        let (mut promise, mut child) = self.last();
        match step {
            CreateChild | SettleChild => child = carried,
            Step::Create | Fulfill | Step::Settle => promise = carried,
            Acquire => assert_eq!(promise, carried, "{}: acquiring showed another promise", self.id),
            Heartbeat | Release | Suspend => {}
        }
        self.answers.push(Answer { at, promise, child });
        self.doubt = false;
    }

    /// Compares what is there with what was acknowledged; true if the unanswered step has happened.
    ///
    /// # Errors
    /// Says what is lost or changed.
    pub(crate) fn compare(&self, seen: &Seen) -> Result<bool, String> {
        let happened = self.doubt && seen.shape() != self.shape(self.done()) && !self.is_finished();
        let expected = self.shape(self.done() + usize::from(happened));
        let (promise, child) = self.last();
        // A record that the unanswered step cannot have touched is the acknowledged one in every field.
        let next = self.steps.get(self.done()).filter(|_| happened);
        let touches_promise = matches!(next, Some(Step::Create | Fulfill | Step::Settle));
        let touches_child = matches!(next, Some(CreateChild | SettleChild));
        let same = (touches_promise || seen.promise == promise) && (touches_child || seen.child == child);
        if seen.shape() == expected && same {
            return Ok(happened);
        }
        Err(format!(
            "{}: {promise:?} {child:?} {:?} was acknowledged, {seen:?} is there",
            self.id,
            self.shape(self.done())
        ))
    }

    /// As [`Job::compare`], and what is there is known from then on.
    ///
    /// # Errors
    /// As [`Job::compare`].
    pub(crate) fn settle_doubt(&mut self, seen: &Seen, at: u64) -> Result<(), String> {
        if self.compare(seen)? {
            self.answers.push(Answer { at, promise: seen.promise.clone(), child: seen.child.clone() });
        }
        self.doubt = false;
        Ok(())
    }
}

/// Counts what was acknowledged to all writers, and tells when there is enough of it.
#[derive(Default)]
pub(crate) struct Tally {
    acknowledged: AtomicU64,
    enough: AtomicU64,
    reached: Notify,
}

impl Tally {
    /// Waits until so much more was acknowledged.
    pub(crate) async fn reach(&self, more: u64) {
        self.enough.store(self.acknowledged.load(Ordering::SeqCst) + more, Ordering::SeqCst);
        while self.acknowledged.load(Ordering::SeqCst) < self.enough.load(Ordering::SeqCst) {
            self.reached.notified().await;
        }
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    fn count(&self) {
        let now = self.acknowledged.fetch_add(1, Ordering::SeqCst) + 1;
        if now >= self.enough.load(Ordering::SeqCst) {
            // Whoever is not waiting yet finds the permit.
            self.reached.notify_one();
        }
    }
}

/// One client with one request on its way at a time.
#[derive(Debug)]
pub(crate) struct Writer {
    name: String,
    made: u64,
    /// Jobs that are not finished.
    pub(crate) open: Vec<Job>,
    /// Jobs that are.
    pub(crate) finished: Vec<Job>,
}

impl Writer {
    pub(crate) fn new(name: String) -> Writer {
        Writer { name, made: 0, open: Vec::new(), finished: Vec::new() }
    }

    /// Every job this writer ever began.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.finished.iter().chain(&self.open)
    }

    /// Writes until the server does not answer any more, or refuses; answers the refusal.
    pub(crate) async fn write(
        &mut self,
        client: &Client,
        tally: &Tally,
        clock: &(dyn Fn() -> u64 + Sync),
    ) -> Option<(u16, String)> {
        loop {
            if self.open.is_empty() {
                self.made += 1;
                let steps = if self.made.is_multiple_of(4) { WORK } else { PLAIN };
                self.open.push(Job::new(format!("{}.{}", self.name, self.made), steps));
            }
            let job = self.open.last_mut()?;
            let step = *job.steps.get(job.done())?;
            job.doubt = true;
            match client.rpc(&job.request(step)).await {
                Ok(response) if response.is_success() => {
                    job.acknowledge(step, response, clock());
                    tally.count();
                    if job.is_finished() {
                        self.finished.extend(self.open.pop());
                    }
                }
                Ok(refused) => {
                    let words = match refused.body {
                        protocol::Body::Error(words) => words,
                        other => format!("{other:?}"),
                    };
                    return Some((refused.status, words));
                }
                Err(Error::Unreachable { .. } | Error::Timeout(_) | Error::Answer(_)) => return None,
                Err(other) => return Some((0, other.to_string())),
            }
        }
    }
}

/// What the server shows of a job.
pub(crate) async fn seen(client: &Client, job: &Job) -> Seen {
    let promise = client.get(&job.id).await.unwrap();
    let task = if job.steps.len() == PLAIN.len() { None } else { client.task(&job.id).await.unwrap() };
    let child = client.get(&job.child_id()).await.unwrap();
    Seen { promise, task: task.map(|task| (task.state, task.version)), child }
}

/// What the rows of a store say of a job.
pub(crate) fn stored(rows: &BTreeMap<String, protocol::Row>, job: &Job) -> Seen {
    let promise = |id: &str| rows.get(id).map(|row| (*row.promise).clone());
    let task = rows.get(&job.id).and_then(|row| row.task.as_ref()).map(|task| (task.state, task.version));
    Seen { promise: promise(&job.id), task, child: promise(&job.child_id()) }
}

/// The rows of a data directory, read beside whoever uses it.
pub(crate) fn rows(data: &std::path::Path) -> BTreeMap<String, protocol::Row> {
    let contents = store::Sqlite::inspect(data).unwrap();
    contents.rows.into_iter().map(|(_, row)| (row.id().to_owned(), row)).collect()
}
