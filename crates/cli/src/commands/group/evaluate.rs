//! `stanch group evaluate`: what a graph misses that saw only a part of the traces.

use super::{file, text};
use crate::args::{EvaluateArgs, HoldoutName};
use crate::commands::{TOPOLOGY, topology};
use crate::failure::Failure;
use recovery::graph::{Config, Snapshot};
use recovery::holdout::{
    Covered, Evaluated, HOLDOUT_SPANS_MAX, Holdout, HoldoutError, Recording, Row, Share, evaluate,
};
use recovery::replay::Replay;
use recovery::span::Span;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// What a holdout answered, or why it cannot be evaluated here.
type Outcome = (Holdout, Result<Evaluated, String>);

pub(super) fn run(args: &EvaluateArgs) -> Result<u8, Failure> {
    let wanted: Vec<Holdout> = match args.holdout {
        None => Holdout::ALL.to_vec(),
        Some(HoldoutName::Time) => vec![Holdout::Time],
        Some(HoldoutName::Sampling) => vec![Holdout::Sampling],
        Some(HoldoutName::Fault) => vec![Holdout::Fault],
        Some(HoldoutName::Blackout) => vec![Holdout::Blackout],
    };
    let (spans, report) = file::spans(&args.traces, args.format, HOLDOUT_SPANS_MAX)?;
    let declared = args.declared.as_deref().map(topology).transpose()?;
    let calm = args.fault_free.clone().or_else(|| beside(&args.traces)).filter(|_| wanted.contains(&Holdout::Fault));
    let calm_spans = calm.as_deref().map(|path| file::spans(path, args.format, HOLDOUT_SPANS_MAX)).transpose()?;
    let refused = |error: &dyn std::fmt::Display| {
        Failure::file(args.declared.as_deref().unwrap_or(&args.traces), error).next(TOPOLOGY)
    };
    let config = Config::default();
    let recording = Recording {
        spans: &spans,
        fault_free: calm_spans.as_ref().map(|(spans, _)| spans.as_slice()),
        topology: declared.as_ref(),
    };
    let mut outcomes: Vec<Outcome> = Vec::new();
    for holdout in wanted {
        let found = match evaluate(&config, &recording, holdout) {
            Ok(found) => Ok(found),
            Err(HoldoutError::FaultFreeMissing) => {
                Err(format!("{}: name one with --fault-free FILE", HoldoutError::FaultFreeMissing))
            }
            Err(error) => return Err(refused(&error)),
        };
        outcomes.push((holdout, found));
    }
    let whole = graph(&config, &recording).map_err(|error| refused(&error))?;
    if args.json {
        out!("{}", as_json(&whole, &report, &outcomes, calm.as_deref())?);
    } else {
        print(&whole, &report, &outcomes, calm.as_deref());
    }
    Ok(if outcomes.iter().all(|(_, found)| found.as_ref().map_or(true, is_kept)) { 0 } else { 3 })
}

fn graph(config: &Config, recording: &Recording<'_>) -> Result<Snapshot, recovery::graph::GraphError> {
    let mut order: Vec<&Span> = recording.spans.iter().collect();
    order.sort_by_key(|span| (span.end_us(), span.trace, span.id));
    let mut replay = Replay::new(config, recording.topology)?;
    order.into_iter().for_each(|span| replay.take(span));
    let (graph, now) = replay.finish();
    Ok(graph.snapshot(now))
}

/// No claimed bound is broken, and at most half a percent of the decisions miss something at full permission.
fn is_kept(found: &Evaluated) -> bool {
    let missed = found.total.decision_fn;
    found.total.covered != Covered::False && missed.k.saturating_mul(200) <= missed.n
}

