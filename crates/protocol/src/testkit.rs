//! Random requests over a small world, and one step of machine and model side by side; for tests of every crate that
//! has a server of this protocol to compare (feature `testkit`, part of no build but tests').
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

pub mod alphabet;

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Millis, Timestamp};

use crate::check::{check, check_step};
use crate::ids::reserved_refusal;
use crate::limits::{PRELOAD_BYTES_MAX, PRELOAD_COUNT_MAX};
use crate::memory::Memory;
use crate::model::Model;
use crate::request::{
    Body, Callback, Create, FenceAction, PromiseSearch, Request, Resolution, Response, ScheduleCreate, ScheduleSearch,
    Settle, TaskRef, TaskSearch,
};
use crate::schedule::Schedule;
use crate::state::{Message, MessageKey, Promise, PromiseState, Row, Task, TaskState, Timer, Value};
use crate::view::{Config, Effect, View};
use crate::view::{Poison, Profile};
use crate::{apply, delivered, reclaim, tick};

const IDS: [&str; 8] = ["w", "w:1", "w:2", "w:1.1", "w.3", "v", "inc/a", "w:1.2"];
/// Steps of an era.
const ERA: u32 = 60;
const ADDRESSES: [&str; 3] = ["poll://any@g", "poll://uni@g/p", "https://example.org/hook"];

/// Small, so that a walk meets the pauses and the halt of a task that gets nowhere.
const POISON: Poison = Poison { attempts_max: 5, free: 1, pause: Millis(4), pause_max: Millis(10) };
/// How many kinds of steps there are to choose from.
const KINDS: u8 = 33;

/// What a walk's machine is configured with.
#[must_use]
pub fn config(profile: Profile) -> Config {
    Config { retry_timeout: Millis(30), profile, poison: POISON }
}

/// One random choice; the numbers are read against the state when it runs, so that versions mostly fit.
#[derive(Clone, Debug)]
pub struct Choice {
    what: u8,
    a: u8,
    b: u8,
    flags: u8,
    wait: u8,
}

impl Choice {
    /// The choice that five random bytes make.
    #[must_use]
    pub fn of([what, a, b, flags, wait]: [u8; 5]) -> Choice {
        Choice { what: what % KINDS, a, b, flags, wait }
    }
}

/// What one step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Asks.
    Ask(Request),
    /// Sweeps at most so many timers.
    Sweep(u32),
    /// Takes its tasks from a worker that is gone.
    Reclaim(&'static str),
    /// Counts the oldest message as delivered.
    Deliver,
}

/// Who chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Somebody inside the server: everything may happen.
    Inside,
    /// Somebody on the wire: ids of the server are refused, and a sweep takes all that is due.
    Wire,
}

/// Machine and model under the same requests.
#[derive(Clone, Debug)]
pub struct World {
    /// The machine's state.
    pub memory: Memory,
    pub(crate) model: Model,
    /// The instant of the next step.
    pub now: Timestamp,
    /// What both were told.
    pub config: Config,
    place: Place,
    /// Ids end sooner than a long walk does; each era has its own.
    era: u32,
    steps: u32,
    /// How often each status was answered and each move of a task made, so that a test can see that
    /// it reached everything.
    pub seen: BTreeMap<String, u32>,
}

impl World {
    /// An empty world.
    #[must_use]
    pub fn new(config: Config, place: Place) -> World {
        let (memory, model) = (Memory::default(), Model::default());
        World { memory, model, now: Timestamp(1_000), config, place, era: 0, steps: 0, seen: BTreeMap::new() }
    }

    /// The creation of three live tasks of one tree, so that a walk need not find them first.
    #[must_use]
    pub fn preparation(&self) -> Vec<Deed> {
        let task = |(id, lives): (u8, u64)| {
            let (id, root) = (self.id(id), self.id(0));
            let tags = [("resonate:target", ADDRESSES[0]), ("resonate:origin", &root), ("resonate:branch", &root)];
            let tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
            let timeout_at = self.now.plus(Millis(lives));
            Deed::Ask(Request::PromiseCreate(Create { id, timeout_at, param: Value::text("p"), tags }))
        };
        [(0, 60), (1, 400), (2, 30)].map(task).into()
    }

