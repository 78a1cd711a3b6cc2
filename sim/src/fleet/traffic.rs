//! Requests through the fleet, event by event: queues, workers, timeouts, retries, limits and drains.
//!
//! It differs from the model that previews use: work is drawn evenly between two bounds, limits are token buckets of
//! one second, and instances are taken in turn by weight.

use super::shape::{Calls, LATE_US, RATE, ROOT, SHAPES, START_UP_US};
use actuators::control::{Counts, Second, Series};
use base::Timestamp;
use recovery::call::State;
use recovery::span::{Kind, Peer, PeerKind, Span, Status};
use server::platform::RecordSecond;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

/// Seconds kept of every series.
const SECONDS_MAX: usize = 120;
/// Microseconds of a second.
const SECOND_US: u64 = 1_000_000;

/// The running fleet.
#[derive(Debug)]
pub(crate) struct Traffic {
    now_us: u64,
    draws: u64,
    seed: u64,
    order: u64,
    due: BinaryHeap<Reverse<(u64, u64, Event)>>,
    jobs: BTreeMap<u64, Job>,
    pub(crate) instances: BTreeMap<(usize, u32), Running>,
    turns: BTreeMap<usize, u64>,
    tokens: BTreeMap<String, (u64, u64)>,
    pub(crate) edges: BTreeMap<String, Series>,
    pub(crate) targets: BTreeMap<String, Series>,
    record: BTreeMap<i64, Answers>,
    spans: Vec<Span>,
    /// Settings of the proxy as of the last look.
    pub(crate) settings: State,
    /// Instances that hang whatever process runs as them.
    pub(crate) cursed: BTreeSet<(usize, u32)>,
    /// Whether there is a proxy to pass through.
    pub(crate) has_proxy: bool,
}

/// One instance's process.
#[derive(Debug, Default)]
pub(crate) struct Running {
    /// Generation that runs.
    pub(crate) generation: u64,
    /// When it was started.
    pub(crate) started_us: u64,
    /// From when on it serves.
    pub(crate) serves_us: u64,
    /// It takes requests and answers none; since when.
    pub(crate) hung_us: Option<u64>,
    working: usize,
    queue: VecDeque<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    Worked(u64),
    GiveUp(u64),
    Again(u64, u32),
}

/// One request at one instance.
#[derive(Debug)]
struct Job {
    trace: u128,
    span: u64,
    /// The job that asked, the span of its asking and the number of the attempt.
    parent: Option<(u64, u64, u32)>,
    service: usize,
    replica: u32,
    arrived_us: u64,
    is_working: bool,
    /// Whoever asked does not wait any more.
    is_abandoned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Ok,
    Failed,
    Shed,
}

#[derive(Debug, Default)]
struct Answers {
    sent: u64,
    ok: u64,
    failed: u64,
    shed: u64,
    late: u64,
    in_flight: u64,
    latencies_ms: Vec<u64>,
}

impl Traffic {
    pub(crate) fn new(seed: u64, now: Timestamp) -> Traffic {
        let now_us = us(now);
        let mut traffic = Traffic {
            now_us,
            draws: 0,
            seed,
            order: 0,
            due: BinaryHeap::new(),
            jobs: BTreeMap::new(),
            instances: BTreeMap::new(),
            turns: BTreeMap::new(),
            tokens: BTreeMap::new(),
            edges: BTreeMap::new(),
            targets: BTreeMap::new(),
            record: BTreeMap::new(),
            spans: Vec::new(),
            settings: State::new(),
            cursed: BTreeSet::new(),
            has_proxy: true,
        };
        for (service, shape) in SHAPES.iter().enumerate() {
            for replica in 0..shape.replicas {
                let running = Running { generation: 1, started_us: now_us, serves_us: now_us, ..Running::default() };
                traffic.instances.insert((service, replica), running);
            }
        }
        traffic.at(now_us, Event::Arrive);
        traffic
    }

