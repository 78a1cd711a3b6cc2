use super::*;
use crate::fixture::Fixture;
use crate::holds::{self, routes};
use governance::record::{Hold, Link, Record, Resume};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A server that answers `GET /holds`, and a watch over its answers.
struct Rig {
    fixture: Fixture,
    watch: HoldWatch,
    server: JoinHandle<()>,
}

impl Rig {
    async fn new() -> Rig {
        let fixture = Fixture::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let router = routes(fixture.app.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let watch = HoldWatch::new(&fixture.app.env, &client, &["payments".to_owned(), "checkout".to_owned()]);
        Rig { fixture, watch, server }
    }

    async fn say(&self, scope: &str, undo: Option<bool>) {
        let version = holds::state(&self.fixture.app).version + 1;
        let (scope, reason, by) = (scope.to_owned(), String::new(), None);
        let record: Record = match undo {
            Some(undo) => Hold { scope, version, reason, undo, by }.into(),
            None => Resume { scope, version, reason, by }.into(),
        };
        let human = crate::keys::load_human(self.fixture.dir.path()).unwrap();
        let record = human.sign(&Link::default(), record).unwrap().to_json();
        holds::post(&self.fixture.app, &record).await.unwrap();
    }

    fn wait(&self, ms: u64) {
        self.fixture.app.env.advance(Millis(ms));
    }
}

#[tokio::test]
async fn a_word_that_nothing_is_held_is_acted_on_for_half_a_second() {
    let mut rig = Rig::new().await;
    assert!(rig.watch.permits(false).await);
    rig.say("payments", Some(false)).await;
    assert!(rig.watch.permits(false).await, "the word from before is still young");
    rig.wait(FRESH_MAX.0 + 1);
    assert!(!rig.watch.permits(false).await, "asked again, and held");
    assert!(!rig.watch.permits(true).await, "compensations too");
    rig.say("payments", None).await;
    assert!(rig.watch.permits(false).await);
    assert_eq!(rig.watch.version(), 2);
}

#[tokio::test]
async fn the_kernel_is_told_of_each_change_once() {
    let mut rig = Rig::new().await;
    rig.watch.ask().await;
    assert_eq!(rig.watch.news(), None, "nothing held from the start is no news");
    rig.say("gateway", Some(false)).await;
    rig.watch.ask().await;
    assert_eq!(rig.watch.news(), None, "a scope that the plan does not change");
    rig.say("checkout", Some(true)).await;
    rig.watch.ask().await;
    assert_eq!(rig.watch.news(), Some(Event::Hold { undo: true }));
    assert_eq!(rig.watch.news(), None);
    assert!(rig.watch.permits(true).await && !rig.watch.permits(false).await, "open steps are undone under it");
    rig.say("all", Some(false)).await;
    rig.watch.ask().await;
    assert_eq!(rig.watch.news(), Some(Event::Hold { undo: false }), "one that freezes everything wins");
    rig.say("all", None).await;
    rig.say("checkout", None).await;
    rig.watch.ask().await;
    assert_eq!(rig.watch.news(), Some(Event::Resumed));
    rig.watch.was_held();
    assert_eq!(rig.watch.news(), Some(Event::Hold { undo: false }), "a refused record is news");
    rig.watch.was_clear(rig.fixture.app.env.now());
    assert_eq!(rig.watch.news(), Some(Event::Resumed));
}

#[tokio::test]
async fn not_knowing_counts_as_held() {
    let mut rig = Rig::new().await;
    assert!(rig.watch.permits(false).await);
    rig.server.abort();
    assert!((&mut rig.server).await.is_err());
    // The watch's connection is gone with the server's runtime task; a kept one may still be answered once.
    rig.watch.client = Client::new("http://127.0.0.1:1").unwrap();
    rig.watch.ask().await;
    assert!(rig.watch.permits(false).await, "a young word outlives the server");
    rig.wait(FRESH_MAX.0 + 1);
    assert!(!rig.watch.permits(false).await && !rig.watch.permits(true).await);
    assert_eq!(rig.watch.news(), Some(Event::Hold { undo: false }));
}
