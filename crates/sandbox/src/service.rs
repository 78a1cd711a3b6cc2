//! One replica of one service.

mod fulfillment;
mod ledger;
mod queue;
pub(crate) mod sessions;
mod settings;
#[cfg(test)]
mod tests;
mod wounds;

use crate::call::{Caller, Failure, SHED_HEADER};
use crate::ending::{self, Ending};
use crate::pool::Pool;
use crate::profile::{self, Profile};
use crate::random::Random;
use crate::starts::{self, Identity};
use crate::telemetry::{self, Telemetry};
use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::extract::{Json, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use axum::routing::{get, post};
use bytes::Bytes;
use opentelemetry::Context;
use serde::{Deserialize, Serialize};
use sessions::Sessions;
use settings::Settings;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wounds::{Told, Wounds};

/// How long a replica that is asked to end finishes what is at work.
const GRACE: Duration = Duration::from_millis(600);

/// What a replica needs to run.
#[derive(Clone, Debug, Default)]
pub struct ServiceOptions {
    /// Which service it is; see [`profile::PROFILES`].
    pub name: String,
    /// Where it listens; port 0 takes one from the kernel.
    pub listen: String,
    /// Its replica number.
    pub replica: u32,
    /// Directory of its files and of its start log.
    pub data: PathBuf,
    /// Base address of the intake of spans; absent: none are exported.
    pub otlp: Option<String>,
    /// Where its calls to each callee go.
    pub edges: BTreeMap<String, String>,
    /// Of everything random in it.
    pub seed: u64,
    /// Who it is, as whoever started it says.
    pub identity: Identity,
    /// Whether standard input is a pipe whose end is its end.
    pub lifeline: bool,
}

/// The order that a root request carries through the shop.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Its number, unique.
    pub(crate) order: String,
}

/// A replica that serves.
pub struct Running {
    address: String,
    shop: Arc<Shop>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
    consumer: Option<JoinHandle<()>>,
    following: JoinHandle<()>,
}

/// What the tasks of a replica share.
struct Shop {
    profile: &'static Profile,
    pool: Pool,
    random: Random,
    caller: Caller,
    telemetry: Telemetry,
    wounds: Wounds,
    settings: Settings,
    sessions: Sessions,
    keep: Keep,
}

/// What a service keeps.
enum Keep {
    Nothing,
    Ledger(ledger::Ledger),
    Queue(queue::Queue),
}

/// Runs a replica until it is asked to end.
///
/// # Errors
/// A replica that cannot start.
pub async fn run(options: ServiceOptions) -> anyhow::Result<()> {
    let lifeline = options.lifeline;
    let running = start(options).await?;
    match ending::requested(lifeline).await {
        Ending::Asked => running.stop().await,
        Ending::Abandoned => {}
    }
    Ok(())
}

