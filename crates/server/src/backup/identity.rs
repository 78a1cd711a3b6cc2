//! What a data directory holds beside its database that makes a server this one: its keys and its policy.

use crate::keys::{self, InitError, TRUST_FILE};
use governance::keys::KeySet;
use std::path::Path;
use store::Carried;

/// Read by everybody.
const OPEN: [&str; 4] = ["keyring.json", TRUST_FILE, "policy.toml", "config.toml"];

/// Every file that may belong to it, by its name in the data directory; the secret ones first.
fn names() -> impl Iterator<Item = (String, bool)> {
    let secret = KeySet::ROLES.iter().map(|role| (format!("keys/{role}.pem"), true));
    secret.chain(OPEN.iter().map(|name| ((*name).to_owned(), false)))
}

/// Reads those that are there.
pub(super) fn read(data: &Path) -> Result<Vec<Carried>, InitError> {
    // A set of keys that is not one would be noticed when it is needed, and too late.
    keys::load(data)?;
    let mut found = Vec::new();
    for (name, _) in names() {
        let path = data.join(&name);
        match std::fs::read(&path) {
            Ok(bytes) => found.push((name, bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(InitError::File { path, source }),
        }
    }
    Ok(found)
}

/// Writes those that a backup carries; a name that does not belong is left out, whatever it says.
pub(super) fn write(data: &Path, carried: &[Carried]) -> Result<(), InitError> {
    if carried.is_empty() {
        return Ok(());
    }
    let bytes_of = |name: &str| carried.iter().find(|(carried, _)| carried == name).map(|(_, bytes)| bytes);
    let files = names().filter_map(|(name, is_secret)| Some((bytes_of(&name)?, name, is_secret)));
    keys::put(data, files.map(|(bytes, name, is_secret)| (name, bytes.as_slice(), is_secret)))?;
    keys::load(data).map(|_| ())
}

/// Takes away what [`write`] wrote.
pub(super) fn remove(data: &Path) {
    for (name, _) in names() {
        let _ = std::fs::remove_file(data.join(name));
    }
    let _ = std::fs::remove_dir(data.join("keys"));
}
