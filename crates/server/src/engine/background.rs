//! What happens by itself: deadlines, retries, leases, delivery, and the answers of finished groups.

use crate::engine::audit::SAMPLE_EVERY;
use crate::engine::core::{Core, Finished};
use crate::engine::delivery::Flight;
use crate::engine::post;
use crate::engine::residence::RETENTION_EVERY;
use crate::engine::shared::Shared;
use base::{Millis, Timestamp};
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;

/// LIMIT: timers handled in one sweep; what is left is handled in the next, at once.
pub(super) const TICK_MAX: u32 = 1_000;
/// The pause before what is due and did not change anything is looked at again.
const IDLE_NAP: Millis = Millis(50);
/// LIMIT: messages given up in one sweep; what is left is given up in the next, at once.
pub(super) const GIVE_UP_MAX: usize = 1_000;
/// How often the outbox is searched for messages to give up.
const GIVE_UP_EVERY: Millis = Millis(60_000);

/// Answers the waiters of each finished group: the writer wakes the runtime once, not once per waiter.
pub(super) async fn answer(shared: Arc<Shared>, mut ended: UnboundedReceiver<Finished>) {
    // Ends when the writer has ended.
    while let Some(finished) = ended.recv().await {
        for (waiters, outcome) in [(finished.durable, true), (finished.failed, false)] {
            for waiter in waiters {
                // Whoever stopped waiting does not want the answer.
                let _ = waiter.send(outcome);
            }
        }
        for waiter in finished.settled {
            let _ = waiter.send(());
        }
        if finished.stir {
            shared.stir.notify_one();
        }
        drop(finished.spent);
    }
}

/// Sweeps timers and hands messages over whenever something is due or was stirred, until the engine ends.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut search_at = shared.env.now().plus(GIVE_UP_EVERY);
    loop {
        let (next, flights) = round(&shared, &mut search_at);
        for flight in flights {
            shared.env.spawn(post::deliver(Arc::clone(&shared), flight));
        }
        tokio::select! {
            biased;
            () = shared.stopped.cancelled() => return,
            () = shared.stir.notified() => {}
            () = shared.env.sleep_until(next) => {}
        }
    }
}

/// Looks at a few rows every second, as long as the engine lives.
pub(super) async fn sample(shared: Arc<Shared>) {
    loop {
        let next = shared.env.now().plus(SAMPLE_EVERY);
        tokio::select! {
            biased;
            () = shared.stopped.cancelled() => return,
            () = shared.env.sleep_until(next) => {}
        }
        shared.lock().audit_sample();
    }
}

/// Forgets what nothing refers to, every now and then, if it is configured.
pub(super) async fn forget(shared: Arc<Shared>) {
    let Some(retention) = shared.retention else { return };
    loop {
        let now = shared.env.now();
        let (worker, before) = (Arc::clone(&shared), Timestamp(now.0.saturating_sub_unsigned(retention.0)));
        match shared.env.compute(move || worker.forget(before)).await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(forgotten)) => tracing::info!(forgotten, "settled promises were forgotten"),
            Ok(Err(error)) => tracing::error!(error = &error as &dyn std::error::Error, "retention cannot read"),
        }
        tokio::select! {
            biased;
            () = shared.stopped.cancelled() => return,
            () = shared.env.sleep_until(now.plus(RETENTION_EVERY)) => {}
        }
    }
}

/// One look at the whole state; answers when the next one is due, and what is to be posted.
fn round(shared: &Shared, search_at: &mut Timestamp) -> (Timestamp, Vec<Flight>) {
    let mut core = shared.lock();
    let (next, changed, flights) = look(shared, &mut core, search_at);
    core.next_round = next;
    drop(core);
    if changed {
        shared.wake();
    }
    (next, flights)
}

/// Applies what is due; answers when it has to be done again, whether anything changed, and what is to be posted.
fn look(shared: &Shared, core: &mut Core, search_at: &mut Timestamp) -> (Timestamp, bool, Vec<Flight>) {
    let now = shared.env.now();
    if shared.debug.is_paused() || shared.writable(core).is_err() {
        // The writer stirs us when the store is back, and a tester when the clockwork goes on.
        return (now.plus(GIVE_UP_EVERY), false, Vec::new());
    }
    let firings = core.firings(now, TICK_MAX);
    if shared.warm(core, firings.iter().map(String::as_str)).is_err() {
        return (now.plus(GIVE_UP_EVERY), false, Vec::new());
    }
    let mut changed = core.tick(now, TICK_MAX);
    changed |= core.deliver(now);
    if now >= *search_at {
        let given_up = core.give_up(now, GIVE_UP_MAX);
        changed |= given_up > 0;
        *search_at = if given_up < GIVE_UP_MAX { now.plus(GIVE_UP_EVERY) } else { now };
    }
    let flights = if shared.url.get().is_some() { core.launch(now) } else { Vec::new() };
    let due = [core.memory.next_due(), core.delivery.next_due(), Some(*search_at)];
    let next = due.into_iter().flatten().min().unwrap_or(*search_at);
    (if next <= now && !changed { now.plus(IDLE_NAP) } else { next }, changed, flights)
}
