//! What must restart together, in which order, and who is hurt.
//!
//! Membership comes from coupling alone; calls give order and blast radius. A group is a pure function of
//! the snapshot and the policy.

mod explain;

pub use explain::{Explanation, OrderLine};

use crate::graph::{Blast, Evidence, Permission, ReasonKind, Relation, Snapshot};
use base::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Limits of a group, and the instance facts that were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPolicy {
    /// Members at most; above, no group restart ever.
    pub group_max: u32,
    /// A member with more callers is drained first.
    pub drain_fan_in: u32,
    /// A member with more requests in flight that would fail is drained first.
    pub drain_inflight: u64,
    /// When the question is asked; ages are judged against it.
    pub now: Timestamp,
    /// Instances by service, as read; a service without an entry counts as declared, all ready.
    pub instances: BTreeMap<String, Instances>,
}

/// Instances of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instances {
    /// How many there are.
    pub total: u32,
    /// Of these, ready.
    pub ready: u32,
}

base::record! {
    /// A recovery group.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Group {
        /// What restarts together, by name.
        1 pub members: Vec<String>,
        /// Waves in start order; of each its blocks, of each block its members. Blocks of one wave are
        /// independent.
        2 pub waves: Vec<Vec<Vec<String>>>,
        /// Members to drain before they restart.
        3 pub drain_first: Vec<String>,
        /// Who is hurt.
        4 pub blast: Blast,
        /// How sure the graph is.
        5 pub permission: Permission,
        /// The dependencies that order the members, and what each member needs outside the group.
        6 pub order: Vec<Evidence>,
    }
}

base::word_enum! {
    /// What a restart of one instance would break.
    pub enum Constraint {
        /// `min_available`.
        MinAvailable = 1 "min_available",
        /// The majority of `quorum_of`.
        Quorum = 2 "quorum_of",
    }
}

/// Why there is no group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// A target the graph does not know.
    #[error("no service `{0}` in the graph")]
    UnknownService(String),
    /// More members than may ever restart together.
    #[error("{at_least} services would restart together, more than {cap}: roll single instances under Drain instead")]
    TooLarge {
        /// Members found, at least.
        at_least: u32,
        /// The limit.
        cap: u32,
    },
    /// Not even one instance may be taken.
    #[error("restarting one instance of `{service}` would break {constraint}")]
    Unrestartable {
        /// The member.
        service: String,
        /// What would break.
        constraint: Constraint,
    },
    /// The newest span is too old, or spans were joined for too short a time.
    #[error("the graph is stale: {}", stale(*age_ms))]
    Stale {
        /// Age of the newest span; the greatest number without spans.
        age_ms: u64,
    },
    /// Too little was seen.
    #[error("too little was seen: {} of spans joined, {trials} requests watched", base::Ratio::clamped(u64::from(*coverage_ppm)))]
    Blind {
        /// Share of spans joined.
        coverage_ppm: u32,
        /// The fewest trials of a member.
        trials: u64,
    },
}

fn stale(age_ms: u64) -> String {
    match age_ms {
        u64::MAX => "no spans have arrived".to_owned(),
        age => format!("its newest span is {age} ms old, or spans were joined for too short a time"),
    }
}

impl GroupPolicy {
    /// The defaults, asked at `now`, with no instance facts.
    #[must_use]
    pub fn at(now: Timestamp) -> GroupPolicy {
        GroupPolicy { group_max: 30, drain_fan_in: 20, drain_inflight: 1, now, instances: BTreeMap::new() }
    }
}

/// The recovery group of the targets: their closure under coupling, ordered by need.
///
/// # Errors
/// An unknown target, a group that is too large or cannot restart, or a graph that may not be used.
pub fn group(snapshot: &Snapshot, targets: &[&str], policy: &GroupPolicy) -> Result<Group, GroupError> {
    let group = survey(snapshot, targets, policy)?;
    refused(&group.permission)?;
    let members: Vec<&str> = group.members.iter().map(String::as_str).collect();
    restartable(snapshot, &members, policy)?;
    Ok(group)
}

/// What was seen of the recovery group of the targets, also where [`group`] refuses: to be read, never to be acted on.
///
/// # Errors
/// An unknown target, or more members than may ever restart together.
pub fn survey(snapshot: &Snapshot, targets: &[&str], policy: &GroupPolicy) -> Result<Group, GroupError> {
    if let Some(unknown) = targets.iter().find(|name| !snapshot.contains(name)) {
        return Err(GroupError::UnknownService((*unknown).to_owned()));
    }
    let closure = snapshot.coupled_closure(targets);
    let size = u32::try_from(closure.len()).unwrap_or(u32::MAX);
    if size > policy.group_max {
        return Err(GroupError::TooLarge { at_least: size, cap: policy.group_max });
    }
    let members: Vec<&str> = closure.iter().map(String::as_str).collect();
    let permission = snapshot.permission(&members, policy.now);
    let needs = needs_among(snapshot, &closure);
    Ok(Group {
        waves: waves(&closure, &needs),
        drain_first: drain_first(snapshot, &members, policy),
        blast: snapshot.blast(&members),
        permission,
        order: order_evidence(snapshot, &closure),
        members: closure.into_iter().collect(),
    })
}

/// The undo and drain order is the reverse of the start order: callers' side first.
#[must_use]
pub fn drain_order(group: &Group) -> Vec<&str> {
    group.waves.iter().rev().flatten().flatten().map(String::as_str).collect()
}

