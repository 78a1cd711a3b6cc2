//! The process actuator: the services of a supervisor and the traffic of its proxy, with a ledger, a fence
//! and a lock per service in the data directory.
//!
//! A call is performed in this order: take the locks, look at fence, key, deadline and versions, write
//! `begun`, act, write `applied`, let go, and only then wait for what takes time: readiness, requests in
//! flight, a ramp. Whoever dies on the way leaves enough for a successor to say what became of the call.

mod admit;
pub mod config;
mod effect;
pub(crate) mod files;
pub(crate) mod fit;
pub mod ledger;
mod observe;
mod settle;

use crate::actuator::{Actuator, Capabilities, Capability, DryRun, Error, Fut, Reason, Selector, TargetKind, Ttl};
use crate::clock;
use crate::control::{Proxy, Supervisor};
use crate::field::Field;
use admit::Admission;
use base::{Millis, Timestamp};
use effect::Resolved;
use ledger::{Books, Entry, Known, Outcome};
use recovery::call::{Call, CallOutcome, Fence, Key, Observation, Receipt, Reconciled, State, Undo, Versions};
use recovery::isa::{Action, ActionKind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How long a reconciliation waits for a call that is still being performed.
const RECONCILE_WAIT: Millis = Millis(5_000);
/// The action's name in ledger lines of compensations.
const UNDO: &str = "Undo";
/// What a compensation's key ends with.
const UNDO_SUFFIX: &str = "!undo";

/// Performs the seven actions on processes of this host.
#[derive(Debug)]
pub struct ProcessActuator {
    dir: PathBuf,
    supervisor: Supervisor,
    proxy: Proxy,
    capabilities: Capabilities,
}

/// What is to be done, of a call or of a compensation.
struct Task<'a> {
    key: &'a Key,
    fence: Fence,
    desired: &'a State,
    fields: BTreeMap<String, Field>,
    bound: Option<&'a Versions>,
    deadline: Timestamp,
    expires_at: Option<Timestamp>,
    /// `None`: a compensation.
    action: Option<&'a Action>,
}

impl ProcessActuator {
    /// An actuator over the data directory of a supervisor, running or not.
    ///
    /// # Errors
    /// A data directory that cannot be used.
    pub fn open(dir: &Path) -> std::io::Result<ProcessActuator> {
        std::fs::create_dir_all(dir.join("ledger"))?;
        Ok(ProcessActuator {
            dir: dir.to_owned(),
            supervisor: Supervisor::new(dir),
            proxy: Proxy::new(dir),
            capabilities: capabilities(),
        })
    }

    async fn run(&self, task: &Task<'_>) -> Result<Receipt, Error> {
        let began = clock::now();
        let mut books = Books::lock(&self.dir, &task.owners(), task.deadline).await?;
        let (before, resumed) = match self.admit(task, &books).await {
            Ok(Admission::Known(entry)) => {
                drop(books);
                self.settle(task).await?;
                return Ok(receipt(&entry));
            }
            Ok(Admission::Fresh(observed)) => (observed, None),
            Ok(Admission::Resumed(entry, observed)) => (observed, Some(entry)),
            Err(error) => {
                books.note(&task.refusal(&error))?;
                return Err(error);
            }
        };
        books.raise(task.fence)?;
        let is_resumed = resumed.is_some();
        let before = match resumed {
            Some(begun) => Observation { state: begun.before, versions: begun.versions, at: before.at },
            None => before,
        };
        // Each attempt has a line of its own, by which the target tells it from one that was given up.
        books.note(&task.entry(Outcome::Begun, &before.state, task.desired, &before.versions))?;
        let attempt = books.attempts(&task.key.0);
        if let Err(failure) = self.act(task, &before, is_resumed, attempt).await {
            if failure.untouched {
                books.note(&task.entry(Outcome::Absent, &before.state, task.desired, &before.versions))?;
            }
            return Err(failure.error);
        }
        let entry = self.conclude(task, &before.state, began, &mut books).await?;
        drop(books);
        self.settle(task).await?;
        Ok(receipt(&entry))
    }

