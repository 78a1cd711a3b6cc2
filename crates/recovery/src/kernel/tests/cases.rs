//! Single situations, spelled out.

use super::*;
use crate::plan::{Predicate, Signal, Subject};

/// Drives a kernel by hand over a well-behaved target.
struct Hand {
    kernel: Kernel,
    target: Target,
    journal: Vec<Record>,
    now: Timestamp,
    watch: Option<(Key, Selector)>,
    outcome: Option<Outcome>,
}

impl Hand {
    fn new(steps: Vec<CheckedStep>) -> Hand {
        let plan = checked(steps);
        Hand {
            target: Target::new(&plan),
            kernel: Kernel::new(plan, armed(1), config(), START),
            journal: Vec::new(),
            now: START,
            watch: None,
            outcome: None,
        }
    }

    fn tell(&mut self, event: Event) {
        self.kernel.handle_event(event, self.now);
    }

    /// Answers everything well until `stop` says so, or nothing is left to do.
    fn until(&mut self, stop: impl Fn(&Command) -> bool) -> Option<Command> {
        while let Some(command) = self.kernel.poll_command() {
            if stop(&command) {
                return Some(command);
            }
            match command {
                Command::Append(seq, record) => {
                    self.journal.push(record);
                    self.tell(Event::Durable(seq));
                }
                Command::Observe(key, selector) => {
                    let look = self.target.look(&selector, self.now);
                    self.tell(Event::Observed(key, look));
                }
                Command::Perform(call) => {
                    let event = self.target.perform(&call);
                    self.tell(event);
                }
                Command::Reconcile(call) => {
                    let event = self.target.reconcile(&call);
                    self.tell(event);
                }
                Command::Compensate(undo) => {
                    let event = self.target.compensate(&undo);
                    self.tell(event);
                }
                Command::Watch(key, selector, _) => self.watch = Some((key, selector)),
                Command::Finish(outcome) => self.outcome = Some(outcome),
            }
        }
        None
    }

    fn work(&mut self) {
        assert_eq!(self.until(|_| false), None);
    }

    fn look(&mut self, after_ms: u64, severity: Severity) {
        self.now = self.now.plus(Millis(after_ms));
        self.tell(Event::Severity(severity));
        if let Some((key, selector)) = self.watch.clone() {
            let look = self.target.look(&selector, self.now);
            self.tell(Event::Watched(key, look));
        }
        self.work();
    }

    fn words(&self) -> Vec<&'static str> {
        self.journal.iter().map(Record::word).collect()
    }

    fn guard(&mut self) {
        for _ in 0..6 {
            self.look(500, CALM);
        }
    }
}

fn story() -> Vec<CheckedStep> {
    vec![limit(("a", "b"), 60_000, 120_000), restart("b"), restore(("a", "b"))]
}

#[test]
fn a_plan_that_goes_well_announces_does_guards_and_ends() {
    let mut hand = Hand::new(story());
    hand.work();
    assert_eq!(hand.words(), ["intend", "did"], "the second step waits for the guard of the first");
    let Record::Intend(intend) = &hand.journal[0] else { panic!("{:?}", hand.journal[0]) };
    assert_eq!((intend.pre_image["limit/a->b"], intend.desired["limit/a->b"]), (-1, 60_000));
    assert_eq!(intend.expires_at, Some(START.plus(Millis(120_000))));
    for _ in 0..3 {
        hand.guard();
    }
    assert_eq!(hand.outcome, Some(Outcome::Committed));
    let step = ["intend", "did", "done"];
    assert_eq!(hand.words(), [step.as_slice(), &step, &step, &["finish"]].concat());
    assert_eq!(hand.target.state["limit/a->b"], -1);
    assert_eq!(hand.target.state["generation/b@0"], 2);
}

#[test]
fn nothing_is_performed_before_its_intent_is_durable() {
    let mut hand = Hand::new(story());
    let append = hand.until(|command| matches!(command, Command::Append(..)));
    assert!(matches!(append, Some(Command::Append(0, Record::Intend(_)))), "{append:?}");
    assert_eq!(hand.kernel.poll_command(), None);
    hand.tell(Event::Durable(7));
    assert_eq!(hand.kernel.poll_command(), None, "another record's durability says nothing");
    hand.tell(Event::Durable(0));
    assert!(matches!(hand.kernel.poll_command(), Some(Command::Perform(_))));
}

