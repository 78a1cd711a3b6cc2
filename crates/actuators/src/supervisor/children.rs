//! Starting and ending processes.

use super::shared::{CompanionState, Handle, InstanceState, Shared};
use super::{Error, io, probe};
use crate::control::{Instance, Instances};
use crate::topology::{Values, fill};
use crate::{clock, procfs};
use recovery::call;
use recovery::topology::Service;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long the proxy may take to listen, and a service to be ready before those that need it start anyway.
const START_WAIT: Duration = Duration::from_secs(10);
/// Grace for everything when the supervisor ends.
const END_GRACE: Duration = Duration::from_secs(1);
/// How long a killed process may take to be gone.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// The pause between two looks at something another process does.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// The key of processes that no call started.
const START_KEY: &str = "start";

pub(super) async fn start_proxy(shared: &Arc<Shared>) -> Result<(), Error> {
    super::remove(&shared.options.dir.join(crate::control::PROXY_FILE));
    let argv = filled("proxy", &shared.options.proxy_command, &common_values(shared))?;
    let handle = spawn(shared, "proxy", &argv, &[])?;
    shared.inner().proxy = Some(handle.clone());
    let ready = async {
        loop {
            match shared.proxy.addresses() {
                Ok(addresses) => break Some(addresses),
                Err(_) if !handle.is_alive() => break None,
                Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    };
    let addresses = tokio::time::timeout(START_WAIT, ready).await.ok().flatten();
    let addresses = addresses.ok_or_else(|| Error::Proxy(shared.options.dir.join("logs").join("proxy.log")))?;
    shared.edges.get_or_init(|| addresses);
    Ok(())
}

/// Kills what a supervisor that was killed together with its proxy left in this data directory. Nobody else may be
/// starting one there.
pub fn end_left_over(dir: &Path) {
    let text = std::fs::read(dir.join(crate::control::INSTANCES_FILE)).unwrap_or_default();
    let left: Instances = serde_json::from_slice(&text).unwrap_or_default();
    for process in left.processes.iter().filter(|it| procfs::is_same(it.pid, it.start_time)) {
        if let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) {
            tracing::warn!(name = process.name, pid = process.pid, "killed what an earlier supervisor left");
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Starts every service, those others need first, then the companions.
pub(super) async fn start_all(shared: &Arc<Shared>) -> Result<(), Error> {
    let mut waiting: BTreeSet<&str> = shared.topology.service.keys().map(String::as_str).collect();
    while !waiting.is_empty() {
        let needs_waiting = |name: &str| shared.topology.service.get(name).is_some_and(|it| has_needs_in(it, &waiting));
        let mut next: Vec<&str> = waiting.iter().copied().filter(|name| !needs_waiting(name)).collect();
        if next.is_empty() {
            // A circle of needs: all of it at once.
            next = waiting.iter().copied().collect();
        }
        for name in &next {
            let service = shared.topology.service.get(*name);
            let Some(service) = service.filter(|service| !service.run.is_empty()) else { continue };
            wait_for_needs(shared, service).await;
            for replica in 0..service.replicas.start {
                start_instance(shared, name, replica, 1, START_KEY)?;
            }
        }
        waiting.retain(|name| !next.contains(name));
    }
    start_companions(shared)
}

fn has_needs_in(service: &Service, names: &BTreeSet<&str>) -> bool {
    service.start_needs.iter().any(|need| names.contains(need.as_str()))
}

async fn wait_for_needs(shared: &Arc<Shared>, service: &Service) {
    let ready = |need: &String| {
        let inner = shared.inner();
        let state = inner.services.get(need);
        state.is_some_and(|state| state.instances.is_empty() || state.instances.values().any(|it| it.shown.ready))
    };
    let all_ready = async {
        while !service.start_needs.iter().all(ready) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    if tokio::time::timeout(START_WAIT, all_ready).await.is_err() {
        tracing::warn!(needs = ?service.start_needs, "started without what it needs");
    }
}

fn start_companions(shared: &Arc<Shared>) -> Result<(), Error> {
    for (name, companion) in shared.topology.process.iter().filter(|(_, companion)| !companion.run.is_empty()) {
        let mut values = common_values(shared);
        edge_values(shared, name, &mut values);
        let handle = spawn(shared, name, &filled(name, &companion.run, &values)?, &[])?;
        let mut inner = shared.inner();
        inner.companions.insert(name.clone(), CompanionState { handle });
        shared.register(&inner);
    }
    Ok(())
}

/// Starts a process for this instance; the one it had before has ended.
pub(super) fn start_instance(
    shared: &Arc<Shared>,
    name: &str,
    replica: u32,
    generation: u64,
    key: &str,
) -> Result<(), Error> {
    let Some(service) = shared.topology.service.get(name) else { return Ok(()) };
    let address = address_of(name, service, replica)?;
    let zone = service.zone_of(replica).map(str::to_owned);
    let mut values = common_values(shared);
    edge_values(shared, name, &mut values);
    values.insert("service".into(), name.to_owned());
    values.insert("replica".into(), replica.to_string());
    values.extend(address.as_ref().map(|address| ("listen".to_owned(), address.clone())));
    values.extend(zone.as_ref().map(|zone| ("zone".to_owned(), zone.clone())));
    let argv = filled(name, &service.run, &values)?;
    let environment = [
        ("STANCH_SERVICE", name.to_owned()),
        ("STANCH_REPLICA", replica.to_string()),
        ("STANCH_GENERATION", generation.to_string()),
        ("STANCH_KEY", key.to_owned()),
        ("STANCH_ZONE", zone.clone().unwrap_or_default()),
    ];
    let instance_name = format!("{name}@{replica}");
    let handle = spawn(shared, &instance_name, &argv, &environment)?;
    shared.log("started", &instance_name, json!({"generation": generation, "key": key, "pid": handle.pid}));
    let now_ms = clock::now().0;
    let shown = Instance {
        service: name.to_owned(),
        replica,
        generation,
        key: key.to_owned(),
        pid: handle.pid,
        start_time: handle.start_time,
        started_at_ms: now_ms,
        address,
        zone,
        alive: true,
        memory_kib: None,
        ready: false,
        ready_since_ms: now_ms,
        probed_at_ms: now_ms,
    };
    let instance = InstanceState { shown, handle: handle.clone(), registered: false, failures: 0 };
    let mut inner = shared.inner();
    if let Some(state) = inner.services.get_mut(name) {
        state.instances.insert(replica, instance);
    }
    shared.raise(&mut inner, &call::generation(name, replica));
    shared.register(&inner);
    drop(inner);
    tokio::spawn(probe::watch(Arc::clone(shared), name.to_owned(), replica, handle));
    Ok(())
}

/// Ends a process: asked first, killed after the grace; killed at once when it is stopped and could not hear.
pub(super) async fn end(handle: &Handle, grace: Duration) {
    let mut exited = handle.exited.clone();
    let Some(pid) = i32::try_from(handle.pid).ok().and_then(Pid::from_raw) else { return };
    if handle.is_alive() && procfs::state(handle.pid) != Some('T') && !grace.is_zero() {
        let _ = kill_process(pid, Signal::TERM);
        let _ = tokio::time::timeout(grace, exited.wait_for(|exited| *exited)).await;
    }
    // The number is ours until the process was reaped, and only its waiter reaps it.
    if handle.is_alive() && procfs::is_same(handle.pid, handle.start_time) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    if tokio::time::timeout(KILL_WAIT, exited.wait_for(|exited| *exited)).await.is_err() {
        tracing::error!(pid = handle.pid, "a killed process does not end");
    }
}

/// Ends everything; the proxy last, by the end of the lifeline.
pub(super) async fn end_all(shared: &Arc<Shared>, lifeline_held: std::io::PipeWriter) {
    let handles: Vec<Handle> = {
        let mut inner = shared.inner();
        inner.stopping = true;
        let instances = inner.services.values().flat_map(|service| service.instances.values());
        let companions = inner.companions.values().map(|companion| companion.handle.clone());
        instances.map(|instance| instance.handle.clone()).chain(companions).collect()
    };
    let mut endings = tokio::task::JoinSet::new();
    for handle in handles {
        endings.spawn(async move { end(&handle, END_GRACE).await });
    }
    while endings.join_next().await.is_some() {}
    drop(lifeline_held);
    let proxy = shared.inner().proxy.clone();
    if let Some(handle) = proxy {
        end(&handle, END_GRACE).await;
    }
}

/// Starts a process in a group of its own, with the lifeline as standard input and a log file for the rest.
fn spawn(shared: &Arc<Shared>, name: &str, argv: &[String], variables: &[(&str, String)]) -> Result<Handle, Error> {
    let fail = |source| io(&format!("start {name}"), source);
    let Some((program, arguments)) = argv.split_first() else {
        return Err(fail(std::io::Error::from(std::io::ErrorKind::InvalidInput)));
    };
    if shared.inner().stopping {
        return Err(fail(std::io::Error::from(std::io::ErrorKind::Interrupted)));
    }
    let home = shared.options.topology_file.parent().unwrap_or(Path::new("."));
    let program = if program.contains('/') { home.join(program) } else { program.into() };
    let log = shared.options.dir.join("logs").join(format!("{name}.log"));
    let log = std::fs::File::options().create(true).append(true).open(log).map_err(fail)?;
    let mut command = Command::new(program);
    command.args(arguments).envs(variables.iter().map(|(key, value)| (key, value)));
    command.stdin(Stdio::from(shared.lifeline.try_clone().map_err(fail)?));
    command.stdout(log.try_clone().map_err(fail)?).stderr(log).process_group(0);
    let mut child = command.spawn().map_err(fail)?;
    let pid = child.id().unwrap_or(0);
    let start_time = procfs::start_time(pid).unwrap_or(0);
    let (sender, exited) = watch::channel(false);
    let (shared, name) = (Arc::clone(shared), name.to_owned());
    tokio::spawn(async move {
        end_group(pid).await;
        let outcome = child.wait().await;
        let ended = outcome.map_or_else(|error| error.to_string(), |status| status.to_string());
        sender.send_replace(true);
        shared.log("ended", &name, json!({"pid": pid, "status": ended}));
    });
    Ok(Handle { pid, start_time, exited })
}

/// Waits until a process has ended and kills what is left of its group: what it started may be stopped, or may not
/// care that it is gone. Before it is reaped its number is still its own.
async fn end_group(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let Ok(mut deaths) = signal(SignalKind::child()) else { return };
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    loop {
        match waitid(WaitId::Pid(pid), look) {
            Ok(Some(_)) => break,
            Ok(None) if deaths.recv().await.is_some() => {}
            Ok(None) | Err(_) => return,
        }
    }
    let _ = kill_process_group(pid, Signal::KILL);
}

/// Replica 0 has the declared port, replica n the n-th after it; port 0 is a free one, anew each time.
fn address_of(name: &str, service: &Service, replica: u32) -> Result<Option<String>, Error> {
    let Some(listen) = &service.listen else { return Ok(None) };
    let fail = || Error::Address { service: name.to_owned(), address: listen.clone() };
    let mut address: SocketAddr = listen.parse().map_err(|_| fail())?;
    if address.port() == 0 {
        let free = TcpListener::bind(address).and_then(|socket| socket.local_addr());
        return free.map(|address| Some(address.to_string())).map_err(|source| io("find a free port", source));
    }
    let port = u32::from(address.port()).checked_add(replica).and_then(|port| u16::try_from(port).ok());
    address.set_port(port.ok_or_else(fail)?);
    Ok(Some(address.to_string()))
}

fn common_values(shared: &Shared) -> Values {
    let text = |path: &Path| path.display().to_string();
    Values::from([("self".into(), text(&shared.options.exe)), ("data".into(), text(&shared.options.dir))])
}

fn edge_values(shared: &Shared, caller: &str, values: &mut Values) {
    let edges = shared.edges.get().map(|file| &file.edges);
    for (edge, address) in edges.into_iter().flatten() {
        if let Some((from, callee)) = edge.split_once("->")
            && from == caller
        {
            values.insert(format!("edge:{callee}"), address.clone());
        }
    }
}

fn filled(name: &str, run: &[String], values: &Values) -> Result<Vec<String>, Error> {
    fill(run, values).map_err(|placeholder| Error::Placeholder { name: name.to_owned(), placeholder })
}
