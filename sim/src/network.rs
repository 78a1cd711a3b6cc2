//! The simulator's network: requests to whichever server runs now, and to the agent. A connection ends with either end.

use axum::Router;
use bytes::Bytes;
use client::{Answering, Cause, Exchange};
use futures_util::stream;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::service::Service as _;
use hyper::{Request, Response};
use hyper_util::service::TowerToHyperService;
use server::agents::Way;
use server::engine::Env;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// LIMIT: frames of a body on their way.
const FRAMES_MAX: usize = 64;
/// How long the agent thinks.
const THINKING: Duration = Duration::from_millis(120);
/// What the agent always proposes: more than the fault asks for.
const PROPOSAL: &str = r#"{"plan":"restart payments ; restart checkout","opinion":{"confidence":"certain"}}"#;

/// The server's address: whichever process listens there now. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Address(Arc<Mutex<Option<(Env, Router)>>>);

/// The agent's process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agent {
    is_dead: Arc<AtomicBool>,
}

impl Address {
    /// From now on this process listens.
    pub(crate) fn listen(&self, env: Env, router: Router) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((env, router));
    }

    /// Nobody listens any more.
    pub(crate) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn listening(&self) -> Option<(Env, Router)> {
        let listening = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        listening.filter(|(env, _)| !env.is_ended())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address")
    }
}

impl Exchange for Address {
    fn exchange(&self, request: Request<Full<Bytes>>) -> Answering<'_> {
        Box::pin(async move {
            let (env, router) = self.listening().ok_or_else(|| Cause("connection refused".to_owned()))?;
            let (answered, answer) = oneshot::channel();
            let life = env.clone();
            env.spawn(async move {
                // A router never fails; an asker that is gone needs no answer.
                let Ok(response) = TowerToHyperService::new(router).call(request).await;
                let _ = answered.send(stream_of(&life, response));
            });
            answer.await.map_err(|_| Cause("connection reset".to_owned()))
        })
    }
}

/// The same answer with a body that ends with the process that sends it, and is not read once the asker is gone.
fn stream_of(env: &Env, response: Response<axum::body::Body>) -> Response<client::AnswerBody> {
    let (parts, mut body) = response.into_parts();
    let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, Cause>>(FRAMES_MAX);
    env.spawn(async move {
        loop {
            let frame = tokio::select! {
                biased;
                () = sender.closed() => return,
                frame = body.frame() => frame,
            };
            let Some(frame) = frame else { return };
            if sender.send(frame.map_err(|error| Cause(error.to_string()))).await.is_err() {
                return;
            }
        }
    });
    let frames = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    Response::from_parts(parts, StreamBody::new(frames).boxed_unsync())
}

impl Agent {
    pub(crate) fn kill(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
    }

    fn living(&self) -> Result<(), String> {
        if self.is_dead.load(Ordering::SeqCst) { Err("connection reset".to_owned()) } else { Ok(()) }
    }
}

impl Way for Agent {
    fn post(
        &self,
        _url: &str,
        _body: Vec<u8>,
        timeout: Duration,
    ) -> actuators::Fut<'_, Result<(u16, Vec<u8>), String>> {
        Box::pin(async move {
            self.living()?;
            tokio::time::sleep(THINKING.min(timeout)).await;
            self.living()?;
            Ok((200, PROPOSAL.as_bytes().to_vec()))
        })
    }
}
