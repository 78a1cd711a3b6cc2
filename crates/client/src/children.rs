//! What a function under a lease has others do, and does itself, as promises below its own.

use crate::http::Error;
use crate::promises::Client;
use crate::worker::{Job, Lease, Outcome};
use base::Timestamp;
use protocol::{BRANCH, Create, FenceAction, ORIGIN, PARENT, Promise, Resolution, SCOPE, Settle, TARGET, TIMER, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The children of a job's promise, numbered from 1 in the order in which the function asks for them.
///
/// A function that suspends runs from its top when it is resumed, and so does one whose worker died. It finds the
/// promises of the run before under the same numbers, settled ones with their values, as long as it asks for the same
/// things in the same order. Each write is fenced by the lease: a worker that lost it changes nothing.
#[derive(Debug)]
pub struct Children {
    client: Client,
    lease: Lease,
    parent: Arc<Promise>,
    /// Children of earlier runs that the server sent along, by id.
    known: BTreeMap<String, Arc<Promise>>,
    last: u64,
}

/// Why a child was not to be had.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The lease is lost: another worker goes on.
    #[error("the task is not held any more")]
    Lost,
    /// The server did not answer, or refused.
    #[error(transparent)]
    Client(#[from] Error),
}

impl From<ChildError> for Outcome {
    /// How a function ends that cannot go on: with nothing if its lease is lost, else by giving the task back.
    fn from(error: ChildError) -> Outcome {
        match error {
            ChildError::Lost => Outcome::Settled,
            ChildError::Client(_) => Outcome::Release,
        }
    }
}

impl Children {
    /// The children of this job's promise.
    #[must_use]
    pub fn of(client: &Client, job: &Job) -> Children {
        let known = job.preload.iter().map(|promise| (promise.id.clone(), Arc::clone(promise))).collect();
        Children { client: client.clone(), lease: job.lease.clone(), parent: Arc::clone(&job.promise), known, last: 0 }
    }

    /// Does something here and keeps its result: `work` runs only if no earlier run has finished it. If this worker
    /// dies in the middle of it, it is run again.
    ///
    /// # Errors
    /// The lease is lost, or the server cannot be asked.
    pub async fn step(&mut self, work: impl Future<Output = (Resolution, Value)>) -> Result<Arc<Promise>, ChildError> {
        let branch = self.parent.tag(BRANCH).unwrap_or(&self.parent.id).to_owned();
        let tags = [(SCOPE, "local".to_owned()), (BRANCH, branch)];
        let child = self.create(Value::default(), self.parent.timeout_at, &tags).await?;
        if child.is_settled() {
            return Ok(child);
        }
        let (state, value) = work.await;
        let settle = Settle { id: child.id.clone(), state, value };
        self.fence(FenceAction::Settle(settle)).await
    }

    /// Has a worker at `target` do something. If what comes back has not settled, suspend on its id.
    ///
    /// # Errors
    /// The lease is lost, or the server cannot be asked.
    pub async fn call(&mut self, target: &str, param: Value) -> Result<Arc<Promise>, ChildError> {
        let tags = [(SCOPE, "global".to_owned()), (TARGET, target.to_owned())];
        self.create(param, self.parent.timeout_at, &tags).await
    }

    /// A promise that somebody outside settles, or the deadline. If it has not settled, suspend on its id.
    ///
    /// # Errors
    /// The lease is lost, or the server cannot be asked.
    pub async fn external(&mut self, param: Value, timeout_at: Timestamp) -> Result<Arc<Promise>, ChildError> {
        self.create(param, timeout_at, &[(SCOPE, "global".to_owned())]).await
    }

    /// A promise that resolves at an instant; the instant of the first run counts. If it has not settled, suspend on
    /// its id.
    ///
    /// # Errors
    /// The lease is lost, or the server cannot be asked.
    pub async fn timer(&mut self, at: Timestamp) -> Result<Arc<Promise>, ChildError> {
        let tags = [(SCOPE, "global".to_owned()), (TIMER, "true".to_owned())];
        self.create(Value::default(), at, &tags).await
    }

    /// The next child, as it is or as it is created now; its branch is its own id unless a tag says otherwise.
    async fn create(
        &mut self,
        param: Value,
        timeout_at: Timestamp,
        more: &[(&str, String)],
    ) -> Result<Arc<Promise>, ChildError> {
        self.last += 1;
        let parent = self.parent.id.as_str();
        let id = child_id(parent, self.last);
        if let Some(child) = self.known.get(&id).filter(|child| child.is_settled()) {
            return Ok(Arc::clone(child));
        }
        let origin = self.parent.tag(ORIGIN).unwrap_or(parent);
        let lineage = [(ORIGIN, origin.to_owned()), (PARENT, parent.to_owned()), (BRANCH, id.clone())];
        let tags = lineage.iter().chain(more).map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        // Nothing below a promise outlives it.
        let timeout_at = timeout_at.min(self.parent.timeout_at);
        self.fence(FenceAction::Create(Create { id, timeout_at, param, tags })).await
    }

    async fn fence(&self, action: FenceAction) -> Result<Arc<Promise>, ChildError> {
        let answer = self.client.fence(self.lease.task(), action).await?;
        answer.map(Arc::new).ok_or(ChildError::Lost)
    }
}

/// The id of a child: `:` after a root, `.` below it, as the current clients of the protocol write them.
fn child_id(parent: &str, number: u64) -> String {
    let separator = if parent.contains(':') { '.' } else { ':' };
    format!("{parent}{separator}{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_numbered_below_their_parent() {
        assert_eq!(child_id("order", 1), "order:1");
        assert_eq!(child_id("order:1", 2), "order:1.2");
        assert_eq!(child_id("order:1.2", 3), "order:1.2.3");
    }

    #[test]
    fn a_function_that_lost_its_lease_does_nothing_and_one_without_an_answer_gives_back() {
        assert_eq!(Outcome::from(ChildError::Lost), Outcome::Settled);
        assert_eq!(Outcome::from(ChildError::Client(Error::Timeout(String::new()))), Outcome::Release);
    }
}
