//! A supervised pair of services, and the contract suite's view of it.

use crate::relay::{self, Late};
use crate::roles::now;
use actuators::contract::{LinkFault, Names, Rig, Sample};
use actuators::control::{Change, ControlError, Instance, Proxy, Request, Status, Supervisor};
use actuators::field::Field;
use actuators::process::{ProcessActuator, config};
use actuators::{Actuator, Error, Fut, procfs};
use base::{Millis, Timestamp};
use recovery::call::{self, Call, Fence, State};
use recovery::isa::{
    Action, ActionKind, BreakerMode, DrainMode, EdgeName, Limited, Place, Rate, RestartStrategy, Restored, Revision,
    ScaleTo,
};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A fence above all the others, of somebody who does not ask.
const MEDDLER: Fence = Fence { epoch: 0, version: 0 };

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) child: Child,
    pub(crate) lifeline: Option<ChildStdin>,
    pub(crate) supervisor: Supervisor,
    pub(crate) proxy: Proxy,
    pub(crate) late: Late,
    /// Versions that were reached by meddling, by field.
    meddled: Mutex<BTreeMap<String, Vec<u64>>>,
    /// The proxy that the test itself started in place of a killed one, on a lifeline of its own.
    proxy_child: Mutex<Option<Child>>,
}

impl World {
    /// Services `a` and `b`, two instances each.
    pub(crate) fn start() -> World {
        let dir = tempfile::tempdir().expect("temporary directory");
        let text = r#"
[service.a]
run = ["{self}", "role-service", "{listen}", "{data}/starts", "{data}/no-gate"]
listen = "127.0.0.1:0"
probe = { http = "/ready", every = "50ms", timeout = "500ms" }
replicas = { min = 1, start = 2, max = 3 }
start_needs = ["b"]
[service.b]
run = ["{self}", "role-service", "{listen}", "{data}/starts", "{data}/gate"]
listen = "127.0.0.1:0"
probe = { tcp = true, every = "50ms", timeout = "500ms" }
replicas = { min = 1, start = 2, max = 3 }
zones = ["z1", "z2"]
[process.caller]
run = ["{self}", "role-parent", "{data}/child", "{edge:a}", "{edge:b}"]
"#;
        std::fs::write(dir.path().join("stanch.toml"), text).expect("topology file");
        let mut child = supervise(dir.path());
        let lifeline = child.stdin.take();
        World {
            supervisor: Supervisor::new(dir.path()),
            proxy: Proxy::new(dir.path()),
            child,
            lifeline,
            dir,
            late: Late::default(),
            meddled: Mutex::default(),
            proxy_child: Mutex::default(),
        }
    }

    /// Ends the supervisor with everything it started, and starts another one on its directory.
    pub(crate) fn again(&mut self) {
        drop(self.lifeline.take());
        self.child.wait().expect("ended");
        self.child = supervise(self.dir.path());
        self.lifeline = self.child.stdin.take();
    }

    /// What is started of `b` from now on listens to nobody, until the gate is opened.
    pub(crate) fn close_gate(&self) {
        std::fs::write(self.path("gate"), "").expect("gate");
    }

    pub(crate) fn open_gate(&self) {
        std::fs::remove_file(self.path("gate")).expect("gate");
    }

