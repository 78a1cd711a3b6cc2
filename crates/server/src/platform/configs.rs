//! What is seen of each revision of the configuration while it is in use: only a revision under which the client was
//! well served long enough is one to go back to.

use super::{Reading, RecordSecond};
use crate::app::App;
use actuators::process::config::{Object, REVISIONS_MAX};
use base::{Millis, Timestamp};
use recovery::topology::Topology;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How often the configuration is looked at.
const LOOK_EVERY: Millis = Millis(1_000);
/// How far back the client's record is read for a look.
const RECORD_FOR: Millis = Millis(10_000);
/// The newest seconds of a record are still filling up.
const UNSETTLED: usize = 2;
/// A change this long before the first sign of trouble, or less, is suspected of it.
const BEFORE_ONSET: Millis = Millis(600_000);
/// The client's record counts whole seconds, so trouble may seem to begin this long before its cause.
const ONSET_SLACK: Millis = Millis(2_000);

/// How long each revision of each object was in use while the client was well served; shared, in memory only. After a
/// restart of the server nothing is known of the revisions before, and none of them is returned to.
#[derive(Clone, Debug, Default)]
pub struct Configs(Arc<Mutex<BTreeMap<String, Uses>>>);

#[derive(Debug, Default)]
struct Uses {
    /// Seconds up to here were counted.
    counted_ms: i64,
    /// Since when the newest revision seen is in use, and which it is.
    since_ms: i64,
    current: i64,
    /// The one in use before, and from when to when it was.
    before: Option<(i64, i64, i64)>,
    revisions: BTreeMap<i64, Use>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Use {
    healthy_ms: u64,
    /// How long the client has been served badly, without a good second in between.
    bad_ms: u64,
}

/// A change of configuration that may be the cause of trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The object, `KIND/NS/NAME`.
    pub object: String,
    /// Its revision now.
    pub revision: i64,
    /// When it changed.
    pub changed_at: Timestamp,
}

/// The object that this service reads and that was changed shortly before the onset, if no instance of the service
/// serves any more: a change reaches all of them, a broken process only itself. The newest change counts.
#[must_use]
pub fn suspect(reading: &Reading, topology: &Topology, service: &str, onset: Timestamp) -> Option<Suspect> {
    let mut instances =
        reading.status.iter().flat_map(|status| &status.instances).filter(|it| it.service == service).peekable();
    instances.peek()?;
    if instances.any(|instance| reading.serves(instance)) || reading.failing(service).is_empty() {
        return None;
    }
    let read = topology.service.get(service)?.config.iter();
    let changed = read.filter_map(|name| Some((name, reading.objects.get(name)?)));
    let suspected = changed.filter(|(_, object)| was_changed(object, onset));
    let (name, object) = suspected.max_by_key(|(_, object)| object.changed_at_ms)?;
    Some(Suspect { object: name.clone(), revision: object.current, changed_at: Timestamp(object.changed_at_ms) })
}

/// The first revision of an object is no change.
fn was_changed(object: &Object, onset: Timestamp) -> bool {
    let older = object.revisions.iter().any(|revision| *revision < object.current);
    let changed = Timestamp(object.changed_at_ms);
    older && changed >= onset.minus(BEFORE_ONSET) && changed <= onset.plus(ONSET_SLACK)
}

/// Looks at the configuration for as long as the server lives.
pub async fn watch(app: App) {
    let Some(platform) = &app.platform else { return };
    let tier = app.policy.tier_of_all(app.topology.service.keys().map(String::as_str));
    let tier = tier.and_then(|name| app.policy.tiers.get(name));
    let impaired_for = tier.map_or(app.policy.windows.impaired_for, |tier| tier.windows.impaired_for);
    loop {
        let now = app.env.now();
        let reading = platform.read(now, now.minus(RECORD_FOR)).await;
        platform.configs().note(&reading, impaired_for);
        app.env.sleep_until(now.plus(LOOK_EVERY)).await;
    }
}

impl Configs {
    /// How long a revision was in use while the client was well served, without an impairment since.
    #[must_use]
    pub fn healthy_for(&self, object: &str, revision: i64) -> Millis {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.get(object).and_then(|uses| uses.revisions.get(&revision));
        Millis(seen.map_or(0, |seen| seen.healthy_ms))
    }

    /// Counts the seconds that have settled since the last look for the revision that was in use in them.
    fn note(&self, reading: &Reading, impaired_for: Millis) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let record = reading.record.as_deref().unwrap_or_default();
        let settled = record.get(..record.len().saturating_sub(UNSETTLED)).unwrap_or_default();
        for (name, object) in &reading.objects {
            let uses = all.entry(name.clone()).or_default();
            uses.turn_to(object);
            settled.iter().for_each(|second| uses.count(second, impaired_for));
        }
    }
}

impl Uses {
    fn turn_to(&mut self, object: &Object) {
        if (object.current, object.changed_at_ms) == (self.current, self.since_ms) {
            return;
        }
        if self.current != 0 {
            self.before = Some((self.current, self.since_ms, object.changed_at_ms));
        }
        (self.current, self.since_ms) = (object.current, object.changed_at_ms);
        while self.revisions.len() > REVISIONS_MAX {
            self.revisions.pop_first();
        }
    }

    fn count(&mut self, second: &RecordSecond, impaired_for: Millis) {
        let (from, to) = (second.second_ms, second.second_ms + 1_000);
        if from < self.counted_ms || second.sent == 0 {
            return;
        }
        self.counted_ms = to;
        let used = match self.before {
            _ if from >= self.since_ms => self.current,
            Some((revision, since, until)) if from >= since && to <= until => revision,
            // The second in which it changed belongs to neither.
            _ => return,
        };
        let seen = self.revisions.entry(used).or_default();
        let is_bad = (second.failed + second.late).saturating_mul(100) >= second.sent;
        if is_bad {
            seen.bad_ms += 1_000;
            if seen.bad_ms >= impaired_for.0 {
                seen.healthy_ms = 0;
            }
        } else {
            (seen.bad_ms, seen.healthy_ms) = (0, seen.healthy_ms + 1_000);
        }
    }
}

#[cfg(test)]
mod tests;
