//! What was measured, for people and for programs.

use super::drive::Outcome;
use super::{Options, Workload};
use serde::Serialize;
use std::fmt::Write as _;
use std::time::Duration;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where it was measured.
    pub machine: Machine,
    /// The server, if it was given.
    pub url: Option<String>,
    /// Seconds of each measured window.
    pub window_s: f64,
    /// What was run.
    pub workloads: Vec<&'static str>,
    /// What no server can be faster than here.
    pub floor: Floor,
    /// The loads.
    #[serde(rename = "loads")]
    pub rows: Vec<Row>,
    /// The effects.
    pub effects: Vec<Effect>,
}

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Processors.
    pub processors: usize,
    /// Their name.
    pub model: String,
    /// The kernel.
    pub kernel: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Runnable processes over the last minute when the run began.
    pub load: f64,
}

/// The floor.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Floor {
    /// A handler on the same HTTP stack that does nothing.
    pub echo: Vec<Row>,
    /// Bytes written before each sync.
    pub sync_bytes: usize,
    /// How many there were.
    pub syncs: u64,
    /// Median of one write with sync, in microseconds.
    pub sync_p50_us: f64,
    /// 99th percentile of the same.
    pub sync_p99_us: f64,
}

/// One load.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The workload.
    pub workload: String,
    /// Its connections.
    pub connections: usize,
    /// Answers within the window.
    pub requests: u64,
    /// Answers other than 200; none in a good run.
    pub wrong: u64,
    /// The first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_wrong: Option<String>,
    /// Answers per second.
    pub per_second: f64,
    /// Latencies in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// 999 of 1000.
    pub p999_ms: f64,
    /// The server's processor time per request in microseconds, where its process is known.
    pub server_cpu_us: Option<f64>,
    /// This program's own.
    pub own_cpu_us: f64,
}

/// One effect.
#[derive(Clone, Debug, Serialize)]
pub struct Effect {
    /// What it is.
    pub effect: String,
    /// Its unit.
    pub unit: &'static str,
    /// The figure; of several the median.
    pub value: f64,
    /// 99 of 100, where there were several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
    /// How often it was measured.
    pub count: u64,
    /// Under which circumstances.
    pub note: String,
}

/// How long something took, several times.
#[derive(Clone, Debug, Default)]
pub(super) struct Spread(Vec<Duration>);

impl Spread {
    pub(super) fn add(&mut self, took: Duration) {
        self.0.push(took);
    }
}

impl Effect {
    pub(super) fn one(effect: &str, unit: &'static str, value: f64) -> Effect {
        Effect { effect: effect.to_owned(), unit, value, p99: None, count: 1, note: String::new() }
    }

    /// Durations in milliseconds.
    pub(super) fn spread(effect: &str, unit: &'static str, spread: &Spread) -> Effect {
        let mut sorted = spread.0.clone();
        sorted.sort_unstable();
        let at = |part| sorted.get(place(sorted.len(), part)).map_or(0.0, |took| took.as_secs_f64() * 1e3);
        Effect { p99: Some(at(0.99)), count: sorted.len() as u64, ..Effect::one(effect, unit, at(0.5)) }
    }

    pub(super) fn with(self, note: String) -> Effect {
        Effect { note, ..self }
    }

    pub(super) fn said(&self) -> String {
        let Effect { effect, unit, value, p99, note, .. } = self;
        let p99 = p99.map(|p99| format!(", p99 {p99:.2}")).unwrap_or_default();
        let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
        format!("{effect}: {value:.2}{p99} {unit}{note}")
    }
}

impl Row {
    pub(super) fn of(workload: &str, connections: usize, outcome: &mut Outcome) -> Row {
        outcome.latencies.sort_unstable();
        let sorted = &outcome.latencies;
        let at = |part| sorted.get(place(sorted.len(), part)).map_or(0.0, |nanos| f64::from(*nanos) / 1e6);
        let requests = sorted.len() as u64;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / (requests.max(1) as f64);
        let (wrong, first_wrong) = outcome.wrong.take().map_or((0, None), |(count, first)| (count, Some(first)));
        Row {
            workload: workload.to_owned(),
            connections,
            requests,
            wrong,
            first_wrong,
            per_second: requests as f64 / outcome.elapsed.as_secs_f64(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            server_cpu_us: outcome.server_cpu.map(each),
            own_cpu_us: each(outcome.own_cpu),
        }
    }

    pub(super) fn said(&self) -> String {
        let cpu = self.server_cpu_us.map(|cpu| format!(", {cpu:.1} µs of the server's CPU each")).unwrap_or_default();
        format!("{:.0}/s, p50 {:.2} ms, p99 {:.2} ms{cpu}", self.per_second, self.p50_ms, self.p99_ms)
    }
}

/// Where in a sorted list so large a part of it lies below.
pub(super) fn place(len: usize, part: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "between 0 and the length")]
    let rank = (len as f64 * part).ceil() as usize;
    rank.saturating_sub(1).min(len.saturating_sub(1))
}

