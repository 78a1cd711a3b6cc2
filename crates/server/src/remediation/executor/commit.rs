//! Carrying out a decided plan: verify, arm, and drive the kernel over its journal.

use super::Shared;
use super::arm::{self, Arming};
use super::error::JobError;
use super::holds::HoldWatch;
use super::report::{Lost, Reporter};
use crate::incidents::{read_plan, read_world};
use crate::platform::Reading;
use crate::remediation::wire::{CommitParam, STEPS};
use crate::remediation::{facts, measure, records_base64};
use actuators::{Error as ActuatorError, Selector as Fields};
use base::canon::Canon as _;
use base::{Digest, Envelope, Millis, Timestamp};
use client::{Job, Outcome};
use governance::admission::{Decision, Outcome as Decided};
use governance::record::{Journal, Opaque, Receipt as ReceiptRecord, Record, open};
use protocol::TaskRef;
use recovery::call::{CallOutcome, Fence, Key, Observation, Receipt, Reconciled, State, Versions};
use recovery::check::{Checked, check, recheck_step};
use recovery::journal::{Cause, Record as Line};
use recovery::kernel::{Armed, Command, Config, Event, Kernel, Look, Selector};
use recovery::world::{Authority, World};
use std::sync::Arc;
use tokio::task::JoinSet;

/// How often the driver looks at what it watches and at how bad things are.
const LOOK_EVERY: Millis = Millis(200);
/// How far back a reading of the client's record goes.
pub(super) const RECORD_FOR: Millis = Millis(60_000);

/// A commit at work.
struct Driver {
    shared: Arc<Shared>,
    param: CommitParam,
    task: TaskRef,
    world: World,
    checked: Checked,
    kernel: Kernel,
    reporter: Reporter,
    holds: HoldWatch,
    own: Versions,
    watched: Option<(Key, Selector)>,
    running: JoinSet<Event>,
    step_task: Option<TaskRef>,
}

pub(super) async fn run(shared: &Arc<Shared>, job: &Job, param: &CommitParam) -> Result<Outcome, JobError> {
    let decision = decision(shared, param)?;
    let (checked, world) = checked(shared, param).await?;
    if decision.plan != Some(checked.digest()) || decision.outcome != Decided::Commit {
        return Err(JobError::Authority("the decision is not a commit of this plan"));
    }
    let task = job.lease.task().clone();
    let fence = Fence { epoch: param.epoch, version: task.version };
    let mut reporter = Reporter::new(shared, job, &param.incident, Some((checked.digest(), param.epoch)));
    let standing = reporter.standing().await?;
    let journal = lines(&standing.journal)?;
    let env = &shared.env;
    let mut holds = HoldWatch::new(env, &shared.client, checked.writes());
    let severity = if journal.is_empty() {
        let (writes, valid_until) = (checked.writes(), decision.valid_until);
        let arming = Arming { shared, job, param, plan: checked.digest(), writes, valid_until };
        let Some(severity) = arming.arm(&mut holds, &mut reporter).await? else { return Ok(Outcome::Release) };
        severity
    } else {
        // A successor continues under the arm its predecessor recorded.
        arm::measured(shared, param).await?.1
    };
    let armed = Armed { decision: Digest::of(param.decision.as_bytes()), fence, severity };
    let config = Config {
        backoff: param.backoff_ms.iter().map(|ms| Millis(*ms)).collect(),
        regression_for: Millis(param.regression_for_ms),
        ..Config::default()
    };
    let kernel = if journal.is_empty() {
        Kernel::new(checked.clone(), armed, config, env.now())
    } else {
        Kernel::replay(checked.clone(), armed, config, &journal, env.now())?
    };
    let own = own_versions(&journal);
    let mut driver = Driver {
        shared: Arc::clone(shared),
        param: param.clone(),
        task,
        world,
        checked,
        kernel,
        reporter,
        holds,
        own,
        watched: None,
        running: JoinSet::new(),
        step_task: None,
    };
    driver.drive(job).await
}

