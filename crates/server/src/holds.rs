//! Holds: a person's durable freeze of everything stanch would begin in a scope, signed with a person's key.
//!
//! A hold is the promise `hold/<scope>:<version>`, written in one transaction with the record that says who placed it
//! and why. It never ends by itself. What announces an effect is guarded by it in its own transaction, so that from the
//! answer to `POST /holds` on nothing new is announced; an executor that has announced already looks again before it acts.

mod routes;
#[cfg(test)]
mod tests;

pub use crate::engine::ALL;
pub use routes::routes;

use crate::app::App;
use crate::config::{self, Flags};
use crate::engine::{Entry, Env, Guard, Hold, SubmitError, UNDO_TAG, hold_id};
use crate::incidents;
use crate::serve::{self, ServeError};
use base::{Envelope, Timestamp};
use governance::record::{Record, Resume, Signed, open};
use protocol::{Create, Request, Resolution, Settle, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// LIMIT: bytes of a reason.
pub const REASON_BYTES_MAX: usize = 512;
/// LIMIT: bytes of a scope.
pub const SCOPE_BYTES_MAX: usize = 256;
/// LIMIT: bytes of a name.
pub const NAME_BYTES_MAX: usize = 64;
/// A hold never ends by itself: the end of the year 9999.
const NEVER: Timestamp = Timestamp(253_402_300_799_000);

/// One hold in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// The service, or `all`.
    pub scope: String,
    /// Version of the hold state since then.
    pub version: u64,
    /// Who placed it, as they said.
    pub by: String,
    /// Whose key signed it.
    pub principal: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since_ms: i64,
    /// Whether open steps are undone.
    pub undo: bool,
}

/// The hold state: the answer of `GET /holds`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    /// How often a hold was placed or lifted; a new record carries the next number.
    pub version: u64,
    /// The server's data directory, where a person's key lies.
    pub data: String,
    /// Those in force.
    pub holds: Vec<InForce>,
}

/// The body of `POST /holds`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Posted {
    /// The envelope of a signed `hold` or `resume` record.
    pub record: String,
}

/// Why the hold state was not changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HoldError {
    /// No such scope here: a hold on it would stop nothing.
    #[error("no service `{name}` here{}", nearest.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    Unknown {
        /// As asked.
        name: String,
        /// The nearest known name.
        nearest: Option<String>,
    },
    /// Not a record that may place or lift a hold.
    #[error("not a person's hold: {0}")]
    Refused(String),
    /// Somebody placed or lifted a hold meanwhile: read the state and sign again.
    #[error("the hold state has version {0} by now")]
    Stale(u64),
    /// The scope is held already.
    #[error("{}", .0.sentence())]
    Already(Box<InForce>),
    /// Nothing to lift.
    #[error("no hold on {0}")]
    NotHeld(String),
    /// The store did not take it.
    #[error("the hold could not be stored: {0}")]
    Store(#[from] SubmitError),
}

/// The store of a server that does not run, opened to place or lift a hold.
pub struct Offline(App);

impl Offline {
    /// Takes the store; fails while a server has it.
    ///
    /// # Errors
    /// As [`ServeError`] says.
    pub fn open(data: &Path) -> Result<Offline, ServeError> {
        let (settings, _) = config::load(data, &Flags::default())?;
        Ok(Offline(serve::open(data, settings, Env::real())?))
    }

    /// As [`state`].
    #[must_use]
    pub fn state(&self) -> Holds {
        state(&self.0)
    }

    /// As [`post`].
    ///
    /// # Errors
    /// As [`post`].
    pub async fn post(&self, record: &str) -> Result<Holds, HoldError> {
        post(&self.0, record).await
    }
}

impl InForce {
    /// Who holds what and why, and how to lift it.
    #[must_use]
    pub fn sentence(&self) -> String {
        let reason = if self.reason.is_empty() { String::new() } else { format!(" ({})", self.reason) };
        format!("{} is held by {}{reason}; `stanch resume {}` lifts it", self.scope, self.by, self.scope)
    }
}

