//! A disk that remembers: the recorder below a server, and what is left of its files after a loss of power.

use crate::support::Random;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The unit that a disk writes whole or not at all.
const SECTOR: usize = 512;
const HEAD_BYTES: usize = 25;

/// The recorder, built, and the files it talks through.
pub(crate) struct Recorder {
    dir: tempfile::TempDir,
}

impl Recorder {
    /// Builds the recorder with the C compiler that the workspace needs anyway.
    #[expect(clippy::disallowed_methods, reason = "the test builds its recorder")]
    pub(crate) fn build() -> Recorder {
        let dir = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/durability/disk.c");
        let mut compiler = std::process::Command::new("cc");
        let built = compiler.args(["-O1", "-shared", "-fPIC", source, "-o"]).arg(dir.path().join("disk.so")).status();
        assert!(built.unwrap().success());
        std::fs::create_dir(dir.path().join("data")).unwrap();
        Recorder { dir }
    }

    /// The data directory that is recorded.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("data")
    }

    /// Where the record goes.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn faults(&self) -> PathBuf {
        self.dir.path().join("faults")
    }

    /// The environment of a recorded process.
    pub(crate) fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        let library = self.dir.path().join("disk.so");
        vec![
            ("LD_PRELOAD", library),
            ("DISK_DIR", self.data()),
            ("DISK_LOG", self.log()),
            ("DISK_FAULT", self.faults()),
        ]
    }

    /// The environment of a process whose calls can be made to fail, and are not recorded.
    pub(crate) fn failing_only(&self) -> Vec<(&'static str, PathBuf)> {
        self.environment().into_iter().filter(|(name, _)| *name != "DISK_LOG").collect()
    }

    /// Calls of this kind fail with an error number, after so many that do not, until [`Recorder::heal`] is called.
    pub(crate) fn fail(&self, kind: &str, error: rustix::io::Errno, spared: u64) {
        let fresh = self.dir.path().join("faults.new");
        std::fs::write(&fresh, format!("{kind} {} {spared}", error.raw_os_error())).unwrap();
        std::fs::rename(fresh, self.faults()).unwrap();
    }

    pub(crate) fn heal(&self) {
        std::fs::remove_file(self.faults()).unwrap();
    }

    /// How much was recorded: what happened before now lies below it.
    pub(crate) fn position(&self) -> u64 {
        std::fs::metadata(self.log()).map_or(0, |log| log.len())
    }

    /// Everything recorded, each with the position after it. The last recorded process has ended.
    pub(crate) fn operations(&self) -> Vec<(u64, Operation)> {
        let log = std::fs::read(self.log()).unwrap_or_default();
        let mut at = 0;
        let mut operations = Vec::new();
        while let Some((operation, length)) = Operation::read(&log[at..]) {
            at += length;
            operations.push((at as u64, operation));
        }
        operations
    }

    /// Takes away half a record, which a process that was killed may have left at the end.
    pub(crate) fn mend(&self) {
        let end = self.operations().last().map_or(0, |(position, _)| *position);
        if let Ok(log) = std::fs::File::options().write(true).open(self.log()) {
            log.set_len(end).unwrap();
        }
    }
}

/// One change of a file or of the names in a directory, or a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create(String),
    Mkdir(String),
    Rename(String, String),
    Unlink(String),
    Write(String, usize, Vec<u8>),
    Length(String, usize),
    Sync(String),
    /// A sync that failed: what was written since the last one is as good as lost, though reads still show it.
    FailedSync(String),
}

impl Operation {
    /// What it does to which file, without the content.
    pub(crate) fn name(&self) -> String {
        match self {
            Operation::Write(path, offset, data) => format!("write {} bytes of {path} at {offset}", data.len()),
            other => format!("{other:?}"),
        }
    }