/// The decision, verified against the keyring this executor was given, not the server's word.
fn decision(shared: &Shared, param: &CommitParam) -> Result<Decision, JobError> {
    let envelope = Envelope::from_json(&param.decision).map_err(JobError::Envelope)?;
    let signed = open(&envelope, &shared.keyring, param.decision_index).map_err(JobError::Unsigned)?;
    if signed.common().incident.as_deref() != Some(&param.incident) {
        return Err(JobError::Authority("the decision is of another incident"));
    }
    signed.get::<Decision>().cloned().ok_or(JobError::Authority("the record is not a decision"))
}

/// Plan and world by digest, and the kernel's check of them computed again.
async fn checked(shared: &Shared, param: &CommitParam) -> Result<(Checked, World), JobError> {
    let world = blob(shared, &param.world).await?;
    let plan = blob(shared, &param.plan).await?;
    let world = read_world(&world).ok_or(JobError::Material("the world"))?;
    let plan = read_plan(&plan).ok_or(JobError::Material("the plan"))?;
    let checked = check(&plan, &world).map_err(JobError::Refused)?;
    Ok((checked, world))
}

pub(super) async fn blob(shared: &Shared, digest: &str) -> Result<Vec<u8>, JobError> {
    let (status, bytes) = shared.client.get_bytes(&format!("/blobs/{digest}")).await?;
    let same = status == 200 && Digest::of(&bytes).to_string() == digest;
    if same { Ok(bytes) } else { Err(JobError::Blob(digest.to_owned())) }
}

fn lines(journal: &[String]) -> Result<Vec<Line>, JobError> {
    let read = |text: &String| {
        let bytes = records_base64::decode(text)?;
        Line::from_value(base::canon::parse_object("journal", &bytes).ok()?).ok()
    };
    journal.iter().enumerate().map(|(at, text)| read(text).ok_or(JobError::JournalForm(at))).collect()
}

/// Versions to which our own receipts moved fields.
fn own_versions(journal: &[Line]) -> Versions {
    let mut own = Versions::new();
    for line in journal {
        match line {
            Line::Did(receipt) | Line::UndoDid(receipt) | Line::Expired(receipt) => {
                own.extend(receipt.versions.clone())
            }
            Line::Reconciled(settled) => {
                own.extend(settled.receipt.iter().flat_map(|receipt| receipt.versions.clone()))
            }
            _ => {}
        }
    }
    own
}

