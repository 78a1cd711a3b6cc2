//! Bytes to spans: every trace format in, one normal form out.
//!
//! Importers are pure, hand each span to a sink as soon as it is complete, and never panic. Bytes that are
//! not of their format at all are one error with a place; a single bad record is dropped and counted.

mod alibaba;
mod attributes;
mod edge_list;
mod input;
mod jaeger;
mod nezha;
mod otlp_json;
mod protobuf;
mod zipkin;

pub use alibaba::RPCID_BYTES_MAX;
pub use edge_list::{LISTED_EDGES_MAX, ListedEdges};
pub use input::OPEN_RECORDS_MAX;
pub use jaeger::TRACE_SPANS_MAX;

use crate::span::Span;
use std::collections::BTreeMap;
use std::io::{BufRead, Read as _};

/// Bytes of one OTLP batch at most.
pub const BATCH_BYTES_MAX: usize = 16 << 20;
/// Spans of one OTLP batch at most.
pub const BATCH_SPANS_MAX: usize = 65_536;
/// LIMIT: bytes of one line of a table; a longer one is one dropped record.
pub const CSV_LINE_BYTES_MAX: usize = 64 << 10;
/// LIMIT: objects and lists within each other in one record; a deeper one is dropped.
pub const JSON_DEPTH_MAX: usize = 128;
/// LIMIT: bytes from the beginning by which a format is told.
pub const HEAD_BYTES_MAX: u64 = 4_096;

/// A trace format that can be told from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// OTLP in JSON, one export or one per line.
    OtlpJson,
    /// Jaeger's HTTP API in JSON.
    JaegerJson,
    /// The compact table of the Nezha data set; needs its dictionary.
    NezhaCompact,
    /// The original table of the Nezha data set.
    NezhaRaw,
    /// Zipkin version 2.
    ZipkinV2,
    /// Zipkin version 1.
    ZipkinV1,
    /// Alibaba's 2021 call graph table.
    Alibaba2021,
    /// Alibaba's 2022 call graph table.
    Alibaba2022,
    /// Jaeger's dependencies: service edges with call counts.
    EdgeList,
}

/// How to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// The source is authenticated: its spans are trials, not only edges.
    pub authenticated: bool,
    /// The dictionary that stands beside a Nezha compact table.
    pub dictionary: Option<&'a [u8]>,
}

/// What became of the records.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Records kept where they stand: spans, of a call graph table its calls, of an edge list its edges.
    pub kept: u64,
    /// Traces they belong to; 0 where a batch cannot tell.
    pub traces: u64,
    /// Records kept after a repair, by rule.
    pub repaired: BTreeMap<&'static str, u64>,
    /// Records dropped, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Spans whose parent is not in the input.
    pub orphans: u64,
    /// Records that stand there twice.
    pub duplicates: u64,
}

/// Why nothing could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The text is not of its format.
    #[error("line {line}, column {column}: {why}")]
    Malformed {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        why: String,
    },
    /// The bytes are not an OTLP message.
    #[error("byte {offset}: {why}")]
    MalformedBytes {
        /// Offset, from 0.
        offset: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// A batch beyond the limits.
    #[error("the batch has more than {limit} {unit}")]
    TooLarge {
        /// The limit.
        limit: usize,
        /// Of what.
        unit: &'static str,
    },
    /// The input itself cannot be read on.
    #[error("the input cannot be read: {why}")]
    Unreadable {
        /// What it says.
        why: String,
    },
    /// A format that is known and is not read, or not as spans.
    #[error("{format} is not supported: convert it to OTLP JSON or Jaeger JSON")]
    NotSupported {
        /// Its name.
        format: &'static str,
    },
    /// The table needs its dictionary.
    #[error("this table needs its dictionary: the `.dict.json` file beside it")]
    DictionaryMissing,
    /// None of the known formats.
    #[error(
        "line 1, column 1: none of the known trace formats: OTLP JSON, Jaeger JSON, Zipkin v2 JSON, a Nezha compact table, an Alibaba call graph table or a list of edges"
    )]
    Unrecognized,
}

impl Format {
    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Format::OtlpJson => "OTLP JSON",
            Format::JaegerJson => "Jaeger JSON",
            Format::NezhaCompact => "Nezha compact CSV",
            Format::NezhaRaw => "Nezha raw CSV",
            Format::ZipkinV2 => "Zipkin v2 JSON",
            Format::ZipkinV1 => "Zipkin v1 JSON",
            Format::Alibaba2021 => "Alibaba 2021 CSV",
            Format::Alibaba2022 => "Alibaba 2022 CSV",
            Format::EdgeList => "edge list JSON",
        }
    }
}

impl Report {
    fn drop(&mut self, reason: &'static str) {
        *self.dropped.entry(reason).or_insert(0) += 1;
    }

    fn repair(&mut self, rule: &'static str) {
        *self.repaired.entry(rule).or_insert(0) += 1;
    }

    /// Records dropped, for whatever reason.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }
}