/// Blocks of mutually needing members in waves: a block's wave is the longest path below it.
#[must_use]
pub fn waves(members: &BTreeSet<String>, needs: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<Vec<String>>> {
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        members.iter().map(|name| (name.as_str(), reachable(name, needs))).collect();
    let reaches = |from: &str, to: &str| reach.get(from).is_some_and(|below| below.contains(to));
    // The group is small (at most `group_max`), so reachability is the simplest correct component search.
    let mut blocks: Vec<Vec<&str>> = Vec::new();
    for name in members {
        let together =
            |block: &&mut Vec<&str>| block.first().is_some_and(|first| reaches(first, name) && reaches(name, first));
        match blocks.iter_mut().find(together) {
            Some(block) => block.push(name),
            None => blocks.push(vec![name]),
        }
    }
    let below = |block: &[&str], other: &[&str]| {
        block != other && block.first().zip(other.first()).is_some_and(|(upper, lower)| reaches(upper, lower))
    };
    let mut placed: Vec<Vec<Vec<&str>>> = Vec::new();
    while !blocks.is_empty() {
        let free = |block: &Vec<&str>| !blocks.iter().any(|other| below(block, other));
        let (wave, rest): (Vec<_>, Vec<_>) = blocks.iter().cloned().partition(free);
        // INVARIANT: blocks are whole components, so what is left always has one with nothing below it.
        assert!(!wave.is_empty(), "the order of blocks has a cycle");
        placed.push(wave);
        blocks = rest;
    }
    let owned = |block: Vec<&str>| block.into_iter().map(str::to_owned).collect();
    placed.into_iter().map(|wave| wave.into_iter().map(owned).collect()).collect()
}

fn reachable<'a>(from: &str, needs: &'a BTreeMap<String, BTreeSet<String>>) -> BTreeSet<&'a str> {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut open: Vec<&str> = needs.get(from).into_iter().flatten().map(String::as_str).collect();
    while let Some(name) = open.pop() {
        if seen.insert(name) {
            open.extend(needs.get(name).into_iter().flatten().map(String::as_str));
        }
    }
    seen
}

/// Who must be up before whom, among the members: start needs and hard calls.
fn needs_among(snapshot: &Snapshot, members: &BTreeSet<String>) -> BTreeMap<String, BTreeSet<String>> {
    let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut add = |who: &str, whom: &str| {
        if who != whom && members.contains(who) && members.contains(whom) {
            needs.entry(who.to_owned()).or_default().insert(whom.to_owned());
        }
    };
    for name in members {
        let start_needs = snapshot.service(name).map(|view| view.start_needs.as_slice()).unwrap_or_default();
        start_needs.iter().for_each(|other| add(name, other));
    }
    for name in members {
        snapshot.hard_callees(name).for_each(|callee| add(name, callee));
    }
    needs
}

fn refused(permission: &Permission) -> Result<(), GroupError> {
    if permission.level != crate::graph::Level::Refused {
        return Ok(());
    }
    if permission.because(ReasonKind::Stale) {
        return Err(GroupError::Stale { age_ms: permission.age_ms.unwrap_or(u64::MAX) });
    }
    Err(GroupError::Blind { coverage_ppm: permission.coverage_ppm, trials: permission.trials })
}

/// Whether at least one instance of every member may be taken. An instance that is not ready is out already
/// and breaks nothing.
fn restartable(snapshot: &Snapshot, members: &[&str], policy: &GroupPolicy) -> Result<(), GroupError> {
    for name in members {
        let Some(view) = snapshot.service(name) else { continue };
        let all = view.instance_count();
        let Instances { total, ready } =
            policy.instances.get(*name).copied().unwrap_or(Instances { total: all, ready: all });
        if ready < total {
            continue;
        }
        let fail = |constraint| Err(GroupError::Unrestartable { service: (*name).to_owned(), constraint });
        let left = ready.saturating_sub(1);
        if view.min_available.is_some_and(|least| left < least) {
            return fail(Constraint::MinAvailable);
        }
        if view.quorum_of.is_some_and(|voters| left < voters / 2 + 1) {
            return fail(Constraint::Quorum);
        }
    }
    Ok(())
}

fn drain_first(snapshot: &Snapshot, members: &[&str], policy: &GroupPolicy) -> Vec<String> {
    let must = |name: &&&str| {
        let Some(view) = snapshot.service(name) else { return true };
        let share = match policy.instances.get(**name) {
            // What a dead or hung instance holds is lost already.
            Some(Instances { total, ready }) if *total > 0 => {
                view.inflight_milli() * u64::from(*ready) / u64::from(*total)
            }
            _ => view.inflight_milli(),
        };
        view.fan_in > policy.drain_fan_in || share > policy.drain_inflight.saturating_mul(1_000)
    };
    members.iter().filter(must).map(|name| (*name).to_owned()).collect()
}

/// The hard calls and start needs of the members, inside the group and out of it.
fn order_evidence(snapshot: &Snapshot, members: &BTreeSet<String>) -> Vec<Evidence> {
    let all = members.iter().flat_map(|name| snapshot.needs(name));
    all.filter(|evidence| evidence.relation != Relation::Coupled || members.len() > 1).collect()
}

#[cfg(test)]
mod tests;
