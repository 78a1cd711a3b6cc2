//! Everything a plan is judged against, as plain data: the slice of the graph, facts with their times, the
//! policy's numbers, leases, holds, and the time itself. The same world gives the same verdict, so a world
//! is stored with every check.
//!
//! A fact's time is that of its last reading. What is absent is unknown, and unknown rejects.

use crate::call::Observation;
use crate::graph::Slice;
use crate::isa::{ActionKind, EffectLevel, Expiry, RollbackClass, TypeBound};
use crate::plan::Plan;
use base::{Digest, Millis, Ratio, Timestamp};
use std::collections::BTreeMap;

base::word_enum! {
    /// The kinds of target an actuator distinguishes.
    pub enum TargetKind {
        /// Enumerated instances.
        Instances = 1 "instances",
        /// A whole service.
        Service = 2 "service",
        /// The instances of a service in one zone.
        Zone = 3 "zone",
        /// One shard.
        Shard = 4 "shard",
        /// A caller and a callee.
        Edge = 5 "edge",
        /// A versioned object.
        Object = 6 "object",
    }
}

base::record! {
    /// One thing an actuator can do.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Capability {
        /// The action.
        1 pub action: ActionKind,
        /// On what.
        2 pub target: TargetKind,
    }
}

base::record! {
    /// One instance as last read.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct InstanceFacts {
        /// Its replica number.
        1 pub replica: u32,
        /// Whether it is ready and serves: one that answers nothing but errors is not.
        2 pub ready: bool,
        /// Since when; absent while it is not ready.
        3 pub ready_since: Option<Timestamp>,
        /// Its generation.
        4 pub generation: u64,
        /// Its failure domain.
        5 pub zone: Option<String>,
        /// Requests it holds.
        6 pub in_flight: u32,
    }
}

base::record! {
    /// Who else sets a service's replica count or objects.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Controller {
        /// Its name.
        1 pub name: String,
        /// Whether an actuator can hold it meanwhile.
        2 pub holdable: bool,
    }
}

base::record! {
    /// One service as last read.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct ServiceFacts {
        /// When it was last read.
        1 pub observed_at: Timestamp,
        /// Fewest replicas.
        2 pub replicas_min: u32,
        /// Most replicas.
        3 pub replicas_max: u32,
        /// Its instances, ascending by replica number.
        4 pub instances: Vec<InstanceFacts>,
        /// Requests per thousand seconds before the onset.
        5 pub baseline_mrps: Option<u64>,
        /// Requests per thousand seconds now.
        6 pub load_mrps: Option<u64>,
        /// Capacity of one replica, requests per thousand seconds.
        7 pub capacity_mrps: Option<u64>,
        /// Replicas that must stay ready; absent: none declared.
        8 pub min_available: Option<u32>,
        /// Members of its quorum set; absent: it is none.
        9 pub quorum_of: Option<u32>,
        /// Has callers that may not lose their last path to it.
        10 pub critical: bool,
        /// May be limited to 0.
        11 pub sheddable: bool,
        /// Domain of authority; absent: none declared.
        12 pub trust_zone: Option<String>,
        /// When an instance was last restarted by a plan.
        13 pub last_restart_at: Option<Timestamp>,
        /// Overload feeds itself.
        14 pub metastable: bool,
        /// Who else sets its replica count.
        15 pub controller: Option<Controller>,
        /// Time from start to ready, as measured; absent: unknown.
        16 pub startup: Option<Millis>,
        /// Instances the platform still has room for; absent: not limited.
        17 pub quota_left: Option<u32>,
    }
}

base::record! {
    /// One edge as last read.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct EdgeFacts {
        /// When it was last read.
        1 pub observed_at: Timestamp,
        /// Calls per thousand seconds before the onset.
        2 pub baseline_mrps: Option<u64>,
        /// The caller's declared fallback.
        3 pub fallback: Option<String>,
    }
}

base::record! {
    /// A revision of an object.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct RevisionFacts {
        /// Its number, ascending.
        1 pub number: u64,
        /// Its name.
        2 pub name: String,
        /// How long it was in use and healthy.
        3 pub healthy_for: Millis,
        /// Nothing older may be returned to.
        4 pub no_downgrade: bool,
        /// Objects whose newer revision depends on a revision newer than this one.
        5 pub dependents: Vec<String>,
    }
}

base::record! {
    /// A versioned object as last read.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct ObjectFacts {
        /// When it was last read.
        1 pub observed_at: Timestamp,
        /// The revision in use.
        2 pub current: u64,
        /// The kept revisions, ascending.
        3 pub revisions: Vec<RevisionFacts>,
        /// The services that read it.
        4 pub readers: Vec<String>,
        /// Who else writes it.
        5 pub controller: Option<Controller>,
    }
}

base::record! {
    /// A freeze. An empty scope covers everything.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct HoldFacts {
        /// The services it covers.
        1 pub scope: Vec<String>,
        /// Its version.
        2 pub version: u64,
    }
}