/// The format of a text, judged by its beginning.
#[must_use]
pub fn detect(bytes: &[u8]) -> Option<Format> {
    let most = usize::try_from(HEAD_BYTES_MAX).unwrap_or(usize::MAX);
    let head = bytes.get(..bytes.len().min(most)).unwrap_or(bytes);
    let text = String::from_utf8_lossy(head);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let has = |word: &str| text.contains(word);
    if let Some(object) = text.strip_prefix('{') {
        let key = object.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next())?;
        return match key {
            "resourceSpans" => Some(Format::OtlpJson),
            "data" => Some(Format::JaegerJson),
            _ => None,
        };
    }
    if text.starts_with('[') {
        let v1 = has("\"binaryAnnotations\"")
            || (has("\"annotations\"") && has("\"endpoint\"") && !has("\"localEndpoint\""));
        return match () {
            () if has("\"callCount\"") => Some(Format::EdgeList),
            () if has("\"traceId\"") && v1 => Some(Format::ZipkinV1),
            () if has("\"traceId\"") => Some(Format::ZipkinV2),
            () => None,
        };
    }
    let header = text.lines().next().unwrap_or_default();
    let columns: Vec<&str> = header.split(',').map(str::trim).collect();
    match () {
        () if header.trim_end() == nezha::HEADER => Some(Format::NezhaCompact),
        () if columns.contains(&"TraceID") && columns.contains(&"PodName") => Some(Format::NezhaRaw),
        () if columns.contains(&"rpcid") => Some(Format::Alibaba2021),
        () if columns.contains(&"rpc_id") => Some(Format::Alibaba2022),
        () => None,
    }
}

/// Reads a text of whichever format as a stream, in bounded memory, handing every span to `sink`.
///
/// # Errors
/// A text of an unknown or unsupported format, one that is not of its format at all, or an input that fails.
pub fn read_from(
    input: &mut dyn BufRead,
    options: &Options<'_>,
    sink: &mut dyn FnMut(Span),
) -> Result<Report, ImportError> {
    let mut head = Vec::new();
    input.take(HEAD_BYTES_MAX).read_to_end(&mut head).map_err(|error| input::unreadable(&error))?;
    let format = detect(&head).ok_or(ImportError::Unrecognized)?;
    // A byte order mark says nothing that detection did not.
    let marked = head.starts_with("\u{feff}".as_bytes());
    let mut head = std::io::Cursor::new(head);
    head.set_position(if marked { 3 } else { 0 });
    let whole: &mut dyn BufRead = &mut head.chain(input);
    match format {
        Format::OtlpJson => otlp_json::read(whole, options, sink),
        Format::JaegerJson => jaeger::read(whole, options, sink),
        Format::NezhaCompact => nezha::read(whole, options, sink),
        Format::Alibaba2021 | Format::Alibaba2022 => alibaba::read(whole, options, sink),
        Format::ZipkinV2 => zipkin::read(whole, options, sink),
        other @ (Format::EdgeList | Format::NezhaRaw | Format::ZipkinV1) => {
            Err(ImportError::NotSupported { format: other.name() })
        }
    }
}

/// Reads a list of edges between services. It states who calls whom and nothing about requests, so its edges are
/// what a declaration is: no spans, no counts, no trials.
///
/// # Errors
/// A text that is no such list, or an input that fails.
pub fn edge_list(input: &mut dyn BufRead) -> Result<(ListedEdges, Report), ImportError> {
    edge_list::read(input)
}

/// Reads a text of whichever format into memory.
///
/// # Errors
/// As [`read_from`].
pub fn spans(bytes: &[u8], options: &Options<'_>) -> Result<(Vec<Span>, Report), ImportError> {
    let mut spans = Vec::new();
    let report = read_from(&mut &*bytes, options, &mut |span| spans.push(span))?;
    Ok((spans, report))
}

/// Reads one `ExportTraceServiceRequest` in protobuf; nothing of a malformed one is taken.
///
/// # Errors
/// Bytes that are not such a message, or one beyond the limits.
pub fn otlp_protobuf(bytes: &[u8], options: &Options<'_>) -> Result<(Vec<Span>, Report), ImportError> {
    protobuf::read(bytes, options)
}

/// Reads one `ExportTraceServiceRequest` in JSON.
///
/// # Errors
/// As [`read_from`].
pub fn otlp_json(bytes: &[u8], options: &Options<'_>) -> Result<(Vec<Span>, Report), ImportError> {
    let mut spans = Vec::new();
    let report = otlp_json::batch(bytes, options, &mut |span| spans.push(span))?;
    Ok((spans, report))
}

fn malformed(error: &serde_json::Error) -> ImportError {
    if error.is_io() {
        return ImportError::Unreadable { why: error.to_string() };
    }
    // The place stands in its own fields; the text of the error repeats it at its end.
    let text = error.to_string();
    let why = text.split(" at line ").next().unwrap_or_default().to_owned();
    ImportError::Malformed { line: error.line(), column: error.column(), why }
}

/// An id of up to `N` hex digits, leading zeros left out or not; other texts become a digest of themselves.
fn id(text: &str) -> u128 {
    let hex = !text.is_empty() && text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hex {
        return u128::from_str_radix(text, 16).unwrap_or(0);
    }
    let digest = base::Digest::of(text.as_bytes());
    digest.0.iter().take(8).fold(0, |number, byte| number << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests;
