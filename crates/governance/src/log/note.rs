//! Checkpoints as signed notes, and inclusion proofs in their text form.

use base::{Digest, PublicKey, SigningKey};
use base64ct::{Base64, Encoding as _};

/// Begins every proof text.
const PROOF_HEADER: &str = "c2sp.org/tlog-proof@v1";

/// Type byte of an Ed25519 log key.
const KEY_TYPE: u8 = 0x01;

/// Size and root of a log at one moment, signed by the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log; also the name of its key.
    pub origin: String,
    /// Leaves.
    pub size: u64,
    /// Root.
    pub root: Digest,
}

/// A named verifier key: `name+hash+key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogKey {
    /// Its name.
    pub name: String,
    /// The key.
    pub key: PublicKey,
}

/// Why a note is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not the one text form.
    #[error("not in its one text form")]
    Form,
    /// Signed by another key, or not at all.
    #[error("not signed by the log's key")]
    Signature,
}

impl LogKey {
    /// The four bytes that name the key in a signature line.
    fn hash(&self) -> [u8; 4] {
        let Digest(hash) = Digest::of_parts(&[self.name.as_bytes(), b"\n", &[KEY_TYPE], &self.key.0]);
        let [a, b, c, d, ..] = hash;
        [a, b, c, d]
    }

    /// Reads `name+hash+key`.
    #[must_use]
    pub fn parse(text: &str) -> Option<LogKey> {
        let mut parts = text.splitn(3, '+');
        let (name, _, encoded) = (parts.next()?, parts.next()?, parts.next()?);
        let bytes = Base64::decode_vec(encoded).ok()?;
        let key: [u8; 32] = bytes.strip_prefix(&[KEY_TYPE])?.try_into().ok()?;
        let key = LogKey { name: name.to_owned(), key: PublicKey(key) };
        (key.to_string() == text && !name.is_empty()).then_some(key)
    }
}

impl std::fmt::Display for LogKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = [&[KEY_TYPE][..], &self.key.0].concat();
        write!(f, "{}+{}+{}", self.name, crate::render::hex(&self.hash()), Base64::encode_string(&bytes))
    }
}

impl Checkpoint {
    /// The text that is signed.
    fn body(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, Base64::encode_string(&self.root.0))
    }

    /// The signed note.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> String {
        let body = self.body();
        let named = LogKey { name: self.origin.clone(), key: key.public() };
        self.note(&body, &named, &key.sign_raw(body.as_bytes()))
    }

    fn note(&self, body: &str, key: &LogKey, signature: &[u8; 64]) -> String {
        let bytes = [&key.hash()[..], signature].concat();
        format!("{body}\n\u{2014} {} {}\n", self.origin, Base64::encode_string(&bytes))
    }

    /// Reads a signed note and verifies the log's signature.
    ///
    /// # Errors
    /// Another form, or another key.
    pub fn open(note: &str, key: &PublicKey) -> Result<Checkpoint, NoteError> {
        let (checkpoint, signature) = Checkpoint::parse(note).ok_or(NoteError::Form)?;
        let named = LogKey { name: checkpoint.origin.clone(), key: *key };
        let body = checkpoint.body();
        if checkpoint.note(&body, &named, &signature) != note || !key.verifies(body.as_bytes(), &signature) {
            return Err(NoteError::Signature);
        }
        Ok(checkpoint)
    }

    /// Reads size and root without verifying anything.
    #[must_use]
    pub fn peek(note: &str) -> Option<Checkpoint> {
        Checkpoint::parse(note).map(|(checkpoint, _)| checkpoint)
    }

    fn parse(note: &str) -> Option<(Checkpoint, [u8; 64])> {
        let (body, signature) = note.split_once("\n\n\u{2014} ")?;
        let mut lines = body.splitn(3, '\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let checkpoint = Checkpoint { origin: origin.to_owned(), size: size.parse().ok()?, root: digest(root)? };
        let encoded = signature.strip_prefix(origin)?.strip_prefix(' ')?.strip_suffix('\n')?;
        let bytes = Base64::decode_vec(encoded).ok()?;
        let signature = bytes.get(4..)?.try_into().ok()?;
        (checkpoint.body() == format!("{body}\n")).then_some((checkpoint, signature))
    }
}

fn digest(base64: &str) -> Option<Digest> {
    Base64::decode_vec(base64).ok()?.try_into().ok().map(Digest)
}

/// An inclusion proof with its checkpoint, in text form.
#[must_use]
pub fn proof_text(index: u64, proof: &[Digest], checkpoint: &str) -> String {
    let hashes: String = proof.iter().map(|hash| format!("{}\n", Base64::encode_string(&hash.0))).collect();
    format!("{PROOF_HEADER}\nindex {index}\n{hashes}\n{checkpoint}")
}

/// Reads an inclusion proof: index, hashes, checkpoint note.
#[must_use]
pub fn read_proof(text: &str) -> Option<(u64, Vec<Digest>, &str)> {
    let (head, checkpoint) = text.split_once("\n\n")?;
    let mut lines = head.lines();
    let index = match (lines.next()?, lines.next()?) {
        (PROOF_HEADER, index) => index.strip_prefix("index ")?.parse().ok()?,
        _ => return None,
    };
    let hashes = lines.map(digest).collect::<Option<Vec<_>>>()?;
    (proof_text(index, &hashes, checkpoint) == text).then_some((index, hashes, checkpoint))
}
