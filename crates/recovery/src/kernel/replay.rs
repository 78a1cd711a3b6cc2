//! The fold of the journal: the one place where records become state, live and after a crash.

use super::{Command, Kernel, Progress, Status, Undoing, Waiting};
use crate::call::{CallOutcome, Key, Receipt};
use crate::journal::{Intend, JOURNAL_RECORDS_MAX, Outcome, Record, UndoBegin};

/// A journal that does not fit the plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {seq} of the journal {why}")]
pub struct JournalError {
    /// Number of the first record that does not fit.
    pub seq: u64,
    /// Why.
    pub why: Misfit,
}

/// Why a record does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Its key is not one of this plan, or not the current one.
    #[error("is about a key that is not due")]
    Key,
    /// It does not follow from what stands before it.
    #[error("does not follow from those before it")]
    Order,
    /// Its fields are not those of the step.
    #[error("sets other fields than the plan")]
    Fields,
    /// Records follow the last one, or there are too many.
    #[error("stands behind the end")]
    End,
}

impl Kernel {
    /// Applies one record to the state.
    pub(super) fn fold(&mut self, record: &Record) -> Result<(), Misfit> {
        if self.outcome.is_some() || self.folded >= JOURNAL_RECORDS_MAX {
            return Err(Misfit::End);
        }
        self.folded += 1;
        match record {
            Record::Intend(intend) => self.fold_intend(intend),
            Record::Did(receipt) => self.fold_applied(&receipt.key, receipt),
            Record::Unknown(key) => self.current(key, Status::Intended).map(|_| ()),
            Record::Reconciled(settled) => match &settled.receipt {
                Some(receipt) => self.fold_applied(&settled.key, receipt),
                None => self.current(&settled.key, Status::Intended).map(|_| ()),
            },
            Record::Refused(failure) => self.fold_refused(&failure.key, Status::Failed(failure.cause)),
            Record::Done(key) => {
                self.current(key, Status::Applied)?.status = Status::Done;
                Ok(())
            }
            Record::Failed(failure) => {
                let applied = self.current(&failure.key, Status::Applied).is_ok();
                let expected = if applied { Status::Applied } else { Status::Intended };
                self.current(&failure.key, expected)?.status = Status::Failed(failure.cause);
                Ok(())
            }
            Record::Repeat(key) => self.fold_repeat(key),
            Record::UndoBegin(begin) => self.fold_undo_begin(begin),
            Record::UndoIntend(undo) => {
                let progress = self.undoing(&undo.key, Undoing::No)?;
                if progress.pre_image != undo.restore {
                    return Err(Misfit::Fields);
                }
                progress.undo = Undoing::Intended;
                Ok(())
            }
            Record::UndoDid(receipt) => {
                if receipt.outcome != CallOutcome::Applied {
                    return Err(Misfit::Order);
                }
                self.undoing(&receipt.key, Undoing::Intended)?.undo = Undoing::Done;
                self.adopt(receipt);
                Ok(())
            }
            Record::UndoFailed(failure) => {
                self.undoing(&failure.key, Undoing::Intended)?.undo = Undoing::Stuck;
                Ok(())
            }
            Record::Expired(receipt) => self.fold_expired(receipt),
            Record::Finish(outcome) => self.fold_finish(outcome),
        }
    }

    /// The current step, if it has this key and status.
    fn current(&mut self, key: &Key, status: Status) -> Result<&mut Progress, Misfit> {
        if self.undo.is_some() {
            return Err(Misfit::Order);
        }
        let at = self.at().ok_or(Misfit::Order)?;
        let progress = &mut self.steps[at];
        if progress.key != *key {
            return Err(Misfit::Key);
        }
        if progress.status == status { Ok(progress) } else { Err(Misfit::Order) }
    }

    /// The step whose compensation is due, if it has this key and state.
    fn undoing(&mut self, key: &Key, undo: Undoing) -> Result<&mut Progress, Misfit> {
        let at = self.next_undo().ok_or(Misfit::Order)?;
        let progress = &mut self.steps[at];
        if progress.key.undo() != *key {
            return Err(Misfit::Key);
        }
        if progress.undo == undo { Ok(progress) } else { Err(Misfit::Order) }
    }

