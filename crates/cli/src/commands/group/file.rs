//! Reading a trace file: as a stream, so that a long file needs no more memory than a short one.

use crate::args::{SourceArgs, TraceFormat};
use crate::commands::{TOPOLOGY, read_file, topology};
use crate::failure::Failure;
use base::Millis;
use recovery::graph::{Config, Snapshot};
use recovery::import::{self, Format, ImportError, Options, Report};
use recovery::replay::{HELD_SPANS_MAX, Replay, Sorter};
use recovery::span::Span;
use recovery::topology::Topology;
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;

/// LIMIT: bytes of the dictionary beside a table.
pub(super) const DICTIONARY_BYTES_MAX: u64 = 64 << 20;
/// What to look at when a trace file cannot be read.
pub(super) const FORMATS: &str = "stanch group --help, which names the formats";

/// What a file held.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) snapshot: Snapshot,
    pub(super) report: Report,
    /// From the first span's end to the last one's.
    pub(super) covered: Millis,
}

/// The graph of a trace file, and of what is declared.
pub(super) fn read(source: &SourceArgs, traces: &Path) -> Result<Found, Failure> {
    let declared = source.declared.as_deref().map(topology).transpose()?;
    let mut opened = open(traces, source.format)?;
    if opened.format == Format::EdgeList {
        return edges(&mut opened, traces, declared);
    }
    let refused = |error| Failure::file(source.declared.as_deref().unwrap_or(traces), error).next(TOPOLOGY);
    let mut replay = Replay::new(&Config::default(), declared.as_ref()).map_err(refused)?;
    let mut sorter = Sorter::new(HELD_SPANS_MAX);
    let mut ends: Option<(u64, u64)> = None;
    let report = opened.each(traces, &mut |span| {
        let end = span.end_us();
        ends = Some(ends.map_or((end, end), |(first, last)| (first.min(end), last.max(end))));
        sorter.push(span).into_iter().for_each(|earliest| replay.take(&earliest));
    })?;
    let Some((first, last)) = ends else { return Err(empty(traces, &report)) };
    while let Some(span) = sorter.pop() {
        replay.take(&span);
    }
    let (graph, now) = replay.finish();
    Ok(Found { snapshot: graph.snapshot(now), report, covered: Millis((last - first) / 1_000) })
}

/// All spans of a file, to be joined several times; at most `spans_max` of them.
pub(super) fn spans(
    traces: &Path,
    format: Option<TraceFormat>,
    spans_max: usize,
) -> Result<(Vec<Span>, Report), Failure> {
    let mut opened = open(traces, format)?;
    let mut spans = Vec::new();
    let mut over = false;
    let report = opened.each(traces, &mut |span| {
        over |= spans.len() >= spans_max;
        if !over {
            spans.push(span);
        }
    })?;
    if over {
        let what = format!("more than {spans_max} spans, which is what is evaluated at once");
        return Err(Failure::file(traces, what).next("the same command with a part of the file"));
    }
    if spans.is_empty() { Err(empty(traces, &report)) } else { Ok((spans, report)) }
}

fn empty(traces: &Path, report: &Report) -> Failure {
    let dropped =
        report.dropped.iter().map(|(reason, count)| format!(", {count} dropped as {reason}")).collect::<String>();
    Failure::file(traces, format!("no spans in it{dropped}")).next(FORMATS)
}

/// Service edges alone say who calls whom, not how sure that is: they are taken as declared.
fn edges(opened: &mut Opened, traces: &Path, declared: Option<Topology>) -> Result<Found, Failure> {
    let read = import::edge_list(&mut opened.input);
    let (listed, report) = read.map_err(|error| opened.failed(traces, error))?;
    if listed.is_empty() {
        return Err(Failure::file(traces, "no edges in it").next(FORMATS));
    }
    let mut topology = declared.unwrap_or_default();
    for (name, edge) in listed {
        topology.edge.entry(name).or_insert(edge);
    }
    let refused = |error| Failure::file(traces, error).next(TOPOLOGY);
    let (graph, now) = Replay::new(&Config::default(), Some(&topology)).map_err(refused)?.finish();
    Ok(Found { snapshot: graph.snapshot(now), report, covered: Millis(0) })
}

/// A trace file, unpacked as it is read.
struct Opened {
    input: Box<dyn BufRead>,
    format: Format,
    packed: bool,
    dictionary: Option<Vec<u8>>,
}

