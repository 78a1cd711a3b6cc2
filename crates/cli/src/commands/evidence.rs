//! `stanch evidence`: bundles, offline.

use super::{follow, read_file};
use crate::failure::Failure;
use governance::bundle::{BUNDLE_BYTES_MAX, Trust, VerifyError, verify as verify_bundle};
use std::path::{Path, PathBuf};

/// LIMIT: bytes of a file of pinned keys.
const TRUST_BYTES_MAX: u64 = 1 << 20;

/// Exit 0 when sound, 50 when not.
pub(crate) fn verify(file: &Path, trust: Option<&Path>, json: bool) -> Result<u8, Failure> {
    let bytes = read(file)?;
    let pinned = pinned(trust)?;
    match verify_bundle(&bytes, pinned.as_ref()) {
        Ok(verified) => {
            let name = trust.map(|path| path.display().to_string()).unwrap_or_default();
            if json {
                out!(
                    "{}",
                    serde_json::json!({
                        "verified": true, "pinned": verified.is_pinned, "incident": verified.incident, "outcome": verified.outcome,
                        "records": verified.records, "log": verified.origin, "log_size": verified.log_size, "notes": verified.notes,
                    })
                );
            } else {
                out!("{}", verified.first_line(&name));
                out!(
                    "incident {} · outcome {} · {} records · log {} of {} entries",
                    verified.incident,
                    verified.outcome,
                    verified.records,
                    verified.origin,
                    verified.log_size
                );
                for note in &verified.notes {
                    out!("note: {note}");
                }
            }
            Ok(0)
        }
        Err(error) => {
            if json {
                out!(
                    "{}",
                    serde_json::json!({ "verified": false, "code": error.code.to_string(), "member": error.member, "why": error.why })
                );
            }
            Err(unverified(file, &error))
        }
    }
}

/// Exit 50: a bundle that nobody should rely on.
pub(super) fn unverified(file: &Path, error: &VerifyError) -> Failure {
    Failure {
        exit: 50,
        message: format!("NOT VERIFIED {}: {error}", file.display()),
        next: Some("stanch evidence export INCIDENT --out NEW, from who sealed it; do not rely on this copy".into()),
    }
}

/// The keys that a bundle has to be signed with, if a file of them is given.
pub(super) fn pinned(trust: Option<&Path>) -> Result<Option<Trust>, Failure> {
    let Some(path) = trust else { return Ok(None) };
    let next = "--trust trust.keys, with the file that `stanch init` wrote";
    let bytes = read_file(path, TRUST_BYTES_MAX).map_err(|failure| failure.next(next))?;
    let text = String::from_utf8_lossy(&bytes);
    Trust::parse(&text).map(Some).map_err(|error| Failure::file(path, error).next(next))
}

/// Saves an incident's bundle.
pub(crate) async fn export(incident: &str, server: &str, out: Option<PathBuf>) -> Result<u8, Failure> {
    let bytes = follow::bundle(server, incident).await?;
    let path = out.unwrap_or_else(|| PathBuf::from(format!("inc-{incident}.stanch")));
    std::fs::write(&path, &bytes).map_err(|error| Failure::internal(format!("{}: {error}", path.display())))?;
    out!("{}", path.display());
    Ok(0)
}

/// Lists a bundle's records in order.
pub(crate) fn show(file: &Path, json: bool) -> Result<u8, Failure> {
    let bytes = read(file)?;
    let records = governance::bundle::records(&bytes);
    let records = records.map_err(|error| Failure {
        exit: 50,
        message: format!("{}: {error}", file.display()),
        next: Some("stanch evidence export INCIDENT, which saves an incident's bundle".into()),
    })?;
    for (index, record) in &records {
        let shown = record.render();
        if json {
            out!("{}", serde_json::json!({ "index": index, "record": shown }));
        } else {
            out!("{index:>6}  {:<12} {}", record.record.kind(), record.common.principal);
        }
    }
    Ok(0)
}

pub(super) fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    read_file(file, BUNDLE_BYTES_MAX as u64)
        .map_err(|failure| failure.next("stanch evidence export INCIDENT, which saves an incident's bundle"))
}

#[cfg(test)]
mod tests;
