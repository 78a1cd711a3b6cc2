//! The listener: takes connections in, serves requests on them within limits, and ends them in order.

mod line;

use crate::limits::{InFlight, Open, Refusal, Traffic};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use futures_util::StreamExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use line::{Line, Lines, Reading, Watched};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The pause after a connection could not be taken, for want of file descriptors or memory.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// How long requests that are cut off may take to be gone.
const CUT_OFF_WITHIN: Duration = Duration::from_millis(500);
/// The whole answer to a connection too many; its end is the end of the connection.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
    content-type: application/json\r\n\r\n\
    {\"error\":\"too many connections are open (server.connections_max)\"}";
/// What is answered whatever else is refused: who watches over a server must see it when it is busiest.
const ALWAYS: [&str; 4] = ["/health", "/ready", "/metrics", "/version"];

/// What one connection is served with.
struct Served {
    routes: TowerToHyperService<Router>,
    traffic: Traffic,
    from: SocketAddr,
    line: Arc<Line>,
}

/// Serves until `stop` is cancelled, then drains: answers what is in flight, within the settings' bound.
pub(crate) async fn serve(listener: TcpListener, router: Router, traffic: Traffic, stop: CancellationToken) {
    let lines = Lines::new(traffic.clone());
    let watching = tokio::spawn(Arc::clone(&lines).watch());
    serve_lines(listener, router, traffic, stop, lines).await;
    watching.abort();
}

async fn serve_lines(
    listener: TcpListener,
    router: Router,
    traffic: Traffic,
    stop: CancellationToken,
    lines: Arc<Lines>,
) {
    let (tasks, cut_off) = (TaskTracker::new(), CancellationToken::new());
    let take = async {
        loop {
            take_one(&listener, &router, &traffic, &lines, &tasks, &cut_off).await;
        }
    };
    {
        let mut take = pin!(take);
        tokio::select! {
            () = &mut take => {}
            () = stop.cancelled() => {}
        }
        let notice = Duration::from_millis(traffic.settings().drain_notice_ms);
        if !notice.is_zero() {
            traffic.notify();
            // Who asks whether it is ready learns that it is not for much longer; who asks anything else is served.
            let _ = tokio::time::timeout(notice, take).await;
        }
    }
    drop(listener);
    traffic.drain();
    tasks.close();
    let bound = Duration::from_millis(traffic.settings().drain_ms);
    if tokio::time::timeout(bound, tasks.wait()).await.is_err() {
        let left = traffic.in_flight().get();
        tracing::warn!(left, ?bound, "requests in flight were cut off; server.drain_ms bounds how long they may take");
        cut_off.cancel();
        let _ = tokio::time::timeout(CUT_OFF_WITHIN, tasks.wait()).await;
    }
}

/// Waits for one connection and has it served.
async fn take_one(
    listener: &TcpListener,
    router: &Router,
    traffic: &Traffic,
    lines: &Arc<Lines>,
    tasks: &TaskTracker,
    cut_off: &CancellationToken,
) {
    let (stream, from) = match listener.accept().await {
        Ok(accepted) => accepted,
        Err(error) => {
            // One that went away again costs nothing; descriptors or memory may be there again in a moment.
            tracing::warn!(%error, "a connection could not be taken");
            return tokio::time::sleep(ACCEPT_AGAIN).await;
        }
    };
    let Some(open) = traffic.open() else {
        // Whether it can still be told or not, it is closed.
        let _ = stream.try_write(TOO_MANY);
        return;
    };
    // An answer is written at once as a whole: waiting for more to send only delays it.
    let _ = stream.set_nodelay(true);
    let line = lines.add();
    let routes = TowerToHyperService::new(router.clone());
    let served = Served { routes, traffic: traffic.clone(), from, line };
    tasks.spawn(connection(stream, Arc::new(served), Arc::clone(lines), open, cut_off.clone()));
}

async fn connection(
    stream: TcpStream,
    served: Arc<Served>,
    lines: Arc<Lines>,
    _open: Open,
    cut_off: CancellationToken,
) {
    let line = Arc::clone(&served.line);
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&line)));
    let draining = served.traffic.draining().clone();
    let service = service_fn(move |request| {
        let served = Arc::clone(&served);
        async move { Ok::<_, Infallible>(served.answer(request).await) }
    });
    let mut connection = pin!(http1::Builder::new().header_read_timeout(None).serve_connection(io, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = line.ended() => None,
        () = cut_off.cancelled() => None,
        () = draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => Some(ended),
                () = line.ended() => None,
                () = cut_off.cancelled() => None,
            }
        }
    };
    if let Some(Err(error)) = ended {
        tracing::debug!(%error, "a connection broke");
    }
    lines.remove(&line);
}

