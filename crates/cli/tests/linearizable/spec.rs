//! The protocol once more, as one object that does one thing at a time: a few promises, some with tasks.
//!
//! An operation takes place at one instant between its call and its answer, and no earlier than the one before it in
//! the order that is tried. Its deadline settles a promise at that instant or not; a lease that has run out may have
//! lapsed by then, or not yet, for that happens by itself. So a state is all that may be so.

use std::collections::{BTreeMap, BTreeSet};
use todc_utils::specifications::Specification;

/// Acquisitions without progress after which a task is halted when it is lost again: the server's own default.
const ATTEMPTS_MAX: u8 = 32;

/// What is asked; ids are numbers, and every parameter and value is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Create {
        id: u8,
        mark: u32,
        deadline: i64,
        target: bool,
    },
    Get {
        id: u8,
    },
    Settle {
        id: u8,
        way: State,
        mark: u32,
    },
    TaskGet {
        id: u8,
    },
    Acquire {
        id: u8,
        version: u64,
        pid: u8,
        ttl: i64,
    },
    Release {
        id: u8,
        version: u64,
    },
    Heartbeat {
        id: u8,
        version: u64,
        pid: u8,
    },
    Fulfill {
        id: u8,
        version: u64,
        mark: u32,
    },
    /// Under the guard of a held task another promise is created, or settled.
    Fence {
        id: u8,
        version: u64,
        action: Box<Ask>,
    },
}

/// The state of a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum State {
    Pending,
    Resolved,
    Rejected,
    Canceled,
    TimedOut,
}

/// The state of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Work {
    Pending,
    Acquired,
    Halted,
    Fulfilled,
}

/// A promise as an answer shows it, without the instants that only the server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Promise {
    pub(crate) state: State,
    pub(crate) param: u32,
    pub(crate) value: Option<u32>,
    pub(crate) deadline: i64,
}

/// A task as an answer shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Task {
    pub(crate) state: Work,
    pub(crate) version: u64,
    pub(crate) pid: Option<u8>,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Promise(Promise),
    Task(Task),
    Acquired(Task, Promise),
    Fenced(Box<Answer>),
    Done,
    Refused(u16),
}

/// One operation of a history.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) ask: Ask,
    /// The clock when it was called, and when it was answered.
    pub(crate) from: i64,
    pub(crate) until: i64,
    /// `None`: it was never answered, and may have happened or not.
    pub(crate) answer: Option<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Held {
    task: Task,
    /// The lease: how long, and its earliest end.
    ttl: i64,
    ends: i64,
    attempts: u8,
}

/// What there is, and the earliest that it can be now.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Objects {
    all: BTreeMap<u8, (Promise, Option<Held>)>,
    clock: i64,
}

/// The specification.
pub(crate) struct Protocol;

impl Specification for Protocol {
    type State = BTreeSet<Objects>;
    type Operation = Operation;

    fn init() -> BTreeSet<Objects> {
        BTreeSet::from([Objects::default()])
    }

    fn apply(operation: &Operation, before: &BTreeSet<Objects>) -> (bool, BTreeSet<Objects>) {
        // Of two that differ in their clocks alone the earlier one allows all that the later one does.
        let mut after = BTreeMap::new();
        for one in before.iter().flat_map(|one| one.successors(operation)) {
            let clock = after.entry(one.all).or_insert(one.clock);
            *clock = one.clock.min(*clock);
        }
        let after: BTreeSet<Objects> = after.into_iter().map(|(all, clock)| Objects { all, clock }).collect();
        if after.is_empty() { (false, before.clone()) } else { (true, after) }
    }
}

impl Ask {
    /// The ids it names, its guard first.
    pub(crate) fn ids(&self) -> Vec<u8> {
        match self {
            Ask::Create { id, .. }
            | Ask::Get { id }
            | Ask::Settle { id, .. }
            | Ask::TaskGet { id }
            | Ask::Acquire { id, .. }
            | Ask::Release { id, .. }
            | Ask::Heartbeat { id, .. }
            | Ask::Fulfill { id, .. } => vec![*id],
            Ask::Fence { id, action, .. } => std::iter::once(*id).chain(action.ids()).collect(),
        }
    }

    /// The deadline of what it creates.
    fn deadline(&self) -> Option<i64> {
        match self {
            Ask::Create { deadline, .. } => Some(*deadline),
            Ask::Fence { action, .. } => action.deadline(),
            _ => None,
        }
    }
}

impl Objects {
    /// Everything that may be so after an operation that was answered as it was.
    fn successors(&self, operation: &Operation) -> Vec<Objects> {
        let earliest = self.clock.max(operation.from);
        let ids = operation.ask.ids();
        let named = || ids.iter().filter_map(|id| self.all.get(id).map(|found| (*id, found)));
        let held = named().filter_map(|(id, (_, held))| held.as_ref().map(|held| (id, held)));
        let leases = held.filter(|(_, held)| held.task.state == Work::Acquired).map(|(id, held)| (id, held.ends));
        let leases: Vec<(u8, i64)> = leases.collect();
        // Between these instants nothing changes by itself.
        let mut instants = BTreeSet::from([earliest]);
        instants.extend(named().map(|(_, (promise, _))| promise.deadline));
        instants.extend(operation.ask.deadline());
        instants.extend(leases.iter().map(|(_, ends)| *ends));
        let mut after = Vec::new();
        for instant in instants.into_iter().filter(|at| (earliest..=operation.until).contains(at)) {
            let lapsed = leases.iter().filter(|(_, ends)| *ends <= instant);
            for lapsed in std::iter::once(None).chain(lapsed.map(Some)) {
                let mut one = self.clone();
                if let Some((id, ends)) = lapsed {
                    one.at(*ends).lapse(*id);
                }
                let answer = one.at(instant).perform(&operation.ask);
                if operation.answer.as_ref().is_none_or(|told| *told == answer) {
                    after.push(one);
                }
            }
        }
        after
    }

