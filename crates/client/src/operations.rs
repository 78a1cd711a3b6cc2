//! The operations beyond a promise's life: callbacks, listeners, suspension, fences, operators' words, schedules,
//! searches. All of them are methods of [`Client`].

use crate::http::Error;
use crate::promises::{Acquired, Client, acquired, promise, refusal};
use base::Millis;
use protocol::{
    Body, Callback, Create, FenceAction, Promise, PromiseSearch, Request, Response, Schedule, ScheduleCreate,
    ScheduleSearch, TaskRecord, TaskRef, TaskSearch,
};
use std::sync::Arc;

/// What came of a suspension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suspended {
    /// The task is given up until one of the awaited promises settles; then it is offered again.
    Waiting,
    /// One of them has settled: the task is still held, at the same version. Go on with these promises of its branch.
    Ready(Vec<Arc<Promise>>),
    /// The task was not held at this version any more.
    Lost,
}

/// One page of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What was found, in the order of ids. A page may be short, or empty, and still not be the last one.
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last one.
    pub cursor: Option<String>,
}

/// What can be searched for: [`PromiseSearch`], [`TaskSearch`] and [`ScheduleSearch`].
pub trait Search: Clone + Send + Sync {
    /// What is found.
    type Item;
    /// The operation.
    fn request(&self) -> Request;
    /// The same search from a cursor on.
    #[must_use]
    fn from(self, cursor: String) -> Self;
    /// The page that an answer carries, if it is one of these.
    fn page(body: Body) -> Option<Page<Self::Item>>;
}

/// The pages of a search, one after the other.
#[derive(Clone, Debug)]
pub struct Pages<S> {
    client: Client,
    /// The next page; `None` after the last one.
    next: Option<S>,
}

impl<S: Search> Pages<S> {
    /// The next page; `None` after the last one. What is created meanwhile is found only behind the cursor.
    ///
    /// # Errors
    /// No answer, or a refusal; the same page is asked for again by the next call.
    pub async fn next(&mut self) -> Result<Option<Vec<S::Item>>, Error> {
        let Some(search) = self.next.clone() else { return Ok(None) };
        let page = self.client.search(&search).await?;
        self.next = page.cursor.map(|cursor| search.from(cursor));
        Ok(Some(page.items))
    }

    /// All that is left, but not more than `most`; answers too whether that is all.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn up_to(mut self, most: usize) -> Result<(Vec<S::Item>, bool), Error> {
        let mut items = Vec::new();
        while let Some(page) = self.next().await? {
            items.extend(page);
            if items.len() > most {
                items.truncate(most);
                return Ok((items, false));
            }
        }
        Ok((items, true))
    }
}

/// Promises.
impl Client {
    /// One page of a search.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn search<S: Search>(&self, search: &S) -> Result<Page<S::Item>, Error> {
        let response = self.rpc(&search.request()).await?;
        if response.status != 200 {
            return Err(refusal(response));
        }
        S::page(response.body).ok_or_else(|| Error::Answer("it carries no page of what was searched".to_owned()))
    }

    /// All pages of a search.
    #[must_use]
    pub fn pages<S: Search>(&self, search: S) -> Pages<S> {
        Pages { client: self.clone(), next: Some(search) }
    }

    /// Resumes the task `awaiter` when the promise `awaited` settles; answers the awaited promise. A worker that holds
    /// the task suspends it instead, with [`Client::suspend`].
    ///
    /// # Errors
    /// No answer, or a refusal: 404 without the awaited, 422 if the awaiter is no task or the awaited is internal.
    pub async fn register_callback(&self, awaited: &str, awaiter: &str) -> Result<Promise, Error> {
        let callback = Callback { awaited: awaited.to_owned(), awaiter: awaiter.to_owned() };
        promise(self.rpc(&Request::RegisterCallback(callback)).await?)
    }

    /// Sends a message to `address` when the promise settles; answers the promise. If it has settled, no message is
    /// sent: look at its state.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn register_listener(&self, awaited: &str, address: &str) -> Result<Promise, Error> {
        let listen = Request::RegisterListener { awaited: awaited.to_owned(), address: address.to_owned() };
        promise(self.rpc(&listen).await?)
    }
}

/// Tasks.
impl Client {
    /// Creates a promise with a target and takes its task at once. `None` if there is a promise of this id whose task
    /// is held, suspended or halted. The task is fulfilled if the promise had settled already.
    ///
    /// # Errors
    /// No answer, or a refusal other than 409; 422 if there is a promise of this id without a target.
    pub async fn create_task(&self, pid: &str, ttl: Millis, create: Create) -> Result<Option<Acquired>, Error> {
        acquired(self.rpc(&Request::TaskCreate { pid: pid.to_owned(), ttl, action: create }).await?)
    }

