//! What the supervisor's tasks share.

use super::Options;
use crate::clock;
use crate::control::{self, CompanionStatus, Instance, Instances, Process, Proxy, ProxyFile, Status, Target, Targets};
use crate::procfs;
use recovery::call::{self, Fence, Versions};
use recovery::topology::Topology;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{PipeReader, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// The pause before the proxy is told again what it did not take.
const PUBLISH_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) topology: Topology,
    pub(super) lifeline: PipeReader,
    pub(super) proxy: Proxy,
    pub(super) edges: OnceLock<ProxyFile>,
    inner: Mutex<Inner>,
    /// One operation at a time per service.
    turns: BTreeMap<String, Arc<tokio::sync::Mutex<()>>>,
    targets_changed: Notify,
    publishing: tokio::sync::Mutex<()>,
    stop: watch::Sender<bool>,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) services: BTreeMap<String, ServiceState>,
    pub(super) companions: BTreeMap<String, CompanionState>,
    pub(super) proxy: Option<Handle>,
    pub(super) versions: Versions,
    pub(super) stopping: bool,
}

#[derive(Default)]
pub(super) struct ServiceState {
    pub(super) desired: u32,
    pub(super) fence: Fence,
    pub(super) ticket: u64,
    /// Raised by every Scale; an expiry of an older one does nothing.
    pub(super) scales: u64,
    /// The key of the newest Scale.
    pub(super) scaled_by: String,
    /// The lasting count behind a temporary one.
    pub(super) lasting: Option<u32>,
    pub(super) instances: BTreeMap<u32, InstanceState>,
    /// Of instances that were scaled away.
    pub(super) past_generations: BTreeMap<u32, u64>,
}

pub(super) struct InstanceState {
    pub(super) shown: Instance,
    pub(super) handle: Handle,
    /// Whether the proxy is told its address.
    pub(super) registered: bool,
    pub(super) failures: u32,
}

pub(super) struct CompanionState {
    pub(super) handle: Handle,
}

/// A started process; `exited` turns true once it was reaped.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) pid: u32,
    pub(super) start_time: u64,
    pub(super) exited: watch::Receiver<bool>,
}

impl Handle {
    pub(super) fn is_alive(&self) -> bool {
        !*self.exited.borrow()
    }
}

impl Shared {
    pub(super) fn new(options: Options, topology: Topology, lifeline: PipeReader) -> Arc<Shared> {
        let turns = topology.service.keys().map(|name| (name.clone(), Arc::default())).collect();
        let state = |service: &recovery::topology::Service| ServiceState {
            desired: service.replicas.start,
            ..ServiceState::default()
        };
        let services = topology.service.iter().map(|(name, service)| (name.clone(), state(service))).collect();
        let versions = read_versions(&options.dir);
        let inner = Inner { services, versions, ..Inner::default() };
        Arc::new(Shared {
            proxy: Proxy::new(&options.dir),
            options,
            topology,
            lifeline,
            edges: OnceLock::new(),
            inner: Mutex::new(inner),
            turns,
            targets_changed: Notify::new(),
            publishing: tokio::sync::Mutex::new(()),
            stop: watch::Sender::new(false),
        })
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn on a service; `None` for a name that is none.
    pub(super) async fn turn(&self, service: &str) -> Option<tokio::sync::OwnedMutexGuard<()>> {
        let turn = Arc::clone(self.turns.get(service)?);
        Some(turn.lock_owned().await)
    }

    pub(super) fn request_stop(&self) {
        self.stop.send_replace(true);
    }

    pub(super) async fn stopped(&self) {
        // The sender is in `self`: waiting cannot fail.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    /// Raises the version counter of a field and remembers it for the next supervisor.
    pub(super) fn raise(&self, inner: &mut Inner, field: &str) {
        *inner.versions.entry(field.to_owned()).or_insert(0) += 1;
        let text = serde_json::to_vec(&inner.versions).unwrap_or_default();
        self.write(&self.options.dir.join("versions.json"), &text);
    }

    /// Writes the registry for whoever outlives the supervisor.
    pub(super) fn register(&self, inner: &Inner) {
        let process = |name: String, handle: &Handle| Process { name, pid: handle.pid, start_time: handle.start_time };
        let instances = inner.services.values().flat_map(|service| service.instances.values());
        let running = instances.filter(|instance| instance.handle.is_alive());
        let mut processes: Vec<Process> =
            running.map(|instance| process(instance.shown.name(), &instance.handle)).collect();
        let companions = inner.companions.iter().filter(|(_, companion)| companion.handle.is_alive());
        processes.extend(companions.map(|(name, companion)| process(name.clone(), &companion.handle)));
        let text = serde_json::to_vec(&Instances { processes }).unwrap_or_default();
        self.write(&self.options.dir.join(control::INSTANCES_FILE), &text);
    }

    /// Appends to the supervisor's own log of what it did: the target's history, whatever a ledger says.
    pub(super) fn log(&self, event: &str, name: &str, detail: serde_json::Value) {
        let line = json!({"at_ms": clock::now().0, "event": event, "name": name, "detail": detail});
        let path = self.options.dir.join("logs").join("supervisor.jsonl");
        let file = std::fs::File::options().create(true).append(true).open(&path);
        if let Err(error) = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())) {
            tracing::warn!(%error, "cannot write the supervisor's log");
        }
    }

