//! The engine: memory decides, the store remembers.
//!
//! Every change is applied to memory under one mutex and joins the open commit group; one thread makes group after
//! group durable with a full sync and then answers everyone in it. Nothing that is not yet durable is ever shown.
//! The engine decides nothing about promises or plans: `protocol` does, and callers say with guards what must still
//! be true. Read first: [`Engine::submit`], [`Guard`], [`Env`].

mod audit;
mod background;
mod connection;
mod core;
mod counts;
mod debug;
mod delivery;
mod env;
mod evidence;
mod holds;
mod inspect;
mod meters;
mod outbox;
mod places;
mod post;
mod residence;
mod shared;
#[cfg(test)]
pub(crate) mod tests;
mod wire;
mod writer;

pub use audit::QUARANTINED_MAX;
pub use connection::Connection;
pub use counts::Counts;
pub use delivery::{
    ACK_AFTER, CHUNK_BYTES_MAX, CONNECTION_BUFFER_MAX, CONNECTIONS_MAX, DEAD_LETTERS_MAX, DeliveryCounts,
    POLL_ATTEMPTS_MAX, PUSH_ATTEMPTS_MAX, PUSH_IN_FLIGHT_MAX, PUSH_PER_ORIGIN_MAX, TooManyConnections, UNBLOCK_GIVE_UP,
};
pub use env::{Env, Stopped, Stopwatch};
pub(crate) use holds::UNDO_TAG;
pub use holds::{ALL, Hold, hold_id};
pub use inspect::{Inspected, NEAR_MAX};
pub use meters::{KINDS, Meters, STATUSES};
pub use outbox::{LISTED_MAX, Owed, Resend, Stage};
pub use post::{RootsError, roots};
pub use residence::SETTLED_IN_MEMORY_MAX;
pub use shared::{Opener, Readers, Writing};

use crate::engine::core::Core;
use crate::engine::shared::{Life, Shared};
use base::{Digest, Millis};
use governance::record::ENTRY_BYTES_MAX;
use protocol::{Promise, Request, Response, Task};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::{Directory, Sqlite, Store};

/// LIMIT: requests in one submit.
pub const SUBMIT_REQUESTS_MAX: usize = 64;
/// LIMIT: evidence records in one submit.
pub const SUBMIT_ENTRIES_MAX: usize = 256;

/// The embedded engine of one server; cheap to clone. It ends when the last clone is dropped.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    _life: Arc<Life>,
}

/// What the engine is told at the start.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// What the protocol's transitions are told.
    pub protocol: protocol::Config,
    /// How long a worker whose connection dropped may take to come back before its tasks are offered to others.
    pub reconnect_grace: Grace,
    /// Whether outside testers may stop the clockwork, turn it, and empty the store (`debug.*`).
    pub debug: bool,
    /// How many settled promises stay in memory; the others are read from the store when a request names them.
    pub settled_in_memory: Keep,
    /// How long a settled promise is kept that nothing refers to; for ever if absent.
    pub retention: Option<Millis>,
    /// How messages are posted to endpoints.
    pub push: PushConfig,
}

/// How many settled promises stay in memory; [`SETTLED_IN_MEMORY_MAX`] unless told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep(pub usize);

impl Default for Keep {
    fn default() -> Keep {
        Keep(SETTLED_IN_MEMORY_MAX)
    }
}

/// How messages are posted to endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushConfig {
    /// Whether `http://` and `https://` addresses are taken at all.
    pub enabled: bool,
    /// How long connecting may take.
    pub connect_timeout: Millis,
    /// How long a post may take, with its answer.
    pub request_timeout: Millis,
    /// A PEM file of authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// A reconnect grace; two seconds unless the policy says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace(pub Millis);

