use super::*;
use crate::{Batch, Directory, Store as _};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn fact(number: u64) -> Batch {
    Batch { meta: vec![(format!("fact{number:08}"), vec![7; 4_000])], ..Batch::default() }
}

fn store(dir: &Path) -> Sqlite {
    Sqlite::open(&Directory::take(dir).unwrap()).unwrap()
}

fn facts(copy: &Copy) -> u64 {
    copy.contents.meta.len() as u64
}

#[test]
fn a_copy_holds_a_moment_while_the_store_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut writer = store(&data);
    (0..200).for_each(|number| writer.commit(&fact(number)).unwrap());
    let (committed, stop) = (AtomicU64::new(200), AtomicBool::new(false));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let number = committed.load(Ordering::Relaxed);
                writer.commit(&fact(number)).unwrap();
                committed.store(number + 1, Ordering::Release);
            }
        });
        for round in 0..10 {
            let to = dir.path().join(format!("copy{round}"));
            let before = committed.load(Ordering::Acquire);
            Sqlite::copy(&data, &to, &[]).unwrap();
            let after = committed.load(Ordering::Acquire);
            let copy = Sqlite::examine(&to).unwrap();
            let found = facts(&copy);
            assert!(before <= found && found <= after + 1, "{before} {found} {after}");
            let last = copy.contents.meta.last().unwrap();
            assert_eq!(last.0, format!("fact{:08}", found - 1), "no gap");
        }
        stop.store(true, Ordering::Relaxed);
    });
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 11, "one file each: {left:?}");
}

#[test]
fn a_copy_gives_way_to_a_server_that_starts() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("copy"));
    let mut writer = store(&data);
    // As after a kill: what was written stands in the log.
    writer.checkpointer.take();
    let meta = (0..2_000).map(|number| (format!("fact{number:08}"), vec![7; 4_000])).collect();
    writer.commit(&Batch { meta, ..Batch::default() }).unwrap();
    let path = data.join(FILE_NAME);
    let (source, holder) = (open_to_read(&path).unwrap(), Holder::of(&data));
    let started = RefCell::new(None);
    let copied = copy(&source, &to, || {
        goes_on(&data, &holder).unwrap();
        let held = Sqlite::open_file(&path, Duration::ZERO).err();
        assert!(matches!(held, Some(Error::Held(_))), "the copy is in the way: {held:?}");
        *started.borrow_mut() = Some(Directory::take(&data).unwrap());
        goes_on(&data, &holder)
    });
    assert!(matches!(copied, Err(Error::GaveWay(_))), "{copied:?}");
    let directory = started.into_inner().unwrap();
    let mut server = Sqlite::open_file(&directory.path().join(FILE_NAME), Duration::ZERO).unwrap();
    assert_eq!(server.load().unwrap().meta.len(), 2_000);
    let again = dir.path().join("again");
    Sqlite::copy(&data, &again, &[]).unwrap();
    assert_eq!(facts(&Sqlite::examine(&again).unwrap()), 2_000, "beside a server that runs");
}

#[test]
fn carried_files_come_out_once_and_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("copy"));
    drop(store(&data));
    let secret = b"a key that nobody else shall see".to_vec();
    let carried = vec![("a".to_owned(), secret.clone()), ("b".to_owned(), Vec::new())];
    Sqlite::copy(&data, &to, &carried).unwrap();
    assert_eq!(Sqlite::examine(&to).unwrap().carried, ["a", "b"]);
    let holds = || std::fs::read(&to).unwrap().windows(secret.len()).any(|window| window == secret);
    assert!(holds());
    assert_eq!(Sqlite::unload(&to).unwrap(), carried);
    assert!(!holds(), "the copy still holds the key");
    assert_eq!(Sqlite::unload(&to).unwrap(), Vec::new());
    let copy = Sqlite::examine(&to).unwrap();
    assert!(copy.carried.is_empty() && copy.format >= 1);
}

#[test]
fn only_a_whole_copy_of_ours_passes() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("copy"));
    let mut writer = store(&data);
    (0..50).for_each(|number| writer.commit(&fact(number)).unwrap());
    Sqlite::copy(&data, &to, &[]).unwrap();
    let whole = std::fs::read(&to).unwrap();
    let examine = |bytes: &[u8]| {
        let path = dir.path().join("tried");
        std::fs::write(&path, bytes).unwrap();
        let found = Sqlite::examine(&path);
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "it stays as it is");
        found
    };
    assert!(examine(&whole).is_ok());
    for foreign in [&b""[..], b"x", &[0; 5_000], b"SQLite format 3\0 and then nothing"] {
        assert!(matches!(examine(foreign), Err(Error::Foreign(_))), "{foreign:?}");
    }
    assert!(examine(&whole[..whole.len() / 2]).is_err(), "torn");
    let changed = |at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    // The header's user_version and application id.
    assert!(matches!(examine(&changed(60, &[0, 0, 0, 99])), Err(Error::Newer { found: 99, .. })));
    assert!(matches!(examine(&changed(60, &[0, 0, 0, 0])), Err(Error::Foreign(_))), "no tables of ours yet");
    assert!(matches!(examine(&changed(68, b"ABCD")), Err(Error::Foreign(_))));
    // A page in the middle that is no page any more.
    let middle = whole.len() / 2 / 4_096 * 4_096;
    let torn = examine(&changed(middle, &[0xff; 64]));
    assert!(matches!(torn, Err(Error::Damaged { .. } | Error::Sqlite(_))), "{torn:?}");
    drop(writer);
    let live = examine(&std::fs::read(data.join(FILE_NAME)).unwrap());
    assert!(matches!(live, Err(Error::NoCopy(_))), "{live:?}");
    assert!(Sqlite::examine(&dir.path().join("none")).is_err());
    assert!(Sqlite::copy(&dir.path().join("none"), &dir.path().join("more"), &[]).is_err());
}