impl From<&Hold> for InForce {
    fn from(hold: &Hold) -> InForce {
        let param = hold.promise.param.data.as_deref();
        let said: Option<InForce> = param.and_then(|data| serde_json::from_str(data).ok());
        // What cannot be read is in force all the same.
        let said = said.unwrap_or_else(|| InForce { by: "somebody".to_owned(), ..InForce::default() });
        let since_ms = hold.promise.created_at.0;
        InForce { scope: hold.scope.clone(), version: hold.version, since_ms, undo: hold.undo, ..said }
    }
}

/// The hold state.
#[must_use]
pub fn state(app: &App) -> Holds {
    let (holds, version) = app.engine.holds();
    Holds { version, data: app.data.display().to_string(), holds: holds.iter().map(InForce::from).collect() }
}

/// The hold in force that freezes what changes these services.
#[must_use]
pub(crate) fn covering(app: &App, services: &[String]) -> Option<InForce> {
    let (holds, _) = app.engine.holds();
    holds.iter().find(|hold| hold.covers(services)).map(InForce::from)
}

/// Places or lifts a hold, as the signed record says; answers the hold state since.
///
/// # Errors
/// As [`HoldError`] says; nothing was changed.
pub async fn post(app: &App, record: &str) -> Result<Holds, HoldError> {
    let refused = |why: &dyn std::fmt::Display| HoldError::Refused(why.to_string());
    let envelope = Envelope::from_json(record).map_err(|error| refused(&error))?;
    let signed = open(&envelope, &app.keys.keyring, app.engine.log_size()).map_err(|error| refused(&error))?;
    if signed.is_suspect() {
        return Err(refused(&"its key is under suspicion"));
    }
    if signed.common().incident.is_some() {
        return Err(refused(&"a hold is of no incident"));
    }
    let change = change(app, &signed)?;
    let line = change.line.clone();
    take(app, change, record).await?;
    tell(app, scope_of(signed.value()), &line);
    Ok(state(app))
}

/// What a record asks for.
struct Change {
    request: Request,
    /// How it is told to whoever follows an incident in its scope.
    line: String,
    /// The version that the record carries.
    version: u64,
}

/// Stores a change together with its record, if it is still the next one when it is written.
async fn take(app: &App, change: Change, record: &str) -> Result<(), HoldError> {
    let entry = Entry { incident: None, seq: None, bytes: record.as_bytes().to_vec() };
    // The record's own version, not the state's: another word may have been stored since the state was read.
    let guard = Guard::Holds { version: change.version.saturating_sub(1) };
    match app.engine.submit(vec![change.request], vec![entry], Vec::new(), vec![guard]).await {
        Ok(_) => Ok(()),
        Err(SubmitError::Guard(_)) => Err(HoldError::Stale(current(app))),
        Err(error) => Err(error.into()),
    }
}

fn current(app: &App) -> u64 {
    app.engine.holds().1
}

