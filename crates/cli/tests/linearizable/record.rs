//! Clients of a live server, each with one request on its way at a time, and the record of what they saw.

use crate::spec::{Answer, Ask, Operation, Promise, State, Task, Work};
use crate::support::Random;
use base::{Millis, Timestamp};
use client::{Client, Error};
use protocol::{
    Body, Create, FenceAction, PromiseState, Request, Resolution, Response, Settle, TARGET, TaskRef, TaskState, Value,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use todc_utils::linearizability::history::Action;

/// Beyond every test.
const FAR: i64 = 9_000_000_000_000;
const LONG: i64 = 86_400_000;
/// Promises without a task, and tasks: few, so that clients meet.
const PLAIN: u8 = 2;
const IDS: u8 = 4;

/// What happens by itself in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    /// Nothing.
    Stands,
    /// Deadlines pass and leases lapse in the middle of it.
    Passes,
}

/// What all clients of one history share.
pub(crate) struct Recorder {
    /// The ids of this history, and of no other, begin with it.
    prefix: String,
    time: Time,
    order: AtomicU64,
    marks: AtomicU32,
    answered: AtomicU64,
    /// The version of each task as it was last answered, and whether it was held.
    known: [Mutex<(u64, bool)>; IDS as usize],
    events: Mutex<Vec<(u64, usize, Action<Operation>)>>,
    /// When each promise was created, and when it settled, as every answer must say.
    instants: Mutex<BTreeMap<u8, (i64, Option<i64>)>>,
}

/// The order of calls and answers, each with its client.
pub(crate) type Events = Vec<(usize, Action<Operation>)>;

impl Recorder {
    pub(crate) fn new(prefix: String, time: Time) -> Arc<Recorder> {
        Arc::new(Recorder {
            prefix,
            time,
            order: AtomicU64::new(0),
            marks: AtomicU32::new(1),
            answered: AtomicU64::new(0),
            known: Default::default(),
            events: Mutex::default(),
            instants: Mutex::default(),
        })
    }

    /// How many requests were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// Everything in the order in which it happened; what was never answered stays open to the end.
    pub(crate) fn events(&self) -> Events {
        let mut events = self.events.lock().unwrap().clone();
        events.sort_by_key(|(order, _, _)| *order);
        events.into_iter().map(|(_, process, action)| (process, action)).collect()
    }

    fn next(&self) -> u64 {
        self.order.fetch_add(1, Ordering::SeqCst)
    }

    fn note(&self, order: u64, process: usize, action: Action<Operation>) {
        self.events.lock().unwrap().push((order, process, action));
    }

    /// Asks up to `count` things as client `process`; false when the server is gone.
    pub(crate) async fn ask(self: Arc<Self>, client: Client, process: usize, count: usize, mut random: Random) -> bool {
        for number in 0..count {
            let ask = self.choose(&mut random, process, number == 0);
            let request = self.request(&ask);
            let (order, from) = (self.next(), now());
            let answered = client.rpc(&request).await;
            let (ended, until) = (self.next(), now());
            let (answer, last) = match answered {
                Ok(response) => (Some(self.read(&ask, response)), ended),
                Err(Error::Unreachable { .. } | Error::Timeout(_) | Error::Answer(_)) => (None, u64::MAX),
                Err(other) => panic!("{other}"),
            };
            let until = if answer.is_some() { until } else { FAR };
            let is_gone = answer.is_none();
            let operation = Operation { ask, from, until, answer };
            self.note(order, process, Action::Call(operation.clone()));
            self.note(last, process, Action::Response(operation));
            if is_gone {
                return false;
            }
            self.answered.fetch_add(1, Ordering::SeqCst);
        }
        true
    }

