use super::*;
use crate::engine::{Guard, SubmitError};
use crate::fixture::Fixture;
use governance::record::Veto;

fn veto(reason: &str) -> Veto {
    Veto { plan: Digest::of(b"plan"), reasons: vec![reason.to_owned()], evidence: Vec::new() }
}

async fn write(engine: &Engine, batch: Batch) -> Result<Chain, SubmitError> {
    let guard = Guard::Chain { incident: "i1".into(), seq: batch.first_seq() };
    let (chain, entries, blobs) = batch.into_parts();
    engine.submit(Vec::new(), entries, blobs, vec![guard]).await.map(|_| chain)
}

#[tokio::test]
async fn records_are_numbered_without_gaps_and_each_names_the_one_before() {
    let Fixture { app, dir: _dir } = Fixture::new();
    let signer = &app.keys.verification;
    let empty = Chain::load(&app.engine, "i1");
    assert_eq!((empty.seq, empty.prev), (0, None));
    let mut batch = empty.batch(app.env.now());
    let first = batch.record(signer, veto("a")).unwrap();
    let second = batch.record(signer, veto("b")).unwrap();
    let blob = batch.blob(b"words".to_vec());
    assert_eq!(batch.first_seq(), 0);
    let after = write(&app.engine, batch).await.unwrap();
    assert_eq!(after, Chain { incident: "i1".into(), seq: 2, prev: Some(second) });
    assert_eq!(Chain::load(&app.engine, "i1"), after, "what was written is what is read");
    assert_eq!(app.engine.blob(&blob).unwrap().as_deref(), Some(&b"words"[..]));

    let mut next = after.batch(app.env.now());
    let third = next.record(signer, veto("c")).unwrap();
    assert_eq!(next.first_seq(), 2);
    write(&app.engine, next).await.unwrap();
    let entries = app.engine.incident_entries("i1").unwrap();
    let digests: Vec<_> = entries.iter().filter_map(|(_, bytes)| statement_digest(bytes)).collect();
    assert_eq!(digests, [first, second, third]);
    let links: Vec<_> = entries
        .iter()
        .map(|(_, bytes)| statement(bytes).unwrap().common)
        .map(|common| (common.seq, common.prev, common.at))
        .collect();
    let at = app.env.now();
    assert_eq!(links, [(0, None, at), (1, Some(first), at), (2, Some(second), at)]);
    assert_eq!(Chain::load(&app.engine, "i2").seq, 0, "another incident has a chain of its own");
}

#[tokio::test]
async fn of_two_writers_at_the_same_place_only_one_is_written() {
    let Fixture { app, dir: _dir } = Fixture::new();
    let chain = Chain::load(&app.engine, "i1");
    let (mut mine, mut theirs) = (chain.batch(app.env.now()), chain.batch(app.env.now()));
    mine.record(&app.keys.verification, veto("mine")).unwrap();
    theirs.record(&app.keys.verification, veto("theirs")).unwrap();
    write(&app.engine, theirs).await.unwrap();
    let lost = write(&app.engine, mine).await;
    assert!(matches!(lost, Err(SubmitError::Guard(Guard::Chain { seq: 0, .. }))), "{lost:?}");
    assert_eq!(app.engine.log_size(), 1);
}

#[tokio::test]
async fn behind_a_record_that_cannot_be_read_nothing_is_written() {
    let Fixture { app, dir: _dir } = Fixture::new();
    let garbled = Entry { incident: Some("i1".into()), seq: Some(0), bytes: b"not a record".to_vec() };
    assert_eq!((statement_digest(&garbled.bytes), statement(&garbled.bytes)), (None, None));
    app.engine.submit(Vec::new(), vec![garbled], Vec::new(), Vec::new()).await.unwrap();
    let mut batch = Chain::load(&app.engine, "i1").batch(app.env.now());
    batch.record(&app.keys.verification, veto("a")).unwrap();
    let refused = write(&app.engine, batch).await;
    assert!(matches!(refused, Err(SubmitError::Guard(Guard::Chain { .. }))), "{refused:?}");
}

#[tokio::test]
async fn a_signer_of_another_role_adds_nothing() {
    let Fixture { app, dir: _dir } = Fixture::new();
    let mut batch = Chain::load(&app.engine, "i1").batch(app.env.now());
    assert!(matches!(batch.record(&app.keys.detector, veto("a")), Err(KeyringError::Role(..))));
    let (chain, entries, _) = batch.into_parts();
    assert_eq!((chain.seq, entries.len()), (0, 0));
}

#[tokio::test]
async fn a_chain_is_proven_as_a_whole_or_not_at_all() {
    let Fixture { app, dir: _dir } = Fixture::new();
    let Fixture { app: stranger, dir: _other } = Fixture::new();
    assert_eq!(proven(&app.engine, &app.keys.keyring, "i1"), BTreeSet::new(), "nothing proves nothing");
    let mut batch = Chain::load(&app.engine, "i1").batch(app.env.now());
    let first = batch.record(&app.keys.verification, veto("a")).unwrap();
    let second = batch.record(&app.keys.verification, veto("b")).unwrap();
    let after = write(&app.engine, batch).await.unwrap();
    assert_eq!(proven(&app.engine, &app.keys.keyring, "i1"), BTreeSet::from([first, second]));
    assert_eq!(proven(&app.engine, &stranger.keys.keyring, "i1"), BTreeSet::new(), "keys of another installation");

    let mut forged = after.batch(app.env.now());
    forged.record(&stranger.keys.verification, veto("c")).unwrap();
    write(&app.engine, forged).await.unwrap();
    assert_eq!(proven(&app.engine, &app.keys.keyring, "i1"), BTreeSet::new(), "one foreign signature spoils it");
}