/// The write that the record asks for.
fn change(app: &App, signed: &Signed<Record>) -> Result<Change, HoldError> {
    let common = signed.common();
    match signed.value() {
        Record::Hold(hold) => {
            let by = hold.by.clone().unwrap_or_else(|| common.principal.clone());
            fits(&by, &hold.reason)?;
            known(app, &hold.scope)?;
            if let Some(already) = in_force(app, &hold.scope) {
                return Err(HoldError::Already(Box::new(InForce::from(&already))));
            }
            is_next(app, hold.version)?;
            let placed = InForce {
                scope: hold.scope.clone(),
                version: hold.version,
                by,
                principal: common.principal.clone(),
                reason: hold.reason.clone(),
                since_ms: common.at.0,
                undo: hold.undo,
            };
            let line = format!("held           {}; nothing new begins", placed.sentence());
            Ok(Change { request: creation(&placed), line, version: hold.version })
        }
        Record::Resume(resume) => {
            let by = resume.by.clone().unwrap_or_else(|| common.principal.clone());
            fits(&by, &resume.reason)?;
            let held = in_force(app, &resume.scope).ok_or_else(|| HoldError::NotHeld(resume.scope.clone()))?;
            is_next(app, resume.version)?;
            let settle = Settle {
                id: held.promise.id.clone(),
                state: Resolution::Resolved,
                value: Value::text(resumed_text(resume, &by)),
            };
            let line = format!("resumed        the hold on {} was lifted by {by}", resume.scope);
            Ok(Change { request: Request::PromiseSettle(settle), line, version: resume.version })
        }
        _ => Err(HoldError::Refused("neither a hold nor a resume".to_owned())),
    }
}

fn creation(placed: &InForce) -> Request {
    Request::PromiseCreate(Create {
        id: hold_id(&placed.scope, placed.version),
        timeout_at: NEVER,
        param: Value::text(serde_json::to_string(placed).unwrap_or_default()),
        tags: BTreeMap::from([(UNDO_TAG.to_owned(), placed.undo.to_string())]),
    })
}

fn resumed_text(resume: &Resume, by: &str) -> String {
    serde_json::json!({ "by": by, "reason": resume.reason }).to_string()
}

fn in_force(app: &App, scope: &str) -> Option<Hold> {
    app.engine.holds().0.into_iter().find(|hold| hold.scope == scope)
}

fn is_next(app: &App, version: u64) -> Result<(), HoldError> {
    let current = current(app);
    if version == current + 1 { Ok(()) } else { Err(HoldError::Stale(current)) }
}

/// Whether a name and a reason can be kept.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn fits(by: &str, reason: &str) -> Result<(), HoldError> {
    let plain = |text: &str| !text.chars().any(char::is_control);
    if by.len() > NAME_BYTES_MAX || by.is_empty() || !plain(by) {
        return Err(HoldError::Refused(format!("a name is 1 to {NAME_BYTES_MAX} bytes in one line")));
    }
    if reason.len() > REASON_BYTES_MAX || !plain(reason) {
        return Err(HoldError::Refused(format!("a reason is at most {REASON_BYTES_MAX} bytes in one line")));
    }
    Ok(())
}

fn known(app: &App, scope: &str) -> Result<(), HoldError> {
    let snapshot = app.telemetry.snapshot();
    let mut names = app.topology.service.keys().map(String::as_str).chain(snapshot.services()).peekable();
    // Without a declaration or a trace nobody can say that a name is wrong, and a hold must not wait for them.
    let is_unsaid = names.peek().is_none() && !scope.is_empty();
    if scope.len() > SCOPE_BYTES_MAX || scope.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(HoldError::Refused(format!("a scope is at most {SCOPE_BYTES_MAX} bytes without blanks")));
    }
    if scope == ALL || is_unsaid || app.topology.service.contains_key(scope) || snapshot.contains(scope) {
        return Ok(());
    }
    let nearest = incidents::nearest(scope, names).map(str::to_owned);
    Err(HoldError::Unknown { name: scope.to_owned(), nearest })
}

fn scope_of(record: &Record) -> &str {
    match record {
        Record::Hold(hold) => &hold.scope,
        Record::Resume(resume) => &resume.scope,
        _ => "",
    }
}

/// Says it where people follow the incidents that the scope covers.
fn tell(app: &App, scope: &str, line: &str) {
    for id in crate::incidents::ids(app) {
        let writes = app.engine.scope_writes(&id);
        app.incidents.show(&id, |view| {
            let is_covered = scope == ALL || view.target == scope || writes.iter().any(|service| service == scope);
            if is_covered && view.outcome.is_none() {
                view.lines.push(line.to_owned());
            }
        });
    }
}
