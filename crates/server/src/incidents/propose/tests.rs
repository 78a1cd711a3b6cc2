use super::*;
use recovery::graph::{Config, replay};

const COUPLED: &str = "[service.front]\n[service.catalog]\ncoupled = [\"cache\"]\n[service.cache]\n";

/// A plan pinned to the slice of its targets alone was refused with K503 whenever the group held a coupled service that
/// was not impaired itself: the kernel's check looks at the slice of the whole group.
#[test]
fn a_plan_is_pinned_to_the_slice_that_it_is_checked_against() {
    let topology = crate::topology::parse(std::path::Path::new("stanch.toml"), COUPLED).unwrap();
    let (graph, now) = replay(&Config::default(), Some(&topology), &[]).unwrap();
    let snapshot = graph.snapshot(now);
    let detected = Detected { impaired: vec!["catalog".to_owned()], ..Detected::default() };
    let members = ["cache".to_owned(), "catalog".to_owned()];
    let whole = snapshot.slice(&["cache", "catalog", "front"]).digest();
    assert_eq!(slice(&snapshot, &detected, "front", &members).digest(), whole);
    assert_ne!(snapshot.slice(&["catalog", "front"]).digest(), whole, "it is the seeds that matter here");
}
