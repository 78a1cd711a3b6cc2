//! Spans with the OpenTelemetry libraries: made, propagated, and exported over OTLP/HTTP.

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::HeaderMap;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HeaderExtractor, HeaderInjector, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider, SpanData, SpanExporter as Export,
};
use std::pin::Pin;
use std::time::Duration;
use tokio::runtime::Handle;

/// Version that every span's service reports. It is the program's, not the instance's: a restart changes nothing.
const VERSION: &str = "1";
/// LIMIT: spans waiting for export; more are dropped.
const QUEUE_MAX: usize = 8_192;
/// LIMIT: spans in one export.
const EXPORT_SPANS_MAX: usize = 512;
/// LIMIT: how long one export may take.
const EXPORT_MAX: Duration = Duration::from_secs(1);
/// Attribute of an attempt that the proxy turned away: it reached nobody.
const TURNED_AWAY: &str = "shop.turned_away";

/// The spans of one process.
#[derive(Clone, Debug)]
pub(crate) struct Telemetry {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    propagator: std::sync::Arc<TraceContextPropagator>,
}

/// Sends exports with the process's own HTTP client, on its runtime: the exporting thread has none.
#[derive(Debug)]
struct Sender {
    runtime: Handle,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// Exports an attempt that was turned away before it reached its callee as what it was: no call.
#[derive(Debug)]
struct Truthful(SpanExporter);

impl Telemetry {
    /// Starts exporting to the intake at `otlp`, its base address; without one spans go nowhere.
    pub(crate) fn start(service: &str, replica: u32, otlp: Option<&str>) -> anyhow::Result<Telemetry> {
        let resource = Resource::builder_empty().with_attributes([
            KeyValue::new("service.name", service.to_owned()),
            KeyValue::new("service.instance.id", format!("{service}@{replica}")),
            KeyValue::new("service.version", VERSION),
        ]);
        let mut builder = SdkTracerProvider::builder().with_resource(resource.build());
        if let Some(base) = otlp {
            let exporter = SpanExporter::builder()
                .with_http()
                .with_http_client(Sender::new())
                .with_protocol(Protocol::HttpBinary)
                .with_endpoint(format!("{}/v1/traces", base.trim_end_matches('/')))
                .with_timeout(EXPORT_MAX)
                // WHY: an intake that is down gets later spans, not these; retrying would only let them queue.
                .with_retry_policy(RetryPolicy::default().with_max_retries(0))
                .build()
                .context("cannot export spans")?;
            let config = BatchConfigBuilder::default()
                .with_scheduled_delay(Duration::from_millis(crate::EXPORT_MS))
                .with_max_queue_size(QUEUE_MAX)
                .with_max_export_batch_size(EXPORT_SPANS_MAX)
                .build();
            let processor = BatchSpanProcessor::builder(Truthful(exporter)).with_batch_config(config).build();
            builder = builder.with_span_processor(processor);
        }
        let provider = builder.build();
        let tracer = provider.tracer("shop");
        Ok(Telemetry { provider, tracer, propagator: std::sync::Arc::default() })
    }

    /// A span for a request that came in.
    pub(crate) fn server(&self, name: &'static str, headers: &HeaderMap) -> Context {
        let parent = self.propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers));
        self.span(&parent, SpanKind::Server, name.into(), Vec::new())
    }

    /// A span for one attempt of a call that goes out.
    pub(crate) fn client(&self, parent: &Context, callee: &'static str, path: &'static str, attempt: u32) -> Context {
        let attributes = vec![
            KeyValue::new("peer.service", callee),
            KeyValue::new("http.request.method", "POST"),
            KeyValue::new("http.request.resend_count", i64::from(attempt) - 1),
        ];
        self.span(parent, SpanKind::Client, format!("POST {path}"), attributes)
    }

    /// A span for a message put into a queue.
    pub(crate) fn producer(&self, parent: &Context, queue: &'static str) -> Context {
        let attributes = vec![KeyValue::new("messaging.destination.name", queue)];
        self.span(parent, SpanKind::Producer, format!("send {queue}"), attributes)
    }

    /// A span for a message taken from a queue.
    pub(crate) fn consumer(&self, carried: &HeaderMap, queue: &'static str) -> Context {
        let parent = self.propagator.extract_with_context(&Context::new(), &HeaderExtractor(carried));
        let attributes = vec![KeyValue::new("messaging.destination.name", queue)];
        self.span(&parent, SpanKind::Consumer, format!("process {queue}"), attributes)
    }

    /// Writes the context into a request's headers.
    pub(crate) fn inject(&self, context: &Context, headers: &mut HeaderMap) {
        self.propagator.inject_context(context, &mut HeaderInjector(headers));
    }

    /// Exports what is left; takes no longer than one export may.
    pub(crate) async fn stop(self) {
        // WHY: off the runtime, because the export itself needs it.
        let stopping = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(EXPORT_MAX / 4));
        let _ = stopping.await;
    }

    fn span(&self, parent: &Context, kind: SpanKind, name: String, attributes: Vec<KeyValue>) -> Context {
        let builder = self.tracer.span_builder(name).with_kind(kind).with_attributes(attributes);
        let span = self.tracer.build_with_context(builder, parent);
        parent.with_span(span)
    }
}

