//! The native invariants. Each reads one signal of its own, whose name is the invariant's subject, and
//! whose readings come from outside the process being recovered.

use super::{
    Durability, EpochWrite, Evaluation, Holding, LeaseSpan, Needs, QuorumPhase, Rates, Reading, ReplayState, Signals,
    WaveCapacity,
};
use base::{Digest, Millis};
use std::collections::{BTreeMap, BTreeSet};

/// What a comparison found: value, bound, margin, and a witness where it is violated.
struct Found {
    value: i64,
    bound: i64,
    margin: i64,
    unit: &'static str,
    witness: Option<String>,
}

/// Evaluates a native invariant. Signals: `leases`, `writes`, `quorums`, `replay`, `states`, `durability`,
/// `waves`, `rates`, each with its own name as unit.
#[must_use]
pub fn evaluate(id: &str, signals: &Signals, needs: &Needs) -> Evaluation {
    let name = match id {
        "lease-unique" => "leases",
        "epoch-monotone" => "writes",
        "quorum-intersect" => "quorums",
        "replay-bounded" => "replay",
        "state-convergent" => "states",
        "no-acknowledged-loss" => "durability",
        "capacity-floor" => "waves",
        "progress" => "rates",
        _ => return Evaluation::not_evaluable(id, format!("no invariant `{id}`")),
    };
    let signal = match signals.resolve(name, name, needs.max_age, needs.sources_min) {
        Ok(signal) => signal,
        Err(why) => return Evaluation::not_evaluable(id, why),
    };
    let found = match (id, &signal.reading) {
        ("lease-unique", Reading::Leases(spans)) => Ok(lease_unique(spans, needs.clock_uncertainty)),
        ("epoch-monotone", Reading::Writes(writes)) => Ok(epoch_monotone(writes)),
        ("quorum-intersect", Reading::Quorums(phases)) => quorum_intersect(phases),
        ("replay-bounded", Reading::Replay(replay)) => Ok(replay_bounded(replay, needs)),
        ("state-convergent", Reading::States(states)) => state_convergent(states),
        ("no-acknowledged-loss", Reading::Durability(durability)) => Ok(no_acknowledged_loss(durability, needs)),
        ("capacity-floor", Reading::Waves(waves)) => Ok(capacity_floor(waves, needs.headroom_ppm)),
        ("progress", Reading::Rates(rates)) => Ok(progress(rates)),
        _ => Err(format!("signal `{name}` is of the wrong type")),
    };
    let Found { value, bound, margin, unit, witness } = match found {
        Ok(found) => found,
        Err(why) => return Evaluation::not_evaluable(id, why),
    };
    Evaluation {
        id: id.to_owned(),
        outcome: if witness.is_some() { Holding::Violated } else { Holding::Holds },
        why: None,
        value: Some(value),
        bound: Some(bound),
        margin: Some(margin),
        unit: unit.to_owned(),
        witness,
        inputs: vec![(name.to_owned(), signal.age.0)],
    }
}

fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// At most one valid holder: of two that overlap, a higher token taken later fences the other.
fn lease_unique(spans: &[LeaseSpan], uncertainty: Millis) -> Found {
    let mut by_resource: BTreeMap<&str, Vec<&LeaseSpan>> = BTreeMap::new();
    for span in spans {
        by_resource.entry(&span.resource).or_default().push(span);
    }
    let mut clashes = Vec::new();
    for spans in by_resource.values_mut() {
        spans.sort_by_key(|span| (span.from, span.token));
        for (at, first) in spans.iter().enumerate() {
            for second in spans.iter().skip(at + 1) {
                let overlap = second.from.minus(uncertainty) < first.until.plus(uncertainty);
                let fenced = second.token > first.token;
                if first.holder != second.holder && overlap && !fenced {
                    clashes.push(format!(
                        "{}: `{}` and `{}` both held it from {} to {} with tokens {} and {}",
                        first.resource,
                        first.holder,
                        second.holder,
                        second.from.0,
                        first.until.0.min(second.until.0),
                        first.token,
                        second.token
                    ));
                }
            }
        }
    }
    let value = count(clashes.len());
    Found { value, bound: 0, margin: -value, unit: "clashes", witness: clashes.into_iter().next() }
}

/// No node accepted a write with a lower epoch than one it accepted before.
fn epoch_monotone(writes: &[EpochWrite]) -> Found {
    let mut highest: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut falls = Vec::new();
    for write in writes.iter().filter(|write| write.accepted) {
        let seen = highest.entry(&write.node).or_insert((0, 0));
        let now = (write.epoch, write.version);
        if now < *seen {
            falls.push(format!(
                "{} accepted epoch {}.{} of `{}` after {}.{}",
                write.node, now.0, now.1, write.actor, seen.0, seen.1
            ));
        }
        *seen = now.max(*seen);
    }
    let value = count(falls.len());
    Found { value, bound: 0, margin: -value, unit: "falls", witness: falls.into_iter().next() }
}

/// Any two quorums of a configuration and of its successor meet.
fn quorum_intersect(phases: &[QuorumPhase]) -> Result<Found, String> {
    let mut sets: BTreeMap<&str, Vec<&QuorumPhase>> = BTreeMap::new();
    for phase in phases {
        let members: BTreeSet<&String> = phase.members.iter().collect();
        let whole = u64::try_from(members.len()).unwrap_or(u64::MAX);
        if phase.threshold == 0 || phase.threshold > whole || members.len() != phase.members.len() {
            return Err(format!("{} {}: {} of {whole} members is no quorum", phase.set, phase.phase, phase.threshold));
        }
        sets.entry(&phase.set).or_default().push(phase);
    }
    let mut least: Option<i64> = None;
    let mut witness = None;
    for phases in sets.values() {
        let pairs = phases.iter().zip(phases.iter()).chain(phases.iter().zip(phases.iter().skip(1)));
        for (old, new) in pairs {
            let shared = overlap(old, new);
            least = Some(least.map_or(shared, |least| least.min(shared)));
            if shared < 1 && witness.is_none() {
                witness = Some(disjoint_pair(old, new));
            }
        }
    }
    let value = least.unwrap_or(1);
    Ok(Found { value, bound: 1, margin: value - 1, unit: "shared members", witness })
}

