//! One incident from its opening to its end, with at most one kill on the way, and what must be true afterwards.

use crate::crash::{Crash, Victim};
use crate::fleet::seconds;
use crate::machine::{BuildError, Machine};
use base::{Digest, Millis, Timestamp};
use client::Client;
use governance::bundle;
use protocol::PromiseState;
use server::engine::Engine;
use server::incidents::Ending;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often the simulator looks at everything.
const STEP: Duration = Duration::from_millis(20);
/// How often services export their spans.
const EXPORT_EVERY: Millis = Millis(400);
/// How long the fleet runs before something breaks.
const WARM_UP: Millis = seconds(16);
/// LIMIT: how long an incident may take.
const INCIDENT_MAX: Millis = seconds(600);
/// How long after the end of an incident what it set may still stand: the longest life a plan asks for, and a bit.
const EXPIRED_AFTER: Millis = seconds(130);
/// Bad requests after a commit that is called good, in parts per million, over a few seconds.
const BAD_PPM_MAX: u64 = 50_000;

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// An instance hangs; another process in its place is well.
    Cure,
    /// An instance hangs, and so does every process that is put in its place: what was done is undone.
    Relapse,
}

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// Of everything random.
    pub seed: u64,
    /// What breaks.
    pub story: Story,
    /// A directory with keys.
    pub keys: &'a Path,
    /// Whether to tell on standard error what happens.
    pub is_live: bool,
}

impl Story {
    /// Both.
    pub const ALL: [Story; 2] = [Story::Cure, Story::Relapse];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Story::Cure => "cure",
            Story::Relapse => "relapse",
        }
    }

    /// How the incident ends when nobody is killed.
    #[must_use]
    pub fn ends(self) -> &'static str {
        match self {
            Story::Cure => "committed",
            Story::Relapse => "undone",
        }
    }
}

impl std::str::FromStr for Story {
    type Err = String;

    fn from_str(text: &str) -> Result<Story, String> {
        let known = Story::ALL.into_iter().find(|story| story.word() == text);
        known.ok_or_else(|| format!("`{text}` is neither cure nor relapse"))
    }
}

/// What one run showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The kill that was asked for.
    pub crash: Option<Crash>,
    /// Whether its point was reached.
    pub fired: bool,
    /// How the incident ended: `committed`, `undone`, `escalated`, …
    pub outcome: String,
    /// Why, in words.
    pub why: String,
    /// Durable writes from the opening to the end.
    pub writes: u32,
    /// Actuations from the opening to the end.
    pub actuations: u32,
    /// Simulated time it took.
    pub took: Millis,
    /// What was wrong; empty is the only good answer.
    pub faults: Vec<String>,
    /// Digest of everything that happened, in order.
    pub digest: Digest,
    /// The same, readable.
    pub trace: Vec<String>,
}

/// Runs one incident. The same setting and kill give the same account.
///
/// # Errors
/// The machine could not be built.
pub fn run(setting: &Setting<'_>, crash: Option<Crash>) -> Result<Account, BuildError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(async {
        let mut machine = Machine::new(setting.seed, setting.keys)?;
        if setting.is_live {
            machine.hooks.live();
        }
        let account = incident(&mut machine, setting.story, crash).await;
        machine.shut_down().await;
        account
    })
}

async fn incident(machine: &mut Machine, story: Story, crash: Option<Crash>) -> Result<Account, BuildError> {
    let mut drive = Drive { exported_at: machine.now() };
    drive.pass(machine, WARM_UP).await?;
    machine.fleet.hang("payments", 1, story == Story::Relapse);
    machine.hooks.arm(crash, machine.killer());
    let began = machine.now();
    let (id, ending) = drive.until_ended(machine).await?;
    let took = machine.now().since(began);
    let (writes, actuations, fired) = machine.hooks.counts();
    machine.hooks.disarm();
    let mut faults = Vec::new();
    if crash.is_some() && !fired {
        faults.push("the point of the kill was not reached".to_owned());
    }
    if crash.is_none() && ending.outcome != story.ends() {
        // A matrix of another story's points would show nothing.
        faults.push(format!("it ended `{}` with nobody killed: {}", ending.outcome, ending.why));
    }
    drive.judge(machine, &id, &ending, crash, &mut faults).await?;
    machine.hooks.note(format!("{} {}", ending.outcome, ending.why));
    let trace = machine.hooks.trace();
    let digest = Digest::of(trace.join("\n").as_bytes());
    let Ending { outcome, why, .. } = ending;
    Ok(Account { crash, fired, outcome, why, writes, actuations, took, faults, digest, trace })
}

