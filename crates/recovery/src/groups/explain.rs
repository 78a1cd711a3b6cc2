use super::{Group, GroupPolicy};
use crate::graph::{Closure, Evidence, Relation, Snapshot};
use base::Timestamp;
use serde::Serialize;

/// A group as people and programs read it; names are data, and whoever prints them escapes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What was asked for.
    pub targets: Vec<String>,
    /// What restarts together.
    pub restart: Vec<String>,
    /// Waves of blocks of members, in start order.
    pub waves: Vec<Vec<Vec<String>>>,
    /// What is drained first, and why.
    pub drain_first: Vec<DrainLine>,
    /// What must be up before what.
    pub order: Vec<OrderLine>,
    /// Share of root requests that visit the group on a blocking path, ppm.
    pub root_share_ppm: u32,
    /// The share is exact, not an upper bound.
    pub root_share_exact: bool,
    /// Hard callers; `None` when more than can be named.
    pub hard_callers: Option<Vec<String>>,
    /// How many, at least.
    pub hard_callers_at_least: u32,
    /// Expected loss in requests.
    pub loss_requests: u64,
    /// Permission: `full`, `cautious` or `refused`.
    pub level: &'static str,
    /// Why it is not full.
    pub reasons: Vec<String>,
    /// Requests watched, the fewest of a member.
    pub trials: u64,
    /// Surprises among them.
    pub surprises: u64,
    /// Upper bound of what differs unseen, paths in, ppm.
    pub miss_in_ppm: u32,
    /// Upper bound of what differs unseen, calls out, ppm.
    pub miss_out_ppm: u32,
    /// Error probability of the bounds, ppm.
    pub alpha_ppm: u32,
    /// Share of spans joined, ppm.
    pub coverage_ppm: u32,
    /// Edges of the group that are both declared and seen.
    pub declared_and_seen: u32,
    /// Edges of the group that are declared.
    pub declared: u32,
}

/// One member that is drained first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DrainLine {
    /// The member.
    pub service: String,
    /// Its callers.
    pub fan_in: u32,
    /// Above this many callers it is drained.
    pub fan_in_max: u32,
    /// Milli-requests in flight that a cut would fail.
    pub inflight_milli: u64,
}

/// One dependency that orders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OrderLine {
    /// Up first.
    pub first: String,
    /// Then this one.
    pub then: String,
    /// `calls`, `needs at start` or `coupled with`.
    pub relation: &'static str,
    /// Of a call: `hard` or `unknown`.
    pub hardness: Option<&'static str>,
    /// Of a call: `sync`, `async`, `store` or `declared`.
    pub kind: Option<&'static str>,
    /// Of a call: calls seen.
    pub calls: u64,
    /// Of a call: milliseconds since it was last seen.
    pub last_seen_ms_ago: Option<u64>,
    /// Where it is known from.
    pub source: String,
}

impl Explanation {
    /// Explains a group of `snapshot`.
    #[must_use]
    pub fn of(snapshot: &Snapshot, targets: &[&str], group: &Group, policy: &GroupPolicy) -> Explanation {
        let hard_callers = match &group.blast.callers {
            Closure::Members(names) => Some(names.clone()),
            Closure::MoreThan(_) => None,
        };
        let from = group.members.iter().flat_map(|name| snapshot.edges_from(name));
        let into = group.members.iter().flat_map(|name| snapshot.edges_into(name));
        let edges = from.chain(into.filter(|edge| !group.members.contains(&edge.caller)));
        let declared: Vec<_> = edges.filter(|edge| edge.declared).collect();
        let seen = declared.iter().filter(|edge| edge.calls > 0).count();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Explanation {
            targets: targets.iter().map(|name| (*name).to_owned()).collect(),
            restart: group.members.clone(),
            waves: group.waves.clone(),
            drain_first: group.drain_first.iter().map(|name| DrainLine::of(snapshot, name, policy)).collect(),
            order: group.order.iter().map(|evidence| OrderLine::of(evidence, policy.now)).collect(),
            root_share_ppm: group.blast.root_share_ppm,
            root_share_exact: group.blast.root_share_exact,
            hard_callers,
            hard_callers_at_least: group.blast.callers.at_least(),
            loss_requests: group.blast.loss_requests,
            level: group.permission.level.word(),
            reasons: group.permission.reasons.iter().map(ToString::to_string).collect(),
            trials: group.permission.trials,
            surprises: group.permission.surprises,
            miss_in_ppm: group.permission.miss_in_ppm,
            miss_out_ppm: group.permission.miss_out_ppm,
            alpha_ppm: snapshot.config().alpha.ppm(),
            coverage_ppm: group.permission.coverage_ppm,
            declared_and_seen: count(seen),
            declared: count(declared.len()),
        }
    }
}

impl DrainLine {
    fn of(snapshot: &Snapshot, name: &str, policy: &GroupPolicy) -> DrainLine {
        let view = snapshot.service(name);
        DrainLine {
            service: name.to_owned(),
            fan_in: view.map_or(0, |view| view.fan_in),
            fan_in_max: policy.drain_fan_in,
            inflight_milli: view.map_or(0, crate::graph::ServiceView::inflight_milli),
        }
    }
}

impl OrderLine {
    fn of(evidence: &Evidence, now: Timestamp) -> OrderLine {
        let call = evidence.relation == Relation::Call;
        OrderLine {
            first: evidence.callee.clone(),
            then: evidence.caller.clone(),
            relation: evidence.relation.word(),
            hardness: evidence.hardness.filter(|_| call).map(|hardness| hardness.word()),
            kind: evidence.kind.map(|kind| kind.word()),
            calls: evidence.calls,
            last_seen_ms_ago: evidence.last_seen.map(|at| now.since(at).0),
            source: evidence.source.clone(),
        }
    }
}
