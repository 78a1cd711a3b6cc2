//! What is recovered in the simulator: three services under load, a proxy, a supervisor, and a fault. It is seen and
//! acted on through the same two traits as real processes.

mod shape;
mod traffic;

pub(crate) use shape::TOPOLOGY;

use crate::crash::{Edge, Hooks, Kind, Victim};
use actuators::control::{Counters, Instance, ProxyState, Status};
use actuators::field::Field;
use actuators::process::ledger::{Entry, Outcome};
use actuators::simulator::Simulator;
use actuators::{Actuator, Capabilities, DryRun, Error, Fut, Selector};
use base::{Millis, Timestamp};
use futures_util::FutureExt as _;
use recovery::call::{self, Call, Key, Observation, Receipt, Reconciled, State, Undo};
use recovery::span::Span;
use recovery::world::Capability;
use server::engine::Env;
use server::platform::{Reading, Sight};
use shape::{PROBE_US, SHAPES};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use traffic::{Traffic, instance_name, ms};

/// How long a call is on its way to the target, and its answer back.
const ON_THE_WAY: Duration = Duration::from_millis(15);

/// The fleet; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    inner: Arc<Mutex<Inner>>,
    hooks: Hooks,
}

/// An actuator in one process's hand: it does nothing more once that process is killed.
#[derive(Debug)]
pub(crate) struct Hand {
    fleet: Fleet,
    env: Env,
    capabilities: Capabilities,
}

#[derive(Debug)]
struct Inner {
    now: Timestamp,
    traffic: Traffic,
    /// Fields, fences, keys and expiries.
    target: Simulator,
    ledgers: BTreeMap<String, Vec<Entry>>,
    /// Every start of an instance: the service, the replica, the generation, and the key that asked for it.
    starts: Vec<(String, u32, u64, String)>,
    has_supervisor: bool,
    has_proxy: bool,
}

impl Fleet {
    pub(crate) fn new(seed: u64, now: Timestamp, hooks: Hooks) -> Fleet {
        let target = Simulator::new(fields(), now);
        let inner = Inner {
            now,
            traffic: Traffic::new(seed, now),
            target,
            ledgers: BTreeMap::new(),
            starts: Vec::new(),
            has_supervisor: true,
            has_proxy: true,
        };
        Fleet { inner: Arc::new(Mutex::new(inner)), hooks }
    }

    /// Lets the fleet live until `now`.
    pub(crate) fn advance(&self, now: Timestamp) {
        let mut inner = self.lock();
        inner.target.pass(now.since(inner.now));
        inner.now = now;
        inner.traffic.settings = inner.state();
        inner.traffic.advance(now);
    }

    /// From now on this instance takes requests and answers none; `for_good`: whatever process runs as it.
    pub(crate) fn hang(&self, service: &str, replica: u32, for_good: bool) {
        let mut inner = self.lock();
        let now_us = us(inner.now);
        let Some(place) = SHAPES.iter().position(|shape| shape.name == service) else { return };
        if let Some(running) = inner.traffic.instances.get_mut(&(place, replica)) {
            running.hung_us = Some(now_us);
        }
        if for_good {
            inner.traffic.cursed.insert((place, replica));
        }
    }

    /// Kills the supervisor, and with it everything it started, or the proxy.
    pub(crate) fn kill(&self, victim: Victim) {
        let mut inner = self.lock();
        inner.has_proxy = false;
        inner.traffic.has_proxy = false;
        if victim == Victim::Supervisor {
            inner.has_supervisor = false;
        }
    }

    /// The spans that ended since the last call; none once the services have ended.
    pub(crate) fn take_spans(&self) -> Vec<Span> {
        let mut inner = self.lock();
        let spans = inner.traffic.take_spans();
        if inner.has_supervisor { spans } else { Vec::new() }
    }

