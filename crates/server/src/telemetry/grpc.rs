//! OTLP/gRPC: `opentelemetry.proto.collector.trace.v1.TraceService/Export` over HTTP/2 without TLS.
//!
//! The message's bytes go to the same reader as those over HTTP: the codec passes them through.

use super::http::AGAIN_AFTER_S;
use super::intake::{Form, Refusal, field, number, partial_success};
use super::{BATCH_BYTES_MAX, Telemetry};
use axum::body::Bytes;
use bytes::{Buf as _, BufMut as _};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::Service;
use tonic::server::Grpc;
use tonic::{Code, Request, Response, Status};

/// LIMIT: open connections; one more is closed at once.
const GRPC_CONNECTIONS_MAX: usize = 256;
/// LIMIT: exports under way on one connection.
const GRPC_CALLS_MAX: u32 = 32;
/// How often a silent connection is asked whether it is still there, and how long it may take to say so.
const ALIVE: Duration = Duration::from_secs(20);
/// How long exports under way may take once the server ends.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// The pause after a connection could not be taken.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// The number of [`Code::ResourceExhausted`].
const RESOURCE_EXHAUSTED: u64 = 8;
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// The type of the detail that tells a client to try again, and when.
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// Serves until `stop`; then answers what is under way, within a bound.
pub(super) async fn serve(listener: TcpListener, telemetry: Telemetry, stop: CancellationToken) {
    let (tasks, room) = (TaskTracker::new(), Arc::new(Semaphore::new(GRPC_CONNECTIONS_MAX)));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let Ok(open) = room.clone().try_acquire_owned() else { continue };
        let (telemetry, stop) = (telemetry.clone(), stop.clone());
        tasks.spawn(async move {
            connection(stream, telemetry, stop).await;
            drop(open);
        });
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(DRAIN_WITHIN, tasks.wait()).await.is_err() {
        tracing::warn!("exports over gRPC were cut off");
    }
}

async fn connection(stream: TcpStream, telemetry: Telemetry, stop: CancellationToken) {
    let service = service_fn(move |request| {
        let telemetry = telemetry.clone();
        async move { Ok::<_, Infallible>(answer(telemetry, request).await) }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).keep_alive_interval(ALIVE).keep_alive_timeout(ALIVE);
    builder.max_concurrent_streams(GRPC_CALLS_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Whoever sent it knows better than we do.
        tracing::debug!(%error, "a gRPC connection broke off");
    }
}

async fn answer(telemetry: Telemetry, request: hyper::Request<Incoming>) -> hyper::Response<tonic::body::Body> {
    if request.uri().path() != EXPORT {
        return Status::unimplemented("only TraceService/Export is served here").into_http();
    }
    let grpc = Grpc::new(Whole).accept_compressed(CompressionEncoding::Gzip);
    grpc.max_decoding_message_size(BATCH_BYTES_MAX).unary(Export(telemetry), request).await
}

/// The one method.
struct Export(Telemetry);

impl Service<Request<Bytes>> for Export {
    type Response = Response<Vec<u8>>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Vec<u8>>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let telemetry = self.0.clone();
        Box::pin(async move {
            let taken = telemetry.take(request.into_inner(), Form::Protobuf, false).await;
            taken.map(|refused| Response::new(partial_success(refused))).map_err(|refusal| status(&refusal))
        })
    }
}

/// A client sends again what was refused as exhausted only if it is told when (OTLP 1.x, "Throttling").
fn status(refusal: &Refusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        Refusal::Malformed(_) => Status::invalid_argument(text),
        Refusal::TooLarge(_) => Status::new(Code::OutOfRange, text),
        Refusal::Busy => {
            let delay = field(1, &number(1, AGAIN_AFTER_S));
            let detail = [field(1, RETRY_INFO.as_bytes()), field(2, &delay)].concat();
            let details = [number(1, RESOURCE_EXHAUSTED), field(3, &detail)].concat();
            Status::with_details(Code::ResourceExhausted, text, details.into())
        }
    }
}

/// Messages as they are.
struct Whole;

impl Codec for Whole {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Whole;
    type Decoder = Whole;

    fn encoder(&mut self) -> Whole {
        Whole
    }

    fn decoder(&mut self) -> Whole {
        Whole
    }
}

impl Encoder for Whole {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Whole {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

#[cfg(test)]
mod tests;
