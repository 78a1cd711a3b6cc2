//! An incident's chain of signed records: gapless numbers, each naming the digest of the one before.

use crate::engine::{Engine, Entry};
use base::{Digest, Envelope, Keyring, KeyringError, Timestamp};
use governance::record::{Link, Record, Signed, Signer, Statement, open};
use std::collections::BTreeSet;

/// Where an incident's chain ends now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The incident.
    pub incident: String,
    /// Number of the next record.
    pub seq: u64,
    /// Digest of the last one.
    pub prev: Option<Digest>,
}

/// Records and blobs that will be written together.
#[derive(Clone, Debug)]
pub struct Batch {
    chain: Chain,
    at: Timestamp,
    entries: Vec<Entry>,
    blobs: Vec<Vec<u8>>,
}

impl Chain {
    /// The chain as the log has it.
    #[must_use]
    pub fn load(engine: &Engine, incident: &str) -> Chain {
        // Records that cannot be read leave a chain that fits nowhere: every write then fails its guard.
        let entries = engine.incident_entries(incident).unwrap_or_default();
        let statements: Vec<Digest> = entries.iter().filter_map(|(_, bytes)| statement_digest(bytes)).collect();
        Chain { incident: incident.to_owned(), seq: statements.len() as u64, prev: statements.last().copied() }
    }

    /// An empty batch that continues the chain.
    #[must_use]
    pub fn batch(&self, at: Timestamp) -> Batch {
        Batch { chain: self.clone(), at, entries: Vec::new(), blobs: Vec::new() }
    }

    /// The chain after a foreign record was appended.
    pub fn advance(&mut self, statement: Digest) {
        self.seq += 1;
        self.prev = Some(statement);
    }
}

impl Batch {
    /// Signs a record and appends it; gives the digest by which others name it.
    ///
    /// # Errors
    /// The signer's role may not sign such a record.
    pub fn record(&mut self, signer: &Signer, record: impl Into<Record>) -> Result<Digest, KeyringError> {
        let link = Link {
            incident: Some(self.chain.incident.clone()),
            seq: self.chain.seq,
            prev: self.chain.prev,
            at: self.at,
        };
        let envelope = signer.sign(&link, record)?;
        let digest = Digest::of(&envelope.payload);
        let bytes = envelope.to_json().into_bytes();
        self.entries.push(Entry { incident: Some(self.chain.incident.clone()), seq: Some(self.chain.seq), bytes });
        self.chain.advance(digest);
        Ok(digest)
    }

    /// Adds a blob; gives its digest.
    pub fn blob(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        self.blobs.push(bytes);
        digest
    }

    /// The number of the first record of the batch.
    #[must_use]
    pub fn first_seq(&self) -> u64 {
        self.chain.seq - self.entries.len() as u64
    }

    /// The chain after the batch, its records and its blobs.
    #[must_use]
    pub fn into_parts(self) -> (Chain, Vec<Entry>, Vec<Vec<u8>>) {
        (self.chain, self.entries, self.blobs)
    }
}

/// The digest of the statement in a log entry; `None` for notes.
#[must_use]
pub fn statement_digest(entry: &[u8]) -> Option<Digest> {
    let envelope = Envelope::from_json(std::str::from_utf8(entry).ok()?).ok()?;
    Some(Digest::of(&envelope.payload))
}

/// The digests of an incident's statements as the log has them now: of all of them when every one is signed by a key
/// that may and that nobody suspects, and names the one before; of none otherwise.
#[must_use]
pub(super) fn proven(engine: &Engine, keyring: &Keyring, incident: &str) -> BTreeSet<Digest> {
    let entries = engine.incident_entries(incident).unwrap_or_default();
    let mut proven = BTreeSet::new();
    let (mut seq, mut prev) = (0, None);
    for (index, bytes) in entries {
        let Some(signed) = signed(&bytes, keyring, index) else { return BTreeSet::new() };
        let common = signed.common();
        let follows = (common.incident.as_deref(), common.seq, common.prev) == (Some(incident), seq, prev);
        if !follows || signed.is_suspect() {
            return BTreeSet::new();
        }
        (seq, prev) = (seq + 1, Some(signed.digest()));
        proven.insert(signed.digest());
    }
    proven
}

fn signed(entry: &[u8], keyring: &Keyring, index: u64) -> Option<Signed<Record>> {
    let envelope = Envelope::from_json(std::str::from_utf8(entry).ok()?).ok()?;
    open(&envelope, keyring, index).ok()
}

/// The statement in a log entry, its signature not looked at.
#[must_use]
pub fn statement(entry: &[u8]) -> Option<Statement> {
    let envelope = Envelope::from_json(std::str::from_utf8(entry).ok()?).ok()?;
    Statement::from_bytes(&envelope.payload).ok()
}

#[cfg(test)]
mod tests;