/// Starts a replica; it serves until it is stopped.
///
/// # Errors
/// A replica that cannot start.
pub async fn start(options: ServiceOptions) -> anyhow::Result<Running> {
    let profile =
        profile::named(&options.name).with_context(|| format!("the shop has no service `{}`", options.name))?;
    let listener =
        TcpListener::bind(&options.listen).await.with_context(|| format!("cannot listen on {}", options.listen))?;
    let address = listener.local_addr()?.to_string();
    std::fs::create_dir_all(&options.data)?;
    let keep = Keep::open(profile, &options)?;
    let telemetry = Telemetry::start(profile.name, options.replica, options.otlp.as_deref())?;
    // A new generation is a new process: it draws anew.
    let number = u64::from(options.replica) << 32 | options.identity.generation;
    let random = |what: &str| Random::new(options.seed, &format!("{}/{what}", profile.name), number);
    let shop = Arc::new(Shop {
        profile,
        pool: Pool::new(profile.workers, profile.queue_max),
        random: random("work"),
        caller: Caller::new(telemetry.clone(), options.edges.clone(), random("retry")),
        telemetry,
        wounds: Wounds::default(),
        settings: Settings::open(&options.data, profile.config),
        sessions: Sessions::open(&options.data, profile.name, options.replica)?,
        keep,
    });
    starts::record(&options.data, profile.name, options.replica, &address, &options.identity)?;
    tokio::time::sleep(Duration::from_millis(profile.warm_up_ms)).await;
    let (stop, stopped) = oneshot::channel();
    let serving = axum::serve(listener, routes(shop.clone())).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let server = tokio::spawn(async move { serving.await });
    let consumes = profile.path.is_empty();
    let consumer = consumes.then(|| tokio::spawn(fulfillment::consume(shop.clone())));
    let following = tokio::spawn({
        let shop = shop.clone();
        async move {
            tokio::join!(shop.settings.follow(), shop.sessions.follow());
        }
    });
    Ok(Running { address, shop, stop, server, consumer, following })
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Takes no more requests, finishes those at work within the grace, exports what is left.
    pub async fn stop(mut self) {
        let _ = self.stop.send(());
        self.following.abort();
        if let Some(consumer) = self.consumer.take() {
            consumer.abort();
        }
        let finished = async {
            let _ = (&mut self.server).await;
            // Work whose caller gave up is no connection any more.
            while self.shop.pool.inside() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(GRACE, finished).await;
        self.server.abort();
        self.shop.telemetry.clone().stop().await;
    }
}

impl Keep {
    fn open(profile: &Profile, options: &ServiceOptions) -> anyhow::Result<Keep> {
        let file = options.data.join(format!("{}.sqlite", profile.name));
        Ok(match profile.name {
            "ledger" => Keep::Ledger(ledger::Ledger::open(&file)?),
            "orders" => Keep::Queue(queue::Queue::open(&file)?),
            _ => Keep::Nothing,
        })
    }
}

impl Shop {
    /// Does the work on one request: its own, then its calls in order, then what it keeps.
    async fn serve(&self, context: &Context, body: Bytes) -> StatusCode {
        self.work().await;
        for call in self.profile.calls {
            let path = profile::named(call.callee).map_or("/", |callee| callee.path);
            match self.caller.call(context, call, path, &body).await {
                Ok(_) => {}
                Err(Failure::Shed) => return StatusCode::TOO_MANY_REQUESTS,
                Err(Failure::Failed) => return StatusCode::BAD_GATEWAY,
            }
        }
        let kept = match &self.keep {
            Keep::Nothing => return StatusCode::OK,
            Keep::Ledger(ledger) => match serde_json::from_slice::<Order>(&body) {
                Ok(order) => ledger.append(order.order).await,
                Err(_) => return StatusCode::BAD_REQUEST,
            },
            Keep::Queue(queue) => {
                let sent = self.telemetry.producer(context, self.profile.name);
                let mut carried = HeaderMap::new();
                self.telemetry.inject(&sent, &mut carried);
                let put = queue.put(body, &carried).await;
                telemetry::end(&sent, if put.is_ok() { 200 } else { 500 });
                put
            }
        };
        if kept.is_ok() { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }
    }

    /// The service's own time for one request.
    async fn work(&self) {
        let (low, high) = self.profile.work_ms;
        tokio::time::sleep(self.random.time(low * 1_000, high * 1_000)).await;
        self.wounds.delay().await;
    }
}

fn routes(shop: Arc<Shop>) -> Router {
    let mut router = Router::new().route("/ready", get(ready)).route("/fault", post(fault));
    if !shop.profile.path.is_empty() {
        router = router.route(shop.profile.path, post(request));
    }
    if matches!(shop.keep, Keep::Queue(_)) {
        router = router.route("/take", post(take));
    }
    router.with_state(shop)
}

async fn request(State(shop): State<Arc<Shop>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let context = shop.telemetry.server(shop.profile.path, &headers);
    // Without a key nothing can be signed, without its sessions nothing reserved: every request ends here.
    let is_unfit = !shop.settings.are_good() || shop.sessions.fail(&body);
    let unfit = is_unfit.then_some(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(status) = shop.wounds.refusal().or(unfit) {
        telemetry::end(&context, status.as_u16());
        return answer(status);
    }
    let Some(place) = shop.pool.enter() else {
        telemetry::end(&context, 503);
        return answer(StatusCode::SERVICE_UNAVAILABLE);
    };
    // WHY: a task of its own. When the caller gives up, the work goes on and the worker stays busy: this wasted
    // work is what keeps a retry storm alive.
    let work = tokio::spawn(async move {
        let _worker = place.work().await;
        let status = shop.serve(&context, body).await;
        telemetry::end(&context, status.as_u16());
        status
    });
    answer(work.await.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
}

async fn take(
    State(shop): State<Arc<Shop>>,
    Json(wanted): Json<queue::Wanted>,
) -> Result<Json<queue::Batch>, StatusCode> {
    shop.wounds.delay().await;
    let Keep::Queue(queue) = &shop.keep else { return Err(StatusCode::NOT_FOUND) };
    queue.take(wanted).await.map(Json).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn ready(State(shop): State<Arc<Shop>>) -> StatusCode {
    shop.wounds.delay().await;
    StatusCode::OK
}

async fn fault(State(shop): State<Arc<Shop>>, Json(told): Json<Told>) -> StatusCode {
    shop.wounds.set(told);
    StatusCode::NO_CONTENT
}

fn answer(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::from("{}"));
    *response.status_mut() = status;
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(SHED_HEADER, HeaderValue::from_static("1"));
    }
    response
}
