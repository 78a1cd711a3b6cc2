//! The data directory's keys and first policy. Made once; private files are readable by their owner alone.

use actuators::input;
use base::{Keyring, Role, SigningKey};
use governance::keys::{self, KeySet};
use governance::policy::{Policy, PolicyFile};
use governance::record::Signer;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use store::{Cause, Directory, DirectoryError, Obstacle};

/// Name of the file in a data directory with the keys that its evidence is verified with.
pub const TRUST_FILE: &str = "trust.keys";
/// LIMIT: bytes of a policy file.
pub const POLICY_BYTES_MAX: u64 = 1 << 20;
/// The keyring's envelope in the data directory.
const KEYRING_FILE: &str = "keyring.json";
/// The folder of the private keys in it.
const KEYS_FOLDER: &str = "keys";

/// The keys the server's process holds, each in its role.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Votes, detections, intents.
    pub detector: Signer,
    /// Proposals of planning agents.
    pub planning: Signer,
    /// Vetoes of verification agents.
    pub verification: Signer,
    /// Pilot reports.
    pub runner: Signer,
    /// Checks and decisions.
    pub evaluator: Signer,
    /// The root, for the first policy record.
    pub root: Signer,
    /// Checkpoints.
    pub log: SigningKey,
    /// Who may sign.
    pub keyring: Keyring,
    /// Its envelope, signed by the root.
    pub keyring_envelope: String,
    /// The log's name.
    pub origin: String,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// It cannot be written.
    #[error("{obstacle}")]
    Unwritable {
        /// What stands in the way.
        obstacle: Obstacle,
    },
    /// Another process has it.
    #[error(transparent)]
    InUse(DirectoryError),
    /// A file that cannot be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A key file that is not one.
    #[error("{} is not a key file of this program; restore it from a backup or start with a new data directory", .0.display())]
    Key(PathBuf),
    /// A policy file that cannot be read, or is no text.
    #[error(transparent)]
    Text(#[from] input::Error),
    /// A policy file that is not TOML, or has a key or value that has no place in it.
    #[error("{}:{line}:{column}: {why}", path.display())]
    PolicySyntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong there.
        why: String,
    },
    /// A policy file that does not load.
    #[error("{}: {why}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// Why, with the place.
        why: String,
    },
    /// No randomness for keys.
    #[error("no randomness for keys: {0}")]
    Random(#[from] getrandom::Error),
    /// The keyring could not be signed.
    #[error(transparent)]
    Keyring(#[from] base::KeyringError),
}

/// What `init` found or made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Initialized {
    /// The data directory.
    pub data: String,
    /// Whether keys were made now.
    pub made: bool,
    /// File with the verifier keys, for `evidence verify --trust`.
    pub trust: String,
    /// The policy file.
    pub policy: String,
}

/// Makes keys and a first policy where there are none; changes nothing that is there.
///
/// # Errors
/// A directory that cannot be used or that another process has, or no randomness.
pub fn init(data: &Path) -> Result<Initialized, InitError> {
    store::create_directory(data).map_err(|source| unwritable(data, source))?;
    let policy = data.join("policy.toml");
    let has_keys = || key_path(data, Role::Root).exists();
    let mut made = false;
    if !has_keys() || !policy.exists() {
        // Two that start here at once must not mix their keys: what is missing is asked again under the lock.
        let _held = Directory::take(data).map_err(|error| untaken(data, error))?;
        made = !has_keys();
        if made {
            make_keys(data)?;
        }
        if !policy.exists() {
            write(&policy, governance::policy::DEFAULT_TEXT)?;
        }
    }
    Ok(Initialized {
        data: data.display().to_string(),
        made,
        trust: data.join(TRUST_FILE).display().to_string(),
        policy: policy.display().to_string(),
    })
}

/// Makes all keys, or none: the folder gets its name last, so that a process that dies here leaves nothing that a
/// later start would take for a set of keys.
fn make_keys(data: &Path) -> Result<(), InitError> {
    let mut seeds = [[0_u8; 32]; Role::ALL.len()];
    for seed in &mut seeds {
        getrandom::fill(seed)?;
    }
    let set = KeySet::from_seeds(&seeds);
    let (folder, fresh) = (data.join(KEYS_FOLDER), data.join(format!("{KEYS_FOLDER}.new")));
    let failed = |source| unwritable(&fresh, source);
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh).map_err(failed)?;
    }
    std::fs::create_dir(&fresh).map_err(failed)?;
    for role in KeySet::ROLES {
        write_private(&fresh.join(format!("{role}.pem")), &keys::to_pem(set.key(*role)))?;
    }
    sync(&fresh)?;
    let origin = keys::origin(&set.key(Role::Log).public());
    write(&data.join(TRUST_FILE), &set.trust_text(&origin))?;
    write(&data.join(KEYRING_FILE), &keyring_envelope(&set)?.to_json())?;
    std::fs::rename(&fresh, &folder).map_err(|source| unwritable(&folder, source))?;
    sync(data)
}

/// Writes files into a data directory that has none of them: name, content, and whether only their owner may read them.
///
/// # Errors
/// One that is there already, or cannot be written.
pub(crate) fn put<'a>(data: &Path, files: impl Iterator<Item = (String, &'a [u8], bool)>) -> Result<(), InitError> {
    let folder = data.join(KEYS_FOLDER);
    std::fs::create_dir(&folder).map_err(|source| unwritable(&folder, source))?;
    for (name, bytes, is_secret) in files {
        let path = data.join(name);
        let mode = if is_secret { 0o600 } else { 0o644 };
        let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        made.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .map_err(|source| unwritable(&path, source))?;
    }
    sync(&folder)?;
    sync(data)
}