    /// Writes what is now as the call's effect.
    async fn conclude(
        &self,
        task: &Task<'_>,
        before: &State,
        began: Timestamp,
        books: &mut Books,
    ) -> Result<Entry, Error> {
        let (after, versions) = self.reached(task).await?;
        let mut entry = task.entry(Outcome::Applied, before, &after, &versions);
        entry.native_id = self.native_id(task).await;
        entry.took_ms = clock::now().since(began).0;
        books.note(&entry)?;
        Ok(entry)
    }

    async fn resolve_call(&self, call: &Call) -> Result<Reconciled, Error> {
        let task = Task::of_call(call)?;
        let began = clock::now();
        let until = began.plus(RECONCILE_WAIT);
        let mut books = match Books::lock(&self.dir, &task.owners(), until).await {
            Err(Error::TimedOut | Error::Unavailable) => return Ok(Reconciled::Unknown),
            books => books?,
        };
        if task.fence < books.fence() {
            return Err(Error::Fenced { seen: books.fence() });
        }
        books.raise(task.fence)?;
        let begun = match books.known(&task.key.0) {
            Known::Applied(entry) => return Ok(Reconciled::Applied(receipt(&entry))),
            // Nothing is done before `begun` is on disk, and from now on older fences are refused.
            Known::No => return Ok(Reconciled::Absent),
            Known::Begun(entry) => entry,
        };
        let attempt = books.attempts(&task.key.0);
        match self.look(&task, &begun, attempt).await {
            Resolved::Applied => match self.conclude(&task, &begun.before, began, &mut books).await {
                Ok(entry) => Ok(Reconciled::Applied(receipt(&entry))),
                Err(_) => Ok(Reconciled::Unknown),
            },
            Resolved::Absent => {
                books.note(&task.entry(Outcome::Absent, &begun.before, task.desired, &begun.versions))?;
                Ok(Reconciled::Absent)
            }
            Resolved::Unknown => Ok(Reconciled::Unknown),
        }
    }

    async fn rehearse(&self, call: &Call) -> DryRun {
        let task = match Task::of_call(call) {
            Ok(task) => task,
            Err(error) => return DryRun::Refused(error),
        };
        let Ok(books) = Books::read_only(&self.dir, &task.owners()) else { return DryRun::NotEvaluable };
        match self.admit(&task, &books).await {
            Ok(_) => DryRun::Accepted,
            Err(Error::TimedOut | Error::Unavailable) => DryRun::NotEvaluable,
            Err(error) => DryRun::Refused(error),
        }
    }

    async fn compensation(&self, undo: &Undo) -> Result<Receipt, Error> {
        let mut task = Task::of_undo(undo)?;
        if let Some(step) = undo.key.0.strip_suffix(UNDO_SUFFIX) {
            let books = Books::read_only(&self.dir, &task.owners())?;
            // Closing what a RestoreTraffic had opened must not outlive us any more than the step before it
            // would have: it ends by itself at the compensation's deadline.
            if let Known::Begun(entry) | Known::Applied(entry) = books.known(step)
                && entry.action == ActionKind::RestoreTraffic.word()
            {
                task.expires_at = Some(undo.deadline);
            }
        }
        self.run(&task).await
    }
}

impl Actuator for ProcessActuator {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn observe<'a>(&'a self, what: &'a Selector) -> Fut<'a, Result<Observation, Error>> {
        Box::pin(self.read(what.fields.iter()))
    }

    fn dry_run<'a>(&'a self, call: &'a Call) -> Fut<'a, Result<DryRun, Error>> {
        Box::pin(async move { Ok(self.rehearse(call).await) })
    }

    fn perform<'a>(&'a self, call: &'a Call) -> Fut<'a, Result<Receipt, Error>> {
        Box::pin(async move { self.run(&Task::of_call(call)?).await })
    }

    fn reconcile<'a>(&'a self, call: &'a Call) -> Fut<'a, Result<Reconciled, Error>> {
        Box::pin(self.resolve_call(call))
    }

    fn compensate<'a>(&'a self, undo: &'a Undo) -> Fut<'a, Result<Receipt, Error>> {
        Box::pin(self.compensation(undo))
    }
}

