//! Unpacking what was compressed by others: never beyond a limit, so that a small input cannot become a large one.

use std::io::{BufRead, BufReader, Read as _};

/// Why nothing was unpacked.
#[derive(Debug, thiserror::Error)]
pub enum GzipError {
    /// Not gzip, or cut off, or changed on its way.
    #[error("damaged gzip")]
    Damaged(#[source] std::io::Error),
    /// Longer than the limit.
    #[error("more than {0} bytes when unpacked")]
    TooLarge(u64),
}

/// Unpacks `bytes`, member after member, up to `bytes_max`.
///
/// # Errors
/// As [`GzipError`] says; nothing of a damaged input is used.
pub fn unpack(bytes: &[u8], bytes_max: u64) -> Result<Vec<u8>, GzipError> {
    let mut out = Vec::new();
    let mut limited = flate2::read::MultiGzDecoder::new(bytes).take(bytes_max.saturating_add(1));
    limited.read_to_end(&mut out).map_err(GzipError::Damaged)?;
    if out.len() as u64 > bytes_max { Err(GzipError::TooLarge(bytes_max)) } else { Ok(out) }
}

/// The same as a stream: no more is unpacked than is read. A damaged input fails where the damage is met.
pub fn stream(packed: impl BufRead) -> impl BufRead {
    BufReader::new(flate2::bufread::MultiGzDecoder::new(packed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_bomb_is_unpacked_to_its_limit_and_no_further() {
        let bomb = packed(&vec![0; 8 << 20]);
        assert!(bomb.len() < 16 << 10, "{} bytes", bomb.len());
        assert!(matches!(unpack(&bomb, (8 << 20) - 1), Err(GzipError::TooLarge(_))));
        assert_eq!(unpack(&bomb, 8 << 20).unwrap().len(), 8 << 20);
        let twice = [packed(b"one "), packed(b"two")].concat();
        assert_eq!(unpack(&twice, 7).unwrap(), b"one two");
        assert!(matches!(unpack(&twice, 6), Err(GzipError::TooLarge(6))));
    }

    #[test]
    fn what_is_cut_or_changed_is_damaged() {
        let whole = packed(b"twelve bytes");
        for cut in 0..whole.len() {
            assert!(matches!(unpack(&whole[..cut], 100), Err(GzipError::Damaged(_))), "{cut}");
        }
        for at in whole.len() - 8..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(matches!(unpack(&changed, 100), Err(GzipError::Damaged(_))), "{at}");
        }
    }
}
