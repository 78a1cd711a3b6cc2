//! One HTTP/1.1 connection pool to one server, and its event streams.

use base::causes;
use bytes::{Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Body as _;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// LIMIT: the largest answer read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;
/// LIMIT: the largest event of a stream, in bytes.
pub const EVENT_BYTES_MAX: usize = 16 << 20;
/// How long a request may take, connection included.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connecting may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A request that got no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not `http://host:port`.
    #[error("`{0}` is not an address of the form http://host:port")]
    Address(String),
    /// The server could not be reached, or broke off.
    #[error("the server at {url} did not answer: {cause}")]
    Unreachable {
        /// The server.
        url: String,
        /// What went wrong.
        cause: String,
        /// Whether the request may have reached it. False: no connection was made, so nothing was done.
        sent: bool,
    },
    /// No answer within [`REQUEST_TIMEOUT`]; whether the server acted on the request is unknown.
    #[error("the server at {0} did not answer in time")]
    Timeout(String),
    /// The answer is not what the protocol promises.
    #[error("the answer of the server cannot be used: {0}")]
    Answer(String),
    /// A request or an answer could not be turned into or read from JSON.
    #[error("not the expected JSON")]
    Json(#[from] serde_json::Error),
    /// The server answered with a refusal where the caller asked for a value.
    #[error("refused with {status}: {message}")]
    Refused {
        /// The status of the answer.
        status: u16,
        /// The server's words.
        message: String,
    },
}

impl Error {
    /// Whether the server may have done what was asked, although there is no answer that says so. False: it has not.
    #[must_use]
    pub fn may_have_acted(&self) -> bool {
        match self {
            Error::Address(_) | Error::Unreachable { sent: false, .. } => false,
            Error::Unreachable { sent: true, .. } | Error::Timeout(_) | Error::Answer(_) | Error::Json(_) => true,
            // A commit that failed may still be found on the disk when the store is read again.
            Error::Refused { status, .. } => *status >= 500,
        }
    }

    /// Whether the connection is what failed: it was not made, or broke off.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        matches!(self, Error::Unreachable { .. })
    }
}

/// What went wrong under a request, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Cause(pub String);
/// The body of an answer, as it arrives.
pub type AnswerBody = UnsyncBoxBody<Bytes, Cause>;
/// An answer on its way.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<Response<AnswerBody>, Cause>> + Send + 'a>>;

/// Another way to the server than a socket: a simulator's network.
pub trait Exchange: Send + Sync + std::fmt::Debug {
    /// Carries one request there and its answer back.
    fn exchange(&self, request: Request<Full<Bytes>>) -> Answering<'_>;
}

/// The way to one server and its address.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    way: Way,
    base: String,
    answer_bytes_max: usize,
    event_bytes_max: usize,
}

#[derive(Clone, Debug)]
enum Way {
    Sockets(Box<Pool<HttpConnector, Full<Bytes>>>),
    Through(Arc<dyn Exchange>),
}

/// A stream of server-sent events: the `data` of each, one after the other.
pub(crate) struct Events {
    body: AnswerBody,
    buffer: BytesMut,
    /// How far the buffer is known to hold no end of an event.
    searched: usize,
    bytes_max: usize,
    url: String,
}

impl Http {
    pub(crate) fn new(url: &str) -> Result<Http, Error> {
        let base = url.trim_end_matches('/').to_owned();
        let parsed: Uri = base.parse().map_err(|_| Error::Address(url.to_owned()))?;
        if parsed.scheme_str() != Some("http") || parsed.authority().is_none() || parsed.path() != "/" {
            return Err(Error::Address(url.to_owned()));
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Ok(Http::by(Way::Sockets(Box::new(Pool::builder(TokioExecutor::new()).build(connector))), base))
    }

    pub(crate) fn through(exchange: Arc<dyn Exchange>) -> Http {
        Http::by(Way::Through(exchange), "http://server".to_owned())
    }

    fn by(way: Way, base: String) -> Http {
        Http { way, base, answer_bytes_max: ANSWER_BYTES_MAX, event_bytes_max: EVENT_BYTES_MAX }
    }

    pub(crate) fn url(&self) -> &str {
        &self.base
    }

    /// Sends one request and reads the whole answer.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Vec<u8>) -> Result<(u16, Bytes), Error> {
        let exchange = async {
            let answer = self.send(method, path, "application/json", body).await?;
            let status = answer.status().as_u16();
            let limited = Limited::new(answer.into_body(), self.answer_bytes_max);
            let bytes = limited.collect().await.map_err(|e| self.unreachable(e.as_ref()))?.to_bytes();
            Ok((status, bytes))
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Timeout(self.base.clone())),
        }
    }

    /// Opens the event stream at `path`.
    pub(crate) async fn events(&self, path: &str) -> Result<Events, Error> {
        let opening = self.send(Method::GET, path, "text/event-stream", Vec::new());
        let answer = match tokio::time::timeout(REQUEST_TIMEOUT, opening).await {
            Ok(answer) => answer?,
            Err(_) => return Err(Error::Timeout(self.base.clone())),
        };
        if answer.status() != StatusCode::OK {
            return Err(Error::Refused { status: answer.status().as_u16(), message: format!("no stream at {path}") });
        }
        let (body, buffer) = (answer.into_body(), BytesMut::new());
        Ok(Events { body, buffer, searched: 0, bytes_max: self.event_bytes_max, url: self.base.clone() })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Vec<u8>,
    ) -> Result<Response<AnswerBody>, Error> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("content-type", "application/json")
            .header("accept", accept)
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| Error::Address(e.to_string()))?;
        match &self.way {
            Way::Sockets(pool) => {
                let answer = pool.request(request).await.map_err(|e| self.broken(&e, !e.is_connect()))?;
                Ok(answer.map(|body| body.map_err(|e| Cause(causes(&e))).boxed_unsync()))
            }
            Way::Through(exchange) => exchange.exchange(request).await.map_err(|e| self.unreachable(&e)),
        }
    }

    fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> Error {
        self.broken(error, true)
    }

    fn broken(&self, error: &(dyn std::error::Error + 'static), sent: bool) -> Error {
        Error::Unreachable { url: self.base.clone(), cause: causes(error), sent }
    }
}