    /// Counts a step; what has to be done before it, when an era begins.
    #[must_use]
    pub fn begin(&mut self, choice: &Choice) -> Vec<Deed> {
        self.steps += 1;
        let begins = self.steps.is_multiple_of(ERA);
        self.era += u32::from(begins);
        if begins && choice.flags & 3 != 0 { self.preparation() } else { Vec::new() }
    }

    /// Lets time pass and reads a choice against the state.
    #[must_use]
    pub fn decide(&mut self, choice: &Choice) -> Deed {
        let waits = [0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 8, 8, 40, 300];
        self.now = self.now.plus(Millis(waits[usize::from(choice.wait) % waits.len()]));
        match choice.what {
            0..=16 | 20.. => Deed::Ask(self.request(choice)),
            17..=19 if self.place == Place::Wire => Deed::Sweep(u32::MAX),
            17 | 18 => Deed::Sweep(1 + u32::from(choice.a % 8)),
            _ if choice.flags & 1 == 0 => Deed::Reclaim(pid(choice.a)),
            _ => Deed::Deliver,
        }
    }

    /// Time passes, and what the choice asks then; `None` for a sweep. The model is left behind.
    #[cfg(test)]
    pub(crate) fn advance(&mut self, choice: &Choice) -> (Option<Request>, Timestamp) {
        let _unprepared = self.begin(choice);
        match self.decide(choice) {
            Deed::Ask(request) => (Some(request), self.now),
            Deed::Sweep(_) | Deed::Reclaim(_) | Deed::Deliver => (None, self.now),
        }
    }

    /// One choice, with every comparison.
    pub fn step(&mut self, choice: &Choice) {
        for deed in self.begin(choice) {
            let _compared = self.perform(&deed);
        }
        let deed = self.decide(choice);
        let _compared = self.perform(&deed);
    }

    /// Does one thing to machine and model and compares everything; the model's answer, without its wording.
    ///
    /// # Panics
    /// They differ, or an invariant is broken.
    pub fn perform(&mut self, deed: &Deed) -> Option<Response> {
        let before = snapshot(&self.memory);
        let rows: BTreeMap<String, Arc<Row>> =
            self.memory.rows().into_iter().map(|row| (row.id().to_owned(), row)).collect();
        let (answer, effects) = self.decided(deed);
        self.commit(&effects, &before);
        let after = snapshot(&self.memory);
        assert_eq!(after, Snapshot::of_model(&self.model), "state after {deed:?}");
        assert_eq!(check(&self.memory), vec![], "invariants after {deed:?}");
        assert!(before != after || effects.is_empty(), "what changes nothing writes nothing: {deed:?}, {effects:?}");
        self.check_steps(&rows);
        self.count(&before, &after);
        answer
    }

    fn decided(&mut self, deed: &Deed) -> (Option<Response>, Vec<Effect>) {
        match deed {
            Deed::Ask(request) => {
                let refusal = reserved_refusal(request).filter(|_| self.place == Place::Wire);
                if let Some(refusal) = refusal {
                    return (Some(wordless(refusal)), Vec::new());
                }
                let (answer, effects) = self.compare(request);
                (Some(answer), effects)
            }
            Deed::Sweep(limit) => {
                self.model.tick(self.now, *limit, &self.config);
                (None, tick(&self.memory, self.now, *limit, &self.config))
            }
            Deed::Reclaim(pid) => {
                let held = self.memory.held_by(pid);
                self.model.reclaim(&held, self.now, &self.config);
                (None, reclaim(&self.memory, &held, self.now, &self.config))
            }
            Deed::Deliver => match self.memory.outbox().first() {
                Some(message) => {
                    self.model.messages.remove(&message.key());
                    (None, delivered(&self.memory, message))
                }
                None => (None, Vec::new()),
            },
        }
    }