base::record! {
    /// A scope lease of an incident.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct LeaseFacts {
        /// Whose.
        1 pub incident: String,
        /// Its epoch.
        2 pub epoch: u64,
        /// Rows held alone.
        3 pub exclusive: Vec<String>,
        /// Rows held with others.
        4 pub shared: Vec<String>,
    }
}

base::record! {
    /// A plan that is running.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct RunningPlan {
        /// Whose.
        1 pub incident: String,
        /// What it changes.
        2 pub writes: Vec<String>,
        /// Who depends on what it changes.
        3 pub hard_callers: Vec<String>,
        /// There are more than could be listed: conflicts with everything.
        4 pub more: bool,
    }
}

base::record! {
    /// What is known of the intent the plan answers.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct IntentFacts {
        /// The incident it opened.
        1 pub incident: String,
        /// Signed by a key whose role may, and its chain is whole.
        2 pub signed: bool,
        /// When it ends.
        3 pub expires_at: Timestamp,
        /// Its class.
        4 pub class: String,
        /// Its tier.
        5 pub tier: String,
        /// Digest of the policy it names.
        6 pub policy: Digest,
        /// Time left of the incident's budget.
        7 pub budget_left: Millis,
        /// Domains of authority it covers.
        8 pub trust_zones: Vec<String>,
    }
}

base::record! {
    /// What is known of the proposer.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct ProposerFacts {
        /// Its key has the role.
        1 pub role: bool,
        /// Proposals it has left, this one included.
        2 pub proposals_left: u32,
        /// The verifier is another key.
        3 pub separate: bool,
    }
}

base::record! {
    /// What a preview or an arming bound the plan to.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Binding {
        /// The plan.
        1 pub plan: Digest,
        /// The graph slice.
        2 pub topology: Digest,
        /// Version counters of the fields it sets.
        3 pub versions: BTreeMap<String, u64>,
    }
}

base::record! {
    /// The authority to act, as read now.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Authority {
        /// The plan that was decided and approved.
        1 pub plan: Digest,
        /// Decision and, where asked for, approval are present and signed.
        2 pub granted: bool,
        /// When the earlier of them ends.
        3 pub expires_at: Timestamp,
        /// Task version and lease epoch are the current ones.
        4 pub current: bool,
    }
}

base::record! {
    /// The fault and the universe it is measured in.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct FaultFacts {
        /// Impaired services.
        1 pub impaired: Vec<String>,
        /// Weight of each service of the universe.
        2 pub weights: BTreeMap<String, u64>,
    }
}

base::record! {
    /// A measured signal for conditions, under the condition's own name such as `error_ppm(payments)`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SignalFact {
        /// When it was read.
        1 pub observed_at: Timestamp,
        /// Its value.
        2 pub value: i64,
    }
}

base::record! {
    /// A parameter that a mutation may change, with its bounds in text form's numbers.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Mutable {
        /// Lowest.
        1 pub min: u32,
        /// Highest.
        2 pub max: u32,
        /// Grid.
        3 pub step: u32,
        /// The safe end is the low one.
        4 pub safer_down: bool,
    }
}

base::record! {
    /// The windows of the policy that a check uses.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Windows {
        /// Default time to end cleanly.
        1 pub grace: Millis,
        /// Default time for requests in flight.
        2 pub drain_timeout: Millis,
        /// Default random delay between instances.
        3 pub jitter: Millis,
        /// Ready means ready this long.
        4 pub ready_for: Millis,
        /// An opened breaker is done after this long with almost no calls.
        5 pub open_for: Millis,
        /// A limit is done after this long within it.
        6 pub limited_for: Millis,
        /// Default time between ramp steps.
        7 pub ramp_step: Millis,
        /// Grace before the guard window.
        8 pub guard_grace: Millis,
        /// Guard window after each step that touches traffic.
        9 pub guard_window: Millis,
        /// Least allowance beyond a step's own times.
        10 pub step_deadline_min: Millis,
        /// Oldest usable fact.
        11 pub fact_age_max: Millis,
        /// Oldest usable graph.
        12 pub snapshot_age_max: Millis,
        /// A revision is known good after this long.
        13 pub known_good_for: Millis,
        /// Start-up time where none was measured.
        14 pub startup: Millis,
    }
}

base::record! {
    /// The numbers of the active policy for this tier and class.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct KernelPolicy {
        /// Digest of the active policy.
        1 pub digest: Digest,
        /// Effect types above this are refused.
        2 pub type_max: TypeBound,
        /// Capacity must exceed load by this factor, parts per million (1.2 = 1 200 000).
        3 pub headroom_ppm: u64,
        /// A limit is at least this share of the baseline.
        4 pub rate_floor: Ratio,
        /// Time between restarts of one service.
        5 pub cooldown: Millis,
        /// Scope of the plan is at most this many times the scope of the fault.
        6 pub scope_ratio_max: u32,
        /// Services in the footprint.
        7 pub services_max: u32,
        /// Edges in the footprint.
        8 pub edges_max: u32,
        /// Requests a step may lose.
        9 pub loss_max: u64,
        /// Share of a service's capacity a step may remove at once.
        10 pub removed_max: Ratio,
        /// Actions per hour for this class and tier.
        11 pub actions_per_hour: u32,
        /// Plans running at once.
        12 pub plans_max: u32,
        /// Share of ready instances below which nothing ready is taken out.
        13 pub storm_below: Ratio,
        /// Actions the class allows.
        14 pub actions: Vec<ActionKind>,
        /// Parameters a mutation may change, by `Action.parameter`.
        15 pub mutable: BTreeMap<String, Mutable>,
        /// Times.
        16 pub windows: Windows,
        /// Members a group may have.
        17 pub group_max: u32,
        /// A service with more callers is drained before it restarts.
        18 pub drain_fan_in: u32,
        /// A service with more requests in flight that would fail is drained before it restarts.
        19 pub drain_inflight: u64,
    }
}