impl Events {
    /// The data of the next event; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            if let Some(data) = self.take_event() {
                return Ok(Some(data));
            }
            if self.buffer.len() > self.bytes_max {
                return Err(Error::Answer("an event is too long".to_owned()));
            }
            if self.body.is_end_stream() {
                return Ok(None);
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(e)) => {
                    return Err(Error::Unreachable { url: self.url.clone(), cause: e.to_string(), sent: true });
                }
            }
        }
    }

    /// Cuts one whole event out of the buffer; comments and empty events are passed over.
    fn take_event(&mut self) -> Option<Vec<u8>> {
        loop {
            let fresh = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(end) = fresh.windows(2).position(|pair| pair == b"\n\n") else {
                // The last byte may be the first half of an end.
                self.searched = self.buffer.len().saturating_sub(1);
                return None;
            };
            let event = self.buffer.split_to(self.searched + end + 2);
            self.searched = 0;
            let data = event_data(&event);
            if !data.is_empty() {
                return Some(data);
            }
        }
    }
}

fn event_data(event: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in event.split(|byte| *byte == b'\n') {
        let Some(rest) = line.strip_prefix(b"data:") else { continue };
        if !out.is_empty() {
            out.push(b'\n');
        }
        out.extend_from_slice(rest.strip_prefix(b" ").unwrap_or(rest));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_passed_over_and_lines_are_joined() {
        assert_eq!(event_data(b": keep-alive\n\n"), b"");
        assert_eq!(event_data(b"data: {\"a\":1}\n\n"), b"{\"a\":1}");
        assert_eq!(event_data(b"data:one\ndata: two\n\n"), b"one\ntwo");
    }

    #[test]
    fn only_plain_http_addresses_are_taken() {
        for url in ["https://a:1", "ftp://a", "", "127.0.0.1:8001", "http://a:1/path"] {
            assert!(matches!(Http::new(url), Err(Error::Address(_))), "{url}");
        }
        assert_eq!(Http::new("http://127.0.0.1:8001/").unwrap().url(), "http://127.0.0.1:8001");
    }

    /// A server that answers one connection with these bytes, whatever it is asked.
    async fn answering(bytes: Vec<u8>) -> Http {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = Http::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 4_096];
            let _ = stream.read(&mut asked).await;
            // The client may hang up in the middle; that is what these tests are about.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.read(&mut asked).await;
        });
        assert_eq!((http.answer_bytes_max, http.event_bytes_max), (ANSWER_BYTES_MAX, EVENT_BYTES_MAX));
        http
    }

    #[tokio::test]
    async fn an_error_says_whether_the_server_may_have_acted() {
        // Nobody listens there any more: no connection is made.
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = Http::new(&format!("http://{}", gone.local_addr().unwrap())).unwrap();
        drop(gone);
        let refused = http.call(Method::GET, "/", Vec::new()).await.unwrap_err();
        assert_eq!((refused.is_connection(), refused.may_have_acted()), (true, false), "{refused:?}");
        // It takes the request and hangs up in the middle of its answer.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = Http::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let (mut stream, _) = listener.accept().await.unwrap();
            let _some = stream.read(&mut [0; 4_096]).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
        });
        let broken = http.call(Method::GET, "/", Vec::new()).await.unwrap_err();
        assert_eq!((broken.is_connection(), broken.may_have_acted()), (true, true), "{broken:?}");
        let status = |status| Error::Refused { status, message: String::new() }.may_have_acted();
        assert_eq!([400, 404, 409, 422, 429, 500, 503].map(status), [false, false, false, false, false, true, true]);
        assert!(Error::Timeout(String::new()).may_have_acted() && Error::Answer(String::new()).may_have_acted());
    }

    #[tokio::test]
    async fn an_answer_is_read_up_to_its_limit() {
        for (length, fits) in [(1_000, true), (1_001, false)] {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            let mut http = answering([head.as_bytes(), &vec![b'x'; length]].concat()).await;
            http.answer_bytes_max = 1_000;
            let answer = http.call(Method::GET, "/", Vec::new()).await;
            assert_eq!(answer.is_ok_and(|(status, body)| status == 200 && body.len() == length), fits, "{length}");
        }
    }

    #[tokio::test]
    async fn an_event_is_read_up_to_its_limit() {
        let stream = |length: usize| {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
            format!("{head}: hello\n\ndata: {}\n\ndata: {}", "a".repeat(900), "b".repeat(length)).into_bytes()
        };
        let mut http = answering(stream(2_000)).await;
        http.event_bytes_max = 1_000;
        let mut events = http.events("/poll/g/w").await.unwrap();
        assert_eq!(events.next().await.unwrap().map(|event| event.len()), Some(900));
        let refused = events.next().await;
        assert!(matches!(&refused, Err(Error::Answer(why)) if why == "an event is too long"), "{refused:?}");
    }
}
