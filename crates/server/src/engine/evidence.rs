//! What the engine keeps beside the protocol's rows: the evidence log's heads, scope leases and small facts.

use crate::engine::{Entry, ScopeConflict};
use base::Digest;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use store::{Contents, EntryHead, ScopeLease, StoredEntry};

/// The key of the largest scope epoch ever given, so that no epoch is ever given twice.
const EPOCH_KEY: &str = "engine.scope_epoch";

/// Heads of the log, leases and facts, as of the newest change, durable or not.
#[derive(Debug, Default)]
pub(super) struct Records {
    heads: Vec<EntryHead>,
    by_incident: HashMap<String, Vec<u64>>,
    leases: BTreeMap<String, ScopeLease>,
    meta: BTreeMap<String, (u64, Vec<u8>)>,
    epoch: u64,
}

/// How to take back one change of [`Records`].
#[derive(Debug)]
pub(super) enum RecordsUndo {
    Appended,
    Lease { incident: String, previous: Option<ScopeLease>, epoch: u64 },
    Meta { key: String, previous: Option<(u64, Vec<u8>)> },
}

/// The leaf hash of a record in the log's tree (RFC 6962: a zero byte, then the record).
fn leaf_hash(bytes: &[u8]) -> Digest {
    Digest::of_parts(&[&[0], bytes])
}

impl Records {
    pub(super) fn load(contents: &Contents) -> Records {
        let mut records = Records::default();
        for head in &contents.entries {
            records.index(head.clone());
        }
        records.leases = contents.leases.iter().map(|lease| (lease.incident.clone(), lease.clone())).collect();
        records.meta = contents.meta.iter().map(|(key, value)| (key.clone(), (0, value.clone()))).collect();
        let given = records.leases.values().map(|lease| lease.epoch).max().unwrap_or(0);
        records.epoch = given.max(records.meta.get(EPOCH_KEY).map_or(0, |(_, value)| number(value)));
        records
    }

    pub(super) fn len(&self) -> u64 {
        self.heads.len() as u64
    }

    pub(super) fn leaves(&self, durable: u64) -> Vec<Digest> {
        let durable = usize::try_from(durable).unwrap_or(usize::MAX);
        self.heads.iter().take(durable).map(|head| head.leaf).collect()
    }

    pub(super) fn of_incident(&self, incident: &str, durable: u64) -> Vec<u64> {
        let indexes = self.by_incident.get(incident).map_or(&[][..], Vec::as_slice);
        indexes.iter().copied().filter(|index| *index < durable).collect()
    }

    /// The sequence number that the incident's next record must carry.
    pub(super) fn next_seq(&self, incident: &str) -> u64 {
        let indexes = self.by_incident.get(incident).map_or(&[][..], Vec::as_slice);
        let heads = indexes.iter().rev().filter_map(|index| self.heads.get(usize::try_from(*index).ok()?));
        heads.filter_map(|head| head.seq).next().map_or(0, |seq| seq + 1)
    }

    pub(super) fn append(&mut self, entry: Entry) -> (StoredEntry, RecordsUndo) {
        let head = EntryHead { incident: entry.incident, seq: entry.seq, leaf: leaf_hash(&entry.bytes) };
        let index = self.len();
        let stored = StoredEntry {
            index,
            incident: head.incident.clone(),
            seq: head.seq,
            leaf: head.leaf,
            bytes: Arc::from(entry.bytes),
        };
        self.index(head);
        (stored, RecordsUndo::Appended)
    }

    pub(super) fn lease(&self, incident: &str) -> Option<&ScopeLease> {
        self.leases.get(incident)
    }

    /// The lease to give, if no other incident stands in the way.
    pub(super) fn grant(
        &self,
        incident: &str,
        exclusive: &[String],
        shared: &[String],
    ) -> Result<ScopeLease, ScopeConflict> {
        for other in self.leases.values().filter(|lease| lease.incident != incident) {
            let theirs = |name: &String| other.exclusive.contains(name) || other.shared.contains(name);
            let clash = exclusive.iter().find(|name| theirs(name));
            let clash = clash.or_else(|| shared.iter().find(|name| other.exclusive.contains(name)));
            if let Some(name) = clash {
                return Err(ScopeConflict { name: name.clone(), incident: other.incident.clone() });
            }
        }
        let mut wanted = ScopeLease {
            incident: incident.to_owned(),
            epoch: self.epoch + 1,
            exclusive: exclusive.to_vec(),
            shared: shared.to_vec(),
        };
        if let Some(held) = self.leases.get(incident)
            && (&held.exclusive, &held.shared) == (&wanted.exclusive, &wanted.shared)
        {
            wanted.epoch = held.epoch;
        }
        Ok(wanted)
    }

    /// Puts a granted lease in force; also the fact that remembers its epoch.
    pub(super) fn take(&mut self, lease: &ScopeLease) -> (RecordsUndo, (String, Vec<u8>)) {
        let undo = RecordsUndo::Lease {
            incident: lease.incident.clone(),
            previous: self.leases.insert(lease.incident.clone(), lease.clone()),
            epoch: self.epoch,
        };
        self.epoch = self.epoch.max(lease.epoch);
        (undo, (EPOCH_KEY.to_owned(), self.epoch.to_be_bytes().to_vec()))
    }

    pub(super) fn release(&mut self, incident: &str) -> Option<RecordsUndo> {
        let previous = self.leases.remove(incident)?;
        Some(RecordsUndo::Lease { incident: incident.to_owned(), previous: Some(previous), epoch: self.epoch })
    }

    /// The value of a key, and the commit group that wrote it.
    pub(super) fn meta(&self, key: &str) -> Option<&(u64, Vec<u8>)> {
        self.meta.get(key)
    }

    pub(super) fn put_meta(&mut self, key: &str, value: Vec<u8>, group: u64) -> RecordsUndo {
        RecordsUndo::Meta { key: key.to_owned(), previous: self.meta.insert(key.to_owned(), (group, value)) }
    }

    pub(super) fn undo(&mut self, undo: RecordsUndo) {
        match undo {
            RecordsUndo::Appended => {
                let Some(head) = self.heads.pop() else { return };
                if let Some(indexes) = head.incident.and_then(|incident| self.by_incident.get_mut(&incident)) {
                    indexes.pop();
                }
            }
            RecordsUndo::Lease { incident, previous, epoch } => {
                self.epoch = epoch;
                match previous {
                    Some(lease) => self.leases.insert(incident, lease),
                    None => self.leases.remove(&incident),
                };
            }
            RecordsUndo::Meta { key, previous } => {
                match previous {
                    Some(value) => self.meta.insert(key, value),
                    None => self.meta.remove(&key),
                };
            }
        }
    }

    fn index(&mut self, head: EntryHead) {
        if let Some(incident) = &head.incident {
            self.by_incident.entry(incident.clone()).or_default().push(self.heads.len() as u64);
        }
        self.heads.push(head);
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_be_bytes)
}
