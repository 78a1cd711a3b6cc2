//! Nothing stays: however the sample shop ends, there is no process, no listening socket and no file outside its data
//! directory a moment later.
//!
//! A short form runs by default. With `LEFTOVERS=all` every process is killed and every signal is sent at every moment;
//! `cargo xtask leftovers` does that and prints how long each end took.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::disallowed_methods, clippy::print_stdout, reason = "it measures and says how long an end takes")]

mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use support::{MARK, Running, processes_of, program, wait_for, wait_until_nothing_is_left};

/// What `recover --sandbox` says first, after it began to start the shop, to watch it, to look at the broken one, and
/// to act.
const MOMENTS: [&str; 4] = ["policy", "shop", "intent", "commit s1"];
/// The processes of a shop, by what their command lines have in common; the executor ends with its server.
const KINDS: [&str; 7] =
    [" supervise ", " executor ", " serve ", " proxy ", " sandbox service ", " sandbox load ", " sandbox agent "];

#[test]
fn nothing_stays_of_a_shop_however_it_ends() {
    refused_before_anything_starts();
    signaled(MOMENTS[0], Signal::INT, 130);
    signaled(MOMENTS[1], Signal::TERM, 143);
    signaled(MOMENTS[2], Signal::INT, 130);
    killed_itself(MOMENTS[1]);
    brought_up_and_broken();
    if std::env::var_os("LEFTOVERS").is_some_and(|form| form == "all") {
        successful();
        for moment in MOMENTS {
            signaled(moment, Signal::INT, 130);
            signaled(moment, Signal::TERM, 143);
            killed_itself(moment);
        }
        for kind in KINDS {
            one_killed(MOMENTS[1], kind);
            one_killed(MOMENTS[3], kind);
        }
    }
}

/// One use of the program, with a directory for temporary files of its own.
struct Scene {
    root: tempfile::TempDir,
    name: String,
}

impl Scene {
    fn new(name: String) -> Scene {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("tmp")).unwrap();
        Scene { root, name }
    }

    fn tmp(&self) -> PathBuf {
        self.root.path().join("tmp")
    }

    /// A data directory; given to the program it need not be removed.
    fn data(&self) -> String {
        self.root.path().join("data").to_str().unwrap().to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        let errors = std::fs::File::create(self.root.path().join("errors")).unwrap();
        command.env(MARK, self.root.path()).env("TMPDIR", self.tmp()).stderr(errors);
        command
    }

    fn start(&self, arguments: &[&str]) -> Running {
        Running::read(self.command(arguments))
    }

    /// Runs to the end; answers exit code and output.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let mut run = self.start(arguments);
        let said = run.rest();
        (run.ended().unwrap_or(-1), said)
    }

    fn errors(&self) -> String {
        std::fs::read_to_string(self.root.path().join("errors")).unwrap()
    }

    /// Inodes of the sockets on which its processes listen.
    fn listening(&self) -> BTreeSet<String> {
        let open = listening();
        let processes = processes_of(self.root.path());
        let files = processes.iter().filter_map(|(pid, _)| std::fs::read_dir(format!("/proc/{pid}/fd")).ok());
        let links = files.flatten().flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
        let inode = |link: PathBuf| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned());
        links.filter_map(inode).filter(|inode| open.contains(inode)).collect()
    }

    /// SIGKILL for one process of a kind, once there is one.
    fn kill(&self, kind: &str) -> u32 {
        let pid = wait_for(&format!("a process{kind}"), || self.find(kind));
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
        pid
    }

    fn find(&self, kind: &str) -> Option<u32> {
        let mut all = processes_of(self.root.path()).into_iter();
        all.find(|(_, line)| line.contains(kind)).map(|(pid, _)| pid)
    }

    /// No process, none of the sockets, no socket of a name in its directory; of temporary files what `stays` allows.
    fn nothing_stays(&self, sockets: &BTreeSet<String>, stays: usize) {
        let began = Instant::now();
        wait_until_nothing_is_left(self.root.path());
        println!("{:<60} gone after {:.1} s", self.name, began.elapsed().as_secs_f64());
        let left: Vec<_> = listening().intersection(sockets).cloned().collect();
        assert!(left.is_empty(), "{}: listening sockets {left:?}", self.name);
        let named = std::fs::read_to_string("/proc/net/unix").unwrap();
        assert!(!named.contains(self.root.path().to_str().unwrap()), "{}: {named}", self.name);
        let files: Vec<_> = std::fs::read_dir(self.tmp()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), stays, "{}: {files:?}", self.name);
    }
}

/// Inodes of every listening TCP socket of this machine.
fn listening() -> BTreeSet<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[3] == "0A").map(|row| row[9].to_owned()).collect()
}

/// Reads on until it says a line that begins so.
fn until(scene: &Scene, run: &mut Running, line: &str) {
    let ended = run.until(line).map_err(|said| (run.ended(), said));
    assert!(ended.is_ok(), "{}: {ended:?} before `{line}`: {}", scene.name, scene.errors());
}