/// What must still be true for a submit to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// No hold is in force on any of these scopes, nor on everything.
    Hold {
        /// The scopes.
        scopes: Vec<String>,
        /// A compensation is announced: holds that want open steps undone do not stand in its way.
        is_undo: bool,
    },
    /// No hold was placed or lifted since the hold state had this version.
    Holds {
        /// The version.
        version: u64,
    },
    /// The incident holds its scope lease, and it is this one.
    Lease {
        /// The incident.
        incident: String,
        /// The epoch of the lease.
        epoch: u64,
    },
    /// The task is held, at this version, and its lease has not run out.
    Task {
        /// The task.
        id: String,
        /// The version at which it was acquired.
        version: u64,
    },
    /// The next record of the incident is this one.
    Chain {
        /// The incident.
        incident: String,
        /// The place of the next record, from 0.
        seq: u64,
    },
    /// A small fact still has the value with this digest.
    Bound {
        /// The key of the fact.
        key: String,
        /// The digest of its value.
        digest: Digest,
    },
}

/// A record for the evidence log; it gets the next index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The incident it belongs to.
    pub incident: Option<String>,
    /// Its place in the incident, from 0.
    pub seq: Option<u64>,
    /// The record.
    pub bytes: Vec<u8>,
}

/// What a submit did, all of it durable.
#[derive(Clone, Debug)]
pub struct Submitted {
    /// The answer to each request, in order.
    pub responses: Vec<Response>,
    /// The log index of each entry, in order.
    pub indexes: Vec<u64>,
}

/// A submit that wrote nothing, except as said.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SubmitError {
    /// A guard does not hold any more.
    #[error("a guard does not hold any more: {0:?}")]
    Guard(Guard),
    /// The protocol refused one of the requests.
    #[error("request {index} was refused with {}", response.status)]
    Refused {
        /// Which one, from 0.
        index: usize,
        /// The refusal.
        response: Box<Response>,
    },
    /// More than fits into one transaction.
    #[error("too much for one transaction")]
    TooMuch,
    /// A record that no verifier would accept.
    #[error("record {index} is {bytes} bytes long; a record has at most {ENTRY_BYTES_MAX}")]
    RecordTooLong {
        /// Which one, from 0.
        index: usize,
        /// Its length.
        bytes: usize,
    },
    /// The store does not take writes. If the commit itself failed it is unknown whether the change is on disk; the
    /// store is read again before it takes writes again.
    #[error("the store does not take writes")]
    Unavailable,
}

/// A scope that another incident holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is held by {incident}")]
pub struct ScopeConflict {
    /// The scope.
    pub name: String,
    /// Who holds it.
    pub incident: String,
}

/// A scope lease that was not given.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ScopeError {
    /// Another incident stands in the way.
    #[error(transparent)]
    Conflict(#[from] ScopeConflict),
    /// The store does not take writes.
    #[error("the store does not take writes")]
    Unavailable,
}

/// An engine that did not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// What is stored breaks an invariant of the protocol.
    #[error("the store breaks invariants of the protocol: {}", .0.join("; "))]
    Violations(Vec<String>),
    /// The writer's thread could not be started.
    #[error("the writer could not be started")]
    Thread(#[source] std::io::Error),
}

impl OpenError {
    /// Whether another process holds the data directory.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        matches!(self, OpenError::Store(store::Error::Directory(store::DirectoryError::InUse { .. })))
    }
}

impl Default for PushConfig {
    fn default() -> PushConfig {
        let (connect_timeout, request_timeout) = (Millis(10_000), Millis(180_000));
        PushConfig { enabled: true, connect_timeout, request_timeout, ca_file: None }
    }
}

impl Default for Grace {
    fn default() -> Grace {
        Grace(Millis(2_000))
    }
}

impl Engine {
    /// Takes the data directory and starts the engine on it. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// The directory is in use, its database is foreign, newer or damaged, or breaks an invariant.
    pub fn open(dir: &Path, config: Config, env: Env) -> Result<Engine, OpenError> {
        let directory = Directory::take(dir).map_err(store::Error::Directory)?;
        let opener: Opener = Box::new(move || {
            let store = Sqlite::open(&directory)?;
            let readers = Readers::of(&store)?;
            Ok((Box::new(store) as Box<dyn Store>, readers))
        });
        Engine::open_with(opener, Writing::Thread, config, env)
    }