/// Lets time pass for a machine.
struct Drive {
    exported_at: Timestamp,
}

impl Drive {
    async fn step(&mut self, machine: &mut Machine) -> Result<(), BuildError> {
        tokio::time::sleep(STEP).await;
        let now = machine.now();
        machine.fleet.advance(now);
        if now.since(self.exported_at) >= EXPORT_EVERY {
            self.exported_at = now;
            let spans = machine.fleet.take_spans();
            // Spans for a server that does not run are lost.
            if let Some(app) = machine.app() {
                app.telemetry.observe(spans);
            }
        }
        machine.tend().await
    }

    async fn pass(&mut self, machine: &mut Machine, time: Millis) -> Result<(), BuildError> {
        let until = machine.now().plus(time);
        while machine.now() < until {
            self.step(machine).await?;
        }
        Ok(())
    }

    /// Asks for a recovery, again if the asking was cut off, and waits for its durable end.
    async fn until_ended(&mut self, machine: &mut Machine) -> Result<(String, Ending), BuildError> {
        let deadline = machine.now().plus(INCIDENT_MAX);
        let mut asking = Asking::new(machine);
        while machine.now() < deadline {
            self.step(machine).await?;
            let known = machine.app().and_then(|app| {
                let promises = app.engine.children("inc/");
                promises.into_iter().find(|promise| !promise.id.contains(':'))
            });
            let Some(promise) = known else {
                asking.again_if_cut_off(machine);
                continue;
            };
            if let Some(ending) = promise.value.data.as_deref().and_then(|data| serde_json::from_str(data).ok()) {
                return Ok((promise.id.trim_start_matches("inc/").to_owned(), ending));
            }
        }
        let why = format!("no end after {INCIDENT_MAX}");
        Ok((String::new(), Ending { outcome: "stuck".into(), exit: 1, why }))
    }

    /// What must be true after an incident, whoever was killed.
    async fn judge(
        &mut self,
        machine: &mut Machine,
        id: &str,
        ending: &Ending,
        crash: Option<Crash>,
        faults: &mut Vec<String>,
    ) -> Result<(), BuildError> {
        let victim = crash.map(|crash| crash.victim);
        let has_proxy = !matches!(victim, Some(Victim::Proxy | Victim::Supervisor));
        // What breaks after it was seen to work is another incident.
        let broke_later = !has_proxy && proof_had_begun(&machine.hooks.trace());
        // Whoever was killed last is started again, and services settle.
        self.pass(machine, seconds(4)).await?;
        faults.extend(machine.fleet.repeated());
        match ending.outcome.as_str() {
            "committed" => {
                faults.extend(machine.fleet.hung().iter().map(|name| format!("committed, but {name} hangs")));
                let open = machine.fleet.open_settings();
                faults.extend(open.iter().map(|name| format!("committed, but {name} is still set")));
                let now = machine.now();
                let bad = machine.fleet.bad_ppm(now.minus(seconds(4)), now.minus(seconds(1)));
                if !broke_later && bad.is_none_or(|bad| bad > BAD_PPM_MAX) {
                    faults.push(format!("committed, but {bad:?} ppm of requests are bad"));
                }
            }
            "undone" | "escalated" => {
                if has_proxy && !machine.fleet.open_settings().is_empty() {
                    self.pass(machine, EXPIRED_AFTER).await?;
                    let open = machine.fleet.open_settings();
                    faults.extend(open.iter().map(|name| format!("{name} outlived its ttl")));
                }
            }
            other => faults.push(format!("the incident ended `{other}`: {}", ending.why)),
        }
        self.inspect(machine, id, ending, faults).await;
        Ok(())
    }

