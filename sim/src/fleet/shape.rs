//! What the fleet consists of: a chain of three services, and what stanch is told about it.

/// One service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Its name.
    pub(crate) name: &'static str,
    /// Instances.
    pub(crate) replicas: u32,
    /// Requests that one instance works on at a time.
    pub(crate) workers: usize,
    /// Requests that one instance lets wait.
    pub(crate) queue_max: usize,
    /// Own work per request, in microseconds, drawn between the two.
    pub(crate) work_us: (u64, u64),
    /// The service it calls, and how.
    pub(crate) calls: Option<Calls>,
}

/// How a service calls the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls {
    /// Place of the callee in [`SHAPES`].
    pub(crate) callee: usize,
    /// Longest wait for one attempt, in microseconds.
    pub(crate) timeout_us: u64,
    /// Attempts at most.
    pub(crate) attempts: u32,
    /// Wait before the second attempt, doubled up to four times that, in microseconds.
    pub(crate) backoff_us: u64,
}

/// Where requests enter.
pub(crate) const ROOT: usize = 0;
/// Requests a second that enter.
pub(crate) const RATE: u64 = 28;
/// A request that takes longer is late, in microseconds.
pub(crate) const LATE_US: u64 = 800_000;
/// Time from the start of an instance until it serves, in microseconds.
pub(crate) const START_UP_US: u64 = 900_000;
/// Time until a probe notices a change, in microseconds.
pub(crate) const PROBE_US: u64 = 400_000;

/// One instance of `payments` serves twenty a second: two carry the load, one does not.
pub(crate) const SHAPES: &[Shape] = &[
    Shape {
        name: "gateway",
        replicas: 1,
        workers: 256,
        queue_max: 256,
        work_us: (1_000, 3_000),
        calls: Some(Calls { callee: 1, timeout_us: 3_000_000, attempts: 1, backoff_us: 0 }),
    },
    Shape {
        name: "checkout",
        replicas: 2,
        workers: 128,
        queue_max: 128,
        work_us: (2_000, 5_000),
        calls: Some(Calls { callee: 2, timeout_us: 400_000, attempts: 3, backoff_us: 50_000 }),
    },
    Shape { name: "payments", replicas: 2, workers: 2, queue_max: 16, work_us: (80_000, 112_000), calls: None },
];

/// The topology file of the fleet.
pub(crate) const TOPOLOGY: &str = r#"
[service.gateway]
run = ["{self}"]
probe = { http = "/ready", every = "200ms", timeout = "200ms" }
replicas = { min = 1, start = 1, max = 1 }
zones = ["z1"]
workers = 256
queue_max = 256
[service.checkout]
run = ["{self}"]
probe = { http = "/ready", every = "200ms", timeout = "200ms" }
replicas = { min = 1, start = 2, max = 3 }
zones = ["z2", "z3"]
workers = 128
queue_max = 128
min_available = 1
capacity_rps = 500
objective = { p99 = "800ms", errors = "1%" }
[service.payments]
run = ["{self}"]
probe = { http = "/ready", every = "200ms", timeout = "200ms" }
replicas = { min = 1, start = 2, max = 3 }
zones = ["z1", "z2"]
workers = 2
queue_max = 16
min_available = 1
capacity_rps = 19
objective = { p99 = "300ms", errors = "1%" }
[edge."gateway->checkout"]
kind = "sync"
timeout = "3000ms"
retry = { attempts = 1, base = "0ms", cap = "0ms" }
[edge."checkout->payments"]
kind = "sync"
timeout = "400ms"
retry = { attempts = 3, base = "50ms", cap = "200ms" }
[observer.outside]
source = "record"
url = "http://load/record"
zone = "z3"
[observer.probe]
source = "probe"
zone = "z2"
[observer.spans]
source = "spans"
zone = "z1"
"#;
