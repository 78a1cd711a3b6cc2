//! One run: requests, queues, retries, limits. What the plan does to it is in `stage`.

mod looks;

use super::Health;
use super::compile::{CLIENT, Compiled, HOPS_MAX};
use super::draw::Draw;
use super::stage::Progress;
use std::collections::{BinaryHeap, VecDeque};

const NONE: u32 = u32::MAX;
/// Time between looks at backlog, goodput and the plan.
pub(super) const TICK_US: u64 = 100_000;
/// Ticks of one bucket of objectives: one second.
const BUCKET_TICKS: u64 = 10;
/// Ticks in a row that must look normal.
const CALM_TICKS: u32 = 10;
/// Requests a bucket needs before its shares mean anything.
const BUCKET_COUNT_MIN: u32 = 10;
/// A token of a limiter: 10⁻⁹ of a request, so that milli-requests per second are tokens per microsecond.
const TOKENS: u64 = 1_000_000_000;
/// Values of a service's bootstrap resample.
pub(super) const RESAMPLE_MAX: usize = 256;

/// Window of the healthy time; the time since the onset is 1, step i is 2 + i, the last is after the plan.
pub(super) const HEALTHY: usize = 0;
pub(super) const IMPAIRED: usize = 1;
pub(super) const FIRST_STEP: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Arrive,
    Continue,
    Timeout,
    Retry,
    AnswerGood,
    AnswerBad,
    Tick,
    Ready,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at: u64,
    sequence: u64,
    what: What,
    id: u32,
    stamp: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Good,
    Bad,
    Shed,
}

/// One execution of a request in a service, or of the client that sent it.
#[derive(Clone, Copy, Debug)]
struct Execution {
    stamp: u32,
    caller: u32,
    caller_stamp: u32,
    service: usize,
    replica: usize,
    /// Index into the service's calls; for the client the root.
    position: usize,
    calls_left: u32,
    attempt: u32,
    window: usize,
    depth: u8,
    live: bool,
    arrived: u64,
}

pub(super) struct Replica {
    pub(super) health: Health,
    pub(super) weight: i64,
    pub(super) running: u32,
    turn: i64,
    queue: VecDeque<u32>,
    generation: u32,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limiter {
    pub(super) rate_mrps: Option<u64>,
    pub(super) burst: Option<u64>,
    tokens: u64,
    filled_at: u64,
}

pub(super) struct Service {
    pub(super) replicas: Vec<Replica>,
    pub(super) limiter: Limiter,
    /// Bad buckets in a row, in seconds.
    bad_for: u64,
    count: u32,
    late: u32,
    errors: u32,
    pub(super) times: Vec<u32>,
    draw: Draw,
    /// Delay of every answer in a hostile run.
    answer_delay: u64,
    pub(super) busy_ticks: u64,
    pub(super) busy: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) calls: u64,
    pub(super) attempts: u64,
}

pub(super) struct Edge {
    pub(super) limiter: Limiter,
    pub(super) open: bool,
    draw: Draw,
    retries: u64,
    /// Per window.
    pub(super) counts: Vec<Counts>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Roots {
    pub(super) sent: u64,
    pub(super) good: u64,
    pub(super) answered: u64,
}

struct Root {
    draw: Draw,
    mean_us: u64,
}

/// What one run showed.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// Per window and edge.
    pub(super) counts: Vec<Vec<Counts>>,
    pub(super) roots: Vec<Roots>,
    pub(super) backlog_peak: u64,
    pub(super) backlog_at: usize,
    pub(super) drained_us: u64,
    pub(super) delay_us: Option<u64>,
    pub(super) converged_us: Option<u64>,
    pub(super) failed_step: Option<usize>,
    pub(super) grown: Vec<usize>,
    pub(super) busy_permille: Vec<u64>,
    pub(super) events: u64,
    pub(super) latencies: Vec<u32>,
}

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Health, onset, plan, until normal.
    Plan,
    /// As `Plan`, then the trigger goes away and the run continues up to ten budgets.
    Metastable,
    /// Only health, so long, with latencies kept.
    Healthy(u64),
}

