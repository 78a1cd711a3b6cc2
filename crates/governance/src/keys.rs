//! The keys of an embedded installation: one per role and a root, from seeds; and their text forms.
//! Randomness and files are the caller's.

use crate::log::LogKey;
use crate::record::Signer;
use base::{Keyring, KeyringEntry, PublicKey, Role, SigningKey};
use base64ct::{Base64, Encoding as _};

/// PKCS #8 of an Ed25519 key, up to the seed.
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----\n";
const PEM_END: &str = "\n-----END PRIVATE KEY-----\n";

/// The domain of authority of a bootstrap keyring.
pub const BOOTSTRAP_ZONE: &str = "local";

/// Why a key file is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 private key in PEM (PKCS #8) form")]
pub struct KeyError;

/// One key per role and a root.
#[derive(Clone, Debug)]
pub struct KeySet {
    /// In the order of [`KeySet::ROLES`].
    keys: [SigningKey; Role::ALL.len()],
}

impl KeySet {
    /// The roles that get a key of their own, in order.
    pub const ROLES: &'static [Role] = Role::ALL;

    /// The set of one key per role; seeds in the order of [`KeySet::ROLES`].
    #[must_use]
    pub fn from_seeds(seeds: &[[u8; 32]; Role::ALL.len()]) -> KeySet {
        KeySet { keys: seeds.each_ref().map(SigningKey::from_seed) }
    }

    /// The set of keys read one by one; `None` unless every role has exactly one.
    #[must_use]
    pub fn from_keys(keys: Vec<(Role, SigningKey)>) -> Option<KeySet> {
        let mut sorted = keys;
        sorted.sort_by_key(|(role, _)| *role);
        let is_complete = sorted.iter().map(|(role, _)| *role).eq(KeySet::ROLES.iter().copied());
        let keys: Vec<SigningKey> = sorted.into_iter().map(|(_, key)| key).collect();
        keys.try_into().ok().filter(|_| is_complete).map(|keys| KeySet { keys })
    }

    /// The key of a role.
    #[must_use]
    pub fn key(&self, role: Role) -> &SigningKey {
        let [detector, agent, runner, evaluator, executor, human, log, witness, root] = &self.keys;
        match role {
            Role::Detector => detector,
            Role::Agent => agent,
            Role::Runner => runner,
            Role::Evaluator => evaluator,
            Role::Executor => executor,
            Role::Human => human,
            Role::Log => log,
            Role::Witness => witness,
            Role::Root => root,
        }
    }

    /// The signer of a role, speaking for the principal of the bootstrap keyring.
    #[must_use]
    pub fn signer(&self, role: Role) -> Signer {
        let key = self.key(role).clone();
        Signer { key, role, principal: principal(role), trust_zone: BOOTSTRAP_ZONE.to_owned() }
    }

    /// The first keyring: every key valid from the first entry on.
    #[must_use]
    pub fn bootstrap_keyring(&self) -> Keyring {
        let entries = KeySet::ROLES.iter().filter(|role| **role != Role::Root);
        let entries = entries.map(|role| KeyringEntry {
            key: self.key(*role).public(),
            role: *role,
            principal: principal(*role),
            trust_zone: BOOTSTRAP_ZONE.to_owned(),
            not_before_index: 0,
            revoked_at_index: None,
            suspect_from_index: None,
        });
        Keyring { version: 1, previous: None, root: self.key(Role::Root).public(), keys: entries.collect() }
    }

    /// The file that `evidence verify --trust` reads: log and root as verifier keys.
    #[must_use]
    pub fn trust_text(&self, origin: &str) -> String {
        let log = LogKey { name: origin.to_owned(), key: self.key(Role::Log).public() };
        let root = LogKey { name: format!("{origin}/root"), key: self.key(Role::Root).public() };
        format!("{log}\n{root}\n")
    }
}

/// Whom the bootstrap key of a role speaks for.
#[must_use]
pub fn principal(role: Role) -> String {
    if role == Role::Human { "operator".to_owned() } else { format!("stanch/{role}") }
}

/// The origin of a log: names the log after its key, so that two logs never share a name.
#[must_use]
pub fn origin(log: &PublicKey) -> String {
    format!("stanch.log/{}", log.id())
}

/// A private key as a PEM text; the caller keeps the file private.
#[must_use]
pub fn to_pem(key: &SigningKey) -> String {
    let der = [&PKCS8[..], &key.seed()].concat();
    format!("{PEM_BEGIN}{}{PEM_END}", Base64::encode_string(&der))
}

/// Reads a PEM text.
///
/// # Errors
/// Anything but an unencrypted Ed25519 key in PKCS #8.
pub fn from_pem(text: &str) -> Result<SigningKey, KeyError> {
    let body = text.strip_prefix(PEM_BEGIN).and_then(|rest| rest.strip_suffix(PEM_END)).ok_or(KeyError)?;
    let der = Base64::decode_vec(body).map_err(|_| KeyError)?;
    let seed: [u8; 32] = der.strip_prefix(&PKCS8).and_then(|seed| seed.try_into().ok()).ok_or(KeyError)?;
    Ok(SigningKey::from_seed(&seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Hold, Link, open};

    fn set() -> KeySet {
        KeySet::from_seeds(&std::array::from_fn(|at| [u8::try_from(at).unwrap() + 1; 32]))
    }

    #[test]
    fn a_key_survives_its_file_and_anything_else_is_refused() {
        let key = set().key(Role::Executor).clone();
        let text = to_pem(&key);
        assert_eq!(from_pem(&text).map(|read| read.seed()), Ok(key.seed()));
        for bad in ["", &text[1..], &text.replace("MC4", "MC5"), &text.replace("PRIVATE", "PUBLIC")] {
            assert_eq!(from_pem(bad).map(|read| read.seed()), Err(KeyError), "{bad}");
        }
    }

    #[test]
    fn the_bootstrap_keyring_admits_each_role_and_nothing_else() {
        let set = set();
        let ring = set.bootstrap_keyring();
        assert_eq!(ring.validate(), Ok(()));
        let hold = Hold { scope: "all".into(), version: 1, reason: "drill".into(), undo: false, by: None };
        for (role, seed) in Role::ALL.iter().zip(1..) {
            assert_eq!(set.key(*role).seed(), [seed; 32], "{role}");
        }
        let signed = set.signer(Role::Human).sign(&Link::default(), hold.clone()).unwrap();
        assert!(open(&signed, &ring, 0).is_ok());
        assert!(set.signer(Role::Executor).sign(&Link::default(), hold).is_err());
        assert!(KeySet::from_keys(vec![(Role::Log, set.key(Role::Log).clone())]).is_none());
    }

    #[test]
    fn the_trust_file_lists_log_and_root() {
        let set = set();
        let origin = origin(&set.key(Role::Log).public());
        let keys: Vec<LogKey> = set.trust_text(&origin).lines().map(|line| LogKey::parse(line).unwrap()).collect();
        assert_eq!(
            keys.iter().map(|key| key.key).collect::<Vec<_>>(),
            [set.key(Role::Log).public(), set.key(Role::Root).public()]
        );
    }
}
