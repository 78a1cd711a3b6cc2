use super::super::tests::{START, add, execute, unblock};
use super::super::{Delivery, PUSH_ATTEMPTS_MAX, PUSH_IN_FLIGHT_MAX, PUSH_PER_ORIGIN_MAX, REST};
use super::*;

/// What is posted once what has rested is awake.
fn launch(delivery: &mut Delivery, now: Timestamp) -> Vec<Flight> {
    delivery.wake_rested(now);
    delivery.launch(now)
}

fn silent() -> Landing {
    Landing::Unanswered("no".to_owned())
}

#[test]
fn an_origin_is_scheme_host_and_port() {
    for (address, expected) in [
        ("http://A.example/x?y", Some("http://a.example:80")),
        ("https://a.example", Some("https://a.example:443")),
        ("http://user@[::1]:8080/x", Some("http://[::1]:8080")),
        ("http://", None),
        ("http://[::1", None),
        ("poll://any@g", None),
        ("/path", None),
    ] {
        assert_eq!(origin(address).as_deref(), expected, "{address}");
    }
}

#[test]
fn an_origin_has_a_window_that_grows_with_its_answers_and_the_silent_leave_room_for_the_others() {
    let mut delivery = Delivery::default();
    let to = |origin: usize| format!("http://h{origin}/");
    let many = |origin: usize| (0..1_000).map(move |number| execute(format!("{origin}-{number}"), &to(origin)));
    add(&mut delivery, many(0));
    let mut flights: VecDeque<Flight> = launch(&mut delivery, START).into();
    assert_eq!(flights.len(), WINDOW);
    for _ in 0..PUSH_PER_ORIGIN_MAX * 2 {
        let flight = flights.pop_front().unwrap();
        let given = delivery.land(flight.number, &Landing::Answered(200), START, 0).unwrap();
        delivery.retract(&given.message.key());
        flights.extend(launch(&mut delivery, START));
    }
    assert_eq!(flights.len(), PUSH_PER_ORIGIN_MAX);
    // However many never answer from now on, the next one finds a place.
    for origin in 1..50 {
        add(&mut delivery, many(origin));
        let launched = launch(&mut delivery, START);
        assert!(launched.iter().any(|flight| flight.message.address() == to(origin)), "{origin}");
        assert!(delivery.push.flights.len() < PUSH_IN_FLIGHT_MAX);
    }
}

#[test]
fn no_origin_that_may_post_waits_behind_others_that_may_not() {
    let mut delivery = Delivery::default();
    let mut launched = Vec::new();
    for origin in 0..PUSH_IN_FLIGHT_MAX * 2 {
        add(&mut delivery, (0..3).map(|number| execute(format!("{origin}-{number}"), &format!("http://h{origin}/"))));
        launched.extend(launch(&mut delivery, START));
    }
    assert_eq!(launched.len(), PUSH_IN_FLIGHT_MAX, "no place is left empty");
    // Origins end their posts one by one; each place goes to somebody.
    while let Some(flight) = launched.pop() {
        let given = delivery.land(flight.number, &Landing::Answered(200), START, 0).unwrap();
        delivery.retract(&given.message.key());
        launched.extend(launch(&mut delivery, START));
        assert_eq!(launched.len(), delivery.push.flights.len());
        let is_left_out = |origin: &Origin| origin.flying == 0 && !origin.waiting.is_empty();
        let is_full = launched.len() == PUSH_IN_FLIGHT_MAX;
        assert!(is_full || !delivery.push.origins.values().any(is_left_out), "{} in flight", launched.len());
    }
    assert_eq!(delivery.len(), 0);
    launch(&mut delivery, START);
    assert!(delivery.push.origins.is_empty() && delivery.push.turn.is_empty(), "nothing is left of them");
}

#[test]
fn any_answer_ends_an_execute_and_only_success_an_unblock() {
    let mut delivery = Delivery::default();
    add(&mut delivery, [execute("t", "http://h/"), unblock("p", "http://h/", "")]);
    let flights = launch(&mut delivery, START);
    let refused = Landing::Answered(500);
    assert!(delivery.land(flights[0].number, &refused, START, 0).is_some_and(|given| given.dead.is_none()));
    assert!(delivery.land(flights[1].number, &refused, START, 0).is_none());
    let rested = delivery.next_due().unwrap();
    assert_eq!(rested, START.plus(Millis(REST.0 / 2)), "the shortest rest is half of it");
    assert!(launch(&mut delivery, START).is_empty());
    let again = launch(&mut delivery, rested);
    assert_eq!(again.len(), 1);
    let item = delivery.items.values().find(|item| matches!(*item.message, Message::Unblock { .. })).unwrap();
    assert_eq!((item.attempts, item.error.as_deref()), (2, Some("answered 500")));
    let given = delivery.land(again[0].number, &Landing::Answered(204), rested, 0).unwrap();
    delivery.retract(&given.message.key());
    assert_eq!((delivery.counts().retried, delivery.counts().delivered, delivery.counts().sent), (1, 1, 3));
}

