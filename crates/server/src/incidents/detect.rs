//! Stages 1 and 2: observers vote, and the asking becomes a signed intent.

use super::run::{Run, Stop};
use crate::platform::{ObserverReading, Reading, observe, onset, suspect};
use base::{Digest, Millis, Ratio, Timestamp};
use governance::policy::Effective;
use governance::record::{Answer, Bound, Claims, Detection, Intent, IntentReason, Mutable, Observers, Scope, Vote};
use recovery::graph::{Closure, FaultScope, Snapshot};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The recovery class of an incident whose cause is looked for in processes.
pub(super) const RESTARTS: &str = "restart-orchestration";
/// The recovery class of an incident that began with a change of configuration.
pub(super) const ROLLBACKS: &str = "config-rollback";

/// What stage 1 settles with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Detected {
    /// When it began.
    pub onset_ms: i64,
    /// Impaired services.
    pub impaired: Vec<String>,
    /// Suspects below them.
    pub suspects: Vec<String>,
    /// Weighted share that is impaired.
    pub fault_ppm: u32,
    /// Domains that said impaired, and domains asked.
    pub votes_impaired: u64,
    /// Domains asked.
    pub votes_asked: u64,
    /// One minus the larger camp's share.
    pub disagreement_ppm: u32,
    /// Statements of the votes.
    pub votes: Vec<String>,
    /// The recovery class whose policy the incident is under.
    pub class: String,
}

/// What stage 2 settles with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Intended {
    /// The intent's statement.
    pub statement: String,
    /// Its tier.
    pub tier: String,
    /// When it ends.
    pub expires_at_ms: i64,
    /// When the budget began.
    pub started_at_ms: i64,
}

impl Run {
    /// Stage 1: asks the observers until enough agree, or the time for it is over.
    ///
    /// # Errors
    /// Too few observers say impaired (escalated), nothing is supervised, or the store refuses.
    pub(crate) async fn detect(&mut self, effective: &Effective) -> Result<Detected, Stop> {
        if let Some(done) = self.recorded("detect") {
            // WHY: the votes are recorded, not the verdict; a successor that took the record for one would go on where
            // its predecessor was outvoted.
            return self.agreed(effective, done);
        }
        let Some(platform) = self.app.platform.clone() else {
            return Err(Stop::escalate(
                "nothing is supervised here: start `stanch supervise`, then serve with --platform",
            ));
        };
        let window = effective.tier.windows.impaired_for;
        let patience = Millis(window.0.saturating_mul(6));
        let deadline = self.now().plus(patience);
        let began = self.now();
        let (mut scope_before, mut unchanged_since): (Vec<String>, Timestamp) = (Vec::new(), self.now());
        loop {
            let now = self.now();
            let reading = platform.read(now, now.minus(Millis(60_000))).await;
            let snapshot = self.app.telemetry.snapshot();
            let since = onset(&reading, &self.app.topology).map_or(now, |onset| onset.at);
            let scope = snapshot.fault_scope(since, &reading.unavailable());
            let readings = self.ask_observers(&reading, &snapshot, &scope, window);
            let detected = tally(&readings, &scope, &snapshot, since);
            let enough = detected.votes_impaired >= effective.tier.observers.k;
            // A fault scope that still grows is not yet one: it has to stand as long as an impairment must.
            if detected.impaired != scope_before {
                (scope_before, unchanged_since) = (detected.impaired.clone(), now);
            }
            let asked_is_in = detected.impaired.contains(&self.brief.target);
            let stands =
                now.since(unchanged_since) >= window && (asked_is_in || now.since(began) >= Millis(window.0 * 3));
            if enough && stands || now >= deadline {
                let detected = Detected { class: self.class_of(&detected, &reading).to_owned(), ..detected };
                return self.record_detection(effective, &readings, detected, &snapshot, now).await;
            }
            self.app.env.sleep_until(now.plus(Millis(100))).await;
        }
    }

