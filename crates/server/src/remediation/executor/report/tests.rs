use super::*;
use crate::remediation::executor::rig::{Fate, Way, parts, reporter, through_pauses};
use crate::remediation::records::tests::{EDGE_LIMIT, Gate, intend};
use client::Client;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};

/// Sends one line through these fates: the lines of the journal then, and how many different posts there were of all.
async fn sent(fates: &[Fate]) -> (usize, usize, usize) {
    let gate = Arc::new(Gate::new().await);
    let way = Way::new(&gate, fates);
    let shared = Arc::new(parts(&gate, Client::through(way.clone())));
    let (mut reporter, env) = (reporter(&gate, &shared), &shared.env);
    let line = gate.line(&intend("s1", EDGE_LIMIT));
    through_pauses(env, reporter.send(vec![line])).await.unwrap();
    let journal = through_pauses(env, reporter.standing()).await.unwrap().journal;
    let mut posts = way.posts.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let all = posts.len();
    posts.dedup();
    (journal.len(), posts.len(), all)
}

#[tokio::test]
async fn a_record_whose_answer_was_lost_is_sent_again_as_it_is_and_written_once() {
    assert_eq!(sent(&[]).await, (1, 1, 1));
    assert_eq!(sent(&[Fate::Unheard]).await, (1, 1, 2));
    assert_eq!(sent(&[Fate::Unheard, Fate::Unheard]).await, (1, 1, 3));
    assert_eq!(sent(&[Fate::Overtaken]).await, (1, 1, 2), "known although others wrote since");
}

#[tokio::test]
async fn a_record_on_its_way_to_the_disk_is_waited_for_and_not_signed_anew() {
    assert_eq!(sent(&[Fate::UnderWay, Fate::UnderWay]).await, (1, 1, 3));
    assert_eq!(sent(&[Fate::Unavailable, Fate::UnderWay]).await, (1, 1, 3));
    assert_eq!(sent(&[Fate::UnderWay, Fate::Unheard]).await, (1, 1, 3));
}

#[tokio::test]
async fn a_record_whose_place_is_anothers_is_signed_anew() {
    let gate = Arc::new(Gate::new().await);
    let way = Way::new(&gate, &[]);
    let shared = Arc::new(parts(&gate, Client::through(way.clone())));
    let (mut reporter, env) = (reporter(&gate, &shared), &shared.env);
    through_pauses(env, reporter.standing()).await.unwrap();
    gate.append_other().await;
    through_pauses(env, reporter.send(vec![gate.line(&intend("s1", EDGE_LIMIT))])).await.unwrap();
    let standing = through_pauses(env, reporter.standing()).await.unwrap();
    assert_eq!((standing.seq, standing.journal.len()), (2, 1));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_asked_so_often_and_no_more() {
    let gate = Gate::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicU32::new(0));
    let counted = asked.clone();
    // Every connection is closed as soon as it is made.
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let shared = Arc::new(parts(&gate, Client::new(&url).unwrap()));
    let (mut reporter, env) = (reporter(&gate, &shared), &shared.env);
    let lost = through_pauses(env, reporter.standing()).await.map(|_| ());
    assert_eq!((lost, asked.load(Ordering::SeqCst)), (Err(Lost::Refused), TRIES_MAX));
}