#[test]
fn a_field_moved_by_somebody_else_is_drift_and_one_moved_by_us_is_not() {
    let mut hand = Hand::new(story());
    hand.target.versions.insert("limit/a->b".into(), 2);
    hand.work();
    assert_eq!(hand.words(), ["refused", "undo-begin", "finish"]);
    assert_eq!(hand.outcome, Some(Outcome::Undone(Cause::Drift)));
    assert!(hand.target.effects.is_empty());
    // In the story the third step finds the version its own first step left.
    let mut hand = Hand::new(story());
    hand.work();
    hand.guard();
    hand.target.versions.insert("limit/a->b".into(), 9);
    hand.guard();
    assert_eq!(hand.outcome, Some(Outcome::Undone(Cause::Drift)));
}

#[test]
fn a_condition_that_cannot_be_read_does_not_hold() {
    let ready =
        Predicate { signal: Signal::Ready, subject: Some(Subject::Place(Place::Service("b".into()))), value: 1 };
    assert_eq!(fact_name(&ready), "ready(b)");
    let mut steps = story();
    steps[0].pre = vec![ready];
    let mut hand = Hand::new(steps);
    let Some(Command::Observe(key, selector)) = hand.kernel.poll_command() else { panic!("no observe") };
    assert!(selector.facts.contains(&"ready(b)".to_owned()), "{selector:?}");
    let mut look = hand.target.look(&selector, START);
    look.facts.remove("ready(b)");
    hand.tell(Event::Observed(key, look));
    hand.work();
    assert_eq!(hand.outcome, Some(Outcome::Undone(Cause::Precondition)));
}

#[test]
fn a_killed_executor_is_followed_by_one_that_asks_first_and_does_not_repeat() {
    let mut hand = Hand::new(story());
    let call = hand.until(|command| matches!(command, Command::Perform(_)));
    let Some(Command::Perform(call)) = call else { panic!("{call:?}") };
    // It took effect, and the executor dies before the receipt is recorded.
    hand.target.perform(&call);
    hand.now = hand.now.plus(Millis(3_000));
    let plan = hand.kernel.plan().clone();
    hand.kernel = Kernel::replay(plan, armed(2), config(), &hand.journal, hand.now).unwrap();
    let first = hand.kernel.poll_command();
    let Some(Command::Reconcile(asked)) = first else { panic!("{first:?}") };
    assert_eq!((&asked.key, asked.fence.version), (&call.key, 2));
    let answer = hand.target.reconcile(&asked);
    hand.tell(answer);
    hand.work();
    for _ in 0..3 {
        hand.guard();
    }
    assert_eq!(hand.outcome, Some(Outcome::Committed));
    assert_eq!(hand.words()[..3], ["intend", "reconciled", "done"]);
    assert_eq!(hand.target.effects.iter().filter(|key| **key == call.key).count(), 1);
}

#[test]
fn a_regression_undoes_and_an_unknown_one_does_too() {
    let worse = Severity { impaired: 3, ..CALM };
    let mut hand = Hand::new(story());
    hand.work();
    for _ in 0..6 {
        hand.look(500, worse);
    }
    assert_eq!(hand.outcome, Some(Outcome::Undone(Cause::Regression)));
    assert_eq!(hand.target.state["limit/a->b"], -1);
    assert_eq!(hand.words()[2..], ["failed", "undo-begin", "undo-intend", "undo-did", "finish"]);
    // Nobody says how bad it is: the guard cannot close, and when its time is over that is a regression.
    let mut hand = Hand::new(story());
    hand.work();
    for _ in 0..40 {
        hand.now = hand.now.plus(Millis(500));
        let (key, selector) = hand.watch.clone().unwrap();
        let look = hand.target.look(&selector, hand.now);
        hand.tell(Event::Watched(key, look));
        hand.work();
    }
    assert_eq!(hand.outcome, Some(Outcome::Undone(Cause::Regression)));
}

#[test]
fn more_bad_requests_count_only_if_they_last_and_ours_only_at_the_end() {
    let bad = Severity { bad_ppm: 900_000, ..CALM };
    let shed = Severity { shed_ppm: 400_000, bad_ppm: 100_000, ..CALM };
    let mut hand = Hand::new(vec![limit(("a", "b"), 60_000, 120_000), restore(("a", "b"))]);
    hand.work();
    for severity in [bad, bad, CALM, shed, shed, shed] {
        hand.look(500, severity);
    }
    assert_eq!(hand.words(), ["intend", "did", "done", "intend", "did"], "a short burst and our own shedding pass");
    for _ in 0..6 {
        hand.look(500, shed);
    }
    assert_eq!(hand.outcome, Some(Outcome::Undone(Cause::Regression)), "at the end shed requests are bad ones");
}

