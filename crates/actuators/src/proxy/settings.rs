//! The book of settings: values, versions, fences, expiries and ramps. Pure: time is an argument, and what is
//! in force at an instant is a function of the book, so a proxy that died half-way up a ramp goes on.

use crate::control::{Change, Changed, Ramp, Seal, Targets, fence_json};
use crate::field::Field;
use recovery::call::{self, Fence, State, Versions};
use recovery::isa::EdgeName;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Answered keys remembered; the oldest is forgotten first.
pub(super) const KEYS_MAX: usize = 4_096;
/// Length of a key at most, in bytes.
const KEY_BYTES_MAX: usize = 256;

/// Services and edges that can have settings.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The services of the topology file.
    pub(super) services: BTreeSet<String>,
    /// The edges that have a socket.
    pub(super) edges: Vec<EdgeName>,
}

/// Everything the proxy was told, as it is on disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Book {
    #[serde(default)]
    fields: BTreeMap<String, Setting>,
    #[serde(default)]
    answers: BTreeMap<String, Answered>,
    #[serde(default)]
    order: VecDeque<String>,
    /// Keys with their last attempt that was given up, oldest first.
    #[serde(default)]
    given_up: VecDeque<(String, u64)>,
    /// The registered instances.
    #[serde(default)]
    pub(super) targets: Targets,
}

/// One setting.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Setting {
    value: i64,
    version: u64,
    #[serde(with = "fence_json")]
    fence: Fence,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expiry: Option<Expiry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    climb: Option<Climb>,
}

/// What comes back by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Expiry {
    /// When.
    pub(super) at_ms: i64,
    /// The value.
    pub(super) restore: i64,
    /// Whose setting ends.
    pub(super) key: String,
    /// It is over, but the target was not ready for its traffic.
    #[serde(default)]
    pub(super) withheld: bool,
}

/// A ramp that a field is on.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Climb {
    from: i64,
    /// The value that 100% of the way stands for; differs from the goal only where that is "no limit".
    to: i64,
    began_ms: i64,
    steps: Vec<u32>,
    every_ms: u64,
}

/// A key with what it asked and was answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answered {
    set: State,
    changed: Changed,
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A newer owner was here.
    Fenced(Fence),
    /// A field is not as it was when the plan was bound.
    Drifted(Versions),
    /// It cannot be.
    Refused(String),
}

/// A change with what else it depends on.
pub(super) struct Asked<'a> {
    /// The change.
    pub(super) change: &'a Change,
    /// What can have settings.
    pub(super) known: &'a Known,
    /// Milli-requests per second that arrive at a limit's place just now, by field.
    pub(super) offered: &'a (dyn Fn(&str) -> i64 + Sync),
    /// The time.
    pub(super) now_ms: i64,
}

/// What a field that nobody ever set is: everything flows.
pub(super) fn default_of(field: &str) -> i64 {
    if field.starts_with("weight/") {
        100
    } else if field.starts_with("limit/") {
        -1
    } else {
        0
    }
}

impl Book {
    /// Makes a change, once per key.
    pub(super) fn change(&mut self, asked: &Asked<'_>) -> Result<Changed, Refusal> {
        let change = asked.change;
        if let Some(answered) = self.answers.get(&change.key) {
            if answered.set != change.set {
                return Err(Refusal::Refused(format!("key `{}` was used for another change", change.key)));
            }
            let changed = answered.changed.clone();
            self.raise(change.set.keys(), change.fence);
            return Ok(changed);
        }
        self.admit(asked)?;
        let before = self.values(change.set.keys(), asked.now_ms);
        for (name, value) in &change.set {
            self.put(name, *value, asked);
        }
        let versions = change.set.keys().map(|name| (name.clone(), self.version(name))).collect();
        let changed = Changed { before, after: change.set.clone(), versions };
        self.remember(&change.key, Answered { set: change.set.clone(), changed: changed.clone() });
        Ok(changed)
    }

    /// What a key was answered.
    pub(super) fn answer(&self, key: &str) -> Option<&Changed> {
        self.answers.get(key).map(|answered| &answered.changed)
    }

    /// Refuses everyone older on these fields from now on, and what is still on its way under the key.
    pub(super) fn seal(&mut self, seal: &Seal, known: &Known) -> Result<(), Refusal> {
        check_key(&seal.key)?;
        seal.fields.iter().try_for_each(|name| known.check_field(name).map(|_| ()))?;
        self.check_fence(seal.fields.iter(), seal.fence)?;
        self.raise(seal.fields.iter(), seal.fence);
        let before = self.last_given_up(&seal.key);
        self.given_up.retain(|(key, _)| *key != seal.key);
        self.given_up.push_back((seal.key.clone(), before.max(seal.attempt)));
        if self.given_up.len() > KEYS_MAX {
            self.given_up.pop_front();
        }
        Ok(())
    }

