use super::snapshot::Snapshot;
use super::views::ServiceView;
use base::{Ratio, Timestamp};
use std::collections::BTreeSet;

base::word_enum! {
    /// How much a plan may do on the strength of the graph, least first.
    pub enum Level {
        /// Nothing.
        Refused = 1 "refused",
        /// One instance at a time, drained first, previewed.
        Cautious = 2 "cautious",
        /// What its budgets allow.
        Full = 3 "full",
    }
}

base::word_enum! {
    /// Why a permission is not full.
    pub enum ReasonKind {
        /// The graph does not know the service.
        Unknown = 1 "unknown service",
        /// The newest span is too old, or spans were joined for too short a time.
        Stale = 2 "stale",
        /// Too many spans could not be joined.
        Coverage = 3 "coverage",
        /// The miss bound is too high.
        Immature = 4 "immature",
        /// Too few trials and no second source.
        Blind = 5 "blind",
        /// A co-restart or a missed dependency hangs over it.
        Suspected = 6 "suspected",
    }
}

base::record! {
    /// One reason, with the service it is about.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Reason {
        /// What.
        1 pub kind: ReasonKind,
        /// About whom; absent: about the whole answer.
        2 pub service: Option<String>,
    }
}

base::record! {
    /// How sure the graph is about a set of services.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Permission {
        /// The level.
        1 pub level: Level,
        /// The largest bound of the unseen mass, paths in and calls out, over the set.
        2 pub miss_ppm: u32,
        /// Of the paths in alone.
        3 pub miss_in_ppm: u32,
        /// Of the calls out alone.
        4 pub miss_out_ppm: u32,
        /// Share of spans that could be joined.
        5 pub coverage_ppm: u32,
        /// The fewest trials of a member.
        6 pub trials: u64,
        /// Surprises in the closed windows of the members.
        7 pub surprises: u64,
        /// Age of the newest span; absent without spans.
        8 pub age_ms: Option<u64>,
        /// Why it is not full.
        9 pub reasons: Vec<Reason>,
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.service {
            Some(service) => write!(f, "{service}: {}", self.kind),
            None => write!(f, "{}", self.kind),
        }
    }
}

impl Permission {
    /// Whether a reason of this kind stands.
    #[must_use]
    pub fn because(&self, kind: ReasonKind) -> bool {
        self.reasons.iter().any(|reason| reason.kind == kind)
    }
}

impl Snapshot {
    /// How sure the graph is about restarting or shifting the traffic of `set`, judged at `now`.
    #[must_use]
    pub fn permission(&self, set: &[&str], now: Timestamp) -> Permission {
        let mut names: Vec<&str> = set.to_vec();
        names.sort_unstable();
        names.dedup();
        let union = 2 * u64::try_from(names.len()).unwrap_or(u64::MAX).max(1);
        let mut reasons = Vec::new();
        let (mut miss_in, mut miss_out) = (Ratio::ZERO, Ratio::ZERO);
        let (mut trials, mut surprises) = (u64::MAX, 0);
        for name in &names {
            let reason = |kind| Reason { kind, service: Some((*name).to_owned()) };
            let Some(view) = self.service(name) else {
                (miss_in, miss_out, trials) = (Ratio::ONE, Ratio::ONE, 0);
                reasons.push(reason(ReasonKind::Unknown));
                continue;
            };
            let inward = view.inward.bound(self.0.config.alpha, union);
            let outward = view.outward.bound(self.0.config.alpha, union);
            (miss_in, miss_out) = (miss_in.max(inward), miss_out.max(outward));
            trials = trials.min(view.trials());
            surprises += view.inward.surprises() + view.outward.surprises();
            if inward.max(outward) > self.0.config.miss_max {
                reasons.push(reason(ReasonKind::Immature));
            }
            // A second source stands for trials that are missing.
            if view.trials() < self.0.config.trials_min && !view.declared {
                reasons.push(reason(ReasonKind::Blind));
            }
            if view.suspected {
                reasons.push(reason(ReasonKind::Suspected));
            }
        }
        let coverage = self.coverage(&names);
        if coverage < self.0.config.coverage_full {
            reasons.push(Reason { kind: ReasonKind::Coverage, service: None });
        }
        if self.is_stale(now) {
            reasons.push(Reason { kind: ReasonKind::Stale, service: None });
        }
        let refusing =
            |reason: &Reason| matches!(reason.kind, ReasonKind::Unknown | ReasonKind::Stale | ReasonKind::Blind);
        let level = if names.is_empty() || coverage < self.0.config.coverage_cautious || reasons.iter().any(refusing) {
            Level::Refused
        } else if reasons.is_empty() {
            Level::Full
        } else {
            Level::Cautious
        };
        Permission {
            level,
            miss_ppm: miss_in.max(miss_out).ppm(),
            miss_in_ppm: miss_in.ppm(),
            miss_out_ppm: miss_out.ppm(),
            coverage_ppm: coverage.ppm(),
            trials: if names.is_empty() { 0 } else { trials },
            surprises,
            age_ms: self.0.newest.map(|newest| now.since(newest).0),
            reasons,
        }
    }

    /// Whether the graph may not be used at `now`: no spans, too old ones, or too short a time of joining.
    #[must_use]
    pub fn is_stale(&self, now: Timestamp) -> bool {
        let (Some(newest), Some(since)) = (self.0.newest, self.0.joined_since) else { return true };
        now.since(newest) > self.0.config.snapshot_age_max || newest.since(since) < self.0.config.fresh_after
    }

    /// Share of spans that could be joined, over the set and its hard callers (of too many,
    /// the nearest), rounded down.
    fn coverage(&self, set: &[&str]) -> Ratio {
        let callers = self.callers_up_to(set, self.0.config.closure_max as usize + 1);
        let own = set.iter().filter_map(|name| self.0.order.find(name));
        let judged: BTreeSet<u32> = own.chain(callers).collect();
        let counts = judged.iter().map(|rank| self.0.coverage(*rank));
        let (seen, lost) = counts.fold((0, 0), |(seen, lost), own| (seen + own.0, lost + own.1));
        Ratio::down(seen - lost.min(seen), seen).unwrap_or(Ratio::ZERO)
    }
}

impl ServiceView {
    /// Trials of its paths in or its executions, whichever are fewer.
    #[must_use]
    pub fn trials(&self) -> u64 {
        self.inward.trials.min(self.outward.trials)
    }
}
