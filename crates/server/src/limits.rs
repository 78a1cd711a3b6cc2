//! What one server lets in: connections, requests at once, requests of one address in a time; and that it ends.

use crate::config::ServerSettings;
use crate::engine::Env;
use base::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// LIMIT: client addresses whose rate is counted one by one; those that come on top share one allowance.
pub const ADDRESSES_MAX: usize = 10_000;
/// The smallest part of a request that an allowance counts: with it, a millisecond is worth the rate per second.
const PARTS: u64 = 1_000;

/// What goes through a server's listener, and what is let through; cheap to clone.
#[derive(Clone, Debug)]
pub struct Traffic(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    env: Env,
    settings: ServerSettings,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
    /// The server is told to end.
    ending: CancellationToken,
    /// The same for each request to look at: a token takes a lock.
    is_ending: AtomicBool,
    /// It takes no connection any more.
    draining: CancellationToken,
    connections: Gauge,
    in_flight: Gauge,
    refused: [Counter; Refusal::ALL.len()],
}

/// Why a connection or a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many connections as may be are open.
    Connections,
    /// As many requests as may be are being answered.
    InFlight,
    /// The address asks more often than it may.
    Rate,
    /// The server ends.
    Draining,
    /// The client was too slow.
    Slow,
}

impl Refusal {
    /// Every one, in the order of their declaration.
    pub const ALL: [Refusal; 5] =
        [Refusal::Connections, Refusal::InFlight, Refusal::Rate, Refusal::Draining, Refusal::Slow];

    /// Its label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Connections => "connections",
            Refusal::InFlight => "in_flight",
            Refusal::Rate => "rate",
            Refusal::Draining => "draining",
            Refusal::Slow => "slow",
        }
    }
}

/// What an address may still ask, in parts of a request, as of a moment.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    parts: u64,
    at: Timestamp,
}

/// One request that is being answered; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight(Traffic);

/// One connection; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Open(Traffic);

impl Traffic {
    /// Nothing has come yet.
    #[must_use]
    pub fn new(env: Env, settings: ServerSettings) -> Traffic {
        Traffic(Arc::new(Inner {
            env,
            settings,
            buckets: Mutex::default(),
            ending: CancellationToken::new(),
            is_ending: AtomicBool::new(false),
            draining: CancellationToken::new(),
            connections: Gauge::default(),
            in_flight: Gauge::default(),
            refused: Default::default(),
        }))
    }

    /// What it was told.
    #[must_use]
    pub fn settings(&self) -> &ServerSettings {
        &self.0.settings
    }

    pub(crate) fn env(&self) -> &Env {
        &self.0.env
    }

    /// From now on the server is not ready, its event streams end, and it takes no new ones.
    pub fn notify(&self) {
        self.0.is_ending.store(true, Ordering::Release);
        self.0.ending.cancel();
    }

    /// From now on it takes no connection, and ends those it has once what is in flight on them is answered.
    pub fn drain(&self) {
        self.notify();
        self.0.draining.cancel();
    }

    /// Whether the server is told to end.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.0.is_ending.load(Ordering::Acquire)
    }

    pub(crate) fn ending(&self) -> &CancellationToken {
        &self.0.ending
    }

    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.0.draining
    }

    /// Counts a refusal.
    pub(crate) fn refuse(&self, why: Refusal) {
        if let Some(counter) = self.0.refused.get(why as usize) {
            counter.inc();
        }
    }

    /// Lets a connection in, if there is room.
    pub(crate) fn open(&self) -> Option<Open> {
        // Only the listener opens connections, so that two never take the last place.
        if self.0.connections.get() >= count(self.0.settings.connections_max) {
            self.refuse(Refusal::Connections);
            return None;
        }
        self.0.connections.inc();
        Some(Open(self.clone()))
    }

    /// Lets a request in, if there is room.
    pub(crate) fn enter(&self) -> Option<InFlight> {
        let entered = InFlight(self.clone());
        if self.0.in_flight.inc() >= count(self.0.settings.requests_in_flight_max) {
            self.refuse(Refusal::InFlight);
            return None;
        }
        Some(entered)
    }

    /// Takes one request from the allowance of an address; `Err`: after so many seconds there is one again.
    pub(crate) fn allow(&self, from: IpAddr) -> Result<(), u64> {
        let rate = u64::from(self.0.settings.requests_per_second);
        if rate == 0 {
            return Ok(());
        }
        let burst = match self.0.settings.request_burst {
            0 => rate,
            burst => u64::from(burst),
        };
        let now = self.0.env.now();
        let mut buckets = self.0.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut whose = network(from);
        if buckets.len() >= ADDRESSES_MAX && !buckets.contains_key(&whose) {
            buckets.retain(|_, bucket| bucket.filled(rate, burst, now).parts < burst * PARTS);
            if buckets.len() >= ADDRESSES_MAX {
                whose = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            }
        }
        let full = Bucket { parts: burst * PARTS, at: now };
        let bucket = buckets.entry(whose).or_insert(full);
        *bucket = bucket.filled(rate, burst, now);
        match bucket.parts.checked_sub(PARTS) {
            Some(left) => {
                bucket.parts = left;
                Ok(())
            }
            None => {
                self.refuse(Refusal::Rate);
                // Parts come `rate` a millisecond.
                Err((PARTS - bucket.parts).div_ceil(rate).div_ceil(1_000).max(1))
            }
        }
    }

    pub(crate) fn connections(&self) -> &Gauge {
        &self.0.connections
    }

    pub(crate) fn in_flight(&self) -> &Gauge {
        &self.0.in_flight
    }

    pub(crate) fn refused(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        Refusal::ALL.into_iter().map(Refusal::name).zip(&self.0.refused)
    }
}

impl Bucket {
    /// The bucket at `now`, with what came in since.
    fn filled(self, rate: u64, burst: u64, now: Timestamp) -> Bucket {
        let more = now.since(self.at).0.saturating_mul(rate);
        Bucket { parts: self.parts.saturating_add(more).min(burst * PARTS), at: now }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.in_flight.dec();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.connections.dec();
    }
}

/// Whom an address counts for: one client has a whole network of the new addresses.
fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        old => old,
    }
}

fn count(limit: u32) -> i64 {
    i64::from(limit)
}

#[cfg(test)]
mod tests;