    /// The last attempt under a key that was given up; attempts count from 1.
    fn last_given_up(&self, key: &str) -> u64 {
        self.given_up.iter().find(|(other, _)| other == key).map_or(0, |(_, attempt)| *attempt)
    }

    /// What is in force.
    pub(super) fn value(&self, name: &str, now_ms: i64) -> i64 {
        self.fields.get(name).map_or_else(|| default_of(name), |field| field.in_force(name, now_ms))
    }

    /// How often a field changed.
    pub(super) fn version(&self, name: &str) -> u64 {
        self.fields.get(name).map_or(0, |field| field.version)
    }

    /// Every field: of what is known and registered, and what was ever set.
    pub(super) fn names(&self, known: &Known) -> BTreeSet<String> {
        let weights = self
            .targets
            .iter()
            .flat_map(|(service, targets)| targets.iter().map(|target| call::weight(service, target.replica)));
        let limits = known.services.iter().map(|service| call::service_limit(service));
        let edges = known.edges.iter().flat_map(|edge| [call::edge_limit(edge), call::breaker(edge)]);
        weights.chain(limits).chain(edges).chain(self.fields.keys().cloned()).collect()
    }

    /// The expiries that are due, withheld ones too.
    pub(super) fn due(&self, now_ms: i64) -> Vec<(String, Expiry)> {
        let open = self.fields.iter().filter_map(|(name, field)| field.expiry.clone().map(|expiry| (name, expiry)));
        open.filter(|(_, expiry)| expiry.at_ms <= now_ms).map(|(name, expiry)| (name.clone(), expiry)).collect()
    }

    /// Ends a due setting: restores what was before, or withholds it from a target that is not ready. False if
    /// nothing changed: another setting took its place meanwhile, or it was withheld already.
    pub(super) fn expire(&mut self, name: &str, key: &str, ready: bool) -> bool {
        let Some(field) = self.fields.get_mut(name) else { return false };
        let Some(expiry) = field.expiry.as_mut().filter(|expiry| expiry.key == key) else { return false };
        if !ready {
            return !std::mem::replace(&mut expiry.withheld, true);
        }
        field.value = expiry.restore;
        field.version += 1;
        field.expiry = None;
        field.climb = None;
        true
    }

    /// The next instant at which something changes by itself.
    pub(super) fn next_ms(&self, now_ms: i64) -> Option<i64> {
        let of_field = |field: &Setting| {
            let expiry = field.expiry.as_ref().filter(|expiry| !expiry.withheld).map(|expiry| expiry.at_ms);
            let stage = field.climb.as_ref().and_then(|climb| climb.next_ms(now_ms));
            expiry.into_iter().chain(stage).min()
        };
        self.fields.values().filter_map(of_field).min()
    }

    /// Whether some expired setting waits for its target.
    pub(super) fn withholds(&self) -> bool {
        self.fields.values().any(|field| field.expiry.as_ref().is_some_and(|expiry| expiry.withheld))
    }

    fn admit(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        let change = asked.change;
        let refuse = |why: &str| Err(Refusal::Refused(why.to_owned()));
        check_key(&change.key)?;
        let given_up = self.last_given_up(&change.key);
        if given_up > 0 && change.attempt <= given_up {
            return refuse("this attempt was given up");
        }
        if change.set.is_empty() {
            return refuse("nothing to set");
        }
        for (name, value) in &change.set {
            asked.known.check_value(name, *value)?;
        }
        if change.expires_at_ms.is_some_and(|at_ms| at_ms <= asked.now_ms) {
            return refuse("its expiry has passed");
        }
        if change.ramp.as_ref().is_some_and(|ramp| !is_ramp(ramp)) {
            return refuse("a ramp is ascending percentages from 1 that end at 100");
        }
        self.check_fence(change.set.keys(), change.fence)?;
        let bound = change.bound.iter().flatten();
        if bound.clone().any(|(name, version)| self.version(name) != *version) {
            return Err(Refusal::Drifted(bound.map(|(name, _)| (name.clone(), self.version(name))).collect()));
        }
        Ok(())
    }

