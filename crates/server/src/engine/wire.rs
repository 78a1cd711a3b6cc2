//! One request from the wire: parsed, refused where clients may not write, applied, answered once durable.

use crate::engine::residence::is_search;
use crate::engine::{Engine, SubmitError};
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
        let refused = protocol::reserved_refusal(&parsed.request).or_else(|| unroutable_refusal(&parsed.request));
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
        let (response, durable) = {
            let mut core = self.shared.lock();
            let now = at.unwrap_or_else(|| self.shared.env.now());
            self.shared.warm(&mut core, request.ids().into_iter())?;
            let (response, staged) = core.stage(request, now);
            if staged.is_empty() {
                core.unstage(staged);
                let needed = if carries_others(&response) {
                    core.newest_epoch()
                } else {
                    core.epoch_of(request.ids().into_iter())
                };
                (response, needed.map(|epoch| core.wait_for(epoch)))
            } else if let Err(refused) = self.shared.writable(&core) {
                core.unstage(staged);
                return Err(refused);
            } else {
                core.record(staged, now);
                (response, Some(core.wait_open()))
            }
        };
        self.shared.wake();
        self.shared.durable(durable).await?;
        Ok(response)
    }

    fn unavailable(&self, refused: &SubmitError) -> Response {
        Response::refuse(503, self.trouble().unwrap_or_else(|| format!("{refused}; ask again later")))
    }
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

/// The 400 for an address that is well formed and that this server does not deliver to: only polling is supported.
fn unroutable_refusal(request: &Request) -> Option<Response> {
    let create = |create: &Create| create.tags.get(TARGET).cloned();
    let address = match request {
        Request::PromiseCreate(action)
        | Request::TaskCreate { action, .. }
        | Request::TaskFence { action: FenceAction::Create(action), .. } => create(action),
        Request::RegisterListener { address, .. } => Some(address.clone()),
        Request::ScheduleCreate(create) => create.promise_tags.get(TARGET).cloned(),
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
    }?;
    match Address::parse(&address)? {
        Address::Poll { .. } => None,
        Address::Http(_) | Address::Topic { .. } | Address::Command(_) => {
            Some(Response::refuse(400, format!("delivery to `{address}` is not supported; use a poll:// address")))
        }
    }
}