    /// Lets everything happen that is due until `now`.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        let until = us(now);
        while let Some(Reverse((at, _, event))) = self.due.peek().copied() {
            if at > until {
                break;
            }
            self.due.pop();
            self.now_us = at;
            match event {
                Event::Arrive => self.arrive(),
                Event::Worked(job) => self.worked(job),
                Event::GiveUp(job) => self.give_up(job),
                Event::Again(parent, attempt) => self.ask(parent, attempt),
            }
        }
        self.now_us = until;
    }

    /// Ends what runs as this instance and starts another generation.
    pub(crate) fn replace(&mut self, service: usize, replica: u32, generation: u64) {
        let now_us = self.now_us;
        let serves_us = now_us + START_UP_US;
        let hung_us = self.cursed.contains(&(service, replica)).then_some(now_us);
        let running = Running { generation, started_us: now_us, serves_us, hung_us, ..Running::default() };
        self.instances.insert((service, replica), running);
        let lost: Vec<u64> = self
            .jobs
            .iter()
            .filter(|(_, job)| (job.service, job.replica) == (service, replica))
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            self.answer(id, Answer::Failed, false);
        }
    }

    /// The spans that ended since the last call.
    pub(crate) fn take_spans(&mut self) -> Vec<Span> {
        std::mem::take(&mut self.spans)
    }

    /// The client's record from `since` on.
    pub(crate) fn record(&self, since: Timestamp) -> Vec<RecordSecond> {
        let seconds = self.record.range(since.0 - 1_000..);
        seconds.map(|(second_ms, answers)| answers.second(*second_ms)).collect()
    }

    fn arrive(&mut self) {
        let gap = SECOND_US / RATE;
        let next = self.now_us + gap / 2 + self.draw(gap);
        self.at(next, Event::Arrive);
        let second = self.answers(self.now_us);
        second.sent += 1;
        second.in_flight += 1;
        let trace = u128::from(self.draw(u64::MAX)) << 64 | u128::from(self.draw(u64::MAX));
        self.deliver(ROOT, trace, None);
    }

    /// Hands a request to an instance of a service; the answer comes with [`Traffic::answer`].
    fn deliver(&mut self, service: usize, trace: u128, parent: Option<(u64, u64, u32)>) {
        let Some(replica) = self.choose(service) else {
            self.refused(parent, Answer::Failed);
            return;
        };
        self.order += 1;
        let (id, span) = (self.order, self.draw(u64::MAX));
        let (arrived_us, is_working) = (self.now_us, false);
        let job = Job { trace, span, parent, service, replica, arrived_us, is_working, is_abandoned: false };
        self.jobs.insert(id, job);
        if let Some((asker, ..)) = parent {
            self.count(asker, id, |counts| {
                counts.calls += 1;
                counts.in_flight += 1;
            });
            if let Some(calls) = self.calls_of(asker) {
                self.at(self.now_us + calls.timeout_us, Event::GiveUp(id));
            }
        }
        let Some(running) = self.instances.get_mut(&(service, replica)) else { return };
        if running.hung_us.is_some() {
            return;
        }
        let Some(shape) = SHAPES.get(service) else { return };
        if running.serves_us > arrived_us {
            self.answer(id, Answer::Failed, false);
        } else if running.working < shape.workers {
            running.working += 1;
            self.work(id);
        } else if running.queue.len() < shape.queue_max {
            running.queue.push_back(id);
        } else {
            self.answer(id, Answer::Failed, true);
        }
    }

    fn work(&mut self, id: u64) {
        let Some(service) = self.jobs.get(&id).map(|job| job.service) else { return };
        let (least, most) = SHAPES.get(service).map_or((0, 0), |shape| shape.work_us);
        let took = least + self.draw(most - least + 1);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.is_working = true;
        }
        self.at(self.now_us + took, Event::Worked(id));
    }

    fn worked(&mut self, id: u64) {
        // A process that hangs answers nothing any more, whatever it was doing.
        let hung = |job: &Job| self.instances.get(&(job.service, job.replica)).is_none_or(|it| it.hung_us.is_some());
        let Some(job) = self.jobs.get(&id).filter(|job| !hung(job)) else { return };
        match SHAPES.get(job.service).and_then(|shape| shape.calls) {
            Some(_) => self.ask(id, 1),
            None => self.answer(id, Answer::Ok, true),
        }
    }

    /// A job asks the service below it.
    fn ask(&mut self, asker: u64, attempt: u32) {
        let Some(job) = self.jobs.get(&asker) else { return };
        let (trace, caller) = (job.trace, job.service);
        let Some(calls) = self.calls_of(asker) else { return };
        let span = self.draw(u64::MAX);
        let parent = Some((asker, span, attempt));
        let edge = edge_name(caller, calls.callee);
        if !self.has_proxy {
            self.refused(parent, Answer::Failed);
            return;
        }
        if self.settings.get(&format!("breaker/{edge}")) == Some(&1) || !self.admits(&edge) {
            let counts = second(&mut self.edges, &edge, self.now_us);
            counts.calls += 1;
            counts.shed += 1;
            self.refused(parent, Answer::Shed);
            return;
        }
        self.deliver(calls.callee, trace, parent);
    }

    /// A token bucket of one second at the limit's rate.
    fn admits(&mut self, edge: &str) -> bool {
        let Some(limit) = self.settings.get(&format!("limit/{edge}")).copied().filter(|limit| *limit >= 0) else {
            return true;
        };
        let rate = limit.unsigned_abs();
        let (tokens, filled_us) = self.tokens.entry(edge.to_owned()).or_insert((0, self.now_us));
        // Millionths of a request.
        let gained = (self.now_us - *filled_us).saturating_mul(rate) / 1_000;
        *tokens = tokens.saturating_add(gained).min(rate.saturating_mul(1_000));
        *filled_us = self.now_us;
        if *tokens < SECOND_US {
            return false;
        }
        *tokens -= SECOND_US;
        true
    }

    /// Ends a job; with an answer to whoever asked and still waits. `is_spoken`: its own process says so.
    fn answer(&mut self, id: u64, answer: Answer, is_spoken: bool) {
        let Some(job) = self.jobs.get(&id) else { return };
        let (service, replica, trace) = (job.service, job.replica, job.trace);
        let (parent, span, arrived_us, abandoned) = (job.parent, job.span, job.arrived_us, job.is_abandoned);
        let was_working = job.is_working;
        if let Some((asker, ..)) = parent.filter(|_| !abandoned) {
            self.count(asker, id, |counts| {
                counts.in_flight = counts.in_flight.saturating_sub(1);
                match answer {
                    Answer::Ok => counts.ok += 1,
                    Answer::Failed | Answer::Shed => counts.failed += 1,
                }
            });
        }
        self.jobs.remove(&id);
        if is_spoken {
            let parent = parent.map(|(_, span, _)| span);
            self.span(Kind::Server, service, replica, trace, span, parent, arrived_us, answer, None);
            self.next(service, replica, was_working);
        }
        if !abandoned {
            self.answered(parent, service, trace, arrived_us, answer);
        }
    }

    /// A worker is free again.
    fn next(&mut self, service: usize, replica: u32, was_working: bool) {
        let Some(running) = self.instances.get_mut(&(service, replica)) else { return };
        if !was_working {
            return;
        }
        running.working = running.working.saturating_sub(1);
        if let Some(waiting) = running.queue.pop_front() {
            running.working += 1;
            self.work(waiting);
        }
    }

    /// What an answer does to whoever asked.
    fn answered(&mut self, parent: Option<(u64, u64, u32)>, callee: usize, trace: u128, since: u64, answer: Answer) {
        let Some((asker, span, attempt)) = parent else {
            self.finished(since, answer);
            return;
        };
        let Some((service, replica, parent)) = self.jobs.get(&asker).map(|job| (job.service, job.replica, job.span))
        else {
            return;
        };
        self.span(Kind::Client, service, replica, trace, span, Some(parent), since, answer, Some(callee));
        self.go_on(asker, attempt, answer);
    }

    /// A call that reached nobody.
    fn refused(&mut self, parent: Option<(u64, u64, u32)>, answer: Answer) {
        match parent {
            Some((asker, _, attempt)) => self.go_on(asker, attempt, answer),
            None => self.finished(self.now_us, answer),
        }
    }

    fn go_on(&mut self, asker: u64, attempt: u32, answer: Answer) {
        let attempts = self.calls_of(asker).map_or(1, |calls| calls.attempts);
        match answer {
            Answer::Failed if attempt < attempts => {
                let base = self.calls_of(asker).map_or(0, |calls| calls.backoff_us);
                let wait = base << (attempt - 1).min(2);
                let wait = wait / 2 + self.draw(wait / 2 + 1);
                self.at(self.now_us + wait, Event::Again(asker, attempt + 1));
            }
            answer => self.answer(asker, answer, true),
        }
    }

    fn give_up(&mut self, id: u64) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| !job.is_abandoned) else { return };
        job.is_abandoned = true;
        let (parent, service, trace, since) = (job.parent, job.service, job.trace, job.arrived_us);
        if let Some((asker, ..)) = parent {
            self.count(asker, id, |counts| {
                counts.in_flight = counts.in_flight.saturating_sub(1);
                counts.timeouts += 1;
                counts.failed += 1;
            });
        }
        self.answered(parent, service, trace, since, Answer::Failed);
    }

    /// A request of the client's is over.
    fn finished(&mut self, sent_us: u64, answer: Answer) {
        let took = self.now_us - sent_us;
        let second = self.answers(sent_us);
        second.in_flight = second.in_flight.saturating_sub(1);
        second.latencies_ms.push(took / 1_000);
        match answer {
            Answer::Ok if took > LATE_US => second.late += 1,
            Answer::Ok => second.ok += 1,
            Answer::Failed => second.failed += 1,
            Answer::Shed => second.shed += 1,
        }
    }

    /// The next instance in turn that new requests go to.
    fn choose(&mut self, service: usize) -> Option<u32> {
        let name = SHAPES.get(service)?.name;
        let settings = &self.settings;
        let open = |replica: &u32| settings.get(&format!("weight/{name}@{replica}")).is_none_or(|weight| *weight > 0);
        let replicas = self.instances.keys().filter(|(of, _)| *of == service).map(|(_, replica)| *replica);
        let open: Vec<u32> = replicas.filter(open).collect();
        let turn = self.turns.entry(service).or_insert(0);
        *turn += 1;
        let at = usize::try_from(*turn).unwrap_or(0).checked_rem(open.len())?;
        open.get(at).copied()
    }

    fn calls_of(&self, job: u64) -> Option<Calls> {
        SHAPES.get(self.jobs.get(&job)?.service)?.calls
    }

    /// Counts at the edge and at the target of a call.
    fn count(&mut self, asker: u64, id: u64, change: impl Fn(&mut Counts)) {
        let (Some(caller), Some(job)) = (self.jobs.get(&asker), self.jobs.get(&id)) else { return };
        let edge = edge_name(caller.service, job.service);
        let target = instance_name(job.service, job.replica);
        let now_us = self.now_us;
        for (table, name) in [(&mut self.edges, edge), (&mut self.targets, target)] {
            change(second(table, &name, now_us));
            if let Some(series) = table.get_mut(&name) {
                change(&mut series.total);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a span has that many fields")]
    fn span(
        &mut self,
        kind: Kind,
        service: usize,
        replica: u32,
        trace: u128,
        id: u64,
        parent: Option<u64>,
        start_us: u64,
        answer: Answer,
        callee: Option<usize>,
    ) {
        let name = |place: usize| SHAPES.get(place).map_or("", |shape| shape.name);
        let peer = callee.map(|place| Peer { kind: PeerKind::Service, name: name(place).to_owned() });
        self.spans.push(Span {
            trace,
            id,
            parent,
            service: name(service).to_owned(),
            name: format!("POST /{}", name(callee.unwrap_or(service))),
            instance: Some(instance_name(service, replica)),
            generation: Some("1".to_owned()),
            kind,
            peer,
            start_us,
            duration_us: self.now_us - start_us,
            status: if answer == Answer::Ok { Status::Ok } else { Status::Error },
            authenticated: true,
            ..Span::default()
        });
    }

    fn answers(&mut self, sent_us: u64) -> &mut Answers {
        self.record.entry(ms(sent_us - sent_us % SECOND_US)).or_default()
    }

    fn at(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.due.push(Reverse((at, self.order, event)));
    }

    /// A number below `below`; the same sequence for the same seed (SplitMix64).
    fn draw(&mut self, below: u64) -> u64 {
        self.draws += 1;
        let mut mixed = self.seed.wrapping_add(self.draws.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below.max(1)
    }
}

impl Answers {
    fn second(&self, second_ms: i64) -> RecordSecond {
        let mut sorted = self.latencies_ms.clone();
        sorted.sort_unstable();
        let quantile = |percent: usize| sorted.get(sorted.len() * percent / 100).copied().unwrap_or(0);
        RecordSecond {
            second_ms,
            sent: self.sent,
            ok: self.ok,
            failed: self.failed,
            shed: self.shed,
            late: self.late,
            p50_ms: quantile(50),
            p99_ms: quantile(99),
            in_flight: self.in_flight,
        }
    }
}

/// `service@n`.
pub(crate) fn instance_name(service: usize, replica: u32) -> String {
    format!("{}@{replica}", SHAPES.get(service).map_or("", |shape| shape.name))
}

fn edge_name(caller: usize, callee: usize) -> String {
    let name = |place: usize| SHAPES.get(place).map_or("", |shape| shape.name);
    format!("{}->{}", name(caller), name(callee))
}

fn second<'a>(table: &'a mut BTreeMap<String, Series>, name: &str, now_us: u64) -> &'a mut Counts {
    let series = table.entry(name.to_owned()).or_default();
    let at_ms = ms(now_us - now_us % SECOND_US);
    if series.seconds.last().is_none_or(|last| last.at_ms != at_ms) {
        series.seconds.push(Second { at_ms, ..Second::default() });
    }
    if series.seconds.len() > SECONDS_MAX {
        series.seconds.remove(0);
    }
    let last = series.seconds.len() - 1;
    &mut series.seconds[last].counts
}

fn us(at: Timestamp) -> u64 {
    at.0.max(0).unsigned_abs() * 1_000
}

/// Milliseconds of an instant in microseconds.
pub(crate) fn ms(us: u64) -> i64 {
    i64::try_from(us / 1_000).unwrap_or(i64::MAX)
}
