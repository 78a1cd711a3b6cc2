//! Signed records to the server: numbered and chained, the same sent again after a lost answer, signed again only
//! after a lost race.

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

/// Signed records that were or will be sent.
struct Sent {
    body: Vec<u8>,
    /// Where the chain ended when they were signed.
    place: (u64, Option<String>),
    /// Whether the chain had grown beyond that before they were last sent.
    is_passed: bool,
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

    /// Signs and sends records in one transaction. What may have been taken is sent again as it is, and the server
    /// knows its own records; it is signed anew only once its place in the chain is known to be another's.
    pub(super) async fn send(&mut self, records: Vec<Record>) -> Result<(), Lost> {
        let mut sent: Option<Sent> = None;
        for _ in 0..TRIES_MAX {
            let post = match sent.take() {
                Some(same) => same,
                None => self.sign(&records).await?,
            };
            match self.shared.client.post_bytes("/records", post.body.clone()).await {
                Ok((200, answer)) => {
                    self.standing = serde_json::from_slice(&answer).ok();
                    return Ok(());
                }
                Ok((409, answer)) => match serde_json::from_slice::<NotTaken>(&answer).map(|refused| refused.why) {
                    Ok(Refusal::Chain) => sent = self.after_chain(post).await?,
                    Ok(Refusal::Held) => return Err(Lost::Held),
                    Ok(Refusal::Fenced) => return Err(Lost::Fenced),
                    Ok(Refusal::Unavailable) => sent = self.same(post).await?,
                    Ok(Refusal::Refused) | Err(_) => {
                        tracing::warn!(answer = %String::from_utf8_lossy(&answer), "a record was refused");
                        return Err(Lost::Refused);
                    }
                },
                Ok((status, answer)) if status < 500 => {
                    tracing::warn!(status, answer = %String::from_utf8_lossy(&answer), "a record was refused");
                    return Err(Lost::Refused);
                }
                Ok(_) | Err(_) => sent = self.same(post).await?,
            }
        }
        Err(Lost::Refused)
    }

    /// What to send when the chain ends elsewhere: the same, until its place is seen to be another's.
    async fn after_chain(&mut self, post: Sent) -> Result<Option<Sent>, Lost> {
        let now = self.standing().await?;
        if (now.seq, now.prev) == post.place {
            // An earlier try of ours is on its way to the disk, and may yet not reach it.
            return self.same(post).await;
        }
        // The chain grew, but perhaps by these records, and only after the refusal: the server tells when asked again.
        Ok((!post.is_passed).then_some(Sent { is_passed: true, ..post }))
    }

    /// The same records again, after a pause.
    async fn same(&self, post: Sent) -> Result<Option<Sent>, Lost> {
        self.pause().await?;
        Ok(Some(post))
    }

    /// The records as they are sent.
    async fn sign(&mut self, records: &[Record]) -> Result<Sent, Lost> {
        let standing = match self.standing.clone() {
            Some(standing) => standing,
            None => self.standing().await?,
        };
        let mut prev = standing.prev.as_deref().and_then(Digest::parse);
        let mut texts = Vec::new();
        for (seq, record) in (standing.seq..).zip(records) {
            let link = Link { incident: Some(self.incident.clone()), seq, prev, at: self.shared.env.now() };
            let envelope = self.shared.signer.sign(&link, record.clone()).map_err(|_| Lost::Refused)?;
            prev = Some(Digest::of(&envelope.payload));
            texts.push(envelope.to_json());
        }
        let posted = Posted {
            incident: self.incident.clone(),
            task: self.task.clone(),
            version: self.version,
            epoch: self.epoch,
            records: texts,
            blobs: Vec::new(),
        };
        let body = serde_json::to_vec(&posted).map_err(|_| Lost::Refused)?;
        Ok(Sent { body, place: (standing.seq, standing.prev), is_passed: false })
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
mod tests;
