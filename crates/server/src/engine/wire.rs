//! One request from the wire: parsed, refused where clients may not write, applied, answered once durable.

use crate::engine::core::Core;
use crate::engine::residence::is_search;
use crate::engine::{Engine, SubmitError, delivery};
use base::Timestamp;
use protocol::wire::{self, Parsed};
use protocol::{Address, Body, Create, FenceAction, Request, Response, TARGET};

impl Engine {
    /// Answers one request of the wire protocol: the HTTP status and the body.
    pub async fn wire(&self, body: &[u8]) -> (u16, Vec<u8>) {
        let (meters, began) = (&self.shared.meters, self.shared.env.stopwatch());
        let parsed = match wire::parse_request(body) {
            Ok(parsed) => parsed,
            Err(bad) => {
                meters.answered(&bad.kind, 400, began);
                return (400, wire::render_bad_request(&bad));
            }
        };
        let refused = protocol::reserved_refusal(&parsed.request).or_else(|| self.unroutable(&parsed.request));
        let response = match refused {
            Some(refusal) => refusal,
            None => self.answer(&parsed).await.unwrap_or_else(|refused| self.unavailable(&refused)),
        };
        meters.answered(&parsed.kind, response.status, began);
        (response.status, wire::render_response(&parsed, &response))
    }

    async fn answer(&self, parsed: &Parsed) -> Result<Response, SubmitError> {
        match &parsed.request {
            Request::Debug(debug) if self.shared.debug.is_on => self.debug(*debug).await,
            request if is_search(request) && self.lacks() => self.search(request).await,
            request => self.perform(request, parsed.debug_time.filter(|_| self.shared.debug.is_on)).await,
        }
    }

    /// Applies one request and answers once everything the answer rests on is durable.
    ///
    /// # Errors
    /// The store does not take writes and the request would have changed something, or the commit failed.
    async fn perform(&self, request: &Request, at: Option<Timestamp>) -> Result<Response, SubmitError> {
        let (response, durable, is_recorded) = {
            let mut core = self.shared.lock();
            let now = at.unwrap_or_else(|| self.shared.env.now());
            self.shared.warm(&mut core, request.ids().into_iter())?;
            let (response, staged) = core.stage(request, now);
            let changes = !staged.is_empty();
            if changes && let Err(refused) = self.shared.writable(&core) {
                core.unstage(staged);
                return Err(refused);
            }
            if changes && !is_kept_in_memory(request) {
                core.record(staged, now);
                (response, Some(core.wait_open()), true)
            } else {
                Core::keep(staged);
                let needed = if carries_others(&response) {
                    core.newest_epoch()
                } else {
                    core.epoch_of(request.ids().into_iter())
                };
                (response, needed.map(|epoch| core.wait_for(epoch)), false)
            }
        };
        if is_recorded {
            self.shared.wake();
        }
        self.shared.durable(durable).await?;
        Ok(response)
    }

    /// The 400 for an address that is well formed and that this server does not deliver to.
    fn unroutable(&self, request: &Request) -> Option<Response> {
        let address = address(request)?;
        let refuse =
            |why: &str| Some(Response::refuse(400, format!("delivery to `{address}` is not supported; {why}")));
        match Address::parse(address)? {
            Address::Poll { .. } => None,
            Address::Http(_) if !self.shared.post.is_enabled() => {
                refuse("this server posts to nobody (push.enabled is false); use a poll:// address")
            }
            Address::Http(url) if delivery::origin(&url).is_none() => refuse("it is not a URL"),
            Address::Http(_) => None,
            Address::Topic { .. } | Address::Command(_) => refuse("use a poll://, http:// or https:// address"),
        }
    }

    fn unavailable(&self, refused: &SubmitError) -> Response {
        Response::refuse(503, self.trouble().unwrap_or_else(|| format!("{refused}; ask again later")))
    }
}

/// Whether what the request changes is not stored: a heartbeat only ever extends leases, and a restart gives every
/// acquired task its full lease again.
fn is_kept_in_memory(request: &Request) -> bool {
    matches!(request, Request::TaskHeartbeat { .. })
}

/// Whether an answer shows rows that the request does not name.
fn carries_others(response: &Response) -> bool {
    match &response.body {
        Body::Acquired { preload, .. } | Body::Preload(preload) | Body::Fenced { preload, .. } => !preload.is_empty(),
        // Schedules have no group of their own to wait for.
        Body::Promises { .. } | Body::Tasks { .. } | Body::Schedule(_) | Body::Schedules { .. } | Body::Snapshot(_) => {
            true
        }
        Body::Empty | Body::Promise(_) | Body::Task(_) | Body::Swept | Body::Error(_) => false,
    }
}

/// The address that a request names, if it names one.
fn address(request: &Request) -> Option<&str> {
    fn target(create: &Create) -> Option<&str> {
        create.tags.get(TARGET).map(String::as_str)
    }
    match request {
        Request::PromiseCreate(action)
        | Request::TaskCreate { action, .. }
        | Request::TaskFence { action: FenceAction::Create(action), .. } => target(action),
        Request::RegisterListener { address, .. } => Some(address),
        Request::ScheduleCreate(create) => create.promise_tags.get(TARGET).map(String::as_str),
        Request::PromiseGet { .. }
        | Request::PromiseSettle(_)
        | Request::RegisterCallback(_)
        | Request::TaskGet { .. }
        | Request::TaskAcquire { .. }
        | Request::TaskRelease(_)
        | Request::TaskFulfill { .. }
        | Request::TaskSuspend { .. }
        | Request::TaskFence { action: FenceAction::Settle(_), .. }
        | Request::TaskHeartbeat { .. }
        | Request::TaskHalt { .. }
        | Request::TaskContinue { .. }
        | Request::PromiseSearch(_)
        | Request::TaskSearch(_)
        | Request::ScheduleGet { .. }
        | Request::ScheduleDelete { .. }
        | Request::ScheduleSearch(_)
        | Request::Debug(_) => None,
    }
}
