use super::super::background::GIVE_UP_MAX;
use super::super::post::ANSWER_BYTES_MAX;
use super::super::{DEAD_LETTERS_MAX, PUSH_ATTEMPTS_MAX, PushConfig, Resend, Stage};
use super::*;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::Value as Json;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU16;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const URL: &str = "http://127.0.0.1:1";

/// An endpoint that tells the test what it was sent and answers as the test says.
struct Endpoint {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    got: mpsc::UnboundedReceiver<Json>,
}

type Told = (Arc<AtomicU16>, mpsc::UnboundedSender<Json>);

async fn take(State((status, told)): State<Told>, body: String) -> StatusCode {
    told.send(serde_json::from_str(&body).unwrap()).unwrap();
    StatusCode::from_u16(status.load(Ordering::SeqCst)).unwrap()
}

fn endpoint_routes(status: u16) -> (Router, Arc<AtomicU16>, mpsc::UnboundedReceiver<Json>) {
    let (told, got) = mpsc::unbounded_channel();
    let status = Arc::new(AtomicU16::new(status));
    let routes = Router::new().fallback(take).with_state((Arc::clone(&status), told));
    (routes, status, got)
}

async fn endpoint(status: u16) -> Endpoint {
    let (routes, status, got) = endpoint_routes(status);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    Endpoint { address, status, got }
}

impl Endpoint {
    fn url(&self) -> String {
        format!("http://{}/hook?a=b", self.address)
    }

    async fn next(&mut self) -> Json {
        tokio::time::timeout(PATIENCE, self.got.recv()).await.expect("nothing was posted").unwrap()
    }
}

/// An endpoint that takes connections and never answers; what it holds it tells.
async fn silent_endpoint() -> (String, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (told, connected) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
            let _ = told.send(());
        }
    });
    (url, connected)
}

fn open_posting(dir: &Path, push: PushConfig) -> Engine {
    let config = Config { push, ..Config::default() };
    let engine = Engine::open(dir, config, Env::manual(START)).unwrap();
    engine.listens_at(URL);
    engine
}

