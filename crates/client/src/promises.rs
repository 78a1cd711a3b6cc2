use crate::http::{Error, Events, Exchange, Http};
use crate::pause::longer;
use base::{Millis, Timestamp};
use hyper::Method;
use protocol::wire::{self, Incoming};
use protocol::{Body, Create, Promise, Request, Resolution, Response, Settle, TaskRecord, TaskRef, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The group of the streams that wait for promises.
const AWAIT_GROUP: &str = "await";
/// How often a wait registers again: what a lost message costs at most.
const REGISTER_EVERY: Duration = Duration::from_secs(10);
/// The pause after a failed attempt to wait.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// A client of one server; cheap to clone.
///
/// It asks once, unless [`Client::retrying`] says otherwise. Every failure is an [`Error`], which says with
/// [`Error::may_have_acted`] whether the server may have done what was asked.
#[derive(Clone, Debug)]
pub struct Client {
    http: Http,
    calls: Arc<AtomicU64>,
    retry: Retry,
}

/// How often a request is sent again whose connection failed. No answer of a server is ever a reason to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often at most; 0 is never.
    pub times: u32,
    /// The pause before the first time; it doubles, up to five seconds.
    pub first: Duration,
}

impl Retry {
    /// Every request is sent once.
    pub const NEVER: Retry = Retry { times: 0, first: Duration::ZERO };
}

impl Default for Retry {
    /// Five times in about three seconds: as long as a server takes to restart.
    fn default() -> Retry {
        Retry { times: 5, first: Duration::from_millis(100) }
    }
}

impl Client {
    /// A client of the server at `url`, for example `http://127.0.0.1:8001`. Connects with the first request.
    ///
    /// # Errors
    /// The address is not `http://host:port`.
    pub fn new(url: &str) -> Result<Client, Error> {
        Ok(Client { http: Http::new(url)?, calls: Arc::new(AtomicU64::new(0)), retry: Retry::NEVER })
    }

    /// A client that reaches its server another way than by sockets.
    #[must_use]
    pub fn through(exchange: Arc<dyn Exchange>) -> Client {
        Client { http: Http::through(exchange), calls: Arc::new(AtomicU64::new(0)), retry: Retry::NEVER }
    }

    /// The same client, asking again when a connection fails: always if none was made, and after one that broke off
    /// only what may be asked twice without harm. Acquire, release, fulfill, suspend, continue and the creation of a
    /// task are not among that: a second one would be refused although the first one was done.
    #[must_use]
    pub fn retrying(self, retry: Retry) -> Client {
        Client { retry, ..self }
    }

    /// The server's address.
    #[must_use]
    pub fn url(&self) -> &str {
        self.http.url()
    }

    /// Performs one operation and answers what the server answered, refusals too.
    ///
    /// # Errors
    /// There was no usable answer; whether the operation was performed is then unknown, and repeating it is safe
    /// where the protocol says so.
    pub async fn rpc(&self, request: &Request) -> Result<Response, Error> {
        let mut pause = self.retry.first;
        for _ in 0..self.retry.times {
            match self.ask(request).await {
                Err(error) if error.is_connection() && (!error.may_have_acted() || is_repeatable(request)) => {
                    tokio::time::sleep(pause).await;
                    pause = longer(pause);
                }
                answer => return answer,
            }
        }
        self.ask(request).await
    }