pub(super) struct Run<'a> {
    pub(super) compiled: &'a Compiled<'a>,
    pub(super) services: Vec<Service>,
    pub(super) edges: Vec<Edge>,
    roots: Vec<Root>,
    executions: Vec<Execution>,
    free: Vec<u32>,
    heap: BinaryHeap<std::cmp::Reverse<Event>>,
    pub(super) now: u64,
    sequence: u64,
    pub(super) window: usize,
    pub(super) hostile: bool,
    pub(super) plan_draw: Draw,
    pub(super) progress: Progress,
    mode: Mode,
    ticks: u64,
    healthy_backlog: u64,
    normal_ticks: u32,
    impaired_before: Vec<bool>,
    /// Services that miss their objective before the onset.
    chronic: Vec<bool>,
    /// Root requests answered before the onset, and of these answered well.
    healthy_good: (u64, u64),
    recent: VecDeque<Roots>,
    pub(super) outcome: Outcome,
    over: bool,
    horizon_us: u64,
}

impl<'a> Run<'a> {
    pub(super) fn new(compiled: &'a Compiled<'a>, index: u32, mode: Mode) -> Run<'a> {
        let seed = compiled.input.config.seed;
        let hostile = mode_is_plan(mode) && index % 5 == 4;
        let draw = |kind: u64, i: usize| Draw::new(seed, index, (kind << 32) | i as u64);
        let windows = FIRST_STEP + compiled.steps.len() + 1;
        let mut services: Vec<Service> =
            compiled.services.iter().enumerate().map(|(i, s)| Service::new(s, draw(1, i))).collect();
        let edges = (0..compiled.edges.len()).map(|i| Edge {
            limiter: Limiter::default(),
            open: false,
            draw: draw(2, i),
            retries: 0,
            counts: vec![Counts::default(); windows],
        });
        let edges = edges.collect();
        let roots = compiled.roots.iter().enumerate().map(|(i, root)| Root::new(root, draw(3, i), compiled.thinning));
        let mut plan_draw = draw(4, 0);
        if hostile && !services.is_empty() {
            let delayed = usize::try_from(plan_draw.below(services.len() as u64)).unwrap_or(0);
            let times = &compiled.services[delayed].fit.times_us;
            let rank = (times.len() * 999 / 1_000).min(times.len().saturating_sub(1));
            // Every answer as late as the slowest in a thousand, not later than that by a whole usual time.
            let usual = times.get(times.len() / 2).copied().unwrap_or(0);
            services[delayed].answer_delay = times.get(rank).map_or(0, |time| u64::from(time.saturating_sub(usual)));
        }
        let mut run = Run {
            compiled,
            services,
            edges,
            roots: roots.collect(),
            executions: Vec::with_capacity(1_024),
            free: Vec::new(),
            heap: BinaryHeap::with_capacity(2_048),
            now: 0,
            sequence: 0,
            window: HEALTHY,
            hostile,
            plan_draw,
            progress: Progress::default(),
            mode,
            ticks: 0,
            healthy_backlog: 0,
            normal_ticks: 0,
            impaired_before: Vec::new(),
            chronic: Vec::new(),
            healthy_good: (1, 1),
            recent: VecDeque::new(),
            outcome: Outcome { roots: vec![Roots::default(); windows], ..Outcome::default() },
            over: false,
            horizon_us: compiled.horizon_us(),
        };
        for root in 0..run.roots.len() {
            run.schedule_arrival(root);
        }
        run.push(TICK_US, What::Tick, 0, 0);
        run
    }

    /// Runs to the end.
    pub(super) fn finish(mut self) -> Outcome {
        let events_max = 4 * self.compiled.input.config.events_max / u64::from(self.compiled.input.config.runs.max(1));
        let capped = self.mode == Mode::Plan;
        while let Some(std::cmp::Reverse(event)) = self.heap.pop() {
            self.now = event.at;
            self.outcome.events += 1;
            self.handle(event);
            if self.over || (capped && self.outcome.events > events_max.max(1_000)) {
                break;
            }
        }
        self.outcome.counts = self.edges.iter().map(|edge| edge.counts.clone()).collect();
        let share = |s: &Service| (s.busy * 1_000).checked_div(s.busy_ticks).unwrap_or(0);
        self.outcome.busy_permille = self.services.iter().map(share).collect();
        self.outcome
    }

    fn handle(&mut self, event: Event) {
        match event.what {
            What::Arrive => self.arrive(event.id as usize),
            What::Continue if self.is_current(event) => self.proceed(event.id, 0),
            What::Timeout | What::AnswerBad if self.is_current(event) => self.answered(event.id, Answer::Bad),
            What::AnswerGood if self.is_current(event) => self.answered(event.id, Answer::Good),
            What::Retry if self.is_current(event) => self.attempt(event.id),
            What::Continue | What::Timeout | What::AnswerBad | What::AnswerGood | What::Retry => {}
            What::Tick => self.tick(),
            What::Ready => self.ready(event.id, event.stamp),
        }
    }

    /// Whether the event still means something: its execution waits for it, in a process that runs.
    fn is_current(&self, event: Event) -> bool {
        let execution = &self.executions[event.id as usize];
        execution.live && execution.stamp == event.stamp && !self.is_frozen(execution)
    }

    fn is_frozen(&self, execution: &Execution) -> bool {
        execution.service != CLIENT
            && self.services[execution.service].replicas[execution.replica].health == Health::Hung
    }

    fn push(&mut self, at: u64, what: What, id: u32, stamp: u32) {
        self.sequence += 1;
        self.heap.push(std::cmp::Reverse(Event { at, sequence: self.sequence, what, id, stamp }));
    }

    // Requests.

    fn schedule_arrival(&mut self, root: usize) {
        let periodic = self.compiled.roots[root].periodic;
        let entry = &mut self.roots[root];
        if entry.mean_us == 0 {
            return;
        }
        let mean = entry.mean_us;
        let wait = if periodic { mean } else { self.compiled.exponential.wait(&mut entry.draw, mean) };
        let id = u32::try_from(root).unwrap_or(NONE);
        self.push(self.now + wait.max(1), What::Arrive, id, 0);
    }

    fn arrive(&mut self, root: usize) {
        self.schedule_arrival(root);
        self.outcome.roots[self.window].sent += 1;
        if let Some(recent) = self.recent.back_mut() {
            recent.sent += 1;
        }
        let id = self.allocate(CLIENT, 0, NONE, 0, 0);
        self.executions[id as usize].position = root;
        self.executions[id as usize].calls_left = 1;
        self.call(id);
    }

    fn allocate(&mut self, service: usize, replica: usize, caller: u32, caller_stamp: u32, depth: u8) -> u32 {
        let id = self.free.pop().unwrap_or_else(|| {
            self.executions.push(Execution::EMPTY);
            u32::try_from(self.executions.len() - 1).unwrap_or(NONE)
        });
        let execution = &mut self.executions[id as usize];
        let stamp = execution.stamp.wrapping_add(1);
        let arrived = self.now;
        let window = self.window;
        *execution = Execution {
            stamp,
            caller,
            caller_stamp,
            service,
            replica,
            depth,
            arrived,
            window,
            live: true,
            ..Execution::EMPTY
        };
        id
    }

    fn release(&mut self, id: u32) {
        let execution = &mut self.executions[id as usize];
        execution.live = false;
        execution.stamp = execution.stamp.wrapping_add(1);
        self.free.push(id);
    }

    fn edge_of(&self, execution: &Execution) -> usize {
        if execution.service == CLIENT {
            self.compiled.roots[execution.position].edge
        } else {
            self.compiled.services[execution.service].calls[execution.position]
        }
    }

    /// Takes an execution on from its current call, after `delay`.
    fn proceed(&mut self, id: u32, delay: u64) {
        let compiled = self.compiled;
        let mut delay = delay;
        loop {
            let execution = self.executions[id as usize];
            let calls = &compiled.services[execution.service].calls;
            let Some(&e) = calls.get(execution.position) else {
                if delay == 0 {
                    self.end(id, self.own_answer(&execution));
                } else {
                    self.push(self.now + delay, What::Continue, id, execution.stamp);
                }
                return;
            };
            let edge = &compiled.edges[e];
            let calm = compiled.services[edge.callee].calm;
            if !calm && delay > 0 {
                self.push(self.now + delay, What::Continue, id, execution.stamp);
                return;
            }
            let count = self.calls_over(e, edge.permille);
            if !calm && count > 0 && !edge.asynchronous {
                self.executions[id as usize].calls_left = count;
                self.call(id);
                return;
            }
            for _ in 0..count {
                if !calm {
                    self.send(e, NONE, 0, execution.depth + 1);
                } else if !edge.asynchronous {
                    delay += self.calm_time(edge.callee, 0);
                }
            }
            let counts = &mut self.edges[e].counts[execution.window];
            counts.calls += u64::from(count);
            counts.attempts += u64::from(count);
            self.executions[id as usize].position += 1;
        }
    }

    /// How an execution ends by itself: a failing instance answers with an error and calls nobody.
    fn own_answer(&self, execution: &Execution) -> Answer {
        let failing = execution.service != CLIENT
            && matches!(self.services[execution.service].replicas[execution.replica].health, Health::Failing(_));
        if failing { Answer::Bad } else { Answer::Good }
    }

    fn calls_over(&mut self, e: usize, permille: u64) -> u32 {
        let extra = permille % 1_000;
        let one_more = extra > 0 && self.edges[e].draw.below(1_000) < extra;
        u32::try_from(permille / 1_000).unwrap_or(u32::MAX) + u32::from(one_more)
    }

    /// Time of an execution in a calm service with all its callees.
    fn calm_time(&mut self, s: usize, depth: u8) -> u64 {
        let service = &mut self.services[s];
        let mut time = u64::from(service.draw.pick(&service.times)) + service.answer_delay;
        if depth < HOPS_MAX {
            for &e in &self.compiled.services[s].calls {
                let edge = &self.compiled.edges[e];
                if !edge.asynchronous {
                    for _ in 0..self.calls_over(e, edge.permille) {
                        time += self.calm_time(edge.callee, depth + 1);
                    }
                }
            }
        }
        time
    }

    /// Starts a logical call: counted once, however often it is attempted.
    fn call(&mut self, id: u32) {
        let window = self.window;
        let execution = &mut self.executions[id as usize];
        execution.attempt = 0;
        execution.window = window;
        let copy = *execution;
        let e = self.edge_of(&copy);
        self.edges[e].counts[window].calls += 1;
        self.attempt(id);
    }

    fn attempt(&mut self, id: u32) {
        let execution = &mut self.executions[id as usize];
        execution.attempt += 1;
        execution.stamp = execution.stamp.wrapping_add(1);
        let copy = *execution;
        let e = self.edge_of(&copy);
        self.edges[e].counts[copy.window].attempts += 1;
        match self.send(e, id, copy.stamp, copy.depth + 1) {
            Some(answer) => self.answered(id, answer),
            None => {
                if let Some(timeout) = self.compiled.edges[e].timeout_us {
                    self.push(self.now + timeout, What::Timeout, id, copy.stamp);
                }
            }
        }
    }

    /// Sends a request over an edge. An answer is returned only if there is one at once.
    fn send(&mut self, e: usize, caller: u32, stamp: u32, depth: u8) -> Option<Answer> {
        let callee = self.compiled.edges[e].callee;
        let thinning = self.compiled.thinning;
        if self.edges[e].open
            || !self.edges[e].limiter.admit(self.now, thinning)
            || !self.services[callee].limiter.admit(self.now, thinning)
        {
            return Some(Answer::Shed);
        }
        if depth > HOPS_MAX {
            return Some(Answer::Good);
        }
        let Some(replica) = self.services[callee].choose() else { return Some(Answer::Bad) };
        if self.services[callee].replicas[replica].health == Health::Down {
            return Some(Answer::Bad);
        }
        let workers = self.compiled.services[callee].workers;
        let queue_max = self.compiled.services[callee].queue_max as usize;
        let target = &self.services[callee].replicas[replica];
        let full = target.running >= workers && target.queue.len() >= queue_max;
        if full && target.health != Health::Hung {
            self.services[callee].count += 1;
            self.services[callee].errors += 1;
            return Some(Answer::Bad);
        }
        let id = self.allocate(callee, replica, caller, stamp, depth);
        let target = &mut self.services[callee].replicas[replica];
        if target.running < workers {
            self.begin(id);
        } else {
            target.queue.push_back(id);
        }
        None
    }

    fn begin(&mut self, id: u32) {
        let execution = self.executions[id as usize];
        let (s, replica) = (execution.service, execution.replica);
        let service = &mut self.services[s];
        service.replicas[replica].running += 1;
        let own = u64::from(service.draw.pick(&service.times)) * self.compiled.services[s].stretch_permille / 1_000;
        let health = service.replicas[replica].health;
        let (own, extra) = match health {
            Health::Slow(extra) => (own, extra),
            Health::Failing(until_error) => {
                self.executions[id as usize].position = usize::MAX;
                (until_error, 0)
            }
            Health::Up | Health::Hung | Health::Down => (own, 0),
        };
        // WHY max 1: a time of zero would end the execution before its caller's timeout is set.
        self.proceed_after(id, (own + extra).max(1));
    }

    fn proceed_after(&mut self, id: u32, delay: u64) {
        // A frozen process takes the request and does nothing with it.
        if !self.is_frozen(&self.executions[id as usize]) {
            self.proceed(id, delay);
        }
    }

    /// The current call of `id` got its answer, or none in time.
    fn answered(&mut self, id: u32, answer: Answer) {
        let execution = &mut self.executions[id as usize];
        execution.stamp = execution.stamp.wrapping_add(1);
        let copy = *execution;
        let e = self.edge_of(&copy);
        let edge = &self.compiled.edges[e];
        match answer {
            Answer::Good => self.next_call(id),
            Answer::Bad if copy.attempt < edge.attempts && self.may_retry(e) => {
                self.edges[e].retries += 1;
                let wait = self.back_off(e, copy.attempt);
                self.push(self.now + wait, What::Retry, id, copy.stamp);
            }
            Answer::Bad | Answer::Shed if edge.soft => self.next_call(id),
            Answer::Bad | Answer::Shed => self.end(id, answer),
        }
    }

    fn may_retry(&self, e: usize) -> bool {
        let calls: u64 = self.edges[e].counts.iter().map(|counts| counts.calls).sum();
        let within = |ppm: u64| (self.edges[e].retries + 1) * 1_000_000 <= ppm * calls;
        self.compiled.edges[e].budget_ppm.is_none_or(within)
    }

    fn back_off(&mut self, e: usize, attempt: u32) -> u64 {
        let edge = &self.compiled.edges[e];
        let doubled = edge.base_us.saturating_mul(1 << (attempt - 1).min(30));
        let wait = doubled.min(edge.cap_us.max(edge.base_us));
        // Half is fixed and half is drawn; hostile runs retry in step.
        let drawn = if self.hostile { wait / 2 } else { self.edges[e].draw.below(wait / 2 + 1) };
        (wait / 2 + drawn).max(1)
    }

    fn next_call(&mut self, id: u32) {
        let execution = &mut self.executions[id as usize];
        execution.calls_left = execution.calls_left.saturating_sub(1);
        if execution.calls_left > 0 {
            self.call(id);
        } else if execution.service == CLIENT {
            self.end(id, Answer::Good);
        } else {
            execution.position += 1;
            self.proceed(id, 0);
        }
    }

    fn end(&mut self, id: u32, answer: Answer) {
        let execution = self.executions[id as usize];
        self.release(id);
        if execution.service == CLIENT {
            self.end_root(&execution, answer);
            return;
        }
        let service = &mut self.services[execution.service];
        let took = self.now - execution.arrived;
        if answer != Answer::Shed {
            service.count += 1;
            service.errors += u32::from(answer == Answer::Bad);
            let objective = self.compiled.services[execution.service].fit.p99_us;
            service.late += u32::from(answer == Answer::Good && objective.is_some_and(|bound| took > bound));
        }
        let delay = service.answer_delay;
        self.leave(execution.service, execution.replica);
        if execution.caller == NONE {
            return;
        }
        if delay > 0 {
            let what = if answer == Answer::Good { What::AnswerGood } else { What::AnswerBad };
            self.push(self.now + delay, what, execution.caller, execution.caller_stamp);
            return;
        }
        let caller = &self.executions[execution.caller as usize];
        if caller.live && caller.stamp == execution.caller_stamp && !self.is_frozen(caller) {
            self.answered(execution.caller, answer);
        }
    }

    fn end_root(&mut self, execution: &Execution, answer: Answer) {
        let good = u64::from(answer == Answer::Good);
        let roots = &mut self.outcome.roots[execution.window];
        roots.good += good;
        roots.answered += 1;
        if let Some(recent) = self.recent.back_mut() {
            recent.good += good;
            recent.answered += 1;
        }
        if matches!(self.mode, Mode::Healthy(_)) && answer == Answer::Good {
            self.outcome.latencies.push(u32::try_from(self.now - execution.arrived).unwrap_or(u32::MAX));
        }
    }

    /// A worker is free again.
    fn leave(&mut self, s: usize, replica: usize) {
        let workers = self.compiled.services[s].workers;
        let target = &mut self.services[s].replicas[replica];
        target.running = target.running.saturating_sub(1);
        if target.running < workers
            && let Some(next) = target.queue.pop_front()
        {
            self.begin(next);
        }
    }

    // Replicas.

    /// Ends a process: everything in it is lost, its callers see a broken connection.
    pub(super) fn kill(&mut self, s: usize, replica: usize) {
        let target = &mut self.services[s].replicas[replica];
        target.health = Health::Down;
        target.queue.clear();
        target.running = 0;
        target.generation += 1;
        let inside = |e: &Execution| e.live && e.service == s && e.replica == replica;
        let lost: Vec<u32> = (0_u32..).zip(&self.executions).filter(|(_, e)| inside(e)).map(|(id, _)| id).collect();
        for id in &lost {
            let execution = self.executions[*id as usize];
            self.release(*id);
            if execution.caller != NONE {
                self.push(self.now + 1, What::AnswerBad, execution.caller, execution.caller_stamp);
            }
        }
    }

    /// Starts a process that will be ready after `start_up`.
    pub(super) fn start(&mut self, s: usize, replica: usize, start_up: u64) {
        let generation = self.services[s].replicas[replica].generation;
        let id = u32::try_from((s << 16) | replica).unwrap_or(NONE);
        self.push(self.now + start_up.max(1), What::Ready, id, generation);
    }

    fn ready(&mut self, id: u32, generation: u32) {
        let (s, replica) = ((id >> 16) as usize, (id & 0xFFFF) as usize);
        let target = &mut self.services[s].replicas[replica];
        if target.generation == generation {
            target.health = Health::Up;
        }
    }

    /// Changes a replica's health in place, as the fault does.
    pub(super) fn impair(&mut self, s: usize, replica: usize, health: Health) {
        let Some(target) = self.services[s].replicas.get_mut(replica) else { return };
        match health {
            Health::Down => self.kill(s, replica),
            Health::Hung | Health::Slow(_) | Health::Failing(_) => target.health = health,
            Health::Up => {
                let frozen = target.health == Health::Hung;
                if frozen {
                    // What a hung process held is answered long after anybody waits: as good as lost.
                    self.kill(s, replica);
                }
                self.services[s].replicas[replica].health = Health::Up;
            }
        }
    }

    pub(super) fn in_flight(&self, s: usize, replica: usize) -> usize {
        let target = &self.services[s].replicas[replica];
        target.running as usize + target.queue.len()
    }

    pub(super) fn add_replica(&mut self, s: usize) {
        self.services[s].replicas.push(Replica::new(Health::Down));
    }
}

