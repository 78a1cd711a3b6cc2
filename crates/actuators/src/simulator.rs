//! An actuator over a target in memory, with virtual time and faults to order: lost, late and doubled calls,
//! lost replies, and an actuator that dies before or after the effect. It keeps the same contract.

use crate::actuator::{Actuator, Capabilities, DryRun, Error, Fut, Reason, Selector, Ttl};
use crate::process::{capabilities, fit, parse_fields};
use base::{Millis, Timestamp};
use recovery::call::{Call, CallOutcome, Fence, Key, Observation, Receipt, Reconciled, State, Undo, Versions};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What goes wrong with the next call or compensation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It never arrives.
    LoseCall,
    /// It arrives, its reply does not.
    LoseReply,
    /// It arrives when [`Simulator::deliver`] is called.
    DelayCall,
    /// It arrives twice.
    Duplicate,
    /// The actuator dies before the effect.
    DieBefore,
    /// The actuator dies after the effect.
    DieAfter,
}

/// A handle on the target. A clone is the same actuator, [`Simulator::reopen`] a new one on the same target.
#[derive(Clone, Debug)]
pub struct Simulator {
    target: Arc<Mutex<Target>>,
    dead: Arc<AtomicBool>,
    capabilities: Arc<Capabilities>,
}

#[derive(Debug, Default)]
struct Target {
    now: Timestamp,
    state: State,
    versions: Versions,
    fence: Fence,
    /// Raised by every reconciliation; what was sent before is refused when it arrives.
    turn: u64,
    applied: BTreeMap<Key, (State, Receipt)>,
    expiries: BTreeMap<String, (Timestamp, i64)>,
    history: Vec<Key>,
    faults: VecDeque<Fault>,
    in_transit: Vec<(u64, Request)>,
}

/// A call or a compensation, on its way.
#[derive(Clone, Debug)]
struct Request {
    key: Key,
    fence: Fence,
    set: State,
    bound: Versions,
    deadline: Timestamp,
    expires_at: Option<Timestamp>,
}

impl Simulator {
    /// A target with these fields, at this time.
    #[must_use]
    pub fn new(state: State, now: Timestamp) -> Simulator {
        let versions = state.keys().map(|name| (name.clone(), 1)).collect();
        let target = Target { now, state, versions, ..Target::default() };
        Simulator { target: Arc::new(Mutex::new(target)), dead: Arc::default(), capabilities: Arc::new(capabilities()) }
    }

    /// A living actuator on the same target.
    #[must_use]
    pub fn reopen(&self) -> Simulator {
        Simulator { dead: Arc::default(), ..self.clone() }
    }

    /// An actuator that reaches nobody.
    #[must_use]
    pub fn unreachable(&self) -> Simulator {
        Simulator { dead: Arc::new(AtomicBool::new(true)), ..self.clone() }
    }

    /// The target's process dies and comes back: what was on its way to it is lost, all else it had kept.
    pub fn restart(&self) {
        let mut target = self.target();
        target.in_transit.clear();
        target.expire();
    }

    /// A call as it reaches the target, past every actuator.
    ///
    /// # Errors
    /// As the target answers.
    pub fn deliver_to_target(&self, call: &Call) -> Result<Receipt, Error> {
        let request = self.request(call)?;
        self.target().take(&request)
    }

    /// Orders a fault for the next call that has none yet.
    pub fn inject(&self, fault: Fault) {
        self.target().faults.push_back(fault);
    }

    /// Lets the delayed calls arrive.
    pub fn deliver(&self) {
        let mut target = self.target();
        for (turn, request) in std::mem::take(&mut target.in_transit) {
            if turn == target.turn {
                // Nobody waits for this answer any more.
                let _ = target.take(&request);
            }
        }
    }

    /// Lets time pass; what expires is restored.
    pub fn pass(&self, by: Millis) {
        let mut target = self.target();
        target.now = target.now.plus(by);
        target.expire();
    }

    /// The target's time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.target().now
    }

    /// Sets a field as somebody else would.
    pub fn meddle(&self, field: &str, value: i64) {
        self.target().put(field, value);
    }

    /// How often a key took effect.
    #[must_use]
    pub fn effects(&self, key: &Key) -> usize {
        self.target().history.iter().filter(|done| *done == key).count()
    }

    fn target(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> Result<(), Error> {
        if self.dead.load(Ordering::SeqCst) { Err(Error::Unavailable) } else { Ok(()) }
    }

    async fn send(&self, request: Request) -> Result<Receipt, Error> {
        self.alive()?;
        yield_once().await;
        let fault = self.target().faults.pop_front();
        let answer = match fault {
            None => self.target().take(&request),
            Some(Fault::Duplicate) => {
                let mut target = self.target();
                target.take(&request).and_then(|_| target.take(&request))
            }
            Some(Fault::LoseCall) => Err(Error::TimedOut),
            Some(Fault::LoseReply) => self.target().take(&request).and(Err(Error::TimedOut)),
            Some(Fault::DelayCall) => {
                let mut target = self.target();
                let turn = target.turn;
                target.in_transit.push((turn, request));
                Err(Error::TimedOut)
            }
            Some(fault @ (Fault::DieBefore | Fault::DieAfter)) => {
                self.dead.store(true, Ordering::SeqCst);
                if fault == Fault::DieAfter {
                    // The effect outlives its actuator.
                    let _ = self.target().take(&request);
                }
                Err(Error::Unavailable)
            }
        };
        yield_once().await;
        answer
    }
}

