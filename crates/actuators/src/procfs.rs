//! The little that is read from `/proc`: identity, state and environment of a process.

/// Field 22 of `/proc/<pid>/stat`: with the number it names a process for ever. `None`: no such process.
#[must_use]
pub fn start_time(pid: u32) -> Option<u64> {
    fields_after_name(pid)?.get(19)?.parse().ok()
}

/// Whether the process is still the one that had this start time, and not merely waiting to be reaped.
#[must_use]
pub fn is_same(pid: u32, started: u64) -> bool {
    start_time(pid) == Some(started) && state(pid) != Some('Z')
}

/// The state letter: `R`, `S`, `T` (stopped), `Z` (ended, not reaped) and so on.
#[must_use]
pub fn state(pid: u32) -> Option<char> {
    fields_after_name(pid)?.first()?.chars().next()
}

/// Resident memory in KiB; `None`: no such process.
#[must_use]
pub fn memory_kib(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// One variable of the process's environment as it was at its start.
#[must_use]
pub fn variable(pid: u32, name: &str) -> Option<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{name}=");
    let entry = bytes.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(prefix.as_bytes()))?;
    String::from_utf8(entry.to_vec()).ok()
}

/// The fields of `stat` from the third on. The second, the name, may itself hold blanks and brackets.
fn fields_after_name(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_itself_and_no_other() {
        let pid = std::process::id();
        let started = start_time(pid).expect("own stat");
        assert!(is_same(pid, started));
        assert!(!is_same(pid, started + 1));
        assert_eq!((start_time(u32::MAX), memory_kib(u32::MAX)), (None, None));
        assert!(memory_kib(pid).is_some_and(|held| held > 100), "a running program holds some memory");
        assert_eq!(variable(pid, "STANCH_NO_SUCH_VARIABLE"), None);
    }
}
