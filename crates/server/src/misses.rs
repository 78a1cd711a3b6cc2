//! Missed dependencies: after every restart that a recovery performs, what fails although no answer had named it.
//!
//! Each is a settled promise `inc/<incident>:missed.<n>`, so it is as durable as its incident and survives the server.
//! From then on the graph restarts the one not without the other, and is no more than cautious about both, until a person
//! declares them coupled or dismisses it. The rule is `recovery::falsify`; this is its shell.

mod case;
mod routes;
#[cfg(test)]
mod tests;

pub use routes::{Line, List, Word, routes};

use crate::app::App;
use crate::engine::{Engine, SubmitError};
use crate::incidents::{ids, stage_id};
use crate::platform::Platform;
use actuators::process::ledger::{Entry, Outcome};
use base::{Millis, Timestamp};
use protocol::{Create, Request, Resolution, Settle, Value};
use recovery::falsify::{Miss, Watch};
use recovery::graph::OperationalFact;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// LIMIT: missed dependencies that stand; further ones are told and counted by nobody until a person looks at these.
pub const MISSES_MAX: usize = 1_024;
/// How often a recovery under watch is looked at.
const LOOK_EVERY: Millis = Millis(1_000);
/// How long after a commit's end its ledgers may still say what it restarted.
const SETTLED_FOR: Millis = Millis(5_000);

/// One missed dependency, as it was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// What failed.
    pub caller: String,
    /// What was restarted without it.
    pub callee: String,
    /// In which incident.
    pub incident: String,
    /// When it was noticed, milliseconds since 1970.
    pub at_ms: i64,
    /// The first second of the trouble.
    pub since_ms: i64,
    /// `errors` or `latency`.
    pub sign: String,
    /// Requests of the trouble, when it was noticed.
    pub requests: u64,
    /// Of these, failed.
    pub errors: u64,
    /// Their largest 99th percentile, microseconds.
    pub p99_us: u32,
    /// Requests of the baseline.
    pub usual_requests: u64,
    /// Of these, failed.
    pub usual_errors: u64,
    /// Their usual 99th percentile, microseconds.
    pub usual_p99_us: u32,
}

/// What a person said of a missed dependency, as it was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    caller: String,
    callee: String,
    by: String,
    reason: String,
    at_ms: i64,
}

/// What a person may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is so: nothing is suspected any more, and the two stay coupled.
    Accepted,
    /// It is not: it is taken back.
    Dismissed,
}

/// Those known to this process: read from the store at its start, and what came since.
#[derive(Clone, Debug, Default)]
pub struct Misses(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Those that stand, by caller and callee.
    standing: BTreeMap<(String, String), Missed>,
    /// Of these, accepted by a person.
    accepted: BTreeSet<(String, String)>,
    /// How many were ever recorded.
    recorded: u64,
}

/// A commit whose restarts are watched.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    /// Its incident.
    pub incident: String,
    /// Its plan in text form.
    pub plan: String,
    /// The recovery class.
    pub class: String,
    /// Its promise.
    pub commit: String,
    /// What it may change.
    pub writes: Vec<String>,
    /// When it was offered.
    pub since: Timestamp,
}

/// Why a person's word was not taken.
#[derive(Debug, thiserror::Error)]
pub enum WordError {
    /// None between these two.
    #[error("no missed dependency of `{caller}` on `{callee}`; `stanch misses` lists them")]
    Unknown {
        /// What failed.
        caller: String,
        /// What was restarted.
        callee: String,
    },
    /// A name or a reason that is none.
    #[error("{0}")]
    Refused(String),
    /// The store did not take it.
    #[error("it could not be stored: {0}")]
    Store(#[from] SubmitError),
}

impl Missed {
    /// What happened, in one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Missed { caller, callee, requests, errors, usual_requests, usual_errors, .. } = self;
        let share = |part: &u64, all: &u64| {
            let permille = part.saturating_mul(1_000).checked_div(*all).unwrap_or(0);
            format!("{}.{}%", permille / 10, permille % 10)
        };
        let (usual, now) = (share(usual_errors, usual_requests), share(errors, requests));
        let seen = if self.sign == "latency" {
            format!("p99 {} ms, usually {} ms", self.p99_us / 1_000, self.usual_p99_us / 1_000)
        } else {
            format!("{now} of {requests} requests failed, usually {usual}")
        };
        format!("{caller} is in trouble since {callee} was restarted ({seen}), and no answer had named it")
    }

    fn of(miss: &Miss, incident: &str, now: Timestamp) -> Missed {
        Missed {
            caller: miss.caller.clone(),
            callee: miss.callee.clone(),
            incident: incident.to_owned(),
            at_ms: now.0,
            since_ms: miss.since.0,
            sign: miss.sign.word().to_owned(),
            requests: miss.requests,
            errors: miss.errors,
            p99_us: miss.p99_us,
            usual_requests: miss.usual_requests,
            usual_errors: miss.usual_errors,
            usual_p99_us: miss.usual_p99_us,
        }
    }

