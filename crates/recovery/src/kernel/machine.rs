//! The forward path: observe, announce, act, reconcile, guard.

use super::{Command, Config, Event, Kernel, Look, PERFORM_ATTEMPTS_MAX, RESTART_ATTEMPTS_MAX, Status, Waiting, guard};
use crate::call::{Call, CallOutcome, Key, Receipt, Reconciled, State, Versions};
use crate::check::CheckedStep;
use crate::isa::ActionKind;
use crate::journal::{Cause, Failure, Intend, Outcome, Record, Settled, UndoBegin};
use crate::plan::OnFail;
use base::{Millis, Timestamp};

impl Kernel {
    pub(super) fn on(&mut self, event: Event) {
        match event {
            Event::Durable(seq) => self.on_durable(seq),
            Event::NotAppended(seq) => self.on_not_appended(seq),
            Event::Observed(key, look) => self.on_observed(&key, &look),
            Event::Watched(key, look) => self.on_watched(&key, &look),
            Event::Rejected(key, cause) => self.on_rejected(&key, cause),
            Event::Receipt(key, receipt) => self.on_receipt(&key, receipt),
            Event::Unknown(key) => self.on_unknown(&key),
            Event::Reconciled(key, answer) => self.on_reconciled(&key, answer),
            Event::Deviated(key) => self.on_deviated(&key),
            Event::Expired(key, receipt) => self.on_expired(&key, receipt),
            Event::Severity(severity) => self.on_severity(severity),
            Event::Hold { undo } => self.on_hold(undo),
            Event::Resumed => self.on_resumed(),
            Event::UndoRequested => self.want_undo(Cause::Requested),
            Event::Fenced => {
                self.fenced = true;
                self.commands.clear();
            }
        }
    }

    pub(super) fn on_time(&mut self) {
        if self.due().is_none_or(|due| due > self.now) {
            return;
        }
        match self.waiting.clone() {
            // The call's deadline passed without a reply.
            Waiting::Called => self.lose_call(),
            Waiting::Again { asked, .. } => self.ask(asked + 1),
            Waiting::Answer { .. } => self.fail(Cause::Unknown),
            Waiting::Guard { held_since } => self.close_late(held_since),
            Waiting::Compensated { .. } => self.undo_unclear(Cause::Unknown),
            Waiting::CompensateAgain { .. } => self.compensate(),
            Waiting::Nothing
            | Waiting::Observed
            | Waiting::Announced { .. }
            | Waiting::Released
            | Waiting::Finished { .. }
            | Waiting::End => {}
        }
    }

    pub(super) fn due(&self) -> Option<Timestamp> {
        let step = self.at().map(|at| self.deadline(at));
        match &self.waiting {
            Waiting::Called => step,
            Waiting::Answer { until, .. } => Some(*until),
            Waiting::Again { at, .. } | Waiting::CompensateAgain { at, .. } => Some(*at),
            Waiting::Compensated { until } => Some(*until),
            Waiting::Guard { .. } => self.at().map(|at| self.guard_end(at)),
            Waiting::Nothing
            | Waiting::Observed
            | Waiting::Announced { .. }
            | Waiting::Released
            | Waiting::Finished { .. }
            | Waiting::End => None,
        }
    }

    /// Begins whatever is next, if nothing is waited for.
    pub(super) fn advance(&mut self) {
        if self.waiting != Waiting::Nothing || self.outcome.is_some() {
            return;
        }
        if self.undo.is_some() {
            self.advance_undo();
        } else if let Some(cause) = self.undo_wanted {
            self.begin_undo(cause, None);
        } else if let Some(at) = self.at() {
            match self.steps[at].status {
                Status::Pending if self.hold.is_none() => self.observe(at),
                Status::Failed(cause) => self.after_failure(at, cause),
                Status::Pending | Status::Intended | Status::Applied | Status::Done => {}
            }
        } else {
            self.end(Outcome::Committed);
        }
    }

    /// The first step that is not done.
    pub(super) fn at(&self) -> Option<usize> {
        self.steps.iter().position(|progress| progress.status != Status::Done)
    }