/// The fewest members that a quorum of `old` and one of `new` can share, by threshold arithmetic; exact
/// for every size, so no enumeration is needed.
fn overlap(old: &QuorumPhase, new: &QuorumPhase) -> i64 {
    let theirs: BTreeSet<&String> = new.members.iter().collect();
    let common = old.members.iter().filter(|member| theirs.contains(member)).count();
    let from_common =
        |phase: &QuorumPhase| (int(phase.threshold) - (count(phase.members.len()) - count(common))).max(0);
    from_common(old) + from_common(new) - count(common)
}

fn disjoint_pair(old: &QuorumPhase, new: &QuorumPhase) -> String {
    let pick = |phase: &QuorumPhase, other: &QuorumPhase, not: &[String]| {
        let (mut own, mut shared): (Vec<String>, Vec<String>) =
            phase.members.iter().cloned().partition(|member| !other.members.contains(member));
        shared.retain(|member| !not.contains(member));
        own.extend(shared);
        own.truncate(usize::try_from(phase.threshold).unwrap_or(usize::MAX));
        own
    };
    let first = pick(old, new, &[]);
    let second = pick(new, old, &first);
    format!(
        "{}: {{{}}} of phase {} and {{{}}} of phase {} share nobody",
        old.set,
        first.join(", "),
        old.phase,
        second.join(", "),
        new.phase
    )
}

fn replay_bounded(replay: &ReplayState, needs: &Needs) -> Found {
    let broken = replay.gap.as_ref().map(|gap| format!("{gap} is missing"));
    let broken = broken.or_else(|| replay.duplicate.as_ref().map(|key| format!("{key} was applied twice")));
    let over = |what: &str, value: u64, bound: u64| (value > bound).then(|| format!("{value} {what}, allowed {bound}"));
    let broken = broken.or_else(|| over("entries", replay.entries, needs.replay_entries_max));
    let broken = broken.or_else(|| over("bytes", replay.bytes, needs.replay_bytes_max));
    let broken = broken.or_else(|| over("ms", replay.took.0, needs.replay_max.0));
    let (value, bound) = (int(replay.entries), int(needs.replay_entries_max));
    Found { value, bound, margin: bound.saturating_sub(value), unit: "entries", witness: broken }
}

fn state_convergent(states: &BTreeMap<String, Digest>) -> Result<Found, String> {
    let (name, first) = states.first_key_value().ok_or("no replica's state was read")?;
    let other = states.iter().find(|(_, digest)| *digest != first);
    let witness = other.map(|(other, digest)| format!("{name} has {}, {other} has {}", first.short(), digest.short()));
    let differing = count(states.values().filter(|digest| *digest != first).count());
    Ok(Found { value: differing, bound: 0, margin: -differing, unit: "differing replicas", witness })
}

fn no_acknowledged_loss(durability: &Durability, needs: &Needs) -> Found {
    let lost = durability.acknowledged.saturating_sub(durability.durable);
    let witness = if lost > 0 {
        let keys = durability.lost.join(", ");
        Some(format!("{} acknowledged, {} still there; gone: {keys}", durability.acknowledged, durability.durable))
    } else if durability.unreplicated > needs.unreplicated_max {
        Some(format!("{} acknowledged on one member only, allowed {}", durability.unreplicated, needs.unreplicated_max))
    } else {
        None
    };
    Found { value: int(lost), bound: 0, margin: int(lost).saturating_neg(), unit: "lost writes", witness }
}

/// In every wave that takes out something that serves: capacity at least load with headroom, and a member.
fn capacity_floor(waves: &[WaveCapacity], headroom_ppm: u64) -> Found {
    let mut worst: Option<(i64, i64)> = None;
    let mut witness = None;
    for wave in waves.iter().filter(|wave| wave.takes_out_serving) {
        let needed = u128::from(wave.load_mrps) * u128::from(headroom_ppm);
        let needed = u64::try_from(needed.div_ceil(1_000_000)).unwrap_or(u64::MAX);
        let (capacity, bound) = (int(wave.capacity_mrps), int(needed));
        let margin = capacity.saturating_sub(bound);
        if worst.is_none_or(|(value, bound)| margin < value.saturating_sub(bound)) {
            worst = Some((capacity, bound));
        }
        if witness.is_none() && (margin < 0 || wave.members == 0) {
            witness = Some(format!(
                "wave {}: {} members left, capacity {} for a load of {} thousandths per second, needed {needed}",
                wave.wave, wave.members, wave.capacity_mrps, wave.load_mrps
            ));
        }
    }
    let (value, bound) = worst.unwrap_or((0, 0));
    Found { value, bound, margin: value.saturating_sub(bound), unit: "mrps", witness }
}

fn progress(rates: &Rates) -> Found {
    let (done, arriving) = (int(rates.done_mps), int(rates.arriving_mps));
    // No work arriving and none left to do is progress too: there is nothing to fall behind of.
    let behind = done <= arriving && arriving > 0;
    let witness = rates.crash_loop.clone();
    let witness =
        witness.or_else(|| behind.then(|| format!("{done} done, {arriving} arriving, in thousandths per second")));
    Found { value: done, bound: arriving, margin: done.saturating_sub(arriving), unit: "mps", witness }
}