    /// A server was started anew on what the one before left: every held task has its full lease again, for heartbeats
    /// are not stored.
    pub fn restart(&mut self) {
        let mut effects = Vec::new();
        for row in self.memory.rows() {
            let Some(task) = row.task.as_ref().filter(|task| task.state == TaskState::Acquired) else { continue };
            let mut held = Row::clone(&row);
            let lease_at = task.ttl.map(|ttl| self.now.plus(ttl));
            held.task = Some(Arc::new(Task { lease_at, ..Task::clone(task) }));
            let (old, new) = (row.timers(), held.timers());
            effects.extend(old.into_iter().map(Effect::Disarm).chain(new.into_iter().map(Effect::Arm)));
            effects.push(Effect::Put(Arc::new(held)));
        }
        let _undo = self.memory.commit(&effects);
        let held = self.model.tasks.values_mut().filter(|task| task.state == TaskState::Acquired);
        held.for_each(|task| task.lease_at = task.ttl.map(|ttl| self.now.plus(ttl)));
        assert_eq!(snapshot(&self.memory), Snapshot::of_model(&self.model), "state after a restart");
    }

    /// The model's state as an outside tester is shown it.
    #[must_use]
    pub fn shown(&self) -> crate::Snapshot {
        self.model.shown()
    }

    /// What must hold between two consecutive states, whatever the request was.
    fn check_steps(&self, before: &BTreeMap<String, Arc<Row>>) {
        for id in before.keys() {
            assert!(self.memory.promise(id).is_some(), "promises never disappear");
        }
        for row in self.memory.rows() {
            let old = before.get(row.id()).map(AsRef::as_ref);
            assert_eq!(check_step(old, &row, self.now), vec![]);
            let (Some(new), Some(old)) = (&row.task, old.and_then(|old| old.task.as_ref())) else { continue };
            if new.state == TaskState::Pending && old.state != TaskState::Pending {
                let queued = self.memory.queued(&MessageKey::Execute { task_id: new.id.clone() }).is_some();
                let paused = new.attempts > self.config.poison.free && !crate::is_reserved(row.id());
                assert_eq!(queued, row.promise.is_dispatchable() && !paused, "entering pending queues an execute");
            }
        }
    }

    fn count(&mut self, before: &Snapshot, after: &Snapshot) {
        let state = |id: &str| before.tasks.iter().find(|old| old.id == id).map(|old| old.state);
        let moved = after.tasks.iter().filter_map(|new| state(&new.id).map(|old| (old, new.state)));
        for (old, new) in moved.filter(|(old, new)| old != new) {
            *self.seen.entry(format!("{} to {}", old.name(), new.name())).or_default() += 1;
        }
        for message in after.messages.iter().filter(|message| !before.messages.contains(message)) {
            let kind = if matches!(message, Message::Execute { .. }) { "execute" } else { "unblock" };
            *self.seen.entry(kind.to_owned()).or_default() += 1;
        }
        let fired = |schedules: &[Schedule]| schedules.iter().filter(|one| one.last_run_at.is_some()).count();
        if fired(&after.schedules) > fired(&before.schedules) {
            *self.seen.entry("firing".to_owned()).or_default() += 1;
        }
        let settled = |id: &String| after.promises.iter().any(|promise| promise.id == *id && promise.is_settled());
        if after.callbacks.iter().any(|(awaited, _)| settled(awaited)) {
            *self.seen.entry("callback of an expired awaiter".to_owned()).or_default() += 1;
        }
    }

    fn compare(&mut self, request: &Request) -> (Response, Vec<Effect>) {
        let applied = apply(&self.memory, request, self.now, &self.config);
        let expected = self.model.apply(request, self.now, &self.config);
        *self.seen.entry(format!("status {}", applied.response.status)).or_default() += 1;
        let expected = wordless(expected);
        assert_eq!(wordless(applied.response), expected, "answer to {request:?}");
        (expected, applied.effects)
    }

    /// Commits, takes back, commits again: an undo leaves nothing behind.
    fn commit(&mut self, effects: &[Effect], before: &Snapshot) {
        let undo = self.memory.commit(effects);
        self.memory.undo(undo);
        assert_eq!(&snapshot(&self.memory), before, "undo");
        let _undo = self.memory.commit(effects);
        let rows: Vec<Row> = self.memory.rows().iter().map(|row| Row::clone(row)).collect();
        let schedules: Vec<Schedule> = self.memory.schedules().map(|one| Schedule::clone(one)).collect();
        let reloaded = Memory::load(rows, self.memory.outbox(), schedules);
        assert_eq!(snapshot(&reloaded), snapshot(&self.memory), "reload");
        assert_eq!(reloaded.indexes(), self.memory.indexes(), "indexes follow from the rows");
    }

