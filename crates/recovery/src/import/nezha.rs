use super::input::{Line, Lines, OPEN_RECORDS_MAX, Seen};
use super::{CSV_LINE_BYTES_MAX, ImportError, Options, Report, id, malformed};
use crate::span::{Span, bounded_name, kept_name};
use serde::Deserialize;
use std::io::BufRead;

pub(super) const HEADER: &str = "trace,span,parent,pod,op,start_us,dur_us";

#[derive(Deserialize)]
struct Dictionary {
    label: String,
    base_unix_us: u64,
    pods: Vec<String>,
    ops: Vec<String>,
}

pub(super) fn read(
    input: &mut dyn BufRead,
    options: &Options<'_>,
    sink: &mut dyn FnMut(Span),
) -> Result<Report, ImportError> {
    let dictionary = options.dictionary.ok_or(ImportError::DictionaryMissing)?;
    let dictionary: Dictionary =
        serde_json::from_slice(dictionary).map_err(|error| of_dictionary(malformed(&error)))?;
    // Numbers are unique within one file only: the file's label tells the traces of several apart.
    let file = id(&format!("nezha {}", dictionary.label)) << 64;
    let (mut report, mut seen) = (Report::default(), Seen::new(OPEN_RECORDS_MAX));
    let mut lines = Lines::new(input, CSV_LINE_BYTES_MAX);
    lines.next()?;
    while let Some(line) = lines.next()? {
        let read = match line {
            Line::Text([]) => continue,
            Line::Text(line) => row(line, &dictionary),
            Line::TooLong => None,
        };
        let Some(mut span) = read else {
            report.drop("malformed");
            continue;
        };
        if seen.is_new((span.trace, span.id), span.parent, &mut report) {
            span.trace |= file;
            span.authenticated = options.authenticated;
            sink(span);
        }
    }
    seen.finish(&mut report);
    Ok(report)
}

/// The place is one in the dictionary, not in the table.
fn of_dictionary(error: ImportError) -> ImportError {
    match error {
        ImportError::Malformed { line, column, why } => {
            ImportError::Malformed { line, column, why: format!("in the dictionary: {why}") }
        }
        other => other,
    }
}

fn row(line: &[u8], dictionary: &Dictionary) -> Option<Span> {
    let line = std::str::from_utf8(line).ok()?;
    let mut cells = line.split(',');
    let mut cell = || cells.next();
    let (trace, own, parent) = (cell()?.parse::<u64>().ok()?, cell()?.parse::<u64>().ok()?, cell()?);
    let (pod, operation) = (cell()?.parse::<usize>().ok()?, cell()?.parse::<usize>().ok()?);
    let (start, duration_us) = (cell()?.parse::<i64>().ok()?, cell()?.parse::<u64>().ok()?);
    if cell().is_some() {
        return None;
    }
    let parent = if parent.is_empty() { None } else { Some(parent.parse::<u64>().ok()?.checked_add(1)?) };
    let pod = dictionary.pods.get(pod)?;
    Some(Span {
        // Ids begin at 0 in the table, and 0 is no id elsewhere.
        trace: u128::from(trace.checked_add(1)?),
        id: own.checked_add(1)?,
        parent,
        service: bounded_name(service(pod)),
        instance: Some(bounded_name(pod)),
        name: kept_name(dictionary.ops.get(operation)?.clone()),
        start_us: dictionary.base_unix_us.checked_add_signed(start)?,
        duration_us,
        ..Span::default()
    })
}

/// The pod name without `-<replica set>-<pod>`.
fn service(pod: &str) -> &str {
    let strip = |text: &'_ str, lengths: std::ops::RangeInclusive<usize>, hex: bool| -> Option<usize> {
        let at = text.rfind('-')?;
        let tail = text.get(at + 1..)?;
        let fits = |byte: u8| {
            if hex {
                matches!(byte, b'0'..=b'9' | b'a'..=b'f')
            } else {
                byte.is_ascii_lowercase() || byte.is_ascii_digit()
            }
        };
        (lengths.contains(&tail.len()) && tail.bytes().all(fits)).then_some(at)
    };
    let Some(without_pod) = strip(pod, 5..=5, false).and_then(|at| pod.get(..at)) else { return pod };
    strip(without_pod, 8..=10, true).and_then(|at| pod.get(..at)).unwrap_or(pod)
}
