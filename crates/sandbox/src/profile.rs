//! What each service of the shop is: its work, its pool, its calls. The services behave by this table and the
//! topology file is written from it, so they cannot disagree.

use std::time::Duration;

/// One service.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// Path of its one operation; the fulfillment service has none: it takes from the queue.
    pub path: &'static str,
    /// Replicas at start.
    pub replicas: u32,
    /// Replicas at most.
    pub replicas_max: u32,
    /// Requests one replica works on at once.
    pub workers: u32,
    /// Requests one replica lets wait.
    pub queue_max: u32,
    /// Shortest and longest own work on a request, in milliseconds.
    pub work_ms: (u64, u64),
    /// Whom it calls, in this order.
    pub calls: &'static [Call],
    /// 99th percentile it must keep, in milliseconds.
    pub p99_ms: Option<u64>,
    /// Services it needs at start.
    pub start_needs: &'static [&'static str],
    /// Services that must restart with it.
    pub coupled: &'static [&'static str],
    /// It is a store, a queue or a cache.
    pub store: bool,
    /// Time from the start of a replica until it serves, in milliseconds.
    pub warm_up_ms: u64,
    /// Requests a second that one replica can serve, where that is declared.
    pub capacity_rps: Option<u32>,
    /// The configuration object it reads, `KIND/NS/NAME`.
    pub config: Option<&'static str>,
}

/// How a caller calls.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Whom.
    pub callee: &'static str,
    /// Longest wait for one attempt, in milliseconds.
    pub timeout_ms: u64,
    /// Attempts in all.
    pub attempts: u32,
    /// Wait before the second attempt, in milliseconds; doubles.
    pub base_ms: u64,
    /// Longest wait between attempts, in milliseconds.
    pub cap_ms: u64,
}

/// The services, callees first.
pub const PROFILES: [Profile; 10] = [
    Profile { path: "/append", workers: 16, queue_max: 128, p99_ms: Some(400), store: true, ..of("ledger", (5, 8)) },
    Profile {
        path: "/get",
        queue_max: 64,
        p99_ms: Some(400),
        coupled: &["catalog"],
        store: true,
        ..of("catalog-cache", (6, 10))
    },
    Profile {
        path: "/price",
        p99_ms: Some(500),
        calls: &[once("catalog-cache", 300)],
        start_needs: &["catalog-cache"],
        coupled: &["catalog-cache"],
        ..of("catalog", (8, 14))
    },
    Profile { path: "/cart", p99_ms: Some(500), capacity_rps: Some(1_500), ..twice("cart", (15, 25)) },
    Profile { path: "/reserve", p99_ms: Some(500), capacity_rps: Some(1_500), ..twice("inventory", (15, 25)) },
    Profile {
        path: "/pay",
        replicas_max: 3,
        workers: 8,
        p99_ms: Some(300),
        calls: &[once("ledger", 300)],
        start_needs: &["ledger"],
        // Reads its keys before it serves.
        warm_up_ms: 2_500,
        capacity_rps: Some(75),
        config: Some(crate::rollout::PAYMENTS),
        ..twice("payments", (82, 112))
    },
    Profile { path: "/enqueue", queue_max: 128, p99_ms: Some(500), store: true, ..of("orders", (4, 7)) },
    Profile {
        path: "/checkout",
        workers: 128,
        queue_max: 128,
        p99_ms: Some(OBJECTIVE_MS),
        calls: &[
            once("catalog", 500),
            once("cart", 500),
            once("inventory", 500),
            Call { callee: "payments", timeout_ms: 400, attempts: 3, base_ms: 50, cap_ms: 200 },
            once("orders", 500),
        ],
        start_needs: &["catalog", "cart", "inventory", "payments", "orders"],
        capacity_rps: Some(500),
        ..twice("checkout", (2, 5))
    },
    Profile {
        path: "/buy",
        workers: 512,
        queue_max: 512,
        calls: &[once("checkout", 3_000)],
        start_needs: &["checkout"],
        ..of("gateway", (1, 3))
    },
    Profile { workers: 8, calls: &[once("orders", 1_000)], ..of("fulfillment", (10, 20)) },
];

const OBJECTIVE_MS: u64 = crate::OBJECTIVE_MS;

/// The service of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Profile> {
    PROFILES.iter().find(|profile| profile.name == name)
}

impl Call {
    /// Longest wait for one attempt.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// Longest wait before attempt `next`, counted from 1; the wait is drawn between half of it and all of it.
    #[must_use]
    pub fn backoff_ms(&self, next: u32) -> u64 {
        let doubled = self.base_ms.saturating_mul(1 << next.saturating_sub(2).min(16));
        doubled.min(self.cap_ms)
    }
}

const fn of(name: &'static str, work_ms: (u64, u64)) -> Profile {
    Profile {
        name,
        path: "",
        replicas: 1,
        replicas_max: 1,
        workers: 32,
        queue_max: 64,
        work_ms,
        calls: &[],
        p99_ms: None,
        start_needs: &[],
        coupled: &[],
        store: false,
        warm_up_ms: 0,
        capacity_rps: None,
        config: None,
    }
}

const fn twice(name: &'static str, work_ms: (u64, u64)) -> Profile {
    Profile { replicas: 2, replicas_max: 3, ..of(name, work_ms) }
}

const fn once(callee: &'static str, timeout_ms: u64) -> Call {
    Call { callee, timeout_ms, attempts: 1, base_ms: 0, cap_ms: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callees_come_first_and_exist() {
        for (index, profile) in PROFILES.iter().enumerate() {
            let earlier = |name: &str| PROFILES[..index].iter().any(|other| other.name == name);
            assert!(profile.calls.iter().all(|call| earlier(call.callee)), "{}", profile.name);
        }
    }

    #[test]
    fn a_request_ends_in_five_seconds_and_payments_can_storm() {
        let payments = named("payments").expect("payments");
        let call = named("checkout").expect("checkout").calls.iter().find(|call| call.callee == "payments");
        let call = call.expect("calls payments");
        let storm_ms = u64::from(call.attempts) * call.timeout_ms + call.backoff_ms(2) + call.backoff_ms(3);
        assert!(storm_ms + 4 * 500 < 5_000);
        // One replica serves 80 a second: more than the limited load, less than what retries of all load make.
        let mean_ms = (payments.work_ms.0 + payments.work_ms.1) / 2 + 8;
        let capacity = u64::from(payments.workers) * 1_000 / mean_ms;
        let rate = u64::from(crate::RATE);
        assert!(capacity * 2 > rate * 13 / 10, "two carry the load with margin");
        assert!(capacity < rate, "one does not");
        assert!(rate * 7 / 4 / 2 > capacity, "retries of a half outage overload the other half");
        assert!(capacity * 10 > rate * 45 / 100 * 12, "one carries 1.2 times the limited load");
    }

    #[test]
    fn backoff_doubles_to_its_cap() {
        let call = Call { callee: "x", timeout_ms: 1, attempts: 9, base_ms: 50, cap_ms: 200 };
        assert_eq!([2, 3, 4, 5, 9].map(|next| call.backoff_ms(next)), [50, 100, 200, 200, 200]);
    }
}