#[test]
fn a_step_that_is_never_done_fails_at_its_deadline() {
    let mut hand = Hand::new(vec![restart("b")]);
    hand.work();
    let due = hand.kernel.poll_timeout().unwrap();
    assert_eq!(due, START.plus(Millis(10_000)));
    hand.now = due;
    hand.kernel.handle_timeout(due);
    hand.work();
    // A restart cannot be undone: nothing to compensate, and it says so.
    assert_eq!(hand.words(), ["intend", "did", "failed", "undo-begin", "finish"]);
    assert_eq!(hand.outcome, Some(Outcome::Undone(Cause::Deadline)));
}

#[test]
fn a_repeat_has_its_own_key_and_the_next_generation() {
    let mut step = restart("b");
    step.on_fail = OnFail::Retry;
    let mut hand = Hand::new(vec![step]);
    for _ in 0..3 {
        hand.work();
        hand.now = hand.kernel.poll_timeout().unwrap();
        hand.kernel.handle_timeout(hand.now);
    }
    hand.work();
    let keys: Vec<String> = hand.target.effects.iter().map(|key| key.0.clone()).collect();
    assert!(keys[1].ends_with("/s1~1") && keys[2].ends_with("/s1~2"), "{keys:?}");
    assert_eq!(hand.target.state["generation/b@0"], 4);
    assert_eq!(hand.outcome, Some(Outcome::Undone(Cause::Deadline)));
}

#[test]
fn a_hold_takes_back_what_was_not_taken_and_the_checks_run_again_after_it() {
    let mut hand = Hand::new(story());
    let append = hand.until(|command| matches!(command, Command::Append(..)));
    let Some(Command::Append(seq, record)) = append else { panic!("{append:?}") };
    hand.journal.push(record);
    hand.tell(Event::Durable(seq));
    // The call lies ready and is not yet made.
    hand.tell(Event::Hold { undo: false });
    assert_eq!(hand.kernel.poll_command(), None);
    hand.tell(Event::Resumed);
    assert!(matches!(hand.kernel.poll_command(), Some(Command::Observe(..))));
    assert!(hand.target.effects.is_empty());
}

#[test]
fn a_hold_that_wants_compensation_gets_it_and_one_that_does_not_freezes_it() {
    let mut hand = Hand::new(story());
    hand.work();
    hand.tell(Event::Hold { undo: true });
    hand.work();
    assert_eq!(hand.outcome, Some(Outcome::Undone(Cause::Held)));
    assert_eq!(hand.target.state["limit/a->b"], -1);
    let mut hand = Hand::new(story());
    hand.work();
    hand.tell(Event::Hold { undo: false });
    hand.tell(Event::UndoRequested);
    hand.work();
    assert_eq!((hand.target.state["limit/a->b"], hand.outcome.clone()), (60_000, None));
    hand.tell(Event::Resumed);
    hand.work();
    assert_eq!(hand.outcome, Some(Outcome::Undone(Cause::Requested)));
}

/// The receipt of a call that its driver did not make.
fn not_made(key: &Key) -> Event {
    let receipt = Receipt {
        key: key.clone(),
        fence: armed(1).fence,
        outcome: CallOutcome::Absent,
        before: State::new(),
        after: State::new(),
        versions: Versions::new(),
        native_id: None,
        took: Millis(0),
    };
    Event::Receipt(key.clone(), receipt)
}

#[test]
fn a_call_that_is_given_back_under_a_hold_is_made_after_it() {
    let mut hand = Hand::new(story());
    let called = hand.until(|command| matches!(command, Command::Perform(_)));
    let Some(Command::Perform(call)) = called else { panic!("{called:?}") };
    // More often than a key is performed: nothing was, so nothing is spent.
    for _ in 0..2 * PERFORM_ATTEMPTS_MAX {
        hand.tell(Event::Hold { undo: false });
        hand.tell(not_made(&call.key));
        hand.work();
        assert!(hand.target.effects.is_empty());
        hand.tell(Event::Resumed);
        let again = hand.until(|command| matches!(command, Command::Perform(_)));
        assert!(matches!(&again, Some(Command::Perform(again)) if again.key == call.key), "{again:?}");
    }
    hand.tell(Event::Hold { undo: false });
    hand.tell(not_made(&call.key));
    hand.tell(Event::Resumed);
    hand.work();
    assert_eq!(hand.target.effects, [call.key]);
    assert_eq!(hand.words(), ["intend", "did"], "announced once");
}