    fn request(&self, choice: &Choice) -> Request {
        let (a, b) = (self.known_id(choice.a), self.known_id(choice.b));
        let version = self.version(&a, choice);
        let held = self.memory.rows().into_iter().filter_map(|row| row.task.clone());
        let held: Vec<Arc<Task>> = held.filter(|task| task.state == TaskState::Acquired).collect();
        // Half of the guarded requests go to a task that is held, so that they get past their guard.
        let (held_id, held_version) = match held.get(usize::from(choice.a) % held.len().max(1)) {
            Some(task) if choice.flags & 1 == 0 => (task.id.clone(), task.version),
            _ => (a.clone(), version),
        };
        let (pid, ttl) = (pid(choice.b).to_owned(), Millis([8, 60][usize::from(choice.b % 2)]));
        match choice.what {
            0 => Request::PromiseGet { id: a },
            1..=3 => Request::PromiseCreate(self.create(self.id(choice.a), choice)),
            4 => Request::PromiseSettle(settle(a, choice)),
            5 => Request::RegisterCallback(Callback { awaited: a, awaiter: b }),
            6 => Request::RegisterListener { awaited: a, address: self.address(choice.b) },
            7 => Request::TaskGet { id: a },
            8 => Request::TaskCreate { pid, ttl, action: self.create(self.id(choice.a), choice) },
            9 | 10 => {
                let (id, version) = self.offered(choice).unwrap_or((a, version));
                Request::TaskAcquire { id, version, pid, ttl }
            }
            11 => Request::TaskRelease(TaskRef { id: held_id, version: held_version }),
            12 => {
                let action = settle(held_id.clone(), choice);
                Request::TaskFulfill { id: held_id, version: held_version, action }
            }
            25 if choice.flags & 2 == 0 => Request::TaskHalt { id: held_id },
            24 | 25 if self.in_state(TaskState::Suspended, choice).is_some() => {
                Request::TaskHalt { id: self.in_state(TaskState::Suspended, choice).unwrap_or(a) }
            }
            25 => Request::TaskHalt { id: a },
            26 | 27 => Request::TaskContinue { id: self.in_state(TaskState::Halted, choice).unwrap_or(a) },
            28 => self.search(choice),
            29 | 30 => Request::ScheduleCreate(self.schedule(choice)),
            31 if choice.flags & 1 == 0 => Request::ScheduleDelete { id: schedule_id(choice.a) },
            31 => Request::ScheduleGet { id: schedule_id(choice.a) },
            13 | 14 | 20.. => {
                let callback = |awaited| Callback { awaited, awaiter: held_id.clone() };
                let more = (choice.flags & 2 == 0).then(|| callback(self.pending_id(&held_id, choice.flags >> 2)));
                let first = callback(self.pending_id(&held_id, choice.b));
                let more = more.filter(|more| *more != first || choice.wait & 7 == 0);
                let actions = std::iter::once(first).chain(more).collect();
                Request::TaskSuspend { id: held_id, version: held_version, actions }
            }
            15 => {
                let action = match choice.flags & 4 {
                    0 => FenceAction::Create(self.create(b, choice)),
                    _ => FenceAction::Settle(settle(b, choice)),
                };
                Request::TaskFence { id: held_id, version: held_version, action }
            }
            _ => {
                let tasks = vec![TaskRef { id: held_id, version: held_version }, TaskRef { id: b, version: 1 }];
                Request::TaskHeartbeat { pid, tasks }
            }
        }
    }

    /// A task in this state.
    fn in_state(&self, state: TaskState, choice: &Choice) -> Option<String> {
        let rows = self.memory.rows();
        let tasks = rows.iter().filter_map(|row| row.task.as_ref()).filter(|task| task.state == state);
        let tasks: Vec<_> = tasks.collect();
        tasks.get(usize::from(choice.a) % tasks.len().max(1)).map(|task| task.id.clone())
    }

