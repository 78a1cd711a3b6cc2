use super::tar;
use crate::log::{Checkpoint, Tree, leaf_hash, proof_text};
use base::Digest;
use base64ct::{Base64, Encoding as _};
use std::collections::BTreeMap;

pub(super) const MANIFEST: &str = "bundle.json";

pub(super) const README: &str = "\
This is the evidence of one incident, written by stanch.

  stanch evidence verify FILE               checks all of it, without server or network
  stanch evidence verify FILE --trust KEYS  also checks that the keys are the ones you pinned

bundle.json   name, size and SHA-256 of every other file
checkpoint    size and root of the log, signed by the log
entries/      the incident's records, each a signed envelope, named by its index in the log
proofs/       that each entry is in the log
consistency/  that the log only grew since the checkpoint the incident was sealed with
blobs/        larger material, named by its SHA-256
keyring/      which keys may sign what
policy/       the policies that decisions name, named by their SHA-256
";

/// What a bundle is made of.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// The incident.
    pub incident: &'a str,
    /// The incident's entries with their log indexes, and any others it rests on (policy, holds).
    pub entries: &'a [(u64, Vec<u8>)],
    /// Leaf hashes of the whole log, as a tree.
    pub tree: &'a Tree,
    /// The newest checkpoint note; it must cover every entry.
    pub checkpoint: &'a str,
    /// Sizes of earlier checkpoints that the incident names (its seal's).
    pub earlier: &'a [u64],
    /// Blobs: inputs of every decision, and whatever else shall travel along.
    pub blobs: &'a [Vec<u8>],
    /// Keyring envelopes in JSON form, oldest first.
    pub keyrings: &'a [Vec<u8>],
    /// Canonical bytes of every policy that a decision names.
    pub policies: &'a [Vec<u8>],
}

/// Why a bundle cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The incident's or the log's name is not plain.
    #[error("`{0}` is not a plain name")]
    Name(String),
    /// The checkpoint is not a signed note.
    #[error("the checkpoint is not a signed note")]
    Checkpoint,
    /// The checkpoint does not cover an entry, or an earlier size.
    #[error("the checkpoint does not cover log index or size {0}")]
    Uncovered(u64),
    /// The tree does not have the checkpoint's root, or an entry is not the tree's leaf.
    #[error("the tree does not belong to the checkpoint and the entries")]
    Tree,
}

/// Writes a bundle. Equal content gives equal bytes.
///
/// # Errors
/// When checkpoint, tree and entries do not belong together.
pub fn export(input: &Input<'_>) -> Result<Vec<u8>, ExportError> {
    let checkpoint = Checkpoint::peek(input.checkpoint).ok_or(ExportError::Checkpoint)?;
    if let Some(name) = [input.incident, &checkpoint.origin].into_iter().find(|name| !tar::is_name(name)) {
        return Err(ExportError::Name(name.to_owned()));
    }
    if input.tree.root_at(checkpoint.size) != Some(checkpoint.root) {
        return Err(ExportError::Tree);
    }
    let mut members: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    members.insert("README.txt".into(), README.as_bytes().to_vec());
    members.insert("checkpoint".into(), input.checkpoint.as_bytes().to_vec());
    for (index, entry) in input.entries {
        let proof = input.tree.inclusion(*index, checkpoint.size).ok_or(ExportError::Uncovered(*index))?;
        if !crate::log::verify_inclusion(&leaf_hash(entry), *index, checkpoint.size, &proof, &checkpoint.root) {
            return Err(ExportError::Tree);
        }
        members.insert(entry_name(*index), entry.clone());
        members.insert(proof_name(*index), proof_text(*index, &proof, input.checkpoint).into_bytes());
    }
    for size in input.earlier.iter().filter(|size| **size < checkpoint.size) {
        let (root, proof) = (input.tree.root_at(*size), input.tree.consistency(*size, checkpoint.size));
        let (Some(root), Some(proof)) = (root, proof) else { return Err(ExportError::Uncovered(*size)) };
        members.insert(format!("consistency/{size:010}"), consistency_text(&root, &proof).into_bytes());
    }
    for (folder, contents) in [("blobs", input.blobs), ("policy", input.policies)] {
        for content in contents {
            members.insert(format!("{folder}/{}", Digest::of(content)), content.clone());
        }
    }
    for (at, keyring) in input.keyrings.iter().enumerate() {
        members.insert(format!("keyring/{:06}", at + 1), keyring.clone());
    }
    let manifest = manifest(input.incident, &checkpoint.origin, &members);
    members.insert(MANIFEST.into(), manifest);
    Ok(tar::write(&members))
}

/// The manifest in its one rendering, of every member but itself.
pub(super) fn manifest(incident: &str, origin: &str, members: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let lines: Vec<String> = members
        .iter()
        .filter(|(name, _)| *name != MANIFEST)
        .map(|(name, content)| {
            // Names are plain (see `tar::is_name`): nothing to escape.
            format!("{{\"name\":\"{name}\",\"size\":{},\"sha256\":\"{}\"}}", content.len(), Digest::of(content))
        })
        .collect();
    let head = format!("{{\"schema\":1,\"incident\":\"{incident}\",\"log\":\"{origin}\",\"members\":[\n");
    format!("{head}{}\n]}}\n", lines.join(",\n")).into_bytes()
}

pub(super) fn entry_name(index: u64) -> String {
    format!("entries/{index:010}")
}

pub(super) fn proof_name(index: u64) -> String {
    format!("proofs/{index:010}.tlog-proof")
}

pub(super) fn consistency_text(root: &Digest, proof: &[Digest]) -> String {
    let line = |digest: &Digest| format!("{}\n", Base64::encode_string(&digest.0));
    let hashes: String = proof.iter().map(line).collect();
    format!("{}{hashes}", line(root))
}

pub(super) fn read_consistency(text: &str) -> Option<(Digest, Vec<Digest>)> {
    let digest = |line: &str| Base64::decode_vec(line).ok()?.try_into().ok().map(Digest);
    let mut lines = text.lines();
    let root = digest(lines.next()?)?;
    let proof = lines.map(digest).collect::<Option<Vec<_>>>()?;
    (consistency_text(&root, &proof) == text).then_some((root, proof))
}