#[test]
fn an_origin_that_does_not_answer_rests_and_is_asked_with_one_message_until_it_does() {
    let mut delivery = Delivery::default();
    add(&mut delivery, (0..WINDOW).map(|number| execute(format!("t{number}"), "http://h/")));
    let mut now = START;
    let flights = launch(&mut delivery, now);
    assert_eq!(flights.len(), WINDOW);
    flights.iter().for_each(|flight| assert!(delivery.land(flight.number, &silent(), now, u64::MAX).is_none()));
    for _ in 0..3 {
        now = now.plus(REST_MAX);
        let asked = launch(&mut delivery, now);
        assert_eq!(asked.len(), 1, "one post asks for all of them");
        assert!(launch(&mut delivery, now).is_empty());
        assert!(delivery.land(asked[0].number, &silent(), now, 7).is_none());
    }
    now = now.plus(REST_MAX);
    let asked = launch(&mut delivery, now);
    assert!(delivery.land(asked[0].number, &Landing::Answered(200), now, 7).is_some());
    assert_eq!(launch(&mut delivery, now).len(), 2, "it answers again, and its window grows");
}

#[test]
fn an_unblock_is_given_up_after_so_many_posts_and_an_execute_left_to_its_timer() {
    let mut delivery = Delivery::default();
    add(&mut delivery, [unblock("p", "http://h/", ""), execute("t", "http://i/")]);
    let mut now = START;
    let mut given = Vec::new();
    for attempt in 1..=PUSH_ATTEMPTS_MAX {
        now = now.plus(REST_MAX);
        let flights = launch(&mut delivery, now);
        assert_eq!(flights.len(), 2, "attempt {attempt}");
        given = flights.iter().filter_map(|flight| delivery.land(flight.number, &silent(), now, 9)).collect();
        assert_eq!(given.is_empty(), attempt < PUSH_ATTEMPTS_MAX, "attempt {attempt}");
    }
    let letters: Vec<_> = given.into_iter().map(|given| (delivery.retract(&given.message.key()), given.dead)).collect();
    assert_eq!(letters.len(), 2);
    let dead = letters.into_iter().find_map(|(_, dead)| dead).unwrap();
    assert_eq!((dead.attempts, dead.error.as_str(), dead.dead_at), (PUSH_ATTEMPTS_MAX, "no", now));
    assert_eq!((delivery.len(), delivery.counts().delivered, delivery.counts().waiting), (0, 0, 0));
}

#[test]
fn a_rest_doubles_up_to_a_limit_and_is_spread_over_its_second_half() {
    for (failures, whole) in
        [(1, 500), (2, 1_000), (5, 8_000), (11, 512_000), (12, 600_000), (64, 600_000), (99, 600_000)]
    {
        assert_eq!(rest(failures, REST_MAX, 0).0, whole / 2);
        assert_eq!(rest(failures, REST_MAX, whole / 2).0, whole);
        assert!((0..1_000).map(|random| rest(failures, REST_MAX, random * 7_919).0).all(|rest| rest <= whole));
    }
    assert_eq!(rest(99, ORIGIN_REST_MAX, ORIGIN_REST_MAX.0 / 2), ORIGIN_REST_MAX);
}

#[test]
fn a_message_that_rests_can_be_sent_at_once_and_one_that_is_replaced_in_flight_lands_without_effect() {
    let mut delivery = Delivery::default();
    add(&mut delivery, [unblock("p", "http://h/", "")]);
    let flight = launch(&mut delivery, START).pop().unwrap();
    assert!(!delivery.hasten(0), "it is in flight");
    delivery.land(flight.number, &silent(), START, 0);
    assert!(launch(&mut delivery, START).is_empty());
    assert!(delivery.hasten(0) && !delivery.hasten(7));
    let flight = launch(&mut delivery, START).pop().unwrap();
    assert_eq!(delivery.add(unblock("p", "http://h/", "new"), 0, START).1, Some(0));
    assert!(delivery.land(flight.number, &Landing::Answered(200), START, 0).is_none());
    delivery.release(0);
    let flight = launch(&mut delivery, START).pop().unwrap();
    assert!(
        matches!(&*flight.message, Message::Unblock { promise, .. } if promise.value == protocol::Value::text("new"))
    );
    // The store is read again: what was in flight is queued anew, and its old post changes nothing.
    delivery.reload(vec![(1, unblock("p", "http://h/", "new"))], START);
    assert!(delivery.land(flight.number, &Landing::Answered(200), START, 0).is_none());
    assert_eq!(launch(&mut delivery, START).len(), 1);
    assert_eq!(delivery.push.origins.values().map(|origin| origin.flying).sum::<usize>(), 1);
}