/// A promise with a listener at the address.
async fn listened(engine: &Engine, id: &str, address: &str) {
    submit(engine, vec![create_external(id)]).await.unwrap();
    let (awaited, address) = (id.to_owned(), address.to_owned());
    submit(engine, vec![Request::RegisterListener { awaited, address }]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_never_answers_delays_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_posting(dir.path(), PushConfig::default());
    let (silent, mut connected) = silent_endpoint().await;
    let mut other = endpoint(200).await;
    for number in 0..100 {
        submit(&engine, vec![create_for(&format!("silent{number}"), &silent)]).await.unwrap();
    }
    connected.recv().await.unwrap();
    let (count, url) = (1_000, other.url());
    for first in (0..count).step_by(50) {
        let requests = (first..first + 50).map(|number| create_for(&format!("t{number}"), &url)).collect();
        submit(&engine, requests).await.unwrap();
    }
    let mut got = std::collections::BTreeSet::new();
    while got.len() < count {
        let message = other.next().await;
        assert_eq!((&message["kind"], &message["head"]["serverUrl"]), (&Json::from("execute"), &Json::from(URL)));
        got.insert(message["data"]["task"]["id"].as_str().unwrap().to_owned());
    }
    // Of the clock of retries and rests not a millisecond has passed.
    until("all are answered", || engine.outbox_len() == 100).await;
    assert_eq!(engine.delivery_counts().delivered, count as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_ends_an_execute_and_its_timer_offers_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_posting(dir.path(), PushConfig::default());
    let mut target = endpoint(500).await;
    submit(&engine, vec![create_for("t", &target.url())]).await.unwrap();
    assert_eq!(target.next().await["data"]["task"]["id"], "t");
    until("the answer ends it", || engine.outbox_len() == 0).await;
    engine.env().advance(Millis(30_000));
    assert_eq!(target.next().await["data"]["task"]["version"], 0);
    until("so does the next", || engine.outbox_len() == 0).await;
    // Taken and lapsed: the version has moved on.
    submit(&engine, vec![acquire("t", 0, "w")]).await.unwrap();
    engine.env().advance(Millis(2_000));
    assert_eq!(target.next().await["data"]["task"]["version"], 2);
    assert_eq!(engine.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unblock_is_posted_until_it_is_taken_or_a_dead_letter_that_survives_and_can_be_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_posting(dir.path(), PushConfig::default());
    let mut target = endpoint(503).await;
    listened(&engine, "p", &target.url()).await;
    submit(&engine, vec![settle("p", "done")]).await.unwrap();
    for attempt in 1..=PUSH_ATTEMPTS_MAX {
        let message = target.next().await;
        assert_eq!(
            (&message["kind"], &message["data"]["promise"]["value"]["data"]),
            (&"unblock".into(), &"done".into())
        );
        let is_over = || match engine.owed().as_slice() {
            [owed] if attempt < PUSH_ATTEMPTS_MAX => owed.stage == Stage::Waiting && owed.attempts == attempt,
            [owed] => owed.stage == Stage::Dead,
            _ => false,
        };
        until("the answer is taken down", is_over).await;
        engine.env().advance(Millis(600_000));
    }
    let counts = engine.delivery_counts();
    assert_eq!((counts.sent, counts.retried), (u64::from(PUSH_ATTEMPTS_MAX), u64::from(PUSH_ATTEMPTS_MAX) - 1));
    assert_eq!((counts.dead, counts.delivered, counts.waiting, engine.outbox_len()), (1, 0, 0, 0));
    engine.flush().await.unwrap();
    drop(engine);

    let engine = open_posting(dir.path(), PushConfig::default());
    let owed = engine.owed();
    assert_eq!((owed.len(), owed[0].stage, owed[0].attempts), (1, Stage::Dead, PUSH_ATTEMPTS_MAX));
    assert_eq!(owed[0].error.as_deref(), Some("answered 503"));
    assert_eq!(engine.resend(Resend::One(owed[0].number + 1)).await.unwrap(), 0);
    target.status.store(204, Ordering::SeqCst);
    assert_eq!(engine.resend(Resend::One(owed[0].number)).await.unwrap(), 1);
    assert_eq!(target.next().await["data"]["promise"]["id"], "p");
    until("it is taken", || engine.outbox_len() == 0).await;
    engine.flush().await.unwrap();
    assert!(engine.owed().is_empty());
    drop(engine);
    assert!(open(dir.path()).owed().is_empty(), "nothing of it is left in the store");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there_is_no_answer_and_the_message_waits_until_somebody_is() {
    let dir = tempfile::tempdir().unwrap();
    let push = PushConfig { connect_timeout: Millis(1_000), ..PushConfig::default() };
    let engine = open_posting(dir.path(), push);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    listened(&engine, "p", &format!("http://{address}/")).await;
    submit(&engine, vec![settle("p", "done")]).await.unwrap();
    until("the failure is taken down", || engine.owed().first().is_some_and(|owed| owed.error.is_some())).await;
    let owed = engine.owed();
    assert!(owed[0].error.as_ref().unwrap().contains("refused"), "{owed:?}");
    let listener = TcpListener::bind(address).await.unwrap();
    let (routes, _, mut got) = endpoint_routes(200);
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    assert_eq!(engine.resend(Resend::One(owed[0].number)).await.unwrap(), 1, "at once, without its rest");
    assert_eq!(tokio::time::timeout(PATIENCE, got.recv()).await.unwrap().unwrap()["data"]["promise"]["id"], "p");
    until("it is taken", || engine.outbox_len() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_never_ends_is_read_up_to_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_posting(dir.path(), PushConfig::default());
    let endless = || async {
        let part = Ok::<_, std::convert::Infallible>(bytes::Bytes::from(vec![b'x'; ANSWER_BYTES_MAX / 8]));
        axum::body::Body::from_stream(futures_util::stream::repeat(part))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(endless)).await.unwrap() });
    listened(&engine, "p", &url).await;
    submit(&engine, vec![settle("p", "done")]).await.unwrap();
    until("it counts as taken", || engine.outbox_len() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_that_takes_too_long_is_broken_off() {
    let dir = tempfile::tempdir().unwrap();
    let push = PushConfig { request_timeout: Millis(50), ..PushConfig::default() };
    let engine = open_posting(dir.path(), push);
    let (silent, _connected) = silent_endpoint().await;
    listened(&engine, "p", &silent).await;
    submit(&engine, vec![settle("p", "done")]).await.unwrap();
    let is_over = || engine.owed().first().is_some_and(|owed| owed.error.as_deref() == Some("no answer within 50 ms"));
    until("it is broken off", is_over).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_over_tls_is_trusted_by_its_authority_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, root.pem()).unwrap();

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let tls = tls.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], private).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let (routes, _, mut got) = endpoint_routes(200);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, routes) = (acceptor.clone(), routes.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper_util::service::TowerToHyperService::new(routes);
                let stream = hyper_util::rt::TokioIo::new(stream);
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
            });
        }
    });

    let untrusting = open_posting(&dir.path().join("a"), PushConfig::default());
    listened(&untrusting, "p", &url).await;
    submit(&untrusting, vec![settle("p", "done")]).await.unwrap();
    until("it is refused", || untrusting.owed().first().is_some_and(|owed| owed.error.is_some())).await;
    let told = untrusting.owed()[0].error.clone().unwrap();
    assert!(told.contains("certificate"), "{told}");
    assert!(got.try_recv().is_err());

    let trusting = open_posting(&dir.path().join("b"), PushConfig { ca_file: Some(ca_file), ..PushConfig::default() });
    listened(&trusting, "p", &url).await;
    submit(&trusting, vec![settle("p", "done")]).await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, got.recv()).await.unwrap().unwrap()["data"]["promise"]["id"], "p");
    until("it is taken", || trusting.outbox_len() == 0).await;
}

