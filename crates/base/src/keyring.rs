use crate::{KeyId, PublicKey};

crate::word_enum! {
    /// What a key may sign. A key has exactly one role.
    pub enum Role {
        /// Detections, votes, intents.
        Detector = 1 "detector",
        /// Proposals and vetoes; untrusted.
        Agent = 2 "agent",
        /// Pilot reports.
        Runner = 3 "runner",
        /// Kernel checks, estimates, decisions, mutated intents.
        Evaluator = 4 "evaluator",
        /// Arms, step receipts, compensations, convergence, seals.
        Executor = 5 "executor",
        /// Approvals, denials, holds, exceptions, policies.
        Human = 6 "human",
        /// Checkpoints of the evidence log.
        Log = 7 "log",
        /// Cosignatures of checkpoints.
        Witness = 8 "witness",
        /// Keyrings and the bootstrap policy.
        Root = 9 "root",
    }
}

crate::record! {
    /// One key of a keyring. Validity is judged by log position, not by claimed time.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct KeyringEntry {
        /// The public key.
        1 pub key: PublicKey,
        /// Its one role.
        2 pub role: Role,
        /// Whom it speaks for.
        3 pub principal: String,
        /// The domain of authority it belongs to.
        4 pub trust_zone: String,
        /// First log index at which it is valid.
        5 pub not_before_index: u64,
        /// First log index at which it no longer is.
        6 pub revoked_at_index: Option<u64>,
        /// Records from this index on are marked suspect.
        7 pub suspect_from_index: Option<u64>,
    }
}

crate::record! {
    /// The keys that may sign, versioned and signed by the root.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Keyring {
        /// Counts up from 1.
        1 pub version: u64,
        /// Digest of the predecessor's canonical bytes.
        2 pub previous: Option<crate::Digest>,
        /// The root that signs this keyring.
        3 pub root: PublicKey,
        /// The keys.
        4 pub keys: Vec<KeyringEntry>,
    }
}

/// Why a key may not have signed a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The key is not in the keyring.
    #[error("key {0} is not in the keyring")]
    Unknown(KeyId),
    /// The key has another role.
    #[error("key {0} has the role {1}, which may not sign this")]
    Role(KeyId, Role),
    /// The record's index lies before activation or after revocation.
    #[error("key {0} was not valid at log index {1}")]
    Position(KeyId, u64),
    /// One public key stands under two roles.
    #[error("key {0} stands in the keyring twice")]
    Twice(KeyId),
}

impl Keyring {
    /// Checks that no key stands twice.
    ///
    /// # Errors
    /// [`KeyringError::Twice`].
    pub fn validate(&self) -> Result<(), KeyringError> {
        let mut keys: Vec<_> = self.keys.iter().map(|entry| entry.key).collect();
        keys.push(self.root);
        keys.sort_unstable();
        let twice = keys.iter().zip(keys.iter().skip(1)).find(|(a, b)| a == b);
        twice.map_or(Ok(()), |(key, _)| Err(KeyringError::Twice(key.id())))
    }

    /// The entry of the key that may have signed, as one of `roles`, a record at log index `index`.
    ///
    /// # Errors
    /// Unknown key, other role, or a position outside its validity.
    pub fn allows(&self, id: KeyId, roles: &[Role], index: u64) -> Result<&KeyringEntry, KeyringError> {
        let entry = self.keys.iter().find(|entry| entry.key.id() == id).ok_or(KeyringError::Unknown(id))?;
        if !roles.contains(&entry.role) {
            return Err(KeyringError::Role(id, entry.role));
        }
        let revoked = entry.revoked_at_index.is_some_and(|end| index >= end);
        if index < entry.not_before_index || revoked {
            return Err(KeyringError::Position(id, index));
        }
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SigningKey;

    fn entry(seed: u8, role: Role) -> KeyringEntry {
        KeyringEntry {
            key: SigningKey::from_seed(&[seed; 32]).public(),
            role,
            principal: "p".into(),
            trust_zone: "core".into(),
            not_before_index: 5,
            revoked_at_index: Some(9),
            suspect_from_index: None,
        }
    }

    #[test]
    fn a_key_signs_in_its_role_and_between_activation_and_revocation() {
        let root = SigningKey::from_seed(&[1; 32]).public();
        let ring = Keyring { version: 1, previous: None, root, keys: vec![entry(2, Role::Executor)] };
        let id = SigningKey::from_seed(&[2; 32]).public().id();
        assert!(ring.allows(id, &[Role::Executor], 5).is_ok());
        for (roles, index) in [(&[Role::Evaluator][..], 5), (&[Role::Executor], 4), (&[Role::Executor], 9)] {
            assert!(ring.allows(id, roles, index).is_err());
        }
        assert!(ring.allows(root.id(), &[Role::Root], 5).is_err());
        assert!(ring.validate().is_ok());
        let twice = Keyring { keys: vec![entry(2, Role::Executor), entry(2, Role::Agent)], ..ring };
        assert!(matches!(twice.validate(), Err(KeyringError::Twice(_))));
    }
}