    /// Mostly what the last answer about a task allows; the first thing is that something is there.
    fn choose(&self, random: &mut Random, process: usize, begins: bool) -> Ask {
        let any = u8::try_from(random.below(u64::from(IDS))).unwrap();
        let id = PLAIN + u8::try_from(random.below(u64::from(IDS - PLAIN))).unwrap();
        if begins {
            return self.create(any, random);
        }
        let (version, held) = self.known[usize::from(id)].lock().unwrap().to_owned();
        let version = if random.below(10) == 0 { version.saturating_sub(1) } else { version };
        let pid = u8::try_from(process % 200).unwrap();
        let ttl = match self.time {
            Time::Passes if random.below(2) == 0 => 3,
            Time::Stands | Time::Passes => LONG,
        };
        match (random.below(20), held) {
            (0..3, _) => self.create(any, random),
            (3..6, _) => Ask::Get { id: any },
            (6, _) => self.settle(u8::try_from(random.below(u64::from(PLAIN))).unwrap(), random),
            (7..9, _) => Ask::TaskGet { id },
            (9..11, _) | (_, false) => Ask::Acquire { id, version, pid, ttl },
            (11..14, true) => Ask::Release { id, version },
            (14, true) => Ask::Heartbeat { id, version, pid },
            (15, true) if random.below(4) == 0 => Ask::Fulfill { id, version, mark: self.mark() },
            (_, true) => {
                let other = u8::try_from(random.below(u64::from(PLAIN))).unwrap();
                let action = if random.below(2) == 0 { self.create(other, random) } else { self.settle(other, random) };
                Ask::Fence { id, version, action: Box::new(action) }
            }
        }
    }

    fn mark(&self) -> u32 {
        self.marks.fetch_add(1, Ordering::SeqCst)
    }

    fn create(&self, id: u8, random: &mut Random) -> Ask {
        let soon = self.time == Time::Passes && random.below(3) == 0;
        let deadline = if soon { now() + i64::try_from(random.below(25)).unwrap() } else { FAR };
        Ask::Create { id, mark: self.mark(), deadline, target: id >= PLAIN }
    }

    fn settle(&self, id: u8, random: &mut Random) -> Ask {
        let way = [State::Resolved, State::Rejected, State::Canceled][random.index(3)];
        Ask::Settle { id, way, mark: self.mark() }
    }

    fn id(&self, id: u8) -> String {
        format!("{}{id}", self.prefix)
    }

    fn request(&self, ask: &Ask) -> Request {
        let settle = |id: u8, way: State, mark: u32| {
            let state = match way {
                State::Rejected => Resolution::Rejected,
                State::Canceled => Resolution::Canceled,
                State::Resolved | State::Pending | State::TimedOut => Resolution::Resolved,
            };
            Settle { id: self.id(id), state, value: Value::text(mark.to_string()) }
        };
        let create = |id: u8, mark: u32, deadline: i64, target: bool| {
            let tags = target.then(|| (TARGET.to_owned(), "poll://any@nobody".to_owned())).into_iter().collect();
            let param = Value::text(mark.to_string());
            Create { id: self.id(id), timeout_at: Timestamp(deadline), param, tags }
        };
        match *ask {
            Ask::Create { id, mark, deadline, target } => Request::PromiseCreate(create(id, mark, deadline, target)),
            Ask::Get { id } => Request::PromiseGet { id: self.id(id) },
            Ask::Settle { id, way, mark } => Request::PromiseSettle(settle(id, way, mark)),
            Ask::TaskGet { id } => Request::TaskGet { id: self.id(id) },
            Ask::Acquire { id, version, pid, ttl } => {
                let ttl = Millis(u64::try_from(ttl).unwrap());
                Request::TaskAcquire { id: self.id(id), version, pid: format!("p{pid}"), ttl }
            }
            Ask::Release { id, version } => Request::TaskRelease(TaskRef { id: self.id(id), version }),
            Ask::Heartbeat { id, version, pid } => {
                let tasks = vec![TaskRef { id: self.id(id), version }];
                Request::TaskHeartbeat { pid: format!("p{pid}"), tasks }
            }
            Ask::Fulfill { id, version, mark } => {
                Request::TaskFulfill { id: self.id(id), version, action: settle(id, State::Resolved, mark) }
            }
            Ask::Fence { id, version, ref action } => {
                let action = match **action {
                    Ask::Create { id, mark, deadline, target } => {
                        FenceAction::Create(create(id, mark, deadline, target))
                    }
                    Ask::Settle { id, way, mark } => FenceAction::Settle(settle(id, way, mark)),
                    ref other => panic!("no fence does {other:?}"),
                };
                Request::TaskFence { id: self.id(id), version, action }
            }
        }
    }