    /// Kills the proxy, and starts another one on its files.
    pub(crate) async fn restart_proxy(&self) {
        let before = self.proxy_child.lock().expect("proxy").take();
        match before {
            Some(mut child) => {
                child.kill().expect("killed");
                child.wait().expect("ended");
            }
            None => {
                let pid = self.status().await.proxy_pid;
                let start = procfs::start_time(pid).expect("running");
                kill(pid, Signal::KILL);
                let looking = Looking::new();
                while procfs::is_same(pid, start) {
                    looking.again("the proxy's end").await.expect("gone");
                }
            }
        }
        let mut proxy = command("role-proxy");
        proxy.arg(self.dir.path()).arg(self.path("stanch.toml")).stdin(Stdio::piped());
        *self.proxy_child.lock().expect("proxy") = Some(proxy.spawn().expect("proxy"));
        let looking = Looking::new();
        while self.proxy.state().await.is_err() {
            looking.again("the proxy's answer").await.expect("answers");
        }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn actuator(&self) -> ProcessActuator {
        ProcessActuator::open(self.dir.path()).expect("open")
    }

    pub(crate) async fn status(&self) -> Status {
        self.supervisor.status().await.expect("status")
    }

    pub(crate) async fn instance(&self, service: &str, replica: u32) -> Instance {
        self.status().await.instance(service, replica).expect("instance").clone()
    }

    /// Waits until everything is up.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        until("everything is ready", async || {
            let Ok(status) = self.supervisor.status().await else { return false };
            let all = status.instances.len() == 4 && status.companions.len() == 1;
            all && status.instances.iter().all(|instance| instance.ready)
        })
        .await
    }

    /// Numbers and start times of everything the supervisor runs, itself and the proxy included.
    pub(crate) async fn processes(&self) -> Vec<(u32, u64)> {
        let status = self.status().await;
        let mut all: Vec<(u32, u64)> = status.instances.iter().map(|it| (it.pid, it.start_time)).collect();
        all.extend(status.companions.iter().map(|it| (it.pid, it.start_time)));
        for pid in [status.proxy_pid, self.child.id()] {
            all.push((pid, procfs::start_time(pid).expect("running")));
        }
        all
    }

    /// Lines of the services' own start log.
    pub(crate) fn starts(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("starts")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn starts_under(&self, key: &str) -> usize {
        self.starts().iter().filter(|line| line.split(' ').nth(2) == Some(key)).count()
    }

    async fn versions(&self, names: &[String]) -> BTreeMap<String, u64> {
        let fields = names.iter().cloned().collect();
        self.actuator().observe(&actuators::Selector { fields }).await.expect("observe").versions
    }

    /// A cut call's ramp goes on by itself; the next call is meant for where it ends, which the proxy has on disk.
    async fn value_at_rest(&self, name: &str) -> i64 {
        let goal = || {
            let book = std::fs::read(self.path("proxy-settings.json")).unwrap_or_default();
            let book: serde_json::Value = serde_json::from_slice(&book).unwrap_or_default();
            book["fields"][name]["value"].as_i64().unwrap_or(100)
        };
        let looking = Looking::new();
        loop {
            let wanted = goal();
            if self.value(name).await == wanted {
                return wanted;
            }
            looking.again("the ramp's end").await.expect("at rest");
        }
    }

    async fn value(&self, name: &str) -> i64 {
        let fields = [name.to_owned()].into();
        let seen = self.actuator().observe(&actuators::Selector { fields }).await.expect("observe");
        seen.state.get(name).copied().expect("value")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A scenario that failed may have left it stopped: it could not see its lifeline end.
        let _ = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(0)).map(|pid| kill_process(pid, Signal::CONT));
        if let Some(mut proxy) = self.proxy_child.lock().expect("proxy").take() {
            let _ = proxy.kill();
            let _ = proxy.wait();
        }
        drop(self.lifeline.take());
        let _ = self.child.wait();
    }
}

fn supervise(dir: &std::path::Path) -> Child {
    let mut supervisor = command("role-supervise");
    supervisor.arg(dir).stdin(Stdio::piped()).stdout(Stdio::inherit()).spawn().expect("supervisor")
}

#[expect(clippy::disallowed_methods, reason = "the test is what starts processes here")]
pub(crate) fn command(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.arg(role);
    command
}

pub(crate) fn kill(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("process number");
    kill_process(pid, signal).expect("signal");
}

/// How long something may take that is looked for: a bound that only what hangs meets.
const PATIENCE: Millis = Millis(20_000);

/// The pauses between looks at something, until it has been looked at for too long.
pub(crate) struct Looking(Timestamp);

impl Looking {
    pub(crate) fn new() -> Looking {
        Looking(now().plus(PATIENCE))
    }

