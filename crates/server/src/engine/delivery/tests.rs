use super::*;
use base::Millis;
use protocol::{Promise, PromiseState, TaskRef, Value};

mod model;

pub(super) const START: Timestamp = Timestamp(1_000);

pub(super) fn execute(id: impl Into<String>, address: &str) -> Message {
    Message::Execute { task_id: id.into(), version: 0, address: address.to_owned() }
}

pub(super) fn unblock(id: &str, address: impl Into<String>, data: &str) -> Message {
    let promise = Promise {
        id: id.to_owned(),
        state: PromiseState::Resolved,
        param: Value::default(),
        value: Value::text(data),
        tags: protocol::Tags::default(),
        timeout_at: Timestamp(9),
        created_at: Timestamp(1),
        settled_at: Some(Timestamp(2)),
    };
    Message::Unblock { address: address.into(), promise: Arc::new(promise) }
}

/// Adds messages that are durable at once.
pub(super) fn add(delivery: &mut Delivery, messages: impl IntoIterator<Item = Message>) {
    for message in messages {
        delivery.add(message, 0, START);
    }
    delivery.release(0);
}

fn connect(delivery: &mut Delivery, group: &str, id: &str) -> u64 {
    delivery.connect(group, id).unwrap().0
}

/// What a connection gets, a message at a time, by the id it is about.
fn take(delivery: &mut Delivery, line: u64, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let Some(message) = delivery.take(line, 1, START).pop() else { break };
        ids.push(match &*message {
            Message::Execute { task_id, .. } => task_id.clone(),
            Message::Unblock { promise, .. } => promise.id.clone(),
        });
    }
    ids
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("t{number:06}")).collect()
}

#[test]
fn a_message_is_handed_over_only_once_its_group_is_durable() {
    let mut delivery = Delivery::default();
    let line = connect(&mut delivery, "g", "w");
    delivery.add(execute("a", "poll://any@g"), 3, START);
    delivery.add(execute("b", "poll://any@g"), 4, START);
    assert_eq!(take(&mut delivery, line, 9), Vec::<String>::new());
    delivery.release(3);
    assert_eq!((take(&mut delivery, line, 9), delivery.listed().count()), (vec!["a".to_owned()], 1));
    delivery.release(4);
    assert_eq!(take(&mut delivery, line, 9), ["b"]);
}

#[test]
fn a_group_takes_turns_and_a_full_or_slow_one_gets_no_more_than_its_buffer() {
    let mut delivery = Delivery::default();
    let lines: Vec<u64> = (0..3).map(|number| connect(&mut delivery, "g", &format!("w{number}"))).collect();
    add(&mut delivery, numbers(0..30).into_iter().map(|id| execute(id, "poll://any@g")));
    let shares: Vec<usize> = lines.iter().map(|line| take(&mut delivery, *line, 99).len()).collect();
    assert_eq!(shares, [10, 10, 10]);
    // The first never reads: it holds its buffer, and the two others share everything else.
    add(&mut delivery, numbers(0..1_000).into_iter().map(|id| execute(id, "poll://any@g")));
    let mut got = [0, 0];
    loop {
        let before = got;
        for (count, line) in got.iter_mut().zip(&lines[1..]) {
            *count += take(&mut delivery, *line, 1).len();
        }
        if got == before {
            break;
        }
    }
    assert_eq!(got[0] + got[1], 1_000 - CONNECTION_BUFFER_MAX);
    assert!(got[0].abs_diff(got[1]) <= 1, "{got:?}");
    assert_eq!(take(&mut delivery, lines[0], usize::MAX).len(), CONNECTION_BUFFER_MAX);
}

