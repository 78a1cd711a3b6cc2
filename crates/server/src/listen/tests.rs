use super::*;
use crate::config::ServerSettings;
use crate::engine::Env;
use crate::fixture::START;
use axum::routing::{get, post};
use base::Millis;
use bytes::Bytes;
use futures_util::stream;
use line::Phase;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// LIMIT: how long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);
const GET: &str = "GET /fast HTTP/1.1\r\nhost: x\r\n\r\n";

/// A listener in front of routes that wait, stream, read and write as a test wants it.
struct Listening {
    at: SocketAddr,
    env: Env,
    traffic: Traffic,
    lines: Arc<Lines>,
    stop: CancellationToken,
    entered: Arc<Notify>,
    answer: Arc<Notify>,
    ended: JoinHandle<()>,
}

/// A listener that looks after its connections by itself.
async fn listen(settings: ServerSettings) -> Listening {
    let listening = listen_by_hand(settings).await;
    tokio::spawn(Arc::clone(&listening.lines).watch());
    listening
}

/// One that looks after them when the test does.
async fn listen_by_hand(settings: ServerSettings) -> Listening {
    let env = Env::manual(START);
    let traffic = Traffic::new(env.clone(), settings);
    let lines = Lines::new(traffic.clone());
    let (stop, entered, answer) = (CancellationToken::new(), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let wait = {
        let (entered, answer) = (entered.clone(), answer.clone());
        move || async move {
            entered.notify_one();
            answer.notified().await;
            "waited"
        }
    };
    let drip = {
        let entered = entered.clone();
        move |body: Body| async move {
            let mut frames = body.into_data_stream();
            while let Some(Ok(_)) = frames.next().await {
                entered.notify_one();
            }
        }
    };
    let events = || async {
        let frames = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(b"data: 1\n\n")) });
        let frames = frames.chain(stream::pending());
        ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(frames))
    };
    let router = Router::new()
        .route("/fast", get(|| async { "fast" }))
        .route("/ready", get(|| async { "ready" }))
        .route("/wait", get(wait))
        .route("/poll/w/1", get(events))
        .route("/read", post(|body: Bytes| async move { body.len().to_string() }))
        .route("/drip", post(drip))
        .route("/long", get(|| async { vec![b'x'; 64 << 20] }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let ended = tokio::spawn(serve_lines(listener, router, traffic.clone(), stop.clone(), Arc::clone(&lines)));
    Listening { at, env, traffic, lines, stop, entered, answer, ended }
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

impl Listening {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.at).await.unwrap()
    }

    /// A connection on which this was sent.
    async fn sent(&self, text: &str) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// Everything that is answered to one request with a connection of its own.
    async fn ask(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        rest(&mut self.sent(&request).await).await
    }

    /// So many looks at all connections, one right after the other.
    fn look(&self, looks: usize) {
        (0..looks).for_each(|_| self.lines.look());
    }

    /// Lets the listener work until this holds.
    async fn met(&self, what: &str, holds: impl Fn(&Listening) -> bool) {
        let met = async {
            while !holds(self) {
                tokio::task::yield_now().await;
            }
        };
        within(what, met).await;
    }

    fn refused(&self, why: Refusal) -> u64 {
        self.traffic.refused().find(|(name, _)| *name == why.name()).map(|(_, counter)| counter.get()).unwrap()
    }
}