    /// A suspected change of configuration puts the incident under the policy of its rollback.
    fn class_of(&self, detected: &Detected, reading: &Reading) -> &'static str {
        let onset = Timestamp(detected.onset_ms);
        let affected = detected.impaired.iter().chain(&detected.suspects);
        let changed = affected.into_iter().any(|name| suspect(reading, &self.app.topology, name, onset).is_some());
        if changed { ROLLBACKS } else { RESTARTS }
    }

    fn ask_observers(
        &self,
        reading: &Reading,
        snapshot: &Snapshot,
        scope: &FaultScope,
        window: Millis,
    ) -> Vec<ObserverReading> {
        let depends = with_callees(snapshot, &self.brief.target);
        let by_objective = scope.impaired.iter().filter(|name| snapshot.is_impaired(name)).cloned().collect();
        let fresh = (!snapshot.is_stale(reading.at)).then_some(&by_objective);
        let ask = |(name, observer): (&String, &recovery::topology::Observer)| {
            let mut answer = observe(name, observer, reading, &depends, fresh, window);
            if self.brief.lying_observer.as_ref() == Some(&answer.observer) {
                answer.impaired = answer.impaired.map(|impaired| !impaired);
            }
            answer
        };
        self.app.topology.observer.iter().map(ask).collect()
    }

    async fn record_detection(
        &mut self,
        effective: &Effective,
        readings: &[ObserverReading],
        mut detected: Detected,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<Detected, Stop> {
        let mut batch = self.batch();
        let detector = &self.app.keys.detector;
        let mut votes = Vec::new();
        for reading in readings {
            votes.push(batch.record(detector, vote(reading, &self.brief.target, now))?);
        }
        detected.votes = votes.iter().map(Digest::to_string).collect();
        let round = effective.tier.windows.detect.round.0.max(1);
        let start = detected.onset_ms.max(0).unsigned_abs();
        batch.record(
            detector,
            Detection {
                fingerprint: fingerprint(&self.brief.target),
                window_start: Timestamp(i64::try_from(start - start % round).unwrap_or(0)),
                n: 0,
                votes,
                domains: readings.iter().map(|reading| reading.zone.clone()).collect(),
                scope: detected.impaired.clone(),
                fault: Ratio::clamped(u64::from(detected.fault_ppm)),
                alerts: Vec::new(),
                snapshot: snapshot.digest(),
                since: Timestamp(detected.onset_ms),
            },
        )?;
        self.settle("detect", &detected, batch).await?;
        self.say_detected(&detected, readings);
        self.spent(1);
        self.agreed(effective, detected)
    }

    /// Whether enough observers say impaired.
    fn agreed(&self, effective: &Effective, detected: Detected) -> Result<Detected, Stop> {
        if detected.votes_impaired >= effective.tier.observers.k {
            return Ok(detected);
        }
        Err(Stop::escalate(format!(
            "G208 only {} of {} observers see trouble around `{}`; {} must. If a person knows better, ask again while it lasts",
            detected.votes_impaired, detected.votes_asked, self.brief.target, effective.tier.observers.k
        )))
    }

    fn say_detected(&self, detected: &Detected, readings: &[ObserverReading]) {
        let percent = Ratio::clamped(u64::from(detected.fault_ppm));
        self.say(format!(
            "fault scope    {} ({} of all services)",
            list_or(&detected.impaired, "nothing measured"),
            whole_percent(percent)
        ));
        let all = if detected.votes_impaired == detected.votes_asked { ": all agree" } else { "" };
        let verdict = format!("say impaired{all}");
        self.say(format!("observers      {} of {} {verdict}", detected.votes_impaired, detected.votes_asked));
        for reading in readings {
            let lied = self.brief.lying_observer.as_ref() == Some(&reading.observer);
            let answer = match reading.impaired {
                Some(true) => "impaired",
                Some(false) => "healthy",
                None => "unknown",
            };
            let note = match lied {
                true if reading.impaired == Some(true) => "told to say the opposite of what it sees".to_owned(),
                true => "told to lie, outvoted".to_owned(),
                false => reading.seen.clone(),
            };
            self.say(format!("               {:<8} {:<9} {note}", reading.observer, answer));
        }
    }

    /// Stage 2: the intent, signed by the detector.
    ///
    /// # Errors
    /// The store refuses.
    pub(crate) async fn intend(&mut self, effective: &Effective, detected: &Detected) -> Result<Intended, Stop> {
        if let Some(done) = self.recorded("intent.1") {
            return Ok(done);
        }
        let started = Timestamp(self.brief.asked_at_ms);
        let expires = started.plus(effective.tier.limits.t_budget);
        let snapshot = self.app.telemetry.snapshot();
        let mut batch = self.batch();
        let votes = detected.votes.iter().filter_map(|text| Digest::parse(text)).collect();
        let statement = batch.record(
            &self.app.keys.detector,
            Intent {
                id: format!("int/{}/1", self.id),
                revision: 1,
                parent: None,
                reason: IntentReason::Detect,
                class: effective.class_name.clone(),
                tier: effective.tier_name.clone(),
                scope: Scope {
                    services: detected.impaired.clone(),
                    shards: Vec::new(),
                    tenants: Vec::new(),
                    zones: Vec::new(),
                    fault: Ratio::clamped(u64::from(detected.fault_ppm)),
                    action: Ratio::clamped(u64::from(detected.fault_ppm)),
                },
                parameters: BTreeMap::new(),
                mutable: mutable(effective),
                claims: Claims::default(),
                observers: Observers {
                    votes,
                    k: effective.tier.observers.k,
                    n: effective.tier.observers.n,
                    disagreement: Ratio::clamped(u64::from(detected.disagreement_ppm)),
                },
                bound: Bound {
                    config: Vec::new(),
                    topology: snapshot.digest(),
                    provenance: Vec::new(),
                    topology_epoch: snapshot.epoch(),
                    versions: BTreeMap::new(),
                },
                evidence: Vec::new(),
                t_budget: effective.tier.limits.t_budget,
                started_at: started,
                expires_at: expires,
            },
        )?;
        let intended = Intended {
            statement: statement.to_string(),
            tier: effective.tier_name.clone(),
            expires_at_ms: expires.0,
            started_at_ms: started.0,
        };
        self.settle("intent.1", &intended, batch).await?;
        self.say(format!(
            "intent         {} signed: the request · class {} · limits of tier {}",
            statement.short(),
            effective.class_name,
            effective.tier_name
        ));
        self.spent(2);
        Ok(intended)
    }
}

