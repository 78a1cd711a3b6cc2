//! Checkpoints of the evidence log, and an incident's bundle.

use crate::app::App;
use crate::engine::{Engine, Stopped, SubmitError};
use base::Digest;
use base::canon::Canon as _;
use governance::bundle::{ExportError, Input, export};
use governance::log::{Checkpoint, Tree};
use governance::record::{PolicyChange, Record};
use std::collections::{BTreeMap, BTreeSet};

/// Where the last signed checkpoint is remembered.
const CHECKPOINT_KEY: &str = "log.checkpoint";
/// Where the active policy's digest is remembered.
const POLICY_KEY: &str = "policy.active";

/// Why there is no checkpoint or no bundle.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// The log does not extend what was signed before: nothing more is signed.
    #[error("the log does not extend the checkpoint of {0} entries that was signed before; nothing more is signed")]
    Forked(u64),
    /// The incident has no records here.
    #[error("no records of incident `{0}` here")]
    Unknown(String),
    /// The database cannot be read.
    #[error("the evidence cannot be read")]
    Read(#[from] store::Error),
    /// The store does not take writes.
    #[error(transparent)]
    Write(#[from] SubmitError),
    /// Checkpoint and entries do not belong together.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The reading was stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// LIMIT: records of the evidence log in memory at once.
const RECORDS_AT_ONCE: u64 = 256;

/// Records of a running engine's evidence log that are no longer what their leaves say.
///
/// # Errors
/// The database cannot be read.
pub fn altered(engine: &Engine) -> Result<Vec<String>, store::Error> {
    altered_among(&engine.leaf_hashes(), |range| engine.entries(range))
}

/// Records of the evidence log that are no longer what these leaves say, or are not there.
///
/// # Errors
/// The database cannot be read.
pub(crate) fn altered_among(
    leaves: &[Digest],
    read: impl Fn(std::ops::Range<u64>) -> Result<Vec<Vec<u8>>, store::Error>,
) -> Result<Vec<String>, store::Error> {
    let mut found = Vec::new();
    let at_once = usize::try_from(RECORDS_AT_ONCE).unwrap_or(1);
    for (start, leaves) in (0..).step_by(at_once).zip(leaves.chunks(at_once)) {
        let records = read(start..start + leaves.len() as u64)?;
        for (place, (index, leaf)) in (start..).zip(leaves).enumerate() {
            if records.get(place).is_none_or(|record| governance::log::leaf_hash(record) != *leaf) {
                found.push(format!("evidence_altered: record {index} of the log"));
            }
        }
    }
    Ok(found)
}

/// Shows every durable record with its index, in the order of the log, `at_once` of them in memory.
fn walk(engine: &Engine, at_once: u64, mut see: impl FnMut(u64, Vec<u8>)) -> Result<(), store::Error> {
    let (mut start, size) = (0, engine.log_size());
    while start < size {
        let end = size.min(start.saturating_add(at_once));
        for (index, record) in (start..).zip(engine.entries(start..end)?) {
            see(index, record);
        }
        start = end;
    }
    Ok(())
}

/// Signs the log as it is now, if it extends what was signed before.
///
/// # Errors
/// As [`EvidenceError`] says.
pub(crate) async fn checkpoint(app: &App) -> Result<(Checkpoint, String), EvidenceError> {
    let tree = Tree::of_leaves(app.engine.leaf_hashes());
    let last = app.engine.get_meta(CHECKPOINT_KEY).await?;
    if let Some(bytes) = last {
        // What was signed before and cannot be read could be anything: nothing more is signed.
        let last = std::str::from_utf8(&bytes).ok().and_then(Checkpoint::peek).ok_or(EvidenceError::Forked(0))?;
        if tree.root_at(last.size) != Some(last.root) {
            return Err(EvidenceError::Forked(last.size));
        }
    }
    let checkpoint = Checkpoint { origin: app.keys.origin.clone(), size: tree.size(), root: tree.root() };
    let note = checkpoint.sign(&app.keys.log);
    app.engine.put_meta(CHECKPOINT_KEY, note.clone().into_bytes()).await?;
    Ok((checkpoint, note))
}

/// The bundle of an incident, covered by a checkpoint signed now.
///
/// # Errors
/// As [`EvidenceError`] says.
pub(crate) async fn bundle(app: &App, incident: &str) -> Result<Vec<u8>, EvidenceError> {
    let (_, note) = checkpoint(app).await?;
    let (reader, incident) = (app.clone(), incident.to_owned());
    app.env.compute(move || gathered(&reader, &incident, &note)).await?
}

/// The bundle as bytes; reads the whole log.
fn gathered(app: &App, incident: &str, note: &str) -> Result<Vec<u8>, EvidenceError> {
    let mut entries = app.engine.incident_entries(incident)?;
    if entries.is_empty() {
        return Err(EvidenceError::Unknown(incident.to_owned()));
    }
    let named = named_by(&entries);
    let mut blobs = Vec::new();
    for digest in &named {
        blobs.extend(app.engine.blob(digest)?);
    }
    entries.extend(rested_on(app, RECORDS_AT_ONCE, &entries)?);
    entries.sort();
    entries.dedup();
    let earlier: Vec<u64> = entries.iter().filter_map(|(_, bytes)| sealed_size(bytes)).collect();
    let tree = Tree::of_leaves(app.engine.leaf_hashes());
    let keyrings = [app.keys.keyring_envelope.clone().into_bytes()];
    let policies = [app.policy.to_bytes()];
    let input = Input {
        incident,
        entries: &entries,
        tree: &tree,
        checkpoint: note,
        earlier: &earlier,
        blobs: &blobs,
        keyrings: &keyrings,
        policies: &policies,
    };
    Ok(export(&input)?)
}

/// Records the active policy in the log when it is not the one recorded last.
///
/// # Errors
/// The store does not take writes.
pub async fn record_policy(app: &App) -> Result<(), EvidenceError> {
    let digest = app.policy.digest();
    let last = app.engine.get_meta(POLICY_KEY).await?;
    if last.as_deref() == Some(digest.0.as_slice()) {
        return Ok(());
    }
    let previous = last.and_then(|bytes| bytes.try_into().ok()).map(Digest);
    let change =
        PolicyChange { name: app.policy.name.clone(), digest, text: Digest::of(app.policy_text.as_bytes()), previous };
    let link = governance::record::Link { at: app.env.now(), ..governance::record::Link::default() };
    if let Ok(envelope) = app.keys.root.sign(&link, change) {
        let entry = crate::engine::Entry { incident: None, seq: None, bytes: envelope.to_json().into_bytes() };
        let blobs = vec![app.policy.to_bytes(), app.policy_text.as_bytes().to_vec()];
        app.engine.submit(Vec::new(), vec![entry], blobs, Vec::new()).await?;
        app.engine.put_meta(POLICY_KEY, digest.0.to_vec()).await?;
    }
    Ok(())
}

/// Records of no incident that this one rests on: the active policy, the holds that were in force when it began, and
/// those placed or lifted while it ran.
fn rested_on(app: &App, at_once: u64, incident: &[(u64, Vec<u8>)]) -> Result<Vec<(u64, Vec<u8>)>, store::Error> {
    let (first, last) = (incident.first().map_or(0, |it| it.0), incident.last().map_or(0, |it| it.0));
    let active = app.policy.digest();
    let mut found = Vec::new();
    let mut before: BTreeMap<String, (u64, Vec<u8>)> = BTreeMap::new();
    walk(&app.engine, at_once, |index, bytes| {
        let Some(statement) = crate::incidents::statement(&bytes) else { return };
        match statement.record {
            Record::PolicyChange(change) if change.digest == active => found.push((index, bytes)),
            Record::Hold(hold) if index < first => drop(before.insert(hold.scope, (index, bytes))),
            Record::Resume(resume) if index < first => drop(before.remove(&resume.scope)),
            Record::Hold(_) | Record::Resume(_) if index <= last => found.push((index, bytes)),
            _ => {}
        }
    })?;
    found.extend(before.into_values());
    Ok(found)
}

/// Every digest that the records name; those that are blobs travel along.
fn named_by(entries: &[(u64, Vec<u8>)]) -> BTreeSet<Digest> {
    let mut named = BTreeSet::new();
    for (_, bytes) in entries {
        let Some(statement) = crate::incidents::statement(bytes) else { continue };
        let Ok(value) = base::canon::parse_object("statement", &statement.to_bytes()) else { continue };
        collect(&value, &mut named);
    }
    named
}

fn collect(value: &base::canon::Value, named: &mut BTreeSet<Digest>) {
    use base::canon::Value;
    match value {
        Value::Bytes(_) => named.extend(Digest::from_value(value.clone()).ok()),
        Value::List(items) => items.iter().for_each(|item| collect(item, named)),
        Value::Record(fields) => fields.iter().for_each(|(_, field)| collect(field, named)),
        Value::Map(map) => map.values().for_each(|item| collect(item, named)),
        Value::Unsigned(_) | Value::Signed(_) | Value::Bool(_) | Value::Text(_) => {}
    }
}

fn sealed_size(bytes: &[u8]) -> Option<u64> {
    match crate::incidents::statement(bytes)?.record {
        Record::Seal(seal) => Some(seal.checkpoint_size),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
