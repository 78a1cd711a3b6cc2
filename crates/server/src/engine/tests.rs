mod audit;
mod debug;
mod delivery;
mod durability;
mod guards;
mod leases;
mod push;
mod residence;
mod schedules;

use super::{Config, Engine, Entry, Env, Grace, OpenError, SubmitError, Submitted};
use base::{Millis, Timestamp};
use protocol::{Create, Request, Resolution, Settle, TARGET, TaskRef, Value};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;
use store::{Batch, Contents, Directory, Error, Sqlite, Store};

const START: Timestamp = Timestamp(1_000_000);
/// LIMIT: how long a test waits for what another thread or task does.
const PATIENCE: Duration = Duration::from_secs(30);
const FAR: Timestamp = Timestamp(9_000_000_000);

fn create(id: &str) -> Request {
    Request::PromiseCreate(Create {
        id: id.to_owned(),
        timeout_at: FAR,
        param: Value::default(),
        tags: BTreeMap::new(),
    })
}

fn create_for(id: &str, target: &str) -> Request {
    let tags = BTreeMap::from([(TARGET.to_owned(), target.to_owned())]);
    Request::PromiseCreate(Create { id: id.to_owned(), timeout_at: FAR, param: Value::default(), tags })
}

/// A promise that anybody may await.
fn create_external(id: &str) -> Request {
    let tags = BTreeMap::from([("resonate:external".to_owned(), "true".to_owned())]);
    Request::PromiseCreate(Create { id: id.to_owned(), timeout_at: FAR, param: Value::default(), tags })
}

fn settle(id: &str, data: &str) -> Request {
    let (state, value) = (Resolution::Resolved, Value::text(data));
    Request::PromiseSettle(Settle { id: id.to_owned(), state, value })
}

fn acquire(id: &str, version: u64, pid: &str) -> Request {
    Request::TaskAcquire { id: id.to_owned(), version, pid: pid.to_owned(), ttl: Millis(2_000) }
}

fn entry(incident: &str, seq: u64, bytes: &str) -> Entry {
    Entry { incident: Some(incident.to_owned()), seq: Some(seq), bytes: bytes.as_bytes().to_vec() }
}

fn open(dir: &Path) -> Engine {
    Engine::open(dir, Config::default(), Env::manual(START)).unwrap()
}

async fn submit(engine: &Engine, requests: Vec<Request>) -> Result<Submitted, SubmitError> {
    engine.submit(requests, Vec::new(), Vec::new(), Vec::new()).await
}

/// One request as its bytes on the wire, answered with the status and the parsed answer.
async fn wire(engine: &Engine, request: &Request) -> (u16, protocol::Response) {
    let (status, bytes) = engine.wire(&protocol::wire::render_request("1", request)).await;
    (status, protocol::wire::parse_response(&bytes).unwrap().response)
}

/// Polls once; whether the future still waits.
async fn waits(future: &mut Pin<&mut impl Future>) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

/// Looks again and again until it is so, and fails after [`PATIENCE`].
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, looking).await.is_ok(), "not within {PATIENCE:?}: {what}");
}

/// What a test's store does with the next commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Fault {
    None,
    /// Fails and writes nothing.
    Refuse,
    /// Writes everything and fails all the same, as a failed sync may.
    WriteAndRefuse,
}

/// A store whose commits fail or wait as a test says.
struct Faulty {
    inner: Sqlite,
    fault: Arc<AtomicU8>,
    gate: Option<Arc<Mutex<Receiver<()>>>>,
}

impl Store for Faulty {
    fn load(&mut self) -> Result<Contents, Error> {
        self.inner.load()
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        if let Some(gate) = &self.gate {
            // A test that is over opens the gate by dropping its end.
            let _ = gate.lock().unwrap().recv();
        }
        if self.fault.load(Ordering::SeqCst) == Fault::Refuse as u8 {
            return Err(Error::Refused("test"));
        }
        self.inner.commit(batch)?;
        if self.fault.load(Ordering::SeqCst) == Fault::WriteAndRefuse as u8 {
            return Err(Error::Refused("test"));
        }
        Ok(())
    }
}

fn open_faulty(dir: &Path, fault: &Arc<AtomicU8>) -> Result<Engine, OpenError> {
    open_store(dir, fault, None)
}

/// An engine whose every commit waits for one message.
fn open_gated(dir: &Path) -> (Engine, Sender<()>) {
    let (gate, opened) = channel();
    let fault = Arc::new(AtomicU8::new(Fault::None as u8));
    (open_store(dir, &fault, Some(Arc::new(Mutex::new(opened)))).unwrap(), gate)
}

fn open_store(dir: &Path, fault: &Arc<AtomicU8>, gate: Option<Arc<Mutex<Receiver<()>>>>) -> Result<Engine, OpenError> {
    let directory = Directory::take(dir).unwrap();
    let fault = Arc::clone(fault);
    let opener: super::Opener = Box::new(move || {
        let inner = Sqlite::open(&directory)?;
        let readers = super::Readers::of(&inner)?;
        let store = Faulty { inner, fault: Arc::clone(&fault), gate: gate.clone() };
        Ok((Box::new(store) as Box<dyn Store>, readers))
    });
    Engine::open_with(opener, super::Writing::Thread, Config::default(), Env::manual(START))
}
