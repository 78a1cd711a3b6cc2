//! What the supervisor does to services when asked.

use super::shared::{Handle, Shared};
use super::{children, probe};
use crate::clock;
use crate::control::{Answer, Request, SeenFence, SeenVersions};
use base::Timestamp;
use recovery::call::{self, Fence, Versions};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

pub(super) async fn operate(shared: Arc<Shared>, request: Request) -> Answer {
    match request {
        Request::Begin { service, fence } => begin(&shared, &service, fence).await,
        Request::Replace { service, replica, generation, key, grace_ms, expect, ticket } => {
            let one = Replacement { service, replica, generation, key, grace: Duration::from_millis(grace_ms), expect };
            replace(&shared, one, ticket).await
        }
        Request::Scale { service, to, key, expires_at_ms, grace_ms, expect, ticket } => {
            let grace = Duration::from_millis(grace_ms);
            let scaling = Scaling { service, to, key, expires_at: expires_at_ms.map(Timestamp), grace, expect };
            scale(&shared, scaling, ticket).await
        }
        Request::Status | Request::Shutdown => Answer::Refused("not an operation".into()),
    }
}

struct Replacement {
    service: String,
    replica: u32,
    generation: u64,
    key: String,
    grace: Duration,
    expect: Option<u64>,
}

struct Scaling {
    service: String,
    to: u32,
    key: String,
    expires_at: Option<Timestamp>,
    grace: Duration,
    expect: Option<u64>,
}

async fn begin(shared: &Shared, service: &str, fence: Fence) -> Answer {
    let Some(_turn) = shared.turn(service).await else { return unknown(service) };
    let mut inner = shared.inner();
    let Some(state) = inner.services.get_mut(service) else { return unknown(service) };
    if fence < state.fence {
        return Answer::Fenced(SeenFence { seen: state.fence });
    }
    state.fence = fence;
    state.ticket += 1;
    Answer::Ticket(state.ticket)
}

async fn replace(shared: &Arc<Shared>, one: Replacement, ticket: u64) -> Answer {
    let Some(_turn) = shared.turn(&one.service).await else { return unknown(&one.service) };
    let old = {
        let mut inner = shared.inner();
        if let Some(refusal) = refusal(&inner, &one.service, ticket) {
            return refusal;
        }
        let version = inner.generation_version(&one.service, one.replica);
        if one.expect.is_some_and(|expected| expected != version) {
            return drifted(&call::generation(&one.service, one.replica), version);
        }
        let Some(instance) = inner.instance(&one.service, one.replica) else {
            return unknown(&format!("{}@{}", one.service, one.replica));
        };
        instance.registered = false;
        instance.handle.clone()
    };
    // The proxy stops sending requests there before the process is ended.
    shared.publish().await;
    children::end(&old, one.grace).await;
    probe::note_exit(shared, &one.service, one.replica, &old);
    match children::start_instance(shared, &one.service, one.replica, one.generation, &one.key) {
        Ok(()) => Answer::Done,
        Err(error) => Answer::Failed(base::causes(&error)),
    }
}

async fn scale(shared: &Arc<Shared>, scaling: Scaling, ticket: u64) -> Answer {
    let Some(_turn) = shared.turn(&scaling.service).await else { return unknown(&scaling.service) };
    let field = call::replicas(&scaling.service);
    let (before, lasting, epoch) = {
        let mut inner = shared.inner();
        if let Some(refusal) = refusal(&inner, &scaling.service, ticket) {
            return refusal;
        }
        let version = inner.versions.get(&field).copied().unwrap_or(0);
        if scaling.expect.is_some_and(|expected| expected != version) {
            return drifted(&field, version);
        }
        let bounds = shared.topology.service.get(&scaling.service).map(|service| service.replicas);
        if bounds.is_none_or(|bounds| scaling.to < bounds.min || scaling.to > bounds.max) {
            return Answer::Refused(format!("{} replicas are out of bounds", scaling.to));
        }
        let Some(state) = inner.services.get_mut(&scaling.service) else { return unknown(&scaling.service) };
        let before = std::mem::replace(&mut state.desired, scaling.to);
        state.scales += 1;
        state.scaled_by.clone_from(&scaling.key);
        let epoch = state.scales;
        // What a temporary count replaces is temporary itself: behind both stands the same lasting one.
        let lasting = state.lasting.take().unwrap_or(before);
        state.lasting = scaling.expires_at.map(|_| lasting);
        if before != scaling.to {
            shared.raise(&mut inner, &field);
        }
        (before, lasting, epoch)
    };
    shared.log("scaled", &scaling.service, json!({"from": before, "to": scaling.to, "key": scaling.key}));
    if let Some(at) = scaling.expires_at {
        tokio::spawn(expire(Arc::clone(shared), scaling.service.clone(), at, lasting, epoch));
    }
    fit(shared, &scaling.service, &scaling.key, scaling.grace).await
}

