//! The container: an uncompressed POSIX tar in exactly one form. Names sorted, times, owners and devices
//! zero, so that equal content gives equal bytes and every byte is accounted for.

use std::collections::BTreeMap;

const BLOCK: usize = 512;
pub(super) const NAME_MAX: usize = 100;

/// Writes the container.
pub(super) fn write(members: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in members {
        out.extend_from_slice(&header(name, content.len()));
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

/// Reads the members; the caller compares [`write`] of them with the input.
pub(super) fn read(bytes: &[u8]) -> Option<BTreeMap<String, Vec<u8>>> {
    let mut members = BTreeMap::new();
    let mut rest = bytes;
    loop {
        let (block, after) = rest.split_at_checked(BLOCK)?;
        if block.iter().all(|byte| *byte == 0) {
            return Some(members);
        }
        let name = block.get(..NAME_MAX)?;
        let name = name.split(|byte| *byte == 0).next()?;
        let name = std::str::from_utf8(name).ok()?;
        let size = block.get(124..135).and_then(|digits| std::str::from_utf8(digits).ok())?;
        let size = usize::from_str_radix(size, 8).ok()?;
        let content = after.get(..size)?;
        rest = after.get(size.checked_next_multiple_of(BLOCK)?..)?;
        if !is_name(name) || members.insert(name.to_owned(), content.to_vec()).is_some() {
            return None;
        }
    }
}

/// Whether a member may have this name: relative, plain characters, no way out of its folder.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain);
    name.len() <= NAME_MAX && name.split('/').all(part)
}

fn header(name: &str, size: usize) -> [u8; BLOCK] {
    assert!(is_name(name), "member names are built here");
    let mut block = [0; BLOCK];
    let mut put = |at: usize, text: &str| {
        block.iter_mut().skip(at).zip(text.bytes()).for_each(|(to, from)| *to = from);
    };
    put(0, name);
    put(100, "0000444\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\0");
    put(263, "00");
    put(329, "0000000\0");
    put(337, "0000000\0");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let checksum = format!("{sum:06o}\0 ");
    block.iter_mut().skip(148).zip(checksum.bytes()).for_each(|(to, from)| *to = from);
    block
}
