//! The load generator: an open loop of root requests, and the outside record of what became of each.

mod record;

use crate::call::{self, Http, SHED_HEADER};
use crate::clock;
use crate::ending;
use crate::random::Random;
use crate::service::Order;
use anyhow::Context as _;
use axum::extract::{Json, Query, State};
use axum::routing::get;
use axum::{Router, serve};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::CONTENT_TYPE;
pub use record::Row;
use record::{Outcome, Record};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep_until};

/// How long a client of the shop waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);
/// How often it is asked whether the shop is open.
const OPEN_EVERY: Duration = Duration::from_millis(50);
/// LIMIT: requests begun and not ended; more are recorded as failed at once.
const IN_FLIGHT_MAX: u64 = 4_096;

/// What the load generator needs to run.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Where it answers for its record.
    pub listen: String,
    /// Where it sends root requests.
    pub gateway: String,
    /// Directory of `load.jsonl`.
    pub data: PathBuf,
    /// Root requests a second.
    pub rate: u32,
    /// Of its gaps.
    pub seed: u64,
    /// Whether standard input is a pipe whose end is its end.
    pub lifeline: bool,
}

#[derive(Deserialize)]
struct Since {
    #[serde(default)]
    since_ms: i64,
}

/// Sends and records until it is asked to end.
///
/// # Errors
/// An address that cannot be listened on, or a record that cannot be written.
pub async fn run(options: LoadOptions) -> anyhow::Result<()> {
    let listener =
        TcpListener::bind(&options.listen).await.with_context(|| format!("cannot listen on {}", options.listen))?;
    std::fs::create_dir_all(&options.data)?;
    let record = Arc::new(Record::open(&options.data.join("load.jsonl"))?);
    tokio::select! {
        served = serve(listener, routes(record.clone())) => served.context("the record's server ended"),
        () = open_and_send(&options, record.clone()) => Ok(()),
        written = keep(record.clone()) => written,
        _ = ending::requested(options.lifeline) => Ok(()),
    }
}

pub(crate) fn routes(record: Arc<Record>) -> Router {
    let rows = |State(record): State<Arc<Record>>, Query(since): Query<Since>| async move {
        Json(record.rows(since.since_ms, clock::now_ms()))
    };
    Router::new().route("/record", get(rows)).with_state(record)
}

/// A shop that is not open yet has no customers.
async fn open_and_send(options: &LoadOptions, record: Arc<Record>) {
    let http = call::client();
    loop {
        let request = Request::get(format!("http://{}/ready", options.gateway)).body(Full::new(Bytes::new()));
        let answer = match request {
            Ok(request) => call::exchange(&http, request, PATIENCE).await,
            Err(_) => None,
        };
        if answer.is_some_and(|(status, _, _)| status.is_success()) {
            break;
        }
        tokio::time::sleep(OPEN_EVERY).await;
    }
    send(options, record).await;
}

/// An open loop: the next request is sent when its time has come, whatever became of those before.
pub(crate) async fn send(options: &LoadOptions, record: Arc<Record>) {
    let random = Random::new(options.seed, "load", 0);
    let gap = Duration::from_secs(1) / options.rate.max(1);
    let (http, run) = (call::client(), clock::now_ms());
    let (mut due, mut number) = (Instant::now(), 0_u64);
    loop {
        due += random.gap(gap);
        sleep_until(due).await;
        number += 1;
        if is_full(&record) {
            record.begin(clock::now_ms()).end(Duration::ZERO, Outcome::Failed);
            continue;
        }
        let order = Order { order: format!("{run}-{number}") };
        let body = serde_json::to_vec(&order).unwrap_or_default();
        tokio::spawn(one(http.clone(), options.gateway.clone(), body, due, record.clone()));
    }
}

/// Whether another request would be one too many on its way.
fn is_full(record: &Record) -> bool {
    record.in_flight() >= IN_FLIGHT_MAX
}

/// One root request. Its latency counts from when it was due: a late sender hides nothing.
async fn one(http: Http, gateway: String, body: Vec<u8>, due: Instant, record: Arc<Record>) {
    let begun = record.begin(clock::now_ms());
    let request = Request::post(format!("http://{gateway}/buy")).header(CONTENT_TYPE, "application/json");
    let answer = match request.body(Full::new(Bytes::from(body))) {
        Ok(request) => call::exchange(&http, request, PATIENCE).await,
        Err(_) => None,
    };
    let outcome = match answer {
        Some((_, headers, _)) if headers.contains_key(SHED_HEADER) => Outcome::Shed,
        Some((status, _, _)) if status.is_success() => Outcome::Ok,
        _ => Outcome::Failed,
    };
    begun.end(due.elapsed(), outcome);
}

/// Writes every second to the file once nothing of it is in flight any more.
async fn keep(record: Arc<Record>) -> anyhow::Result<()> {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        record.write(clock::now_ms())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use axum::routing::post;

    #[tokio::test]
    async fn the_loop_stays_open_whatever_the_answers_are() {
        // A gateway that never answers: a closed loop would stop after its first requests.
        let gateway = Router::new().route(
            "/buy",
            post(|| async {
                std::future::pending::<()>().await;
                StatusCode::OK
            }),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("address").to_string();
        tokio::spawn(async move { serve(listener, gateway).await });
        let dir = tempfile::tempdir().expect("dir");
        let record = Arc::new(Record::open(&dir.path().join("load.jsonl")).expect("open"));
        let options = LoadOptions { gateway: address, rate: 500, ..LoadOptions::default() };
        let sending = tokio::spawn({
            let record = record.clone();
            async move { send(&options, record).await }
        });
        let reached = async {
            while record.in_flight() < 100 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reached).await.expect("a hundred at once");
        sending.abort();
        let sent: u64 = record.rows(0, clock::now_ms()).iter().map(|row| row.sent).sum();
        assert!(sent >= 100);
    }

    #[test]
    fn requests_on_their_way_are_bounded() {
        let dir = tempfile::tempdir().expect("dir");
        let record = Arc::new(Record::open(&dir.path().join("load.jsonl")).expect("open"));
        let mut begun: Vec<_> = (1..IN_FLIGHT_MAX).map(|_| record.begin(1_000)).collect();
        assert!(!is_full(&record));
        begun.push(record.begin(1_000));
        assert!(is_full(&record));
        begun.remove(0).end(Duration::ZERO, Outcome::Ok);
        assert!(!is_full(&record), "one that ended makes room");
    }
}
