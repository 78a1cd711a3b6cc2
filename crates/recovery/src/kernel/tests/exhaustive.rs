//! Every outcome of every call, a crash at every write and around every call, holds, deviations and
//! requests at every point, up to a few things going wrong in one run.

use super::*;

/// Things that may go wrong in one run.
const TROUBLES_MAX: u32 = 3;
const TURNS_MAX: u32 = 600;

/// The decisions of one run; what lies beyond the script goes well.
struct Script {
    choices: Vec<u32>,
    options: Vec<u32>,
    troubles: u32,
}

impl Script {
    fn choose(&mut self, options: u32) -> u32 {
        let options = if self.troubles >= TROUBLES_MAX { 1 } else { options };
        let choice = self.choices.get(self.options.len()).copied().unwrap_or(0);
        self.options.push(options);
        self.troubles += u32::from(choice > 0);
        choice
    }

    /// The script of the next run in order; `None` after the last.
    fn next(mut self) -> Option<Vec<u32>> {
        self.choices.resize(self.options.len(), 0);
        while let Some(last) = self.choices.pop() {
            let options = self.options.pop().unwrap_or(1);
            if last + 1 < options {
                self.choices.push(last + 1);
                return Some(self.choices);
            }
        }
        None
    }
}

struct World<'a> {
    plan: &'a Checked,
    script: Script,
    target: Target,
    journal: Vec<Record>,
    now: Timestamp,
    version: u64,
    held: bool,
    watch: Option<(Key, Selector)>,
    calls: BTreeMap<Key, State>,
    fences: Vec<Fence>,
    severity: Severity,
}

enum Next {
    Event(Event),
    Crash,
    Nothing,
}

