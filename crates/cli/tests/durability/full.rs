//! Disks that are full, read-only or broken for a while: no false success, words that help, and work that resumes.

use crate::disk::Recorder;
use crate::kill::check;
use crate::load::{Tally, Writer};
use crate::support::{PATIENCE, Running, Server, http, skip, stanch};
use client::Client;
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use std::path::Path;

/// What stands in the way for a while.
struct Trouble<'a> {
    begin: &'a dyn Fn(),
    end: &'a dyn Fn(),
    /// The cause as it must be told.
    cause: &'a str,
    /// What must be said to be done.
    next: &'a str,
}

/// Writes, gets into trouble twice, out of it again, and is killed in the end: nothing acknowledged is lost.
async fn through(server: Server, data: &Path, restart: impl FnOnce() -> Server, trouble: &Trouble<'_>) {
    let client = Client::new(&server.url).unwrap();
    let mut writers = vec![Writer::new("w".to_owned())];
    for round in 0..2 {
        writes(&client, &mut writers, 30).await;
        (trouble.begin)();
        let told = refused(&client, &mut writers).await;
        for part in [data.to_str().unwrap(), trouble.cause, trouble.next] {
            assert!(told.contains(part), "`{part}` is not told: {told}");
        }
        let (status, ready) = http(&server.url, "GET", "/ready", "");
        assert!(status == 503 && ready.contains(trouble.cause), "{status} {ready}");
        assert_eq!(http(&server.url, "GET", "/health", "").0, 200, "it lives");
        let known = &writers[0].finished[0].id;
        assert!(client.get(known).await.unwrap().is_some(), "reads go on");
        (trouble.end)();
        ready_again(&server).await;
        check(&client, &mut writers, round, &|| 0).await;
        writes(&client, &mut writers, 30).await;
    }
    let mut process = server.process;
    process.signal(Signal::KILL);
    assert_eq!(process.ended(), None);
    let server = restart();
    check(&Client::new(&server.url).unwrap(), &mut writers, 2, &|| 0).await;
    server.end();
}

/// So many writes, all of them acknowledged.
async fn writes(client: &Client, writers: &mut [Writer], count: u64) {
    let tally = Tally::default();
    let end = tally.reach(count);
    let writing = writers[0].write(client, &tally, &|| 0);
    tokio::select! {
        biased;
        refused = writing => panic!("{refused:?}"),
        () = end => {}
    }
    // The write that was under way has happened or not; looking at it tells.
    check(client, writers, 0, &|| 0).await;
}

/// Writes until it is refused; answers the words.
async fn refused(client: &Client, writers: &mut [Writer]) -> String {
    let (status, words) = writers[0].write(client, &Tally::default(), &|| 0).await.unwrap();
    assert_eq!(status, 503, "{words}");
    words
}

/// Polls until the server takes writes again, by itself.
pub(crate) async fn ready_again(server: &Server) {
    let again = async {
        while http(&server.url, "GET", "/ready", "").0 != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_may_not_grow_refuses_writes_until_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let start = || Server::start(dir.path(), &["--no-executor"]);
    let server = start();
    let pid = Pid::from_raw(i32::try_from(server.process.pid()).unwrap());
    let limit = |bytes| {
        prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
    };
    let trouble =
        Trouble { begin: &|| limit(Some(4_096)), end: &|| limit(None), cause: "size limit", next: "ulimit -f" };
    through(server, dir.path(), start, &trouble).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_writes_and_syncs_are_told_by_their_cause_and_pass() {
    for (kind, error, cause, next) in [
        ("write", Errno::NOSPC, "file system is full", "free space"),
        ("write", Errno::DQUOT, "file system is full", "free space"),
        ("write", Errno::IO, "I/O error", "dmesg"),
        ("sync", Errno::IO, "I/O error", "dmesg"),
        ("any", Errno::ROFS, "read-only", "mount it read-write"),
    ] {
        let recorder = Recorder::build();
        let start = || Server::start_with(&recorder.data(), &["--no-executor"], &recorder.environment());
        let trouble = Trouble { begin: &|| recorder.fail(kind, error, 0), end: &|| recorder.heal(), cause, next };
        through(start(), &recorder.data(), start, &trouble).await;
    }
}

/// Runs the program with a small file system of its own on `dir`; `None` where users may not have one.
#[expect(clippy::disallowed_methods, reason = "the test makes a file system")]
fn on_a_small_disk(dir: &Path, options: &str, arguments: &[&str]) -> Option<std::process::Command> {
    let script = format!("mount -t tmpfs -o {options} tmpfs \"$0\" && exec \"$@\"");
    let mut tried = std::process::Command::new("unshare");
    let tried = tried.args(["-rm", "sh", "-c", &script]).arg(dir).arg("true").output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        skip("mount", "users have no file systems of their own here (unshare -rm, mount -t tmpfs)");
        return None;
    }
    let mut command = std::process::Command::new("unshare");
    command.args(["-rm", "sh", "-c", &script]).arg(dir).arg(env!("CARGO_BIN_EXE_stanch")).args(arguments);
    command.stdin(std::process::Stdio::null());
    Some(command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_really_full_refuses_writes_until_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let arguments = ["serve", "--port", "0", "--json", "--no-executor", "--data", data];
    let Some(command) = on_a_small_disk(dir.path(), "size=4m", &arguments) else { return };
    let server = Server::of(Running::of(command, dir.path()));
    let inside = format!("/proc/{}/root{data}/filler", server.process.pid());
    let fill = || {
        let mut filler = std::fs::File::create(&inside).unwrap();
        // Page after page, until not even one more fits.
        while std::io::Write::write_all(&mut filler, &[1; 4_096]).is_ok() {}
    };
    let client = Client::new(&server.url).unwrap();
    let mut writers = vec![Writer::new("w".to_owned())];
    for round in 0..2 {
        writes(&client, &mut writers, 30).await;
        fill();
        let told = refused(&client, &mut writers).await;
        assert!(told.contains(data) && told.contains("file system is full") && told.contains("free space"), "{told}");
        std::fs::remove_file(&inside).unwrap();
        ready_again(&server).await;
        check(&client, &mut writers, round, &|| 0).await;
    }
    writes(&client, &mut writers, 30).await;
    server.end();
}

#[test]
fn a_read_only_disk_and_a_place_that_is_not_there_are_said_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let below = file.join("data");
    let ran = stanch(&["serve", "--port", "0", "--data", below.to_str().unwrap()]);
    assert!(ran.exit == 2 && ran.err.contains(below.to_str().unwrap()), "{ran:?}");
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let arguments = ["serve", "--port", "0", "--data", data.to_str().unwrap()];
    let Some(command) = on_a_small_disk(&data, "ro", &arguments) else { return };
    let ran = crate::support::Ran::from(crate::support::output(command));
    assert_eq!((ran.exit, ran.out.as_str()), (1, ""), "{ran:?}");
    assert!(ran.err.contains(data.to_str().unwrap()) && ran.err.contains("read-only"), "{ran:?}");
}
