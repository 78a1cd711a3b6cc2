//! How fast recovery groups are found, and how much is missed: this graph and the paper's algorithm on the same
//! drawn networks, in one run.

mod baseline;
mod load;
mod measure;
mod report;

pub use report::{AtSize, GroupsReport, Growth, Misses, Quantiles, text as groups_text};

use super::report::Machine;
use anyhow::Result;
use recovery::testkit::{PAPER, Shape, T20K};

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupsOptions {
    /// Networks drawn per shape, with the seeds 1, 2, ….
    pub seeds: u64,
    /// Rebuilds measured per network.
    pub rebuilds: u32,
    /// Services asked for per network, at most.
    pub queries: u32,
    /// Spans that the throughputs are measured over.
    pub spans: usize,
    /// Services of the networks in the table of growth.
    pub growth: &'static [u32],
    /// The sizes are those of a self-test: the figures say nothing.
    pub quick: bool,
}

impl GroupsOptions {
    /// What is published: ten networks of each shape.
    pub const FULL: GroupsOptions = GroupsOptions {
        seeds: 10,
        rebuilds: 100,
        queries: 20_000,
        spans: 1_000_000,
        growth: &[1_000, 3_000, 10_000, 30_000, 100_000],
        quick: false,
    };
    /// A look at whether it runs, in seconds, on small networks.
    pub const QUICK: GroupsOptions =
        GroupsOptions { seeds: 1, rebuilds: 5, queries: 50, spans: 5_000, growth: &[50, 200], quick: true };

    fn shape(&self, shape: Shape) -> Shape {
        if self.quick { Shape { services: shape.services / 10, edges: shape.edges / 10, ..shape } } else { shape }
    }
}

/// Measures; `say` is told what happens.
///
/// # Errors
/// A process status that cannot be read.
pub fn groups(options: &GroupsOptions, say: &mut dyn FnMut(&str)) -> Result<GroupsReport> {
    let mut report = GroupsReport::new(Machine::here(), options);
    say("memory at 100,000 edges, 20,000 spans a second for two windows of the join");
    report.memory(measure::memory(options)?);
    for shape in [PAPER, T20K] {
        for seed in 1..=options.seeds {
            say(&format!("{} with seed {seed}: rebuilds, queries, the paper's algorithm, misses", shape.name));
            let mut loaded = load::Loaded::new(options.shape(shape), seed, options);
            let mut found = measure::all(&loaded, options);
            measure::rebuilds(&mut loaded, options, &mut found);
            report.add(options.shape(shape), found);
        }
    }
    say("throughput: decoded spans, and OTLP protobuf");
    report.throughput(measure::throughput(options)?);
    for services in options.growth {
        say(&format!("growth: {services} services"));
        report.growth.push(measure::growth(*services, options));
    }
    report.ended(Machine::here().load);
    Ok(report)
}
