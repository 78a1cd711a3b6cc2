//! Signed records to the server: numbered and chained, sent again after a lost answer, signed again after a lost race.

use super::Shared;
use crate::remediation::wire::{NotTaken, Posted, Refusal, Standing};
use base::{Digest, Millis};
use client::{Job, Lease};
use governance::record::{Link, Record};
use std::sync::Arc;

/// LIMIT: how often a report is tried while the server does not answer; the lease ends it sooner.
const TRIES_MAX: u32 = 200;
/// The pause between tries.
const AGAIN: Millis = Millis(100);

/// Reports of one job.
pub(super) struct Reporter {
    shared: Arc<Shared>,
    incident: String,
    task: String,
    version: u64,
    epoch: Option<u64>,
    plan: Digest,
    lease: Lease,
    standing: Option<Standing>,
}

/// Why a report was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lost {
    /// A hold covers the scope.
    #[error("a hold covers the scope")]
    Held,
    /// Somebody else owns the task or the scope.
    #[error("somebody else owns the task now")]
    Fenced,
    /// The server refuses it, or is gone for longer than a lease.
    #[error("the server does not take the record")]
    Refused,
}

impl Reporter {
    pub(super) fn new(shared: &Arc<Shared>, job: &Job, incident: &str, plan: Option<(Digest, u64)>) -> Reporter {
        Reporter {
            shared: Arc::clone(shared),
            incident: incident.to_owned(),
            task: job.promise.id.clone(),
            version: job.lease.task().version,
            epoch: plan.map(|(_, epoch)| epoch),
            plan: plan.map_or(Digest::default(), |(plan, _)| plan),
            lease: job.lease.clone(),
            standing: None,
        }
    }

    /// Where the chain ends, and the journal of the plan so far.
    pub(super) async fn standing(&mut self) -> Result<Standing, Lost> {
        let path = format!("/incidents/{}/standing/{}", self.incident, self.plan);
        for _ in 0..TRIES_MAX {
            if let Ok((200, standing)) = self.shared.client.get_json::<Standing>(&path).await {
                self.standing = Some(standing.clone());
                return Ok(standing);
            }
            self.pause().await?;
        }
        Err(Lost::Refused)
    }

    /// Signs and sends records in one transaction.
    pub(super) async fn send(&mut self, records: Vec<Record>) -> Result<(), Lost> {
        for _ in 0..TRIES_MAX {
            let standing = match self.standing.clone() {
                Some(standing) => standing,
                None => self.standing().await?,
            };
            let (posted, last) = self.sign(&standing, &records)?;
            let Ok(body) = serde_json::to_vec(&posted) else { return Err(Lost::Refused) };
            match self.shared.client.post_bytes("/records", body).await {
                Ok((200, answer)) => {
                    self.standing = serde_json::from_slice(&answer).ok();
                    return Ok(());
                }
                Ok((409, answer)) => match serde_json::from_slice::<NotTaken>(&answer).map(|refused| refused.why) {
                    // Ours may have been taken and only its answer lost: the journal says so.
                    Ok(Refusal::Chain) => {
                        if self.standing().await?.prev == Some(last) {
                            return Ok(());
                        }
                    }
                    Ok(Refusal::Held) => return Err(Lost::Held),
                    Ok(Refusal::Fenced) => return Err(Lost::Fenced),
                    Ok(Refusal::Unavailable) => self.pause().await?,
                    Ok(Refusal::Refused) | Err(_) => {
                        tracing::warn!(answer = %String::from_utf8_lossy(&answer), "a record was refused");
                        return Err(Lost::Refused);
                    }
                },
                Ok((status, answer)) if status < 500 => {
                    tracing::warn!(status, answer = %String::from_utf8_lossy(&answer), "a record was refused");
                    return Err(Lost::Refused);
                }
                Ok(_) | Err(_) => self.pause().await?,
            }
        }
        Err(Lost::Refused)
    }

    /// The records as they are sent, and the digest of the last one.
    fn sign(&self, standing: &Standing, records: &[Record]) -> Result<(Posted, String), Lost> {
        let mut prev = standing.prev.as_deref().and_then(Digest::parse);
        let mut texts = Vec::new();
        for (seq, record) in (standing.seq..).zip(records) {
            let link = Link { incident: Some(self.incident.clone()), seq, prev, at: self.shared.env.now() };
            let envelope = self.shared.signer.sign(&link, record.clone()).map_err(|_| Lost::Refused)?;
            prev = Some(Digest::of(&envelope.payload));
            texts.push(envelope.to_json());
        }
        let last = prev.map(|digest| digest.to_string()).unwrap_or_default();
        let posted = Posted {
            incident: self.incident.clone(),
            task: self.task.clone(),
            version: self.version,
            epoch: self.epoch,
            records: texts,
            blobs: Vec::new(),
        };
        Ok((posted, last))
    }

    /// Waits before the next try; there is none once the lease is lost.
    async fn pause(&self) -> Result<(), Lost> {
        let env = &self.shared.env;
        tokio::select! {
            () = env.sleep_until(env.now().plus(AGAIN)) => Ok(()),
            () = self.lease.lost() => Err(Lost::Fenced),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, START};
    use crate::platform::Platform;
    use crate::remediation::executor::Parts;
    use actuators::process::ProcessActuator;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_asked_so_often_and_no_more() {
        let fixture = Fixture::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicU32::new(0));
        let counted = asked.clone();
        // Every connection is closed as soon as it is made.
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let env = crate::engine::Env::manual(START);
        let parts = Parts {
            env: env.clone(),
            client: client::Client::new(&url).unwrap(),
            signer: fixture.executor(),
            keyring: fixture.app.keys.keyring.clone(),
            platform: Platform::new(fixture.dir.path(), fixture.app.topology.clone()),
            actuator: Arc::new(ProcessActuator::open(fixture.dir.path()).unwrap()),
            pid: "w1".into(),
            lease: Millis(1_000),
        };
        let mut reporter = Reporter {
            shared: Arc::new(parts),
            incident: "abc".into(),
            task: "inc/abc:commit.1".into(),
            version: 1,
            epoch: None,
            plan: Digest::default(),
            standing: None,
            lease: Lease::unwatched(protocol::TaskRef { id: "inc/abc:commit.1".into(), version: 1 }),
        };
        let passing = async {
            loop {
                env.advance(AGAIN);
                tokio::task::yield_now().await;
            }
        };
        let lost = tokio::select! {
            standing = reporter.standing() => standing.map(|_| ()),
            () = passing => Ok(()),
        };
        assert_eq!((lost, asked.load(Ordering::SeqCst)), (Err(Lost::Refused), TRIES_MAX));
    }
}
