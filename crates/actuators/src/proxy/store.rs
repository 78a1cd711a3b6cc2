//! The proxy's files: written aside, synced and renamed, so that a reader sees the old or the new.

use super::Error;
use super::settings::Book;
use crate::control::{PROXY_FILE, ProxyFile};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Name of the settings file in the data directory.
const SETTINGS_FILE: &str = "proxy-settings.json";
/// Name of the audit file in the data directory: one line for whatever the proxy did by itself.
const AUDIT_FILE: &str = "proxy-audit.jsonl";

/// Where the book is kept.
#[derive(Clone, Debug)]
pub(super) struct Store {
    settings: PathBuf,
    audit: PathBuf,
}

/// One thing the proxy did by itself.
#[derive(Debug, Serialize)]
pub(super) struct Audit<'a> {
    /// When.
    pub(super) at_ms: i64,
    /// `expired` or `withheld`.
    pub(super) what: &'static str,
    /// Which field.
    pub(super) field: &'a str,
    /// Whose setting ended.
    pub(super) key: &'a str,
    /// The value that came back, or would have.
    pub(super) restore: i64,
}

impl Store {
    pub(super) fn open(dir: &Path) -> Result<Store, Error> {
        std::fs::create_dir_all(dir).map_err(|source| Error::File { path: dir.to_owned(), source })?;
        Ok(Store { settings: dir.join(SETTINGS_FILE), audit: dir.join(AUDIT_FILE) })
    }

    /// The book as it was last saved; an empty one if there is none. A damaged one is an error: starting
    /// without it would lift limits and forget fences.
    pub(super) fn load(&self) -> Result<Book, Error> {
        let bytes = match std::fs::read(&self.settings) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Book::default()),
            Err(source) => return Err(Error::File { path: self.settings.clone(), source }),
        };
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::Damaged { path: self.settings.clone(), why: error.to_string() })
    }

    pub(super) fn save(&self, book: &Book) -> Result<(), Error> {
        write_json(&self.settings, book)
    }

    pub(super) fn note(&self, audit: &Audit<'_>) -> io::Result<()> {
        let mut line = serde_json::to_vec(audit)?;
        line.push(b'\n');
        let mut file = OpenOptions::new().create(true).append(true).open(&self.audit)?;
        file.write_all(&line)?;
        file.sync_data()
    }
}

/// The addresses of the proxy that ran here before; none if there was none.
pub(super) fn addresses(dir: &Path) -> ProxyFile {
    let bytes = std::fs::read(dir.join(PROXY_FILE)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Replaces a file by another content, durably and at once.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    replace(path, value).map_err(|source| Error::File { path: path.to_owned(), source })
}

fn replace<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}
