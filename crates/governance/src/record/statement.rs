use super::{Record, RecordKind};
use crate::{Code, Render as _};
use base::canon::{self, Canon, Value};
use base::{Digest, Envelope, EnvelopeError, Keyring, KeyringError, Role, STATEMENT_TYPE, SigningKey, Timestamp};

/// Begins every predicate type.
pub const PREDICATE_PREFIX: &str = "urn:stanch:";

/// Version of the records' fields.
pub const SCHEMA: u64 = 1;

const STATEMENT: &str = "statement";

body! {
    /// One thing a statement is about.
    pub struct Subject {
        /// Its name.
        1 pub name: String,
        /// SHA-256 of it.
        2 pub digest: Digest,
    }
}

body! {
    /// The fields every predicate has.
    pub struct Common {
        /// The incident; absent for records of the whole installation.
        1 pub incident: Option<String>,
        /// Gapless per incident from 0.
        2 pub seq: u64,
        /// Digest of the incident's previous statement.
        3 pub prev: Option<Digest>,
        /// When it was written.
        4 pub at: Timestamp,
        /// Who signs.
        5 pub principal: String,
        /// As what.
        6 pub role: Role,
        /// In which domain of authority.
        7 pub trust_zone: String,
        /// Version of the fields.
        8 pub schema: u64,
    }
}

/// Where a record stands in its incident.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The incident; `None` for records of the whole installation.
    pub incident: Option<String>,
    /// Gapless from 0.
    pub seq: u64,
    /// Digest of the previous statement.
    pub prev: Option<Digest>,
    /// Now.
    pub at: Timestamp,
}

/// A record with its common fields, as it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The fields every predicate has.
    pub common: Common,
    /// What it says.
    pub record: Record,
}

/// A key that knows what it may sign and for whom it speaks.
#[derive(Clone, Debug)]
pub struct Signer {
    /// The key.
    pub key: SigningKey,
    /// Its one role.
    pub role: Role,
    /// Whom it speaks for.
    pub principal: String,
    /// Its domain of authority.
    pub trust_zone: String,
}

/// A value whose signature, role, key position and form were verified. Only [`open`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<T> {
    value: T,
    common: Common,
    digest: Digest,
    index: u64,
    suspect: bool,
}

/// The type of one kind of record.
pub trait Body: Canon + Clone {
    /// Which kind.
    const KIND: RecordKind;
    /// The body, if the record is of this kind.
    fn of(record: &Record) -> Option<&Self>;
}