fn mode_is_plan(mode: Mode) -> bool {
    !matches!(mode, Mode::Healthy(_))
}

impl Execution {
    const EMPTY: Execution = Execution {
        stamp: 0,
        caller: NONE,
        caller_stamp: 0,
        service: 0,
        replica: 0,
        position: 0,
        calls_left: 0,
        attempt: 0,
        window: 0,
        depth: 0,
        live: false,
        arrived: 0,
    };
}

impl Replica {
    pub(super) fn new(health: Health) -> Replica {
        Replica { health, weight: 100, running: 0, turn: 0, queue: VecDeque::new(), generation: 0 }
    }
}

impl Service {
    fn new(service: &super::compile::Service<'_>, mut draw: Draw) -> Service {
        let fit = service.fit;
        let count = fit.times_us.len().min(RESAMPLE_MAX);
        // The parameters of each run are a resample of what was measured.
        let times = (0..count).map(|_| draw.pick(&fit.times_us)).collect();
        Service {
            replicas: (0..fit.replicas).map(|_| Replica::new(Health::Up)).collect(),
            limiter: Limiter::default(),
            bad_for: 0,
            count: 0,
            late: 0,
            errors: 0,
            times,
            draw,
            answer_delay: 0,
            busy_ticks: 0,
            busy: 0,
        }
    }

