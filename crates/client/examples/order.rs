//! A workflow in Rust: `cargo run -p stanch-client --example order -- http://127.0.0.1:8001`, beside `stanch serve`.
//!
//! A worker of the group `orders` takes orders. Each order reserves its goods (a step that is done once, however often
//! its worker dies), has its price told by a worker of the group `prices`, and waits for somebody's approval, giving its
//! task up meanwhile. A client places an order, approves it, and waits for the end.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use base::{Millis, Timestamp};
use client::{ChildError, Children, Client, Error, Job, Outcome, Retry, Worker};
use protocol::{Create, Promise, PromiseSearch, PromiseState, Resolution, SCOPE, ScheduleCreate, TARGET, Value};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// How long a worker may be silent before its tasks are offered to another one.
const LEASE: Millis = Millis(5_000);
const HOUR: Millis = Millis(3_600_000);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8001".to_owned());
    let order = run(&url, "order-1").await?;
    println!("{} {:?}: {}", order.id, order.state, order.value.data.unwrap_or_default());
    Ok(())
}

/// Starts both workers, places the order `id`, approves it, and answers it as it settled.
pub(crate) async fn run(url: &str, id: &str) -> Result<Promise, Error> {
    // A server that restarts is asked again; an answer, whatever it says, is never a reason to.
    let client = Client::new(url)?.retrying(Retry::default());
    let stop = CancellationToken::new();
    let workers = [work(&client, "orders", &stop), work(&client, "prices", &stop)];

    let tags = BTreeMap::from([(TARGET.to_owned(), "poll://any@orders".to_owned())]);
    client.create(id, now().plus(HOUR), Value::text("3 lamps"), tags.clone()).await?;
    // Its third child is the approval.
    approve(&client, &format!("{id}:3")).await?;
    let order = client.await_promise(id).await?;

    look_around(&client, id).await?;
    nightly(&client, tags).await?;
    stop.cancel();
    for worker in workers {
        // It lets its jobs end first; a worker that panicked has none left.
        let _ = worker.await;
    }
    Ok(order)
}

/// Starts a worker. Its name is its own: no other process may have it.
fn work(client: &Client, group: &str, stop: &CancellationToken) -> tokio::task::JoinHandle<()> {
    let name = format!("{group}-{}", std::process::id());
    let (worker, client) = (Worker::new(client.clone(), group, name, LEASE), client.clone());
    let (stop, is_order) = (stop.clone(), group == "orders");
    tokio::spawn(async move {
        let perform = move |job: Job| {
            let client = client.clone();
            async move {
                match is_order {
                    true => order(&client, job).await.unwrap_or_else(Outcome::from),
                    false => Outcome::Fulfill(Resolution::Resolved, Value::text("120 EUR")),
                }
            }
        };
        worker.run(stop, perform).await;
    })
}

/// The workflow. It may run several times, from the top each time, and does each thing once.
async fn order(client: &Client, job: Job) -> Result<Outcome, ChildError> {
    let mut children = Children::of(client, &job);
    let goods = job.promise.param.data.clone().unwrap_or_default();
    let reserved = children.step(async { (Resolution::Resolved, Value::text(format!("{goods} reserved"))) }).await?;
    let price = children.call("poll://any@prices", Value::text(goods)).await?;
    let approval = children.external(Value::default(), job.promise.timeout_at).await?;
    let open = [&price, &approval].into_iter().filter(|promise| !promise.is_settled());
    let open: Vec<String> = open.map(|promise| promise.id.clone()).collect();
    if !open.is_empty() {
        // The task is given up until one of them settles; then some worker goes on, not necessarily this one.
        return Ok(Outcome::Suspend(open));
    }
    if approval.state != PromiseState::Resolved {
        return Ok(Outcome::Fulfill(Resolution::Rejected, Value::text("not approved")));
    }
    let text = |promise: &Promise| promise.value.data.clone().unwrap_or_default();
    let receipt = format!("{} for {}", text(&reserved), text(&price));
    Ok(Outcome::Fulfill(Resolution::Resolved, Value::text(receipt)))
}

/// Settles the promise that the workflow waits for. Creating it is idempotent: whoever comes first creates it.
async fn approve(client: &Client, id: &str) -> Result<(), Error> {
    let tags = BTreeMap::from([(SCOPE.to_owned(), "global".to_owned())]);
    client.create(id, now().plus(HOUR), Value::default(), tags).await?;
    client.settle(id, Resolution::Resolved, Value::default()).await.map(drop)
}

/// What is there, page by page; and operators' words: a task that somebody holds is stopped, and offered again.
async fn look_around(client: &Client, id: &str) -> Result<(), Error> {
    let mut pages = client.pages(PromiseSearch { limit: Some(2), ..PromiseSearch::default() });
    while let Some(page) = pages.next().await? {
        page.iter().for_each(|promise| println!("{} {:?}", promise.id, promise.state));
    }
    let by_hand = Create {
        id: format!("{id}-by-hand"),
        timeout_at: now().plus(HOUR),
        param: Value::default(),
        tags: BTreeMap::from([(TARGET.to_owned(), "poll://any@nobody".to_owned())]),
    };
    // Created and taken at once, as a client does that runs the function itself.
    let Some((task, _, _)) = client.create_task("me", LEASE, by_hand).await? else { return Ok(()) };
    client.halt(&task.id).await?;
    client.continue_task(&task.id).await?;
    client.settle(&task.id, Resolution::Canceled, Value::default()).await.map(drop)
}

/// A schedule: an order every night, until it is deleted.
async fn nightly(client: &Client, promise_tags: BTreeMap<String, String>) -> Result<(), Error> {
    let schedule = ScheduleCreate {
        id: "nightly".to_owned(),
        cron: "0 3 * * *".to_owned(),
        promise_id: "{{.id}}-{{.timestamp}}".to_owned(),
        promise_timeout: HOUR,
        promise_param: Value::text("3 lamps"),
        promise_tags,
    };
    let schedule = client.create_schedule(schedule).await?;
    println!("{} fires next at {}", schedule.id, schedule.next_run_at.0);
    client.delete_schedule(&schedule.id).await.map(drop)
}

#[expect(clippy::disallowed_methods, reason = "a program of its own reads its own clock")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