impl World<'_> {
    fn kernel(&mut self) -> Kernel {
        self.watch = None;
        if self.journal.is_empty() {
            return Kernel::new(self.plan.clone(), armed(self.version), config(), self.now);
        }
        let replayed = Kernel::replay(self.plan.clone(), armed(self.version), config(), &self.journal, self.now);
        replayed.expect("a journal the kernel wrote replays")
    }

    fn run(&mut self) -> Outcome {
        let mut kernel = self.kernel();
        for _ in 0..TURNS_MAX {
            let next = match kernel.poll_command() {
                Some(Command::Finish(outcome)) => return outcome,
                Some(command) => self.execute(command),
                None => self.wait(&mut kernel),
            };
            match next {
                Next::Event(event) => kernel.handle_event(event, self.now),
                Next::Nothing => {}
                Next::Crash => {
                    self.version += 1;
                    self.now = self.now.plus(Millis(2_000));
                    // A successor is told of a hold like everybody.
                    kernel = self.kernel();
                    if self.held {
                        kernel.handle_event(Event::Hold { undo: false }, self.now);
                    }
                }
            }
        }
        panic!("no end after {TURNS_MAX} turns: {:?}\n{:#?}", self.script.choices, self.journal);
    }

    fn execute(&mut self, command: Command) -> Next {
        // A watch lasts until the next command.
        self.watch = None;
        match command {
            Command::Append(seq, record) => self.append(seq, record),
            Command::Observe(key, selector) => {
                let look = self.target.look(&selector, self.now);
                Next::Event(match self.script.choose(2) {
                    0 => Event::Observed(key, look),
                    _ => Event::Rejected(key, Cause::Refused),
                })
            }
            Command::Perform(call) => self.perform(&call),
            Command::Reconcile(call) => {
                let late = self.target.late.take();
                match self.script.choose(if late.is_some() { 3 } else { 2 }) {
                    1 => {
                        self.target.late = late;
                        return Next::Event(Event::Reconciled(call.key, Reconciled::Unknown));
                    }
                    2 => {
                        // What was on its way arrives just before the question.
                        let arrived = late.map(|late| self.target.perform(&late));
                        assert!(arrived.is_some());
                    }
                    // Otherwise it never arrives: absent means that it cannot any more.
                    _ => {}
                }
                Next::Event(self.target.reconcile(&call))
            }
            Command::Compensate(undo) => self.compensate(&undo),
            Command::Watch(key, selector, _) => {
                self.watch = Some((key, selector));
                Next::Nothing
            }
            Command::Finish(_) => Next::Nothing,
        }
    }

    fn append(&mut self, seq: u64, record: Record) -> Next {
        assert_eq!(seq, self.journal.len() as u64, "records are numbered without gaps");
        let announces = record.announces();
        match self.script.choose(if announces { 4 } else { 3 }) {
            1 => Next::Crash,
            2 => {
                self.journal.push(record);
                Next::Crash
            }
            3 => {
                self.held = true;
                Next::Event(Event::NotAppended(seq))
            }
            _ if announces && self.held => Next::Event(Event::NotAppended(seq)),
            _ => {
                self.journal.push(record);
                Next::Event(Event::Durable(seq))
            }
        }
    }

    fn intended(&self, key: &Key) -> bool {
        self.journal.iter().any(|record| record.announces() && record.key() == Some(key))
    }

    fn note_call(&mut self, key: &Key, fence: Fence, fields: &State) {
        assert!(self.intended(key), "{key} without a durable intent");
        assert!(!self.held, "{key} under a hold");
        assert!(self.fences.last().is_none_or(|last| *last <= fence), "fences never fall");
        self.fences.push(fence);
        let before = self.calls.insert(key.clone(), fields.clone());
        assert!(before.is_none_or(|before| before == *fields), "{key}: same key, another call");
    }

    fn perform(&mut self, call: &Call) -> Next {
        self.note_call(&call.key, call.fence, &call.desired);
        match self.script.choose(9) {
            // Certainly not applied.
            1 => {
                let mut receipt = self.target.clone().set(&call.key, call.fence, &call.desired);
                receipt.outcome = CallOutcome::Absent;
                Next::Event(Event::Receipt(call.key.clone(), receipt))
            }
            // Unknown, and not applied; unknown, and applied.
            2 => Next::Event(Event::Unknown(call.key.clone())),
            3 => {
                let done = self.target.perform(call);
                assert!(!matches!(done, Event::Fenced));
                Next::Event(Event::Unknown(call.key.clone()))
            }
            // Late: on its way while nobody waits any more.
            4 => {
                self.target.late = Some(call.clone());
                Next::Event(Event::Unknown(call.key.clone()))
            }
            // The reply is lost, and with it, or without, the effect.
            5 => {
                self.target.perform(call);
                Next::Nothing
            }
            6 => Next::Crash,
            7 => {
                self.target.perform(call);
                Next::Crash
            }
            8 => {
                self.target.late = Some(call.clone());
                Next::Crash
            }
            _ => Next::Event(self.target.perform(call)),
        }
    }

    fn compensate(&mut self, undo: &Undo) -> Next {
        self.note_call(&undo.key, undo.fence, &undo.restore);
        match self.script.choose(5) {
            1 => Next::Event(Event::Unknown(undo.key.clone())),
            2 => {
                self.target.compensate(undo);
                Next::Nothing
            }
            3 => Next::Crash,
            4 => {
                self.target.compensate(undo);
                Next::Crash
            }
            _ => Next::Event(self.target.compensate(undo)),
        }
    }

    /// Nothing to do: time passes, looks are taken, people interfere.
    fn wait(&mut self, kernel: &mut Kernel) -> Next {
        if self.held {
            self.held = false;
            return Next::Event(Event::Resumed);
        }
        if let Some((key, selector)) = self.watch.clone() {
            if kernel.poll_timeout().is_none() {
                self.watch = None;
                return Next::Nothing;
            }
            self.now = self.now.plus(Millis(500));
            kernel.handle_event(Event::Severity(self.severity), self.now);
            let look = self.target.look(&selector, self.now);
            return Next::Event(match self.script.choose(5) {
                1 => Event::Deviated(key),
                2 => Event::UndoRequested,
                3 => {
                    self.severity.impaired += 1;
                    Event::Watched(key, look)
                }
                4 => {
                    self.held = true;
                    Event::Hold { undo: false }
                }
                _ => Event::Watched(key, look),
            });
        }
        let due = kernel.poll_timeout().unwrap_or_else(|| panic!("nothing to wait for: {:#?}", self.journal));
        self.now = self.now.max(due);
        kernel.handle_timeout(self.now);
        Next::Nothing
    }
}

