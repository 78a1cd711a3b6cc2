//! Small file operations that are all or nothing.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

/// Replaces a file: readers see the old or the new text, never a part. Survives the process, not the host.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    File::create(&aside)?.write_all(bytes)?;
    std::fs::rename(&aside, path)
}

/// As [`replace`], and survives the host.
pub(crate) fn replace_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Points a symbolic link at `target`, in one step.
pub(crate) fn point(link: &Path, target: &Path) -> io::Result<()> {
    let aside = link.with_extension("new");
    match std::fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(target, &aside)?;
    std::fs::rename(&aside, link)?;
    link.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}
