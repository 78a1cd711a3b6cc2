//! How many promises and tasks there are in each state, kept with every change: nobody walks over them to know.

use protocol::{PromiseState, Row, TaskState};

/// The states of a task that are not its last, by their names on the wire: rows in them are always in memory.
const TASK_STATES: [(TaskState, &str); 4] = [
    (TaskState::Pending, "pending"),
    (TaskState::Acquired, "acquired"),
    (TaskState::Suspended, "suspended"),
    (TaskState::Halted, "halted"),
];

/// Counts of rows by state, or a change of such counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pending: i64,
    settled: i64,
    tasks: [i64; TASK_STATES.len()],
}

impl Counts {
    /// The counts of these rows; what settled is not counted.
    pub(super) fn of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Counts {
        let mut counts = Counts::default();
        rows.into_iter().for_each(|row| counts.count(row, 1));
        counts
    }

    /// A row became another one.
    pub(super) fn change(&mut self, before: Option<&Row>, now: Option<&Row>) {
        before.into_iter().for_each(|row| self.count(row, -1));
        now.into_iter().for_each(|row| self.count(row, 1));
    }

    /// Takes over a change.
    pub(super) fn add(&mut self, change: &Counts) {
        self.pending += change.pending;
        self.tasks.iter_mut().zip(change.tasks).for_each(|(count, more)| *count += more);
    }

    /// What takes all of these back.
    pub(super) fn negated(&self) -> Counts {
        Counts { pending: -self.pending, settled: 0, tasks: self.tasks.map(|count| -count) }
    }

    /// These, with what settled: every row that is not pending in memory as it is now.
    pub(super) fn with_all(self, now: &Counts, rows: usize) -> Counts {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        Counts { settled: (rows - now.pending).max(0), ..self }
    }

    /// Promises by their state.
    pub fn promises(&self) -> impl Iterator<Item = (&'static str, i64)> {
        [("pending", self.pending), ("settled", self.settled)].into_iter()
    }

    /// Tasks by the name of their state.
    pub fn tasks(&self) -> impl Iterator<Item = (&'static str, i64)> {
        TASK_STATES.into_iter().map(|(_, name)| name).zip(self.tasks)
    }

    fn count(&mut self, row: &Row, by: i64) {
        if row.promise.state == PromiseState::Pending {
            self.pending += by;
        }
        let task = row.task.as_ref().and_then(|task| TASK_STATES.iter().position(|(state, _)| *state == task.state));
        task.and_then(|at| self.tasks.get_mut(at)).into_iter().for_each(|count| *count += by);
    }
}