impl Opened {
    fn each(&mut self, traces: &Path, sink: &mut dyn FnMut(Span)) -> Result<Report, Failure> {
        let options = Options { authenticated: true, dictionary: self.dictionary.as_deref() };
        let read = import::read_from(&mut self.input, &options, sink);
        read.map_err(|error| self.failed(traces, error))
    }

    /// What is wrong with a text that was unpacked may be wrong with the packing: the rest of it tells.
    fn failed(&mut self, traces: &Path, error: ImportError) -> Failure {
        let rest = if self.packed { std::io::copy(&mut self.input, &mut std::io::sink()) } else { Ok(0) };
        match rest {
            Ok(_) => unreadable(traces, self.packed, error),
            Err(damage) => unreadable(traces, self.packed, ImportError::Unreadable { why: damage.to_string() }),
        }
    }
}

fn open(traces: &Path, wanted: Option<TraceFormat>) -> Result<Opened, Failure> {
    let failed = |error: std::io::Error| Failure::file(traces, error).next(FORMATS);
    let file = File::open(traces).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(Failure::file(traces, "Is a directory, and a file of traces is wanted").next(FORMATS));
    }
    let mut raw = BufReader::new(file);
    let packed = raw.fill_buf().map_err(failed)?.starts_with(&[0x1f, 0x8b]);
    let mut input: Box<dyn BufRead> = if packed { Box::new(server::gzip::stream(raw)) } else { Box::new(raw) };
    let mut head = Vec::new();
    let begun = input.by_ref().take(import::HEAD_BYTES_MAX).read_to_end(&mut head);
    begun.map_err(|error| unreadable(traces, packed, ImportError::Unreadable { why: error.to_string() }))?;
    let format = import::detect(&head);
    check_format(wanted, format, traces)?;
    let format = format.ok_or_else(|| unreadable(traces, packed, ImportError::Unrecognized))?;
    let dictionary = if format == Format::NezhaCompact { Some(dictionary(traces)?) } else { None };
    Ok(Opened { input: Box::new(std::io::Cursor::new(head).chain(input)), format, packed, dictionary })
}

fn unreadable(traces: &Path, packed: bool, error: ImportError) -> Failure {
    match error {
        ImportError::Unreadable { why } if packed => Failure::file(traces, format!("damaged gzip: {why}"))
            .next(format!("gzip -t {}, then {FORMATS}", traces.display())),
        other => Failure::file(traces, other).next(FORMATS),
    }
}

/// What stands beside a Nezha table `X.spans.csv[.gz]`: its name without the ending.
pub(super) fn stem(traces: &Path) -> Option<String> {
    let name = traces.file_name()?.to_string_lossy().into_owned();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let stem = name.strip_suffix(".spans.csv").or_else(|| name.strip_suffix(".csv")).unwrap_or(name);
    Some(stem.to_owned())
}

/// The dictionary beside a Nezha table: `X.spans.csv[.gz]` → `X.dict.json`.
fn dictionary(traces: &Path) -> Result<Vec<u8>, Failure> {
    let path = traces.with_file_name(format!("{}.dict.json", stem(traces).unwrap_or_default()));
    let read = read_file(&path, DICTIONARY_BYTES_MAX);
    read.map_err(|failure| Failure {
        message: format!("{}; the table needs its dictionary beside it", failure.message),
        ..failure.next(FORMATS)
    })
}

fn check_format(wanted: Option<TraceFormat>, found: Option<Format>, traces: &Path) -> Result<(), Failure> {
    let Some(wanted) = wanted else { return Ok(()) };
    let fits = match wanted {
        TraceFormat::OtlpJson => found == Some(Format::OtlpJson),
        TraceFormat::Jaeger => found == Some(Format::JaegerJson),
        TraceFormat::Nezha => matches!(found, Some(Format::NezhaCompact | Format::NezhaRaw)),
        TraceFormat::Zipkin => matches!(found, Some(Format::ZipkinV2 | Format::ZipkinV1)),
        TraceFormat::Alibaba => matches!(found, Some(Format::Alibaba2021 | Format::Alibaba2022)),
        TraceFormat::Edges => found == Some(Format::EdgeList),
    };
    if fits {
        return Ok(());
    }
    let is = found.map_or("none of the known formats", Format::name);
    Err(Failure::usage(format!("{} is {is}", traces.display()))
        .next("stanch group SERVICE --traces FILE, without --format"))
}