/// Why an envelope is not a valid record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The payload is not one canonical statement.
    #[error("not a canonical statement: {0}")]
    Form(#[from] canon::Error),
    /// The payload type or the predicate type is not ours.
    #[error("not a statement of a known kind")]
    Kind,
    /// Another version of the fields.
    #[error("fields of version {0}, which this program does not read")]
    Schema(u64),
    /// The subject is not what the record is about.
    #[error("the subject is not what the record is about")]
    Subject,
    /// The key may not sign this here.
    #[error(transparent)]
    Key(#[from] KeyringError),
    /// The common fields name another principal, role or trust zone than the key's.
    #[error("signed by a key of another principal, role or trust zone than the record names")]
    Identity,
    /// The signature is wrong.
    #[error(transparent)]
    Signature(#[from] EnvelopeError),
}

impl OpenError {
    /// The verifier's step that this breaks: form (V6) or keys (V5).
    #[must_use]
    pub fn step(self) -> Code {
        match self {
            OpenError::Form(_) | OpenError::Kind | OpenError::Schema(_) | OpenError::Subject => Code::V6,
            OpenError::Key(_) | OpenError::Identity | OpenError::Signature(_) => Code::V5,
        }
    }
}

impl Statement {
    /// The canonical bytes: what is digested and signed.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let predicate = Value::Record(vec![(1, self.common.to_value()), (2, self.record.body())]);
        let kind = format!("{PREDICATE_PREFIX}{}:v1", self.record.kind());
        let statement =
            Value::Record(vec![(1, self.record.subjects().to_value()), (2, kind.to_value()), (3, predicate)]);
        canon::object(STATEMENT, &statement)
    }

    /// The digest by which other records name this one.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// Reads canonical bytes without looking at any signature.
    ///
    /// # Errors
    /// Anything [`Statement::to_bytes`] would not have produced.
    pub fn from_bytes(bytes: &[u8]) -> Result<Statement, OpenError> {
        let mut fields = canon::Fields::of(canon::parse_object(STATEMENT, bytes)?)?;
        let (subjects, kind): (Vec<Subject>, String) = (fields.take(1)?, fields.take(2)?);
        let mut predicate = canon::Fields::of(fields.take(3)?)?;
        fields.finish()?;
        let (common, body): (Common, Value) = (predicate.take(1)?, predicate.take(2)?);
        predicate.finish()?;
        if common.schema != SCHEMA {
            return Err(OpenError::Schema(common.schema));
        }
        let word = kind.strip_prefix(PREDICATE_PREFIX).and_then(|rest| rest.strip_suffix(":v1"));
        let kind = word.and_then(RecordKind::parse).ok_or(OpenError::Kind)?;
        let record = Record::read(kind, body)?;
        if record.subjects() != subjects {
            return Err(OpenError::Subject);
        }
        Ok(Statement { common, record })
    }

    /// The whole statement as JSON in the in-toto layout.
    #[must_use]
    pub fn render(&self) -> serde_json::Value {
        let mut predicate = self.common.render();
        if let (Some(map), serde_json::Value::Object(body)) = (predicate.as_object_mut(), self.record.render()) {
            map.insert(self.record.kind().word().to_owned(), serde_json::Value::Object(body));
        }
        serde_json::json!({
            "subject": self.record.subjects().render(),
            "predicateType": format!("{PREDICATE_PREFIX}{}:v1", self.record.kind()),
            "predicate": predicate,
        })
    }
}

impl Signer {
    /// Signs a record at its place.
    ///
    /// # Errors
    /// [`KeyringError::Role`] when this signer's role may not sign such a record.
    pub fn sign(&self, link: &Link, record: impl Into<Record>) -> Result<Envelope, KeyringError> {
        let record = record.into();
        if !record.kind().roles().contains(&self.role) {
            return Err(KeyringError::Role(self.key.public().id(), self.role));
        }
        let common = Common {
            incident: link.incident.clone(),
            seq: link.seq,
            prev: link.prev,
            at: link.at,
            principal: self.principal.clone(),
            role: self.role,
            trust_zone: self.trust_zone.clone(),
            schema: SCHEMA,
        };
        Ok(Envelope::sign(STATEMENT_TYPE, Statement { common, record }.to_bytes(), &self.key))
    }
}

/// Verifies an envelope as the record at log index `index`.
///
/// # Errors
/// Any flaw of form, key, role, position, identity or signature.
pub fn open(envelope: &Envelope, keyring: &Keyring, index: u64) -> Result<Signed<Record>, OpenError> {
    if envelope.payload_type != STATEMENT_TYPE {
        return Err(OpenError::Kind);
    }
    let Statement { common, record } = Statement::from_bytes(&envelope.payload)?;
    let roles = record.kind().roles();
    let suspect = if common.role == Role::Root && roles.contains(&Role::Root) {
        envelope.verify(&keyring.root)?;
        false
    } else {
        let entry = keyring.allows(envelope.key_id, roles, index)?;
        if (&entry.principal, entry.role, &entry.trust_zone) != (&common.principal, common.role, &common.trust_zone) {
            return Err(OpenError::Identity);
        }
        envelope.verify(&entry.key)?;
        entry.suspect_from_index.is_some_and(|from| index >= from)
    };
    let digest = Digest::of(&envelope.payload);
    Ok(Signed { value: record, common, digest, index, suspect })
}

impl<T> Signed<T> {
    /// What was signed.
    #[must_use]
    pub fn value(&self) -> &T {
        &self.value
    }
    /// The common fields.
    #[must_use]
    pub fn common(&self) -> &Common {
        &self.common
    }
    /// The statement's digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
    /// The log index.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }
    /// Whether the key is suspect from an index at or before this one.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.suspect
    }
}

impl Signed<Record> {
    /// The body, if the record is of the wanted kind.
    #[must_use]
    pub fn get<T: Body>(&self) -> Option<&T> {
        T::of(&self.value)
    }

    /// The same, keeping the proof of the signature.
    #[must_use]
    pub fn narrow<T: Body>(&self) -> Option<Signed<T>> {
        let value = T::of(&self.value)?.clone();
        let (common, digest, index, suspect) = (self.common.clone(), self.digest, self.index, self.suspect);
        Some(Signed { value, common, digest, index, suspect })
    }
}