/// The keys of an initialized data directory.
///
/// # Errors
/// A key that is missing or not a key.
pub fn load(data: &Path) -> Result<Keys, InitError> {
    let read = |role: &Role| Ok((*role, read_key(&key_path(data, *role))?));
    let all = KeySet::ROLES.iter().map(read).collect::<Result<Vec<_>, InitError>>()?;
    let set = KeySet::from_keys(all).ok_or_else(|| InitError::Key(data.join("keys")))?;
    let keyring = set.bootstrap_keyring();
    let root = set.signer(Role::Root);
    let envelope = keyring_envelope(&set)?;
    Ok(Keys {
        detector: set.signer(Role::Detector),
        planning: set.signer(Role::Agent),
        verification: set.signer(Role::Agent),
        runner: set.signer(Role::Runner),
        evaluator: set.signer(Role::Evaluator),
        root,
        log: set.key(Role::Log).clone(),
        origin: keys::origin(&set.key(Role::Log).public()),
        keyring,
        keyring_envelope: envelope.to_json(),
    })
}

/// The keyring an executor trusts: the one in its own directory, signed by the root it names.
///
/// # Errors
/// A file that is missing or not a signed keyring.
pub fn load_keyring(data: &Path) -> Result<Keyring, InitError> {
    let path = data.join(KEYRING_FILE);
    let text = std::fs::read_to_string(&path).map_err(|source| InitError::File { path: path.clone(), source })?;
    let bad = || InitError::Key(path.clone());
    let envelope = base::Envelope::from_json(&text).map_err(|_| bad())?;
    let statement = governance::record::Statement::from_bytes(&envelope.payload).map_err(|_| bad())?;
    let governance::record::Record::Keyring(keyring) = statement.record else { return Err(bad()) };
    governance::record::open(&envelope, &keyring, 0).map_err(|_| bad())?;
    Ok(keyring)
}

/// The executor's own key, and nobody else's.
///
/// # Errors
/// A key that is missing or not a key.
pub fn load_executor(data: &Path) -> Result<Signer, InitError> {
    load_signer(data, Role::Executor)
}

/// A person's own key, for what only a person may sign.
///
/// # Errors
/// A key that is missing or not a key.
pub fn load_human(data: &Path) -> Result<Signer, InitError> {
    load_signer(data, Role::Human)
}

/// Reads a policy file.
///
/// # Errors
/// A file that is missing, does not parse, or does not load; with its place.
pub fn load_policy(path: &Path) -> Result<(Policy, String), InitError> {
    let text = input::text(path, POLICY_BYTES_MAX)?;
    let fail = |why: String| InitError::Policy { path: path.to_owned(), why };
    let file: PolicyFile = toml::from_str(&text).map_err(|error| {
        let (line, column) = input::position(&text, error.span().map_or(0, |span| span.start));
        InitError::PolicySyntax { path: path.to_owned(), line, column, why: error.message().to_owned() }
    })?;
    let policy = file.load().map_err(|error| fail(error.to_string()))?;
    Ok((policy, text))
}

fn load_signer(data: &Path, role: Role) -> Result<Signer, InitError> {
    let key = read_key(&key_path(data, role))?;
    Ok(Signer { key, role, principal: keys::principal(role), trust_zone: keys::BOOTSTRAP_ZONE.to_owned() })
}

fn keyring_envelope(set: &KeySet) -> Result<base::Envelope, base::KeyringError> {
    set.signer(Role::Root).sign(&governance::record::Link::default(), set.bootstrap_keyring())
}

fn key_path(data: &Path, role: Role) -> PathBuf {
    data.join(KEYS_FOLDER).join(format!("{role}.pem"))
}

fn read_key(path: &Path) -> Result<SigningKey, InitError> {
    let text = std::fs::read_to_string(path).map_err(|source| InitError::File { path: path.to_owned(), source })?;
    keys::from_pem(&text).map_err(|_| InitError::Key(path.to_owned()))
}

/// Writes a file whole or not at all, whatever dies meanwhile.
fn write(path: &Path, text: &str) -> Result<(), InitError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let (fresh, folder) = (path.with_file_name(name), path.parent().unwrap_or(path));
    let written = File::create(&fresh)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&fresh, path));
    written.map_err(|source| unwritable(path, source))?;
    sync(folder)
}

/// Makes the names in a directory durable.
fn sync(folder: &Path) -> Result<(), InitError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| unwritable(folder, source))
}

/// A file or directory that cannot be written, told by its cause where that can be known.
fn unwritable(path: &Path, source: std::io::Error) -> InitError {
    let obstacle = Obstacle::of(path, &source);
    match obstacle.cause {
        Cause::Broken | Cause::Missing => InitError::File { path: path.to_owned(), source },
        Cause::Full | Cause::ReadOnly | Cause::TooLong | Cause::Forbidden => InitError::Unwritable { obstacle },
    }
}

fn untaken(data: &Path, error: DirectoryError) -> InitError {
    match error {
        DirectoryError::Unusable { source, .. } => unwritable(data, source),
        in_use @ DirectoryError::InUse { .. } => InitError::InUse(in_use),
    }
}

fn write_private(path: &Path, text: &str) -> Result<(), InitError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(|source| unwritable(path, source))
}

#[cfg(test)]
mod tests;
