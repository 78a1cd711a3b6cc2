use super::export::{MANIFEST, README, entry_name, manifest, proof_name, read_consistency};
use super::{BUNDLE_BYTES_MAX, tar};
use crate::Code;
use crate::log::{Checkpoint, LogKey, leaf_hash, read_proof, verify_consistency, verify_inclusion};
use crate::record::{ENTRY_BYTES_MAX, Record, Signed, Statement, open};
use base::{Digest, Envelope, Keyring, PublicKey, Role};
use std::collections::BTreeMap;

mod chain;

/// Keys that the reader pinned: the log's and the root's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    keys: Vec<LogKey>,
}

/// Why a file of verifier keys is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// A line that is no key; from 1.
    #[error("line {0}: not a verifier key of the form name+hash+key")]
    Line(usize),
    /// No key in it.
    #[error("no verifier key in it")]
    Empty,
}

/// A bundle that is internally sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The incident.
    pub incident: String,
    /// Its outcome, as its seal says.
    pub outcome: String,
    /// Records of the incident.
    pub records: u64,
    /// Entries in the file.
    pub entries: u64,
    /// The log.
    pub origin: String,
    /// Its size at the checkpoint.
    pub log_size: u64,
    /// Whether the keys are pinned ones.
    pub is_pinned: bool,
    /// What a reader must know even when all is well: exceptions, suspects, gaps, uncalibrated decisions.
    pub notes: Vec<String>,
}

/// The first step that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} {}: {member}: {why}", .code.title())]
pub struct VerifyError {
    /// V0 to V12.
    pub code: Code,
    /// Which file of the bundle.
    pub member: String,
    /// What is wrong.
    pub why: String,
}

pub(super) type Members = BTreeMap<String, Vec<u8>>;

/// The parsed bundle while it is verified.
pub(super) struct Bundle {
    pub(super) members: Members,
    checkpoint: Checkpoint,
    /// Log index to record, in log order.
    pub(super) records: BTreeMap<u64, Signed<Record>>,
    notes: Vec<String>,
}

/// What becomes of decisions that are made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remade {
    /// They must be the same, or the bundle does not verify.
    Same,
    /// The caller compares them.
    Judged,
}

impl Trust {
    /// Reads a file of verifier keys, one `name+hash+key` a line; `#` begins a comment.
    ///
    /// # Errors
    /// The first line that is no key, or a file without one: pinning nothing is not what anybody meant.
    pub fn parse(text: &str) -> Result<Trust, TrustError> {
        let lines = (1..).zip(text.lines().map(str::trim));
        let written = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let keys = written.map(|(number, line)| LogKey::parse(line).ok_or(TrustError::Line(number)));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err(TrustError::Empty) } else { Ok(Trust { keys }) }
    }

    fn has(&self, key: &PublicKey) -> bool {
        self.keys.iter().any(|pinned| pinned.key == *key)
    }
}

impl Verified {
    /// The first line of the output.
    #[must_use]
    pub fn first_line(&self, trust_file: &str) -> String {
        if self.is_pinned {
            format!("VERIFIED against {trust_file}")
        } else {
            "VERIFIED against the keys inside the file (pin them with --trust KEYS)".to_owned()
        }
    }
}

/// Verifies a bundle: steps V0 to V12 in order.
///
/// # Errors
/// The first step that fails, with the file it fails on.
pub fn verify(bytes: &[u8], trust: Option<&Trust>) -> Result<Verified, VerifyError> {
    Ok(examine(bytes, trust, Remade::Same)?.1)
}

/// Verifies, and gives what was read too. With [`Remade::Judged`] it is left to the caller to make the decisions
/// again: everything else about them is verified all the same.
pub(super) fn examine(bytes: &[u8], trust: Option<&Trust>, remade: Remade) -> Result<(Bundle, Verified), VerifyError> {
    let members = container(bytes)?;
    let (checkpoint_note, checkpoint) = peek_checkpoint(&members)?;
    let incident = manifested(&members, &checkpoint)?;
    let keyring = keyring(&members)?;
    signed_checkpoint(&checkpoint_note, &keyring, &checkpoint, trust)?;
    inclusion(&members, &checkpoint_note, &checkpoint)?;
    consistency(&members, &checkpoint)?;
    let mut notes = Vec::new();
    let records = records(&members, &keyring, &mut notes)?;
    let bundle = Bundle { members, checkpoint, records, notes };
    let (outcome, count, notes) = chain::verify(&bundle, &incident, remade)?;
    let verified = Verified {
        incident,
        outcome,
        records: count,
        entries: bundle.folder("entries/").count() as u64,
        origin: bundle.checkpoint.origin.clone(),
        log_size: bundle.checkpoint.size,
        is_pinned: trust.is_some(),
        notes,
    };
    Ok((bundle, verified))
}

fn fail<T>(code: Code, member: &str, why: impl Into<String>) -> Result<T, VerifyError> {
    Err(VerifyError { code, member: member.to_owned(), why: why.into() })
}

