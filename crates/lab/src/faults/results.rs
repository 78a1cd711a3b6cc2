//! Rows, and the file that keeps them from run to run.

use super::cell::Cell;
use super::oracle::{Told, Verdict};
use sandbox::fault::Fault;
use serde::{Deserialize, Serialize};
use std::io::{self, Write as _};
use std::path::Path;

/// What came out of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// How it was broken.
    pub fault: String,
    /// With which seed.
    pub seed: u64,
    /// When it was over, in Unix milliseconds; 0 for a run without an end.
    pub at_ms: i64,
    /// How the incident ended; absent: the run did not get that far.
    pub outcome: Option<String>,
    /// The plan that was decided on, as text.
    pub plan: String,
    /// Each revision and what became of it: `K…`, `preview` or `ok`.
    pub revisions: Vec<String>,
    /// From asking to the end of the incident.
    pub took_ms: u64,
    /// Whether an executor was killed on the way.
    pub executor_killed: bool,
    /// Why it ended so, in the product's words.
    pub why: String,
    /// What the judge says.
    pub verdict: Verdict,
}

/// Every run of every cell, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results {
    rows: Vec<Row>,
}

impl Row {
    pub(super) fn of(cell: Cell, told: &Told, verdict: Verdict) -> Row {
        let view = &told.view;
        let why = view.lines.iter().find_map(|line| line.strip_prefix("outcome"));
        Row {
            fault: cell.fault.word().to_owned(),
            seed: cell.seed,
            at_ms: told.shop.over_at_ms,
            outcome: view.outcome.clone(),
            plan: view.revisions.last().map(|revision| revision.plan.clone()).unwrap_or_default(),
            revisions: revisions(told),
            took_ms: view.stages.iter().map(|stage| stage.ms).sum(),
            executor_killed: view.commit.executor_killed,
            why: why.and_then(|why| why.split_once("): ")).map_or("", |(_, why)| why).to_owned(),
            verdict,
        }
    }

    pub(super) fn unjudged(cell: Cell, why: String) -> Row {
        let verdict = Verdict { objections: vec![why], ..Verdict::default() };
        Row { fault: cell.fault.word().to_owned(), seed: cell.seed, verdict, ..Row::default() }
    }

    fn is_of(&self, cell: Cell) -> bool {
        self.fault == cell.fault.word() && self.seed == cell.seed
    }
}

/// What became of each revision.
fn revisions(told: &Told) -> Vec<String> {
    let view = &told.view;
    let over_a_bound = |n: u32| view.pilots.iter().any(|pilot| pilot.revision == n && !pilot.findings.is_empty());
    let ended = |revision: &server::incidents::view::RevisionView| {
        let what = match revision.rejections.first() {
            Some(rejection) => rejection.code.as_str(),
            None if over_a_bound(revision.n) => "preview",
            None => "ok",
        };
        format!("r{} {what}", revision.n)
    };
    view.revisions.iter().map(ended).collect()
}

impl Results {
    /// Reads a file of results; one that does not exist has none.
    ///
    /// # Errors
    /// A file that cannot be read, or a line that is no row.
    pub fn open(file: &Path) -> io::Result<Results> {
        let text = match std::fs::read_to_string(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Results::default()),
            text => text?,
        };
        let read = |(number, line): (usize, &str)| {
            let wrong = |error| io::Error::other(format!("{}:{}: not a result: {error}", file.display(), number + 1));
            serde_json::from_str(line).map_err(wrong)
        };
        Ok(Results { rows: text.lines().enumerate().map(read).collect::<io::Result<_>>()? })
    }

    /// Adds a row, and a line to the file where there is one.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn add(&mut self, row: Row, file: Option<&Path>) -> io::Result<()> {
        if let Some(file) = file {
            let mut line = serde_json::to_vec(&row)?;
            line.push(b'\n');
            std::fs::OpenOptions::new().create(true).append(true).open(file)?.write_all(&line)?;
        }
        self.rows.push(row);
        Ok(())
    }

    /// Whether this cell ran before.
    #[must_use]
    pub fn has(&self, cell: Cell) -> bool {
        self.rows.iter().any(|row| row.is_of(cell))
    }

    /// The newest run of each cell with how often it ran, by fault and seed.
    #[must_use]
    pub fn newest(&self) -> Vec<(&Row, usize)> {
        let mut newest: Vec<(&Row, usize)> = Vec::new();
        for row in &self.rows {
            match newest.iter_mut().find(|(other, _)| other.fault == row.fault && other.seed == row.seed) {
                Some(slot) => *slot = (row, slot.1 + 1),
                None => newest.push((row, 1)),
            }
        }
        let place = |row: &Row| Fault::ALL.iter().position(|fault| fault.word() == row.fault);
        newest.sort_by_key(|(row, _)| (place(row), row.seed));
        newest
    }

    /// Runs that are not the newest of their cell.
    #[must_use]
    pub fn older(&self) -> Vec<&Row> {
        let newest: Vec<&Row> = self.newest().into_iter().map(|(row, _)| row).collect();
        self.rows.iter().filter(|row| !newest.iter().any(|kept| std::ptr::eq(*kept, *row))).collect()
    }

    /// Whether every cell's newest run is correct, and there is one at all.
    #[must_use]
    pub fn are_correct(&self) -> bool {
        let newest = self.newest();
        !newest.is_empty() && newest.iter().all(|(row, _)| row.verdict.correct)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fault: Fault, seed: u64, correct: bool) -> Row {
        let verdict = Verdict { correct, ..Verdict::default() };
        Row { fault: fault.word().into(), seed, verdict, ..Row::default() }
    }

    #[test]
    fn results_outlive_their_run_and_hide_no_earlier_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("results.jsonl");
        assert_eq!(Results::open(&file).unwrap(), Results::default());
        assert!(!Results::default().are_correct(), "nothing was run");
        let mut results = Results::default();
        for (fault, seed, correct) in [(Fault::Leak, 2, true), (Fault::Hang, 1, false), (Fault::Hang, 1, true)] {
            results.add(row(fault, seed, correct), Some(&file)).unwrap();
        }
        let read = Results::open(&file).unwrap();
        assert_eq!(read, results);
        let shown: Vec<_> = read.newest().iter().map(|(row, runs)| (row.fault.clone(), row.seed, *runs)).collect();
        assert_eq!(shown, [("hang".into(), 1, 2), ("leak".into(), 2, 1)]);
        assert_eq!(read.older().iter().map(|row| row.verdict.correct).collect::<Vec<_>>(), [false]);
        assert!(read.are_correct());
        assert!(read.has(Cell { fault: Fault::Hang, seed: 1 }) && !read.has(Cell { fault: Fault::Hang, seed: 2 }));
        results.add(row(Fault::Slow, 1, false), None).unwrap();
        assert!(!results.are_correct());
        std::fs::write(&file, "not json\n").unwrap();
        assert!(Results::open(&file).unwrap_err().to_string().contains("results.jsonl:1: not a result"));
    }
}