    /// What `doctor` finds, and what a verifier of the bundle says.
    async fn inspect(&mut self, machine: &Machine, id: &str, ending: &Ending, faults: &mut Vec<String>) {
        let Some(app) = machine.app() else {
            faults.push("no server runs".to_owned());
            return;
        };
        faults.extend(app.engine.violations());
        faults.extend(contradictions(&app.engine, id, ending));
        match server::altered_records(&app.engine) {
            Ok(altered) => faults.extend(altered),
            Err(error) => faults.push(format!("the evidence cannot be read: {error}")),
        }
        let open = app.engine.children("inc/").into_iter().filter(|promise| !promise.is_settled());
        let open = open.filter(|promise| !promise.id.contains(':'));
        faults.extend(open.map(|promise| format!("{} never ended", promise.id)));
        let client = Client::through(Arc::new(machine.address.clone()));
        match client.get_bytes(&format!("/incidents/{id}/bundle")).await {
            Ok((200, bytes)) => {
                if let Err(error) = bundle::verify(&bytes, None) {
                    faults.push(format!("the bundle does not verify: {error}"));
                }
            }
            Ok((status, _)) => faults.push(format!("no bundle: {status}")),
            Err(error) => faults.push(format!("no bundle: {error}")),
        }
    }
}

/// An end that is not what the commit and its proof ended with.
fn contradictions(engine: &Engine, id: &str, ending: &Ending) -> Vec<String> {
    let stages = engine.children(&format!("inc/{id}:"));
    let commits: Vec<_> =
        stages.iter().filter(|stage| stage.id.contains(":commit.") && !stage.id.contains(".s")).collect();
    let going_on = commits.iter().filter(|commit| !commit.is_settled());
    let mut found: Vec<String> =
        going_on.map(|commit| format!("the incident ended `{}` while {} went on", ending.outcome, commit.id)).collect();
    let ended = |how: &str| {
        commits.iter().any(|commit| commit.value.data.as_deref().is_some_and(|value| value.starts_with(how)))
    };
    let converged = stages.iter().any(|stage| stage.id.ends_with(":converge") && stage.state == PromiseState::Resolved);
    let (committed, undone) = (ended("committed"), ended("undone"));
    let truth = match (committed && converged, undone) {
        (true, _) => "committed",
        (false, true) => "undone",
        (false, false) => "escalated",
    };
    if ending.outcome != truth {
        found.push(format!("the incident ended `{}`, its commit says `{truth}`: {}", ending.outcome, ending.why));
    }
    found
}

/// Whether the proof of convergence had begun when somebody was killed.
fn proof_had_begun(trace: &[String]) -> bool {
    let killed = trace.iter().position(|line| line.starts_with("kill "));
    let proof = trace.iter().position(|line| line.contains(":converge=Pending"));
    killed.zip(proof).is_some_and(|(killed, proof)| proof < killed)
}

/// The request of a person who asks for a recovery.
struct Asking {
    task: tokio::task::JoinHandle<bool>,
}

impl Asking {
    fn new(machine: &Machine) -> Asking {
        Asking { task: tokio::spawn(ask(Client::through(Arc::new(machine.address.clone())))) }
    }

    /// A person whose command failed looks whether there is an incident, and asks again if there is none.
    fn again_if_cut_off(&mut self, machine: &Machine) {
        if self.task.is_finished() && machine.app().is_some() {
            *self = Asking::new(machine);
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn ask(client: Client) -> bool {
    let body = br#"{"target":"checkout","lying_observer":"probe"}"#.to_vec();
    client.post_bytes("/incidents", body).await.is_ok_and(|(status, _)| status == 201)
}
