use super::*;
use crate::fixture::{START, ask};
use crate::platform::Platform;
use crate::remediation::executor::Parts;
use crate::remediation::records::tests::{EDGE_LIMIT, Gate, intend, plan};
use crate::remediation::routes;
use actuators::process::ProcessActuator;
use axum::Router;
use bytes::Bytes;
use client::{Answering, Cause, Client, Exchange};
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Response};
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// What becomes of a post on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It arrives, and its answer is lost.
    Unheard,
    /// It arrives, its answer is lost, and somebody else's record follows it before it is sent again.
    Overtaken,
    /// An earlier copy of it is on its way to the disk.
    UnderWay,
    /// The server answers that its store takes no writes.
    Unavailable,
}

/// The way to a server that answers, but for the fates of the first posts.
struct Way {
    gate: Arc<Gate>,
    router: Router,
    fates: Mutex<VecDeque<Fate>>,
    posts: Mutex<Vec<Bytes>>,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Way")
    }
}

impl Exchange for Way {
    fn exchange(&self, request: Request<Full<Bytes>>) -> Answering<'_> {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let Ok(body) = body.collect().await.map(|body| body.to_bytes());
            let fate = match parts.method == Method::POST {
                true => {
                    self.posts.lock().unwrap_or_else(PoisonError::into_inner).push(body.clone());
                    self.fates.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
                }
                false => None,
            };
            let says = |status: u16, why: Refusal| {
                let refused = serde_json::to_vec(&NotTaken { why, text: String::new() }).unwrap();
                Ok(answer(status, refused))
            };
            match fate {
                Some(Fate::UnderWay) => return says(409, Refusal::Chain),
                Some(Fate::Unavailable) => return says(503, Refusal::Unavailable),
                Some(Fate::Unheard | Fate::Overtaken) | None => {}
            }
            let (status, bytes) = ask(&self.router, Request::from_parts(parts, body.into())).await;
            if fate == Some(Fate::Overtaken) {
                self.gate.append_other().await;
            }
            match fate {
                Some(_) => Err(Cause("connection reset".to_owned())),
                None => Ok(answer(status.as_u16(), bytes)),
            }
        })
    }
}

fn answer(status: u16, bytes: Vec<u8>) -> Response<client::AnswerBody> {
    let body = Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}

fn reporter(gate: &Gate, client: Client) -> Reporter {
    let dir = gate.dir.path();
    let parts = Parts {
        // A clock of its own: pauses between tries cost the task's lease nothing.
        env: crate::engine::Env::manual(START),
        client,
        signer: gate.executor.clone(),
        keyring: gate.app.keys.keyring.clone(),
        platform: Platform::new(dir, gate.app.topology.clone()),
        actuator: Arc::new(ProcessActuator::open(dir).unwrap()),
        pid: "w1".into(),
        lease: Millis(1_000),
    };
    Reporter {
        shared: Arc::new(parts),
        incident: gate.incident.clone(),
        task: gate.task.clone(),
        version: 1,
        epoch: Some(gate.epoch),
        plan: plan(),
        standing: None,
        lease: Lease::unwatched(protocol::TaskRef { id: gate.task.clone(), version: 1 }),
    }
}

/// Lets the time of pauses pass until it is done.
async fn through_pauses<T>(env: &crate::engine::Env, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::task::yield_now() => env.advance(AGAIN),
        }
    }
}

/// Sends one line through these fates: the lines of the journal then, and how many different posts there were of all.
async fn sent(fates: &[Fate]) -> (usize, usize, usize) {
    let gate = Arc::new(Gate::new().await);
    let way = Arc::new(Way {
        gate: Arc::clone(&gate),
        router: routes(gate.app.clone()),
        fates: Mutex::new(fates.iter().copied().collect()),
        posts: Mutex::default(),
    });
    let mut reporter = reporter(&gate, Client::through(way.clone()));
    let env = reporter.shared.env.clone();
    let line = gate.line(&intend("s1", EDGE_LIMIT));
    through_pauses(&env, reporter.send(vec![line])).await.unwrap();
    let journal = through_pauses(&env, reporter.standing()).await.unwrap().journal;
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
    let way = Arc::new(Way {
        gate: Arc::clone(&gate),
        router: routes(gate.app.clone()),
        fates: Mutex::default(),
        posts: Mutex::default(),
    });
    let mut reporter = reporter(&gate, Client::through(way.clone()));
    let env = reporter.shared.env.clone();
    through_pauses(&env, reporter.standing()).await.unwrap();
    gate.append_other().await;
    through_pauses(&env, reporter.send(vec![gate.line(&intend("s1", EDGE_LIMIT))])).await.unwrap();
    let standing = through_pauses(&env, reporter.standing()).await.unwrap();
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
    let mut reporter = reporter(&gate, Client::new(&url).unwrap());
    let env = reporter.shared.env.clone();
    let lost = through_pauses(&env, reporter.standing()).await.map(|_| ());
    assert_eq!((lost, asked.load(Ordering::SeqCst)), (Err(Lost::Refused), TRIES_MAX));
}