    fn search(&self, choice: &Choice) -> Request {
        let limit = [None, Some(1), Some(2), Some(0), Some(3)][usize::from(choice.b) % 5];
        let cursor = (choice.flags & 8 != 0).then(|| self.known_id(choice.a));
        let states = [None, Some(PromiseState::Pending), Some(PromiseState::TimedOut)];
        let tags = [("resonate:origin", "w"), ("resonate:target", ADDRESSES[0])][..usize::from(choice.a % 3)].iter();
        let tags: BTreeMap<String, String> = tags.map(|(name, tag)| ((*name).to_owned(), (*tag).to_owned())).collect();
        match choice.flags % 3 {
            0 => {
                let state = states[usize::from(choice.b / 5) % 3];
                Request::PromiseSearch(PromiseSearch { state, tags, limit, cursor })
            }
            1 => {
                let states = [None, Some(TaskState::Pending), Some(TaskState::Halted), Some(TaskState::Suspended)];
                let state = states[usize::from(choice.b / 5) % 4];
                Request::TaskSearch(TaskSearch { state, limit, cursor })
            }
            _ => Request::ScheduleSearch(ScheduleSearch { tags, limit, cursor }),
        }
    }

    /// The world begins at a whole second; schedules fire at each of the seconds after it.
    fn schedule(&self, choice: &Choice) -> ScheduleCreate {
        let crons = ["* * * * * *", "*/2 * * * * ?", "1 0 0 1 1 ? 1970", "61 * * * * *", "3 0 0 1 1 ? 1970"];
        let templates = ["{{.id}}.{{.timestamp}}", "w", "fixed"];
        let tags = [("resonate:target", self.address(choice.flags)), ("resonate:timer", "true".to_owned())];
        let tags = tags.into_iter().take(1 + usize::from(choice.flags & 16 != 0));
        ScheduleCreate {
            id: schedule_id(choice.a),
            cron: crons[usize::from(choice.b) % 5].to_owned(),
            promise_id: templates[usize::from(choice.flags / 4) % 3].to_owned(),
            promise_timeout: Millis([0, 20, 500, 5_000][usize::from(choice.b / 5) % 4]),
            promise_param: Value::text("fired"),
            promise_tags: tags.map(|(name, tag)| (name.to_owned(), tag)).collect(),
        }
    }

    fn address(&self, choice: u8) -> String {
        // On the wire only what the server delivers to: another engine's choice of transports is not the model's.
        let routable = if self.place == Place::Wire { &ADDRESSES[..2] } else { &ADDRESSES[..] };
        routable[usize::from(choice) % routable.len()].to_owned()
    }

    fn id(&self, choice: u8) -> String {
        let id = IDS[usize::from(choice) % IDS.len()];
        let root = root(id);
        format!("{root}{}{}", ["", "-", "-2", "-3", "-4", "-5", "-6"][self.era as usize % 7], &id[root.len()..])
    }

    /// Mostly an id that exists.
    fn known_id(&self, choice: u8) -> String {
        let rows = self.memory.rows();
        match rows.get(usize::from(choice / 4) % rows.len().max(1)) {
            Some(row) if choice & 3 != 0 => row.id().to_owned(),
            _ => self.id(choice),
        }
    }

    /// Mostly an id worth waiting for.
    fn pending_id(&self, awaiter: &str, choice: u8) -> String {
        let rows = self.memory.rows();
        let pending = |row: &&Arc<Row>| !row.promise.is_settled() || choice % 8 == 1;
        let other = |row: &&Arc<Row>| row.id() != awaiter && root(row.id()) == root(awaiter);
        let worth = |row: &&Arc<Row>| row.promise.is_awaitable() && pending(row) && other(row);
        let rows: Vec<&Arc<Row>> = rows.iter().filter(worth).collect();
        match rows.get(usize::from(choice / 4) % rows.len().max(1)) {
            Some(row) if choice & 3 != 0 => row.id().to_owned(),
            _ => self.known_id(choice),
        }
    }

    /// Mostly a task that can be acquired.
    fn offered(&self, choice: &Choice) -> Option<(String, u64)> {
        let rows = self.memory.rows();
        let tasks = rows.iter().filter_map(|row| row.task.as_ref()).filter(|task| task.state == TaskState::Pending);
        let tasks: Vec<_> = tasks.collect();
        let task = tasks.get(usize::from(choice.a) % tasks.len().max(1))?;
        (choice.flags & 3 != 0).then(|| (task.id.clone(), self.version(&task.id, choice)))
    }

