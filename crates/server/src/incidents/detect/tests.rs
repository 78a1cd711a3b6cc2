use super::*;
use crate::fixture::{Fixture, START};
use crate::incidents::view::View;
use crate::incidents::{Brief, Ending, stage_id};
use protocol::{Create, Request, Resolution, Settle, TaskRef, Value};
use std::sync::{Arc, Mutex};

/// The run of a successor who finds this stage settled.
async fn successor(fixture: &Fixture, stage: &str, value: &impl Serialize) -> Run {
    let (id, app) = (stage_id("i", stage), fixture.app.clone());
    let value = Value::text(serde_json::to_string(value).unwrap());
    let create = Create {
        id: id.clone(),
        timeout_at: START.plus(Millis(60_000)),
        param: Value::default(),
        tags: std::collections::BTreeMap::new(),
    };
    let settle = Settle { id, state: Resolution::Resolved, value };
    let requests = vec![Request::PromiseCreate(create), Request::PromiseSettle(settle)];
    app.engine.submit(requests, Vec::new(), Vec::new(), Vec::new()).await.unwrap();
    let brief = Brief { target: "checkout".to_owned(), ..Brief::default() };
    let task = TaskRef { id: "inc/i".to_owned(), version: 1 };
    Run::new(app, "i".to_owned(), brief, task, Arc::new(Mutex::new(View::default())))
}

#[tokio::test]
async fn a_successor_does_not_go_on_where_the_observers_did_not_agree() {
    let fixture = Fixture::new();
    let policy = fixture.app.policy.clone();
    let effective = policy.effective(policy.tier_of("checkout").unwrap(), RESTARTS).unwrap();
    let k = effective.tier.observers.k;
    let mut found = Detected { votes_impaired: k - 1, votes_asked: 3, ..Detected::default() };
    let stopped = successor(&fixture, "detect", &found).await.detect(&effective).await;
    assert!(matches!(&stopped, Err(Stop::Ended(ending)) if ending.why.starts_with("G208 ")), "{stopped:?}");

    let fixture = Fixture::new();
    found.votes_impaired = k;
    assert_eq!(successor(&fixture, "detect", &found).await.detect(&effective).await.unwrap(), found);
}

#[tokio::test]
async fn a_successor_ends_an_incident_as_its_predecessor_did() {
    let fixture = Fixture::new();
    let ending = Ending { outcome: "escalated".to_owned(), exit: 20, why: "as it was".to_owned() };
    assert_eq!(successor(&fixture, "ending", &ending).await.ending().await.unwrap(), ending);
}