impl Report {
    pub(super) fn new(options: &Options) -> Report {
        Report {
            machine: Machine::here(),
            url: options.url.clone(),
            window_s: options.window.as_secs_f64(),
            workloads: options.workloads.iter().copied().map(Workload::name).collect(),
            floor: Floor::default(),
            rows: Vec::new(),
            effects: Vec::new(),
        }
    }

    /// Whether every answer was the right one.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.rows.iter().chain(&self.floor.echo).all(|row| row.wrong == 0)
    }
}

impl Machine {
    pub(super) fn here() -> Machine {
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let value = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let kib: u64 = value(&read("/proc/meminfo"), "MemTotal").trim_end_matches("kB").trim().parse().unwrap_or(0);
        Machine {
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            model: value(&read("/proc/cpuinfo"), "model name"),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_mib: kib / 1_024,
            load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        }
    }
}

/// The run as text.
#[must_use]
pub fn text(report: &Report) -> String {
    let Machine { processors, model, kernel, memory_mib, load } = &report.machine;
    let mut out = String::new();
    // Writing to memory cannot fail.
    let _ = writeln!(out, "{processors} processors ({model}), {memory_mib} MiB, Linux {kernel}, load {load:.1} before");
    let floor = &report.floor;
    let _ = writeln!(
        out,
        "one write of {} bytes with a full sync: p50 {:.0} µs, p99 {:.0} µs\n",
        floor.sync_bytes, floor.sync_p50_us, floor.sync_p99_us
    );
    let head = ["workload", "conns", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs", "own µs"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(floor.echo.iter().chain(&report.rows).map(columns));
    table(&mut out, &rows);
    for row in report.rows.iter().filter(|row| row.wrong > 0) {
        let first = row.first_wrong.as_deref().unwrap_or_default();
        let _ = writeln!(out, "WRONG: {} answers of {}; the first: {first}", row.wrong, row.workload);
    }
    if !report.effects.is_empty() {
        out.push('\n');
        for effect in &report.effects {
            let _ = writeln!(out, "{}", effect.said());
        }
    }
    out
}

fn columns(row: &Row) -> [String; 8] {
    [
        row.workload.clone(),
        row.connections.to_string(),
        format!("{:.0}", row.per_second),
        format!("{:.2}", row.p50_ms),
        format!("{:.2}", row.p99_ms),
        format!("{:.2}", row.p999_ms),
        row.server_cpu_us.map_or_else(|| "?".to_owned(), |cpu| format!("{cpu:.1}")),
        format!("{:.1}", row.own_cpu_us),
    ]
}

fn table(out: &mut String, rows: &[[String; 8]]) {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = width(column).unwrap_or(0);
            let _ = if column == 0 { write!(line, "{cell:<width$}") } else { write!(line, "  {cell:>width$}") };
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_smallest_that_so_many_do_not_exceed() {
        assert_eq!((place(100, 0.5), place(100, 0.99), place(100, 0.999)), (49, 98, 99));
        assert_eq!((place(1, 0.5), place(1, 0.999), place(0, 0.5)), (0, 0, 0));
    }

    #[test]
    fn the_times_of_a_row_are_per_request() {
        let mut outcome = Outcome {
            latencies: vec![3_000_000, 1_000_000, 2_000_000, 4_000_000],
            elapsed: Duration::from_secs(2),
            server_cpu: Some(Duration::from_millis(100)),
            own_cpu: Duration::from_millis(20),
            wrong: Some((1, "404: no".to_owned())),
        };
        let row = Row::of("create", 2, &mut outcome);
        assert_eq!((row.requests, row.wrong, row.per_second), (4, 1, 2.0));
        assert_eq!((row.p50_ms, row.p99_ms, row.server_cpu_us, row.own_cpu_us), (2.0, 4.0, Some(25_000.0), 5_000.0));
    }
}