impl Served {
    /// Answers one request, if the limits let it.
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let began = tracing::enabled!(tracing::Level::DEBUG)
            .then(|| (self.traffic.env().stopwatch(), request.method().clone(), request.uri().path().to_owned()));
        let answer = match self.admit(&request) {
            Ok(counted) => {
                let answer = self.routed(request).await;
                drop(counted);
                answer
            }
            Err(refused) => *refused,
        };
        if let Some((began, method, path)) = began {
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            tracing::debug!(%method, path, status = answer.status().as_u16(), micros, from = %self.from, "request");
        }
        answer
    }

    /// Whether a request may be answered now.
    fn admit(&self, request: &Request<Incoming>) -> Result<Option<InFlight>, Box<Response<Body>>> {
        let path = request.uri().path();
        if self.traffic.is_ending() {
            if path == "/ready" {
                return Err(refusal(StatusCode::SERVICE_UNAVAILABLE, "draining", 1));
            }
            if path.starts_with("/poll/") {
                self.traffic.refuse(Refusal::Draining);
                return Err(refusal(StatusCode::SERVICE_UNAVAILABLE, "draining: connect to another server", 1));
            }
        }
        if ALWAYS.contains(&path) {
            return Ok(None);
        }
        if let Err(after) = self.traffic.allow(self.from.ip()) {
            let text = "this address asks too often (server.requests_per_second)";
            return Err(refusal(StatusCode::TOO_MANY_REQUESTS, text, after));
        }
        let busy = "too many requests are being answered (server.requests_in_flight_max)";
        self.traffic.enter().map(Some).ok_or_else(|| refusal(StatusCode::SERVICE_UNAVAILABLE, busy, 1))
    }

    async fn routed(&self, request: Request<Incoming>) -> Response<Body> {
        let request = if request.body().is_end_stream() {
            self.line.begin(false);
            request.map(|_| Body::empty())
        } else {
            self.line.begin(true);
            request.map(|body| Body::new(Reading::new(body, Arc::clone(&self.line))))
        };
        // The router answers everything, whatever it is.
        let answer = self.routes.call(request).await.unwrap_or_else(|never| match never {});
        if answer.headers().get(header::CONTENT_TYPE) != Some(&HeaderValue::from_static("text/event-stream")) {
            self.line.end();
            return answer;
        }
        // A stream ends by itself only when the server does, and then its worker goes elsewhere.
        let draining = self.traffic.ending().clone().cancelled_owned();
        let over = StreamOver(Arc::clone(&self.line));
        answer.map(|body| {
            let frames = body.into_data_stream().take_until(draining);
            Body::from_stream(frames.inspect(move |_| _ = &over))
        })
    }
}

/// Held by an event stream: when it is over, its connection waits for the next request.
struct StreamOver(Arc<Line>);

impl Drop for StreamOver {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn refusal(status: StatusCode, text: &str, retry_after: u64) -> Box<Response<Body>> {
    let error = axum::Json(serde_json::json!({ "error": text }));
    Box::new((status, [(header::RETRY_AFTER, retry_after.to_string())], error).into_response())
}

#[cfg(test)]
mod tests;