    fn is_current(&self, key: &Key) -> bool {
        self.undo.is_none() && self.at().is_some_and(|at| self.steps[at].key == *key)
    }

    fn step(&self, at: usize) -> &CheckedStep {
        &self.plan.steps()[at]
    }

    /// When the step has failed if it is not done.
    fn deadline(&self, at: usize) -> Timestamp {
        let began = self.steps[at].began;
        let deadline = began.plus(Millis(self.step(at).deadline_ms));
        // A step that a predecessor began lost the time of the takeover.
        let taken_over = self.resumed_at.is_some_and(|resumed| began < resumed);
        if taken_over { deadline.plus(self.config.takeover) } else { deadline }
    }

    fn guard_end(&self, at: usize) -> Timestamp {
        let step = self.step(at);
        self.deadline(at).plus(Millis(step.guard_ms))
    }

    // Records.

    /// Appends a record of what is already so.
    pub(super) fn note(&mut self, record: Record) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        let folded = self.fold(&record);
        // INVARIANT: the machine writes no record that its own replay would refuse.
        assert!(folded.is_ok(), "record {seq} does not fit the journal: {folded:?}");
        self.commands.push_back(Command::Append(seq, record));
        seq
    }

    /// Appends a record of what is about to be; nothing happens before it is durable.
    pub(super) fn announce(&mut self, record: Record) {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.commands.push_back(Command::Append(seq, record.clone()));
        self.waiting = Waiting::Announced { seq, record: Box::new(record) };
    }

    fn on_durable(&mut self, seq: u64) {
        match self.waiting.clone() {
            Waiting::Announced { seq: awaited, record } if awaited == seq => {
                let folded = self.fold(&record);
                // INVARIANT: as in `note`.
                assert!(folded.is_ok(), "record {seq} does not fit the journal: {folded:?}");
                match *record {
                    Record::UndoIntend(_) => {
                        self.waiting = Waiting::Nothing;
                        self.advance();
                    }
                    _ if self.hold.is_some() || self.undo_wanted.is_some() => {
                        self.waiting = Waiting::Released;
                        self.leave_released();
                    }
                    _ => {
                        self.performs = 0;
                        self.perform();
                    }
                }
            }
            Waiting::Finished { seq: awaited } if awaited == seq => {
                self.waiting = Waiting::End;
                self.commands.extend(self.outcome.clone().map(Command::Finish));
            }
            _ => {}
        }
    }

    fn on_not_appended(&mut self, seq: u64) {
        if matches!(self.waiting, Waiting::Announced { seq: awaited, .. } if awaited == seq) {
            self.next_seq = seq;
            self.waiting = Waiting::Nothing;
            // Only a hold refuses, whether or not it was told already.
            self.hold.get_or_insert(false);
            self.advance();
        }
    }

    pub(super) fn end(&mut self, outcome: Outcome) {
        let seq = self.note(Record::Finish(outcome));
        self.waiting = Waiting::Finished { seq };
    }

    // A step, from its turn to its guard.

    fn observe(&mut self, at: usize) {
        let step = self.step(at);
        let selector = guard::selector(step, &step.pre);
        let key = self.steps[at].key.clone();
        self.commands.push_back(Command::Observe(key, selector));
        self.waiting = Waiting::Observed;
    }

    fn on_observed(&mut self, key: &Key, look: &Look) {
        if self.waiting != Waiting::Observed || !self.is_current(key) {
            return;
        }
        let Some(at) = self.at() else { return };
        let announced = self.steps[at].status == Status::Intended;
        self.waiting = if announced { Waiting::Released } else { Waiting::Nothing };
        if self.hold.is_some() || self.undo_wanted.is_some() {
            self.leave_released();
            self.advance();
            return;
        }
        if let Err(cause) = self.may_begin(at, look) {
            self.refuse(cause);
        } else if announced {
            self.perform();
        } else {
            let intend = self.intend(at, look);
            self.announce(Record::Intend(intend));
        }
    }

    fn may_begin(&self, at: usize, look: &Look) -> Result<(), Cause> {
        let step = self.step(at);
        let state = &look.observation.state;
        // Without every field there is no pre-image to return to.
        if !step.desired.keys().all(|field| state.contains_key(field)) || !self.do_hold(&step.pre, at, look) {
            return Err(Cause::Precondition);
        }
        let version = |versions: &Versions, field: &String| versions.get(field).copied().unwrap_or(0);
        let expected = self.expected(at);
        let moved =
            step.desired.keys().any(|field| version(&expected, field) != version(&look.observation.versions, field));
        if moved { Err(Cause::Drift) } else { Ok(()) }
    }

    /// The versions the plan was bound to, moved by our own receipts only.
    fn expected(&self, at: usize) -> Versions {
        let bound = &self.step(at).bound;
        let of = |field: &String| self.own.get(field).or_else(|| bound.get(field)).copied();
        self.step(at).desired.keys().filter_map(|field| Some((field.clone(), of(field)?))).collect()
    }

    fn intend(&self, at: usize, look: &Look) -> Intend {
        let step = self.step(at);
        let progress = &self.steps[at];
        let state = &look.observation.state;
        let pre_image: State =
            state.iter().filter(|(field, _)| step.desired.contains_key(*field)).map(|(f, v)| (f.clone(), *v)).collect();
        let mut desired = step.desired.clone();
        if progress.repeats > 0 && step.action.kind() == ActionKind::Restart {
            // The generation the plan asked for may have come and failed: a repeat asks for the next one.
            for (field, value) in &mut desired {
                *value = pre_image.get(field).map_or(*value, |observed| observed.saturating_add(1)).max(*value);
            }
        }
        Intend {
            key: progress.key.clone(),
            step: step.key.clone(),
            fence: self.armed.fence,
            pre_image,
            desired,
            versions: self.expected(at),
            expires_at: step.ttl_ms.map(|ttl| self.now.plus(Millis(ttl))),
            at: self.now,
        }
    }

    fn call(&self, at: usize) -> Call {
        let progress = &self.steps[at];
        Call {
            key: progress.key.clone(),
            fence: self.armed.fence,
            action: self.step(at).action.clone(),
            desired: progress.desired.clone(),
            bound: progress.bound.clone(),
            deadline: self.deadline(at),
            expires_at: progress.expires_at,
        }
    }

    /// Makes the announced call.
    fn perform(&mut self) {
        let Some(at) = self.at() else { return };
        if self.now >= self.deadline(at) {
            self.refuse(Cause::Deadline);
            return;
        }
        self.performs += 1;
        self.commands.push_back(Command::Perform(self.call(at)));
        self.waiting = Waiting::Called;
    }

    fn on_receipt(&mut self, key: &Key, receipt: Receipt) {
        if self.is_undo(key) {
            self.on_undo_receipt(receipt);
            return;
        }
        if !self.is_current(key) || receipt.key != *key {
            return;
        }
        match (&self.waiting, receipt.outcome) {
            (Waiting::Called, CallOutcome::Applied) => {
                self.note(Record::Did(receipt));
                self.guard();
            }
            (Waiting::Called, CallOutcome::Absent) => self.absent(),
            (Waiting::Called, CallOutcome::Unknown) => self.lose_call(),
            // A reply that came after we had given it up still says what happened.
            (Waiting::Answer { .. } | Waiting::Again { .. }, CallOutcome::Applied) => {
                self.note(Record::Reconciled(Settled { key: key.clone(), receipt: Some(receipt) }));
                self.guard();
            }
            _ => {}
        }
    }

    /// The call certainly took no effect.
    fn absent(&mut self) {
        if self.hold.is_some() || self.undo_wanted.is_some() {
            self.waiting = Waiting::Released;
            self.leave_released();
        } else if self.performs < PERFORM_ATTEMPTS_MAX {
            self.perform();
        } else {
            self.refuse(Cause::Absent);
        }
    }

    fn on_unknown(&mut self, key: &Key) {
        if self.is_undo(key) {
            self.undo_unclear(Cause::Unknown);
        } else if self.is_current(key) && self.waiting == Waiting::Called {
            self.lose_call();
        }
    }

    fn lose_call(&mut self) {
        let Some(at) = self.at() else { return };
        self.note(Record::Unknown(self.steps[at].key.clone()));
        self.ask(1);
    }

    pub(super) fn ask(&mut self, asked: u32) {
        let Some(at) = self.at() else { return };
        self.commands.push_back(Command::Reconcile(self.call(at)));
        // WHY not the deadline at once: a successor's first question comes after it and must be answered.
        let until = self.deadline(at).max(self.now.plus(self.config.wait(asked)));
        self.waiting = Waiting::Answer { asked, until };
    }

    fn on_reconciled(&mut self, key: &Key, answer: Reconciled) {
        let Waiting::Answer { asked, .. } = self.waiting else { return };
        let Some(at) = self.at().filter(|_| self.is_current(key)) else { return };
        match answer {
            Reconciled::Applied(receipt) => {
                self.note(Record::Reconciled(Settled { key: key.clone(), receipt: Some(receipt) }));
                self.guard();
            }
            Reconciled::Absent => {
                self.note(Record::Reconciled(Settled { key: key.clone(), receipt: None }));
                self.absent();
            }
            Reconciled::Unknown if self.now >= self.deadline(at) => self.fail(Cause::Unknown),
            Reconciled::Unknown => {
                let again = self.now.plus(self.config.wait(asked)).min(self.deadline(at));
                self.waiting = Waiting::Again { asked, at: again };
            }
        }
    }

    fn on_rejected(&mut self, key: &Key, cause: Cause) {
        if self.is_undo(key) {
            self.undo_failed(cause);
        } else if self.is_current(key) && matches!(self.waiting, Waiting::Observed | Waiting::Called) {
            self.refuse(cause);
        }
    }

    /// The step failed and certainly took no effect.
    fn refuse(&mut self, cause: Cause) {
        let Some(at) = self.at() else { return };
        self.note(Record::Refused(Failure { key: self.steps[at].key.clone(), cause }));
        self.waiting = Waiting::Nothing;
        self.advance();
    }

    /// The step failed and took effect, or perhaps.
    fn fail(&mut self, cause: Cause) {
        let Some(at) = self.at() else { return };
        self.note(Record::Failed(Failure { key: self.steps[at].key.clone(), cause }));
        self.waiting = Waiting::Nothing;
        self.advance();
    }

    fn after_failure(&mut self, at: usize, cause: Cause) {
        let progress = &self.steps[at];
        let may_repeat = progress.repeats < RESTART_ATTEMPTS_MAX && !matches!(cause, Cause::Deviation | Cause::Unknown);
        match self.step(at).on_fail.clone() {
            OnFail::Retry if may_repeat => {
                let key = Key::of_step(&self.plan.digest(), &self.step(at).key).repeat(progress.repeats + 1);
                self.note(Record::Repeat(key));
                self.advance();
            }
            OnFail::Stop => self.end(Outcome::Stopped(cause)),
            OnFail::UndoTo(key) => self.begin_undo(cause, Some(key)),
            OnFail::Undo | OnFail::Retry => self.begin_undo(cause, None),
        }
    }

    pub(super) fn begin_undo(&mut self, cause: Cause, to: Option<String>) {
        if self.hold == Some(false) {
            return;
        }
        self.note(Record::UndoBegin(UndoBegin { cause, to }));
        self.waiting = Waiting::Nothing;
        self.advance();
    }

    // The guard.

    pub(super) fn guard(&mut self) {
        let Some(at) = self.at() else { return };
        if self.undo_wanted.is_some() && self.hold != Some(false) {
            self.waiting = Waiting::Nothing;
            self.advance();
            return;
        }
        let step = self.step(at);
        let selector = guard::selector(step, &step.post);
        let watch = Command::Watch(self.steps[at].key.clone(), selector, self.guard_end(at));
        self.commands.push_back(watch);
        self.waiting = Waiting::Guard { held_since: None };
    }

    fn on_watched(&mut self, key: &Key, look: &Look) {
        let Waiting::Guard { held_since } = self.waiting else { return };
        let Some(at) = self.at().filter(|_| self.is_current(key)) else { return };
        let step = self.step(at);
        let holds = guard::is_done(step, &self.steps[at], look, self.now) && self.do_hold(&step.post, at, look);
        let held_since = if holds { held_since.or(Some(self.now)) } else { None };
        self.waiting = Waiting::Guard { held_since };
        let is_last = at + 1 == self.steps.len();
        if self.has_held(at, held_since) {
            match self.is_worse(is_last) {
                Some(false) => self.done(at),
                Some(true) => self.fail(Cause::Regression),
                // Nobody can say: it may still be said before the guard ends.
                None if self.now < self.guard_end(at) => {}
                None => self.fail(Cause::Regression),
            }
        } else if self.now >= self.guard_end(at) {
            self.fail(Cause::Deadline);
        }
    }

    fn has_held(&self, at: usize, held_since: Option<Timestamp>) -> bool {
        let needed = self.step(at).done_ms.saturating_add(self.step(at).guard_ms);
        held_since.is_some_and(|since| self.now.since(since).0 >= needed)
    }

    /// The guard's time is over and no look closed it.
    fn close_late(&mut self, held_since: Option<Timestamp>) {
        let held = self.at().is_some_and(|at| self.has_held(at, held_since));
        self.fail(if held { Cause::Regression } else { Cause::Deadline });
    }

    fn done(&mut self, at: usize) {
        self.note(Record::Done(self.steps[at].key.clone()));
        self.waiting = Waiting::Nothing;
        self.advance();
    }

    fn on_deviated(&mut self, key: &Key) {
        if !self.is_current(key) {
            return;
        }
        match self.waiting {
            Waiting::Guard { .. } => self.fail(Cause::Deviation),
            Waiting::Called | Waiting::Answer { .. } | Waiting::Again { .. } => self.want_undo(Cause::Deviation),
            _ => {}
        }
    }

    fn on_expired(&mut self, key: &Key, receipt: Receipt) {
        let open = self.steps.iter().any(|progress| progress.key == *key && progress.is_open());
        if open && receipt.key == *key && self.outcome.is_none() {
            self.note(Record::Expired(receipt));
        }
    }

    // Holds and requests.

    pub(super) fn want_undo(&mut self, cause: Cause) {
        if self.undo.is_some() || self.outcome.is_some() {
            return;
        }
        self.undo_wanted.get_or_insert(cause);
        if matches!(self.waiting, Waiting::Guard { .. }) && self.hold != Some(false) {
            self.waiting = Waiting::Nothing;
        }
        self.leave_released();
        self.advance();
    }

    fn on_hold(&mut self, undo: bool) {
        self.hold = Some(undo);
        // What was released but not yet taken is taken back; a running call finishes.
        let before = self.commands.len();
        self.commands.retain(|command| match command {
            Command::Perform(_) => false,
            Command::Compensate(_) => undo,
            _ => true,
        });
        if self.commands.len() < before {
            self.waiting = if self.undo.is_some() { Waiting::Nothing } else { Waiting::Released };
        }
        if undo {
            self.want_undo(Cause::Held);
        }
    }

    fn on_resumed(&mut self) {
        if self.hold.take().is_none() {
            return;
        }
        if self.undo_wanted.is_some() && matches!(self.waiting, Waiting::Guard { .. }) {
            self.waiting = Waiting::Nothing;
        }
        self.leave_released();
        if let (Waiting::Released, Some(at)) = (&self.waiting, self.at()) {
            // The checks before the step run again.
            self.observe(at);
        }
        self.advance();
    }

    /// An announced call that was never made gives way to an undo.
    fn leave_released(&mut self) {
        if self.waiting == Waiting::Released && self.undo_wanted.is_some() && self.hold != Some(false) {
            self.waiting = Waiting::Nothing;
            self.advance();
        }
    }
}

impl Config {
    /// The wait after the `asked`-th question.
    pub(super) fn wait(&self, asked: u32) -> Millis {
        let index = asked.saturating_sub(1) as usize;
        self.backoff.get(index).or(self.backoff.last()).copied().unwrap_or(Millis(1_000))
    }
}
