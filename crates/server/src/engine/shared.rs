//! What the engine's threads and tasks share, and what ends them.

use crate::engine::core::{Core, Finished, Health};
use crate::engine::debug::Switch;
use crate::engine::env::Env;
use crate::engine::meters::Meters;
use crate::engine::post::Post;
use crate::engine::writer::Writer;
use crate::engine::{Config, SubmitError, background};
use base::Millis;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use store::{Batch, Sqlite, SqliteReader, Store};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Opens the store: at the start, and again after a commit failed.
pub type Opener = Box<dyn FnMut() -> Result<(Box<dyn Store>, Readers), store::Error> + Send>;

/// Connections beside the writer's.
#[derive(Debug)]
pub struct Readers {
    single: SqliteReader,
    whole: SqliteReader,
}

impl Readers {
    /// The readers of a store.
    ///
    /// # Errors
    /// The file cannot be opened again.
    pub fn of(store: &Sqlite) -> Result<Readers, store::Error> {
        Ok(Readers { single: store.reader()?, whole: store.reader()? })
    }
}

pub(super) struct Shared {
    core: Mutex<Core>,
    /// Whether the writer waits for a group. Set under the lock; whoever clears it wakes the writer.
    idle: AtomicBool,
    /// Wakes the writer: there is a group, or the engine ends.
    group: Condvar,
    /// The same for a writer that is a task.
    grouped: Notify,
    /// Wakes the background task: something may be due or deliverable.
    pub(super) stir: Notify,
    pub(super) stopped: CancellationToken,
    pub(super) env: Env,
    pub(super) reconnect_grace: Millis,
    pub(super) meters: Meters,
    pub(super) debug: Switch,
    pub(super) post: Post,
    /// The server's own address, told to workers; nothing is posted before it is known.
    pub(super) url: OnceLock<String>,
    /// Reads single promises while the core is locked; never held for long.
    reader: Mutex<SqliteReader>,
    /// Reads whole tables beside it.
    searcher: Mutex<SqliteReader>,
    pub(super) retention: Option<Millis>,
}

/// Who writes groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writing {
    /// A thread of its own: a sync never holds up the runtime.
    #[default]
    Thread,
    /// A task of the runtime: a simulator's, in which one thing happens at a time.
    Task,
}

/// Ends the writer and the tasks when the last engine is dropped.
pub(super) struct Life {
    shared: Arc<Shared>,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl Shared {
    pub(super) fn new(core: Core, readers: Readers, env: Env, config: &Config) -> Shared {
        let meters = core.meters.clone();
        Shared {
            core: Mutex::new(core),
            idle: AtomicBool::new(false),
            group: Condvar::new(),
            grouped: Notify::new(),
            stir: Notify::new(),
            stopped: CancellationToken::new(),
            env,
            reconnect_grace: config.reconnect_grace.0,
            meters,
            debug: Switch::new(config.debug),
            reader: Mutex::new(readers.single),
            searcher: Mutex::new(readers.whole),
            retention: config.retention,
            post: Post::new(config.push.clone()),
            url: OnceLock::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        // After a panic inside a transition memory may be half-changed: reads go on, `writable` refuses the rest.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reader(&self) -> MutexGuard<'_, SqliteReader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn searcher(&self) -> MutexGuard<'_, SqliteReader> {
        self.searcher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_readers(&self, readers: Readers) {
        *self.reader() = readers.single;
        *self.searcher() = readers.whole;
    }

    /// Refuses while the store does not take writes, for good after a panic inside a transition.
    pub(super) fn writable(&self, core: &Core) -> Result<(), SubmitError> {
        let fit = core.health == Health::Writable
            && !core.audit.is_overwhelmed()
            && !self.core.is_poisoned()
            && !self.stopped.is_cancelled();
        if fit { Ok(()) } else { Err(SubmitError::Unavailable) }
    }

    /// Why writes are refused, and what to do about it; `None` while they are taken.
    pub(super) fn trouble(&self) -> Option<String> {
        let core = self.lock();
        if self.core.is_poisoned() {
            let told =
                "the server met a fault of its own and writes nothing more; restart it, and keep its log for a report";
            return Some(told.to_owned());
        }
        self.writable(&core).err().map(|refused| core.trouble.clone().unwrap_or_else(|| refused.to_string()))
    }

    /// Tells the writer that there may be a group to commit. While it commits one it looks by itself afterwards, so
    /// that only the first request of a group pays for waking it.
    pub(super) fn wake(&self) {
        if !self.idle.swap(false, Ordering::AcqRel) {
            return;
        }
        self.group.notify_one();
        self.grouped.notify_one();
    }

    /// Waits until a group has ended, if one is named.
    pub(super) async fn durable(&self, group: Option<oneshot::Receiver<bool>>) -> Result<(), SubmitError> {
        let Some(group) = group else { return Ok(()) };
        match group.await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(SubmitError::Unavailable),
        }
    }

    /// The next group to commit; blocks until there is one. `None` once the engine has ended.
    pub(super) fn next_group(&self) -> Option<Batch> {
        let mut core = self.lock();
        loop {
            // A quarantined engine commits nothing more: what memory holds may be half a change.
            if self.stopped.is_cancelled() || self.core.is_poisoned() {
                return None;
            }
            if let Some(batch) = core.close_group() {
                return Some(batch);
            }
            self.idle.store(true, Ordering::Release);
            core = self.group.wait(core).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// As [`Shared::next_group`], for a writer that is a task.
    pub(super) async fn await_group(&self) -> Option<Batch> {
        loop {
            {
                let mut core = self.lock();
                if self.stopped.is_cancelled() || self.core.is_poisoned() {
                    return None;
                }
                if let Some(batch) = core.close_group() {
                    return Some(batch);
                }
                self.idle.store(true, Ordering::Release);
            }
            tokio::select! {
                biased;
                () = self.stopped.cancelled() => return None,
                () = self.grouped.notified() => {}
            }
        }
    }

    /// Waits for `time`; false if the engine ended meanwhile.
    pub(super) fn wait_unless_stopped(&self, time: Duration) -> bool {
        let core = self.lock();
        let going = |_: &mut Core| !self.stopped.is_cancelled();
        let waited = self.group.wait_timeout_while(core, time, going);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        !self.stopped.is_cancelled()
    }
}

impl Life {
    pub(super) fn start(
        shared: &Arc<Shared>,
        store: Box<dyn Store>,
        open: Opener,
        writing: Writing,
    ) -> Result<Life, std::io::Error> {
        let (finished, ended) = mpsc::unbounded_channel::<Finished>();
        let writer = Writer { shared: Arc::clone(shared), store: Some(store), open, finished };
        let writer = match writing {
            Writing::Thread => Some(std::thread::Builder::new().name("writer".to_owned()).spawn(move || writer.run())?),
            Writing::Task => {
                shared.env.spawn(writer.attend());
                None
            }
        };
        shared.env.spawn(background::answer(Arc::clone(shared), ended));
        shared.env.spawn(background::run(Arc::clone(shared)));
        shared.env.spawn(background::forget(Arc::clone(shared)));
        shared.env.spawn(background::sample(Arc::clone(shared)));
        Ok(Life { shared: Arc::clone(shared), writer })
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        {
            // Under the lock, so that the writer cannot miss it between looking and waiting.
            let _core = self.shared.lock();
            self.shared.stopped.cancel();
        }
        self.shared.group.notify_all();
        if let Some(writer) = self.writer.take() {
            // At most one commit long; afterwards the data directory is free.
            let _ = writer.join();
        }
    }
}
