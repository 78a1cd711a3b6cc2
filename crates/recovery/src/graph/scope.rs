use super::seconds::{Second, Seconds};
use super::snapshot::Snapshot;
use super::views::ServiceView;
use base::{Millis, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

base::record! {
    /// Which services are impaired, measured and not claimed.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct FaultScope {
        /// Services that miss their objective for long enough, or are unavailable.
        1 pub impaired: Vec<String>,
        /// Anomalous services below them, each reached through anomalous ones only; they never enlarge the scope.
        2 pub suspects: Vec<String>,
        /// Of the impaired: those reported unavailable.
        3 pub unavailable: Vec<String>,
        /// Share of root requests that visit an impaired service on a blocking path.
        4 pub root_share_ppm: u32,
        /// When the first of the impaired began to miss its objective; absent: only reported ones.
        5 pub onset: Option<Timestamp>,
        /// Instances seen lately of the impaired services.
        6 pub instances: BTreeMap<String, Vec<String>>,
        /// Failure domains declared for the impaired services.
        7 pub zones: Vec<String>,
    }
}

/// A run of bad seconds up to now.
struct Run {
    began: Timestamp,
    length: Millis,
}

impl Snapshot {
    /// The fault scope now. `since` is the onset, before which the suspects' baseline lies; `unavailable` are
    /// services that others judge unavailable: no ready replica, or the probe fails.
    #[must_use]
    pub fn fault_scope(&self, since: Timestamp, unavailable: &BTreeSet<String>) -> FaultScope {
        let mut impaired = unavailable.clone();
        let mut onset: Option<Timestamp> = None;
        for rank in self.0.ranks().filter(|rank| self.0.has_objective(*rank)) {
            let (name, Some(view)) = (self.0.order.name(rank), self.0.service(rank)) else { continue };
            let run = self.run_of(&view.seconds, |second| view.misses(second));
            if let Some(run) = run.filter(|run| run.length >= self.0.config.impaired_for) {
                impaired.insert(name.to_owned());
                onset = Some(onset.map_or(run.began, |known| known.min(run.began)));
            }
        }
        let suspects = self.suspects(&impaired, onset.map_or(since, |onset| onset.min(since)));
        let names: Vec<&str> = impaired.iter().map(String::as_str).collect();
        let views = || impaired.iter().filter_map(|name| Some((name, self.service(name)?)));
        FaultScope {
            root_share_ppm: self.blast(&names).root_share_ppm,
            instances: views().map(|(name, view)| (name.clone(), view.instances.clone())).collect(),
            zones: views()
                .flat_map(|(_, view)| view.zones.iter().cloned())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            suspects,
            unavailable: unavailable.iter().cloned().collect(),
            onset,
            impaired: impaired.into_iter().collect(),
        }
    }

    /// Whether a service has been impaired for long enough by its own objective.
    #[must_use]
    pub fn is_impaired(&self, service: &str) -> bool {
        let Some(view) = self.service(service) else { return false };
        let run = self.run_of(&view.seconds, |second| view.misses(second));
        run.is_some_and(|run| run.length >= self.0.config.impaired_for)
    }

    /// Whether a service is anomalous against its own baseline before `since`: errors up by a point, or a
    /// p99 of twice the usual, in every second with traffic for as long as an impairment takes. Without a
    /// baseline there is nothing to be anomalous against, and failures count as they are.
    #[must_use]
    pub fn is_anomalous(&self, service: &str, since: Timestamp) -> bool {
        let Some(view) = self.service(service) else { return false };
        let from = since.minus(self.0.config.baseline);
        let usual = view.seconds.sum(from, since);
        let usual_p99 = view.seconds.usual_p99_us(from, since).unwrap_or(u32::MAX);
        let odd = |second: &Second| {
            // errors/total >= usual errors/total + 1/100, in integers.
            let total = usual.total.max(1);
            let more_errors =
                100 * u64::from(second.errors) * total >= u64::from(second.total) * (100 * usual.errors + total);
            more_errors || u64::from(second.p99_us) >= 2 * u64::from(usual_p99)
        };
        self.run_of(&view.seconds, odd).is_some_and(|run| run.length >= self.0.config.impaired_for)
    }