    async fn ask(&self, request: &Request) -> Result<Response, Error> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed).to_string();
        let (status, bytes) = self.http.call(Method::POST, "/", wire::render_request(&call, request)).await?;
        let answer = wire::parse_response(&bytes).map_err(|e| Error::Answer(format!("{e} (HTTP {status})")))?;
        if answer.kind != wire::kind_of(request) || answer.corr_id != call {
            return Err(Error::Answer("it answers another request".to_owned()));
        }
        Ok(answer.response)
    }

    /// Reads a promise; `None` if there is none of this id.
    ///
    /// # Errors
    /// No answer, or a refusal other than 404.
    pub async fn get(&self, id: &str) -> Result<Option<Promise>, Error> {
        let response = self.rpc(&Request::PromiseGet { id: id.to_owned() }).await?;
        if response.status == 404 { Ok(None) } else { promise(response).map(Some) }
    }

    /// Creates a promise, or returns the one of that id.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn create(
        &self,
        id: &str,
        timeout_at: Timestamp,
        param: Value,
        tags: BTreeMap<String, String>,
    ) -> Result<Promise, Error> {
        let create = Create { id: id.to_owned(), timeout_at, param, tags };
        promise(self.rpc(&Request::PromiseCreate(create)).await?)
    }

    /// Settles a promise, or returns it as it settled before: look at its state.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn settle(&self, id: &str, state: Resolution, value: Value) -> Result<Promise, Error> {
        promise(self.rpc(&Request::PromiseSettle(Settle { id: id.to_owned(), state, value })).await?)
    }

    /// Reads a task; `None` if there is none of this id.
    ///
    /// # Errors
    /// No answer, or a refusal other than 404.
    pub async fn task(&self, id: &str) -> Result<Option<TaskRecord>, Error> {
        let response = self.rpc(&Request::TaskGet { id: id.to_owned() }).await?;
        match response.body {
            Body::Task(task) => Ok(Some(task)),
            _ if response.status == 404 => Ok(None),
            _ => Err(refusal(response)),
        }
    }

    /// Takes a pending task under a lease; answers it, its promise, and promises of the same branch. `None` if the
    /// task is not to be had at this version any more.
    ///
    /// # Errors
    /// No answer, or a refusal other than 404 and 409.
    pub async fn acquire(&self, task: &TaskRef, pid: &str, ttl: Millis) -> Result<Option<Acquired>, Error> {
        let TaskRef { id, version } = task.clone();
        let response = self.rpc(&Request::TaskAcquire { id, version, pid: pid.to_owned(), ttl }).await?;
        acquired(response)
    }

    /// Gives a task back; false if it was not held at this version any more.
    ///
    /// # Errors
    /// No answer, or a refusal other than 404 and 409.
    pub async fn release(&self, task: &TaskRef) -> Result<bool, Error> {
        let response = self.rpc(&Request::TaskRelease(task.clone())).await?;
        match response.status {
            200 => Ok(true),
            404 | 409 => Ok(false),
            _ => Err(refusal(response)),
        }
    }

    /// Settles the promise of a held task; `None` if it was not held at this version any more.
    ///
    /// # Errors
    /// No answer, or a refusal other than 404 and 409.
    pub async fn fulfill(&self, task: &TaskRef, state: Resolution, value: Value) -> Result<Option<Promise>, Error> {
        let TaskRef { id, version } = task.clone();
        let action = Settle { id: id.clone(), state, value };
        let response = self.rpc(&Request::TaskFulfill { id, version, action }).await?;
        if matches!(response.status, 404 | 409) { Ok(None) } else { promise(response).map(Some) }
    }

    /// Extends the leases of these tasks. The server does not say which are lost: read the task to know.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn heartbeat(&self, pid: &str, tasks: &[TaskRef]) -> Result<(), Error> {
        let response = self.rpc(&Request::TaskHeartbeat { pid: pid.to_owned(), tasks: tasks.to_vec() }).await?;
        if response.status == 200 { Ok(()) } else { Err(refusal(response)) }
    }

    /// Waits until a promise has settled, through outages of the server. Bound it with a timeout of your own.
    ///
    /// # Errors
    /// The server refuses to let this promise be awaited, for example because it does not exist.
    pub async fn await_promise(&self, id: &str) -> Result<Promise, Error> {
        let place = format!("{:016x}{:016x}", draw(), draw());
        let address = format!("poll://uni@{AWAIT_GROUP}/{place}");
        let mut stream: Option<Events> = None;
        loop {
            if stream.is_none() {
                stream = self.http.events(&format!("/poll/{AWAIT_GROUP}/{place}")).await.ok();
            }
            let listen = Request::RegisterListener { awaited: id.to_owned(), address: address.clone() };
            match self.rpc(&listen).await.and_then(promise) {
                Ok(promise) if promise.is_settled() => return Ok(promise),
                Ok(_) => {}
                Err(Error::Refused { status, message }) if status < 500 => {
                    return Err(Error::Refused { status, message });
                }
                Err(_) => {
                    tokio::time::sleep(RETRY_AFTER).await;
                    continue;
                }
            }
            let heard = match stream.as_mut() {
                Some(events) => tokio::time::timeout(REGISTER_EVERY, heard(events, id)).await,
                None => Ok(None),
            };
            match heard {
                Ok(Some(promise)) => return Ok(promise),
                Err(_elapsed) => {}
                Ok(None) => {
                    stream = None;
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    /// Posts JSON to another route of the server and reads the JSON it answers, whatever the status.
    ///
    /// # Errors
    /// No answer, or one that is not the expected JSON.
    pub async fn post_json<T: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        path: &str,
        body: &T,
    ) -> Result<(u16, R), Error> {
        let (status, bytes) = self.http.call(Method::POST, path, serde_json::to_vec(body)?).await?;
        Ok((status, read(&bytes)?))
    }

    /// Reads JSON from another route of the server, whatever the status.
    ///
    /// # Errors
    /// No answer, or one that is not the expected JSON.
    pub async fn get_json<R: DeserializeOwned>(&self, path: &str) -> Result<(u16, R), Error> {
        let (status, bytes) = self.http.call(Method::GET, path, Vec::new()).await?;
        Ok((status, read(&bytes)?))
    }

    /// Posts bytes to another route of the server and answers the status and the bytes it answers.
    ///
    /// # Errors
    /// No answer.
    pub async fn post_bytes(&self, path: &str, body: Vec<u8>) -> Result<(u16, Vec<u8>), Error> {
        let (status, bytes) = self.http.call(Method::POST, path, body).await?;
        Ok((status, bytes.to_vec()))
    }

    /// Reads bytes from another route of the server, with the status.
    ///
    /// # Errors
    /// No answer.
    pub async fn get_bytes(&self, path: &str) -> Result<(u16, Vec<u8>), Error> {
        let (status, bytes) = self.http.call(Method::GET, path, Vec::new()).await?;
        Ok((status, bytes.to_vec()))
    }

    pub(crate) async fn events(&self, path: &str) -> Result<Events, Error> {
        self.http.events(path).await
    }
}

/// A task, its promise, and promises of the same branch, as many as the server sent.
pub type Acquired = (TaskRecord, Arc<Promise>, Vec<Arc<Promise>>);

/// What was acquired; `None` if it is not to be had.
pub(crate) fn acquired(response: Response) -> Result<Option<Acquired>, Error> {
    match response.body {
        Body::Acquired { task, promise, preload } => Ok(Some((task, promise, preload))),
        _ if matches!(response.status, 404 | 409) => Ok(None),
        _ => Err(refusal(response)),
    }
}

/// Whether a second request of the same kind, after a first one that was done, is answered as the first one was.
fn is_repeatable(request: &Request) -> bool {
    !matches!(
        request,
        Request::TaskCreate { .. }
            | Request::TaskAcquire { .. }
            | Request::TaskRelease(_)
            | Request::TaskFulfill { .. }
            | Request::TaskSuspend { .. }
            | Request::TaskContinue { .. }
            | Request::ScheduleDelete { .. }
            | Request::Debug(_)
    )
}

/// The promise of an answer, or the refusal.
pub(crate) fn promise(response: Response) -> Result<Promise, Error> {
    match response.body {
        Body::Promise(promise) => Ok(Arc::unwrap_or_clone(promise)),
        _ => Err(refusal(response)),
    }
}

pub(crate) fn refusal(response: Response) -> Error {
    match response.body {
        Body::Error(message) => Error::Refused { status: response.status, message },
        _ => Error::Answer("it carries something else than was asked for".to_owned()),
    }
}

/// Reads events until one says that the promise has settled; `None` when the stream ends.
async fn heard(events: &mut Events, id: &str) -> Option<Promise> {
    while let Ok(Some(event)) = events.next().await {
        if let Ok(Incoming::Unblock { promise }) = wire::parse_message(&event)
            && promise.id == id
        {
            return Some(promise);
        }
    }
    None
}

fn read<R: DeserializeOwned>(bytes: &[u8]) -> Result<R, Error> {
    // An empty body reads as null, so that a route without an answer can be called too.
    Ok(serde_json::from_slice(if bytes.is_empty() { b"null" } else { bytes })?)
}

/// Bits that no two waits share; nothing depends on them being secret.
fn draw() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// A server that hangs up after it has read so many requests, and answers what comes then with a 404.
    async fn hanging_up(times: u32) -> (String, tokio::task::JoinHandle<u32>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let read = tokio::spawn(async move {
            let mut read = 0;
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = vec![0; 4_096];
                let length = stream.read(&mut bytes).await.unwrap();
                let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                let body = text.split("\r\n\r\n").nth(1).unwrap().to_owned();
                read += 1;
                if read <= times {
                    continue;
                }
                let asked: serde_json::Value = serde_json::from_str(&body).unwrap();
                let head = serde_json::json!({ "corrId": asked["head"]["corrId"], "status": 404, "version": "" });
                let answer = serde_json::json!({ "kind": asked["kind"], "head": head, "data": "none" }).to_string();
                let head = format!("HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\n\r\n", answer.len());
                stream.write_all(format!("{head}{answer}").as_bytes()).await.unwrap();
                break;
            }
            read
        });
        (url, read)
    }

    #[tokio::test]
    async fn what_may_be_asked_twice_is_asked_again_when_the_connection_fails_and_nothing_else_is() {
        let retry = Retry { times: 3, first: Duration::from_millis(1) };
        let (url, read) = hanging_up(3).await;
        let client = Client::new(&url).unwrap().retrying(retry);
        assert!(client.get("a").await.unwrap().is_none());
        assert_eq!(read.await.unwrap(), 4);

        let (url, read) = hanging_up(1).await;
        let client = Client::new(&url).unwrap().retrying(retry);
        let task = TaskRef { id: "a".to_owned(), version: 1 };
        let broken = client.release(&task).await.unwrap_err();
        assert!(broken.is_connection() && broken.may_have_acted(), "{broken:?}");
        // The next one is the second that the server reads, not the third.
        assert!(!client.release(&task).await.unwrap());
        assert_eq!(read.await.unwrap(), 2);

        let (url, _read) = hanging_up(9).await;
        let once = Client::new(&url).unwrap().get("a").await.unwrap_err();
        assert!(once.is_connection(), "{once:?}");
    }
}
