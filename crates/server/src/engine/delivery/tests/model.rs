//! At least once, whatever connects, drops, fills up, fails or starts again: random steps beside a plain account of
//! what was owed, and of what is known to have arrived or to have been given up.

use super::*;
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, RngSeed, TestRunner};
use store::DeadLetter;

/// LIMIT: how many steps it may take to deliver everything once nothing fails any more.
const ROUNDS_MAX: usize = 1_000;

#[derive(Clone, Debug)]
enum Step {
    Add { is_execute: bool, id: u8, address: u8 },
    Retract { id: u8 },
    Commit,
    Connect { name: u8 },
    Disconnect { pick: u8 },
    Take { pick: u8, count: u8 },
    Sweep,
    Land { pick: u8, landing: u8, random: u64 },
    Wait { ms: u32 },
    Fail,
    Restart,
    Resend { pick: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<bool>(), 0..12_u8, 0..9_u8).prop_map(|(is_execute, id, address)| Step::Add { is_execute, id, address }),
        1 => (0..12_u8).prop_map(|id| Step::Retract { id }),
        4 => Just(Step::Commit),
        2 => (0..4_u8).prop_map(|name| Step::Connect { name }),
        2 => any::<u8>().prop_map(|pick| Step::Disconnect { pick }),
        5 => (any::<u8>(), 1..4_u8).prop_map(|(pick, count)| Step::Take { pick, count }),
        4 => Just(Step::Sweep),
        5 => (any::<u8>(), 0..4_u8, any::<u64>()).prop_map(|(pick, landing, random)| Step::Land { pick, landing, random }),
        3 => prop_oneof![0..900_u32, 900..9_000_u32, Just(700_000), Just(43_200_001)].prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Fail),
        1 => Just(Step::Restart),
        1 => any::<u8>().prop_map(|pick| Step::Resend { pick }),
    ]
}

const ADDRESSES: [&str; 9] = [
    "poll://any@g",
    "poll://any@g/a",
    "poll://uni@g/a",
    "poll://uni@g/b",
    "poll://any@h",
    "http://one.example/x",
    "http://one.example/y",
    "https://two.example/",
    "http://three.example:81/",
];
const NAMES: [(&str, &str); 4] = [("g", "a"), ("g", "b"), ("g", "c"), ("h", "a")];

/// What a store would hold: the outbox and the dead letters, as of the last commit and as of now.
#[derive(Clone, Debug, Default)]
struct Stored {
    outbox: BTreeMap<u64, Message>,
    dead: BTreeMap<u64, DeadLetter>,
}

struct Account {
    delivery: Delivery,
    now: Timestamp,
    group: u64,
    stored: Stored,
    open: Stored,
    lines: Vec<u64>,
    /// When a connection dropped.
    dropped: BTreeMap<u64, Timestamp>,
    /// What a stream took: connection, when, message.
    taken: Vec<(u64, Timestamp, Arc<Message>)>,
    flights: Vec<Flight>,
}

