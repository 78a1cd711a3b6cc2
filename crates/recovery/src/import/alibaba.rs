//! The call graph tables of Alibaba's 2021 and 2022 traces. A row states one call: `rpcid` is its place in the tree
//! of its trace (`0.1.2` was made while `0.1` was answered), `um` the caller, `dm` the callee.

mod repair;

use super::input::{Grouped, Line, Lines, OPEN_RECORDS_MAX};
use super::{CSV_LINE_BYTES_MAX, ImportError, Options, Report, id};
use crate::span::{Kind, Peer, PeerKind, Span, bounded_name, kept_name};
use repair::{Standing, Stated};
use std::collections::BTreeMap;
use std::io::BufRead;

/// LIMIT: bytes of an rpcid; a longer one is no place in a tree that anybody follows.
pub const RPCID_BYTES_MAX: usize = 1_024;

/// Where the columns stand.
struct Columns {
    trace: usize,
    at: usize,
    rpc: usize,
    um: usize,
    kind: usize,
    dm: usize,
    interface: usize,
    rt: usize,
    count: usize,
}

/// One row, read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    rpc: String,
    stated: Stated,
    at_us: u64,
    duration_us: u64,
}

pub(super) fn read(
    input: &mut dyn BufRead,
    options: &Options<'_>,
    sink: &mut dyn FnMut(Span),
) -> Result<Report, ImportError> {
    let mut lines = Lines::new(input, CSV_LINE_BYTES_MAX);
    let columns = match lines.next()? {
        Some(Line::Text(header)) => columns(header)?,
        _ => return Err(ImportError::Unrecognized),
    };
    let mut report = Report::default();
    let mut open: Grouped<Row> = Grouped::new(OPEN_RECORDS_MAX);
    while let Some(line) = lines.next()? {
        let read = match line {
            Line::Text([]) => continue,
            Line::Text(line) => row(line, &columns),
            Line::TooLong => None,
        };
        let Some((trace, row)) = read else {
            report.drop("malformed");
            continue;
        };
        if let Some((trace, rows)) = open.push(trace, row) {
            emit(trace, rows, options, &mut report, sink);
        }
    }
    while let Some((trace, rows)) = open.pop() {
        emit(trace, rows, options, &mut report, sink);
    }
    Ok(report)
}

fn columns(header: &[u8]) -> Result<Columns, ImportError> {
    let text = String::from_utf8_lossy(header);
    let names: Vec<&str> = text.trim_start_matches('\u{feff}').split(',').map(str::trim).collect();
    let at = |wanted: &[&str]| {
        names.iter().position(|name| wanted.contains(name)).ok_or_else(|| ImportError::Malformed {
            line: 1,
            column: header.len() + 1,
            why: format!("no column `{}`", wanted.join("` or `")),
        })
    };
    Ok(Columns {
        trace: at(&["traceid"])?,
        at: at(&["timestamp"])?,
        rpc: at(&["rpcid", "rpc_id"])?,
        um: at(&["um"])?,
        kind: at(&["rpctype"])?,
        dm: at(&["dm"])?,
        interface: at(&["interface"])?,
        rt: at(&["rt"])?,
        count: names.len(),
    })
}

fn row(line: &[u8], columns: &Columns) -> Option<(u128, Row)> {
    let text = std::str::from_utf8(line).ok()?;
    let cells: Vec<&str> = text.split(',').map(str::trim).collect();
    if cells.len() != columns.count {
        return None;
    }
    let cell = |at: usize| cells.get(at).copied().unwrap_or("");
    let rpc = cell(columns.rpc);
    let parts =
        |rpc: &str| rpc.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    if rpc.len() > RPCID_BYTES_MAX || !parts(rpc) || is_missing(cell(columns.trace)) {
        return None;
    }
    let trace = Some(id(cell(columns.trace))).filter(|trace| *trace != 0)?;
    let stated = Stated {
        um: name(cell(columns.um)),
        dm: name(cell(columns.dm)),
        kind: cell(columns.kind).to_ascii_lowercase(),
        interface: name(cell(columns.interface)),
    };
    let row = Row {
        rpc: rpc.to_owned(),
        stated,
        at_us: cell(columns.at).parse::<u64>().ok()?.checked_mul(1_000)?,
        duration_us: duration(cell(columns.rt))?,
    };
    row.at_us.checked_add(row.duration_us)?;
    Some((trace, row))
}

