//! Every window, lease, ramp, cooldown and freshness time as a policy key, with its default.

use base::{Millis, Ratio};
use serde::{Deserialize, Deserializer, de::Error as _};

/// A value as it is written in the file.
pub(super) trait Written: Sized {
    /// What the file's syntax gives.
    type Raw: for<'de> Deserialize<'de>;
    /// The value.
    fn read(raw: Self::Raw) -> Result<Self, String>;
}

/// A value read by [`Written`].
#[derive(Clone, Debug)]
pub(super) struct In<T>(pub(super) T);

impl<'de, T: Written> Deserialize<'de> for In<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::read(T::Raw::deserialize(deserializer)?).map(In).map_err(D::Error::custom)
    }
}

impl Written for Millis {
    type Raw = String;
    fn read(raw: String) -> Result<Self, String> {
        Millis::parse(&raw).map_err(|error| error.to_string())
    }
}

impl Written for Ratio {
    type Raw = String;
    fn read(raw: String) -> Result<Self, String> {
        Ratio::parse(&raw).map_err(|error| error.to_string())
    }
}

impl Written for u64 {
    type Raw = u64;
    fn read(raw: u64) -> Result<Self, String> {
        Ok(raw)
    }
}

impl Written for Vec<Millis> {
    type Raw = Vec<String>;
    fn read(raw: Vec<String>) -> Result<Self, String> {
        raw.into_iter().map(Millis::read).collect()
    }
}

