//! How fast a server of the recovery protocol is: rates, latencies, the server's processor time per request, and what
//! people feel of it (how soon a worker is told, what a long workflow's steps cost, how soon a dead worker is succeeded).
//!
//! It speaks nothing but the public protocol, so that it measures any server of it. The same run measures the floor: a
//! handler on the same HTTP stack that does nothing, and one write with a full sync on the same disk.

mod caller;
mod drive;
mod effects;
mod floor;
mod groups;
mod process;
mod report;
mod requests;
mod workload;

pub use floor::echo;
pub use groups::{AtSize, GroupsOptions, GroupsReport, Growth, Misses, Quantiles, groups, groups_text};
pub use report::{Effect, Floor, Report, Row, text};
pub use workload::Workload;

use anyhow::{Context as _, Result};
use drive::{Load, Outcome};
use process::Own;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// LIMIT: connections of one load.
pub const LOAD_CONNECTIONS_MAX: usize = 1_024;
/// LIMIT: seconds of one measured window.
pub const WINDOW_SECONDS_MAX: f64 = 3_600.0;
/// How long a load runs before it is measured, where the window is long enough to allow it.
const WARM_UP: Duration = Duration::from_secs(1);

/// What is measured, where and how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address of the server; absent = servers of its own, each on an empty directory.
    pub url: Option<String>,
    /// The server's process, where its address is given.
    pub pid: Option<u32>,
    /// What is run.
    pub workloads: Vec<Workload>,
    /// Numbers of connections; each workload runs with each.
    pub connections: Vec<usize>,
    /// The measured window.
    pub window: Duration,
    /// How many promises [`Workload::Memory`] makes.
    pub promises: u64,
    /// The program that servers are started from.
    pub program: PathBuf,
    /// Where the servers of its own keep their files; it exists.
    pub directory: PathBuf,
    /// Distinguishes the ids of this run from those of any other on the same server.
    pub run: String,
}

/// The server that is measured.
pub(crate) struct Target {
    pub(crate) address: String,
    pub(crate) pid: Option<u32>,
    own: Option<Own>,
}

/// Runs what is asked; `say` is told what happens.
///
/// # Errors
/// A server that cannot be reached or does not answer, or a file that cannot be written.
pub fn run(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Report> {
    let mut report = Report::new(options);
    say("the floor: an HTTP handler that does nothing, and a write with a full sync");
    report.floor = floor::measure(options).context("the floor")?;
    for workload in &options.workloads {
        if workload.is_load() {
            for connections in &options.connections {
                say(&format!("{} with {connections} connections", workload.name()));
                let row = load(options, *workload, *connections).with_context(|| workload.name().to_owned())?;
                say(&format!("  {}", row.said()));
                report.rows.push(row);
            }
        } else {
            say(workload.name());
            let found = effects::measure(options, *workload, say).with_context(|| workload.name().to_owned())?;
            found.iter().for_each(|effect| say(&format!("  {}", effect.said())));
            report.effects.extend(found);
        }
    }
    Ok(report)
}

/// The given server, or a fresh one.
pub(crate) fn target(options: &Options) -> Result<Target> {
    if let Some(url) = &options.url {
        let address = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/').to_owned();
        return Ok(Target { address, pid: options.pid, own: None });
    }
    let own = Own::start(&options.program, &options.directory)?;
    Ok(Target { address: own.address.clone(), pid: Some(own.pid()), own: Some(own) })
}

fn load(options: &Options, workload: Workload, connections: usize) -> Result<Row> {
    let target = target(options)?;
    let run = format!("{}-{}-{connections}", options.run, workload.name().replace('_', "-"));
    let mut script = workload::Script::new(workload, &run, connections);
    let mut wrong = None;
    if let Some(mut before) = script.preparation() {
        wrong = drive::all(&target.address, connections, &mut before)?.wrong;
    }
    let load = Load { connections, warm_up: WARM_UP.min(options.window), window: options.window, pid: target.pid };
    let mut outcome = drive::window(&target.address, &load, &mut |connection, n, body| {
        script.body(connection, n, body);
        true
    })?;
    outcome.wrong = wrong.or(outcome.wrong);
    if let Some(own) = target.own {
        own.end();
    }
    Ok(row(workload.name(), connections, &mut outcome))
}

fn row(workload: &str, connections: usize, outcome: &mut Outcome) -> Row {
    Row::of(workload, connections, outcome)
}

/// Now, for measuring how long something took.
#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock, and it does so here")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_connections_than_the_limit_are_refused() {
        let nothing = &mut |_: usize, _: u64, _: &mut Vec<u8>| false;
        let refused = drive::all("127.0.0.1:1", LOAD_CONNECTIONS_MAX + 1, nothing).err().unwrap();
        assert!(refused.to_string().contains(&LOAD_CONNECTIONS_MAX.to_string()), "{refused:#}");
        assert!(WINDOW_SECONDS_MAX > WARM_UP.as_secs_f64());
    }
}