/// The dead-man rule: returns to the lasting count, unless a later Scale has set another.
async fn expire(shared: Arc<Shared>, service: String, at: Timestamp, lasting: u32, epoch: u64) {
    tokio::time::sleep(clock::until(at)).await;
    let Some(_turn) = shared.turn(&service).await else { return };
    {
        let mut inner = shared.inner();
        let current = inner.services.get(&service).map(|state| state.scales);
        if current != Some(epoch) || inner.stopping {
            return;
        }
        shared.raise(&mut inner, &call::replicas(&service));
        let Some(state) = inner.services.get_mut(&service) else { return };
        state.desired = lasting;
        state.lasting = None;
        state.scales += 1;
        state.ticket += 1;
    }
    shared.log("expired", &service, json!({"replicas": lasting}));
    let answer = fit(&shared, &service, "expired", Duration::from_secs(1)).await;
    if answer != Answer::Done {
        tracing::warn!(service, ?answer, "an expired replica count could not be restored in full");
    }
}

/// Starts what is missing and ends what is too much. The caller has the turn.
async fn fit(shared: &Arc<Shared>, service: &str, key: &str, grace: Duration) -> Answer {
    let surplus = surplus(shared, service);
    if !surplus.is_empty() {
        shared.publish().await;
    }
    let mut endings = tokio::task::JoinSet::new();
    for handle in surplus {
        endings.spawn(async move { children::end(&handle, grace).await });
    }
    while endings.join_next().await.is_some() {}
    for (replica, generation) in missing(shared, service) {
        if let Err(error) = children::start_instance(shared, service, replica, generation, key) {
            return Answer::Failed(base::causes(&error));
        }
    }
    Answer::Done
}

/// Takes what is beyond the desired count out of the books.
fn surplus(shared: &Shared, service: &str) -> Vec<Handle> {
    let mut inner = shared.inner();
    let mut handles = Vec::new();
    let mut gone = Vec::new();
    if let Some(state) = inner.services.get_mut(service) {
        for (replica, instance) in state.instances.split_off(&state.desired) {
            state.past_generations.insert(replica, instance.shown.generation);
            handles.push(instance.handle);
            gone.push(replica);
        }
    }
    for replica in gone {
        shared.raise(&mut inner, &call::generation(service, replica));
    }
    handles
}

fn missing(shared: &Shared, service: &str) -> Vec<(u32, u64)> {
    let inner = shared.inner();
    let Some(state) = inner.services.get(service) else { return Vec::new() };
    let absent = (0..state.desired).filter(|replica| !state.instances.contains_key(replica));
    absent.map(|replica| (replica, state.past_generations.get(&replica).copied().unwrap_or(0) + 1)).collect()
}

fn refusal(inner: &super::shared::Inner, service: &str, ticket: u64) -> Option<Answer> {
    if inner.stopping {
        return Some(Answer::Refused("the supervisor is ending".into()));
    }
    let state = inner.services.get(service)?;
    (state.ticket != ticket).then_some(Answer::Superseded)
}

fn drifted(field: &str, version: u64) -> Answer {
    Answer::Drifted(SeenVersions { versions: Versions::from([(field.to_owned(), version)]) })
}

fn unknown(name: &str) -> Answer {
    Answer::Refused(format!("no `{name}` here"))
}
