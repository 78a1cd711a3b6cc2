use crate::Render;
use base::canon::{Canon, Error, Fields, Value};
use base::{Digest, Millis, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

body! {
    /// One holder of a lease over one stretch of time.
    pub struct LeaseSpan {
        /// What is leased.
        1 pub resource: String,
        /// By whom.
        2 pub holder: String,
        /// Fencing token.
        3 pub token: u64,
        /// From.
        4 pub from: Timestamp,
        /// Until, not included.
        5 pub until: Timestamp,
    }
}

body! {
    /// One write that a node accepted or refused, in the order the node saw it.
    pub struct EpochWrite {
        /// The node that judged it.
        1 pub node: String,
        /// Who wrote.
        2 pub actor: String,
        /// Epoch it carried.
        3 pub epoch: u64,
        /// Version within the epoch.
        4 pub version: u64,
        /// Whether the node took it.
        5 pub accepted: bool,
    }
}

body! {
    /// Capacity while one wave is out.
    pub struct WaveCapacity {
        /// Which wave.
        1 pub wave: String,
        /// Requests that can be served, in thousandths per second.
        2 pub capacity_mrps: u64,
        /// Requests that arrive, as the plan's limits leave them, in thousandths per second.
        3 pub load_mrps: u64,
        /// Members left serving.
        4 pub members: u64,
        /// Whether anything that serves is taken out.
        5 pub takes_out_serving: bool,
    }
}

body! {
    /// What a successor would have to replay.
    pub struct ReplayState {
        /// Entries.
        1 pub entries: u64,
        /// Bytes.
        2 pub bytes: u64,
        /// Time it takes.
        3 pub took: Millis,
        /// The first missing entry.
        4 pub gap: Option<String>,
        /// The first key applied twice.
        5 pub duplicate: Option<String>,
    }
}

body! {
    /// One configuration of a quorum set.
    pub struct QuorumPhase {
        /// Which set.
        1 pub set: String,
        /// Which phase: old, 1, 2, …, new.
        2 pub phase: String,
        /// Its members.
        3 pub members: Vec<String>,
        /// How many make a quorum.
        4 pub threshold: u64,
    }
}

body! {
    /// Acknowledged and durable writes.
    pub struct Durability {
        /// Acknowledged before.
        1 pub acknowledged: u64,
        /// Of these still there.
        2 pub durable: u64,
        /// Acknowledged on one member only.
        3 pub unreplicated: u64,
        /// Some keys that are gone.
        4 pub lost: Vec<String>,
    }
}

body! {
    /// Recovery work done and arriving.
    pub struct Rates {
        /// Done, in thousandths per second.
        1 pub done_mps: u64,
        /// Arriving, in thousandths per second.
        2 pub arriving_mps: u64,
        /// Exit lines of a crash loop.
        3 pub crash_loop: Option<String>,
    }
}

/// What a signal says; each invariant wants one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// A number in the signal's unit.
    Integer(i64),
    /// Who held what, when.
    Leases(Vec<LeaseSpan>),
    /// Writes in order.
    Writes(Vec<EpochWrite>),
    /// Capacity wave by wave.
    Waves(Vec<WaveCapacity>),
    /// What is to be replayed.
    Replay(ReplayState),
    /// Quorum sets phase by phase, in order; empty: none is touched.
    Quorums(Vec<QuorumPhase>),
    /// Digest of each replica's state, after it became quiet.
    States(BTreeMap<String, Digest>),
    /// Acknowledged and durable writes.
    Durability(Durability),
    /// Recovery work.
    Rates(Rates),
}

body! {
    /// One resolved signal.
    pub struct Signal {
        /// What it says.
        1 pub reading: Reading,
        /// In which unit.
        2 pub unit: String,
        /// How old it is.
        3 pub age: Millis,
        /// Failure domains it was read from.
        4 pub sources: Vec<String>,
    }
}

/// Resolved signals by name. Resolving happened before, and is recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signals(pub BTreeMap<String, Signal>);

impl Signals {
    /// Adds a signal.
    pub fn insert(&mut self, name: &str, signal: Signal) {
        self.0.insert(name.to_owned(), signal);
    }

    /// A signal that is present, of the unit, fresh, and from enough distinct failure domains.
    ///
    /// # Errors
    /// Why it is not usable, in words.
    pub fn resolve(&self, name: &str, unit: &str, max_age: Millis, sources_min: u64) -> Result<&Signal, String> {
        let signal = self.0.get(name).ok_or_else(|| format!("signal `{name}` is missing"))?;
        let domains = signal.sources.iter().collect::<BTreeSet<_>>().len();
        if signal.unit != unit {
            return Err(format!("signal `{name}` is in {}, not in {unit}", signal.unit));
        }
        if signal.age > max_age {
            return Err(format!("signal `{name}` is {} old, allowed {max_age}", signal.age));
        }
        if u64::try_from(domains).is_ok_and(|count| count < sources_min) {
            return Err(format!("signal `{name}` comes from {domains} failure domains, needed {sources_min}"));
        }
        Ok(signal)
    }
}

impl Canon for Reading {
    fn to_value(&self) -> Value {
        let (tag, value) = match self {
            Reading::Integer(number) => (1_u64, number.to_value()),
            Reading::Leases(spans) => (2, spans.to_value()),
            Reading::Writes(writes) => (3, writes.to_value()),
            Reading::Waves(waves) => (4, waves.to_value()),
            Reading::Replay(replay) => (5, replay.to_value()),
            Reading::Quorums(phases) => (6, phases.to_value()),
            Reading::States(states) => (7, states.to_value()),
            Reading::Durability(durability) => (8, durability.to_value()),
            Reading::Rates(rates) => (9, rates.to_value()),
        };
        Value::Record(vec![(1, tag.to_value()), (2, value)])
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        let mut fields = Fields::of(value)?;
        let tag: u64 = fields.take(1)?;
        let reading = match tag {
            1 => Reading::Integer(fields.take(2)?),
            2 => Reading::Leases(fields.take(2)?),
            3 => Reading::Writes(fields.take(2)?),
            4 => Reading::Waves(fields.take(2)?),
            5 => Reading::Replay(fields.take(2)?),
            6 => Reading::Quorums(fields.take(2)?),
            7 => Reading::States(fields.take(2)?),
            8 => Reading::Durability(fields.take(2)?),
            9 => Reading::Rates(fields.take(2)?),
            _ => return Err(Error::OutOfRange),
        };
        fields.finish()?;
        Ok(reading)
    }
}

impl Render for Reading {
    fn render(&self) -> serde_json::Value {
        match self {
            Reading::Integer(number) => number.render(),
            Reading::Leases(spans) => spans.render(),
            Reading::Writes(writes) => writes.render(),
            Reading::Waves(waves) => waves.render(),
            Reading::Replay(replay) => replay.render(),
            Reading::Quorums(phases) => phases.render(),
            Reading::States(states) => states.render(),
            Reading::Durability(durability) => durability.render(),
            Reading::Rates(rates) => rates.render(),
        }
    }
}

impl Canon for Signals {
    fn to_value(&self) -> Value {
        self.0.to_value()
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        BTreeMap::from_value(value).map(Signals)
    }
}

impl Render for Signals {
    fn render(&self) -> serde_json::Value {
        self.0.render()
    }
}