    /// Whether a retry storm keeps itself alive at `service`: for long enough, at least two retries an
    /// execution on the edges into it, goodput below half of the baseline, and root arrivals at nine tenths
    /// of theirs or more.
    #[must_use]
    pub fn metastable(&self, service: &str) -> bool {
        let Some(view) = self.service(service) else { return false };
        let inward = Seconds(merged(self.edges_into(service).map(|edge| &edge.seconds)));
        let stormy = |second: &Second| second.marked > 0 && second.total >= second.marked.saturating_mul(3);
        let Some(run) = self.run_of(&inward, stormy) else { return false };
        if run.length < self.0.config.metastable_for {
            return false;
        }
        let (from, now) = (run.began.minus(self.0.config.baseline), run.began.plus(run.length));
        let roots = Seconds(merged(self.services().filter_map(|name| Some(&self.service(name)?.roots))));
        let Some(usual_roots) = roots.rate_mrps(from, run.began) else { return false };
        let good = |from, to| {
            let sum = view.seconds.sum(from, to);
            let rate = view.seconds.rate_mrps(from, to).unwrap_or(0);
            rate * (sum.total - sum.errors.min(sum.total)) / sum.total.max(1)
        };
        let usual_good = good(from, run.began);
        let window = |at: Timestamp| (at, at.plus(Millis(1_000)));
        let mut seconds = (0..run.length.0 / 1_000).map(|offset| window(run.began.plus(Millis(offset * 1_000))));
        let collapsed = seconds.all(|(from, to)| {
            10 * roots.rate_mrps(from, to).unwrap_or(0) >= 9 * usual_roots && 2 * good(from, to) < usual_good
        });
        collapsed && now > run.began
    }

    fn suspects(&self, impaired: &BTreeSet<String>, since: Timestamp) -> Vec<String> {
        let mut reached: BTreeSet<&str> = BTreeSet::new();
        let mut open: Vec<&str> = impaired.iter().map(String::as_str).collect();
        while let Some(name) = open.pop() {
            for edge in self.edges_from(name).filter(|edge| edge.is_hard()) {
                let callee = edge.callee.as_str();
                if !impaired.contains(callee) && !reached.contains(callee) && self.is_anomalous(callee, since) {
                    reached.insert(callee);
                    open.push(callee);
                }
            }
        }
        reached.into_iter().map(str::to_owned).collect()
    }

    /// The run of seconds with traffic, all bad, that reaches up to the newest settled second. Silence of
    /// more than the time an impairment takes ends what can be judged.
    fn run_of(&self, seconds: &Seconds, bad: impl Fn(&Second) -> bool) -> Option<Run> {
        let settled = self.0.taken_at.minus(self.0.config.settle);
        let newest = Timestamp(settled.0.div_euclid(1_000) * 1_000);
        let mut first = None;
        let mut last = None;
        for second in seconds.between(Timestamp(i64::MIN / 2), newest).rev() {
            if !bad(second) {
                break;
            }
            first = Some(second.at);
            last = last.or(Some(second.at));
        }
        let (began, ended) = (Timestamp(first? * 1_000), Timestamp(last? * 1_000 + 1_000));
        (newest.since(ended) <= self.0.config.impaired_for).then(|| Run { began, length: ended.since(began) })
    }
}

impl ServiceView {
    /// Whether a second misses the objective: more than 1% of requests over the p99, or too many errors.
    fn misses(&self, second: &Second) -> bool {
        let total = u64::from(second.total);
        let slow = self.objective_p99.is_some() && 100 * u64::from(second.marked) > total;
        let allowed = self.objective_error_ppm.map(|ppm| u64::from(ppm) * total);
        slow || allowed.is_some_and(|allowed| u64::from(second.errors) * 1_000_000 > allowed)
    }
}

/// Counts of several histories, second by second.
fn merged<'a>(histories: impl Iterator<Item = &'a Seconds>) -> Vec<Second> {
    let mut all: BTreeMap<i64, Second> = BTreeMap::new();
    for second in histories.flat_map(|seconds| &seconds.0) {
        let sum = all.entry(second.at).or_insert(Second { at: second.at, ..Second::default() });
        sum.total = sum.total.saturating_add(second.total);
        sum.errors = sum.errors.saturating_add(second.errors);
        sum.marked = sum.marked.saturating_add(second.marked);
        sum.p99_us = sum.p99_us.max(second.p99_us);
    }
    all.into_values().collect()
}
