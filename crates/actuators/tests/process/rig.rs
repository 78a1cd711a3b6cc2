//! A supervised pair of services, and the contract suite's view of it.

use crate::roles::now;
use actuators::contract::{Rig, Sample};
use actuators::control::{Change, Instance, Proxy, Request, Status, Supervisor};
use actuators::field::Field;
use actuators::process::{ProcessActuator, config};
use actuators::{Actuator, Fut, procfs};
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
    /// Versions that were reached by meddling, by field.
    meddled: Mutex<BTreeMap<String, Vec<u64>>>,
}

impl World {
    /// Services `a` and `b`, two instances each; `b` becomes ready `slow_ms` after its start.
    pub(crate) fn start(slow_ms: u32) -> World {
        let dir = tempfile::tempdir().expect("temporary directory");
        let text = format!(
            r#"
[service.a]
run = ["{{self}}", "role-service", "{{listen}}", "{{data}}/starts", "0"]
listen = "127.0.0.1:0"
probe = {{ http = "/ready", every = "50ms", timeout = "500ms" }}
replicas = {{ min = 1, start = 2, max = 3 }}
start_needs = ["b"]
[service.b]
run = ["{{self}}", "role-service", "{{listen}}", "{{data}}/starts", "{slow_ms}"]
listen = "127.0.0.1:0"
probe = {{ tcp = true, every = "50ms", timeout = "500ms" }}
replicas = {{ min = 1, start = 2, max = 3 }}
zones = ["z1", "z2"]
[process.caller]
run = ["{{self}}", "role-parent", "{{data}}/child", "{{edge:a}}", "{{edge:b}}"]
"#
        );
        std::fs::write(dir.path().join("stanch.toml"), text).expect("topology file");
        let mut child = command("role-supervise")
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::inherit())
            .spawn()
            .expect("supervisor");
        let lifeline = child.stdin.take();
        World {
            supervisor: Supervisor::new(dir.path()),
            proxy: Proxy::new(dir.path()),
            child,
            lifeline,
            dir,
            meddled: Mutex::default(),
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

    /// A cut call's ramp goes on by itself; the next call is meant for where it ends.
    async fn value_at_rest(&self, name: &str, mut now: i64) -> i64 {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let before = std::mem::replace(&mut now, self.value(name).await);
            if before == now {
                return now;
            }
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
        drop(self.lifeline.take());
        let _ = self.child.wait();
    }
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

/// Looks again and again; an error after 20 s.
pub(crate) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) -> Result<(), String> {
    let limit = now().plus(Millis(20_000));
    while now() < limit {
        if done().await {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(format!("not within 20 s: {what}"))
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
            let mut now = self.value(&name).await;
            if kind == ActionKind::RestoreTraffic {
                now = self.value_at_rest(&name, now).await;
            }
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

async fn meddle(world: &World, field: &str) {
    let value = world.value(field).await;
    match Field::parse(field).expect("field") {
        Field::Generation(service, replica) => {
            let instance = world.instance(&service, replica).await;
            kill(instance.pid, Signal::KILL);
            while world.instance(&service, replica).await.alive {
                tokio::time::sleep(Duration::from_millis(5)).await;
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