/// V0: the container, rebuilt from its members, is the same bytes.
fn container(bytes: &[u8]) -> Result<Members, VerifyError> {
    if bytes.len() > BUNDLE_BYTES_MAX {
        return fail(Code::V0, "bundle", format!("{} bytes, at most {BUNDLE_BYTES_MAX} are read", bytes.len()));
    }
    let Some(members) = tar::read(bytes) else { return fail(Code::V0, "bundle", "not a container of this form") };
    if tar::write(&members) != bytes {
        return fail(Code::V0, "bundle", "bytes that no member accounts for");
    }
    Ok(members)
}

fn text<'a>(members: &'a Members, name: &str, code: Code) -> Result<&'a str, VerifyError> {
    let Some(content) = members.get(name) else { return fail(code, name, "missing") };
    std::str::from_utf8(content).or_else(|_| fail(code, name, "not text"))
}

fn peek_checkpoint(members: &Members) -> Result<(String, Checkpoint), VerifyError> {
    let note = text(members, "checkpoint", Code::V2)?;
    let Some(checkpoint) = Checkpoint::peek(note) else { return fail(Code::V2, "checkpoint", "not a signed note") };
    Ok((note.to_owned(), checkpoint))
}

/// V1: the manifest, rebuilt from the other members, is the same text; every name is one we know.
fn manifested(members: &Members, checkpoint: &Checkpoint) -> Result<String, VerifyError> {
    let found = text(members, MANIFEST, Code::V1)?;
    let incident = found.strip_prefix("{\"schema\":1,\"incident\":\"").and_then(|rest| rest.split('"').next());
    let Some(incident) = incident else { return fail(Code::V1, MANIFEST, "names no incident") };
    let expected = manifest(incident, &checkpoint.origin, members);
    if expected != found.as_bytes() {
        let expected = String::from_utf8_lossy(&expected);
        let line = expected
            .lines()
            .zip(found.lines())
            .map(|(line, found)| (line != found).then_some(line))
            .find_map(|line| line);
        let name = line.and_then(|line| line.strip_prefix("{\"name\":\"")?.split('"').next());
        return fail(Code::V1, name.unwrap_or(MANIFEST), "not what the manifest says");
    }
    if members.get("README.txt").map(Vec::as_slice) != Some(README.as_bytes()) {
        return fail(Code::V1, "README.txt", "not the text this format has");
    }
    let known = |name: &str| {
        let folder = name.split_once('/').map(|(folder, _)| folder);
        match folder {
            None => ["README.txt", MANIFEST, "checkpoint"].contains(&name),
            Some(folder) => ["blobs", "consistency", "entries", "keyring", "policy", "proofs"].contains(&folder),
        }
    };
    if let Some(name) = members.keys().find(|name| !known(name)) {
        return fail(Code::V1, name, "a file that this format does not have");
    }
    for (name, content) in members {
        let named = name.strip_prefix("blobs/").or_else(|| name.strip_prefix("policy/"));
        if named.is_some_and(|named| named != Digest::of(content).to_string()) {
            return fail(Code::V1, name, "not the content its name says");
        }
    }
    Ok(incident.to_owned())
}

/// V5, first half: the keyrings, each signed by the root of the one before.
fn keyring(members: &Members) -> Result<Keyring, VerifyError> {
    let mut current: Option<Keyring> = None;
    for (name, content) in members.iter().filter(|(name, _)| name.starts_with("keyring/")) {
        let envelope = std::str::from_utf8(content).ok().and_then(|json| Envelope::from_json(json).ok());
        let Some(envelope) = envelope else { return fail(Code::V6, name, "not an envelope") };
        let Ok(Statement { record: Record::Keyring(next), .. }) = Statement::from_bytes(&envelope.payload) else {
            return fail(Code::V6, name, "not a keyring");
        };
        let previous = current.as_ref().map(|ring| Digest::of_object("keyring", ring));
        let version = current.as_ref().map_or(1, |ring| ring.version + 1);
        if next.previous != previous || next.version != version || *name != format!("keyring/{version:06}") {
            return fail(Code::V5, name, "does not follow its predecessor");
        }
        if let Err(error) = next.validate() {
            return fail(Code::V5, name, error.to_string());
        }
        // The first keyring is signed by its own root, every other by the root before it.
        if let Err(error) = open(&envelope, current.as_ref().unwrap_or(&next), 0) {
            return fail(Code::V5, name, error.to_string());
        }
        current = Some(next);
    }
    current.map_or_else(|| fail(Code::V5, "keyring/000001", "missing"), Ok)
}

