//! The seven typed actions, their parameters and their effect types (`ARCHITECTURE.md`, "The ISA").
//!
//! Parameters are integers, enumerations and names that resolve in the graph; none ever reaches a
//! command line. Anything else is inexpressible and escalates: there is no eighth action.

mod canon;
mod effect;

pub use effect::{EffectType, Expiry, TypeBound, TypeBoundError, level};

use base::canon::{Canon, Error, Fields, Value};

base::word_enum! {
    /// The seven actions.
    pub enum ActionKind {
        /// Clears volatile state.
        Restart = 1 "Restart",
        /// Moves traffic away.
        Drain = 2 "Drain",
        /// Moves traffic back; closes drains, breakers and limits.
        RestoreTraffic = 3 "RestoreTraffic",
        /// Fails an edge fast.
        CircuitBreak = 4 "CircuitBreak",
        /// Sheds load.
        RateLimit = 5 "RateLimit",
        /// Changes a replica count.
        Scale = 6 "Scale",
        /// Returns a versioned object to a known good revision.
        RollbackConfig = 7 "RollbackConfig",
    }
}

base::word_enum! {
    /// What an executed action can be returned from, mildest first.
    pub enum RollbackClass {
        /// An inverse restores the state before.
        Reversible = 1 "reversible",
        /// An inverse exists but warm state or moved work is lost.
        Compensatable = 2 "compensatable",
        /// Forward only: repeat, or escalate.
        Restartable = 3 "restartable",
    }
}

base::word_enum! {
    /// How wide an effect is, narrowest first.
    pub enum EffectLevel {
        /// One instance.
        Instance = 1 "instance",
        /// One caller and callee.
        Edge = 2 "edge",
        /// One service.
        Service = 3 "service",
        /// Several services at once.
        Group = 4 "group",
    }
}

base::word_enum! {
    /// What an effect changes.
    pub enum EffectKind {
        /// State held in memory is lost.
        VolatileLoss = 1 "volatile-loss",
        /// Serving capacity falls.
        CapacityDown = 2 "capacity-down",
        /// Serving capacity rises.
        CapacityUp = 3 "capacity-up",
        /// Requests go elsewhere.
        TrafficShift = 4 "traffic-shift",
        /// Requests are refused.
        Shed = 5 "shed",
        /// A versioned object changes.
        ConfigChange = 6 "config-change",
    }
}

base::word_enum! {
    /// How a Restart takes its instances.
    pub enum RestartStrategy {
        /// Wave by wave.
        Rolling = 1 "rolling",
        /// The whole group, waves of the group in order.
        Group = 2 "group",
    }
}

base::word_enum! {
    /// Which requests a Drain moves.
    pub enum DrainMode {
        /// New ones; those in flight finish.
        New = 1 "new",
        /// All; those in flight are cut at the timeout.
        All = 2 "all",
    }
}

base::word_enum! {
    /// The state a CircuitBreak sets.
    pub enum BreakerMode {
        /// Every call fails fast.
        Open = 1 "open",
        /// A trickle passes.
        HalfOpen = 2 "half-open",
    }
}

/// What an action acts on. Instances are named `service@n`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Every instance of a service.
    Service(String),
    /// Enumerated instances of one service, by replica number, sorted.
    Instances(String, Vec<u32>),
    /// The instances of a service in one zone (a failure domain).
    Zone(String, String),
    /// One shard of a service.
    Shard(String, String),
}

/// A caller and its callee.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EdgeName {
    /// The calling service.
    pub caller: String,
    /// The called service.
    pub callee: String,
}

/// The object of a RateLimit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limited {
    /// All calls into a place.
    Place(Place),
    /// The calls of one edge.
    Edge(EdgeName),
}

/// A rate, relative or absolute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Percent of the baseline, 0 to 100.
    Percent(u32),
    /// Requests per second.
    PerSecond(u32),
}

/// What a RestoreTraffic restores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// Every traffic step of the plan that is still open.
    AllOpen,
    /// The named steps.
    Steps(Vec<String>),
    /// Explicit weights in percent over ready targets, summing to 100.
    Weights(Vec<(Place, u32)>),
}

/// A replica count as written in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleTo {
    /// So many.
    Exactly(u32),
    /// So many more; resolved when checked.
    More(u32),
    /// So many fewer; resolved when checked.
    Fewer(u32),
}

/// The revision a RollbackConfig returns to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revision {
    /// The newest revision that was healthy long enough.
    LastGood,
    /// A named revision, or a role's new holder (`svc@inst`).
    Named(String),
}