impl Actuator for Simulator {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn observe<'a>(&'a self, what: &'a Selector) -> Fut<'a, Result<Observation, Error>> {
        Box::pin(async move {
            self.alive()?;
            self.target().read(what.fields.iter())
        })
    }

    fn dry_run<'a>(&'a self, call: &'a Call) -> Fut<'a, Result<DryRun, Error>> {
        Box::pin(async move {
            self.alive()?;
            let judged = self.request(call).and_then(|request| self.target().admit(&request).map(|_| ()));
            Ok(judged.map_or_else(DryRun::Refused, |()| DryRun::Accepted))
        })
    }

    fn perform<'a>(&'a self, call: &'a Call) -> Fut<'a, Result<Receipt, Error>> {
        Box::pin(async move { self.send(self.request(call)?).await })
    }

    fn reconcile<'a>(&'a self, call: &'a Call) -> Fut<'a, Result<Reconciled, Error>> {
        Box::pin(async move {
            self.alive()?;
            yield_once().await;
            let mut target = self.target();
            if call.fence < target.fence {
                return Err(Error::Fenced { seen: target.fence });
            }
            target.fence = call.fence;
            target.turn += 1;
            Ok(match target.applied.get(&call.key) {
                Some((_, receipt)) => Reconciled::Applied(receipt.clone()),
                None => Reconciled::Absent,
            })
        })
    }

    fn compensate<'a>(&'a self, undo: &'a Undo) -> Fut<'a, Result<Receipt, Error>> {
        Box::pin(async move {
            if undo.restore.keys().any(|name| name.starts_with("generation/")) {
                return Err(Error::Unsupported);
            }
            let request = Request {
                key: undo.key.clone(),
                fence: undo.fence,
                set: undo.restore.clone(),
                bound: Versions::new(),
                deadline: undo.deadline,
                expires_at: None,
            };
            self.send(request).await
        })
    }
}

impl Simulator {
    fn request(&self, call: &Call) -> Result<Request, Error> {
        let capability = self.capabilities.of(&call.action).ok_or(Error::Unsupported)?;
        let fields = parse_fields(&call.desired)?;
        fit::check(call, &fields)?;
        Ok(Request {
            key: call.key.clone(),
            fence: call.fence,
            set: call.desired.clone(),
            bound: call.bound.clone(),
            deadline: call.deadline,
            expires_at: call.expires_at.filter(|_| capability.ttl != Ttl::None),
        })
    }
}

impl Target {
    fn take(&mut self, request: &Request) -> Result<Receipt, Error> {
        if let Some(known) = self.admit(request)? {
            return Ok(known);
        }
        self.fence = request.fence;
        let before = self.read(request.set.keys())?.state;
        for (name, value) in &request.set {
            let now = before.get(name).copied().unwrap_or(0);
            let restore = self.expiries.remove(name).map_or(now, |(_, restore)| restore);
            if let Some(at) = request.expires_at {
                self.expiries.insert(name.clone(), (at, restore));
            }
            self.put(name, *value);
        }
        self.history.push(request.key.clone());
        let after = self.read(request.set.keys())?;
        let receipt = Receipt {
            key: request.key.clone(),
            fence: request.fence,
            outcome: CallOutcome::Applied,
            before,
            after: after.state,
            versions: after.versions,
            native_id: None,
            took: Millis(0),
        };
        self.applied.insert(request.key.clone(), (request.set.clone(), receipt.clone()));
        Ok(receipt)
    }

    /// The receipt of a key that took effect before.
    fn admit(&self, request: &Request) -> Result<Option<Receipt>, Error> {
        if request.fence < self.fence {
            return Err(Error::Fenced { seen: self.fence });
        }
        match self.applied.get(&request.key) {
            Some((set, _)) if *set != request.set => return Err(Error::Refused { reason: Reason::KeyReused }),
            Some((_, receipt)) => return Ok(Some(receipt.clone())),
            None => {}
        }
        if self.now > request.deadline {
            return Err(Error::Refused { reason: Reason::Deadline });
        }
        let observed = self.read(request.set.keys())?;
        let drifted = |(name, bound): (&String, &u64)| observed.versions.get(name).is_some_and(|now| now != bound);
        if request.bound.iter().any(drifted) {
            return Err(Error::Drifted { versions: observed.versions });
        }
        Ok(None)
    }

    fn read<'a>(&self, names: impl Iterator<Item = &'a String>) -> Result<Observation, Error> {
        let mut seen = Observation { at: self.now, ..Observation::default() };
        for name in names {
            let unknown = || Error::Refused { reason: Reason::UnknownTarget(name.clone()) };
            seen.state.insert(name.clone(), *self.state.get(name).ok_or_else(unknown)?);
            seen.versions.insert(name.clone(), self.versions.get(name).copied().unwrap_or(0));
        }
        Ok(seen)
    }

    fn put(&mut self, name: &str, value: i64) {
        if self.state.insert(name.to_owned(), value) != Some(value) {
            *self.versions.entry(name.to_owned()).or_insert(0) += 1;
        }
    }

    fn expire(&mut self) {
        let due: Vec<(String, i64)> = self
            .expiries
            .iter()
            .filter(|(_, (at, _))| *at <= self.now)
            .map(|(name, (_, restore))| (name.clone(), *restore))
            .collect();
        for (name, restore) in due {
            self.expiries.remove(&name);
            self.put(&name, restore);
        }
    }
}

/// A point at which the caller may be killed.
async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(move |context| {
        if std::mem::replace(&mut yielded, true) {
            std::task::Poll::Ready(())
        } else {
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        }
    })
    .await;
}

#[cfg(test)]
mod tests;