    /// Gives a held task up until one of these promises settles.
    ///
    /// # Errors
    /// No answer, or a refusal other than 404 and 409: 422 if one of them does not exist or is internal.
    pub async fn suspend(&self, task: &TaskRef, awaited: &[String]) -> Result<Suspended, Error> {
        let TaskRef { id, version } = task.clone();
        let actions =
            awaited.iter().map(|awaited| Callback { awaited: awaited.clone(), awaiter: id.clone() }).collect();
        let response = self.rpc(&Request::TaskSuspend { id, version, actions }).await?;
        match response {
            Response { status: 200, .. } => Ok(Suspended::Waiting),
            Response { status: 300, body: Body::Preload(preload) } => Ok(Suspended::Ready(preload)),
            Response { status: 404 | 409, .. } => Ok(Suspended::Lost),
            other => Err(refusal(other)),
        }
    }

    /// Creates or settles another promise, if the task is still held: both or neither, in one transaction. `None` if
    /// the task was not held at this version any more.
    ///
    /// # Errors
    /// No answer, or a refusal of the task's or of the other promise's.
    pub async fn fence(&self, task: &TaskRef, action: FenceAction) -> Result<Option<Promise>, Error> {
        let TaskRef { id, version } = task.clone();
        let response = self.rpc(&Request::TaskFence { id, version, action }).await?;
        match response.body {
            Body::Fenced { response, .. } => promise(*response).map(Some),
            _ if matches!(response.status, 404 | 409) => Ok(None),
            _ => Err(refusal(response)),
        }
    }

    /// Stops a task until it is continued: whoever holds it loses it, and it is offered to nobody.
    ///
    /// # Errors
    /// No answer, or a refusal: 404 without such a task, 409 if it is over.
    pub async fn halt(&self, id: &str) -> Result<(), Error> {
        done(self.rpc(&Request::TaskHalt { id: id.to_owned() }).await?)
    }

    /// Offers a halted task again.
    ///
    /// # Errors
    /// No answer, or a refusal: 404 without such a task, 409 if it is not halted.
    pub async fn continue_task(&self, id: &str) -> Result<(), Error> {
        done(self.rpc(&Request::TaskContinue { id: id.to_owned() }).await?)
    }
}

/// Schedules.
impl Client {
    /// Reads a schedule; `None` if there is none of this id.
    ///
    /// # Errors
    /// No answer, or a refusal other than 404.
    pub async fn schedule(&self, id: &str) -> Result<Option<Arc<Schedule>>, Error> {
        let response = self.rpc(&Request::ScheduleGet { id: id.to_owned() }).await?;
        if response.status == 404 { Ok(None) } else { schedule(response).map(Some) }
    }

    /// Creates a schedule, or returns the one of that id: look at what it says.
    ///
    /// # Errors
    /// No answer, or a refusal, for example of the cron expression.
    pub async fn create_schedule(&self, create: ScheduleCreate) -> Result<Arc<Schedule>, Error> {
        schedule(self.rpc(&Request::ScheduleCreate(create)).await?)
    }

    /// Ends a schedule; the promises it created stay. False if there was none of this id.
    ///
    /// # Errors
    /// No answer, or a refusal other than 404.
    pub async fn delete_schedule(&self, id: &str) -> Result<bool, Error> {
        let response = self.rpc(&Request::ScheduleDelete { id: id.to_owned() }).await?;
        if response.status == 404 { Ok(false) } else { done(response).map(|()| true) }
    }
}

impl Search for PromiseSearch {
    type Item = Arc<Promise>;

    fn request(&self) -> Request {
        Request::PromiseSearch(self.clone())
    }

    fn from(self, cursor: String) -> Self {
        PromiseSearch { cursor: Some(cursor), ..self }
    }

    fn page(body: Body) -> Option<Page<Self::Item>> {
        let Body::Promises { promises, cursor } = body else { return None };
        Some(Page { items: promises, cursor })
    }
}

impl Search for TaskSearch {
    type Item = TaskRecord;

    fn request(&self) -> Request {
        Request::TaskSearch(self.clone())
    }

    fn from(self, cursor: String) -> Self {
        TaskSearch { cursor: Some(cursor), ..self }
    }

    fn page(body: Body) -> Option<Page<Self::Item>> {
        let Body::Tasks { tasks, cursor } = body else { return None };
        Some(Page { items: tasks, cursor })
    }
}

impl Search for ScheduleSearch {
    type Item = Arc<Schedule>;

    fn request(&self) -> Request {
        Request::ScheduleSearch(self.clone())
    }

    fn from(self, cursor: String) -> Self {
        ScheduleSearch { cursor: Some(cursor), ..self }
    }

    fn page(body: Body) -> Option<Page<Self::Item>> {
        let Body::Schedules { schedules, cursor } = body else { return None };
        Some(Page { items: schedules, cursor })
    }
}

/// The schedule of an answer, or the refusal.
fn schedule(response: Response) -> Result<Arc<Schedule>, Error> {
    match response.body {
        Body::Schedule(schedule) => Ok(schedule),
        _ => Err(refusal(response)),
    }
}

/// Nothing, or the refusal.
fn done(response: Response) -> Result<(), Error> {
    if response.status == 200 { Ok(()) } else { Err(refusal(response)) }
}
