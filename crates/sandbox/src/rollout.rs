//! How the shop's operators roll out configuration: a new revision beside the old ones, then one link moved. The layout is
//! that of `docs/topology.md`, "Configuration".

use base::Digest;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What the payments service reads.
pub const PAYMENTS: &str = "config/shop/payments";
/// The key that signs payments.
pub const KEY: &str = "2026-11";

/// The files of one revision, by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A revision of the payments service's configuration: which key signs, and the keys there are.
#[must_use]
pub fn payments(key: &str) -> Files {
    let json = |value: serde_json::Value| value.to_string().into_bytes();
    [
        ("settings.json".to_owned(), json(serde_json::json!({ "key": key }))),
        ("keys.json".to_owned(), json(serde_json::json!({ "keys": [KEY] }))),
    ]
    .into()
}

/// Stores the files as the next revision and makes it current; answers its number.
///
/// # Errors
/// Files that cannot be written.
pub fn roll_out(dir: &Path, object: &str, files: &Files) -> io::Result<u32> {
    let home = home(dir, object);
    let revision = newest(&home)? + 1;
    let name = digest(files).to_string();
    let stored = dir.join("config").join("_objects").join(&name);
    std::fs::create_dir_all(&stored)?;
    for (file, bytes) in files {
        std::fs::write(stored.join(file), bytes)?;
    }
    std::fs::create_dir_all(&home)?;
    let content = Path::new("../../../_objects").join(name);
    std::os::unix::fs::symlink(content, home.join(format!("rev-{revision}")))?;
    let aside = home.join("current.new");
    let _ = std::fs::remove_file(&aside);
    std::os::unix::fs::symlink(format!("rev-{revision}"), &aside)?;
    std::fs::rename(aside, home.join("current"))?;
    Ok(revision)
}

/// The revision in use.
///
/// # Errors
/// A link that cannot be read. None is no error.
pub fn current(dir: &Path, object: &str) -> io::Result<Option<u32>> {
    match std::fs::read_link(home(dir, object).join("current")) {
        Ok(target) => Ok(target.to_str().and_then(number)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the revision in use has this content.
#[must_use]
pub fn is_current(dir: &Path, object: &str, files: &Files) -> bool {
    let home = home(dir, object);
    let revision = std::fs::read_link(home.join("current"));
    let content = revision.and_then(|revision| std::fs::read_link(home.join(revision)));
    content.is_ok_and(|content| content.ends_with(digest(files).to_string()))
}

/// Where an object's revisions lie.
#[must_use]
pub fn home(dir: &Path, object: &str) -> PathBuf {
    dir.join("config").join(object)
}

fn newest(home: &Path) -> io::Result<u32> {
    let entries = match std::fs::read_dir(home) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut newest = 0;
    for entry in entries {
        newest = newest.max(entry?.file_name().to_str().and_then(number).unwrap_or(0));
    }
    Ok(newest)
}

fn number(name: &str) -> Option<u32> {
    name.strip_prefix("rev-")?.parse().ok()
}

/// A revision is named by its content: each name and each text with its length before it.
fn digest(files: &Files) -> Digest {
    let mut bytes = Vec::new();
    for part in files.iter().flat_map(|(name, text)| [name.as_bytes(), text.as_slice()]) {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    Digest::of(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_a_new_revision_and_one_link() {
        let dir = tempfile::tempdir().expect("dir");
        assert_eq!(current(dir.path(), PAYMENTS).expect("read"), None);
        assert_eq!(roll_out(dir.path(), PAYMENTS, &payments(KEY)).expect("rolled out"), 1);
        assert_eq!(roll_out(dir.path(), PAYMENTS, &payments("2026-12")).expect("rolled out"), 2);
        assert_eq!(current(dir.path(), PAYMENTS).expect("read"), Some(2));
        let read = |revision: &str| {
            let file = home(dir.path(), PAYMENTS).join(revision).join("settings.json");
            std::fs::read_to_string(file).expect("followed")
        };
        assert_eq!((read("rev-1"), read("current")), (r#"{"key":"2026-11"}"#.into(), r#"{"key":"2026-12"}"#.into()));
        // The same content again is the same object under another number.
        assert_eq!(roll_out(dir.path(), PAYMENTS, &payments(KEY)).expect("rolled out"), 3);
        assert_eq!(read("current"), read("rev-1"));
    }
}
