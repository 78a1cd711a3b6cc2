//! The way back: strictly newest first, each compensation announced before it is made.

use super::{Command, Kernel, UNDO_ATTEMPTS_MAX, Undoing, Waiting};
use crate::call::{CallOutcome, Key, Receipt, Undo};
use crate::isa::{ActionKind, RollbackClass};
use crate::journal::{Failure, Outcome, Record, UndoIntend};

impl Kernel {
    pub(super) fn advance_undo(&mut self) {
        // A hold that wants no compensation freezes it; what expires by itself still does.
        if self.hold == Some(false) {
            return;
        }
        let Some((cause, _)) = self.undo else { return };
        let Some(at) = self.next_undo() else {
            let stuck = self.steps.iter().filter(|progress| progress.undo == Undoing::Stuck);
            let stuck: Vec<Key> = stuck.map(|progress| progress.key.clone()).collect();
            self.end(if stuck.is_empty() { Outcome::Undone(cause) } else { Outcome::Stuck(stuck) });
            return;
        };
        if self.steps[at].undo == Undoing::Intended {
            // Announced by us, or by a predecessor of whom nobody knows how far it came: the same key has
            // one effect, and restoring twice is harmless.
            self.undo_attempts = 0;
            self.compensate();
            return;
        }
        let progress = &self.steps[at];
        let undo = UndoIntend {
            key: progress.key.undo(),
            step: self.plan.steps()[at].key.clone(),
            fence: self.armed.fence,
            restore: progress.pre_image.clone(),
        };
        self.announce(Record::UndoIntend(undo));
    }

    /// The newest step that has to be and can be undone.
    pub(super) fn next_undo(&self) -> Option<usize> {
        let (_, to) = self.undo?;
        (to..self.steps.len()).rev().find(|at| {
            let progress = &self.steps[*at];
            let open = matches!(progress.undo, Undoing::No | Undoing::Intended);
            open && progress.touched && self.can_undo(*at) && !self.is_covered(*at, to)
        })
    }

    fn can_undo(&self, at: usize) -> bool {
        self.plan.steps()[at].class != RollbackClass::Restartable
    }

    /// Whether all a restore closed will be returned by steps before it: undoing the restore first would
    /// impose once more, without an expiry, what the next compensation lifts.
    fn is_covered(&self, at: usize, to: usize) -> bool {
        let steps = self.plan.steps();
        let earlier = || (to..at).filter(|i| self.steps[*i].touched && self.can_undo(*i));
        steps[at].action.kind() == ActionKind::RestoreTraffic
            && self.steps[at].undo == Undoing::No
            && steps[at].desired.keys().all(|field| {
                earlier().any(|i| steps[i].desired.contains_key(field) && self.steps[i].undo != Undoing::Stuck)
            })
    }

    pub(super) fn is_undo(&self, key: &Key) -> bool {
        self.next_undo().is_some_and(|at| self.steps[at].undo == Undoing::Intended && self.steps[at].key.undo() == *key)
    }

    pub(super) fn compensate(&mut self) {
        let Some(at) = self.next_undo() else { return };
        if self.hold == Some(false) {
            self.waiting = Waiting::Nothing;
            return;
        }
        let progress = &self.steps[at];
        let until = self.now.plus(self.config.undo_deadline);
        self.commands.push_back(Command::Compensate(Undo {
            key: progress.key.undo(),
            fence: self.armed.fence,
            restore: progress.pre_image.clone(),
            deadline: until,
        }));
        self.undo_attempts += 1;
        self.waiting = Waiting::Compensated { until };
    }

    pub(super) fn on_undo_receipt(&mut self, receipt: Receipt) {
        if !matches!(self.waiting, Waiting::Compensated { .. } | Waiting::CompensateAgain { .. }) {
            return;
        }
        match receipt.outcome {
            CallOutcome::Applied => {
                self.note(Record::UndoDid(receipt));
                self.waiting = Waiting::Nothing;
                self.advance();
            }
            // It was given back because of the hold: no attempt was spent.
            CallOutcome::Absent if self.hold == Some(false) => self.waiting = Waiting::Nothing,
            CallOutcome::Absent => self.undo_unclear(crate::journal::Cause::Absent),
            CallOutcome::Unknown => self.undo_unclear(crate::journal::Cause::Unknown),
        }
    }

    /// The compensation did not answer, or had no effect: again, but not for ever.
    pub(super) fn undo_unclear(&mut self, cause: crate::journal::Cause) {
        if !matches!(self.waiting, Waiting::Compensated { .. }) {
            return;
        }
        if self.undo_attempts >= UNDO_ATTEMPTS_MAX {
            self.undo_failed(cause);
        } else {
            self.waiting = Waiting::CompensateAgain { at: self.now.plus(self.config.wait(self.undo_attempts)) };
        }
    }

    pub(super) fn undo_failed(&mut self, cause: crate::journal::Cause) {
        let Some(at) = self.next_undo() else { return };
        if !matches!(self.waiting, Waiting::Compensated { .. }) {
            return;
        }
        self.note(Record::UndoFailed(Failure { key: self.steps[at].key.undo(), cause }));
        self.waiting = Waiting::Nothing;
        self.advance();
    }
}