    /// Keys that took effect more than once, by the target's own count, by the ledgers or by the starts; and
    /// disagreements among the three.
    pub(crate) fn repeated(&self) -> Vec<String> {
        let inner = self.lock();
        let mut found = Vec::new();
        let applied = |key: &str| {
            let entries = inner.ledgers.values().flatten();
            entries.filter(|entry| entry.key == key && entry.outcome == Outcome::Applied).count()
        };
        let keys: BTreeSet<&String> = inner.ledgers.values().flatten().map(|entry| &entry.key).collect();
        for key in keys {
            let (by_target, by_ledger) = (inner.target.effects(&Key(key.clone())), applied(key));
            if by_target > 1 || by_ledger > 1 || by_target != by_ledger {
                found.push(format!("{key} took effect {by_target} times, the ledger says {by_ledger}"));
            }
        }
        let mut started: BTreeMap<(&String, u32, &String), u32> = BTreeMap::new();
        for (service, replica, _, key) in &inner.starts {
            *started.entry((service, *replica, key)).or_default() += 1;
        }
        for ((service, replica, key), count) in started {
            let known = applied(key);
            if count > 1 || known != 1 {
                found.push(format!("{service}@{replica} was started {count} times for {key}, the ledger says {known}"));
            }
        }
        found
    }

    /// What is still set that was not set before the incident.
    pub(crate) fn open_settings(&self) -> Vec<String> {
        let inner = self.lock();
        let state = inner.state();
        let open = fields().into_iter().filter(|(name, value)| {
            !name.starts_with("generation/") && state.get(name).is_some_and(|now| now != value)
        });
        open.map(|(name, _)| name).collect()
    }

    /// Instances that take requests and answer none.
    pub(crate) fn hung(&self) -> Vec<String> {
        let inner = self.lock();
        let hung = inner.traffic.instances.iter().filter(|(_, running)| running.hung_us.is_some());
        hung.map(|((service, replica), _)| instance_name(*service, *replica)).collect()
    }

