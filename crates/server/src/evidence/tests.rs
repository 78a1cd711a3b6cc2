use super::*;
use crate::engine::Entry;
use crate::fixture::Fixture;
use crate::incidents::Chain;
use governance::bundle::records;
use governance::record::{Hold, Resume, Veto};

fn note(text: &str) -> Entry {
    Entry { incident: None, seq: None, bytes: text.as_bytes().to_vec() }
}

async fn append(app: &App, entries: Vec<Entry>) {
    app.engine.submit(Vec::new(), entries, Vec::new(), Vec::new()).await.unwrap();
}

#[tokio::test]
async fn a_checkpoint_covers_the_whole_log_and_extends_the_one_before() {
    let Fixture { app, dir: _dir } = Fixture::new();
    append(&app, vec![note("a"), note("b")]).await;
    let (first, text) = checkpoint(&app).await.unwrap();
    assert_eq!(Checkpoint::open(&text, &app.keys.log.public()), Ok(first.clone()));
    assert_eq!((first.size, &first.origin), (2, &app.keys.origin));
    assert_eq!(checkpoint(&app).await.unwrap().0, first, "the same log, the same checkpoint");
    append(&app, vec![note("c")]).await;
    let (second, _) = checkpoint(&app).await.unwrap();
    let tree = Tree::of_leaves(app.engine.leaf_hashes());
    let proof = tree.consistency(first.size, second.size).unwrap();
    assert!(governance::log::verify_consistency(first.size, &first.root, second.size, &second.root, &proof));
}

#[tokio::test]
async fn a_log_that_forked_or_lost_entries_is_never_signed_again() {
    let Fixture { app, dir: _dir } = Fixture::new();
    append(&app, vec![note("a"), note("b")]).await;
    let honest = checkpoint(&app).await.unwrap().0;
    let origin = app.keys.origin.clone();
    let forked = Checkpoint { origin: origin.clone(), size: 1, root: Digest::of(b"another entry") };
    let longer = Checkpoint { origin, size: 3, root: honest.root };
    for signed in [forked, longer] {
        let remembered = signed.sign(&app.keys.log).into_bytes();
        app.engine.put_meta(CHECKPOINT_KEY, remembered.clone()).await.unwrap();
        let refused = checkpoint(&app).await;
        assert!(matches!(refused, Err(EvidenceError::Forked(size)) if size == signed.size), "{refused:?}");
        let refused = bundle(&app, "i1").await;
        assert!(matches!(refused, Err(EvidenceError::Forked(_))), "{refused:?}");
        assert_eq!(app.engine.get_meta(CHECKPOINT_KEY).await.unwrap(), Some(remembered), "nothing new was signed");
    }
}

#[tokio::test]
async fn the_policy_is_recorded_once_and_again_only_when_it_changed() {
    let Fixture { mut app, dir: _dir } = Fixture::new();
    record_policy(&app).await.unwrap();
    record_policy(&app).await.unwrap();
    assert_eq!(app.engine.log_size(), 1);
    let before = app.policy.digest();
    assert_eq!(app.engine.blob(&before).unwrap(), Some(app.policy.to_bytes()));
    let mut changed = (*app.policy).clone();
    changed.name = "another".into();
    app.policy = changed.into();
    record_policy(&app).await.unwrap();
    let last = app.engine.entries(1..2).unwrap().pop().unwrap();
    let Record::PolicyChange(change) = crate::incidents::statement(&last).unwrap().record else {
        panic!("no change of policy")
    };
    assert_eq!((change.previous, change.digest), (Some(before), app.policy.digest()));
    assert_eq!(rested_on(&app, RECORDS_AT_ONCE, &[]).unwrap().iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn a_bundle_has_the_holds_that_were_in_force_or_changed_while_the_incident_ran() {
    let Fixture { app, dir } = Fixture::new();
    let human = crate::keys::load_human(dir.path()).unwrap();
    let say = async |version: u64, scope: &str, is_resume: bool| {
        let (scope, reason) = (scope.to_owned(), String::new());
        let record: Record = match is_resume {
            true => Resume { scope, version, reason, by: None }.into(),
            false => Hold { scope, version, reason, undo: false, by: None }.into(),
        };
        let envelope = human.sign(&governance::record::Link::default(), record).unwrap();
        crate::holds::post(&app, &envelope.to_json()).await.unwrap();
    };
    let veto = async || {
        let mut batch = Chain::load(&app.engine, "i1").batch(app.env.now());
        let veto = Veto { plan: Digest::of(b"p"), reasons: Vec::new(), evidence: Vec::new() };
        batch.record(&app.keys.verification, veto).unwrap();
        app.engine.submit(Vec::new(), batch.into_parts().1, Vec::new(), Vec::new()).await.unwrap();
    };
    say(1, "payments", false).await;
    say(2, "checkout", false).await;
    say(3, "checkout", true).await;
    veto().await;
    say(4, "all", false).await;
    say(5, "all", true).await;
    veto().await;
    say(6, "all", false).await;
    let listed: Vec<u64> =
        records(&bundle(&app, "i1").await.unwrap()).unwrap().iter().map(|(index, _)| *index).collect();
    assert_eq!(listed, [0, 3, 4, 5, 6], "not what ended before, and not what came after");
    let own = app.engine.incident_entries("i1").unwrap();
    for at_once in [1, 2, 3, RECORDS_AT_ONCE] {
        let mut seen = Vec::new();
        walk(&app.engine, at_once, |index, bytes| seen.push((index, bytes))).unwrap();
        let all: Vec<_> = (0..).zip(app.engine.entries(0..app.engine.log_size()).unwrap()).collect();
        assert_eq!(seen, all, "{at_once} at once");
        let mut found: Vec<u64> = rested_on(&app, at_once, &own).unwrap().iter().map(|(index, _)| *index).collect();
        found.sort_unstable();
        assert_eq!(found, [0, 4, 5], "{at_once} at once");
    }
}

#[tokio::test]
async fn a_bundle_holds_the_incidents_records_and_what_they_name() {
    let Fixture { app, dir: _dir } = Fixture::new();
    record_policy(&app).await.unwrap();
    append(&app, vec![note("of nobody")]).await;
    let mut batch = Chain::load(&app.engine, "i1").batch(app.env.now());
    let named = batch.blob(b"the agent's words".to_vec());
    let veto = Veto { plan: named, reasons: vec!["a caller was missed".into()], evidence: Vec::new() };
    batch.record(&app.keys.verification, veto).unwrap();
    let (_, entries, blobs) = batch.into_parts();
    app.engine.submit(Vec::new(), entries, blobs, Vec::new()).await.unwrap();
    let bytes = bundle(&app, "i1").await.unwrap();
    let listed: Vec<u64> = records(&bytes).unwrap().iter().map(|(index, _)| *index).collect();
    assert_eq!(listed, [0, 2], "the active policy's record and the incident's own");
    let words = b"the agent's words";
    assert!(bytes.windows(words.len()).any(|window| window == words), "a blob that a record names travels along");
    let unknown = bundle(&app, "i2").await;
    assert!(matches!(unknown, Err(EvidenceError::Unknown(_))), "{unknown:?}");
}