    /// One pause.
    ///
    /// # Errors
    /// It has been too long.
    pub(crate) async fn again(&self, what: &str) -> Result<(), String> {
        if now() >= self.0 {
            return Err(format!("not within {PATIENCE}: {what}"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok(())
    }
}

/// Looks again and again until it is so.
pub(crate) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) -> Result<(), String> {
    let looking = Looking::new();
    while !done().await {
        looking.again(what).await?;
    }
    Ok(())
}

pub(crate) fn edge() -> EdgeName {
    EdgeName { caller: "caller".into(), callee: "b".into() }
}

pub(crate) fn flag() -> Field {
    Field::Config { kind: "flag".into(), namespace: "default".into(), name: "x".into() }
}

pub(crate) fn action(kind: ActionKind) -> Action {
    let place = Place::Instances("b".into(), vec![0]);
    let (ttl_ms, burst, priority) = (60_000, None, None);
    match kind {
        ActionKind::Restart => Action::Restart {
            place,
            strategy: RestartStrategy::Rolling,
            wave: 1,
            surge: 0,
            grace_ms: Some(1_000),
            jitter_ms: None,
        },
        ActionKind::Drain => {
            Action::Drain { place, percent: 100, mode: DrainMode::New, timeout_ms: Some(1_000), ttl_ms }
        }
        ActionKind::RestoreTraffic => {
            Action::RestoreTraffic { of: Restored::AllOpen, ramp: vec![50, 100], ramp_ms: Some(20) }
        }
        ActionKind::CircuitBreak => {
            Action::CircuitBreak { edge: edge(), mode: BreakerMode::Open, fallback: None, ttl_ms }
        }
        ActionKind::RateLimit => {
            Action::RateLimit { what: Limited::Edge(edge()), rate: Rate::PerSecond(50), burst, priority, ttl_ms }
        }
        ActionKind::Scale => Action::Scale { service: "b".into(), to: ScaleTo::More(1), ttl_ms },
        ActionKind::RollbackConfig => Action::RollbackConfig {
            kind: "flag".into(),
            namespace: "default".into(),
            name: "x".into(),
            to: Revision::LastGood,
        },
    }
}

fn field(kind: ActionKind) -> String {
    match kind {
        ActionKind::Restart => call::generation("b", 0),
        ActionKind::Drain | ActionKind::RestoreTraffic => call::weight("b", 0),
        ActionKind::CircuitBreak => call::breaker(&edge()),
        ActionKind::RateLimit => call::edge_limit(&edge()),
        ActionKind::Scale => call::replicas("b"),
        ActionKind::RollbackConfig => flag().to_string(),
    }
}

/// Another value than the one there is, that the kind of action may set.
fn other(kind: ActionKind, now: i64) -> i64 {
    let either = |one: i64, two: i64| if now == one { two } else { one };
    match kind {
        ActionKind::Restart => now + 1,
        ActionKind::Drain => either(0, 40),
        ActionKind::RestoreTraffic => either(100, 80),
        ActionKind::CircuitBreak => either(1, 2),
        ActionKind::RateLimit => either(50_000, 40_000),
        ActionKind::Scale => either(3, 2),
        ActionKind::RollbackConfig => either(1, 2),
    }
}

impl Rig for World {
    fn open(&self) -> Arc<dyn Actuator> {
        Arc::new(self.actuator())
    }
    fn now(&self) -> Timestamp {
        now()
    }
    fn pass<'a>(&'a self, by: Millis) -> Fut<'a, ()> {
        Box::pin(tokio::time::sleep(Duration::from_millis(by.0)))
    }
    fn fields(&self) -> Vec<String> {
        let mut all = vec![flag().to_string(), call::edge_limit(&edge()), call::breaker(&edge())];
        for service in ["a", "b"] {
            all.extend([call::replicas(service), call::service_limit(service)]);
            for replica in [0, 1] {
                all.extend([call::generation(service, replica), call::weight(service, replica)]);
            }
        }
        all
    }
    fn sample<'a>(&'a self, kind: ActionKind) -> Fut<'a, Option<Sample>> {
        Box::pin(async move {
            let name = field(kind);
            let is_ramp = kind == ActionKind::RestoreTraffic;
            let now = if is_ramp { self.value_at_rest(&name).await } else { self.value(&name).await };
            let value = other(kind, now);
            Some(Sample { action: action(kind), desired: [(name, value)].into() })
        })
    }
    fn unclaimed(&self) -> Vec<Sample> {
        let weights: State = [(call::weight("b", 0), 0)].into();
        let drain = |place, mode| Action::Drain { place, percent: 100, mode, timeout_ms: None, ttl_ms: 1 };
        let Action::Restart { place, strategy, wave, grace_ms, jitter_ms, .. } = action(ActionKind::Restart) else {
            return Vec::new();
        };
        let surge = Action::Restart { place, strategy, wave, surge: 1, grace_ms, jitter_ms };
        vec![
            Sample { action: drain(Place::Shard("b".into(), "1".into()), DrainMode::New), desired: weights.clone() },
            Sample { action: drain(Place::Instances("b".into(), vec![0]), DrainMode::All), desired: weights },
            Sample { action: surge, desired: [(call::generation("b", 0), 9)].into() },
        ]
    }
    fn names(&self) -> Names {
        let object = ["flag", "default", "x"].map(str::to_owned).into();
        Names { service: "b".into(), zone: "z1".into(), edge: edge(), object }
    }
    fn deliver<'a>(&'a self, call: &'a Call) -> Fut<'a, Option<Result<(), Error>>> {
        Box::pin(async move { deliver(self, call).await })
    }
    fn restart<'a>(&'a self) -> Fut<'a, ()> {
        Box::pin(self.restart_proxy())
    }
    fn link<'a>(&'a self, kind: ActionKind, fault: LinkFault) -> Fut<'a, Option<Arc<dyn Actuator>>> {
        Box::pin(async move {
            // A configuration is a name in the file system of the same host.
            if kind == ActionKind::RollbackConfig { None } else { Some(relay::link(self, fault).await) }
        })
    }
    fn deliver_late<'a>(&'a self) -> Fut<'a, ()> {
        Box::pin(relay::deliver(&self.late))
    }
    fn meddle<'a>(&'a self, field: &'a str) -> Fut<'a, ()> {
        Box::pin(async move {
            meddle(self, field).await;
            let version = self.versions(&[field.to_owned()]).await[field];
            self.meddled.lock().expect("lock").entry(field.to_owned()).or_default().push(version);
        })
    }
    fn effects<'a>(&'a self, call: &'a Call) -> Fut<'a, usize> {
        Box::pin(async move {
            match &call.action {
                Action::Restart { .. } => logged(self, "started", &call.key.0),
                Action::Scale { .. } => logged(self, "scaled", &call.key.0),
                // What has no history but its counter: how far it rose since the call was bound.
                _ => {
                    let (name, bound) = call.bound.first_key_value().expect("bound");
                    let version = self.versions(std::slice::from_ref(name)).await[name];
                    let meddled = self.meddled.lock().expect("lock").get(name).cloned().unwrap_or_default();
                    let others = meddled.iter().filter(|at| *at > bound).count();
                    usize::try_from(version - bound).expect("few") - others
                }
            }
        })
    }
}

