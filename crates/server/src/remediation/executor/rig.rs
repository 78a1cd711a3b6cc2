//! What tests of an executor's parts need: a server behind a way that loses answers, and a task at hand.

use super::Parts;
use super::report::Reporter;
use crate::engine::Env;
use crate::fixture::{START, ask};
use crate::platform::Platform;
use crate::remediation::records::tests::{Gate, plan};
use crate::remediation::routes;
use crate::remediation::wire::{NotTaken, Refusal};
use actuators::process::ProcessActuator;
use axum::Router;
use base::Millis;
use bytes::Bytes;
use client::{Answering, Cause, Client, Exchange, Job, Lease};
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Response};
use protocol::TaskRef;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// LIMIT: how long a test waits.
const PATIENCE: Duration = Duration::from_secs(30);
/// As long as any pause between two tries.
pub(super) const PAUSE: Millis = Millis(100);

/// What becomes of a post on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
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
pub(super) struct Way {
    gate: Arc<Gate>,
    router: Router,
    fates: Mutex<VecDeque<Fate>>,
    pub(super) posts: Mutex<Vec<Bytes>>,
}

impl Way {
    pub(super) fn new(gate: &Arc<Gate>, fates: &[Fate]) -> Arc<Way> {
        let router = routes(gate.app.clone()).merge(crate::holds::routes(gate.app.clone()));
        let fates = Mutex::new(fates.iter().copied().collect());
        Arc::new(Way { gate: Arc::clone(gate), router, fates, posts: Mutex::default() })
    }
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

/// An executor that sees nothing and has a clock of its own: pauses between tries cost a task's lease nothing.
pub(super) fn parts(gate: &Gate, client: Client) -> Parts {
    let dir = gate.dir.path();
    Parts {
        env: Env::manual(START),
        client,
        signer: gate.executor.clone(),
        keyring: gate.app.keys.keyring.clone(),
        platform: Platform::new(dir, gate.app.topology.clone()),
        actuator: Arc::new(ProcessActuator::open(dir).unwrap()),
        pid: "w1".into(),
        lease: Millis(1_000),
        stop: CancellationToken::new(),
    }
}

/// The commit's task as the gate's worker holds it.
pub(super) fn job(gate: &Gate) -> Job {
    let lease = Lease::unwatched(TaskRef { id: gate.task.clone(), version: 1 });
    Job { promise: gate.app.engine.promise(&gate.task).unwrap(), preload: Vec::new(), lease }
}

pub(super) fn reporter(gate: &Gate, shared: &Arc<Parts>) -> Reporter {
    Reporter::new(shared, &job(gate), &gate.incident, Some((plan(), gate.epoch)))
}

/// Lets the time of pauses pass until it is done, and fails after [`PATIENCE`].
pub(super) async fn through_pauses<T>(env: &Env, work: impl Future<Output = T>) -> T {
    let passing = async {
        loop {
            tokio::task::yield_now().await;
            env.advance(PAUSE);
        }
    };
    tokio::select! {
        biased;
        done = tokio::time::timeout(PATIENCE, work) => done.unwrap(),
        never = passing => never,
    }
}