fn check_end(world: &World<'_>, outcome: &Outcome) {
    let plan = world.plan;
    let kernel = Kernel::replay(plan.clone(), armed(99), config(), &world.journal, world.now).expect("replays");
    assert_eq!(kernel.outcome(), Some(outcome), "the journal alone says how it ended");
    let mut wanted = initial(plan);
    match outcome {
        Outcome::Committed => {
            plan.steps().iter().for_each(|step| wanted.extend(step.desired.clone()));
            let generations = wanted.iter_mut().filter(|(field, _)| field.starts_with("generation/"));
            // A deliberate repeat goes one further.
            generations.for_each(|(field, value)| *value = (*value).max(world.target.state[field]));
            assert_eq!(world.target.state, wanted);
        }
        Outcome::Undone(_) => {
            let restored = |(field, _): &(&String, &i64)| !field.starts_with("generation/");
            let now: Vec<_> = world.target.state.iter().filter(restored).collect();
            assert_eq!(now, wanted.iter().filter(restored).collect::<Vec<_>>(), "{:#?}", world.journal);
        }
        Outcome::Stuck(keys) => assert!(!keys.is_empty()),
        Outcome::Stopped(_) => {}
    }
    let undone: Vec<&str> = world
        .journal
        .iter()
        .filter_map(|record| if let Record::UndoIntend(undo) = record { Some(undo.step.as_str()) } else { None })
        .collect();
    assert!(undone.is_sorted_by(|a, b| a > b), "undo order is the reverse: {undone:?}");
    let mut keys = world.target.effects.clone();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), world.target.effects.len(), "each key takes effect at most once");
}

/// Runs every script and returns how many there were and how they ended.
fn explore(steps: Vec<CheckedStep>) -> (u64, BTreeMap<String, u64>) {
    let plan = checked(steps);
    let (mut runs, mut ends) = (0, BTreeMap::new());
    let mut choices = Some(Vec::new());
    while let Some(script) = choices {
        let script = Script { choices: script, options: Vec::new(), troubles: 0 };
        let mut world = World {
            target: Target::new(&plan),
            plan: &plan,
            script,
            journal: Vec::new(),
            now: START,
            version: 1,
            held: false,
            watch: None,
            calls: BTreeMap::new(),
            fences: Vec::new(),
            severity: CALM,
        };
        let outcome = world.run();
        check_end(&world, &outcome);
        runs += 1;
        let word = outcome.to_string();
        let word = word.split([' ', ':']).next().unwrap_or("").to_owned();
        *ends.entry(word).or_default() += 1;
        choices = world.script.next();
    }
    (runs, ends)
}

#[test]
fn the_plan_of_the_story_keeps_every_promise_whatever_happens() {
    let (runs, ends) = explore(vec![limit(("a", "b"), 60_000, 120_000), restart("b"), restore(("a", "b"))]);
    assert!(runs > 100_000, "{runs}");
    assert!(ends.keys().map(String::as_str).eq(["committed", "undone"]), "{ends:?}");
}

#[test]
fn plans_that_repeat_stop_or_undo_in_part_keep_them_too() {
    let mut again = restart("b");
    again.on_fail = OnFail::Retry;
    let (runs, ends) = explore(vec![scale("c", 3), again]);
    assert!(runs > 20_000 && ends.contains_key("committed") && ends.contains_key("undone"), "{ends:?}");
    let mut stops = limit(("a", "c"), 10_000, 60_000);
    stops.on_fail = OnFail::Stop;
    let (runs, ends) = explore(vec![limit(("a", "b"), 60_000, 120_000), stops]);
    assert!(runs > 20_000 && ends.contains_key("stopped"), "{ends:?}");
}