    /// Bad requests, in parts per million, of those that the client sent in the whole seconds of `[from, to)`.
    pub(crate) fn bad_ppm(&self, from: Timestamp, to: Timestamp) -> Option<u64> {
        let record = self.lock().traffic.record(from);
        let summary = server::platform::summarize(&record, from, to);
        (summary.bad * 1_000_000).checked_div(summary.sent)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn state(&self) -> State {
        let all = Selector { fields: fields().into_keys().collect() };
        // The target in memory answers at once.
        self.target.observe(&all).now_or_never().and_then(Result::ok).unwrap_or_default().state
    }

    fn observation(&self) -> Observation {
        let all = Selector { fields: fields().into_keys().collect() };
        self.target.observe(&all).now_or_never().and_then(Result::ok).unwrap_or_default()
    }

    /// The target, if what controls these fields still runs.
    fn reaching(&self, fields: &State) -> Result<Simulator, Error> {
        let by_supervisor = |name: &String| name.starts_with("generation/") || name.starts_with("replicas/");
        let reached = fields.keys().all(|name| if by_supervisor(name) { self.has_supervisor } else { self.has_proxy });
        if reached { Ok(self.target.clone()) } else { Err(Error::Unavailable) }
    }

    /// What a call did, in the ledgers; and what it starts.
    fn write_down(&mut self, fields: &State, key: &Key, action: &str, answer: &Result<Receipt, Error>, is_new: bool) {
        let Ok(receipt) = answer else { return };
        if !is_new {
            return;
        }
        let owners: BTreeSet<String> =
            fields.keys().filter_map(|name| Some(Field::parse(name)?.owner()?.to_owned())).collect();
        for owner in owners {
            let ledger = self.ledgers.entry(owner).or_default();
            ledger.push(Entry {
                seq: ledger.len() as u64 + 1,
                at_ms: self.now.0,
                key: key.0.clone(),
                fence: receipt.fence,
                action: action.to_owned(),
                outcome: Outcome::Applied,
                before: receipt.before.clone(),
                after: receipt.after.clone(),
                wanted: fields.clone(),
                versions: receipt.versions.clone(),
                native_id: None,
                took_ms: 0,
            });
        }
        for (name, value) in fields {
            let Some((service, replica)) = name.strip_prefix("generation/").and_then(|it| it.split_once('@')) else {
                continue;
            };
            let (Ok(replica), Some(place)) = (replica.parse(), SHAPES.iter().position(|shape| shape.name == service))
            else {
                continue;
            };
            let generation = value.unsigned_abs();
            self.traffic.replace(place, replica, generation);
            self.starts.push((service.to_owned(), replica, generation, key.0.clone()));
        }
    }

    fn status(&self) -> Status {
        let now_us = us(self.now);
        let observed = self.observation();
        let instances = self.traffic.instances.iter().map(|((place, replica), running)| {
            let service = SHAPES.get(*place).map_or("", |shape| shape.name).to_owned();
            let noticed = running.hung_us.map(|hung| hung + PROBE_US).filter(|at| *at <= now_us);
            let serves = running.serves_us <= now_us;
            let ready_since = noticed.unwrap_or(if serves { running.serves_us } else { running.started_us });
            let key = self.starts.iter().rev().find(|(of, n, ..)| (of, n) == (&service, replica));
            Instance {
                replica: *replica,
                generation: running.generation,
                key: key.map(|(.., key)| key.clone()).unwrap_or_default(),
                started_at_ms: ms(running.started_us),
                address: Some(format!("{service}:{replica}")),
                alive: true,
                ready: serves && noticed.is_none(),
                ready_since_ms: ms(ready_since),
                probed_at_ms: self.now.0,
                service,
                ..Instance::default()
            }
        });
        Status {
            at_ms: self.now.0,
            replicas: SHAPES.iter().map(|shape| (shape.name.to_owned(), shape.replicas)).collect(),
            versions: observed.versions.into_iter().filter(|(name, _)| of_supervisor(name)).collect(),
            instances: instances.collect(),
            ..Status::default()
        }
    }

    fn proxy(&self) -> ProxyState {
        let observed = self.observation();
        ProxyState {
            settings: observed.state.into_iter().filter(|(name, _)| !of_supervisor(name)).collect(),
            versions: observed.versions.into_iter().filter(|(name, _)| !of_supervisor(name)).collect(),
            counters: Counters {
                at_ms: self.now.0,
                edges: self.traffic.edges.clone(),
                targets: self.traffic.targets.clone(),
            },
            ..ProxyState::default()
        }
    }
}

impl Sight for Fleet {
    fn read(&self, now: Timestamp, record_since: Timestamp) -> Fut<'_, Reading> {
        Box::pin(async move {
            let inner = self.lock();
            Reading {
                at: now,
                status: inner.has_supervisor.then(|| inner.status()),
                proxy: inner.has_proxy.then(|| inner.proxy()),
                record: inner.has_supervisor.then(|| inner.traffic.record(record_since)),
                ..Reading::default()
            }
        })
    }

    fn ledger(&self, service: &str) -> Option<Vec<Entry>> {
        Some(self.lock().ledgers.get(service).cloned().unwrap_or_default())
    }

    fn capabilities(&self) -> Vec<Capability> {
        server::remediation::capabilities(Simulator::new(State::new(), Timestamp(0)).capabilities())
    }
}

impl Hand {
    pub(crate) fn new(fleet: Fleet, env: Env) -> Hand {
        let capabilities = Simulator::new(State::new(), Timestamp(0)).capabilities().clone();
        Hand { fleet, env, capabilities }
    }