    /// Starts the engine on another store, or with another writer.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_with(mut opener: Opener, writing: Writing, config: Config, env: Env) -> Result<Engine, OpenError> {
        let (mut store, readers) = opener()?;
        let contents = store.load()?;
        if let Some(newest) = contents.newest {
            env.not_before(newest);
        }
        let stored = contents.rows.len();
        let mut core = Core::load(contents, config.protocol.clone(), env.now());
        core.leaving.keep = config.settled_in_memory.0;
        // Two rows of one id would leave a timer that neither calls for.
        let is_distinct = core.memory.len() == stored;
        let violations = if is_distinct { protocol::check_loaded(&core.memory) } else { protocol::check(&core.memory) };
        if !violations.is_empty() {
            return Err(OpenError::Violations(violations.iter().map(ToString::to_string).collect()));
        }
        let shared = Arc::new(Shared::new(core, readers, env, &config));
        let life = Life::start(&shared, store, opener, writing).map_err(OpenError::Thread)?;
        Ok(Engine { shared, _life: Arc::new(life) })
    }

    /// Applies the requests and appends the entries in one transaction, if every guard holds and every request is
    /// answered with success (300 counts); otherwise writes nothing. The only writer of reserved ids.
    ///
    /// # Errors
    /// Says which guard or request stood in the way.
    pub async fn submit(
        &self,
        requests: Vec<Request>,
        entries: Vec<Entry>,
        blobs: Vec<Vec<u8>>,
        guards: Vec<Guard>,
    ) -> Result<Submitted, SubmitError> {
        if requests.len() > SUBMIT_REQUESTS_MAX || entries.len() > SUBMIT_ENTRIES_MAX {
            return Err(SubmitError::TooMuch);
        }
        if let Some((index, long)) = entries.iter().enumerate().find(|(_, entry)| entry.bytes.len() > ENTRY_BYTES_MAX) {
            return Err(SubmitError::RecordTooLong { index, bytes: long.bytes.len() });
        }
        let (submitted, durable) = {
            let mut core = self.shared.lock();
            self.shared.writable(&core)?;
            let now = self.shared.env.now();
            let named: Vec<&str> = requests.iter().flat_map(Request::ids).collect();
            self.shared.warm(&mut core, named.into_iter())?;
            if let Some(guard) = guards.into_iter().find(|guard| !core.holds(guard, now)) {
                return Err(SubmitError::Guard(guard));
            }
            let responses = stage_all(&mut core, &requests, now)?;
            let indexes = entries.into_iter().map(|entry| core.append(entry)).collect();
            blobs.into_iter().for_each(|blob| core.keep_blob(blob));
            // What was only read may still be on its way to the disk, in this group or the one before.
            let durable = core.newest_epoch().map(|epoch| core.wait_for(epoch));
            (Submitted { responses, indexes }, durable)
        };
        self.shared.wake();
        self.shared.durable(durable).await?;
        Ok(submitted)
    }

    /// The durable state of a promise.
    #[must_use]
    pub fn promise(&self, id: &str) -> Option<Arc<Promise>> {
        self.row(id).map(|row| Arc::clone(&row.promise))
    }

    /// The durable state of a task.
    #[must_use]
    pub fn task(&self, id: &str) -> Option<Arc<Task>> {
        self.row(id)?.task.clone()
    }

    /// Everything durable that is kept under an id; `None`, too, if the store cannot be read.
    #[must_use]
    pub fn row(&self, id: &str) -> Option<Arc<protocol::Row>> {
        let mut core = self.shared.lock();
        self.shared.warm(&mut core, std::iter::once(id)).ok()?;
        core.durable_row(id)
    }

    /// Waits until the promise is durably settled, at the latest by its own timeout; `None` if there is none.
    pub async fn wait_settled(&self, id: &str) -> Option<Arc<Promise>> {
        loop {
            let settled = {
                let mut core = self.shared.lock();
                self.shared.warm(&mut core, std::iter::once(id)).ok()?;
                match core.durable_row(id).map(|row| Arc::clone(&row.promise)) {
                    Some(promise) if promise.is_settled() => return Some(promise),
                    _ => core.wait_settled(id)?,
                }
            };
            // Whether it was sent or the sender was dropped with a reload, the state is looked at again.
            let _ = settled.await;
        }
    }

    /// The durable promises whose ids start with `prefix`, in the order of their ids.
    #[must_use]
    pub fn children(&self, prefix: &str) -> Vec<Arc<Promise>> {
        let rows = self.shared.lock().durable_below(prefix);
        rows.iter().map(|row| Arc::clone(&row.promise)).collect()
    }

    /// The holds in force, in the order of their scopes, and the version of the hold state.
    #[must_use]
    pub fn holds(&self) -> (Vec<Hold>, u64) {
        let all = self.children(holds::PREFIX);
        let version = holds::version(all.iter().map(AsRef::as_ref));
        (all.into_iter().filter_map(Hold::of).collect(), version)
    }

    /// Gives an incident the right to act on these scopes; answers the epoch of the lease.
    ///
    /// # Errors
    /// Another incident holds one of them.
    pub async fn take_scope(&self, incident: &str, exclusive: &[String], shared: &[String]) -> Result<u64, ScopeError> {
        let (epoch, durable) = {
            let mut core = self.shared.lock();
            self.shared.writable(&core).map_err(|_| ScopeError::Unavailable)?;
            let lease = core.records.grant(incident, exclusive, shared)?;
            core.take_lease(&lease);
            (lease.epoch, core.wait_open())
        };
        self.shared.wake();
        self.shared.durable(Some(durable)).await.map_err(|_| ScopeError::Unavailable)?;
        Ok(epoch)
    }

    /// Ends the incident's scope lease, if it has one.
    ///
    /// # Errors
    /// The store does not take writes; the lease stays.
    pub async fn release_scope(&self, incident: &str) -> Result<(), SubmitError> {
        let durable = {
            let mut core = self.shared.lock();
            self.shared.writable(&core)?;
            if !core.release_lease(incident) {
                return Ok(());
            }
            core.wait_open()
        };
        self.shared.wake();
        self.shared.durable(Some(durable)).await
    }

    /// The scope lease that the incident holds, as its epoch.
    #[must_use]
    pub fn scope_epoch(&self, incident: &str) -> Option<u64> {
        self.shared.lock().records.lease(incident).map(|lease| lease.epoch)
    }

    /// The services that the incident's scope lease lets it change; none without a lease.
    #[must_use]
    pub fn scope_writes(&self, incident: &str) -> Vec<String> {
        self.shared.lock().records.lease(incident).map_or_else(Vec::new, |lease| lease.exclusive.clone())
    }

    /// The number of durable records in the evidence log.
    #[must_use]
    pub fn log_size(&self) -> u64 {
        self.shared.lock().durable_entries()
    }

    /// The durable records with these indexes.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn entries(&self, range: Range<u64>) -> Result<Vec<Vec<u8>>, store::Error> {
        self.shared.reader().entries(range)
    }

    /// The durable records of an incident with their log indexes.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn incident_entries(&self, incident: &str) -> Result<Vec<(u64, Vec<u8>)>, store::Error> {
        let indexes = {
            let core = self.shared.lock();
            core.records.of_incident(incident, core.durable_entries())
        };
        let reader = self.shared.reader();
        let mut found = Vec::with_capacity(indexes.len());
        for index in indexes {
            found.extend(reader.entries(index..index + 1)?.into_iter().map(|bytes| (index, bytes)));
        }
        Ok(found)
    }

    /// The place of the incident's next record, counting what is not yet durable.
    #[must_use]
    pub fn next_seq(&self, incident: &str) -> u64 {
        self.shared.lock().records.next_seq(incident)
    }

    /// The leaf hashes of all durable records (RFC 6962), in log order.
    #[must_use]
    pub fn leaf_hashes(&self) -> Vec<Digest> {
        let core = self.shared.lock();
        core.records.leaves(core.durable_entries())
    }

    /// The content with this digest.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, store::Error> {
        self.shared.reader().blob(digest)
    }

    /// Remembers a small fact.
    ///
    /// # Errors
    /// The store does not take writes.
    pub async fn put_meta(&self, key: &str, value: Vec<u8>) -> Result<(), SubmitError> {
        let durable = {
            let mut core = self.shared.lock();
            self.shared.writable(&core)?;
            core.put_meta(key, value);
            core.wait_open()
        };
        self.shared.wake();
        self.shared.durable(Some(durable)).await
    }

    /// The durable value of a small fact.
    ///
    /// # Errors
    /// The newest value could not be made durable.
    pub async fn get_meta(&self, key: &str) -> Result<Option<Vec<u8>>, SubmitError> {
        let (value, durable) = {
            let mut core = self.shared.lock();
            let Some((group, value)) = core.records.meta(key).cloned() else { return Ok(None) };
            (value, (group > core.durable()).then(|| core.wait_for(group)))
        };
        self.shared.durable(durable).await?;
        Ok(Some(value))
    }

    /// Connects a worker: it gets the messages for it and for its group, those that wait already first.
    ///
    /// # Errors
    /// Too many workers are connected.
    pub fn subscribe(&self, group: &str, id: &str) -> Result<Connection, TooManyConnections> {
        Connection::open(&self.shared, group, id)
    }

    /// Messages on their way, not yet counted as received.
    #[must_use]
    pub fn outbox_len(&self) -> usize {
        self.shared.lock().delivery.len()
    }

    /// Durable promises and tasks by state; costs the same however many there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.lock().counts()
    }

    /// The rule by which the versions of tasks rise.
    #[must_use]
    pub fn profile(&self) -> protocol::Profile {
        self.shared.lock().profile()
    }

    /// What the engine counts while it works.
    #[must_use]
    pub fn meters(&self) -> &Meters {
        &self.shared.meters
    }

    /// Waits until everything accepted so far is durable.
    ///
    /// # Errors
    /// A commit failed.
    pub async fn flush(&self) -> Result<(), SubmitError> {
        let durable = {
            let mut core = self.shared.lock();
            core.newest_epoch().map(|epoch| core.wait_for(epoch))
        };
        self.shared.wake();
        self.shared.durable(durable).await
    }

    /// Whether the store takes writes.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        let core = self.shared.lock();
        self.shared.writable(&core).is_ok()
    }

    /// Why the store takes no writes, and what to do about it; `None` while it does.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble()
    }

    /// The broken invariants of live state; empty is the only good answer.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        protocol::check(&self.shared.lock().memory).iter().map(ToString::to_string).collect()
    }

    /// What is in quarantine because it violates an invariant, by id, and why: no request and no timer reaches it.
    #[must_use]
    pub fn quarantined(&self) -> Vec<(String, String)> {
        self.shared.lock().quarantined()
    }

    /// The engine's clock and random source.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.shared.env
    }
}

/// Applies the requests one after the other, or none of them.
fn stage_all(core: &mut Core, requests: &[Request], now: base::Timestamp) -> Result<Vec<Response>, SubmitError> {
    let mut staged: Vec<core::Staged> = Vec::with_capacity(requests.len());
    let mut responses = Vec::with_capacity(requests.len());
    for (index, request) in requests.iter().enumerate() {
        let (response, next) = core.stage(request, now);
        staged.push(next);
        if !response.is_success() {
            staged.into_iter().rev().for_each(|one| core.unstage(one));
            return Err(SubmitError::Refused { index, response: Box::new(response) });
        }
        responses.push(response);
    }
    staged.into_iter().for_each(|one| core.record(one, now));
    Ok(responses)
}