impl Default for Windows {
    /// The documented defaults.
    fn default() -> Self {
        Windows {
            grace: Millis(30_000),
            drain_timeout: Millis(30_000),
            jitter: Millis(1_000),
            ready_for: Millis(10_000),
            open_for: Millis(10_000),
            limited_for: Millis(5_000),
            ramp_step: Millis(10_000),
            guard_grace: Millis(5_000),
            guard_window: Millis(30_000),
            step_deadline_min: Millis(30_000),
            fact_age_max: Millis(10_000),
            snapshot_age_max: Millis(600_000),
            known_good_for: Millis(600_000),
            startup: Millis(10_000),
        }
    }
}

base::record! {
    /// Everything a plan is judged against.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct World {
        /// The time.
        1 pub now: Timestamp,
        /// The part of the graph pinned for the incident.
        2 pub slice: Slice,
        /// What the recovery group is computed from: the fault scope, the suspects and the asked target.
        3 pub targets: Vec<String>,
        /// The fault.
        4 pub fault: FaultFacts,
        /// Services by name.
        5 pub services: BTreeMap<String, ServiceFacts>,
        /// Edges by `A->S`.
        6 pub edges: BTreeMap<String, EdgeFacts>,
        /// Objects by `KIND/NS/NAME`.
        7 pub objects: BTreeMap<String, ObjectFacts>,
        /// What every field that an action can set is now, as in [`crate::call`]; the pre-images.
        8 pub settings: Observation,
        /// Measured signals by condition name without comparison, for example `error_ppm(payments)`.
        9 pub signals: BTreeMap<String, SignalFact>,
        /// The policy's numbers.
        10 pub policy: KernelPolicy,
        /// The intent.
        11 pub intent: IntentFacts,
        /// The proposer.
        12 pub proposer: ProposerFacts,
        /// Holds in force.
        13 pub holds: Vec<HoldFacts>,
        /// Scope leases of all incidents.
        14 pub leases: Vec<LeaseFacts>,
        /// Plans running.
        15 pub running: Vec<RunningPlan>,
        /// What the actuators offer.
        16 pub capabilities: Vec<Capability>,
        /// Plans under a standing veto.
        17 pub vetoes: Vec<Digest>,
        /// Services and objects (`config/KIND/NS/NAME`) with an unknown outcome or an unfinished undo.
        18 pub unreconciled: Vec<String>,
        /// Actions of this class and tier in the last hour.
        19 pub actions_used: u32,
        /// The revision before the plan's.
        20 pub previous: Option<Plan>,
        /// Mutations among the revisions before.
        21 pub mutations_used: u32,
        /// What the preview bound; absent before there is one.
        22 pub binding: Option<Binding>,
        /// The authority to act; absent before the decision.
        23 pub authority: Option<Authority>,
        /// Versions to which receipts of this very plan moved fields.
        24 pub own_versions: BTreeMap<String, u64>,
    }
}

impl KernelPolicy {
    /// The documented defaults, with every action allowed, under the given policy digest.
    #[must_use]
    pub fn with_digest(digest: Digest) -> KernelPolicy {
        KernelPolicy {
            digest,
            type_max: TypeBound {
                level: EffectLevel::Service,
                class: RollbackClass::Restartable,
                expiry: Expiry::None,
            },
            headroom_ppm: 1_200_000,
            rate_floor: Ratio::clamped(100_000),
            cooldown: Millis(300_000),
            scope_ratio_max: 4,
            services_max: 8,
            edges_max: 64,
            loss_max: 500,
            removed_max: Ratio::clamped(340_000),
            actions_per_hour: 6,
            plans_max: 16,
            storm_below: Ratio::clamped(700_000),
            actions: ActionKind::ALL.to_vec(),
            mutable: BTreeMap::new(),
            windows: Windows::default(),
            group_max: 30,
            drain_fan_in: 20,
            drain_inflight: 1,
        }
    }
}

impl ServiceFacts {
    /// Its ready instances.
    pub fn ready(&self) -> impl Iterator<Item = &InstanceFacts> {
        self.instances.iter().filter(|instance| instance.ready)
    }

    /// The instance with this replica number.
    #[must_use]
    pub fn instance(&self, replica: u32) -> Option<&InstanceFacts> {
        self.instances.iter().find(|instance| instance.replica == replica)
    }
}
