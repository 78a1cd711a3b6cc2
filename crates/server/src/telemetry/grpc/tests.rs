use super::super::tests::{gzip, kept, one_call, protobuf, telemetry};
use super::super::{BATCHES_MAX, Telemetry};
use super::*;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HeaderMap};

/// All the room there is for reading.
const READING_KIB: u32 = 64 << 10;

/// A served intake and a client of it.
struct Bench {
    telemetry: Telemetry,
    address: std::net::SocketAddr,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl Bench {
    async fn new() -> Bench {
        let (telemetry, stop) = (telemetry(), CancellationToken::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, telemetry.clone(), stop.clone()));
        Bench { telemetry, address, stop, serving }
    }

    async fn client(&self) -> SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (client, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// One call; answers status, the message, and the trailers with it.
    async fn call(&self, path: &str, encoding: Option<&str>, message: &[u8]) -> (String, Vec<u8>, HeaderMap) {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let frame = [&[u8::from(encoding.is_some())], &length[..], message].concat();
        let uri = format!("http://{}{path}", self.address);
        let mut request = hyper::Request::post(uri).header(CONTENT_TYPE, "application/grpc").header("te", "trailers");
        if let Some(encoding) = encoding {
            request = request.header("grpc-encoding", encoding);
        }
        let mut client = self.client().await;
        let answer = client.send_request(request.body(Full::from(frame)).unwrap()).await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        let mut trailers = answer.headers().clone();
        let body = answer.into_body().collect().await.unwrap();
        trailers.extend(body.trailers().cloned().unwrap_or_default());
        let status = trailers["grpc-status"].to_str().unwrap().to_owned();
        (status, body.to_bytes().iter().skip(5).copied().collect(), trailers)
    }

    async fn end(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
    }
}

#[tokio::test]
async fn an_export_is_taken_plain_and_compressed_and_answered_with_what_was_refused() {
    for encoding in [None, Some("gzip")] {
        let bench = Bench::new().await;
        let message = if encoding.is_some() { gzip(&protobuf()) } else { protobuf() };
        let (status, answer, _) = bench.call(EXPORT, encoding, &message).await;
        assert_eq!((status.as_str(), answer), ("0", Vec::new()), "{encoding:?}");
        assert_eq!(kept(&bench.telemetry), one_call(), "{encoding:?}");
        bench.end().await;
    }
    let bench = Bench::new().await;
    let nameless = [0x0a, 6, 0x12, 4, 0x12, 2, 0x0a, 0];
    let (status, answer, _) = bench.call(EXPORT, None, &[protobuf(), nameless.to_vec()].concat()).await;
    assert_eq!((status.as_str(), answer), ("0", vec![0x0a, 2, 0x08, 1]));
    bench.end().await;
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_by_code_and_changes_nothing() {
    let bench = Bench::new().await;
    let other = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    assert_eq!(bench.call(other, None, &protobuf()).await.0, "12", "not implemented");
    assert_eq!(bench.call(EXPORT, None, b"not protobuf").await.0, "3", "invalid argument");
    assert_eq!(bench.call(EXPORT, Some("zstd"), &protobuf()).await.0, "12", "a compression nobody speaks");
    let most = vec![0; BATCH_BYTES_MAX];
    assert_eq!(bench.call(EXPORT, None, &most).await.0, "3", "as long as may be, and no spans");
    let bomb = vec![0; BATCH_BYTES_MAX + 1];
    assert_eq!(bench.call(EXPORT, None, &bomb).await.0, "11", "out of range");
    let (status, _, trailers) = bench.call(EXPORT, Some("gzip"), &gzip(&bomb)).await;
    assert_eq!(status, "8", "exhausted while it is unpacked");
    assert!(!trailers.contains_key("grpc-status-details-bin"), "nobody is told to send it again");
    assert!(kept(&bench.telemetry).is_empty());
    bench.end().await;
}

#[tokio::test]
async fn a_busy_server_says_when_to_come_again() {
    let bench = Bench::new().await;
    let held = bench.telemetry.batches.clone().try_acquire_many_owned(u32::try_from(BATCHES_MAX).unwrap()).unwrap();
    let (status, _, trailers) = bench.call(EXPORT, None, &protobuf()).await;
    assert_eq!(status, "8");
    let details = trailers["grpc-status-details-bin"].as_bytes();
    let details = <base64ct::Base64Unpadded as base64ct::Encoding>::decode_vec(std::str::from_utf8(details).unwrap());
    let details = details.unwrap();
    // google.rpc.Status { code 8, details [Any { type, RetryInfo { retry_delay { seconds 1 } } }] }
    let named = details.windows(RETRY_INFO.len()).any(|part| part == RETRY_INFO.as_bytes());
    assert!(named && details.starts_with(&[8, 8, 0x1a]) && details.ends_with(&[0x12, 4, 0x0a, 2, 8, 1]), "{details:?}");
    drop(held);
    assert_eq!(bench.call(EXPORT, None, &protobuf()).await.0, "0");
    bench.end().await;
}

#[tokio::test]
async fn a_server_that_ends_closes_what_is_silent() {
    let bench = Bench::new().await;
    let mut client = bench.client().await;
    client.ready().await.unwrap();
    bench.stop.cancel();
    bench.serving.await.unwrap();
    assert!(TcpStream::connect(bench.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let bench = Bench::new().await;
    let mut open = Vec::new();
    for _ in 0..GRPC_CONNECTIONS_MAX {
        let mut client = bench.client().await;
        client.ready().await.unwrap();
        open.push(client);
    }
    let stream = TcpStream::connect(bench.address).await.unwrap();
    if let Ok((_client, connection)) = handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await
    {
        let ended = tokio::time::timeout(Duration::from_secs(30), connection).await;
        assert!(ended.is_ok(), "it is still open");
    }
    drop(open);
    bench.end().await;
}

#[tokio::test]
async fn so_many_calls_are_under_way_on_a_connection_and_the_next_waits() {
    let bench = Bench::new().await;
    let mut client = bench.client().await;
    // With a field that nobody knows it is long enough to need room.
    let message = [protobuf(), vec![0x7a, 0xd0, 0x0f], vec![0; 2_000]].concat();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let frame = [&[0], &length[..], &message].concat();
    let request = || {
        let uri = format!("http://{}{EXPORT}", bench.address);
        let request = hyper::Request::post(uri).header(CONTENT_TYPE, "application/grpc").header("te", "trailers");
        request.body(Full::from(frame.clone())).unwrap()
    };
    // With the first answer it has learned how many calls may be under way.
    let first = client.send_request(request()).await.unwrap();
    assert_eq!(first.into_body().collect().await.unwrap().trailers().unwrap()["grpc-status"], "0");
    let held = bench.telemetry.reading.clone().acquire_many_owned(READING_KIB).await.unwrap();
    let calls = usize::try_from(GRPC_CALLS_MAX).unwrap() + 3;
    let mut answers = Vec::new();
    for _ in 0..calls {
        answers.push(tokio::spawn(client.send_request(request())));
    }
    let in_hand = || BATCHES_MAX - bench.telemetry.batches.available_permits();
    let under_way = async {
        while in_hand() < calls - 3 {
            tokio::task::yield_now().await;
        }
    };
    // One fewer where the client does not know yet that the first has ended: what counts is that there are never more.
    let _ = tokio::time::timeout(Duration::from_secs(5), under_way).await;
    assert!((calls - 4..=calls - 3).contains(&in_hand()), "{} are under way", in_hand());
    drop(held);
    for answer in answers {
        // One that has ended frees its place as soon as it is answered, so it is read before the next is looked at.
        assert_eq!(answer.await.unwrap().unwrap().status().as_u16(), 200);
        assert!(in_hand() <= calls - 3, "more were under way than may be");
    }
    bench.end().await;
}
