//! Each replica's own record of its starts: a witness beside the actuator's ledger.

use crate::clock;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// One start of one replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Its generation, from its environment.
    pub generation: u64,
    /// Its replica number.
    pub replica: u32,
    /// Its process number.
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat`: with the number it names the process for ever.
    pub start_time: u64,
    /// When it started.
    pub started_ms: i64,
    /// The key it was started under, from its environment.
    pub key: String,
    /// Where it listens.
    pub address: String,
}

/// Who a process is, as whoever started it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its generation.
    pub generation: u64,
    /// The key it was started under.
    pub key: String,
}

impl Identity {
    /// Reads `STANCH_GENERATION` and `STANCH_KEY`.
    #[must_use]
    pub fn from_environment() -> Identity {
        let text = |name: &str| std::env::var_os(name).and_then(|value| value.into_string().ok()).unwrap_or_default();
        Identity { generation: text("STANCH_GENERATION").parse().unwrap_or(0), key: text("STANCH_KEY") }
    }
}

/// Every start of a service, oldest first.
///
/// # Errors
/// A log that cannot be read. One that does not exist has no starts.
pub fn read(data: &Path, service: &str) -> io::Result<Vec<Start>> {
    match std::fs::read_to_string(file(data, service)) {
        Ok(text) => text.lines().map(|line| serde_json::from_str(line).map_err(io::Error::other)).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Field 22 of `/proc/<pid>/stat`; `None`: no such process.
#[must_use]
pub fn start_time(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name, may itself hold blanks and brackets.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// Records this process's start.
pub(crate) fn record(data: &Path, service: &str, replica: u32, address: &str, who: &Identity) -> io::Result<()> {
    let pid = std::process::id();
    let start = Start {
        generation: who.generation,
        replica,
        pid,
        start_time: start_time(pid).unwrap_or(0),
        started_ms: clock::now_ms(),
        key: who.key.clone(),
        address: address.to_owned(),
    };
    let path = file(data, service);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut line = serde_json::to_vec(&start)?;
    line.push(b'\n');
    // One write of one line in append mode: replicas share the file.
    let mut log = OpenOptions::new().create(true).append(true).open(path)?;
    log.write_all(&line)?;
    log.sync_data()
}

fn file(data: &Path, service: &str) -> PathBuf {
    data.join("starts").join(format!("{service}.jsonl"))
}