/// The service and everything it calls, directly or not.
#[must_use]
pub(crate) fn with_callees(snapshot: &Snapshot, target: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::from([target.to_owned()]);
    let mut open = vec![target.to_owned()];
    while let Some(name) = open.pop() {
        let below = snapshot.edges().iter().filter(|edge| edge.caller == name && edge.is_blocking());
        open.extend(
            below
                .filter(|edge| reached.insert(edge.callee.clone()))
                .map(|edge| edge.callee.clone())
                .collect::<Vec<_>>(),
        );
    }
    reached
}

/// Names joined, or a word for none.
#[must_use]
pub(crate) fn list_or(names: &[String], none: &str) -> String {
    if names.is_empty() { none.to_owned() } else { names.join(", ") }
}

/// A share in whole percent, rounded up.
#[must_use]
pub(crate) fn whole_percent(share: Ratio) -> String {
    format!("{}%", share.ppm().div_ceil(10_000))
}

/// What makes two detections the same incident.
#[must_use]
pub(crate) fn fingerprint(target: &str) -> Digest {
    Digest::of_parts(&[b"fingerprint\0", target.as_bytes()])
}

/// Votes of one failure domain collapse to one; unequal ones to unknown.
fn tally(readings: &[ObserverReading], scope: &FaultScope, snapshot: &Snapshot, since: Timestamp) -> Detected {
    let mut domains: BTreeMap<&str, Option<bool>> = BTreeMap::new();
    for reading in readings {
        domains
            .entry(&reading.zone)
            .and_modify(|said| *said = said.filter(|said| Some(*said) == reading.impaired))
            .or_insert(reading.impaired);
    }
    let asked = domains.len() as u64;
    let impaired = domains.values().filter(|said| **said == Some(true)).count() as u64;
    let healthy = domains.values().filter(|said| **said == Some(false)).count() as u64;
    let agreeing = Ratio::down(impaired.max(healthy), asked).unwrap_or(Ratio::ZERO);
    let universe = snapshot.services().count() as u64;
    Detected {
        onset_ms: scope.onset.map_or(since, |onset| onset.min(since)).0,
        impaired: scope.impaired.clone(),
        suspects: scope.suspects.clone(),
        fault_ppm: Ratio::up(scope.impaired.len() as u64, universe).unwrap_or(Ratio::ONE).ppm(),
        votes_impaired: impaired,
        votes_asked: asked,
        disagreement_ppm: 1_000_000 - agreeing.ppm(),
        votes: Vec::new(),
        class: RESTARTS.to_owned(),
    }
}

fn vote(reading: &ObserverReading, target: &str, now: Timestamp) -> Vote {
    Vote {
        observer: reading.observer.clone(),
        domain: reading.zone.clone(),
        scope: vec![target.to_owned()],
        answer: match reading.impaired {
            Some(true) => Answer::Impaired,
            Some(false) => Answer::Healthy,
            None => Answer::Unknown,
        },
        sampled_at: now,
        signals: vec![reading.signals],
        note: reading.seen.clone(),
    }
}

fn mutable(effective: &Effective) -> Vec<Mutable> {
    let ranges = effective.class.mutable.iter();
    let record = |(name, range): (&String, &governance::policy::MutableRange)| Mutable {
        name: name.clone(),
        min: range.min,
        max: range.max,
        step: range.step,
        safer_up: range.safer_up,
    };
    ranges.map(record).collect()
}

/// How many a closure names, in words.
#[must_use]
pub(crate) fn closure_words(closure: &Closure) -> String {
    match closure {
        Closure::Members(names) => names.len().to_string(),
        Closure::MoreThan(count) => format!("more than {count}"),
    }
}

#[cfg(test)]
mod tests;