#[test]
fn uni_means_the_named_one_any_prefers_it_and_the_first_registered_of_a_name_wins() {
    let mut delivery = Delivery::default();
    let other = connect(&mut delivery, "g", "other");
    add(&mut delivery, [execute("u", "poll://uni@g/me"), execute("nobody", "poll://uni@g")]);
    add(&mut delivery, [execute("stray", "poll://any@g/me")]);
    assert_eq!(take(&mut delivery, other, 9), ["stray"], "whoever is named is not there");
    let first = connect(&mut delivery, "g", "me");
    let second = connect(&mut delivery, "g", "me");
    assert_eq!(take(&mut delivery, first, 9), ["u"]);
    add(&mut delivery, [execute("a", "poll://any@g/me"), execute("b", "poll://uni@g/me")]);
    assert_eq!((take(&mut delivery, other, 9).len(), take(&mut delivery, second, 9).len()), (0, 0));
    assert_eq!(take(&mut delivery, first, 9), ["a", "b"]);
    // A first one that reads nothing any more is no reason to starve the one that took its place.
    let many = numbers(0..CONNECTION_BUFFER_MAX + 3).into_iter();
    add(&mut delivery, many.map(|id| execute(id, "poll://uni@g/me")));
    assert_eq!(take(&mut delivery, second, 9), numbers(CONNECTION_BUFFER_MAX..CONNECTION_BUFFER_MAX + 3));
    delivery.disconnect(first, START);
    assert_eq!(
        take(&mut delivery, second, 999).len(),
        CONNECTION_BUFFER_MAX + 3,
        "what the first was sent comes again"
    );
    assert_eq!(take(&mut delivery, other, 9), Vec::<String>::new());
    // With nobody of that name left, `any` goes to anybody and `uni` waits.
    add(&mut delivery, [execute("c", "poll://any@g/me"), execute("d", "poll://uni@g/me")]);
    delivery.disconnect(second, START);
    assert_eq!(take(&mut delivery, other, 999), ["c"]);
    // What was preferably for it and was lost with both its connections, too, after a rest.
    delivery.wake_rested(START.plus(REST));
    assert_eq!(take(&mut delivery, other, 999), ["a"]);
    assert_eq!(delivery.counts().connections, 1);
}

#[test]
fn what_waits_for_full_connections_costs_nothing_and_is_handed_over_in_its_order() {
    let mut delivery = Delivery::default();
    let line = connect(&mut delivery, "g", "w");
    let waiting = 100_000;
    add(&mut delivery, numbers(0..waiting).into_iter().map(|id| execute(id, "poll://any@g")));
    assert_eq!(delivery.counts().waiting, waiting as u64);
    let mut got = Vec::new();
    loop {
        let chunk = take(&mut delivery, line, CONNECTION_BUFFER_MAX);
        if chunk.is_empty() {
            break;
        }
        got.extend(chunk);
    }
    assert_eq!(got, numbers(0..waiting));
    assert_eq!((delivery.counts().waiting, delivery.counts().sent), (0, waiting as u64));
}

#[test]
fn one_write_takes_many_small_messages_and_few_large_ones() {
    let mut delivery = Delivery::default();
    let line = connect(&mut delivery, "g", "w");
    let large = "x".repeat(CHUNK_BYTES_MAX - 1);
    add(&mut delivery, numbers(0..3).iter().map(|id| unblock(id, "poll://any@g", &large)));
    add(&mut delivery, numbers(3..9).iter().map(|id| unblock(id, "poll://any@g", "small")));
    let sizes = [(); 3].map(|()| delivery.take(line, CONNECTION_BUFFER_MAX, START).len());
    assert_eq!(sizes, [2, 2, 5], "no further one once the limit is reached");
}

#[test]
fn a_frame_counts_as_received_from_when_its_stream_took_it() {
    let mut delivery = Delivery::default();
    let line = connect(&mut delivery, "g", "w");
    add(&mut delivery, [unblock("a", "poll://any@g", "")]);
    let later = START.plus(Millis(60_000));
    assert!(delivery.received(later).is_empty(), "it lies in an inbox that nobody read");
    assert_eq!(delivery.take(line, 1, later).len(), 1);
    assert!(delivery.received(later.plus(Millis(ACK_AFTER.0 - 1))).is_empty());
    assert_eq!(delivery.next_due(), Some(later.plus(ACK_AFTER)));
    let received = delivery.received(later.plus(ACK_AFTER));
    assert_eq!(received.len(), 1);
    delivery.retract(&received[0].key());
    delivery.disconnect(line, START);
    assert_eq!((delivery.len(), delivery.counts().delivered, delivery.counts().retried), (0, 1, 0));
}