#[tokio::test]
async fn what_cannot_be_posted_to_is_refused_where_it_enters() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_posting(&dir.path().join("a"), PushConfig::default());
    let closed = open_posting(&dir.path().join("b"), PushConfig { enabled: false, ..PushConfig::default() });
    for (engine, target, status) in [
        (&engine, "http://127.0.0.1:1/", 200),
        (&engine, "https://127.0.0.1:1/", 200),
        (&engine, "http://[", 400),
        (&engine, "gcps://p/t", 400),
        (&engine, "bash://ls", 400),
        (&closed, "http://127.0.0.1:1/", 400),
        (&closed, "poll://any@g", 200),
    ] {
        let (found, answer) = wire(engine, &create_for(&format!("p{target}"), target)).await;
        assert_eq!(found, status, "{target}: {answer:?}");
    }
}

#[tokio::test]
async fn a_dead_letter_is_taken_back_with_the_commit_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let fault = Arc::new(AtomicU8::new(Fault::None as u8));
    let engine = open_faulty(dir.path(), &fault).unwrap();
    listened(&engine, "p", "poll://uni@g/nobody").await;
    submit(&engine, vec![settle("p", "done")]).await.unwrap();
    let stages = || engine.owed().iter().map(|owed| owed.stage).collect::<Vec<_>>();
    assert_eq!(stages(), [Stage::Waiting]);
    fault.store(Fault::Refuse as u8, Ordering::SeqCst);
    engine.env().advance(Millis(24 * 3_600_000));
    until("the commit fails", || !engine.is_writable()).await;
    assert_eq!(stages(), [Stage::Waiting], "nothing is given up that is not on disk");
    assert!(engine.resend(Resend::Dead).await.is_err());
    fault.store(Fault::None as u8, Ordering::SeqCst);
    until("writes are taken again", || engine.is_writable()).await;
    engine.env().advance(Millis(24 * 3_600_000));
    until("it is given up", || stages() == [Stage::Dead]).await;
    assert_eq!(engine.owed()[0].error.as_deref(), Some("nobody came for it"));
    assert_eq!(engine.resend(Resend::Dead).await.unwrap(), 1);
    let mut late = engine.subscribe("g", "nobody").unwrap();
    assert!(matches!(late.next().await, Some(protocol::Message::Unblock { .. })));
    drop((late, engine));
    assert_eq!(open(dir.path()).owed().len(), 1, "it is owed, and nothing more");
}

#[tokio::test]
async fn the_store_holds_no_more_dead_letters_than_memory() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    // More than one sweep gives up, too.
    let count = DEAD_LETTERS_MAX.max(GIVE_UP_MAX) + 5;
    submit(&engine, vec![create_external("p")]).await.unwrap();
    for first in (0..count).step_by(60) {
        let address = |number: usize| format!("poll://uni@g/{number:05}");
        let listen = |number| Request::RegisterListener { awaited: "p".to_owned(), address: address(number) };
        submit(&engine, (first..count.min(first + 60)).map(listen).collect()).await.unwrap();
    }
    submit(&engine, vec![settle("p", "done")]).await.unwrap();
    engine.env().advance(Millis(24 * 3_600_000));
    until("all are given up", || engine.outbox_len() == 0).await;
    engine.flush().await.unwrap();
    assert_eq!(engine.delivery_counts().forgotten, (count - DEAD_LETTERS_MAX) as u64);
    drop(engine);
    let engine = open(dir.path());
    let owed = engine.owed();
    assert_eq!(
        (owed.len(), owed[0].message.address()),
        (DEAD_LETTERS_MAX, format!("poll://uni@g/{:05}", count - DEAD_LETTERS_MAX).as_str())
    );
    // A number is never given twice.
    submit(&engine, vec![create_for("t", "poll://any@g")]).await.unwrap();
    assert!(engine.owed().iter().filter(|other| other.number == owed[DEAD_LETTERS_MAX - 1].number).count() == 1);
}

#[tokio::test]
async fn an_emptied_store_holds_no_dead_letters() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { debug: true, ..Config::default() };
    let engine = Engine::open(dir.path(), config, Env::manual(START)).unwrap();
    listened(&engine, "p", "poll://uni@g/nobody").await;
    submit(&engine, vec![settle("p", "done")]).await.unwrap();
    engine.env().advance(Millis(24 * 3_600_000));
    until("it is given up", || engine.outbox_len() == 0).await;
    engine.flush().await.unwrap();
    assert_eq!(engine.owed().len(), 1);
    let reset = protocol::wire::render_request("1", &Request::Debug(protocol::Debug::Reset));
    assert_eq!(engine.wire(&reset).await.0, 200);
    assert!(engine.owed().is_empty());
    drop(engine);
    assert!(open(dir.path()).owed().is_empty());
}