impl Driver {
    /// Drives the kernel to the plan's end; gives the task away if this executor is to end while a hold stands.
    async fn drive(&mut self, job: &Job) -> Result<Outcome, JobError> {
        let mut next_look = self.now();
        self.holds.ask().await;
        loop {
            self.hear_of_holds();
            while let Some(command) = self.kernel.poll_command() {
                match self.obey(command).await {
                    Ok(true) => return Ok(Outcome::Settled),
                    Ok(false) => {}
                    Err(lost) => return Err(lost.into()),
                }
            }
            let now = self.now();
            let due =
                self.kernel.poll_timeout().unwrap_or(now.plus(LOOK_EVERY)).min(next_look).max(now.plus(Millis(1)));
            let (env, stop) = (self.shared.env.clone(), self.shared.stop.clone());
            // A frozen plan waits for a person, which may take as long as its promise lasts: another executor can too.
            let may_leave = self.running.is_empty() && !self.holds.is_clear();
            tokio::select! {
                biased;
                () = job.lease.lost() => {
                    self.kernel.handle_event(Event::Fenced, self.now());
                    return Ok(Outcome::Settled);
                }
                Some(done) = self.running.join_next() => {
                    // A call that panicked says nothing: its deadline turns it into an unknown outcome.
                    if let Ok(event) = done {
                        let event = self.known(event);
                        let now = self.now();
                        self.kernel.handle_event(event, now);
                    }
                }
                () = stop.cancelled(), if may_leave => return Ok(Outcome::Release),
                () = env.sleep_until(due) => {
                    if self.now() >= next_look {
                        self.look().await;
                        next_look = self.now().plus(LOOK_EVERY);
                    }
                    self.kernel.handle_timeout(self.now());
                }
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.shared.env.now()
    }

    /// Does one thing the kernel wants; true when the plan is over.
    async fn obey(&mut self, command: Command) -> Result<bool, Lost> {
        let actuator = Arc::clone(&self.shared.actuator);
        match command {
            Command::Append(seq, line) => self.append(seq, line).await?,
            Command::Observe(key, selector) => {
                self.watched = None;
                let event = self.observe(&key, &selector).await;
                let now = self.now();
                self.kernel.handle_event(event, now);
            }
            Command::Perform(call) if !self.holds.permits(false).await => self.hand_back(call.key, call.fence),
            Command::Compensate(undo) if !self.holds.permits(true).await => self.hand_back(undo.key, undo.fence),
            Command::Perform(call) => {
                self.running.spawn(async move {
                    match actuator.perform(&call).await {
                        Ok(receipt) => Event::Receipt(call.key, receipt),
                        Err(error) => failed(call.key, &error),
                    }
                });
            }
            Command::Reconcile(call) => {
                self.running.spawn(async move {
                    let answer = actuator.reconcile(&call).await.unwrap_or(Reconciled::Unknown);
                    Event::Reconciled(call.key, answer)
                });
            }
            Command::Compensate(undo) => {
                self.running.spawn(async move {
                    match actuator.compensate(&undo).await {
                        Ok(receipt) => Event::Receipt(undo.key, receipt),
                        Err(error) => failed(undo.key, &error),
                    }
                });
            }
            Command::Watch(key, selector, _until) => self.watched = Some((key, selector)),
            Command::Finish(_) => return Ok(true),
        }
        Ok(false)
    }

    /// Tells the kernel of holds that came or went.
    fn hear_of_holds(&mut self) {
        if let Some(event) = self.holds.news() {
            tracing::info!(?event, "a hold");
            let now = self.now();
            self.kernel.handle_event(event, now);
        }
    }

    /// Gives a call back to the kernel that a hold, or not knowing of one, forbids to begin.
    fn hand_back(&mut self, key: Key, fence: Fence) {
        self.hear_of_holds();
        let nothing = Receipt {
            key: key.clone(),
            fence,
            outcome: CallOutcome::Absent,
            before: State::new(),
            after: State::new(),
            versions: Versions::new(),
            native_id: None,
            took: Millis(0),
        };
        let now = self.now();
        self.kernel.handle_event(Event::Receipt(key, nothing), now);
    }

    /// Remembers versions that our own effects moved.
    fn known(&mut self, event: Event) -> Event {
        match &event {
            Event::Receipt(_, receipt) | Event::Reconciled(_, Reconciled::Applied(receipt)) => {
                self.own.extend(receipt.versions.clone());
            }
            _ => {}
        }
        event
    }

    async fn append(&mut self, seq: u64, line: Line) -> Result<(), Lost> {
        let mut records: Vec<Record> = Vec::new();
        if let Line::Did(receipt) | Line::UndoDid(receipt) = &line {
            records.push(self.receipt_record(receipt).into());
        }
        let step = line.key().map(|key| key.0.split_once('/').map_or(key.0.clone(), |(_, step)| step.to_owned()));
        records.push(
            Journal {
                plan: self.checked.digest(),
                line: seq,
                event: line.word().to_owned(),
                step,
                entry: Opaque(base::canon::object("journal", &line.to_value())),
                task: self.task.id.clone(),
                task_version: self.task.version,
                epoch: self.param.epoch,
            }
            .into(),
        );
        let (sent, is_guarded) = (self.now(), matches!(line, Line::Intend(_)));
        match self.reporter.send(records).await {
            Ok(()) => {
                if is_guarded {
                    self.holds.was_clear(sent);
                }
                if let Line::Intend(intend) = &line {
                    self.take_step(&intend.step).await;
                }
                let now = self.now();
                self.kernel.handle_event(Event::Durable(seq), now);
                Ok(())
            }
            Err(Lost::Held) => {
                self.holds.was_held();
                self.hear_of_holds();
                let now = self.now();
                self.kernel.handle_event(Event::NotAppended(seq), now);
                Ok(())
            }
            Err(lost) => Err(lost),
        }
    }

    /// Takes the step's own task under a lease, so that everyone sees who works on it.
    async fn take_step(&mut self, step: &str) {
        let id = format!("{}.{step}", self.task.id);
        let Ok(Some(task)) = self.shared.client.task(&id).await else { return };
        let offered = TaskRef { id, version: task.version };
        let taken = self.shared.client.acquire(&offered, &self.shared.pid, self.shared.lease).await;
        self.step_task = taken.ok().flatten().map(|(task, ..)| TaskRef { id: task.id, version: task.version });
        tracing::debug!(step, target = STEPS, held = self.step_task.is_some(), "a step's task");
    }

    fn receipt_record(&self, receipt: &Receipt) -> ReceiptRecord {
        let step = receipt.key.0.split_once('/').map_or(receipt.key.0.as_str(), |(_, step)| step);
        ReceiptRecord {
            plan: self.checked.digest(),
            step: step.to_owned(),
            pre_image: Digest::of_object("state", &receipt.before),
            key: receipt.key.0.clone(),
            task_version: receipt.fence.version,
            actuator: "process".to_owned(),
            outcome: CallOutcome::Applied,
            audit_id: receipt.native_id.clone(),
            guard: "coarse".to_owned(),
        }
    }

    /// The checks before a step on fresh facts, then what the kernel wants to read.
    async fn observe(&mut self, key: &Key, selector: &Selector) -> Event {
        let reading = self.read().await;
        let name = key.0.split_once('/').map_or("", |(_, step)| step);
        let name = name.split(['~', '!']).next().unwrap_or(name);
        let Some(step) = self.checked.step(name) else { return Event::Rejected(key.clone(), Cause::Refused) };
        let mut world = facts::refreshed(&self.world, &reading);
        world.own_versions.clone_from(&self.own);
        world.authority = Some(Authority {
            plan: self.checked.digest(),
            granted: true,
            expires_at: world.intent.expires_at,
            current: true,
        });
        if let Err(rejections) = recheck_step(self.checked.digest(), step, &world) {
            for rejection in &rejections {
                tracing::warn!(step = name, code = %rejection.code, subject = rejection.subject, observed = rejection.observed, bound = rejection.bound, "refused before the step");
            }
            let drifted = rejections.iter().any(|rejection| rejection.code.word() == "K407");
            return Event::Rejected(key.clone(), if drifted { Cause::Drift } else { Cause::Refused });
        }
        Event::Observed(key.clone(), self.look_at(selector, &reading).await)
    }

    /// A look at holds, at what is watched, and how bad things are; also keeps the step's lease.
    async fn look(&mut self) {
        self.holds.ask().await;
        let reading = self.read().await;
        let window = Millis(self.param.regression_for_ms);
        if let Some(severity) = measure::severity(&reading, window, Timestamp(self.param.onset_ms)) {
            let now = self.now();
            self.kernel.handle_event(Event::Severity(severity), now);
        }
        if let Some((key, selector)) = self.watched.clone() {
            let look = self.look_at(&selector, &reading).await;
            let now = self.now();
            self.kernel.handle_event(Event::Watched(key, look), now);
        }
        if let Some(task) = &self.step_task {
            // A missed beat costs the step's lease only; the commit's own lease decides who acts.
            let _ = self.shared.client.heartbeat(&self.shared.pid, std::slice::from_ref(task)).await;
        }
    }

    async fn read(&self) -> Reading {
        let now = self.now();
        self.shared.platform.read(now, now.minus(RECORD_FOR)).await
    }

    async fn look_at(&self, selector: &Selector, reading: &Reading) -> Look {
        let fields = Fields { fields: selector.fields.iter().cloned().collect() };
        let observation = self.shared.actuator.observe(&fields).await.unwrap_or(Observation::default());
        Look { observation, facts: measure::facts(&selector.facts, reading) }
    }
}

fn failed(key: Key, error: &ActuatorError) -> Event {
    tracing::warn!(key = key.0, %error, "a call gave no receipt");
    match error {
        ActuatorError::Fenced { .. } => Event::Fenced,
        ActuatorError::Drifted { .. } => Event::Rejected(key, Cause::Drift),
        ActuatorError::Refused { .. } => Event::Rejected(key, Cause::Refused),
        ActuatorError::Unsupported => Event::Rejected(key, Cause::Unsupported),
        ActuatorError::TimedOut | ActuatorError::Unavailable => Event::Unknown(key),
    }
}