impl Account {
    fn new() -> Account {
        let (delivery, stored, open) = (Delivery::default(), Stored::default(), Stored::default());
        let (lines, dropped, taken, flights) = (Vec::new(), BTreeMap::new(), Vec::new(), Vec::new());
        Account { delivery, now: START, group: 1, stored, open, lines, dropped, taken, flights }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Add { is_execute, id, address } => self.add(is_execute, id, address),
            Step::Retract { id } => self.retract(&MessageKey::Execute { task_id: format!("t{id}") }),
            Step::Commit => {
                self.stored = self.open.clone();
                self.delivery.release(self.group);
                self.group += 1;
            }
            Step::Connect { name } => {
                let (group, id) = NAMES[usize::from(name)];
                self.lines.push(self.delivery.connect(group, id).unwrap().0);
            }
            Step::Disconnect { pick } => {
                if let Some(line) = pick_of(&self.lines, pick) {
                    self.lines.retain(|other| *other != line);
                    self.dropped.insert(line, self.now);
                    self.delivery.disconnect(line, self.now);
                }
            }
            Step::Take { pick, count } => {
                if let Some(line) = pick_of(&self.lines, pick) {
                    let taken = self.delivery.take(line, usize::from(count), self.now);
                    self.taken.extend(taken.into_iter().map(|message| (line, self.now, message)));
                }
            }
            Step::Sweep => self.sweep(),
            Step::Land { pick, landing, random } => self.land(pick, landing, random),
            Step::Wait { ms } => self.now = self.now.plus(Millis(u64::from(ms))),
            Step::Fail => {
                self.open = self.stored.clone();
                self.delivery.reload(self.open.outbox.clone().into_iter().collect(), self.now);
                self.delivery.pause();
                self.delivery.take_back_letters(self.group - 1);
                assert!(self.lines.iter().all(|line| self.delivery.take(*line, 9, self.now).is_empty()));
                assert!(self.delivery.launch(self.now).is_empty());
                self.load();
            }
            Step::Restart => {
                self.open = self.stored.clone();
                self.delivery = Delivery::default();
                (self.lines, self.flights, self.taken) = (Vec::new(), Vec::new(), Vec::new());
                self.dropped.clear();
                self.load();
            }
            Step::Resend { pick } => {
                let dead: Vec<u64> = self.open.dead.keys().copied().collect();
                if let Some(seq) = pick_of(&dead, pick) {
                    let letter = self.delivery.exhume(seq).unwrap();
                    assert_eq!(self.open.dead.remove(&seq).as_ref(), Some(&letter));
                    self.queue((*letter.message).clone());
                }
            }
        }
    }

    fn load(&mut self) {
        self.delivery.reload_letters(self.open.dead.clone().into_iter().collect());
        self.delivery.reload(self.open.outbox.clone().into_iter().collect(), self.now);
    }

    fn add(&mut self, is_execute: bool, id: u8, address: u8) {
        let address = ADDRESSES[usize::from(address)];
        self.queue(if is_execute {
            execute(format!("t{id}"), address)
        } else {
            unblock(&format!("p{id}"), address, "")
        });
    }

    fn queue(&mut self, message: Message) {
        let (seq, replaced) = self.delivery.add(message.clone(), self.group, self.now);
        assert!(!self.open.outbox.contains_key(&seq) && !self.open.dead.contains_key(&seq), "{seq} was given before");
        if let Some(replaced) = replaced {
            assert_eq!(self.open.outbox.remove(&replaced).map(|old| old.key()), Some(message.key()));
        }
        self.open.outbox.insert(seq, message);
    }

    fn retract(&mut self, key: &MessageKey) {
        if let Some(seq) = self.delivery.retract(key) {
            assert_eq!(self.open.outbox.remove(&seq).map(|old| old.key()).as_ref(), Some(key));
        }
    }

    fn sweep(&mut self) {
        for message in self.delivery.received(self.now) {
            // It was taken by a connection that stayed up long enough.
            let arrived = self.taken.iter().any(|(line, at, taken)| {
                let up_until = self.dropped.get(line).copied().unwrap_or(self.now);
                Arc::ptr_eq(taken, &message) && up_until.since(*at) >= ACK_AFTER
            });
            assert!(arrived, "{message:?} counts as received");
            self.retract(&message.key());
        }
        for given in self.delivery.give_up(self.now, usize::MAX) {
            assert!(self.now.since(given.dead.as_ref().unwrap().since) >= UNBLOCK_GIVE_UP);
            self.part_with(given);
        }
        for given in self.delivery.spent(self.now) {
            assert_eq!(given.dead.as_ref().map(|letter| letter.attempts), Some(POLL_ATTEMPTS_MAX));
            self.part_with(given);
        }
        self.delivery.wake_rested(self.now);
        self.flights.extend(self.delivery.launch(self.now));
    }

    fn land(&mut self, pick: u8, landing: u8, random: u64) {
        if self.flights.is_empty() {
            return;
        }
        let flight = self.flights.swap_remove(usize::from(pick) % self.flights.len());
        let landing = match landing {
            0 => Landing::Answered(200),
            1 => Landing::Answered(503),
            _ => Landing::Unanswered("no".to_owned()),
        };
        if let Some(given) = self.delivery.land(flight.number, &landing, self.now, random) {
            let is_execute = matches!(*given.message, Message::Execute { .. });
            let is_received = given.dead.is_none();
            assert!(!is_received || landing == Landing::Answered(200) || is_execute, "{given:?} {landing:?}");
            self.part_with(given);
        }
    }

    fn part_with(&mut self, given: Given) {
        self.retract(&given.message.key());
        if let Some(letter) = given.dead {
            assert!(matches!(*letter.message, Message::Unblock { .. }), "only unblocks are given up");
            self.open.dead.insert(given.seq, letter.clone());
            assert_eq!(self.delivery.bury(given.seq, self.group, letter), None);
        }
    }

    /// What is owed is held, each in the one place where it is found again, and nobody waits who could be served.
    fn check(&self) {
        let delivery = &self.delivery;
        let held: BTreeMap<u64, Message> =
            delivery.items.iter().map(|(seq, item)| (*seq, (*item.message).clone())).collect();
        assert_eq!(held, self.open.outbox);
        let dead: BTreeMap<u64, DeadLetter> =
            delivery.dead_letters(u64::MAX).map(|(seq, letter)| (seq, letter.clone())).collect();
        assert_eq!(dead, self.open.dead);
        let mut away = 0;
        for (seq, item) in &delivery.items {
            assert!(self.is_found(*seq, item), "{seq} is lost: {item:?}");
            away += usize::from(matches!(item.state, State::Sent(_) | State::Flying(_)));
        }
        assert_eq!(away, delivery.away);
        delivery.poll.check();
    }

    fn is_found(&self, seq: u64, item: &Item) -> bool {
        let Delivery { poll, push, fresh, .. } = &self.delivery;
        match (&item.state, &item.place) {
            (State::Fresh, _) => fresh.iter().any(|(_, other)| *other == seq),
            (State::Waiting, Place::Poll { .. }) => poll.is_queued(seq),
            (State::Waiting, Place::Push(origin)) => push.is_queued(seq, origin),
            (State::Waiting, Place::Nowhere) => true,
            (State::Assigned(line) | State::Sent(line), _) => poll.is_handed(seq, *line, self.now),
            (State::Flying(flight), _) => self.flights.iter().any(|other| other.number == *flight),
            (State::Resting(until), _) => self.delivery.rests.contains(&(*until, seq)),
            (State::Spent, _) => poll.is_spent(seq),
        }
    }

    /// From now on nothing fails: everything has to arrive.
    fn recover(&mut self) {
        for name in 0..4 {
            self.step(&Step::Connect { name });
        }
        for _ in 0..ROUNDS_MAX {
            if self.open.outbox.is_empty() {
                return;
            }
            self.step(&Step::Commit);
            self.step(&Step::Sweep);
            while !self.flights.is_empty() {
                self.land(0, 0, 0);
            }
            for pick in 0..self.lines.len() {
                let pick = u8::try_from(pick).unwrap();
                self.step(&Step::Take { pick, count: 3 });
            }
            self.now = self.delivery.next_due().unwrap_or(self.now).max(self.now);
            self.check();
        }
        panic!("never delivered: {:?}", self.delivery.items);
    }
}

fn pick_of<T: Copy>(all: &[T], pick: u8) -> Option<T> {
    if all.is_empty() { None } else { Some(all[usize::from(pick) % all.len()]) }
}

#[test]
fn every_message_is_delivered_or_queued_or_a_dead_letter_whatever_happens() {
    let cases = Cases { cases: 300, rng_seed: RngSeed::Fixed(4), failure_persistence: None, ..Cases::default() };
    let steps = prop::collection::vec(step(), 1..150);
    let run = TestRunner::new(cases).run(&steps, |steps| {
        let mut account = Account::new();
        for step in &steps {
            account.step(step);
            account.check();
        }
        account.recover();
        Ok(())
    });
    run.unwrap();
}