    fn key(&self) -> (String, String) {
        (self.caller.clone(), self.callee.clone())
    }

    fn fact(&self) -> OperationalFact {
        OperationalFact::MissedDependency { caller: self.caller.clone(), callee: self.callee.clone() }
    }

    /// What the graph is told of a person's verdict on it.
    fn judged(&self, verdict: Verdict) -> OperationalFact {
        let (service, with) = (self.callee.clone(), self.caller.clone());
        match verdict {
            Verdict::Accepted => OperationalFact::CoRestart { service, with, confirmed: true },
            Verdict::Dismissed => OperationalFact::Dismissed { service, with },
        }
    }
}

impl Misses {
    /// Those that are stored.
    #[must_use]
    pub(crate) fn load(engine: &Engine) -> Misses {
        let mut known = Known::default();
        let mut missed: Vec<Missed> = Vec::new();
        let mut said: Vec<(Verdict, Said)> = Vec::new();
        for promise in engine.children("inc/") {
            let Some((_, stage)) = promise.id.split_once(':') else { continue };
            let data = promise.value.data.as_deref().unwrap_or_default();
            let verdicts = [Verdict::Accepted, Verdict::Dismissed];
            if stage.starts_with("missed.") {
                missed.extend(serde_json::from_str::<Missed>(data).ok());
            } else if let Some(verdict) = verdicts.into_iter().find(|verdict| stage.starts_with(verdict.stage())) {
                said.extend(serde_json::from_str::<Said>(data).ok().map(|said| (verdict, said)));
            }
        }
        missed.sort_by_key(|missed| missed.at_ms);
        said.sort_by_key(|(_, said)| said.at_ms);
        for missed in missed {
            // A word is about what stood when it was said.
            let is_earlier = |(_, said): &&(Verdict, Said)| said.at_ms < missed.at_ms;
            let earlier = said.iter().filter(is_earlier).count();
            said.drain(..earlier).for_each(|(verdict, said)| known.judge(verdict, &(said.caller, said.callee)));
            known.add(missed);
        }
        said.into_iter().for_each(|(verdict, said)| known.judge(verdict, &(said.caller, said.callee)));
        Misses(Arc::new(Mutex::new(known)))
    }

    /// Those that stand, by what failed, then what was restarted.
    #[must_use]
    pub fn standing(&self) -> Vec<Missed> {
        self.lock().standing.values().cloned().collect()
    }

    /// How many were ever recorded, dismissed ones too.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        self.lock().recorded
    }

    /// What the graph is told of them at the start.
    pub(crate) fn facts(&self) -> Vec<OperationalFact> {
        let known = self.lock();
        let accepted = known.standing.values().filter(|missed| known.accepted.contains(&missed.key()));
        let accepted = accepted.map(|missed| missed.judged(Verdict::Accepted));
        known.standing.values().map(Missed::fact).chain(accepted).collect()
    }

    /// Whether a person accepted it.
    fn is_accepted(&self, missed: &Missed) -> bool {
        self.lock().accepted.contains(&missed.key())
    }

    fn may_take(&self, missed: &Missed) -> bool {
        let known = self.lock();
        !known.standing.contains_key(&missed.key()) && known.standing.len() < MISSES_MAX
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn add(&mut self, missed: Missed) {
        self.recorded += 1;
        self.standing.insert(missed.key(), missed);
    }

    fn judge(&mut self, verdict: Verdict, key: &(String, String)) {
        match verdict {
            Verdict::Accepted => {
                self.accepted.insert(key.clone());
            }
            Verdict::Dismissed => {
                self.standing.remove(key);
                self.accepted.remove(key);
            }
        }
    }
}

impl Verdict {
    /// What the ids of its promises begin with, below their incident.
    fn stage(self) -> &'static str {
        match self {
            Verdict::Accepted => "accepted.",
            Verdict::Dismissed => "dismissed.",
        }
    }
}

/// Watches what a commit restarts until its window is over: a task of its own, which ends with the process. What was not
/// noticed by then is not noticed.
pub(crate) async fn watch(app: App, watched: Watched, mut watch: Watch) {
    let Some(platform) = app.platform.clone() else { return };
    let mut ended: Option<Timestamp> = None;
    loop {
        for (service, at) in restarts(&platform, &watched) {
            watch.restarted(&service, at);
        }
        let now = app.env.now();
        for miss in watch.look(&app.telemetry.snapshot(), &apart(&app, &watched)) {
            take(&app, &watched, Missed::of(&miss, &watched.incident, now)).await;
        }
        if app.engine.promise(&watched.commit).is_none_or(|commit| commit.is_settled()) {
            ended = ended.or(Some(now));
        }
        // A commit that ended and restarted nothing leaves nothing to watch.
        let over = watch.ends().or(ended.map(|at| at.plus(SETTLED_FOR)));
        if ended.is_some() && over.is_some_and(|over| now >= over) {
            return;
        }
        app.env.sleep_until(now.plus(LOOK_EVERY)).await;
    }
}