#[test]
fn a_compensation_that_is_given_back_under_a_hold_is_made_after_it() {
    let mut hand = Hand::new(story());
    hand.work();
    hand.tell(Event::UndoRequested);
    for _ in 0..2 * UNDO_ATTEMPTS_MAX {
        let undone = hand.until(|command| matches!(command, Command::Compensate(_)));
        let Some(Command::Compensate(undo)) = undone else { panic!("{undone:?}") };
        hand.tell(Event::Hold { undo: false });
        hand.tell(not_made(&undo.key));
        hand.work();
        assert_eq!(hand.target.state["limit/a->b"], 60_000, "frozen as it is");
        hand.tell(Event::Resumed);
    }
    hand.work();
    assert_eq!(hand.outcome, Some(Outcome::Undone(Cause::Requested)));
    assert_eq!(hand.target.state["limit/a->b"], -1);
}

#[test]
fn a_fenced_executor_is_silent() {
    let mut hand = Hand::new(story());
    hand.work();
    hand.tell(Event::Fenced);
    hand.guard();
    hand.kernel.handle_timeout(START.plus(Millis(3_600_000)));
    assert_eq!((hand.kernel.poll_command(), hand.kernel.poll_timeout()), (None, None));
    assert_eq!(hand.words(), ["intend", "did"]);
}

#[test]
fn a_compensation_that_never_answers_is_stuck_and_named() {
    let mut hand = Hand::new(vec![scale("c", 3), limit(("a", "b"), 60_000, 120_000)]);
    hand.work();
    hand.guard();
    hand.tell(Event::UndoRequested);
    let mut tried = 0;
    while let Some(Command::Compensate(undo)) =
        hand.until(|command| matches!(command, Command::Compensate(undo) if undo.key.0.ends_with("/s2!undo")))
    {
        tried += 1;
        hand.tell(Event::Unknown(undo.key));
        hand.now = hand.kernel.poll_timeout().unwrap_or(hand.now);
        hand.kernel.handle_timeout(hand.now);
    }
    assert_eq!(tried, UNDO_ATTEMPTS_MAX);
    let Some(Outcome::Stuck(keys)) = &hand.outcome else { panic!("{:?}", hand.outcome) };
    assert!(keys.len() == 1 && keys[0].0.ends_with("/s2"), "{keys:?}");
    assert_eq!(hand.target.state["replicas/c"], 1, "the others are still undone");
}

#[test]
fn a_partial_undo_returns_to_its_savepoint_only() {
    let mut second = scale("c", 3);
    second.on_fail = OnFail::UndoTo("s2".into());
    let mut hand = Hand::new(vec![limit(("a", "b"), 60_000, 120_000), second]);
    hand.work();
    hand.guard();
    let (key, _) = hand.watch.clone().unwrap();
    hand.tell(Event::Deviated(key));
    hand.work();
    assert_eq!(hand.outcome, Some(Outcome::Undone(Cause::Deviation)));
    assert_eq!((hand.target.state["replicas/c"], hand.target.state["limit/a->b"]), (1, 60_000));
}

#[test]
fn an_expiry_at_the_data_plane_is_a_compensation_and_no_drift() {
    let mut hand = Hand::new(story());
    hand.work();
    hand.guard();
    let key = Key::of_step(&hand.kernel.plan().digest(), "s1");
    let undo = Undo {
        key: Key("native-expiry".into()),
        fence: Fence { epoch: 5, version: 1 },
        restore: [("limit/a->b".into(), -1)].into(),
        deadline: hand.now,
    };
    let Event::Receipt(_, receipt) = hand.target.compensate(&undo) else { panic!("no receipt") };
    hand.tell(Event::Expired(key.clone(), Receipt { key, ..receipt }));
    hand.work();
    for _ in 0..2 {
        hand.guard();
    }
    assert_eq!(hand.outcome, Some(Outcome::Committed));
    assert!(hand.words().contains(&"expired"));
}

#[test]
fn a_journal_of_another_plan_is_refused() {
    let mut hand = Hand::new(story());
    hand.work();
    let other = checked(vec![limit(("a", "b"), 50_000, 120_000)]);
    let refused = Kernel::replay(other, armed(2), config(), &hand.journal, hand.now);
    assert_eq!(refused.err(), Some(JournalError { seq: 0, why: Misfit::Key }));
    let plan = hand.kernel.plan().clone();
    let swapped: Vec<Record> = hand.journal.iter().rev().cloned().collect();
    let refused = Kernel::replay(plan.clone(), armed(2), config(), &swapped, hand.now);
    assert_eq!(refused.err(), Some(JournalError { seq: 0, why: Misfit::Order }));
    let early = vec![Record::Finish(Outcome::Committed)];
    assert!(Kernel::replay(plan, armed(2), config(), &early, hand.now).is_err());
}

