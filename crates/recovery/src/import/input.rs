use super::{ImportError, JSON_DEPTH_MAX, Report};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead, Read as _};

/// LIMIT: records of open traces held at once; of more, the trace that began first is taken as complete.
pub const OPEN_RECORDS_MAX: usize = 1 << 18;

/// One line of a text, without its end.
#[derive(Debug)]
pub(super) enum Line<'b> {
    Text(&'b [u8]),
    /// Longer than allowed; nothing of it is kept.
    TooLong,
}

/// A text, line by line, in bounded memory.
pub(super) struct Lines<'a> {
    input: &'a mut dyn BufRead,
    buffer: Vec<u8>,
    bytes_max: usize,
    /// The line handed out last, from 1.
    pub(super) number: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(input: &'a mut dyn BufRead, bytes_max: usize) -> Lines<'a> {
        Lines { input, buffer: Vec::new(), bytes_max, number: 0 }
    }

    pub(super) fn next(&mut self) -> Result<Option<Line<'_>>, ImportError> {
        self.buffer.clear();
        // One byte for the end of line, and one that shows that there is more.
        let most = self.bytes_max as u64 + 2;
        let read = self.input.take(most).read_until(b'\n', &mut self.buffer).map_err(|error| unreadable(&error))?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
        } else if self.buffer.len() > self.bytes_max {
            self.skip()?;
        }
        if self.buffer.last() == Some(&b'\r') {
            self.buffer.pop();
        }
        Ok(Some(if self.buffer.len() > self.bytes_max { Line::TooLong } else { Line::Text(&self.buffer) }))
    }

    /// Reads over the rest of a line.
    fn skip(&mut self) -> Result<(), ImportError> {
        loop {
            let next = self.input.fill_buf().map_err(|error| unreadable(&error))?;
            let end = next.iter().position(|byte| *byte == b'\n');
            let (used, done) = (end.map_or(next.len(), |end| end + 1), end.is_some() || next.is_empty());
            self.input.consume(used);
            if done {
                return Ok(());
            }
        }
    }
}

/// What the input itself says when it cannot be read.
pub(super) fn unreadable(error: &std::io::Error) -> ImportError {
    ImportError::Unreadable { why: error.to_string() }
}

/// Whether objects and lists stand deeper in each other than is read.
pub(super) fn too_deep(json: &str) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                if depth > JSON_DEPTH_MAX {
                    return true;
                }
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Records by trace. A trace is complete when the input ends, or when too much is held.
pub(super) struct Grouped<T> {
    traces: BTreeMap<u128, Vec<T>>,
    order: VecDeque<u128>,
    held: usize,
    held_max: usize,
}

impl<T> Grouped<T> {
    pub(super) fn new(held_max: usize) -> Grouped<T> {
        Grouped { traces: BTreeMap::new(), order: VecDeque::new(), held: 0, held_max }
    }

    /// Takes a record; answers the trace that had to be closed for it.
    pub(super) fn push(&mut self, trace: u128, record: T) -> Option<(u128, Vec<T>)> {
        let records = self.traces.entry(trace).or_insert_with(|| {
            self.order.push_back(trace);
            Vec::new()
        });
        records.push(record);
        self.held += 1;
        if self.held > self.held_max { self.pop() } else { None }
    }

    /// The trace that began first.
    pub(super) fn pop(&mut self) -> Option<(u128, Vec<T>)> {
        let trace = self.order.pop_front()?;
        let records = self.traces.remove(&trace).unwrap_or_default();
        self.held -= records.len();
        Some((trace, records))
    }
}

/// Which spans of the open traces were seen, so that what stands there twice and what has no parent is told apart.
pub(super) struct Seen {
    open: BTreeMap<u128, Ids>,
    order: VecDeque<u128>,
    held: usize,
    held_max: usize,
}

#[derive(Default)]
struct Ids {
    own: BTreeSet<u64>,
    parents: Vec<u64>,
}

impl Seen {
    pub(super) fn new(held_max: usize) -> Seen {
        Seen { open: BTreeMap::new(), order: VecDeque::new(), held: 0, held_max }
    }

    /// Counts a span, and says whether it is new.
    pub(super) fn is_new(&mut self, (trace, id): (u128, u64), parent: Option<u64>, report: &mut Report) -> bool {
        let ids = self.open.entry(trace).or_insert_with(|| {
            self.order.push_back(trace);
            report.traces += 1;
            Ids::default()
        });
        if !ids.own.insert(id) {
            report.duplicates += 1;
            return false;
        }
        ids.parents.extend(parent);
        self.held += 1;
        report.kept += 1;
        if self.held > self.held_max {
            self.close(report);
        }
        true
    }

    /// Nothing more comes.
    pub(super) fn finish(mut self, report: &mut Report) {
        while self.close(report) {}
    }

    fn close(&mut self, report: &mut Report) -> bool {
        let Some(ids) = self.order.pop_front().and_then(|trace| self.open.remove(&trace)) else { return false };
        self.held -= ids.own.len();
        report.orphans += ids.parents.iter().filter(|parent| !ids.own.contains(parent)).count() as u64;
        true
    }
}
