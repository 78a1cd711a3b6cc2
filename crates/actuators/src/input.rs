//! Reading files that others wrote: bounded, and with the place of what is wrong.

use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It is longer than its kind may be.
    #[error("{}: more than {bytes_max} bytes", file.display())]
    TooLarge {
        /// Which.
        file: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// It holds bytes that are no UTF-8.
    #[error("{}:{line}:{column}: not text: a byte that is not UTF-8", file.display())]
    NotText {
        /// Which.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
}

/// Reads a file of at most `bytes_max` bytes; one without an end is given up there.
///
/// # Errors
/// As [`Error`] says; each names the file.
pub fn bytes(file: &Path, bytes_max: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file);
    let read = opened.and_then(|opened| opened.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes));
    read.map_err(|source| Error::Read { file: file.to_owned(), source })?;
    if bytes.len() as u64 > bytes_max { Err(Error::TooLarge { file: file.to_owned(), bytes_max }) } else { Ok(bytes) }
}

/// As [`bytes`], of a text.
///
/// # Errors
/// As [`Error`] says; each names the file.
pub fn text(file: &Path, bytes_max: u64) -> Result<String, Error> {
    let bytes = bytes(file, bytes_max)?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(error.as_bytes().get(..good).unwrap_or_default());
        let (line, column) = position(&before, good);
        Error::NotText { file: file.to_owned(), line, column }
    })
}

/// Line and column of a byte of a text, from 1.
#[must_use]
pub fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_up_to_its_limit_and_what_is_none_has_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f.toml");
        let said = |bytes: &[u8], bytes_max: u64| {
            std::fs::write(&file, bytes).unwrap();
            text(&file, bytes_max).map_err(|error| error.to_string().replace(file.to_str().unwrap(), "F"))
        };
        assert_eq!(said(b"five\n", 5), Ok("five\n".into()));
        assert_eq!(said(b"five\n", 4), Err("F: more than 4 bytes".into()));
        let broken = [&b"a = 1\nb = \""[..], "é".as_bytes(), b"\xff\""].concat();
        assert_eq!(said(&broken, 100), Err("F:2:7: not text: a byte that is not UTF-8".into()));
        assert!(matches!(text(dir.path(), 100), Err(Error::Read { .. })), "a directory");
        assert!(matches!(text(Path::new("/dev/zero"), 100), Err(Error::TooLarge { .. })), "a file without an end");
    }
}
