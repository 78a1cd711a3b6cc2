use super::super::report::{Machine, place};
use super::GroupsOptions;
use super::measure::{Found, Throughput};
use recovery::testkit::{PAPER, Shape};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct GroupsReport {
    /// 99th percentile of a full rebuild with the start order of everything, 20,000 services and 90,000 edges, µs.
    pub rebuild_p99_us_20k: f64,
    /// 99th percentile of one query at that size, µs.
    pub query_p99_us_20k: f64,
    /// 99th percentile of one query at 5,459 services and 11,690 edges, µs.
    pub query_p99_us_paper: f64,
    /// 99th percentile from the last span of a window to the group, 20,000 services, µs.
    pub end_to_end_p99_us_20k: f64,
    /// 99th percentile of one query of the paper's algorithm at 5,459 services and 11,690 edges, µs.
    pub baseline_query_p99_us_paper: f64,
    /// Decoded spans joined per second of one processor.
    pub ingest_spans_per_s: f64,
    /// Spans decoded from OTLP protobuf and joined per second of one processor.
    pub otlp_spans_per_s: f64,
    /// Largest resident memory of the whole process with 100,000 edges and 20,000 spans a second, MiB.
    pub rss_mb_100k_edges: f64,
    /// Both throughputs per second of elapsed time.
    pub elapsed_spans_per_s: (f64, f64),
    /// More processes were runnable than there are processors: not to be published.
    pub noisy: bool,
    /// The sizes were those of a self-test: not to be published.
    pub quick: bool,
    /// Networks drawn per shape.
    pub seeds: u64,
    /// The shape of the paper.
    pub paper: AtSize,
    /// Twenty thousand services.
    pub t20k: AtSize,
    /// From small to large.
    pub growth: Vec<Growth>,
    /// Where it was measured.
    pub machine: Machine,
    /// Runnable processes over the last minute when the run ended.
    pub load_after: f64,
}

/// What was measured at one size.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AtSize {
    /// Services of one network.
    pub services: u32,
    /// Edges of one network.
    pub edges: u32,
    /// A full rebuild with the start order of everything, µs.
    pub rebuild_us: Quantiles,
    /// Group, order, waves, callers, blast radius and permission of one service, µs.
    pub query_us: Quantiles,
    /// From the last span of a window, which brings an edge, to the group, µs.
    pub end_to_end_us: Quantiles,
    /// The paper's algorithm for one symptom on the graph in memory, µs.
    pub baseline_query_us: Quantiles,
    /// Services that reach one over hard or unknown edges, without a cap.
    pub callers: Quantiles,
    /// What the groups missed of the coupling that is true.
    pub misses: Misses,
    /// What the paper's algorithm missed of it.
    pub baseline_misses: Misses,
    /// Services in the restart order of the paper's algorithm: everything below the symptom.
    pub baseline_services: Quantiles,
    /// Of these, services that it drains first.
    pub baseline_drained: Quantiles,
    #[serde(skip)]
    samples: [Vec<f64>; 7],
}

/// The spread of several figures.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Quantiles {
    /// The middle.
    pub p50: f64,
    /// 90 of 100.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// The largest.
    pub max: f64,
    /// How many there were.
    pub count: usize,
}

/// Answers about services that are coupled with others in truth.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Misses {
    /// Services asked for.
    pub asked: u64,
    /// Answers that lack a service which must restart too.
    pub missed: u64,
    /// Answers above the cap: no group restart.
    pub refused: u64,
    /// Services in the answers that need not restart.
    pub needless: u64,
}

/// One row of the table of growth.
#[derive(Clone, Debug, Serialize)]
pub struct Growth {
    /// Services.
    pub services: u32,
    /// Edges between them.
    pub edges: usize,
    /// As in [`AtSize`].
    pub rebuild_us: Quantiles,
    /// As in [`AtSize`].
    pub query_us: Quantiles,
    /// As in [`AtSize`].
    pub baseline_query_us: Quantiles,
}

impl Quantiles {
    pub(super) fn of(mut values: Vec<f64>) -> Quantiles {
        values.sort_unstable_by(f64::total_cmp);
        let at = |part| values.get(place(values.len(), part)).copied().unwrap_or(0.0);
        Quantiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0), count: values.len() }
    }

    fn said(&self) -> String {
        let Quantiles { p50, p90, p99, max, .. } = self;
        format!("{p50:>10.1} {p90:>10.1} {p99:>10.1} {max:>10.1}")
    }
}

impl Misses {
    pub(super) fn count(&mut self, truth: &BTreeSet<u32>, answer: Option<BTreeSet<u32>>) {
        self.asked += 1;
        match answer {
            None => self.refused += 1,
            Some(found) => {
                self.missed += u64::from(!truth.is_subset(&found));
                self.needless += found.difference(truth).count() as u64;
            }
        }
    }

    fn add(&mut self, more: &Misses) {
        self.asked += more.asked;
        self.missed += more.missed;
        self.refused += more.refused;
        self.needless += more.needless;
    }

    fn said(&self) -> String {
        let Misses { asked, missed, refused, needless } = self;
        format!("{missed} of {asked} answers lack a member, {refused} refused, {needless} needless members")
    }
}

