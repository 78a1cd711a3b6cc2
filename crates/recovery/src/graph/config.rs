use base::{Millis, Ratio};

base::record! {
    /// Windows and thresholds of the graph; the defaults are the documented ones, a policy overrides them.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Config {
        /// What "before onset" means.
        1 pub baseline: Millis,
        /// An objective missed this long is an impairment.
        2 pub impaired_for: Millis,
        /// A graph that joined spans for less than this is stale.
        3 pub fresh_after: Millis,
        /// A counter whose miss bound is at most this is mature.
        4 pub miss_max: Ratio,
        /// A snapshot whose newest span is older is stale.
        5 pub snapshot_age_max: Millis,
        /// Coverage is judged over this long.
        6 pub coverage_window: Millis,
        /// How long a retry storm lasts before it is called metastable.
        7 pub metastable_for: Millis,
        /// An edge unseen for this long may leave the graph.
        8 pub edge_ttl: Millis,
        /// Rates forget half in this time.
        9 pub half_life: Millis,
        /// Time a child may arrive after its parent; one generation of the join.
        10 pub join: Millis,
        /// Error probability of all miss bounds of one plan together.
        11 pub alpha: Ratio,
        /// Coverage needed for full permission.
        12 pub coverage_full: Ratio,
        /// Coverage needed for cautious permission.
        13 pub coverage_cautious: Ratio,
        /// Trials needed for cautious permission without a second source.
        14 pub trials_min: u64,
        /// Hard callers named at most.
        15 pub closure_max: u32,
        /// Services at most; further ones are dropped and counted.
        16 pub services_max: u32,
        /// Operations of one service at most; further ones fold to `*`.
        17 pub ops_per_service_max: u32,
        /// A second is judged when it ended this long ago.
        18 pub settle: Millis,
        /// How long a restarted instance is assumed to be out.
        19 pub restart_out: Millis,
        /// Deepest trace followed; below, spans count as lost.
        20 pub depth_max: u32,
        /// Edges between operations at most, and operations; further ones fold to `*`.
        21 pub edges_max: u32,
    }
}

impl Default for Config {
    fn default() -> Config {
        let percent = |count: u64| Ratio::clamped(count * 10_000);
        Config {
            baseline: Millis(60_000),
            impaired_for: Millis(10_000),
            fresh_after: Millis(60_000),
            miss_max: percent(1),
            snapshot_age_max: Millis(600_000),
            coverage_window: Millis(600_000),
            metastable_for: Millis(30_000),
            edge_ttl: Millis(35 * 86_400_000),
            half_life: Millis(600_000),
            join: Millis(30_000),
            alpha: percent(5),
            coverage_full: percent(95),
            coverage_cautious: percent(80),
            trials_min: 64,
            closure_max: 256,
            services_max: 65_536,
            ops_per_service_max: 1_024,
            settle: Millis(500),
            restart_out: Millis(10_000),
            depth_max: 128,
            edges_max: 1_048_576,
        }
    }
}

impl Config {
    /// How long the per-second counts are kept: long enough to judge an onset against its baseline.
    #[must_use]
    pub fn history(&self) -> Millis {
        let judged = self.impaired_for.0.max(self.metastable_for.0);
        Millis((2 * self.baseline.0 + 2 * judged).max(60_000))
    }
}