/// What comes until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset ends it as well.
    let _ = within("the end of a connection", stream.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What comes up to and with this text.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let mut buffer = [0; 4_096];
        let read = within(end, stream.read(&mut buffer)).await.unwrap();
        assert!(read > 0, "closed before {end:?}: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    text
}

/// Bounds of three looks on what a client sends and reads, and of six on its silence.
fn impatient() -> ServerSettings {
    ServerSettings {
        head_timeout_ms: 300,
        body_timeout_ms: 300,
        write_timeout_ms: 300,
        idle_timeout_ms: 600,
        ..ServerSettings::default()
    }
}

#[tokio::test]
async fn a_client_that_sends_or_reads_too_slowly_is_let_go() {
    let listening = listen_by_hand(impatient()).await;
    let body = "POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf";
    let cases = [("", Phase::Head), ("GET /fast HTTP/1.1\r\nhost:", Phase::Head), (body, Phase::Body)];
    for (before, (half, phase)) in (0..).zip(cases) {
        let mut stream = listening.sent(half).await;
        listening.met(half, |listening| listening.lines.count(phase) == 1).await;
        listening.look(3);
        assert_eq!(listening.refused(Refusal::Slow), before, "{half:?}");
        listening.look(1);
        assert_eq!(listening.refused(Refusal::Slow), before + 1, "{half:?}");
        assert_eq!(rest(&mut stream).await, "", "{half:?}");
        listening.met("it is gone", |listening| listening.traffic.connections().get() == 0).await;
    }
    // Whoever asks for much and reads nothing.
    let deaf = listening.sent("GET /long HTTP/1.1\r\nhost: x\r\n\r\n").await;
    listening.met("a deaf connection", |listening| listening.lines.is_stalled()).await;
    let gone = |listening: &Listening| {
        listening.look(1);
        listening.refused(Refusal::Slow) == 4 && listening.traffic.connections().get() == 0
    };
    listening.met("the end of a deaf connection", gone).await;
    drop(deaf);
}

#[tokio::test]
async fn one_byte_at_a_time_is_too_slow_as_well() {
    let listening = listen_by_hand(impatient()).await;
    // What counts is the whole: of a head,
    let mut stream = listening.sent("GET /fast HTTP/1.1\r\nx: ").await;
    listening.met("a head", |listening| listening.lines.count(Phase::Head) == 1).await;
    for _ in 0..3 {
        stream.write_all(b"y").await.unwrap();
        listening.look(1);
    }
    assert_eq!(listening.refused(Refusal::Slow), 0);
    stream.write_all(b"y").await.unwrap();
    listening.look(1);
    assert_eq!((rest(&mut stream).await.as_str(), listening.refused(Refusal::Slow)), ("", 1));
    // and of a body, of which every byte is seen to come.
    let mut stream = listening.sent("POST /drip HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n").await;
    for _ in 0..4 {
        stream.write_all(b"y").await.unwrap();
        within("a byte", listening.entered.notified()).await;
        assert_eq!(listening.refused(Refusal::Slow), 1);
        listening.look(1);
    }
    assert_eq!((rest(&mut stream).await.as_str(), listening.refused(Refusal::Slow)), ("", 2));
}

#[tokio::test]
async fn a_connection_is_kept_while_it_is_used_and_closed_when_it_is_idle() {
    let listening = listen_by_hand(impatient()).await;
    let mut stream = listening.connect().await;
    let mut events = listening.sent("GET /poll/w/1 HTTP/1.1\r\nhost: x\r\n\r\n").await;
    until(&mut events, "data: 1").await;
    // An answer that takes longer than every bound on clients is not the client's fault.
    stream.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    within("the request", listening.entered.notified()).await;
    listening.look(100);
    listening.answer.notify_one();
    until(&mut stream, "waited").await;
    for _ in 0..5 {
        listening.look(6);
        stream.write_all(GET.as_bytes()).await.unwrap();
        until(&mut stream, "fast").await;
    }
    listening.look(7);
    assert_eq!(rest(&mut stream).await, "", "idle at last");
    assert_eq!((listening.refused(Refusal::Slow), listening.traffic.connections().get()), (0, 1), "the stream stays");
}

#[tokio::test]
async fn a_listener_looks_by_itself() {
    let listening = listen(impatient()).await;
    let mut stream = listening.connect().await;
    assert_eq!((rest(&mut stream).await.as_str(), listening.refused(Refusal::Slow)), ("", 1));
}

#[tokio::test]
async fn a_connection_too_many_is_told_so() {
    let listening = listen(ServerSettings { connections_max: 2, ..ServerSettings::default() }).await;
    let mut kept = [listening.sent(GET).await, listening.sent(GET).await];
    for stream in &mut kept {
        until(stream, "fast").await;
    }
    let refused = rest(&mut listening.connect().await).await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: 1"), "{refused}");
    assert!(refused.ends_with("{\"error\":\"too many connections are open (server.connections_max)\"}"), "{refused}");
    drop(kept);
    let served = async { while !listening.ask("/fast").await.ends_with("fast") {} };
    within("room again", served).await;
    assert!(listening.refused(Refusal::Connections) >= 1);
}

#[tokio::test]
async fn a_request_too_many_is_refused_and_health_never_is() {
    let settings = ServerSettings { requests_in_flight_max: 1, ..ServerSettings::default() };
    let listening = listen(settings).await;
    let mut waiting = listening.sent("GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await;
    listening.entered.notified().await;
    let refused = listening.ask("/fast").await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("requests_in_flight_max"), "{refused}");
    assert!(listening.ask("/ready").await.ends_with("ready"));
    listening.answer.notify_one();
    until(&mut waiting, "waited").await;
    let served = async { while !listening.ask("/fast").await.ends_with("fast") {} };
    within("room again", served).await;
}

#[tokio::test]
async fn an_address_that_asks_too_often_is_told_when_to_come_back() {
    let settings = ServerSettings { requests_per_second: 1, request_burst: 2, ..ServerSettings::default() };
    let listening = listen(settings).await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(listening.ask("/fast").await);
    }
    assert!(answers[0].ends_with("fast") && answers[1].ends_with("fast"), "{answers:?}");
    let last = &answers[3];
    assert!(last.starts_with("HTTP/1.1 429") && last.contains("retry-after: 1"), "{last}");
    assert!(listening.ask("/ready").await.ends_with("ready"));
    listening.env.advance(Millis(1_000));
    assert!(listening.ask("/fast").await.ends_with("fast"));
    assert!(listening.ask("/fast").await.starts_with("HTTP/1.1 429"));
}

