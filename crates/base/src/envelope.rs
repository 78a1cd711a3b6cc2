use crate::Digest;
use crate::canon::{Canon, Error as CanonError, Value};
use base64ct::{Base64, Encoding};
use ed25519_dalek::Signer as _;

/// The payload type of every statement.
pub const STATEMENT_TYPE: &str = "application/vnd.stanch.statement.v1";

/// A DSSE envelope with one Ed25519 signature, written in exactly one JSON form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// What the payload is; part of what is signed.
    pub payload_type: String,
    /// The signed bytes: a canonical object.
    pub payload: Vec<u8>,
    /// A hint at the key; never trusted.
    pub key_id: KeyId,
    /// Ed25519 over the DSSE pre-authentication encoding.
    pub signature: [u8; 64],
}

/// The first 16 bytes of SHA-256 of a public key, shown as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 16]);

/// An Ed25519 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// An Ed25519 signing key; its seed is wiped on drop and never printed.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

/// Why an envelope is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not the one JSON form, or a field that does not decode.
    #[error("not an envelope in its one JSON form")]
    Form,
    /// The signature does not verify with the key.
    #[error("the signature does not verify")]
    Signature,
}

impl SigningKey {
    /// The key of a 32-byte seed. Randomness is the caller's.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> SigningKey {
        SigningKey(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The seed, for writing the key to a file.
    #[must_use]
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs raw bytes; callers separate domains themselves.
    #[must_use]
    pub fn sign_raw(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.public().id())
    }
}

impl PublicKey {
    /// The key's id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let Digest(hash) = Digest::of(&self.0);
        let mut id = [0; 16];
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        KeyId(id)
    }

    /// Verifies a signature over raw bytes, strictly (no malleable or weak keys).
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        ed25519_dalek::VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok())
    }
}

impl Canon for PublicKey {
    fn to_value(&self) -> Value {
        Value::Bytes(self.0.to_vec())
    }
    fn from_value(value: Value) -> Result<Self, CanonError> {
        match value {
            Value::Bytes(bytes) => bytes.try_into().map(PublicKey).map_err(|_| CanonError::OutOfRange),
            _ => Err(CanonError::WrongType),
        }
    }
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl KeyId {
    fn parse(hex: &str) -> Option<KeyId> {
        let padded = format!("{hex}{:032}", 0);
        let Digest(bytes) = (hex.len() == 32).then(|| Digest::parse(&padded))??;
        let mut id = [0; 16];
        id.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        Some(KeyId(id))
    }
}

impl Envelope {
    /// Signs `payload` as `payload_type`.
    #[must_use]
    pub fn sign(payload_type: &str, payload: Vec<u8>, key: &SigningKey) -> Envelope {
        let signature = key.sign_raw(&pre_authentication(payload_type, &payload));
        Envelope { payload_type: payload_type.to_owned(), payload, key_id: key.public().id(), signature }
    }

    /// Verifies the signature and gives the payload.
    ///
    /// # Errors
    /// [`EnvelopeError::Signature`] when `key` did not sign exactly this payload and type.
    pub fn verify(&self, key: &PublicKey) -> Result<&[u8], EnvelopeError> {
        let message = pre_authentication(&self.payload_type, &self.payload);
        let good = self.key_id == key.id() && key.verifies(&message, &self.signature);
        if good { Ok(&self.payload) } else { Err(EnvelopeError::Signature) }
    }

    /// The one JSON form, without spaces.
    #[must_use]
    pub fn to_json(&self) -> String {
        format!(
            r#"{{"payload":"{}","payloadType":"{}","signatures":[{{"keyid":"{}","sig":"{}"}}]}}"#,
            Base64::encode_string(&self.payload),
            self.payload_type,
            self.key_id,
            Base64::encode_string(&self.signature)
        )
    }

    /// Reads the one JSON form; any other spelling of the same envelope is refused.
    ///
    /// # Errors
    /// [`EnvelopeError::Form`].
    pub fn from_json(json: &str) -> Result<Envelope, EnvelopeError> {
        Envelope::parse(json).filter(|envelope| envelope.to_json() == json).ok_or(EnvelopeError::Form)
    }

    fn parse(json: &str) -> Option<Envelope> {
        let (payload, rest) = json.strip_prefix(r#"{"payload":""#)?.split_once(r#"","payloadType":""#)?;
        let (payload_type, rest) = rest.split_once(r#"","signatures":[{"keyid":""#)?;
        let (key_id, rest) = rest.split_once(r#"","sig":""#)?;
        let signature = rest.strip_suffix(r#""}]}"#)?;
        if payload_type.contains(['"', '\\']) {
            return None;
        }
        Some(Envelope {
            payload_type: payload_type.to_owned(),
            payload: Base64::decode_vec(payload).ok()?,
            key_id: KeyId::parse(key_id)?,
            signature: Base64::decode_vec(signature).ok()?.try_into().ok()?,
        })
    }
}

/// The DSSE pre-authentication encoding.
fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pre_authentication_matches_the_published_example() {
        let encoded = pre_authentication("http://example.com/HelloWorld", b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn an_envelope_verifies_only_as_signed() {
        let key = SigningKey::from_seed(&[7; 32]);
        let good = Envelope::sign(STATEMENT_TYPE, b"payload".to_vec(), &key);
        assert_eq!(good.verify(&key.public()), Ok(&b"payload"[..]));
        assert_eq!(Envelope::from_json(&good.to_json()), Ok(good.clone()));
        let other = SigningKey::from_seed(&[8; 32]).public();
        assert_eq!(good.verify(&other), Err(EnvelopeError::Signature));
        let mut retyped = good.clone();
        retyped.payload_type = "other".into();
        let mut altered = good.clone();
        altered.payload.push(0);
        let mut resigned = good.clone();
        resigned.signature[3] ^= 1;
        for bad in [retyped, altered, resigned] {
            assert_eq!(bad.verify(&key.public()), Err(EnvelopeError::Signature));
        }
        let json = good.to_json();
        for bad in [json.replace(':', ": "), json.replace("keyid", "keyId"), format!("{json}\n"), json.replace('=', "")]
        {
            assert!(bad == json || Envelope::from_json(&bad) == Err(EnvelopeError::Form), "{bad}");
        }
    }
}