    /// Smooth weighted round robin over all replicas with a weight, ready or not: the proxy ejects none.
    fn choose(&mut self) -> Option<usize> {
        let total: i64 = self.replicas.iter().map(|replica| replica.weight).sum();
        let mut best: Option<usize> = None;
        for i in 0..self.replicas.len() {
            if self.replicas[i].weight > 0 {
                self.replicas[i].turn += self.replicas[i].weight;
                if best.is_none_or(|b| self.replicas[i].turn > self.replicas[b].turn) {
                    best = Some(i);
                }
            }
        }
        if let Some(b) = best {
            self.replicas[b].turn -= total;
        }
        best
    }
}

impl Limiter {
    fn admit(&mut self, now: u64, thinning: u64) -> bool {
        let Some(rate) = self.rate_mrps else { return true };
        let cost = TOKENS * thinning;
        let depth = self.burst.map_or(rate / 10_000, |burst| burst).max(1) * TOKENS;
        let filled = rate.saturating_mul(now - self.filled_at);
        self.tokens = self.tokens.saturating_add(filled).min(depth.max(cost));
        self.filled_at = now;
        if self.tokens < cost {
            return false;
        }
        self.tokens -= cost;
        true
    }

    pub(super) fn set(&mut self, rate_mrps: Option<u64>, burst: Option<u64>, now: u64) {
        // A new limiter starts full; a changed one keeps its tokens.
        if self.rate_mrps.is_none() {
            self.tokens = u64::MAX;
        }
        self.filled_at = now;
        self.rate_mrps = rate_mrps;
        self.burst = burst;
    }
}

impl Root {
    /// The rate of a run is a resample of the seconds of the fit window.
    fn new(root: &super::compile::Root<'_>, mut draw: Draw, thinning: u64) -> Root {
        let seconds = root.per_second.len() as u64;
        let total: u64 = (0..seconds).map(|_| u64::from(draw.pick(root.per_second))).sum();
        let mean_us = (seconds * 1_000_000 * thinning).checked_div(total).unwrap_or(0);
        Root { draw, mean_us }
    }
}
