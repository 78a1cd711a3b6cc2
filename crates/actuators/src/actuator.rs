use recovery::call::{Call, Fence, Observation, Receipt, Reconciled, Undo, Versions};
use recovery::isa::{Action, ActionKind, Limited, Place, Restored};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;

/// A boxed future.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What performs calls at a target. It never decides, retries or widens; [`crate::contract`] says what it
/// must keep.
pub trait Actuator: Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> &Capabilities;
    /// Reads fields; changes nothing.
    fn observe<'a>(&'a self, what: &'a Selector) -> Fut<'a, Result<Observation, Error>>;
    /// Says what [`Actuator::perform`] would say; changes nothing.
    fn dry_run<'a>(&'a self, call: &'a Call) -> Fut<'a, Result<DryRun, Error>>;
    /// Makes it so. The same key again has no second effect and the same receipt.
    fn perform<'a>(&'a self, call: &'a Call) -> Fut<'a, Result<Receipt, Error>>;
    /// Says what became of a call; after `Absent` the call cannot take effect any more unless performed anew.
    fn reconcile<'a>(&'a self, call: &'a Call) -> Fut<'a, Result<Reconciled, Error>>;
    /// Restores what was before a call, also one that never took effect.
    fn compensate<'a>(&'a self, undo: &'a Undo) -> Fut<'a, Result<Receipt, Error>>;
}

/// Which fields to read, by the names of [`recovery::call`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// The fields. One that does not exist makes the reading an error.
    pub fields: BTreeSet<String>,
}

/// What a dry run says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DryRun {
    /// Performing it now would be accepted.
    Accepted,
    /// It would be refused.
    Refused(Error),
    /// Nobody can say.
    NotEvaluable,
}

/// Why a call gave no receipt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A higher fence was seen. No effect.
    #[error("a higher fence was seen: epoch {}, version {}", seen.epoch, seen.version)]
    Fenced {
        /// The highest seen.
        seen: Fence,
    },
    /// The object changed since the call was bound. No effect.
    #[error("the object changed since the call was bound")]
    Drifted {
        /// Versions as they are.
        versions: Versions,
    },
    /// Not acceptable as it is. No effect.
    #[error("refused: {reason}")]
    Refused {
        /// Why.
        reason: Reason,
    },
    /// This actuator does not do that. No effect.
    #[error("not supported by this actuator")]
    Unsupported,
    /// No answer in time: reconcile.
    #[error("no answer in time")]
    TimedOut,
    /// The target cannot be reached: reconcile.
    #[error("the target cannot be reached")]
    Unavailable,
}

/// Why a call is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Its deadline has passed.
    #[error("the deadline has passed")]
    Deadline,
    /// A name that does not exist at the target, or cannot be one.
    #[error("no `{0}` here")]
    UnknownTarget(String),
    /// The desired values do not fit the action.
    #[error("the desired values do not fit the action: {0}")]
    Mismatch(String),
    /// The key was used for another call.
    #[error("the key belongs to another call")]
    KeyReused,
    /// A value the target does not accept.
    #[error("out of bounds: {0}")]
    OutOfBounds(String),
    /// The revision is missing, or not what its digest says.
    #[error("the revision is missing or not what its digest says: {0}")]
    Revision(String),
    /// The target refused, in its words.
    #[error("the target refused: {0}")]
    Target(String),
}

/// What kind of thing an action is aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetKind {
    /// A service.
    Service,
    /// Enumerated instances.
    Instances,
    /// Instances of one failure domain.
    Zone,
    /// A shard.
    Shard,
    /// An edge.
    Edge,
    /// A versioned object.
    Object,
    /// A role, held by one instance.
    Role,
    /// The open traffic steps of a plan.
    OpenSteps,
}

/// Who ends an effect that has a time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// The place where it takes effect.
    Native,
    /// A separate sweeper.
    Reaper,
    /// Nobody.
    None,
}

/// What is promised of one action on one kind of target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Keys are kept at the target.
    pub keyed: bool,
    /// Fences are kept at the target.
    pub fenced: bool,
    /// Who ends it.
    pub ttl: Ttl,
    /// Can be run dry.
    pub dry_run: bool,
    /// Saves what was there before.
    pub snapshot: bool,
}

/// The capabilities of an actuator; what is not listed is unsupported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub BTreeMap<(ActionKind, TargetKind), Capability>);

impl Capabilities {
    /// What is promised of this action on its target.
    #[must_use]
    pub fn of(&self, action: &Action) -> Option<&Capability> {
        self.0.get(&(action.kind(), TargetKind::of(action)))
    }
}

impl TargetKind {
    /// The kind of an action's target.
    #[must_use]
    pub fn of(action: &Action) -> TargetKind {
        match action {
            Action::Restart { place, .. } | Action::Drain { place, .. } => TargetKind::of_place(place),
            Action::RestoreTraffic { of: Restored::Weights(weights), .. } => {
                weights.first().map_or(TargetKind::OpenSteps, |(place, _)| TargetKind::of_place(place))
            }
            Action::RestoreTraffic { .. } => TargetKind::OpenSteps,
            Action::CircuitBreak { .. } => TargetKind::Edge,
            Action::RateLimit { what: Limited::Edge(_), .. } => TargetKind::Edge,
            Action::RateLimit { what: Limited::Place(place), .. } => TargetKind::of_place(place),
            Action::Scale { .. } => TargetKind::Service,
            Action::RollbackConfig { kind, .. } if kind == "role" => TargetKind::Role,
            Action::RollbackConfig { .. } => TargetKind::Object,
        }
    }

    fn of_place(place: &Place) -> TargetKind {
        match place {
            Place::Service(_) => TargetKind::Service,
            Place::Instances(..) => TargetKind::Instances,
            Place::Zone(..) => TargetKind::Zone,
            Place::Shard(..) => TargetKind::Shard,
        }
    }
}