#[tokio::test]
async fn a_drain_answers_what_is_in_flight_and_ends_streams() {
    let listening = listen(ServerSettings::default()).await;
    let mut events = listening.sent("GET /poll/w/1 HTTP/1.1\r\nhost: x\r\n\r\n").await;
    until(&mut events, "data: 1").await;
    let mut idle = listening.sent(GET).await;
    until(&mut idle, "fast").await;
    let mut waiting = listening.sent("GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await;
    listening.entered.notified().await;
    listening.stop.cancel();
    // A stream that ends in order has its last chunk.
    assert!(rest(&mut events).await.ends_with("0\r\n\r\n"));
    assert_eq!(rest(&mut idle).await, "");
    let refused = async { while TcpStream::connect(listening.at).await.is_ok() {} };
    within("no new connections", refused).await;
    assert!(!listening.ended.is_finished());
    listening.answer.notify_one();
    assert!(rest(&mut waiting).await.ends_with("waited"));
    within("the end", listening.ended).await.unwrap();
    assert_eq!((listening.traffic.in_flight().get(), listening.traffic.connections().get()), (0, 0));
}

#[tokio::test]
async fn a_drain_does_not_wait_longer_than_it_was_told() {
    let listening = listen_by_hand(ServerSettings { drain_ms: 10_000, ..ServerSettings::default() }).await;
    let mut waiting = listening.sent("GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await;
    listening.entered.notified().await;
    // Everybody waits from here on but for the clock, which then moves by itself.
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    listening.stop.cancel();
    within("the end", listening.ended).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 10);
    tokio::time::resume();
    assert_eq!(rest(&mut waiting).await, "", "cut off");
}

#[tokio::test]
async fn a_notice_is_given_before_the_door_closes() {
    let listening = listen(ServerSettings { drain_notice_ms: 60_000, ..ServerSettings::default() }).await;
    let mut events = listening.sent("GET /poll/w/1 HTTP/1.1\r\nhost: x\r\n\r\n").await;
    until(&mut events, "data: 1").await;
    listening.stop.cancel();
    // Workers go elsewhere at once.
    until(&mut events, "0\r\n\r\n").await;
    let ready = listening.ask("/ready").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.ends_with("{\"error\":\"draining\"}"), "{ready}");
    assert!(listening.ask("/poll/w/1").await.starts_with("HTTP/1.1 503"));
    assert_eq!(listening.refused(Refusal::Draining), 1);
    assert!(listening.ask("/fast").await.ends_with("fast"), "everybody else is served");
    listening.ended.abort();
}
