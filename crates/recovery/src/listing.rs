//! The whole graph as people and programs read it: every service with how sure the graph is of it, and every edge.
//! Names are data, and whoever prints them escapes them.

use crate::graph::{EdgeView, ServiceView, Snapshot};
use base::{Ratio, Timestamp};
use serde::{Deserialize, Serialize};

/// A graph, listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// When it was asked for, milliseconds since 1970.
    pub at_ms: i64,
    /// End of the newest span in it; absent: none.
    pub newest_ms: Option<i64>,
    /// Raised by every structural change.
    pub epoch: u64,
    /// The structure alone, in SHA-256; the same evidence gives the same digest.
    pub digest: String,
    /// The services, by name.
    pub services: Vec<ServiceLine>,
    /// The edges, by caller, then callee.
    pub edges: Vec<EdgeLine>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLine {
    /// Its name.
    pub name: String,
    /// `service`, `opaque`, `store` or `queue`.
    pub kind: String,
    /// Services that call it.
    pub callers: u32,
    /// Services it calls.
    pub callees: u32,
    /// Services that must restart with it.
    pub coupled: Vec<String>,
    /// Requests watched: ways in or executions, whichever are fewer.
    pub trials: u64,
    /// Both of its bounds are low enough for full permission.
    pub mature: bool,
    /// Upper bound of the ways in that were never seen, ppm.
    pub miss_in_ppm: u32,
    /// Upper bound of the calls out that were never seen, ppm.
    pub miss_out_ppm: u32,
    /// Permission to restart it with what is coupled to it: `full`, `cautious` or `refused`.
    pub permission: String,
    /// Why it is not full.
    pub reasons: Vec<String>,
}

/// One edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeLine {
    /// Who calls.
    pub caller: String,
    /// Who is called.
    pub callee: String,
    /// `sync`, `async`, `store` or `declared`.
    pub kind: String,
    /// `hard`, `soft` or `unknown`.
    pub hardness: String,
    /// Answers treat it as hard.
    pub treated_as_hard: bool,
    /// A topology file names it.
    pub declared: bool,
    /// Calls ever seen.
    pub calls: u64,
    /// First seen, milliseconds since 1970; absent: never.
    pub first_seen_ms: Option<i64>,
    /// Last seen; absent: never.
    pub last_seen_ms: Option<i64>,
}

impl Listing {
    /// Lists a snapshot; permissions are judged at `now`.
    #[must_use]
    pub fn of(snapshot: &Snapshot, now: Timestamp) -> Listing {
        let views = snapshot.services().filter_map(|name| Some((name, snapshot.service(name)?)));
        Listing {
            at_ms: now.0,
            newest_ms: snapshot.newest().map(|newest| newest.0),
            epoch: snapshot.epoch(),
            digest: snapshot.digest().to_string(),
            services: views.map(|(name, view)| service(snapshot, name, view, now)).collect(),
            edges: snapshot.edges().iter().map(edge).collect(),
        }
    }
}

fn service(snapshot: &Snapshot, name: &str, view: &ServiceView, now: Timestamp) -> ServiceLine {
    let members = snapshot.coupled_closure(&[name]);
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    let permission = snapshot.permission(&members, now);
    // Two counters are asked: what comes in, and what goes out.
    let bound = |tally: &crate::miss::Tally| tally.bound(snapshot.config().alpha, 2);
    let (inward, outward): (Ratio, Ratio) = (bound(&view.inward), bound(&view.outward));
    ServiceLine {
        name: name.to_owned(),
        kind: view.kind.word().to_owned(),
        callers: view.fan_in,
        callees: view.fan_out,
        coupled: view.coupled.clone(),
        trials: view.trials(),
        mature: inward.max(outward) <= snapshot.config().miss_max,
        miss_in_ppm: inward.ppm(),
        miss_out_ppm: outward.ppm(),
        permission: permission.level.word().to_owned(),
        reasons: permission.reasons.iter().map(ToString::to_string).collect(),
    }
}

fn edge(view: &EdgeView) -> EdgeLine {
    EdgeLine {
        caller: view.caller.clone(),
        callee: view.callee.clone(),
        kind: view.kind.word().to_owned(),
        hardness: view.hardness.word().to_owned(),
        treated_as_hard: view.is_hard(),
        declared: view.declared,
        calls: view.calls,
        first_seen_ms: view.first_seen.map(|at| at.0),
        last_seen_ms: view.last_seen.map(|at| at.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Config, replay};
    use crate::span::Span;

    #[test]
    fn a_listing_names_services_and_edges_with_what_is_known_of_them() {
        let span = |id, parent, service: &str| Span {
            trace: 1,
            id,
            parent,
            service: service.to_owned(),
            name: "work".into(),
            start_us: 1_700_000_000_000_000,
            duration_us: 1_000 / id,
            authenticated: true,
            ..Span::default()
        };
        let spans = [span(1, None, "front"), span(2, Some(1), "back")];
        let (graph, now) = replay(&Config::default(), None, &spans).unwrap();
        let listing = Listing::of(&graph.snapshot(now), now);
        let services: Vec<_> =
            listing.services.iter().map(|line| (line.name.as_str(), line.callers, line.callees, line.trials)).collect();
        assert_eq!(services, [("back", 1, 0, 1), ("front", 0, 1, 1)]);
        let lines: Vec<_> =
            listing.edges.iter().map(|line| (line.caller.as_str(), line.callee.as_str(), line.calls)).collect();
        assert_eq!(lines, [("front", "back", 1)]);
        assert!(!listing.services[0].mature && listing.services[0].permission == "refused", "{listing:?}");
        let written = serde_json::to_string(&listing).unwrap();
        assert_eq!(serde_json::from_str::<Listing>(&written).unwrap(), listing);
    }
}