    fn at(&mut self, instant: i64) -> &mut Objects {
        self.clock = self.clock.max(instant);
        self
    }

    fn perform(&mut self, ask: &Ask) -> Answer {
        for id in ask.ids() {
            self.expire(id);
        }
        let done = match ask {
            Ask::Create { id, mark, deadline, target } => Ok(self.create(*id, *mark, *deadline, *target)),
            Ask::Get { id } => self.promise(*id).map(Answer::Promise),
            Ask::Settle { id, way, mark } => self.settle(*id, *way, *mark),
            Ask::TaskGet { id } => self.held(*id).map(|held| Answer::Task(held.task)),
            Ask::Acquire { id, version, pid, ttl } => self.acquire(*id, *version, *pid, *ttl),
            Ask::Release { id, version } => self.guard(*id, *version).map(|()| {
                self.lose(*id);
                Answer::Done
            }),
            Ask::Heartbeat { id, version, pid } => {
                self.beat(*id, *version, *pid);
                Ok(Answer::Done)
            }
            Ask::Fulfill { id, version, mark } => {
                self.guard(*id, *version).and_then(|()| self.settle(*id, State::Resolved, *mark))
            }
            Ask::Fence { id, version, action } => self.guard(*id, *version).map(|()| {
                if let Some((_, Some(held))) = self.all.get_mut(id) {
                    held.attempts = 0;
                }
                Answer::Fenced(Box::new(self.perform(action)))
            }),
        };
        done.unwrap_or_else(Answer::Refused)
    }

    fn expire(&mut self, id: u8) {
        let clock = self.clock;
        if self.all.get(&id).is_some_and(|(promise, _)| promise.state == State::Pending && promise.deadline <= clock) {
            self.close(id, State::TimedOut, None);
        }
    }

    fn close(&mut self, id: u8, state: State, value: Option<u32>) {
        let Some((promise, held)) = self.all.get_mut(&id) else { return };
        (promise.state, promise.value) = (state, value);
        if let Some(held) = held {
            held.task = Task { state: Work::Fulfilled, version: held.task.version, pid: None };
            (held.ttl, held.ends, held.attempts) = (0, 0, 0);
        }
    }

    fn create(&mut self, id: u8, mark: u32, deadline: i64, target: bool) -> Answer {
        let alive = self.clock < deadline;
        let created = || {
            let state = if alive { State::Pending } else { State::TimedOut };
            let work = if alive { Work::Pending } else { Work::Fulfilled };
            let task = Task { state: work, version: 0, pid: None };
            let held = target.then_some(Held { task, ttl: 0, ends: 0, attempts: 0 });
            (Promise { state, param: mark, value: None, deadline }, held)
        };
        Answer::Promise(self.all.entry(id).or_insert_with(created).0)
    }

    fn settle(&mut self, id: u8, way: State, mark: u32) -> Result<Answer, u16> {
        if self.promise(id)?.state == State::Pending {
            self.close(id, way, Some(mark));
        }
        self.promise(id).map(Answer::Promise)
    }

    fn acquire(&mut self, id: u8, version: u64, pid: u8, ttl: i64) -> Result<Answer, u16> {
        let clock = self.clock;
        let Some((promise, Some(held))) = self.all.get_mut(&id) else { return Err(404) };
        if held.task.state != Work::Pending || held.task.version != version {
            return Err(409);
        }
        held.task = Task { state: Work::Acquired, version: version + 1, pid: Some(pid) };
        (held.ttl, held.ends, held.attempts) = (ttl, clock + ttl, held.attempts + 1);
        Ok(Answer::Acquired(held.task, *promise))
    }

    fn beat(&mut self, id: u8, version: u64, pid: u8) {
        let clock = self.clock;
        let Some((_, Some(held))) = self.all.get_mut(&id) else { return };
        if held.task == (Task { state: Work::Acquired, version, pid: Some(pid) }) {
            held.ends = clock + held.ttl;
        }
    }

    fn lapse(&mut self, id: u8) {
        // Not when its promise is past its deadline: then that settles both.
        self.expire(id);
        if self.held(id).is_ok_and(|held| held.task.state == Work::Acquired) {
            self.lose(id);
        }
    }

    fn lose(&mut self, id: u8) {
        let Some((_, Some(held))) = self.all.get_mut(&id) else { return };
        let state = if held.attempts >= ATTEMPTS_MAX { Work::Halted } else { Work::Pending };
        held.task = Task { state, version: held.task.version + 1, pid: None };
        (held.ttl, held.ends) = (0, 0);
    }

    fn promise(&self, id: u8) -> Result<Promise, u16> {
        self.all.get(&id).map(|(promise, _)| *promise).ok_or(404)
    }

    fn held(&self, id: u8) -> Result<&Held, u16> {
        self.all.get(&id).and_then(|(_, held)| held.as_ref()).ok_or(404)
    }

    fn guard(&self, id: u8, version: u64) -> Result<(), u16> {
        let task = self.held(id)?.task;
        if task.state == Work::Acquired && task.version == version { Ok(()) } else { Err(409) }
    }
}
