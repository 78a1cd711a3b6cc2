//! The thread that makes groups durable, one full sync each, and what happens when it cannot.

use crate::engine::core::Finished;
use crate::engine::{Opener, Shared};
use std::sync::Arc;
use std::time::Duration;
use store::{Batch, Error, Store};
use tokio::sync::mpsc::UnboundedSender;

/// How long the writer waits between two attempts to open a failed store anew.
const PROBE_EVERY: Duration = Duration::from_millis(200);
/// The fact that a probe writes.
const PROBE_KEY: &str = "engine.probe";

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Option<Box<dyn Store>>,
    pub(super) open: Opener,
    pub(super) finished: UnboundedSender<Finished>,
}

impl Writer {
    /// Commits group after group until the engine is dropped.
    pub(super) fn run(mut self) {
        while let Some(batch) = self.shared.next_group() {
            if !self.commit(&batch) {
                // The failed connection goes first: it may hold locks or a broken view of the log.
                self.store = None;
                while self.store.is_none() {
                    if !self.shared.wait_unless_stopped(PROBE_EVERY) {
                        break;
                    }
                    self.reopen();
                }
            }
        }
        // The engine was dropped, or a transition panicked: what is not durable is taken back and not answered.
        self.fail();
    }

    /// As [`Writer::run`], as a task.
    pub(super) async fn attend(mut self) {
        while let Some(batch) = self.shared.await_group().await {
            if !self.commit(&batch) {
                self.store = None;
                while self.store.is_none() {
                    tokio::time::sleep(PROBE_EVERY).await;
                    if self.shared.stopped.is_cancelled() {
                        break;
                    }
                    self.reopen();
                }
            }
        }
        self.fail();
    }

    /// Commits one group and tells who waits for it; false if the store failed.
    fn commit(&mut self, batch: &Batch) -> bool {
        let began = self.shared.env.stopwatch();
        let outcome = match self.store.as_mut() {
            Some(store) => store.commit(batch),
            None => Err(Error::Refused("the store is closed")),
        };
        if let Err(error) = outcome {
            tracing::error!(error = &error as &dyn std::error::Error, "a commit failed; writes are refused");
            self.shared.meters.committed(began, None);
            self.explain(&error);
            self.fail();
            return false;
        }
        let finished = self.shared.lock().finish();
        self.shared.meters.committed(began, Some(finished.durable.len()));
        self.announce(finished);
        true
    }

    /// Tries to open the store anew and takes from it what memory shall be; whether the failed group is on disk is
    /// only known by reading.
    fn reopen(&mut self) {
        match self.try_open() {
            Ok((store, contents)) => {
                self.store = Some(store);
                let now = self.shared.env.now();
                self.announce(self.shared.lock().replace(contents, now));
                tracing::info!("the store takes writes again");
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the store is still unusable");
                self.explain(&error);
            }
        }
    }

    /// Keeps for whoever is refused why, and what to do.
    fn explain(&self, error: &Error) {
        let told = told(error);
        self.shared.lock().trouble = Some(format!("{told}; writes are taken again as soon as it can be written"));
    }

    fn fail(&self) {
        let now = self.shared.env.now();
        self.announce(self.shared.lock().fail(now));
    }

    fn try_open(&mut self) -> Result<(Box<dyn Store>, store::Contents), Error> {
        let (mut store, readers) = (self.open)()?;
        let probe = Batch { meta: vec![(PROBE_KEY.to_owned(), Vec::new())], ..Batch::default() };
        store.commit(&probe)?;
        let contents = store.load()?;
        self.shared.set_readers(readers);
        Ok((store, contents))
    }

    /// One wake of the runtime for the whole group: waiters are completed over there.
    fn announce(&self, finished: Finished) {
        // The receiver ends only with the engine, when nobody waits any more.
        let _ = self.finished.send(finished);
    }
}

/// What failed, for whoever is refused: an obstacle says what to do about it, everything else comes with its causes.
fn told(error: &Error) -> String {
    match error {
        Error::Blocked { obstacle, .. } => obstacle.to_string(),
        other => format!("the store failed: {}", base::causes(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_is_no_obstacle_is_told_with_its_cause() {
        let dir = tempfile::tempdir().unwrap();
        let error = store::Sqlite::inspect(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Sqlite(_)), "{error:?}");
        let told = told(&error);
        assert!(told.starts_with("the store failed: the database failed: unable to open database file"), "{told}");
    }
}
