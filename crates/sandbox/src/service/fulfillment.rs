//! The consumer: takes orders from the queue and works on them.

use super::Shop;
use super::queue::{Batch, Message, Wanted};
use crate::telemetry;
use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Messages taken at once.
const TAKE: u32 = 32;
/// Pause after the queue did not answer.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes and works until it is aborted. Messages are reported done with the next batch.
pub(super) async fn consume(shop: Arc<Shop>) {
    let mut done = Vec::new();
    loop {
        let Some(batch) = take(&shop, &done).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let mut work = JoinSet::new();
        for message in batch.messages {
            work.spawn(process(shop.clone(), message));
        }
        done = work.join_all().await;
    }
}

async fn take(shop: &Shop, done: &[i64]) -> Option<Batch> {
    let call = shop.profile.calls.first()?;
    let wanted = serde_json::to_vec(&Wanted { max: TAKE, done: done.to_vec() }).ok()?;
    let answer = shop.caller.poll(call, "/take", Bytes::from(wanted)).await.ok()?;
    serde_json::from_slice(&answer).ok()
}

async fn process(shop: Arc<Shop>, message: Message) -> i64 {
    let mut carried = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&message.traceparent) {
        carried.insert("traceparent", value);
    }
    let queue = shop.profile.calls.first().map_or("", |call| call.callee);
    let context = shop.telemetry.consumer(&carried, queue);
    if let Some(place) = shop.pool.enter() {
        let _worker = place.work().await;
        shop.work().await;
    }
    telemetry::end(&context, 200);
    message.id
}
