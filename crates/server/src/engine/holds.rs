//! Holds as the store has them: promises `hold/<scope>:<version>`, in force while they are pending.

use protocol::Promise;
use std::sync::Arc;

/// What the ids of holds begin with.
pub(super) const PREFIX: &str = "hold/";
/// The scope of a hold on everything.
pub const ALL: &str = "all";
/// The tag of a hold that wants open steps undone.
pub(crate) const UNDO_TAG: &str = "stanch:undo";

/// A hold in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The service, or [`ALL`].
    pub scope: String,
    /// Version of the hold state since it was placed.
    pub version: u64,
    /// Whether open steps are undone.
    pub undo: bool,
    /// Its promise.
    pub promise: Arc<Promise>,
}

/// The id of the promise that a hold is.
#[must_use]
pub fn hold_id(scope: &str, version: u64) -> String {
    format!("{PREFIX}{scope}:{version}")
}

impl Hold {
    /// The hold that a promise is, if it is in force.
    pub(super) fn of(promise: Arc<Promise>) -> Option<Hold> {
        let (scope, version) = parts(&promise)?;
        let (scope, undo) = (scope.to_owned(), wants_undo(&promise));
        (!promise.is_settled()).then_some(Hold { scope, version, undo, promise })
    }

    /// Whether it freezes what changes these services.
    #[must_use]
    pub fn covers(&self, services: &[String]) -> bool {
        covers(&self.scope, services)
    }
}

/// Whether the promise is a hold in force that stops this.
pub(super) fn stops(promise: &Promise, scopes: &[String], is_undo: bool) -> bool {
    let in_force = parts(promise).filter(|_| !promise.is_settled());
    in_force.is_some_and(|(scope, _)| covers(scope, scopes)) && !(is_undo && wants_undo(promise))
}

/// The version of the hold state: how often a hold was placed or lifted.
pub(super) fn version<'a>(promises: impl Iterator<Item = &'a Promise>) -> u64 {
    promises.map(|promise| if promise.is_settled() { 2 } else { 1 }).sum()
}

fn covers(scope: &str, services: &[String]) -> bool {
    scope == ALL || services.iter().any(|service| service == scope)
}

fn wants_undo(promise: &Promise) -> bool {
    promise.tag(UNDO_TAG) == Some("true")
}

/// Scope and version by the id. One without a version freezes all the same.
fn parts(promise: &Promise) -> Option<(&str, u64)> {
    let rest = promise.id.strip_prefix(PREFIX)?;
    let (scope, version) = rest.rsplit_once(':').unwrap_or((rest, ""));
    Some((scope, version.parse().unwrap_or(0)))
}