/// R1: what stands for a missing name is none.
fn name(cell: &str) -> Option<String> {
    (!is_missing(cell)).then(|| bounded_name(cell))
}

fn is_missing(cell: &str) -> bool {
    matches!(cell, "" | "(?)" | "NAN" | "NaN" | "nan" | "UNKNOWN" | "UNAVAILABLE")
}

/// Milliseconds, whole or not; a negative number is the callee's side of the same call.
fn duration(cell: &str) -> Option<u64> {
    if is_missing(cell) {
        return Some(0);
    }
    let us = cell.parse::<f64>().ok()?.abs() * 1_000.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative and below 2^53")]
    let whole = |us: f64| us as u64;
    // A NaN is not below anything.
    (us < 9_007_199_254_740_992.0).then(|| whole(us))
}

/// Repairs one trace and hands its spans on.
fn emit(trace: u128, rows: Vec<Row>, options: &Options<'_>, report: &mut Report, sink: &mut dyn FnMut(Span)) {
    report.traces += 1;
    let mut stated: BTreeMap<String, Vec<Stated>> = BTreeMap::new();
    let mut times: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for row in rows {
        let time = times.entry(row.rpc.clone()).or_insert((row.at_us, row.duration_us));
        *time = (time.0.min(row.at_us), time.1.max(row.duration_us));
        let known = stated.entry(row.rpc).or_default();
        // R2: what states the same is one row.
        if known.contains(&row.stated) {
            report.duplicates += 1;
        } else if known.len() < repair::STATED_MAX {
            known.push(row.stated);
        } else {
            report.drop("too many rows of one call");
        }
    }
    let repaired = repair::repair(&stated);
    let mut below: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (rpc, time) in times.iter().filter_map(|(rpc, time)| Some((repair::parent(rpc)?, *time))) {
        below.entry(rpc).and_modify(|known| *known = time.min(*known)).or_insert(time);
    }
    let mut writer = Writer { trace, options, report, sink, times: &times, below, callers: BTreeMap::new() };
    for (hole, service) in &repaired.holes {
        writer.hole(hole, service);
    }
    for (rpc, call) in &repaired.calls {
        match call.standing {
            Standing::Kept | Standing::Filled(_) => writer.placed(rpc, &call.stated, stated.contains_key("0")),
            Standing::Detached | Standing::Orphan | Standing::Below => writer.unplaced(rpc, &call.stated, 0),
            Standing::NoCallee => writer.nowhere(rpc, &call.stated),
            Standing::Conflict => {}
        }
        // What another row states of the same call is an edge too, whichever of them has the position.
        let all = stated.get(rpc).map(Vec::as_slice).unwrap_or_default();
        let names = |one: &Stated| one.um.is_some() && one.dm.is_some();
        let others = all
            .iter()
            .zip(1..)
            .filter(|(one, _)| names(one) && (&one.um, &one.dm) != (&call.stated.um, &call.stated.dm));
        others.for_each(|(one, which)| writer.unplaced(rpc, one, which));
        match call.standing {
            Standing::Kept => writer.report.kept += 1,
            Standing::Filled(rule) => {
                writer.report.kept += 1;
                writer.report.repair(rule);
            }
            Standing::Orphan => {
                writer.report.orphans += 1;
                writer.report.drop(call.standing.word());
            }
            dropped => writer.report.drop(dropped.word()),
        }
        if call.twins {
            writer.report.repair("twin");
        }
    }
}

/// Writes the calls of one trace as spans: of each call the callee's, and where nothing else tells of the caller, the
/// caller's too.
struct Writer<'a, 'o> {
    trace: u128,
    options: &'a Options<'o>,
    report: &'a mut Report,
    sink: &'a mut dyn FnMut(Span),
    times: &'a BTreeMap<String, (u64, u64)>,
    /// The earliest call below each place, for places that no row states.
    below: BTreeMap<&'a str, (u64, u64)>,
    /// Callers that were written because no row states them.
    callers: BTreeMap<String, u64>,
}

