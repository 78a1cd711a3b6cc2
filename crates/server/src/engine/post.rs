//! Posting messages to endpoints: HTTP/1.1, plain or over TLS, one answer each.

use crate::engine::PushConfig;
use crate::engine::delivery::{Flight, Landing, PUSH_PER_ORIGIN_MAX};
use crate::engine::shared::Shared;
use base::causes;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use protocol::Message;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// LIMIT: bytes of an answer that are read so that its connection can be used again; more closes it.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long a connection over which nothing is posted is kept.
const IDLE_FOR: Duration = Duration::from_secs(30);

type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Why endpoints cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file with further authorities cannot be used.
    #[error("{}: no certificates can be read from it", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A certificate is not one of an authority.
    #[error("a certificate of an authority cannot be used")]
    Certificate(#[source] rustls::Error),
    /// This build does not speak TLS as asked.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// The client of one engine, made with the first post: reading the system's authorities takes a while.
#[derive(Debug)]
pub(super) struct Post {
    config: PushConfig,
    client: OnceLock<Result<Http, String>>,
}

impl Post {
    pub(super) fn new(config: PushConfig) -> Post {
        Post { config, client: OnceLock::new() }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.config.enabled
    }

    fn client(&self) -> Result<&Http, String> {
        let made = self.client.get_or_init(|| client(&self.config).map_err(|error| causes(&error)));
        made.as_ref().map_err(String::clone)
    }

    /// Posts one message. Reading what is left of the answer is part of it, and its failure is none.
    async fn send(&self, message: &Message, server_url: &str) -> Landing {
        let body = Full::new(Bytes::from(protocol::wire::render_message(message, server_url)));
        let request = Request::post(message.address()).header(header::CONTENT_TYPE, "application/json").body(body);
        let (request, client) = match (request, self.client()) {
            (Ok(request), Ok(client)) => (request, client),
            (Err(error), _) => return Landing::Unanswered(causes(&error)),
            (_, Err(error)) => return Landing::Unanswered(error),
        };
        let exchange = async {
            let answer = client.request(request).await.map_err(|error| causes(&error))?;
            let status = answer.status().as_u16();
            let _ = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok(status)
        };
        let limit = self.config.request_timeout.0;
        match tokio::time::timeout(Duration::from_millis(limit), exchange).await {
            Ok(Ok(status)) => Landing::Answered(status),
            Ok(Err(error)) => Landing::Unanswered(error),
            Err(_) => Landing::Unanswered(format!("no answer within {limit} ms")),
        }
    }
}

/// Posts a message and takes down how it ended.
pub(super) async fn deliver(shared: Arc<Shared>, flight: Flight) {
    let Some(url) = shared.url.get() else { return };
    let landing = tokio::select! {
        biased;
        () = shared.stopped.cancelled() => return,
        landing = shared.post.send(&flight.message, url) => landing,
    };
    // Without randomness the next attempt comes at an instant that can be told beforehand, and no other harm is done.
    let random = shared
        .env
        .draw()
        .map_or(0, |drawn| drawn.iter().skip(8).fold(0, |number, byte| number << 8 | u64::from(*byte)));
    let mut core = shared.lock();
    let now = shared.env.now();
    let changed = core.land(flight.number, &landing, now, random);
    drop(core);
    if changed {
        shared.wake();
    }
    shared.stir.notify_one();
}

/// The authorities in a PEM file.
///
/// # Errors
/// It cannot be read, or holds something else.
pub fn roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let failed = |source| RootsError::File { path: path.to_owned(), source };
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    if found.is_empty() { Err(failed(rustls::pki_types::pem::Error::NoItemsFound)) } else { Ok(found) }
}

fn client(config: &PushConfig) -> Result<Http, RootsError> {
    let mut trusted = RootCertStore::empty();
    // What the system does not have, or holds in a form that is no certificate, is not trusted: that is all.
    trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &config.ca_file {
        for root in roots(path)? {
            trusted.add(root).map_err(RootsError::Certificate)?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = versions.map_err(RootsError::Tls)?.with_root_certificates(trusted).with_no_client_auth();
    let mut plain = HttpConnector::new();
    plain.set_nodelay(true);
    plain.enforce_http(false);
    plain.set_connect_timeout(Some(Duration::from_millis(config.connect_timeout.0)));
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_FOR).pool_max_idle_per_host(PUSH_PER_ORIGIN_MAX);
    Ok(builder.build(connector.wrap_connector(plain)))
}
