use super::*;
use base::Millis;
use std::net::Ipv4Addr;

fn traffic(settings: ServerSettings) -> Traffic {
    Traffic::new(Env::manual(Timestamp(1_000)), settings)
}

fn address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number))
}

#[test]
fn without_a_rate_everybody_asks_as_often_as_they_like() {
    let traffic = traffic(ServerSettings::default());
    assert!((0..100_000).all(|_| traffic.allow(address(1)).is_ok()));
    assert!(traffic.0.buckets.lock().unwrap().is_empty(), "nothing is kept for nothing");
}

#[test]
fn an_address_asks_in_bursts_and_then_at_its_rate() {
    let settings = ServerSettings { requests_per_second: 10, request_burst: 3, ..ServerSettings::default() };
    let traffic = traffic(settings);
    let allowed = |from| (0..20).filter(|_| traffic.allow(from).is_ok()).count();
    assert_eq!((allowed(address(1)), allowed(address(2))), (3, 3), "each has its own");
    assert_eq!(traffic.allow(address(1)), Err(1));
    for (passed, expected) in [(99, 0), (1, 1), (250, 2), (50, 1), (3_600_000, 3)] {
        traffic.env().advance(Millis(passed));
        assert_eq!(allowed(address(1)), expected, "after {passed} ms more");
    }
    let refused = traffic.refused().find(|(name, _)| *name == "rate").map(|(_, counter)| counter.get());
    assert!(refused.unwrap() > 100, "{refused:?}");
}

#[test]
fn who_is_refused_is_told_when_to_come_back() {
    let settings = ServerSettings { requests_per_second: 1, request_burst: 1, ..ServerSettings::default() };
    let traffic = traffic(settings);
    assert_eq!((traffic.allow(address(1)), traffic.allow(address(1))), (Ok(()), Err(1)));
    traffic.env().advance(Millis(1_000));
    assert_eq!(traffic.allow(address(1)), Ok(()));
}

#[test]
fn a_network_of_new_addresses_is_one_client() {
    let settings = ServerSettings { requests_per_second: 1, request_burst: 1, ..ServerSettings::default() };
    let traffic = traffic(settings);
    let ask = |text: &str| traffic.allow(text.parse().unwrap()).is_ok();
    assert_eq!([ask("2001:db8::1"), ask("2001:db8::2"), ask("2001:db8:0:1::1")], [true, false, true]);
    assert_eq!([ask("10.0.0.1"), ask("::ffff:10.0.0.1")], [true, false], "one address in two spellings");
}

#[test]
fn beyond_the_most_addresses_the_others_share_one_allowance() {
    let settings = ServerSettings { requests_per_second: 1, request_burst: 2, ..ServerSettings::default() };
    let traffic = traffic(settings);
    let many = u32::try_from(ADDRESSES_MAX).unwrap();
    assert!((0..many).all(|number| traffic.allow(address(number)).is_ok()));
    let next: Vec<bool> = (many..many + 3).map(|number| traffic.allow(address(number)).is_ok()).collect();
    assert_eq!(next, [true, true, false]);
    assert!(traffic.0.buckets.lock().unwrap().len() <= ADDRESSES_MAX + 1);
    // Whoever has all of it again is forgotten, and makes room.
    traffic.env().advance(Millis(1_000));
    assert!((many..many + 1_000).all(|number| traffic.allow(address(number)).is_ok()));
}

#[test]
fn connections_and_requests_have_room_again_when_one_ends() {
    let settings = ServerSettings { connections_max: 2, requests_in_flight_max: 1, ..ServerSettings::default() };
    let traffic = traffic(settings);
    let first = traffic.open().unwrap();
    let _second = traffic.open().unwrap();
    assert!(traffic.open().is_none());
    drop(first);
    assert!(traffic.open().is_some());
    let one = traffic.enter().unwrap();
    assert!(traffic.enter().is_none() && traffic.enter().is_none());
    drop(one);
    assert!(traffic.enter().is_some());
    assert_eq!((traffic.in_flight().get(), traffic.connections().get()), (0, 1));
}