    /// One call on its way: it can be cut off before the effect and after it.
    async fn carry<F>(&self, fields: &State, key: &Key, action: &str, work: F) -> Result<Receipt, Error>
    where
        F: FnOnce(Simulator) -> Fut<'static, Result<Receipt, Error>>,
    {
        let Fleet { hooks, .. } = &self.fleet;
        let what = format!("{action} {}", key.0);
        tokio::time::sleep(ON_THE_WAY).await;
        hooks.reach(Kind::Actuation, Edge::Before, &what);
        self.unless_killed().await;
        let target = self.fleet.lock().reaching(fields)?;
        let known = target.effects(key);
        let answer = work(target.clone()).await;
        let is_new = target.effects(key) > known;
        self.fleet.lock().write_down(fields, key, action, &answer, is_new);
        hooks.reach(Kind::Actuation, Edge::After, &what);
        self.unless_killed().await;
        // Whoever has just died cannot answer any more: it has happened, and the caller does not know.
        self.fleet.lock().reaching(fields).map_err(|_| Error::TimedOut)?;
        tokio::time::sleep(ON_THE_WAY).await;
        answer
    }

    /// Whoever was killed takes no further step.
    async fn unless_killed(&self) {
        if self.env.is_ended() {
            std::future::pending().await
        }
    }
}

impl Actuator for Hand {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn observe<'a>(&'a self, what: &'a Selector) -> Fut<'a, Result<Observation, Error>> {
        Box::pin(async move {
            let fields = what.fields.iter().map(|name| (name.clone(), 0)).collect();
            let target = self.fleet.lock().reaching(&fields)?;
            target.observe(what).await
        })
    }

    fn dry_run<'a>(&'a self, call: &'a Call) -> Fut<'a, Result<DryRun, Error>> {
        Box::pin(async move {
            let target = self.fleet.lock().reaching(&call.desired)?;
            target.dry_run(call).await
        })
    }

    fn perform<'a>(&'a self, call: &'a Call) -> Fut<'a, Result<Receipt, Error>> {
        let action = call.action.kind().word();
        let call = call.clone();
        Box::pin(async move {
            let (fields, key) = (call.desired.clone(), call.key.clone());
            self.carry(&fields, &key, action, move |target| Box::pin(async move { target.perform(&call).await })).await
        })
    }

    fn reconcile<'a>(&'a self, call: &'a Call) -> Fut<'a, Result<Reconciled, Error>> {
        Box::pin(async move {
            tokio::time::sleep(ON_THE_WAY).await;
            let Ok(target) = self.fleet.lock().reaching(&call.desired) else { return Ok(Reconciled::Unknown) };
            target.reconcile(call).await
        })
    }

    fn compensate<'a>(&'a self, undo: &'a Undo) -> Fut<'a, Result<Receipt, Error>> {
        let undo = undo.clone();
        Box::pin(async move {
            let (fields, key) = (undo.restore.clone(), undo.key.clone());
            self.carry(&fields, &key, "Undo", move |target| Box::pin(async move { target.compensate(&undo).await }))
                .await
        })
    }
}

fn of_supervisor(name: &str) -> bool {
    name.starts_with("generation/") || name.starts_with("replicas/")
}

/// Everything that can be set, as it is before any incident.
fn fields() -> State {
    let mut fields = State::new();
    for shape in SHAPES {
        for replica in 0..shape.replicas {
            fields.insert(call::generation(shape.name, replica), 1);
            fields.insert(call::weight(shape.name, replica), 100);
        }
        fields.insert(call::replicas(shape.name), i64::from(shape.replicas));
        fields.insert(format!("limit/{}", shape.name), -1);
        if let Some(callee) = shape.calls.and_then(|calls| SHAPES.get(calls.callee)) {
            fields.insert(format!("limit/{}->{}", shape.name, callee.name), -1);
            fields.insert(format!("breaker/{}->{}", shape.name, callee.name), 0);
        }
    }
    fields
}

fn us(at: Timestamp) -> u64 {
    at.0.max(0).unsigned_abs() * 1_000
}

/// Whole seconds as a time span.
pub(crate) const fn seconds(count: u64) -> Millis {
    Millis(count * 1_000)
}
