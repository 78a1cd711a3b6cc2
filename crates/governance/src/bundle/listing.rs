use super::{BUNDLE_BYTES_MAX, VerifyError, tar};
use crate::Code;
use crate::record::Statement;
use base::Envelope;

/// The records of a bundle by log index, in order. Nothing is verified: this is for reading, not for believing.
///
/// # Errors
/// Bytes that are no bundle.
pub fn records(bytes: &[u8]) -> Result<Vec<(u64, Statement)>, VerifyError> {
    let fail = || VerifyError { code: Code::V0, member: "bundle".into(), why: "not a container of this form".into() };
    let members = Some(bytes).filter(|bytes| bytes.len() <= BUNDLE_BYTES_MAX).and_then(tar::read).ok_or_else(fail)?;
    let read = |(name, content): (&String, &Vec<u8>)| {
        let index = name.strip_prefix("entries/")?.parse().ok()?;
        let envelope = Envelope::from_json(std::str::from_utf8(content).ok()?).ok()?;
        Some((index, Statement::from_bytes(&envelope.payload).ok()?))
    };
    Ok(members.iter().filter_map(read).collect())
}
