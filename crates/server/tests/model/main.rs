//! The live engine on SQLite against the reference model: requests as bytes on the wire, every answer and the whole
//! store compared after each.
//!
//! `cargo xtask model` runs the long forms: 200 seeds in each profile, and every crash of longer sequences.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(clippy::print_stdout, reason = "counts are part of what these tests are for")]
#![allow(clippy::disallowed_methods, reason = "the environment says how long a test may be")]

mod crashes;
mod walks;

use base::Timestamp;
use protocol::testkit::{Deed, World, wordless};
use protocol::wire::{self, Parsed};
use protocol::{Body, Debug, Request, Response};
use server::engine::{Config, Engine, Env, Keep, Opener, Readers, Writing};
use std::path::Path;
use store::{Directory, Sqlite, Store};

fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// The engine of one directory, as a tester has it: its clockwork stands.
struct Server<'a> {
    dir: &'a Path,
    config: protocol::Config,
    /// How many settled promises stay in memory.
    keep: Keep,
    engine: Option<Engine>,
}

impl<'a> Server<'a> {
    fn of(dir: &'a Path, config: protocol::Config) -> Server<'a> {
        Server { dir, config, keep: Keep::default(), engine: None }
    }

    /// Ends the engine, if there is one, and starts the next on what it left, at an instant.
    async fn open(&mut self, at: Timestamp) {
        self.open_with(at, |store| Ok(Box::new(store))).await;
    }

    /// As [`Server::open`], with something around the store.
    async fn open_with(
        &mut self,
        at: Timestamp,
        mut around: impl FnMut(Sqlite) -> Result<Box<dyn Store>, store::Error> + Send + 'static,
    ) {
        self.engine = None;
        let (protocol, settled_in_memory) = (self.config.clone(), self.keep);
        let config = Config { protocol, settled_in_memory, debug: true, ..Config::default() };
        let directory = Directory::take(self.dir).unwrap();
        let opener: Opener = Box::new(move || {
            let store = Sqlite::open(&directory)?;
            let readers = Readers::of(&store)?;
            Ok((around(store)?, readers))
        });
        // Until its clockwork stands nothing else runs: it begins with the next wait, and this does not wait.
        let engine = Engine::open_with(opener, Writing::Thread, config, Env::manual(at));
        self.engine = Some(engine.unwrap());
        let (status, _) = self.send(&Request::Debug(Debug::Start), at).await;
        assert_eq!(status, 200);
    }

    /// One request at an instant, as bytes; the bytes of the answer.
    async fn send(&self, request: &Request, at: Timestamp) -> (u16, Vec<u8>) {
        let mut envelope: serde_json::Value = serde_json::from_slice(&wire::render_request("c", request)).unwrap();
        envelope["head"]["resonate:debug_time"] = at.0.into();
        self.engine.as_ref().unwrap().wire(envelope.to_string().as_bytes()).await
    }

    /// One request, answered as a client reads it.
    async fn ask(&self, request: &Request, at: Timestamp) -> Response {
        let (status, bytes) = self.send(request, at).await;
        let answer = wire::parse_response(&bytes).unwrap();
        assert_eq!((answer.kind.as_str(), answer.corr_id.as_str()), (wire::kind_of(request), "c"));
        assert_eq!(answer.response.status, status);
        answer.response
    }

    /// Everything that is due.
    async fn sweep(&self, at: Timestamp) {
        let (status, bytes) = self.send(&Request::Debug(Debug::Tick(at)), at).await;
        let answer: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((status, &answer["data"]), (200, &serde_json::json!([])), "{answer}");
    }

    /// The whole store, as it is shown.
    async fn shown(&self, at: Timestamp) -> serde_json::Value {
        let (status, bytes) = self.send(&Request::Debug(Debug::Snap), at).await;
        assert_eq!(status, 200);
        serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()["data"].take()
    }
}

/// What the model holds, as a server shows it.
fn expected(world: &World) -> serde_json::Value {
    let request = Request::Debug(Debug::Snap);
    let parsed = Parsed {
        kind: wire::kind_of(&request).to_owned(),
        corr_id: "c".to_owned(),
        version: wire::VERSION.to_owned(),
        auth: None,
        debug_time: None,
        request,
    };
    let response = Response::ok(Body::Snapshot(Box::new(world.shown())));
    serde_json::from_slice::<serde_json::Value>(&wire::render_response(&parsed, &response)).unwrap()["data"].take()
}

/// A deed as a request on the wire.
fn request(deed: &Deed, at: Timestamp) -> Request {
    match deed {
        Deed::Ask(request) => request.clone(),
        Deed::Sweep(_) | Deed::Reclaim(_) | Deed::Deliver => Request::Debug(Debug::Tick(at)),
    }
}

/// Does the same to model and server, and compares.
async fn perform(world: &mut World, server: &Server<'_>, deed: &Deed) {
    match world.perform(deed) {
        Some(answer) => {
            let found = wordless(server.ask(&request(deed, world.now), world.now).await);
            let is_whole = server.keep == Keep::default();
            let [found, answer] = [found, answer].map(|one| if is_whole { one } else { without_preload(one) });
            assert_eq!(found, answer, "answer to {deed:?}");
        }
        None => server.sweep(world.now).await,
    }
    assert_eq!(server.shown(world.now).await, expected(world), "the store after {deed:?}");
}

/// A preload shows what is at hand in memory; everything else is the same whatever left it.
fn without_preload(mut response: Response) -> Response {
    if let Body::Acquired { preload, .. } | Body::Preload(preload) = &mut response.body {
        preload.clear();
    }
    response
}