    /// Mostly the current version.
    fn version(&self, id: &str, choice: &Choice) -> u64 {
        let current = self.memory.task(id).map_or(0, |task| task.version);
        if choice.wait & 15 == 0 { current.wrapping_sub(1).min(9) } else { current }
    }

    fn create(&self, id: String, choice: &Choice) -> Create {
        let flags = choice.flags;
        let timeout_at = self.now.plus(Millis([0, 12, 12, 40, 200, 200, 400, 400][usize::from(choice.b >> 5)]));
        let mut tags = BTreeMap::new();
        let mut tag = |name: &str, value: &str| tags.insert(name.to_owned(), value.to_owned());
        if flags & 3 != 0 {
            tag("resonate:target", &self.address(flags));
        }
        match flags >> 2 & 7 {
            0 => tag("resonate:timer", "true"),
            1 => tag("resonate:external", "true"),
            2 => tag("resonate:scope", "global"),
            3 => tag("resonate:delay", &(self.now.0 + 5).to_string()),
            _ => None,
        };
        match flags >> 5 {
            0 => {}
            1 => drop(tag("resonate:branch", &id)),
            _ => {
                let root = root(&id);
                tag("resonate:origin", root);
                tag("resonate:branch", root);
            }
        }
        Create { id, timeout_at, param: Value::text("p"), tags }
    }
}

/// The root of an id.
fn root(id: &str) -> &str {
    id.split([':', '.']).next().unwrap_or(id)
}

fn schedule_id(choice: u8) -> String {
    ["s", "t", "inc.s"][usize::from(choice) % 3].to_owned()
}

fn pid(choice: u8) -> &'static str {
    ["p", "q"][usize::from(choice >> 1) % 2]
}

fn settle(id: String, choice: &Choice) -> Settle {
    let ways = [Resolution::Resolved, Resolution::Rejected, Resolution::Canceled];
    Settle { id, state: ways[usize::from(choice.b) % ways.len()], value: Value::text(choice.b.to_string()) }
}

/// The wording of refusals is not compared.
#[must_use]
pub fn wordless(response: Response) -> Response {
    let body = match response.body {
        Body::Error(_) => Body::Error(String::new()),
        Body::Fenced { kind, response, preload } => {
            Body::Fenced { kind, response: Box::new(wordless(*response)), preload }
        }
        body => body,
    };
    if let Body::Acquired { preload, .. } | Body::Preload(preload) = &body {
        assert!(preload.len() <= PRELOAD_COUNT_MAX && preload.len() * 2 <= PRELOAD_BYTES_MAX);
    }
    Response { status: response.status, body }
}

/// Everything observable, flat and in order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Snapshot {
    promises: Vec<Promise>,
    tasks: Vec<Task>,
    callbacks: Vec<(String, String)>,
    listeners: Vec<(String, String)>,
    messages: Vec<Message>,
    timers: Vec<Timer>,
    schedules: Vec<Schedule>,
}

impl Snapshot {
    fn of_model(model: &Model) -> Snapshot {
        Snapshot {
            promises: model.promises.values().cloned().collect(),
            tasks: model.tasks.values().cloned().collect(),
            callbacks: model.callbacks.iter().cloned().collect(),
            listeners: model.listeners.iter().cloned().collect(),
            messages: model.messages.values().cloned().collect(),
            timers: model.timers().into_iter().collect(),
            schedules: model.schedules.values().cloned().collect(),
        }
    }
}

pub(crate) fn snapshot(memory: &Memory) -> Snapshot {
    let rows = memory.rows();
    let pairs = |of: fn(&Row) -> &std::collections::BTreeSet<String>| -> Vec<(String, String)> {
        rows.iter().flat_map(|row| of(row).iter().map(|other| (row.id().to_owned(), other.clone()))).collect()
    };
    let mut messages = memory.outbox();
    messages.sort_by_key(Message::key);
    Snapshot {
        promises: rows.iter().map(|row| Promise::clone(&row.promise)).collect(),
        tasks: rows.iter().filter_map(|row| row.task.as_deref().cloned()).collect(),
        callbacks: pairs(|row| &row.callbacks),
        listeners: pairs(|row| &row.listeners),
        messages,
        timers: memory.timers(),
        schedules: memory.schedules().map(|one| Schedule::clone(one)).collect(),
    }
}