/// Ends a span with an HTTP status; server errors are errors.
pub(crate) fn end(context: &Context, status: u16) {
    let span = context.span();
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
    if status >= 500 {
        span.set_status(Status::error(""));
    }
    span.end();
}

/// Ends the span of an attempt that got no answer.
pub(crate) fn end_unanswered(context: &Context) {
    let span = context.span();
    span.set_status(Status::error("no answer"));
    span.end();
}

/// Ends the span of an attempt that the proxy turned away on purpose.
pub(crate) fn end_turned_away(context: &Context) {
    let span = context.span();
    span.set_attribute(KeyValue::new(TURNED_AWAY, true));
    span.end();
}

impl Export for Truthful {
    fn export(&self, mut batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        for span in &mut batch {
            if span.attributes.iter().any(|attribute| attribute.key.as_str() == TURNED_AWAY) {
                span.span_kind = SpanKind::Internal;
                span.attributes.retain(|attribute| attribute.key.as_str() != "peer.service");
            }
        }
        self.0.export(batch)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

impl Sender {
    fn new() -> Sender {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build_http();
        Sender { runtime: Handle::current(), client }
    }
}

impl HttpClient for Sender {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let client = self.client.clone();
        let exchange = self.runtime.spawn(async move {
            let answer = async {
                let (parts, body) = client.request(request.map(Full::new)).await?.into_parts();
                Ok::<_, HttpError>(Response::from_parts(parts, body.collect().await?.to_bytes()))
            };
            tokio::time::timeout(EXPORT_MAX, answer).await?
        });
        Box::pin(async move { exchange.await? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::extract::State;
    use axum::routing::post;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use prost::Message as _;
    use std::sync::{Arc, Mutex};
    use tokio::sync::watch;

    /// An intake that answers nothing until it is told to, and counts the spans of each export that comes after.
    #[derive(Clone)]
    struct Intake {
        open: watch::Receiver<bool>,
        exports: Arc<Mutex<Vec<usize>>>,
    }

    async fn export(State(mut intake): State<Intake>, body: Bytes) {
        let request = ExportTraceServiceRequest::decode(body).expect("an export");
        let scopes = request.resource_spans.iter().flat_map(|found| &found.scope_spans);
        let spans = scopes.map(|scope| scope.spans.len()).sum();
        assert!(spans <= EXPORT_SPANS_MAX, "{spans} spans in one export");
        if *intake.open.borrow() {
            intake.exports.lock().expect("lock").push(spans);
        } else {
            intake.open.wait_for(|open| *open).await.expect("told");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_intake_that_hangs_costs_spans_and_no_more_memory_than_the_queue() {
        let (tell, open) = watch::channel(false);
        let intake = Intake { open, exports: Arc::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let router = Router::new().route("/v1/traces", post(export)).with_state(intake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let telemetry = Telemetry::start("shop", 0, Some(&url)).expect("start");
        for _ in 0..QUEUE_MAX + 8 * EXPORT_SPANS_MAX {
            end(&telemetry.server("work", &HeaderMap::new()), 200);
        }
        tell.send(true).expect("told");
        let answered = || intake.exports.lock().expect("lock").clone();
        // An export ends after EXPORT_MAX, answered or not, and the next one is tried: some are answered now.
        let answering = async {
            while answered().iter().sum::<usize>() < EXPORT_SPANS_MAX {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(60 * EXPORT_MAX, answering).await.expect("it goes on");
        telemetry.stop().await;
        let spans: usize = answered().iter().sum();
        assert!(spans <= QUEUE_MAX + EXPORT_SPANS_MAX, "{spans}: the queue and the export on its way");
    }
}