impl AtSize {
    fn take(&mut self, found: Found) {
        let Found { rebuild, query, end_to_end, baseline, callers, ordered, drained, misses, baseline_misses } = found;
        let more = [rebuild, query, end_to_end, baseline, callers, ordered, drained];
        for (all, more) in self.samples.iter_mut().zip(more) {
            all.extend(more);
        }
        let [rebuild, query, end_to_end, baseline, callers, ordered, drained] = self.samples.clone().map(Quantiles::of);
        (self.baseline_services, self.baseline_drained) = (ordered, drained);
        (self.rebuild_us, self.query_us, self.end_to_end_us) = (rebuild, query, end_to_end);
        (self.baseline_query_us, self.callers) = (baseline, callers);
        self.misses.add(&misses);
        self.baseline_misses.add(&baseline_misses);
    }
}

impl GroupsReport {
    pub(super) fn new(machine: Machine, options: &GroupsOptions) -> GroupsReport {
        GroupsReport {
            rebuild_p99_us_20k: 0.0,
            query_p99_us_20k: 0.0,
            query_p99_us_paper: 0.0,
            end_to_end_p99_us_20k: 0.0,
            baseline_query_p99_us_paper: 0.0,
            ingest_spans_per_s: 0.0,
            otlp_spans_per_s: 0.0,
            rss_mb_100k_edges: 0.0,
            elapsed_spans_per_s: (0.0, 0.0),
            noisy: machine.load > machine.processors as f64,
            quick: options.quick,
            seeds: options.seeds,
            paper: AtSize::default(),
            t20k: AtSize::default(),
            growth: Vec::new(),
            load_after: machine.load,
            machine,
        }
    }

    pub(super) fn memory(&mut self, mib: f64) {
        self.rss_mb_100k_edges = mib;
    }

    pub(super) fn throughput(&mut self, found: Throughput) {
        (self.ingest_spans_per_s, self.otlp_spans_per_s) = (found.ingest.0, found.otlp.0);
        self.elapsed_spans_per_s = (found.ingest.1, found.otlp.1);
    }

    /// Adds what was measured on one network.
    pub(super) fn add(&mut self, shape: Shape, found: Found) {
        let sized = if shape.name == PAPER.name { &mut self.paper } else { &mut self.t20k };
        (sized.services, sized.edges) = (shape.services, shape.edges);
        sized.take(found);
        self.rebuild_p99_us_20k = self.t20k.rebuild_us.p99;
        self.query_p99_us_20k = self.t20k.query_us.p99;
        self.query_p99_us_paper = self.paper.query_us.p99;
        self.end_to_end_p99_us_20k = self.t20k.end_to_end_us.p99;
        self.baseline_query_p99_us_paper = self.paper.baseline_query_us.p99;
    }

    pub(super) fn ended(&mut self, load: f64) {
        self.load_after = load;
        self.noisy |= load > self.machine.processors as f64 + 1.0;
    }
}

/// The run as text.
#[must_use]
pub fn text(report: &GroupsReport) -> String {
    let Machine { processors, model, kernel, memory_mib, load } = &report.machine;
    let mut out = String::new();
    // Writing to memory cannot fail.
    let _ = writeln!(
        out,
        "{processors} processors ({model}), {memory_mib} MiB, Linux {kernel}, load {load:.1} before, {:.1} after",
        report.load_after
    );
    if report.noisy {
        let _ = writeln!(out, "NOISY: other work ran beside it; do not publish these figures");
    }
    if report.quick {
        let _ = writeln!(out, "QUICK: the sizes of a self-test; the figures say nothing");
    }
    for (name, sized) in [("paper", &report.paper), ("t20k", &report.t20k)] {
        let _ =
            writeln!(out, "\n{name}: {} services, {} edges, {} networks", sized.services, sized.edges, report.seeds);
        let _ = writeln!(out, "{:<28} {:>10} {:>10} {:>10} {:>10}", "µs", "p50", "p90", "p99", "max");
        for (what, quantiles) in [
            ("rebuild and order", sized.rebuild_us),
            ("query", sized.query_us),
            ("last span to group", sized.end_to_end_us),
            ("the paper's algorithm", sized.baseline_query_us),
            ("callers (services)", sized.callers),
            ("the paper's order (services)", sized.baseline_services),
        ] {
            let _ = writeln!(out, "{what:<28} {}", quantiles.said());
        }
        let _ = writeln!(out, "groups: {}", sized.misses.said());
        let _ = writeln!(out, "the paper's algorithm: {}", sized.baseline_misses.said());
    }
    let (ingest, otlp) = report.elapsed_spans_per_s;
    let _ = writeln!(out, "\nper second of one processor (of elapsed time):");
    let _ = writeln!(out, "decoded spans joined   {:>12.0} ({ingest:.0})", report.ingest_spans_per_s);
    let _ = writeln!(out, "OTLP decoded, joined   {:>12.0} ({otlp:.0})", report.otlp_spans_per_s);
    let _ = writeln!(out, "resident with 100,000 edges and 20,000 spans/s: {:.0} MiB\n", report.rss_mb_100k_edges);
    let _ = writeln!(out, "services    edges   rebuild p50      p99   query p50      p99   paper's p50      p99  (µs)");
    for row in &report.growth {
        let Growth { services, edges, rebuild_us, query_us, baseline_query_us } = row;
        let _ = writeln!(
            out,
            "{services:>8} {edges:>8}   {:>11.0} {:>8.0}   {:>9.1} {:>8.1}   {:>11.0} {:>8.0}",
            rebuild_us.p50, rebuild_us.p99, query_us.p50, query_us.p99, baseline_query_us.p50, baseline_query_us.p99
        );
    }
    out
}