/// The call at the supervisor or the proxy themselves, as somebody would send it who keeps no ledger.
async fn deliver(world: &World, call: &Call) -> Option<Result<(), Error>> {
    let field = Field::parse(call.desired.keys().next()?)?;
    let answer = match &field {
        Field::Config { .. } => return None,
        Field::Generation(service, _) | Field::Replicas(service) => {
            world.supervisor.begin(service, call.fence, Duration::ZERO).await.map(|_| ())
        }
        _ => {
            let change = Change {
                key: call.key.0.clone(),
                attempt: 1,
                fence: call.fence,
                set: call.desired.clone(),
                bound: None,
                expires_at_ms: None,
                ramp: None,
            };
            world.proxy.put(&change).await.map(|_| ())
        }
    };
    Some(answer.map_err(|error| match error {
        ControlError::Fenced { seen } => Error::Fenced { seen },
        ControlError::TimedOut(_) => Error::TimedOut,
        // No other answer is one of the contract's: the clause that asked finds none it allows.
        _ => Error::Unavailable,
    }))
}

async fn meddle(world: &World, field: &str) {
    let value = world.value(field).await;
    match Field::parse(field).expect("field") {
        Field::Generation(service, replica) => {
            let instance = world.instance(&service, replica).await;
            kill(instance.pid, Signal::KILL);
            let looking = Looking::new();
            while world.instance(&service, replica).await.alive {
                looking.again("its end").await.expect("gone");
            }
        }
        Field::Replicas(service) => {
            let to = u32::try_from(other(ActionKind::Scale, value)).expect("count");
            let fence = highest_fence(world, &service);
            let ticket = world.supervisor.begin(&service, fence, Duration::ZERO).await.expect("ticket");
            let key = "meddler".to_owned();
            let (expires_at_ms, expect, grace_ms) = (None, None, 1_000);
            let scale = Request::Scale { service, to, key, expires_at_ms, grace_ms, expect, ticket };
            world.supervisor.operate(&scale).await.expect("scaled");
        }
        Field::Config { .. } => {
            config::switch(world.dir.path(), &flag(), other(ActionKind::RollbackConfig, value)).expect("switched");
        }
        traffic => {
            let changed = if field.starts_with("weight/") { value + 1 } else { i64::from(value == 0) };
            let change = Change {
                key: format!("meddler/{}", now().0),
                attempt: 1,
                fence: highest_fence(world, traffic.owner().expect("owner")),
                set: [(field.to_owned(), changed)].into(),
                bound: None,
                expires_at_ms: None,
                ramp: None,
            };
            world.proxy.put(&change).await.expect("meddled");
        }
    }
}

/// The fence of the service's ledger, so that the meddler is not refused for an old one.
fn highest_fence(world: &World, service: &str) -> Fence {
    let text = std::fs::read_to_string(world.path(&format!("ledger/{service}/fence"))).unwrap_or_default();
    let numbers = text.trim().split_once(' ').map(|(epoch, version)| (epoch.parse(), version.parse()));
    match numbers {
        Some((Ok(epoch), Ok(version))) => Fence { epoch, version },
        _ => MEDDLER,
    }
}

/// Events of the supervisor's log with this key.
pub(crate) fn logged(world: &World, event: &str, key: &str) -> usize {
    let text = std::fs::read_to_string(world.path("logs/supervisor.jsonl")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.filter(|line| line["event"] == event && line["detail"]["key"] == key).count()
}