    /// The first operation and its length; none where the record ends before it does.
    fn read(bytes: &[u8]) -> Option<(Operation, usize)> {
        if bytes.len() < HEAD_BYTES {
            return None;
        }
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let long = |at: usize| usize::try_from(u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap();
        let (first, second, offset, length) = (word(1), word(5), long(9), long(17));
        if bytes.len() < HEAD_BYTES + first + second + length {
            return None;
        }
        let text = |at: usize, length: usize| String::from_utf8(bytes[at..at + length].to_vec()).unwrap();
        let path = text(HEAD_BYTES, first);
        let other = text(HEAD_BYTES + first, second);
        let data = HEAD_BYTES + first + second;
        let operation = match bytes[0] {
            b'C' => Operation::Create(path),
            b'M' => Operation::Mkdir(path),
            b'R' => Operation::Rename(path, other),
            b'U' => Operation::Unlink(path),
            b'W' => Operation::Write(path, offset, bytes[data..data + length].to_vec()),
            b'L' => Operation::Length(path, offset),
            b'S' => Operation::Sync(path),
            b'F' => Operation::FailedSync(path),
            other => panic!("an unknown operation {other}"),
        };
        Some((operation, data + length))
    }
}

/// The files of one directory, split into what is on the disk and what is only on its way there.
#[derive(Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    /// Names as a running program sees them, and as the disk has them; no number stands for a directory.
    live: Names,
    durable: Names,
    /// Changes of names since the last sync of their directory, with that directory.
    unsynced: Vec<(String, Operation, Option<usize>)>,
}

type Names = BTreeMap<String, Option<usize>>;

#[derive(Default)]
struct File {
    durable: Vec<u8>,
    unsynced: Vec<Write>,
}

#[derive(Clone)]
enum Write {
    At(usize, Vec<u8>),
    Length(usize),
}

/// What becomes of everything that was not synced when the power goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    /// Nothing of it reached the disk.
    Everything,
    /// All of it did.
    Nothing,
    /// All but the end of the last write of each file, cut off between two sectors.
    Cut,
    /// All, but the last write of each file is zeros: its length was written and its content was not.
    Zeroed,
    /// All, but one bit in the last write of each file is wrong.
    Flipped,
    /// Any part of it, in any order, each write whole or cut.
    Mixed,
}

pub(crate) const LOSSES: [Loss; 6] =
    [Loss::Everything, Loss::Nothing, Loss::Cut, Loss::Zeroed, Loss::Flipped, Loss::Mixed];

fn parent(path: &str) -> String {
    path.rsplit_once('/').map_or(String::new(), |(parent, _)| parent.to_owned())
}

fn change(names: &mut Names, operation: &Operation, file: Option<usize>) {
    match operation {
        Operation::Create(path) | Operation::Mkdir(path) => {
            names.insert(path.clone(), file);
        }
        Operation::Unlink(path) => {
            names.remove(path);
        }
        Operation::Rename(from, to) => {
            let inside = format!("{from}/");
            let moved: Vec<String> =
                names.keys().filter(|path| *path == from || path.starts_with(&inside)).cloned().collect();
            for path in moved {
                if let Some(file) = names.remove(&path) {
                    names.insert(format!("{to}{}", &path[from.len()..]), file);
                }
            }
        }
        Operation::Write(..) | Operation::Length(..) | Operation::Sync(_) | Operation::FailedSync(_) => {}
    }
}

fn write(content: &mut Vec<u8>, write: &Write) {
    match write {
        Write::At(offset, data) => {
            let end = offset + data.len();
            content.resize(content.len().max(end), 0);
            content[*offset..end].copy_from_slice(data);
        }
        Write::Length(length) => content.resize(*length, 0),
    }
}