    fn fold_intend(&mut self, intend: &Intend) -> Result<(), Misfit> {
        let at = self.at().ok_or(Misfit::Order)?;
        let step = &self.plan.steps()[at];
        let same_fields = |fields: &crate::call::State| fields.keys().eq(step.desired.keys());
        if step.key != intend.step || !same_fields(&intend.desired) || !same_fields(&intend.pre_image) {
            return Err(Misfit::Fields);
        }
        let progress = self.current(&intend.key, Status::Pending)?;
        progress.status = Status::Intended;
        if !progress.touched {
            // A repeat after an effect still returns to what was before the first try.
            progress.pre_image = intend.pre_image.clone();
        }
        progress.desired = intend.desired.clone();
        progress.bound = intend.versions.clone();
        progress.began = intend.at;
        progress.expires_at = intend.expires_at;
        progress.touched_before = progress.touched;
        progress.touched = true;
        Ok(())
    }

    fn fold_applied(&mut self, key: &Key, receipt: &Receipt) -> Result<(), Misfit> {
        if receipt.outcome != CallOutcome::Applied || receipt.key != *key {
            return Err(Misfit::Order);
        }
        self.current(key, Status::Intended)?.status = Status::Applied;
        self.adopt(receipt);
        Ok(())
    }

    fn fold_refused(&mut self, key: &Key, failed: Status) -> Result<(), Misfit> {
        let intended = self.current(key, Status::Intended).is_ok();
        let expected = if intended { Status::Intended } else { Status::Pending };
        let progress = self.current(key, expected)?;
        if intended {
            progress.touched = progress.touched_before;
        }
        progress.status = failed;
        Ok(())
    }

    fn fold_repeat(&mut self, key: &Key) -> Result<(), Misfit> {
        let at = self.at().filter(|_| self.undo.is_none()).ok_or(Misfit::Order)?;
        let repeats = self.steps[at].repeats + 1;
        let expected = Key::of_step(&self.plan.digest(), &self.plan.steps()[at].key).repeat(repeats);
        if *key != expected {
            return Err(Misfit::Key);
        }
        let progress = &mut self.steps[at];
        if !matches!(progress.status, Status::Failed(_)) {
            return Err(Misfit::Order);
        }
        progress.status = Status::Pending;
        progress.repeats = repeats;
        progress.key = expected;
        Ok(())
    }

    fn fold_undo_begin(&mut self, begin: &UndoBegin) -> Result<(), Misfit> {
        if self.undo.is_some() {
            return Err(Misfit::Order);
        }
        let to = match &begin.to {
            None => 0,
            Some(key) => self.plan.steps().iter().position(|step| step.key == *key).ok_or(Misfit::Key)?,
        };
        self.undo = Some((begin.cause, to));
        Ok(())
    }

    fn fold_expired(&mut self, receipt: &Receipt) -> Result<(), Misfit> {
        let at = self.steps.iter().position(|progress| progress.key == receipt.key).ok_or(Misfit::Key)?;
        if !self.steps[at].is_open() {
            return Err(Misfit::Order);
        }
        self.steps[at].undo = Undoing::Done;
        self.adopt(receipt);
        Ok(())
    }

    fn fold_finish(&mut self, outcome: &Outcome) -> Result<(), Misfit> {
        let fits = match outcome {
            Outcome::Committed => self.undo.is_none() && self.at().is_none(),
            Outcome::Stopped(_) => self.undo.is_none(),
            Outcome::Undone(_) | Outcome::Stuck(_) => self.undo.is_some() && self.next_undo().is_none(),
        };
        if !fits {
            return Err(Misfit::Order);
        }
        self.outcome = Some(outcome.clone());
        Ok(())
    }

    /// Versions a receipt moved are ours.
    fn adopt(&mut self, receipt: &Receipt) {
        self.own.extend(receipt.versions.iter().map(|(field, version)| (field.clone(), *version)));
    }

    /// Continues where the journal ends.
    pub(super) fn take_up(&mut self) {
        if let Some(outcome) = self.outcome.clone() {
            self.waiting = Waiting::End;
            self.commands.push_back(Command::Finish(outcome));
            return;
        }
        let status = self.at().filter(|_| self.undo.is_none()).map(|at| self.steps[at].status);
        match status {
            // Announced, and nobody knows what became of it: ask before anything else.
            Some(Status::Intended) => self.ask(1),
            Some(Status::Applied) => self.guard(),
            _ => self.advance(),
        }
    }
}

impl Progress {
    /// Whether the step took effect and nothing has closed it yet.
    pub(super) fn is_open(&self) -> bool {
        let applied = match self.status {
            Status::Applied | Status::Done => true,
            Status::Failed(_) => self.touched,
            Status::Pending | Status::Intended => false,
        };
        applied && self.undo == Undoing::No
    }
}