#[test]
fn to_whom_no_stream_lasts_a_message_is_sent_ever_more_rarely_and_an_unblock_is_given_up() {
    let mut delivery = Delivery::default();
    add(&mut delivery, [unblock("p", "poll://uni@g/w", ""), execute("t", "poll://uni@g/w")]);
    let (mut now, mut rests) = (START, Vec::new());
    for _ in 1..POLL_ATTEMPTS_MAX {
        let line = connect(&mut delivery, "g", "w");
        assert_eq!(delivery.take(line, 9, now).len(), 2);
        delivery.disconnect(line, now);
        assert!(delivery.spent(now).is_empty());
        let until = delivery.rests.first().map_or(now, |(until, _)| *until);
        rests.push(until.since(now).0);
        delivery.wake_rested(Timestamp(until.0 - 1));
        assert!(until == now || delivery.rests.len() == 2, "nothing is sent before its rest is over");
        delivery.wake_rested(until);
        now = until;
    }
    assert_eq!(rests, [0, 500, 1_000, 2_000, 4_000, 8_000, 16_000]);
    let line = connect(&mut delivery, "g", "w");
    assert_eq!(delivery.take(line, 9, now).len(), 2);
    delivery.disconnect(line, now);
    let given = delivery.spent(now);
    assert_eq!(given.len(), 1, "an execute is never given up");
    let letter = given[0].dead.clone().unwrap();
    assert_eq!((letter.attempts, letter.error.as_str()), (POLL_ATTEMPTS_MAX, "its stream dropped within 5000 ms"));
    delivery.retract(&given[0].message.key());
    assert_eq!(delivery.rests.first(), Some(&(now.plus(poll::POLL_REST_MAX), 1)), "the longest rest");
    assert!(delivery.hasten(1) && delivery.rests.is_empty(), "or until somebody asks for it");
    let line = connect(&mut delivery, "g", "w");
    assert_eq!(take(&mut delivery, line, 9), ["t"]);
}

#[test]
fn a_worker_that_comes_back_or_is_elsewhere_is_not_abandoned() {
    let mut delivery = Delivery::default();
    let held = |id: &str| vec![TaskRef { id: id.to_owned(), version: 1 }];
    let line = connect(&mut delivery, "g", "w");
    let elsewhere = connect(&mut delivery, "h", "w");
    delivery.disconnect(line, START);
    assert!(delivery.is_present("w"));
    delivery.disconnect(elsewhere, START);
    assert!(!delivery.is_present("w"));
    delivery.leave("w", held("a"), START.plus(Millis(10)));
    assert_eq!(delivery.next_due(), Some(START.plus(Millis(10))));
    // It comes back and goes again: its grace begins anew.
    let line = connect(&mut delivery, "g", "w");
    assert_eq!(delivery.next_due(), None);
    delivery.disconnect(line, START);
    delivery.leave("w", held("b"), START.plus(Millis(15)));
    assert!(delivery.abandoned(START.plus(Millis(14))).is_empty());
    assert_eq!(delivery.abandoned(START.plus(Millis(15))), held("b"));
    assert!(delivery.abandoned(START.plus(Millis(99))).is_empty());
}

#[test]
fn the_newest_given_up_messages_are_remembered_up_to_their_limit() {
    let mut delivery = Delivery::default();
    let address = |number: usize| format!("poll://uni@nobody/{number}");
    add(&mut delivery, (0..=DEAD_LETTERS_MAX).map(|number| unblock("p", address(number), "")));
    add(&mut delivery, [execute("t", "poll://any@nobody")]);
    assert!(delivery.give_up(START.plus(Millis(UNBLOCK_GIVE_UP.0 - 1)), usize::MAX).is_empty());
    assert_eq!(delivery.give_up(START.plus(UNBLOCK_GIVE_UP), 3).len(), 3);
    let given = delivery.give_up(START.plus(UNBLOCK_GIVE_UP), usize::MAX);
    assert_eq!(given.len(), DEAD_LETTERS_MAX + 1, "an execute is never given up");
    let mut forgotten = Vec::new();
    for given in given {
        delivery.retract(&given.message.key());
        forgotten.extend(delivery.bury(given.seq, 1, given.dead.unwrap()));
    }
    assert_eq!(forgotten, [0]);
    let dead: Vec<(u64, String)> =
        delivery.dead_letters(1).map(|(seq, letter)| (seq, letter.message.address().to_owned())).collect();
    assert_eq!((dead.len(), &dead[0]), (DEAD_LETTERS_MAX, &(1, address(1))), "the oldest is forgotten");
    let counts = delivery.counts();
    assert_eq!((counts.dead, counts.forgotten, counts.waiting), (DEAD_LETTERS_MAX as u64 + 1, 1, 1));
    assert_eq!(delivery.dead_letters(0).count(), 0, "what is not durable is not shown");
    delivery.take_back_letters(0);
    assert_eq!(delivery.dead_letters(1).count(), 0);
}