/// The recording without faults that stands beside a Nezha table: of the same system, which its name begins with, and
/// with `faultfree` in its name.
fn beside(traces: &Path) -> Option<PathBuf> {
    let own = file::stem(traces)?;
    let system = own.split('-').next()?;
    if own.contains("faultfree") {
        return None;
    }
    let folder = traces.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fits = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let table = name.ends_with(".spans.csv") || name.ends_with(".spans.csv.gz");
        table && name.split('-').next() == Some(system) && name.contains("faultfree")
    };
    let files = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    files.filter(fits).min()
}

fn as_json(
    whole: &Snapshot,
    report: &recovery::import::Report,
    outcomes: &[Outcome],
    calm: Option<&Path>,
) -> Result<Value, Failure> {
    let mut holdouts = Map::new();
    for (holdout, found) in outcomes {
        let value = match found {
            Ok(found) => serde_json::to_value(found).map_err(anyhow::Error::from)?,
            Err(why) => json!({ "not_evaluable": why }),
        };
        holdouts.insert(holdout.word().to_owned(), value);
    }
    Ok(json!({
        "services": whole.services().count(),
        "edges": whole.edges().len(),
        "traces": report.traces,
        "fault_free": calm.map(|path| path.display().to_string()),
        "import": report,
        "holdouts": holdouts,
    }))
}

fn print(whole: &Snapshot, report: &recovery::import::Report, outcomes: &[Outcome], calm: Option<&Path>) {
    let of = |number: usize, what: &str| text::count(number as u64, what);
    let (services, edges) = (of(whole.services().count(), "service"), of(whole.edges().len(), "edge"));
    out!("{services}, {edges} from {} of {}", text::count(report.kept, "span"), text::count(report.traces, "request"));
    if let Some(calm) = calm {
        out!("without faults: {}", text::plain(&calm.display().to_string()));
    }
    out!("each share with its 95% interval; at full permission a missed decision is one too many");
    for (holdout, found) in outcomes {
        out!("");
        match found {
            Err(why) => out!("{holdout}: not evaluable: {}", text::plain(why)),
            Ok(found) => {
                out!("{}", table(*holdout, found));
                out!("{}", verdict(&found.total));
            }
        }
    }
}

fn table(holdout: Holdout, found: &Evaluated) -> String {
    let title = format!("{holdout}: learned from");
    let head = [
        title.as_str(),
        "edges missed",
        "calls missed",
        "traces missed",
        "decisions missed",
        "of them at full",
        "decisions at full",
        "bound",
        "covered",
    ];
    let row = |row: &Row, name: &str| {
        vec![
            name.to_owned(),
            share(row.edge_fn),
            share(row.call_fn),
            share(row.trace_fn),
            share(row.decision_raw),
            share(row.decision_fn),
            share(row.full),
            row.bound.map_or("none".to_owned(), |bound| text::up(bound.ppm())),
            row.covered.to_string(),
        ]
    };
    let mut rows: Vec<Vec<String>> = found.rows.iter().map(|found| row(found, &found.learned)).collect();
    if found.rows.len() > 1 {
        rows.push(row(&found.total, "all of these"));
    }
    crate::commands::show::table(&head, rows)
}

fn verdict(total: &Row) -> String {
    let bound = match total.covered {
        Covered::NotClaimed => "no bound is claimed here".to_owned(),
        Covered::True => format!(
            "no bound is broken: {} compared, {} below what was observed, as chance makes some",
            text::count(total.bounds_checked, "bound"),
            total.bounds_below_observed
        ),
        Covered::False => "a bound is BROKEN".to_owned(),
    };
    format!(
        "{bound}; at full permission {} of {} missed something",
        total.decision_fn.k,
        text::count(total.full.k, "decision")
    )
}

/// `1.8% (1.2..2.6, 4 of 55)`.
fn share(share: Share) -> String {
    if share.n == 0 {
        return "–".to_owned();
    }
    let (low, high) = share.interval();
    let point = base::Ratio::up(share.k, share.n).map_or(0, base::Ratio::ppm);
    format!("{} [{}, {}] {}/{}", text::up(point), text::down(low.ppm()), text::up(high.ppm()), share.k, share.n)
}
