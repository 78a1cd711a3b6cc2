//! Versioned configuration: `config/<kind>/<ns>/<name>/current` is a link to `rev-<n>`, which is a link to
//! `config/_objects/<digest>`, a directory of files named by its content. A rollback moves one link.

use super::files;
use crate::field::Field;
use base::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What the counter last saw, so that it also counts what others changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    version: u64,
    target: String,
    inode: u64,
    changed: (i64, i64),
}

/// Stores revision `revision` of an object, without making it current. Files lie flat, by name.
///
/// # Errors
/// A field that is no configuration object, a file name that is a path, or a file that cannot be written.
pub fn publish(dir: &Path, field: &Field, revision: u64, content: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
    let home = home(dir, field).ok_or_else(|| invalid("not a configuration object"))?;
    if content.keys().any(|name| name.is_empty() || name.starts_with('.') || name.contains(['/', '\0'])) {
        return Err(invalid("a file name is not a path"));
    }
    let digest = digest(content);
    let object = dir.join("config").join("_objects").join(digest.to_string());
    fs::create_dir_all(&object)?;
    for (name, bytes) in content {
        files::replace_synced(&object.join(name), bytes)?;
    }
    fs::create_dir_all(&home)?;
    files::point(&home.join(format!("rev-{revision}")), &Path::new("../../../_objects").join(digest.to_string()))
}

/// Makes a stored revision current.
///
/// # Errors
/// A link that cannot be moved.
pub fn switch(dir: &Path, field: &Field, revision: i64) -> io::Result<()> {
    let home = home(dir, field).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let target = format!("rev-{revision}");
    let (current, version) = read(dir, field)?;
    if current != revision {
        files::point(&home.join("current"), Path::new(&target))?;
        let seen = Seen { version: version + 1, ..look(&home)? };
        files::replace_synced(&home.join("version.json"), &serde_json::to_vec(&seen)?)?;
    }
    Ok(())
}

/// The current revision, 0 for none, and how often it changed, whoever changed it.
///
/// # Errors
/// An object that does not exist.
pub fn read(dir: &Path, field: &Field) -> io::Result<(i64, u64)> {
    let home = home(dir, field).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    if !home.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    let now = match look(&home) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Seen::default(),
        seen => seen?,
    };
    let text = fs::read(home.join("version.json")).unwrap_or_default();
    let kept: Seen = serde_json::from_slice(&text).unwrap_or_default();
    let same = Seen { version: kept.version, ..now.clone() } == kept;
    let version = if same { kept.version } else { kept.version + 1 };
    let revision = now.target.strip_prefix("rev-").and_then(|number| number.parse().ok()).unwrap_or(0);
    Ok((revision, version))
}

/// A configuration object as it lies on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// The revision in use; 0 for none.
    pub current: i64,
    /// How often that changed, whoever changed it.
    pub version: u64,
    /// When it last changed, in Unix milliseconds.
    pub changed_at_ms: i64,
    /// The newest stored revisions, ascending; at most [`REVISIONS_MAX`].
    pub revisions: Vec<i64>,
}

/// LIMIT: stored revisions of one object that are looked at, newest first.
pub const REVISIONS_MAX: usize = 100;

/// Reads what is stored of an object and which revision is in use.
///
/// # Errors
/// An object that does not exist.
pub fn survey(dir: &Path, field: &Field) -> io::Result<Object> {
    let (current, version) = read(dir, field)?;
    let home = home(dir, field).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let changed_at_ms = look(&home).map_or(0, |seen| {
        let (seconds, nanoseconds) = seen.changed;
        seconds.saturating_mul(1_000).saturating_add(nanoseconds / 1_000_000)
    });
    let mut revisions = Vec::new();
    for entry in fs::read_dir(&home)? {
        let name = entry?.file_name();
        revisions.extend(name.to_str().and_then(|name| name.strip_prefix("rev-")?.parse::<i64>().ok()));
    }
    revisions.sort_unstable();
    let newest = revisions.split_off(revisions.len().saturating_sub(REVISIONS_MAX));
    Ok(Object { current, version, changed_at_ms, revisions: newest })
}

/// Whether the revision is stored and its content is what its name says.
pub(super) fn check(dir: &Path, field: &Field, revision: i64) -> Result<(), String> {
    let home = home(dir, field).ok_or("not a configuration object")?;
    let link = home.join(format!("rev-{revision}"));
    let named = fs::read_link(&link)
        .ok()
        .and_then(|target| target.file_name().and_then(|name| Digest::parse(&name.to_string_lossy())));
    let named = named.ok_or_else(|| format!("no revision {revision}"))?;
    let content = content(&link).map_err(|error| error.to_string())?;
    if digest(&content) == named { Ok(()) } else { Err(format!("revision {revision} is damaged")) }
}

fn home(dir: &Path, field: &Field) -> Option<PathBuf> {
    match field {
        Field::Config { kind, namespace, name } => Some(dir.join("config").join(kind).join(namespace).join(name)),
        _ => None,
    }
}

fn look(home: &Path) -> io::Result<Seen> {
    let link = home.join("current");
    let about = fs::symlink_metadata(&link)?;
    let target = fs::read_link(&link)?.to_string_lossy().into_owned();
    Ok(Seen { version: 0, target, inode: about.ino(), changed: (about.ctime(), about.ctime_nsec()) })
}

fn content(object: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut content = BTreeMap::new();
    for entry in fs::read_dir(object)? {
        let entry = entry?;
        content.insert(entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?);
    }
    Ok(content)
}

fn digest(content: &BTreeMap<String, Vec<u8>>) -> Digest {
    let mut bytes = Vec::new();
    for part in content.iter().flat_map(|(name, text)| [name.as_bytes(), text.as_slice()]) {
        bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    Digest::of(&bytes)
}

#[cfg(test)]
mod tests;
