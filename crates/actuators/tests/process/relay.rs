//! A network that breaks: an actuator that sees its supervisor and its proxy through a relay of the test's own.

use crate::rig::World;
use actuators::contract::LinkFault;
use actuators::control::{PROXY_FILE, SUPERVISOR_SOCKET};
use actuators::process::ProcessActuator;
use actuators::{Actuator, Capabilities, DryRun, Error, Fut, Selector};
use recovery::call::{Call, Observation, Receipt, Reconciled, Undo};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;

/// A request that is still on its way, and to whom.
pub(crate) type Late = Arc<Mutex<Option<(Peer, Vec<u8>)>>>;

/// Where the relay passes things on to.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    Proxy(String),
    Supervisor(PathBuf),
}

/// An actuator over the broken link; the relay ends with it.
struct Linked {
    actuator: ProcessActuator,
    _relay: JoinSet<()>,
    _dir: tempfile::TempDir,
}

#[derive(Clone)]
struct Relay {
    peer: Peer,
    fault: LinkFault,
    late: Late,
    /// Only the first call that would take effect is broken.
    broken: Arc<AtomicBool>,
}

pub(crate) async fn link(world: &World, fault: LinkFault) -> Arc<dyn Actuator> {
    let dir = tempfile::tempdir().expect("temporary directory");
    for shared in ["ledger", "config"] {
        std::os::unix::fs::symlink(world.path(shared), dir.path().join(shared)).expect("link");
    }
    let mut relay = JoinSet::new();
    let mut addresses = world.proxy.addresses().expect("addresses");
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("relay");
    let real = std::mem::replace(&mut addresses.control, tcp.local_addr().expect("address").to_string());
    std::fs::write(dir.path().join(PROXY_FILE), serde_json::to_vec(&addresses).expect("addresses")).expect("addresses");
    if fault != LinkFault::Down {
        let broken = Arc::<AtomicBool>::default();
        let of = |peer| Relay { peer, fault, late: world.late.clone(), broken: broken.clone() };
        let unix = UnixListener::bind(dir.path().join(SUPERVISOR_SOCKET)).expect("relay");
        relay.spawn(serve_proxy(tcp, of(Peer::Proxy(real))));
        relay.spawn(serve_supervisor(unix, of(Peer::Supervisor(world.path(SUPERVISOR_SOCKET)))));
    }
    let actuator = ProcessActuator::open(dir.path()).expect("open");
    Arc::new(Linked { actuator, _relay: relay, _dir: dir })
}

async fn serve_proxy(listener: TcpListener, relay: Relay) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("connection");
        let relay = relay.clone();
        connections.spawn(async move { relay.pass(BufReader::new(stream)).await });
    }
}

async fn serve_supervisor(listener: UnixListener, relay: Relay) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("connection");
        let relay = relay.clone();
        connections.spawn(async move { relay.pass(BufReader::new(stream)).await });
    }
}

impl Relay {
    /// One exchange, or what the fault makes of it.
    async fn pass<S: AsyncRead + AsyncWrite + Unpin>(self, mut stream: BufReader<S>) {
        let Some(request) = self.read(&mut stream).await else { return };
        let takes_effect = match &self.peer {
            Peer::Proxy(_) => request.starts_with(b"PUT /settings "),
            Peer::Supervisor(_) => {
                let text = String::from_utf8_lossy(&request);
                text.contains(r#""op":"replace""#) || text.contains(r#""op":"scale""#)
            }
        };
        if !takes_effect || self.broken.swap(true, Ordering::SeqCst) {
            let answer = forward(&self.peer, &request).await;
            // A caller that hung up meanwhile needs no answer.
            let _ = stream.get_mut().write_all(&answer).await;
            return;
        }
        match self.fault {
            LinkFault::CutBefore | LinkFault::Down => {}
            LinkFault::CutAfter => drop(forward(&self.peer, &request).await),
            LinkFault::Late => {
                *self.late.lock().expect("late") = Some((self.peer.clone(), request));
                // No answer, until the caller gives up.
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        }
    }

    async fn read<S: AsyncRead + Unpin>(&self, stream: &mut BufReader<S>) -> Option<Vec<u8>> {
        let mut request = Vec::new();
        stream.read_until(b'\n', &mut request).await.ok().filter(|length| *length > 0)?;
        if matches!(self.peer, Peer::Supervisor(_)) {
            return Some(request);
        }
        let mut length = 0;
        while !request.ends_with(b"\r\n\r\n") {
            let begin = request.len();
            stream.read_until(b'\n', &mut request).await.ok().filter(|length| *length > 0)?;
            let line = String::from_utf8_lossy(&request[begin..]).to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        request.extend(body);
        Some(request)
    }
}

/// Passes a request on; answers what the peer does.
async fn forward(peer: &Peer, request: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    match peer {
        Peer::Proxy(address) => {
            let mut stream = TcpStream::connect(address).await.expect("proxy");
            stream.write_all(request).await.expect("request");
            // The caller asked for the connection to end with the answer.
            stream.read_to_end(&mut answer).await.expect("answer");
        }
        Peer::Supervisor(socket) => {
            let mut stream = BufReader::new(UnixStream::connect(socket).await.expect("supervisor"));
            stream.get_mut().write_all(request).await.expect("request");
            stream.read_until(b'\n', &mut answer).await.expect("answer");
        }
    }
    answer
}

/// Lets what is late arrive, and waits for what its receiver makes of it.
pub(crate) async fn deliver(late: &Late) {
    let request = late.lock().expect("late").take();
    if let Some((peer, request)) = request {
        forward(&peer, &request).await;
    }
}

impl Actuator for Linked {
    fn capabilities(&self) -> &Capabilities {
        self.actuator.capabilities()
    }
    fn observe<'a>(&'a self, what: &'a Selector) -> Fut<'a, Result<Observation, Error>> {
        self.actuator.observe(what)
    }
    fn dry_run<'a>(&'a self, call: &'a Call) -> Fut<'a, Result<DryRun, Error>> {
        self.actuator.dry_run(call)
    }
    fn perform<'a>(&'a self, call: &'a Call) -> Fut<'a, Result<Receipt, Error>> {
        self.actuator.perform(call)
    }
    fn reconcile<'a>(&'a self, call: &'a Call) -> Fut<'a, Result<Reconciled, Error>> {
        self.actuator.reconcile(call)
    }
    fn compensate<'a>(&'a self, undo: &'a Undo) -> Fut<'a, Result<Receipt, Error>> {
        self.actuator.compensate(undo)
    }
}