/// What the commit restarted by the services' own ledgers, and when it began to: whoever dies in between cannot unsay it.
fn restarts(platform: &Platform, watched: &Watched) -> Vec<(String, Timestamp)> {
    let mut found = Vec::new();
    for service in watched.writes.iter().filter(|name| !name.contains('/')) {
        let lines = platform.ledger(service).unwrap_or_default();
        let ours = |line: &&Entry| line.action == "Restart" && line.at_ms >= watched.since.0;
        let applied = lines.iter().filter(ours).filter(|line| line.outcome == Outcome::Applied);
        let began = |key: &str| lines.iter().find(|line| line.key == key && line.outcome == Outcome::Begun);
        let first = applied.map(|line| began(&line.key).map_or(line.at_ms, |begun| begun.at_ms)).min();
        found.extend(first.map(|at_ms| (service.clone(), Timestamp(at_ms))));
    }
    found
}

/// What this commit changes otherwise, and what others change.
fn apart(app: &App, watched: &Watched) -> BTreeSet<String> {
    let others = ids(app).into_iter().filter(|id| *id != watched.incident);
    others.flat_map(|id| app.engine.scope_writes(&id)).chain(watched.writes.iter().cloned()).collect()
}

/// Records a missed dependency; once it is stored, the graph knows it and people are told.
async fn take(app: &App, watched: &Watched, missed: Missed) {
    if !app.misses.may_take(&missed) {
        return;
    }
    // What could not be stored is found again at the next look.
    if let Err(error) = store(app, &missed.incident, "missed.", &missed).await {
        tracing::warn!(caller = missed.caller, callee = missed.callee, %error, "a missed dependency is not stored yet");
        return;
    }
    app.misses.lock().add(missed.clone());
    app.telemetry.record(&missed.fact());
    let case = case::write(&app.data, watched, &missed);
    if let Err(error) = &case {
        tracing::warn!(%error, "the case of a missed dependency could not be written");
    }
    tracing::warn!(incident = missed.incident, "{}", missed.sentence());
    app.incidents.show(&missed.incident, |view| {
        view.missed.push(format!("{}->{}", missed.caller, missed.callee));
        view.lines.push(format!("missed         {}", missed.sentence()));
        view.lines.push(format!(
            "               from now on {} is not restarted without it; `stanch misses` shows what to declare",
            missed.callee
        ));
    });
}

/// Stores a word about an incident as a settled promise below it.
async fn store(app: &App, incident: &str, what: &str, word: &impl Serialize) -> Result<(), SubmitError> {
    let prefix = stage_id(incident, what);
    let number = app.engine.children(&prefix).len() + 1;
    let id = format!("{prefix}{number}");
    let value = Value::text(serde_json::to_string(word).unwrap_or_default());
    let timeout_at = app.env.now().plus(Millis(86_400_000));
    let create = Create { id: id.clone(), timeout_at, param: Value::default(), tags: BTreeMap::new() };
    let settle = Settle { id, state: Resolution::Resolved, value };
    let requests = vec![Request::PromiseCreate(create), Request::PromiseSettle(settle)];
    app.engine.submit(requests, Vec::new(), Vec::new(), Vec::new()).await.map(drop)
}

/// Takes a person's word about a missed dependency.
///
/// # Errors
/// As [`WordError`] says; it then stands as before.
pub async fn judge(app: &App, verdict: Verdict, word: &Word) -> Result<(), WordError> {
    let Word { caller, callee, by, reason } = word.clone();
    crate::holds::fits(&by, &reason).map_err(|error| WordError::Refused(error.to_string()))?;
    let key = (caller.clone(), callee.clone());
    let standing = app.misses.lock().standing.get(&key).cloned();
    let missed = standing.ok_or_else(|| WordError::Unknown { caller: caller.clone(), callee: callee.clone() })?;
    let at_ms = app.env.now().0.max(missed.at_ms + 1);
    let said = Said { caller, callee, by, reason, at_ms };
    store(app, &missed.incident, verdict.stage(), &said).await?;
    app.misses.lock().judge(verdict, &key);
    app.telemetry.record(&missed.judged(verdict));
    tracing::warn!(?said, ?verdict, "a person decided on a missed dependency");
    Ok(())
}