    fn read(&self, ask: &Ask, response: Response) -> Answer {
        let status = response.status;
        if let (Ask::Release { id, version }, 200) = (ask, status) {
            *self.known[usize::from(*id)].lock().unwrap() = (version + 1, false);
        }
        match response.body {
            Body::Empty => Answer::Done,
            Body::Promise(promise) => Answer::Promise(self.promise(&promise)),
            Body::Task(task) => Answer::Task(self.task(&task)),
            Body::Acquired { task, promise, preload } => {
                assert!(preload.is_empty(), "no promise here has a branch");
                Answer::Acquired(self.task(&task), self.promise(&promise))
            }
            Body::Fenced { response, .. } => Answer::Fenced(Box::new(self.read(ask, *response))),
            Body::Error(_) if status < 500 => Answer::Refused(status),
            other => panic!("{ask:?} was answered {status}: {other:?}"),
        }
    }

    fn number(&self, id: &str) -> u8 {
        id.strip_prefix(&self.prefix).and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("a strange id: {id}"))
    }

    fn promise(&self, promise: &protocol::Promise) -> Promise {
        let mark = |value: &Value| value.data.as_ref().map(|data| data.parse::<u32>().unwrap());
        let state = match promise.state {
            PromiseState::Pending => State::Pending,
            PromiseState::Resolved => State::Resolved,
            PromiseState::Rejected => State::Rejected,
            PromiseState::Canceled => State::Canceled,
            PromiseState::TimedOut => State::TimedOut,
        };
        let mut instants = self.instants.lock().unwrap();
        let (created, settled) = instants.entry(self.number(&promise.id)).or_insert((promise.created_at.0, None));
        assert_eq!(*created, promise.created_at.0, "created at two instants: {promise:?}");
        let at = promise.settled_at.map(|at| at.0);
        assert!(settled.is_none() || at.is_none() || *settled == at, "settled at two instants: {promise:?}");
        *settled = settled.or(at);
        if state == State::TimedOut {
            assert_eq!(promise.settled_at, Some(promise.timeout_at), "{promise:?}");
        }
        let param = mark(&promise.param).unwrap();
        Promise { state, param, value: mark(&promise.value), deadline: promise.timeout_at.0 }
    }

    fn task(&self, task: &protocol::TaskRecord) -> Task {
        let known = (task.version, task.state == TaskState::Acquired);
        *self.known[usize::from(self.number(&task.id))].lock().unwrap() = known;
        let state = match task.state {
            TaskState::Pending => Work::Pending,
            TaskState::Acquired => Work::Acquired,
            TaskState::Halted => Work::Halted,
            TaskState::Fulfilled => Work::Fulfilled,
            TaskState::Suspended => panic!("nothing here suspends: {task:?}"),
        };
        let pid = task.pid.as_ref().map(|pid| pid.strip_prefix('p').unwrap().parse().unwrap());
        Task { state, version: task.version, pid }
    }
}

/// The clock that the server reads, too, and as there never earlier than before.
#[expect(clippy::disallowed_methods, reason = "the history is compared with deadlines that the server keeps")]
fn now() -> i64 {
    static LATEST: AtomicI64 = AtomicI64::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let read = i64::try_from(since.as_millis()).unwrap();
    LATEST.fetch_max(read, Ordering::SeqCst).max(read)
}
