//! Watching one instance: is its process there, is it ready, since when.

use super::shared::{Handle, Shared};
use crate::clock;
use crate::control::http_request;
use recovery::call;
use recovery::topology::{Probe, Service};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

/// Failed probes in a row until a ready instance counts as not ready.
const FAILURES_TO_UNREADY: u32 = 2;

/// Watches one process until it ends.
pub(super) async fn watch(shared: Arc<Shared>, name: String, replica: u32, handle: Handle) {
    let mut exited = handle.exited.clone();
    let probing = async {
        let service = shared.topology.service.get(&name);
        let address = shared.inner().instance(&name, replica).and_then(|instance| instance.shown.address.clone());
        match (service.and_then(probe_of), address) {
            (Some(probe), Some(address)) => probe_on(&shared, &name, replica, &handle, &probe, &address).await,
            _ => {
                note(&shared, &name, replica, &handle, true);
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        _ = exited.wait_for(|exited| *exited) => {}
        () = probing => {}
    }
    note_exit(&shared, &name, replica, &handle);
}

/// A service with an address but no probe is asked for a connection.
fn probe_of(service: &Service) -> Option<Probe> {
    let implied = || Probe { http: None, tcp: true, every: base::Millis(200), timeout: base::Millis(100) };
    service.probe.clone().or_else(|| service.listen.is_some().then(implied))
}

async fn probe_on(shared: &Shared, name: &str, replica: u32, handle: &Handle, probe: &Probe, address: &str) {
    let mut ticks = tokio::time::interval(clock::duration(probe.every).max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let ok = ask(probe, address).await;
        note(shared, name, replica, handle, ok);
        // Before it was ever ready it is asked more often: the end of a restart is worth knowing soon.
        if !ok && shared.inner().instance(name, replica).is_some_and(|instance| !instance.registered) {
            tokio::time::sleep(clock::duration(probe.every) / 10).await;
            ticks.reset_immediately();
        }
    }
}

async fn ask(probe: &Probe, address: &str) -> bool {
    let timeout = clock::duration(probe.timeout);
    match &probe.http {
        Some(path) => {
            let answer = http_request(address, hyper::Method::GET, path, Vec::new(), timeout).await;
            answer.is_ok_and(|(status, _)| (200..300).contains(&status))
        }
        None => tokio::time::timeout(timeout, TcpStream::connect(address)).await.is_ok_and(|stream| stream.is_ok()),
    }
}

/// Remembers one probe; the first success makes the proxy send requests there.
fn note(shared: &Shared, name: &str, replica: u32, handle: &Handle, ok: bool) {
    let now_ms = clock::now().0;
    let mut inner = shared.inner();
    let Some(instance) = inner.instance(name, replica) else { return };
    if instance.handle.pid != handle.pid || !instance.handle.is_alive() {
        return;
    }
    instance.failures = if ok { 0 } else { instance.failures.saturating_add(1) };
    let ready = ok || (instance.shown.ready && instance.failures < FAILURES_TO_UNREADY);
    instance.shown.probed_at_ms = now_ms;
    if ready != instance.shown.ready {
        instance.shown.ready = ready;
        instance.shown.ready_since_ms = now_ms;
    }
    if ready && !instance.registered {
        instance.registered = true;
        shared.targets_changed();
    }
}

/// Remembers the end of a process, once.
pub(super) fn note_exit(shared: &Shared, name: &str, replica: u32, handle: &Handle) {
    let mut inner = shared.inner();
    let own = inner.instance(name, replica).filter(|it| it.handle.pid == handle.pid && it.shown.alive);
    if let Some(instance) = own {
        instance.shown.alive = false;
        if instance.shown.ready {
            instance.shown.ready = false;
            instance.shown.ready_since_ms = clock::now().0;
        }
        shared.raise(&mut inner, &call::generation(name, replica));
    }
    shared.register(&inner);
}