impl<'a> Task<'a> {
    fn of_call(call: &'a Call) -> Result<Task<'a>, Error> {
        if capabilities().of(&call.action).is_none() {
            return Err(Error::Unsupported);
        }
        let fields = parse_fields(&call.desired)?;
        fit::check(call, &fields)?;
        Ok(Task {
            key: &call.key,
            fence: call.fence,
            desired: &call.desired,
            fields,
            bound: Some(&call.bound),
            deadline: call.deadline,
            expires_at: call.expires_at,
            action: Some(&call.action),
        })
    }

    fn of_undo(undo: &'a Undo) -> Result<Task<'a>, Error> {
        let fields = parse_fields(&undo.restore)?;
        if fields.values().any(|field| matches!(field, Field::Generation(..))) {
            // A restart has no inverse.
            return Err(Error::Unsupported);
        }
        if fields.len() > 1 && !fields.values().all(Field::is_traffic) {
            return Err(Error::Refused { reason: Reason::Mismatch("no call sets these together".to_owned()) });
        }
        Ok(Task {
            key: &undo.key,
            fence: undo.fence,
            desired: &undo.restore,
            fields,
            bound: None,
            deadline: undo.deadline,
            expires_at: None,
            action: None,
        })
    }

    /// The ledgers it belongs to. A name of a service never begins with `_`.
    fn owners(&self) -> BTreeSet<String> {
        let owners = self.fields.values().map(|field| field.owner().unwrap_or(ledger::CONFIG_OWNER).to_owned());
        let owners: BTreeSet<String> = owners.collect();
        if owners.is_empty() { BTreeSet::from(["_none".to_owned()]) } else { owners }
    }

    fn entry(&self, outcome: Outcome, before: &State, after: &State, versions: &Versions) -> Entry {
        Entry {
            seq: 0,
            at_ms: 0,
            key: self.key.0.clone(),
            fence: self.fence,
            action: self.action.map_or(UNDO, |action| action.kind().word()).to_owned(),
            outcome,
            before: before.clone(),
            after: after.clone(),
            wanted: self.desired.clone(),
            versions: versions.clone(),
            native_id: None,
            took_ms: 0,
        }
    }

    fn refusal(&self, error: &Error) -> Entry {
        let outcome = match error {
            Error::Fenced { .. } => Outcome::Fenced,
            Error::Drifted { .. } => Outcome::Drifted,
            Error::Refused { .. } | Error::Unsupported | Error::TimedOut | Error::Unavailable => Outcome::Refused,
        };
        self.entry(outcome, &State::new(), self.desired, &Versions::new())
    }
}

pub(crate) fn parse_fields(desired: &State) -> Result<BTreeMap<String, Field>, Error> {
    let parse = |name: &String| {
        let unknown = || Error::Refused { reason: Reason::UnknownTarget(name.clone()) };
        Field::parse(name).map(|field| (name.clone(), field)).ok_or_else(unknown)
    };
    desired.keys().map(parse).collect()
}

fn receipt(entry: &Entry) -> Receipt {
    Receipt {
        key: Key(entry.key.clone()),
        fence: entry.fence,
        outcome: CallOutcome::Applied,
        before: entry.before.clone(),
        after: entry.after.clone(),
        versions: entry.versions.clone(),
        native_id: entry.native_id.clone(),
        took: Millis(entry.took_ms),
    }
}

/// A shard is nothing a process knows of, and a role nothing it can hand over.
pub(crate) fn capabilities() -> Capabilities {
    use TargetKind::{Edge, Instances, Object, OpenSteps, Service, Zone};
    let of = |ttl| Capability { keyed: true, fenced: true, ttl, dry_run: true, snapshot: true };
    let restart = Capability { snapshot: false, ..of(Ttl::None) };
    let mut all = BTreeMap::new();
    for place in [Service, Instances, Zone] {
        all.insert((ActionKind::Restart, place), restart);
        all.insert((ActionKind::Drain, place), of(Ttl::Native));
        all.insert((ActionKind::RestoreTraffic, place), of(Ttl::None));
    }
    all.insert((ActionKind::RestoreTraffic, OpenSteps), of(Ttl::None));
    all.insert((ActionKind::CircuitBreak, Edge), of(Ttl::Native));
    all.insert((ActionKind::RateLimit, Edge), of(Ttl::Native));
    all.insert((ActionKind::RateLimit, Service), of(Ttl::Native));
    all.insert((ActionKind::Scale, Service), of(Ttl::Native));
    all.insert((ActionKind::RollbackConfig, Object), of(Ttl::None));
    Capabilities(all)
}