    pub(super) fn status(&self) -> Status {
        let inner = self.inner();
        let instances = inner.services.values().flat_map(|service| service.instances.values());
        let companions = inner.companions.iter().map(|(name, companion)| CompanionStatus {
            name: name.clone(),
            pid: companion.handle.pid,
            start_time: companion.handle.start_time,
            alive: companion.handle.is_alive(),
        });
        Status {
            at_ms: clock::now().0,
            replicas: inner.services.iter().map(|(name, service)| (name.clone(), service.desired)).collect(),
            scaled_by: inner.services.iter().map(|(name, service)| (name.clone(), service.scaled_by.clone())).collect(),
            bounds: self.topology.service.iter().map(bounds).collect(),
            versions: inner.versions.clone(),
            instances: instances.map(shown).collect(),
            companions: companions.collect(),
            proxy_pid: inner.proxy.as_ref().map_or(0, |handle| handle.pid),
        }
    }

    pub(super) fn targets_changed(&self) {
        self.targets_changed.notify_one();
    }

    /// Tells the proxy now; later again if it does not take it.
    pub(super) async fn publish(&self) {
        let one = self.publishing.lock().await;
        let targets = self.targets();
        let told = self.proxy.set_targets(&targets).await;
        drop(one);
        if let Err(error) = told {
            tracing::warn!(%error, "the proxy did not take the instances' addresses");
            tokio::time::sleep(PUBLISH_PAUSE).await;
            self.targets_changed.notify_one();
        }
    }

    pub(super) async fn publish_changes(&self) {
        loop {
            self.targets_changed.notified().await;
            self.publish().await;
        }
    }

    /// Every service is named, so that one without instances has none at the proxy either.
    fn targets(&self) -> Targets {
        let inner = self.inner();
        let of = |service: &ServiceState| {
            let registered = service.instances.values().filter(|instance| instance.registered);
            let target = |instance: &InstanceState| {
                let address = instance.shown.address.clone()?;
                Some(Target { replica: instance.shown.replica, address })
            };
            registered.filter_map(target).collect::<Vec<_>>()
        };
        inner.services.iter().map(|(name, service)| (name.clone(), of(service))).collect()
    }

    fn write(&self, path: &Path, bytes: &[u8]) {
        if let Err(error) = crate::process::files::replace(path, bytes) {
            tracing::warn!(file = %path.display(), %error, "cannot write a file");
        }
    }
}

impl Inner {
    pub(super) fn instance(&mut self, service: &str, replica: u32) -> Option<&mut InstanceState> {
        self.services.get_mut(service)?.instances.get_mut(&replica)
    }

    pub(super) fn generation_version(&self, service: &str, replica: u32) -> u64 {
        self.versions.get(&call::generation(service, replica)).copied().unwrap_or(0)
    }
}

fn bounds((name, service): (&String, &recovery::topology::Service)) -> (String, (u32, u32)) {
    (name.clone(), (service.replicas.min, service.replicas.max))
}

fn read_versions(dir: &Path) -> Versions {
    let text = std::fs::read(dir.join("versions.json")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// An instance as others see it, with the memory it holds now.
fn shown(instance: &InstanceState) -> Instance {
    let alive = instance.shown.alive && procfs::is_same(instance.shown.pid, instance.shown.start_time);
    let memory_kib = alive.then(|| procfs::memory_kib(instance.shown.pid)).flatten();
    Instance { memory_kib, ..instance.shown.clone() }
}