impl Writer<'_, '_> {
    /// A call whose place is known.
    fn placed(&mut self, rpc: &str, stated: &Stated, has_root: bool) {
        let parent = repair::parent(rpc).filter(|parent| *parent != "0" || has_root);
        let above = match (parent, &stated.um) {
            (Some(parent), _) => Some(number(parent)),
            // A root that somebody called, of whom no row tells.
            (None, Some(um)) if um != repair::OUTSIDE => Some(self.caller(&format!("root {um}"), um, None, rpc)),
            (None, _) => None,
        };
        self.call(rpc, number(rpc), stated, above);
    }

    /// A call whose place is not known: its edge is stated, so it is kept, under a caller with a lost parent.
    fn unplaced(&mut self, rpc: &str, stated: &Stated, which: u32) {
        if stated.dm.is_none() {
            return self.nowhere(rpc, stated);
        }
        let own = if which == 0 { number(rpc) } else { number(&format!("{rpc} {which}")) };
        let lost = number(&format!("lost {rpc}"));
        let above = match &stated.um {
            Some(um) if um != repair::OUTSIDE && Some(um) != stated.dm.as_ref() => {
                self.caller(&format!("caller {which} {rpc}"), um, Some(lost), rpc)
            }
            _ => lost,
        };
        self.call(rpc, own, stated, Some(above));
    }

    /// A call that reached nobody knows whom.
    fn nowhere(&mut self, rpc: &str, stated: &Stated) {
        let Some(um) = stated.um.as_ref().filter(|um| *um != repair::OUTSIDE) else { return };
        let parent = repair::parent(rpc).map(number);
        let span = Span { kind: Kind::Client, ..self.span(rpc, number(rpc), um, stated.interface.as_deref(), parent) };
        (self.sink)(span);
    }

    /// A call that no row states and that its own calls and its caller prove.
    fn hole(&mut self, rpc: &str, service: &str) {
        let parent = repair::parent(rpc).map(number);
        // It adds an edge, and is no trial.
        let span = Span { authenticated: false, ..self.span(rpc, number(rpc), service, None, parent) };
        (self.sink)(span);
    }

    fn call(&mut self, rpc: &str, own: u64, stated: &Stated, above: Option<u64>) {
        let Some(dm) = stated.dm.as_deref() else { return };
        let interface = stated.interface.as_deref();
        let span = self.span(rpc, own, dm, interface, above);
        let span = match (stated.kind.as_str(), stated.um.as_deref()) {
            // R8: an inner call.
            (_, Some(um)) if um == dm => Span { kind: Kind::Internal, ..span },
            ("db" | "mc", Some(um)) if um != repair::OUTSIDE => {
                let peer = Some(Peer { kind: PeerKind::Store, name: dm.to_owned() });
                Span { kind: Kind::Client, service: um.to_owned(), peer, ..span }
            }
            ("mq", _) => Span { kind: Kind::Consumer, ..span },
            _ => Span { kind: Kind::Server, ..span },
        };
        (self.sink)(span);
    }

    /// The span of a caller, written once for each key.
    fn caller(&mut self, key: &str, service: &str, parent: Option<u64>, rpc: &str) -> u64 {
        let own = number(key);
        if self.callers.insert(key.to_owned(), own).is_none() {
            let span = self.span(rpc, own, service, None, parent);
            (self.sink)(span);
        }
        own
    }

    fn span(&self, rpc: &str, own: u64, service: &str, interface: Option<&str>, parent: Option<u64>) -> Span {
        let time = self.times.get(rpc).or_else(|| self.below.get(rpc));
        let (start_us, duration_us) = time.copied().unwrap_or((0, 0));
        Span {
            trace: self.trace,
            id: own,
            parent,
            service: bounded_name(service),
            name: kept_name(interface.unwrap_or("*").to_owned()),
            start_us,
            duration_us,
            authenticated: self.options.authenticated,
            ..Span::default()
        }
    }
}

/// The id of a place in a trace.
fn number(text: &str) -> u64 {
    let digest = base::Digest::of(format!("alibaba {text}").as_bytes());
    digest.0.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)).max(1)
}

#[cfg(test)]
mod tests;