/// What cannot be is refused at once, and nothing was made.
fn refused_before_anything_starts() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = port.local_addr().unwrap().port().to_string();
    let scene = Scene::new("refused arguments".to_owned());
    let data = scene.data();
    let cases: [&[&str]; 5] = [
        &["recover", "--sandbox", "--fault", "nonsense"],
        &["recover", "--sandbox", "--fault-service", "gateway"],
        &["recover", "--sandbox", "--fault", "bad-config", "--fault-service", "cart"],
        &["recover", "--sandbox", "nobody"],
        &["sandbox", "up", "--port", &taken, "--data", &data],
    ];
    for arguments in cases {
        let (exit, _) = scene.run(arguments);
        assert_eq!(exit, 2, "{arguments:?}: {}", scene.errors());
        scene.nothing_stays(&BTreeSet::new(), 0);
    }
    assert!(scene.errors().contains(&taken) && scene.errors().contains("--port 0"), "{}", scene.errors());
}

/// A signal ends the shop with the command, which says so by its exit code and removes the directory it had made.
fn signaled(moment: &str, signal: Signal, exit: i32) {
    let scene = Scene::new(format!("{signal:?} at `{moment}`"));
    let mut run = scene.start(&["recover", "--sandbox"]);
    until(&scene, &mut run, moment);
    let sockets = scene.listening();
    run.signal(signal);
    assert_eq!(run.ended(), Some(exit), "{}: {}", scene.name, scene.errors());
    let said = scene.errors();
    assert!(said.contains("removed") || said.contains("nothing had been started"), "{said}");
    scene.nothing_stays(&sockets, 0);
}

/// SIGKILL of the command: the lifeline ends the rest. Its directory cannot be removed by anybody.
fn killed_itself(moment: &str) {
    let scene = Scene::new(format!("SIGKILL of the command at `{moment}`"));
    let mut run = scene.start(&["recover", "--sandbox"]);
    until(&scene, &mut run, moment);
    let sockets = scene.listening();
    run.signal(Signal::KILL);
    assert_eq!(run.ended(), None);
    scene.nothing_stays(&sockets, 1);
}

/// `up` interrupted, up again on the same directory, every process killed, down; up again, and the supervisor killed
/// while a service is stopped and cannot see its lifeline close.
fn brought_up_and_broken() {
    let scene = Scene::new("sandbox up, interrupted".to_owned());
    let data = scene.data();
    let up = ["sandbox", "up", "--port", "0", "--data", &data];
    let mut run = scene.start(&up);
    wait_for("a service", || scene.find(" sandbox service "));
    run.signal(Signal::INT);
    assert_eq!(run.ended(), Some(130), "{}", scene.errors());
    scene.nothing_stays(&BTreeSet::new(), 0);

    let scene = Scene { name: "sandbox up, each process killed, sandbox down".to_owned(), ..scene };
    let (exit, said) = scene.run(&up);
    assert!(exit == 0 && said.contains(&data), "{said} {}", scene.errors());
    let sockets = scene.listening();
    assert!(sockets.len() >= 9, "{sockets:?}");
    let (exit, _) = scene.run(&up);
    assert!(exit == 2 && scene.errors().contains("already runs"), "{}", scene.errors());
    hang(&scene, &data);
    for kind in KINDS.iter().filter(|kind| **kind != " supervise ") {
        scene.kill(kind);
    }
    let (exit, said) = scene.run(&["sandbox", "down", "--data", &data]);
    assert!(exit == 0 && said.contains("has ended"), "{said} {}", scene.errors());
    scene.nothing_stays(&sockets, 0);

    let scene = Scene { name: "sandbox up, the supervisor killed".to_owned(), ..scene };
    assert_eq!(scene.run(&up).0, 0, "{}", scene.errors());
    let sockets = scene.listening();
    hang(&scene, &data);
    scene.kill(" supervise ");
    scene.nothing_stays(&sockets, 0);
    assert_eq!(scene.run(&["sandbox", "status", "--data", &data]).0, 3);
    let (exit, said) = scene.run(&["sandbox", "down", "--data", &data]);
    assert!(exit == 0 && said.contains("no shop ran"), "{said} {}", scene.errors());
}

/// Stops one process of `payments`.
fn hang(scene: &Scene, data: &str) {
    let (exit, said) = scene.run(&["sandbox", "fault", "hang", "--service", "payments", "--data", data]);
    assert_eq!(exit, 0, "{said} {}", scene.errors());
}

/// The whole of it: of the directory it made, only the evidence stays.
fn successful() {
    let scene = Scene::new("a successful recovery".to_owned());
    let (exit, said) = scene.run(&["recover", "--sandbox"]);
    assert_eq!(exit, 0, "{said} {}", scene.errors());
    scene.nothing_stays(&BTreeSet::new(), 1);
    let dir = std::fs::read_dir(scene.tmp()).unwrap().next().unwrap().unwrap().path();
    assert!(said.lines().last().unwrap().contains(dir.to_str().unwrap()), "{said}");
    let mut files: Vec<_> = names(&dir);
    files.retain(|name| !name.starts_with("inc-") && name != "trust.keys");
    assert!(files.is_empty(), "{files:?}");
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    entries.map(|name| name.into_string().unwrap()).collect()
}

/// SIGKILL of one process while the command runs: the command ends by itself, and everything with it.
fn one_killed(moment: &str, kind: &str) {
    let scene = Scene::new(format!("SIGKILL of{kind}at `{moment}`"));
    let data = scene.data();
    let mut run = scene.start(&["recover", "--sandbox", "--data", &data]);
    until(&scene, &mut run, moment);
    let sockets = scene.listening();
    scene.kill(kind);
    run.drain();
    assert!(run.ended().is_some(), "{}", scene.errors());
    scene.nothing_stays(&sockets, 0);
}