/// V2: the checkpoint is signed by a log key of the keyring, and by a pinned one if keys are pinned.
fn signed_checkpoint(
    note: &str,
    keyring: &Keyring,
    checkpoint: &Checkpoint,
    trust: Option<&Trust>,
) -> Result<(), VerifyError> {
    let logs = keyring.keys.iter().filter(|entry| entry.role == Role::Log);
    let Some(log) = logs.map(|entry| entry.key).find(|key| Checkpoint::open(note, key).is_ok()) else {
        return fail(Code::V2, "checkpoint", "not signed by a log key of the keyring");
    };
    let last = checkpoint.size.saturating_sub(1);
    if let Err(error) = keyring.allows(log.id(), &[Role::Log], last) {
        return fail(Code::V2, "checkpoint", error.to_string());
    }
    let Some(trust) = trust else { return Ok(()) };
    if !trust.has(&log) {
        return fail(Code::V2, "checkpoint", "signed by a log key that is not pinned");
    }
    if !trust.has(&keyring.root) {
        return fail(Code::V5, "keyring", "signed by a root key that is not pinned");
    }
    Ok(())
}

fn index_of(name: &str, prefix: &str, suffix: &str) -> Option<u64> {
    name.strip_prefix(prefix)?.strip_suffix(suffix)?.parse().ok()
}

/// V3: every entry is in the log under the checkpoint, and nothing but entries has a proof.
fn inclusion(members: &Members, note: &str, checkpoint: &Checkpoint) -> Result<(), VerifyError> {
    let proofs = members.keys().filter(|name| name.starts_with("proofs/")).count();
    let entries = members.iter().filter(|(name, _)| name.starts_with("entries/"));
    let mut count = 0;
    for (name, entry) in entries {
        count += 1;
        let Some(index) = index_of(name, "entries/", "").filter(|index| entry_name(*index) == *name) else {
            return fail(Code::V3, name, "not named by a log index");
        };
        let proof_name = proof_name(index);
        let Some((at, proof, under)) = read_proof(text(members, &proof_name, Code::V3)?) else {
            return fail(Code::V3, &proof_name, "not a proof in its one form");
        };
        if at != index || under != note {
            return fail(Code::V3, &proof_name, "a proof of another entry or checkpoint");
        }
        if !verify_inclusion(&leaf_hash(entry), index, checkpoint.size, &proof, &checkpoint.root) {
            return fail(Code::V3, name, "the proof does not lead to the checkpoint's root");
        }
    }
    if proofs != count { fail(Code::V3, "proofs", "proofs without entries") } else { Ok(()) }
}

/// V4: every earlier checkpoint is a beginning of this one.
fn consistency(members: &Members, checkpoint: &Checkpoint) -> Result<(), VerifyError> {
    for name in members.keys().filter(|name| name.starts_with("consistency/")) {
        let size = index_of(name, "consistency/", "").filter(|size| format!("consistency/{size:010}") == *name);
        let proof = read_consistency(text(members, name, Code::V4)?);
        let (Some(size), Some((root, proof))) = (size, proof) else {
            return fail(Code::V4, name, "not a consistency proof in its one form");
        };
        if !verify_consistency(size, &root, checkpoint.size, &checkpoint.root, &proof) {
            return fail(Code::V4, name, "the log does not extend it");
        }
    }
    Ok(())
}

/// V5 and V6: each entry is a record in its one form, signed by a key that may.
fn records(
    members: &Members,
    keyring: &Keyring,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<u64, Signed<Record>>, VerifyError> {
    let mut records = BTreeMap::new();
    for (name, entry) in members.iter().filter(|(name, _)| name.starts_with("entries/")) {
        let Some(index) = index_of(name, "entries/", "") else {
            return fail(Code::V3, name, "not named by a log index");
        };
        if entry.len() > ENTRY_BYTES_MAX {
            return fail(Code::V6, name, "longer than an entry may be");
        }
        if entry.first() == Some(&b's') {
            // A note of the server: unsigned, vouched for by the checkpoint alone, never an input.
            let kind = base::canon::kind_of(entry).map(str::to_owned);
            let is_canonical = kind.as_ref().is_some_and(|kind| base::canon::parse_object(kind, entry).is_ok());
            if !is_canonical || kind.as_deref() == Some("statement") {
                return fail(Code::V6, name, "a note that is not canonical");
            }
            continue;
        }
        let envelope = std::str::from_utf8(entry).ok().and_then(|json| Envelope::from_json(json).ok());
        let Some(envelope) = envelope else { return fail(Code::V6, name, "not an envelope in its one form") };
        match open(&envelope, keyring, index) {
            Ok(record) => {
                if record.is_suspect() {
                    notes.push(format!("record {index} was signed by a key that is suspect from there on"));
                }
                records.insert(index, record);
            }
            Err(error) => return fail(error.step(), name, error.to_string()),
        }
    }
    Ok(records)
}

impl Bundle {
    fn folder<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a String, &'a Vec<u8>)> {
        self.members.iter().filter(move |(name, _)| name.starts_with(prefix))
    }

    pub(super) fn blob(&self, digest: &Digest) -> Option<&[u8]> {
        self.members.get(&format!("blobs/{digest}")).map(Vec::as_slice)
    }
}