    fn check_fence<'a>(&self, names: impl Iterator<Item = &'a String>, fence: Fence) -> Result<(), Refusal> {
        let seen = names.filter_map(|name| self.fields.get(name)).map(|field| field.fence).max();
        seen.filter(|seen| *seen > fence).map_or(Ok(()), |seen| Err(Refusal::Fenced(seen)))
    }

    fn raise<'a>(&mut self, names: impl Iterator<Item = &'a String>, fence: Fence) {
        for name in names {
            let field = self.field(name);
            field.fence = field.fence.max(fence);
        }
    }

    fn put(&mut self, name: &str, value: i64, asked: &Asked<'_>) {
        let change = asked.change;
        let offered = if name.starts_with("limit/") { (asked.offered)(name) } else { 0 };
        let field = self.field(name);
        let now = field.in_force(name, asked.now_ms);
        // What a temporary setting replaces is temporary itself: behind both stands the same value.
        let restore = field.expiry.take().map_or(field.value, |expiry| expiry.restore);
        field.expiry =
            change.expires_at_ms.map(|at_ms| Expiry { at_ms, restore, key: change.key.clone(), withheld: false });
        field.version += u64::from(now != value || field.value != value);
        field.fence = field.fence.max(change.fence);
        field.value = value;
        field.climb = change.ramp.as_ref().map(|ramp| Climb {
            from: now,
            to: if value == -1 { offered.max(now) } else { value },
            began_ms: asked.now_ms,
            steps: ramp.steps.clone(),
            every_ms: ramp.every_ms,
        });
    }

    fn field(&mut self, name: &str) -> &mut Setting {
        self.fields.entry(name.to_owned()).or_insert_with(|| Setting {
            value: default_of(name),
            version: 0,
            fence: Fence::default(),
            expiry: None,
            climb: None,
        })
    }

    fn values<'a>(&self, names: impl Iterator<Item = &'a String>, now_ms: i64) -> State {
        names.map(|name| (name.clone(), self.value(name, now_ms))).collect()
    }

    fn remember(&mut self, key: &str, answered: Answered) {
        self.answers.insert(key.to_owned(), answered);
        self.order.push_back(key.to_owned());
        while self.order.len() > KEYS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.answers.remove(&oldest);
            }
        }
    }
}

impl Setting {
    fn in_force(&self, name: &str, now_ms: i64) -> i64 {
        let Some(climb) = &self.climb else { return self.value };
        let percent = climb.percent(now_ms);
        if percent >= 100 {
            self.value
        } else if name.starts_with("breaker/") {
            if self.value == 1 { climb.from } else { 2 }
        } else if climb.from < 0 {
            // From "no limit" there is no way that percentages could measure.
            self.value
        } else {
            climb.from + (climb.to - climb.from) * percent / 100
        }
    }
}

impl Climb {
    fn percent(&self, now_ms: i64) -> i64 {
        let passed = u64::try_from(now_ms.saturating_sub(self.began_ms)).unwrap_or(0);
        let stage = usize::try_from(passed.checked_div(self.every_ms).unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        self.steps.get(stage).map_or(100, |percent| i64::from(*percent))
    }

    fn next_ms(&self, now_ms: i64) -> Option<i64> {
        let every = i64::try_from(self.every_ms).ok().filter(|every| *every > 0)?;
        let stages = i64::try_from(self.steps.len()).ok()?;
        let next = now_ms.saturating_sub(self.began_ms).div_euclid(every).max(-1) + 1;
        (next < stages).then(|| self.began_ms + next * every)
    }
}

impl Known {
    fn check_field(&self, name: &str) -> Result<Field, Refusal> {
        let field = Field::parse(name);
        let known = match &field {
            Some(Field::Weight(service, _) | Field::ServiceLimit(service)) => self.services.contains(service),
            Some(Field::EdgeLimit(edge) | Field::Breaker(edge)) => self.edges.contains(edge),
            Some(Field::Generation(..) | Field::Replicas(_) | Field::Config { .. }) | None => false,
        };
        let refused = || Refusal::Refused(format!("`{name}` is no setting of this proxy"));
        field.filter(|_| known).ok_or_else(refused)
    }

    fn check_value(&self, name: &str, value: i64) -> Result<(), Refusal> {
        let range = self.check_field(name)?.range();
        if range.contains(&value) {
            Ok(())
        } else {
            Err(Refusal::Refused(format!("`{name}` cannot be {value}: {} to {}", range.start(), range.end())))
        }
    }
}

fn check_key(key: &str) -> Result<(), Refusal> {
    let is_plain = key.chars().all(|c| c.is_ascii_graphic());
    if key.is_empty() || key.len() > KEY_BYTES_MAX || !is_plain {
        return Err(Refusal::Refused("a key is 1 to 256 printable characters without blanks".to_owned()));
    }
    Ok(())
}

/// LIMIT: percentages that ascend to 100: a ramp has at most a hundred stages.
fn is_ramp(ramp: &Ramp) -> bool {
    let ascending = ramp.steps.windows(2).all(|pair| pair.first() < pair.last());
    let bounds = ramp.steps.first().is_some_and(|first| *first >= 1) && ramp.steps.last() == Some(&100);
    ascending && bounds
}

#[cfg(test)]
mod tests;
