//! Bytes inside JSON.

use base64ct::{Base64, Encoding as _};

/// Bytes as text.
pub(super) fn encode(bytes: &[u8]) -> String {
    Base64::encode_string(bytes)
}

/// Text as bytes.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    Base64::decode_vec(text).ok()
}