impl Disk {
    /// Does what the program did.
    pub(crate) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Create(path) | Operation::Mkdir(path) => {
                let file = matches!(operation, Operation::Create(_)).then_some(self.files.len());
                self.files.extend(file.map(|_| File::default()));
                self.rename(parent(path), operation, file);
            }
            Operation::Rename(path, _) | Operation::Unlink(path) => self.rename(parent(path), operation, None),
            Operation::Write(path, offset, data) => self.push(path, Write::At(*offset, data.clone())),
            Operation::Length(path, length) => self.push(path, Write::Length(*length)),
            Operation::Sync(path) => match self.file(path) {
                Some(file) => file.unsynced.drain(..).for_each(|one| write(&mut file.durable, &one)),
                None => {
                    let (synced, rest): (Vec<_>, Vec<_>) =
                        std::mem::take(&mut self.unsynced).into_iter().partition(|(folder, ..)| folder == path);
                    synced.iter().for_each(|(_, operation, file)| change(&mut self.durable, operation, *file));
                    self.unsynced = rest;
                }
            },
            Operation::FailedSync(path) => {
                if let Some(file) = self.file(path) {
                    file.unsynced.clear();
                }
            }
        }
    }

    fn rename(&mut self, folder: String, operation: &Operation, file: Option<usize>) {
        change(&mut self.live, operation, file);
        self.unsynced.push((folder, operation.clone(), file));
    }

    fn file(&mut self, path: &str) -> Option<&mut File> {
        let number = (*self.live.get(path)?)?;
        self.files.get_mut(number)
    }

    fn push(&mut self, path: &str, write: Write) {
        // A file that was deleted while open is nowhere to be found again.
        if let Some(file) = self.file(path) {
            file.unsynced.push(write);
        }
    }

    /// The files as they are found after the power went.
    pub(crate) fn after(&self, loss: Loss, random: &mut Random) -> BTreeMap<String, Vec<u8>> {
        let mut names = self.durable.clone();
        let kept = match loss {
            Loss::Everything => 0,
            Loss::Mixed => random.index(self.unsynced.len() + 1),
            Loss::Nothing | Loss::Cut | Loss::Zeroed | Loss::Flipped => self.unsynced.len(),
        };
        self.unsynced.iter().take(kept).for_each(|(_, operation, file)| change(&mut names, operation, *file));
        let is_there = |path: &str| {
            let mut above = parent(path);
            while !above.is_empty() {
                if !names.contains_key(&above) {
                    return false;
                }
                above = parent(&above);
            }
            true
        };
        let found = names.iter().filter(|(path, _)| is_there(path));
        let found = found.filter_map(|(path, number)| Some((path.clone(), self.files.get((*number)?)?)));
        found.map(|(path, file)| (path, file.after(loss, random))).collect()
    }
}

impl File {
    fn after(&self, loss: Loss, random: &mut Random) -> Vec<u8> {
        let mut content = self.durable.clone();
        for (at, one) in self.unsynced.iter().enumerate() {
            let is_last = at + 1 == self.unsynced.len();
            let mut below = |bound: usize| random.index(bound.max(1));
            let damaged = match (one, loss) {
                (_, Loss::Everything) => continue,
                (_, Loss::Mixed) if below(2) == 0 => continue,
                (Write::At(offset, data), Loss::Mixed) if below(4) == 0 => cut(*offset, data, below(data.len())),
                (Write::At(offset, data), Loss::Cut) if is_last => cut(*offset, data, below(data.len())),
                (Write::At(offset, data), Loss::Zeroed) if is_last => Write::At(*offset, vec![0; data.len()]),
                (Write::At(offset, data), Loss::Flipped) if is_last && !data.is_empty() => {
                    let mut data = data.clone();
                    let (at, bit) = (below(data.len()), below(8));
                    data[at] ^= 1 << bit;
                    Write::At(*offset, data)
                }
                _ => one.clone(),
            };
            write(&mut content, &damaged);
        }
        content
    }
}

/// The sectors of a write up to the one in which byte `end` lies.
fn cut(offset: usize, data: &[u8], end: usize) -> Write {
    let boundary = (offset + end) / SECTOR * SECTOR;
    Write::At(offset, data[..boundary.saturating_sub(offset)].to_vec())
}

/// A directory for files that nobody needs after a loss of power: in memory, where a sync costs nothing.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Puts files into an empty directory.
pub(crate) fn lay_out(files: &BTreeMap<String, Vec<u8>>, dir: &Path) {
    for (path, content) in files {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}