/// A table of windows: its typed form with defaults, and its form in the file where every key is optional.
macro_rules! windows {
    ($(#[$meta:meta])* $name:ident / $file:ident {
        $($(#[$field_meta:meta])* $number:literal $field:ident : $type:ty = $default:expr),* $(,)?
    } $(tables { $($(#[$table_meta:meta])* $table_number:literal $table:ident : $table_type:ident / $table_file:ident),* $(,)? })?) => {
        body! {
            $(#[$meta])*
            pub struct $name {
                $($(#[$field_meta])* $number pub $field: $type,)*
                $($($(#[$table_meta])* $table_number pub $table: $table_type,)*)?
            }
        }
        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default,)* $($($table: $table_type::default(),)*)? }
            }
        }
        /// The same table as written, every key optional.
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $file {
            $($field: Option<In<$type>>,)*
            $($($table: Option<$table_file>,)*)?
        }
        impl $file {
            /// Replaces the keys that are written.
            pub(super) fn apply(&self, to: &mut $name) {
                $(if let Some(In(value)) = &self.$field { to.$field = value.clone(); })*
                $($(if let Some(table) = &self.$table { table.apply(&mut to.$table); })*)?
            }
        }
    };
}

const fn s(seconds: u64) -> Millis {
    Millis(seconds * 1_000)
}

const fn days(days: u64) -> Millis {
    s(days * 86_400)
}

fn ppm(ppm: u64) -> Ratio {
    Ratio::clamped(ppm)
}

windows! {
    /// Windows of the dependency graph.
    GraphWindows / GraphFile {
        /// A snapshot is stale after so long without joined spans.
        1 fresh_after: Millis = s(60),
        /// A counter is mature below this miss bound.
        2 miss_max: Ratio = ppm(10_000),
        /// Oldest usable snapshot.
        3 snapshot_age_max: Millis = s(600),
        /// Span of time that coverage is judged on.
        4 coverage: Millis = s(600),
        /// Offered above served for so long is metastable.
        5 metastable_for: Millis = s(30),
        /// A dependency is falsified within.
        6 falsify_within: Millis = s(300),
        /// Starts so close together are one.
        7 corestart_within: Millis = s(300),
        /// An edge unseen for so long is gone.
        8 edge_ttl: Millis = days(35),
        /// Half-life of rates.
        9 half_life: Millis = s(600),
        /// Spans of one trace arrive within.
        10 join: Millis = s(30),
    }
}

windows! {
    /// Defaults of action parameters.
    ActionWindows / ActionFile {
        /// Time to end cleanly.
        1 grace: Millis = s(30),
        /// Time for requests in flight.
        2 drain: Millis = s(30),
        /// Random delay between instances.
        3 jitter: Millis = s(1),
    }
}

windows! {
    /// Asking what became of a call.
    ReconcileWindows / ReconcileFile {
        /// Waits between questions.
        1 backoff: Vec<Millis> = vec![s(1), s(2), s(4), s(8)],
    }
}

windows! {
    /// The guard after each step that touches traffic.
    GuardWindows / GuardFile {
        /// Before it looks.
        1 grace: Millis = s(5),
        /// How long it looks.
        2 window: Millis = s(30),
        /// From an effect to its judgment.
        3 judge_within: Millis = Millis(250),
    }
}

windows! {
    /// Leases.
    LeaseWindows / LeaseFile {
        /// Of a step's task.
        1 step: Millis = s(10),
        /// Before a dropped worker's task is offered again.
        2 reconnect_grace: Millis = s(2),
    }
}

windows! {
    /// Time for agents.
    AgentWindows / AgentFile {
        /// One call.
        1 call: Millis = s(20),
        /// All calls of an incident.
        2 incident: Millis = s(60),
    }
}

windows! {
    /// Sampling of convergence.
    ConvergeWindows / ConvergeFile {
        /// Consecutive good samples.
        1 samples: u64 = 3,
        /// Between samples.
        2 every: Millis = s(10),
    }
}

windows! {
    /// When a preview has become quiet.
    QuiesceWindows / QuiesceFile {
        /// Equal samples in a row.
        1 samples: u64 = 3,
        /// Between samples.
        2 sample: Millis = Millis(200),
    }
}

windows! {
    /// How fast interference is noticed.
    InterferenceWindows / InterferenceFile {
        /// Between samples.
        1 sample: Millis = Millis(100),
    }
}

windows! {
    /// Age of calibration data.
    CalibrationWindows / CalibrationFile {
        /// Oldest pair that counts.
        1 pair_age: Millis = days(180),
        /// Without a new pair for so long it is stale.
        2 stale_after: Millis = days(90),
    }
}

windows! {
    /// What auto needs.
    AutoWindows / AutoFile {
        /// Own pairs.
        1 pairs_min: u64 = 30,
    }
}

windows! {
    /// Detection.
    DetectWindows / DetectFile {
        /// Alerts in the same round are one incident.
        1 round: Millis = s(600),
    }
}

windows! {
    /// Bypasses.
    BypassWindows / BypassFile {
        /// Longest life.
        1 max: Millis = s(900),
        /// To be reviewed within.
        2 review: Millis = days(2),
    }
}

windows! {
    /// The evidence log.
    LogWindows / LogFile {
        /// Between checkpoints while there is something new.
        1 checkpoint: Millis = s(1),
        /// Or after so many entries.
        2 checkpoint_entries: u64 = 1_000,
        /// Between notes of being alive.
        3 heartbeat: Millis = s(60),
    }
}

windows! {
    /// Every window of the policy.
    Windows / WindowsFile {
        /// What is normal is measured over.
        1 baseline: Millis = s(60),
        /// An objective missed for so long is an impairment.
        2 impaired_for: Millis = s(10),
        /// Oldest usable fact.
        3 fact_age_max: Millis = s(10),
        /// Ready means ready for so long.
        4 ready_for: Millis = s(10),
        /// A breaker is done after so long open.
        5 open_for: Millis = s(10),
        /// A limit is done after so long kept.
        6 limited_for: Millis = s(5),
        /// Between steps of a ramp.
        7 ramp_step: Millis = s(10),
        /// A revision healthy for so long is known good.
        8 known_good_for: Millis = s(600),
        /// Worse for so long is a regression.
        9 regression_for: Millis = s(30),
        /// Shortest deadline of a step.
        10 step_deadline_min: Millis = s(30),
        /// Different modes in one group for so long.
        11 mixed_mode: Millis = s(30),
        /// Controls measured within.
        12 control_age: Millis = days(1),
        /// Time to press hold at level auto.
        13 countdown: Millis = Millis(0),
    } tables {
        /// The dependency graph.
        20 graph: GraphWindows / GraphFile,
        /// Action parameters.
        21 action: ActionWindows / ActionFile,
        /// Asking what became of a call.
        22 reconcile: ReconcileWindows / ReconcileFile,
        /// The guard.
        23 guard: GuardWindows / GuardFile,
        /// Leases.
        24 lease: LeaseWindows / LeaseFile,
        /// Agents.
        25 agent: AgentWindows / AgentFile,
        /// Convergence.
        26 converge: ConvergeWindows / ConvergeFile,
        /// Quiet previews.
        27 quiesce: QuiesceWindows / QuiesceFile,
        /// Interference.
        28 interference: InterferenceWindows / InterferenceFile,
        /// Calibration.
        29 calibration: CalibrationWindows / CalibrationFile,
        /// Auto.
        30 auto: AutoWindows / AutoFile,
        /// Detection.
        31 detect: DetectWindows / DetectFile,
        /// Bypasses.
        32 bypass: BypassWindows / BypassFile,
        /// The evidence log.
        33 log: LogWindows / LogFile,
    }
}