#[test]
fn a_repeat_that_is_refused_still_returns_to_what_was_before_the_first_try() {
    for drifts in [false, true] {
        let mut step = limit(("a", "b"), 60_000, 120_000);
        step.on_fail = OnFail::Retry;
        let mut hand = Hand::new(vec![step]);
        hand.work();
        // It took effect and is never seen done.
        hand.now = hand.kernel.poll_timeout().unwrap();
        hand.kernel.handle_timeout(hand.now);
        if drifts {
            hand.until(|command| matches!(command, Command::Perform(_)));
            let key = Key::of_step(&hand.kernel.plan().digest(), "s1").repeat(1);
            hand.tell(Event::Rejected(key, Cause::Drift));
            hand.until(|command| matches!(command, Command::Observe(..)));
            let key = Key::of_step(&hand.kernel.plan().digest(), "s1").repeat(2);
            hand.tell(Event::Rejected(key, Cause::Refused));
        } else {
            hand.work();
            hand.tell(Event::UndoRequested);
        }
        hand.work();
        let Some(Outcome::Undone(_)) = hand.outcome else { panic!("{:?}", hand.outcome) };
        assert_eq!(hand.target.state["limit/a->b"], -1, "{:?}", hand.words());
    }
}

#[test]
fn a_question_nobody_answers_ends_as_unknown_and_is_undone() {
    let mut hand = Hand::new(vec![limit(("a", "b"), 60_000, 120_000)]);
    let Some(Command::Perform(call)) = hand.until(|command| matches!(command, Command::Perform(_))) else {
        panic!("no call")
    };
    hand.target.perform(&call);
    hand.tell(Event::Unknown(call.key));
    assert!(hand.until(|command| matches!(command, Command::Reconcile(_))).is_some());
    hand.now = hand.kernel.poll_timeout().unwrap();
    hand.kernel.handle_timeout(hand.now);
    hand.work();
    assert_eq!(hand.outcome, Some(Outcome::Undone(Cause::Unknown)));
    assert_eq!(hand.target.state["limit/a->b"], -1, "perhaps applied counts as applied");
}

#[test]
fn a_call_that_certainly_took_no_effect_is_made_a_few_times_and_no_more() {
    let mut hand = Hand::new(vec![restart("b")]);
    let mut performed = 0;
    while let Some(Command::Perform(call)) = hand.until(|command| matches!(command, Command::Perform(_))) {
        performed += 1;
        let outcome = CallOutcome::Absent;
        let receipt = Receipt {
            outcome,
            ..match hand.target.clone().perform(&call) {
                Event::Receipt(_, receipt) => receipt,
                other => panic!("{other:?}"),
            }
        };
        hand.tell(Event::Receipt(call.key, receipt));
    }
    assert_eq!((performed, &hand.outcome), (PERFORM_ATTEMPTS_MAX, &Some(Outcome::Undone(Cause::Absent))));
    assert!(hand.target.effects.is_empty());
}

#[test]
fn a_step_is_repeated_as_often_as_its_limit_says() {
    let mut step = restart("b");
    step.on_fail = OnFail::Retry;
    let mut hand = Hand::new(vec![step]);
    hand.work();
    while hand.outcome.is_none() {
        hand.now = hand.kernel.poll_timeout().unwrap();
        hand.kernel.handle_timeout(hand.now);
        hand.work();
    }
    let repeats = hand.words().iter().filter(|word| **word == "repeat").count();
    assert_eq!(repeats, RESTART_ATTEMPTS_MAX as usize);
}

#[test]
fn a_journal_has_an_end() {
    let mut hand = Hand::new(vec![restart("b")]);
    let Some(Command::Append(_, intend)) = hand.until(|command| matches!(command, Command::Append(..))) else {
        panic!("a plan begins with its first intent")
    };
    let key = intend.key().cloned().unwrap();
    let mut journal = vec![intend];
    let replayed = |journal: &[Record]| {
        Kernel::replay(checked(vec![restart("b")]), armed(2), config(), journal, START).map(|kernel| kernel.next_seq())
    };
    let last = JOURNAL_RECORDS_MAX - 1;
    journal.resize(usize::try_from(last).unwrap(), Record::Unknown(key.clone()));
    assert_eq!(replayed(&journal), Ok(last));
    // One that is full and not at its end could not be continued; one that is longer is nobody's.
    journal.push(Record::Unknown(key.clone()));
    let full = JournalError { seq: JOURNAL_RECORDS_MAX, why: Misfit::End };
    assert_eq!(replayed(&journal), Err(full.clone()));
    journal.push(Record::Unknown(key));
    assert_eq!(replayed(&journal), Err(full));
}