/// One action with all its parameters. Times are milliseconds; `None` means the policy's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Restart a service or instances.
    Restart {
        /// What.
        place: Place,
        /// How.
        strategy: RestartStrategy,
        /// Instances out at once, 1 to 1000.
        wave: u32,
        /// Extra instances started first, 0 to `wave`.
        surge: u32,
        /// Time to end cleanly before it is killed.
        grace_ms: Option<u64>,
        /// Random delay between instances.
        jitter_ms: Option<u64>,
    },
    /// Take traffic off a place.
    Drain {
        /// What.
        place: Place,
        /// Percent of its traffic, 1 to 100.
        percent: u32,
        /// Which requests.
        mode: DrainMode,
        /// Time for requests in flight.
        timeout_ms: Option<u64>,
        /// After this the data plane itself restores.
        ttl_ms: u64,
    },
    /// Give traffic back.
    RestoreTraffic {
        /// What.
        of: Restored,
        /// Percentages of the way back, ascending, ending at 100.
        ramp: Vec<u32>,
        /// Time between ramp steps.
        ramp_ms: Option<u64>,
    },
    /// Fail an edge fast.
    CircuitBreak {
        /// Which edge.
        edge: EdgeName,
        /// To which state.
        mode: BreakerMode,
        /// The declared fallback that covers it.
        fallback: Option<String>,
        /// After this the data plane itself closes it.
        ttl_ms: u64,
    },
    /// Shed load.
    RateLimit {
        /// Where.
        what: Limited,
        /// To which rate.
        rate: Rate,
        /// Tokens beyond the rate.
        burst: Option<u32>,
        /// The priority class that is shed last.
        priority: Option<String>,
        /// After this the data plane itself lifts it.
        ttl_ms: u64,
    },
    /// Change a replica count.
    Scale {
        /// Which service.
        service: String,
        /// To how many.
        to: ScaleTo,
        /// After this the count before is restored.
        ttl_ms: u64,
    },
    /// Return a versioned object.
    RollbackConfig {
        /// workload, config, secret, service, policy, quota, flag, unit, dataset or role.
        kind: String,
        /// The namespace.
        namespace: String,
        /// The object's name.
        name: String,
        /// To which revision.
        to: Revision,
    },
}

impl Action {
    /// Which of the seven.
    #[must_use]
    pub fn kind(&self) -> ActionKind {
        match self {
            Action::Restart { .. } => ActionKind::Restart,
            Action::Drain { .. } => ActionKind::Drain,
            Action::RestoreTraffic { .. } => ActionKind::RestoreTraffic,
            Action::CircuitBreak { .. } => ActionKind::CircuitBreak,
            Action::RateLimit { .. } => ActionKind::RateLimit,
            Action::Scale { .. } => ActionKind::Scale,
            Action::RollbackConfig { .. } => ActionKind::RollbackConfig,
        }
    }

    /// Time to live at the data plane, where the action has one.
    #[must_use]
    pub fn ttl_ms(&self) -> Option<u64> {
        match self {
            Action::Drain { ttl_ms, .. }
            | Action::CircuitBreak { ttl_ms, .. }
            | Action::RateLimit { ttl_ms, .. }
            | Action::Scale { ttl_ms, .. } => Some(*ttl_ms),
            Action::Restart { .. } | Action::RestoreTraffic { .. } | Action::RollbackConfig { .. } => None,
        }
    }
}

impl ActionKind {
    /// The action's rollback class.
    #[must_use]
    pub fn rollback_class(self) -> RollbackClass {
        match self {
            ActionKind::Restart => RollbackClass::Restartable,
            ActionKind::Drain | ActionKind::RestoreTraffic | ActionKind::CircuitBreak | ActionKind::RateLimit => {
                RollbackClass::Reversible
            }
            ActionKind::Scale | ActionKind::RollbackConfig => RollbackClass::Compensatable,
        }
    }

    /// Whether the action changes where requests go or how many pass.
    #[must_use]
    pub fn touches_traffic(self) -> bool {
        matches!(
            self,
            ActionKind::Drain | ActionKind::RestoreTraffic | ActionKind::CircuitBreak | ActionKind::RateLimit
        )
    }
}

impl Place {
    /// The service the place belongs to.
    #[must_use]
    pub fn service(&self) -> &str {
        match self {
            Place::Service(service)
            | Place::Instances(service, _)
            | Place::Zone(service, _)
            | Place::Shard(service, _) => service,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Service(service) => write!(f, "{service}"),
            Place::Instances(service, numbers) => {
                let list: Vec<String> = numbers.iter().map(u32::to_string).collect();
                write!(f, "{service}@{}", list.join(","))
            }
            Place::Zone(service, zone) => write!(f, "{service}@zone={zone}"),
            Place::Shard(service, shard) => write!(f, "{service}#{shard}"),
        }
    }
}

impl std::fmt::Display for EdgeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}->{}", self.caller, self.callee)
    }
}

impl Canon for EdgeName {
    fn to_value(&self) -> Value {
        (self.caller.clone(), self.callee.clone()).to_value()
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        <(String, String)>::from_value(value).map(|(caller, callee)| EdgeName { caller, callee })
    }
}

impl Canon for Place {
    fn to_value(&self) -> Value {
        let (tag, service, extra) = match self {
            Place::Service(service) => (0_u64, service, None),
            Place::Instances(service, numbers) => (1, service, Some(numbers.to_value())),
            Place::Zone(service, zone) => (2, service, Some(zone.to_value())),
            Place::Shard(service, shard) => (3, service, Some(shard.to_value())),
        };
        let mut fields = vec![(1, tag.to_value()), (2, service.to_value())];
        fields.extend(extra.map(|value| (3, value)));
        Value::Record(fields)
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        let mut fields = Fields::of(value)?;
        let (tag, service): (u64, String) = (fields.take(1)?, fields.take(2)?);
        let place = match tag {
            0 => Place::Service(service),
            1 => Place::Instances(service, fields.take(3)?),
            2 => Place::Zone(service, fields.take(3)?),
            3 => Place::Shard(service, fields.take(3)?),
            _ => return Err(Error::OutOfRange),
        };
        fields.finish()?;
        Ok(place)
    }
}
