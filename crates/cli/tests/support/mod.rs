//! The binary as an outsider meets it: its arguments, its output, its exit code, and what it leaves behind.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up has failed")]
#![expect(clippy::disallowed_methods, reason = "tests start the program and bound how long they wait for it")]

pub(crate) mod page;

use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long anything may take here: a bound that only a hung program meets.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// Inherited by everything that a marked process starts.
pub(crate) const MARK: &str = "TEST_DIRECTORY";
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The program, without the variables and the input of whoever runs the tests.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stanch"));
    let ours = std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("STANCH"));
    for name in ours {
        command.env_remove(name);
    }
    // No test listens where an exporter of somebody else might send.
    command.envs([("STANCH__TELEMETRY__OTLP_GRPC", "off"), ("STANCH__TELEMETRY__OTLP_HTTP", "off")]);
    command.args(arguments).stdin(Stdio::null());
    command
}

/// A finished command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Its one JSON value.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { exit: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// Runs a command to its end.
pub(crate) fn stanch(arguments: &[&str]) -> Ran {
    output(program(arguments)).into()
}

/// Runs a command to its end, within [`PATIENCE`].
pub(crate) fn output(command: Command) -> Output {
    output_within(PATIENCE, command)
}

/// The same of a command that may take longer, or has to be done sooner.
pub(crate) fn output_within(bound: Duration, mut command: Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = Ending(child);
    let read = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).map(|_| bytes).unwrap()
        })
    };
    let out = read(Box::new(child.0.stdout.take().unwrap()));
    let err = read(Box::new(child.0.stderr.take().unwrap()));
    let status = wait_up_to(bound, || child.0.try_wait().unwrap());
    let status = status.unwrap_or_else(|| panic!("the end of {command:?}: not within {bound:?}"));
    Output { status, stdout: out.join().unwrap(), stderr: err.join().unwrap() }
}

/// Says that a test needs something that this machine does not have. Where it must be there, that is a failure:
/// `STANCH_REQUIRE` names what must, with commas between.
pub(crate) fn skip(need: &str, why: &str) {
    let required = std::env::var("STANCH_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|name| name == need), "{need} is required here: {why}");
    // Not through the test's own output, which is shown only when it fails.
    let _ = writeln!(std::io::stderr(), "SKIPPED ({need}): {why}");
}

/// A process that does not outlive the test, however that ends.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command to its end, marked with `dir` and within [`PATIENCE`]; its output passes through files there.
pub(crate) fn marked(dir: &Path, arguments: &[&str]) -> Ran {
    std::fs::create_dir_all(dir).unwrap();
    let file = |name: &str| std::fs::File::create(dir.join(name)).unwrap();
    let mut command = program(arguments);
    let child = command.env(MARK, dir).stdout(file("out.txt")).stderr(file("err.txt")).spawn().unwrap();
    let mut child = Ending(child);
    let status = wait_for("the end of a command", || child.0.try_wait().unwrap());
    let text = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    Ran { exit: status.code().unwrap_or(-1), out: text("out.txt"), err: text("err.txt") }
}

/// Waits until `done` answers; fails the test after [`PATIENCE`].
pub(crate) fn wait_for<T>(what: &str, done: impl FnMut() -> Option<T>) -> T {
    wait_up_to(PATIENCE, done).unwrap_or_else(|| panic!("{what}: not within {PATIENCE:?}"))
}

/// Waits until `done` answers, but not longer than that.
pub(crate) fn wait_up_to<T>(bound: Duration, mut done: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        if let Some(answer) = done() {
            return Some(answer);
        }
        if began.elapsed() > bound {
            return None;
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// A process that ends with the test.
pub(crate) struct Running {
    child: Ending,
    /// Its lines, each with its end; closed once its output is.
    out: Receiver<String>,
}

impl Running {
    /// Starts it; `mark` names it and everything it starts, see [`processes_of`].
    pub(crate) fn start(mark: &Path, arguments: &[&str]) -> Running {
        Running::start_with(mark, arguments, &[])
    }

    /// As [`Running::start`], with more in its environment.
    pub(crate) fn start_with(mark: &Path, arguments: &[&str], environment: &[(&str, PathBuf)]) -> Running {
        let mut command = program(arguments);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        Running::of(command, mark)
    }

    /// Starts a command that ends as the program, marked with `mark`.
    pub(crate) fn of(mut command: Command, mark: &Path) -> Running {
        command.env(MARK, mark).stderr(Stdio::null());
        Running::read(command)
    }

    /// Starts a command of whose doings nothing but standard output is read.
    pub(crate) fn read(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut pipe = BufReader::new(child.stdout.take().unwrap());
        let (said, out) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while pipe.read_line(&mut line).is_ok_and(|read| read > 0) && said.send(std::mem::take(&mut line)).is_ok() {
            }
        });
        Running { child: Ending(child), out }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// What it says next, within [`PATIENCE`]; none once it says nothing more.
    fn next(&mut self) -> Option<String> {
        match self.out.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("it said nothing for {PATIENCE:?}"),
        }
    }

    /// The next line of its standard output.
    pub(crate) fn line(&mut self) -> String {
        let line = self.next().filter(|line| line.ends_with('\n'));
        line.unwrap_or_else(|| panic!("it ended before it said anything: {:?}", self.ended()))
    }

    /// Reads the rest of its standard output, so that it never waits for a reader.
    pub(crate) fn drain(&mut self) {
        drop(self.rest());
    }

    /// Reads lines up to one that begins so; gives them all. `Err`: it ended before.
    pub(crate) fn until(&mut self, begin: &str) -> Result<String, String> {
        let mut said = String::new();
        while let Some(line) = self.next() {
            said.push_str(&line);
            if line.starts_with(begin) {
                return Ok(said);
            }
        }
        Err(said)
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&mut self) -> bool {
        self.child.0.try_wait().unwrap().is_some()
    }

    /// The rest of its standard output, once it has ended.
    pub(crate) fn rest(&mut self) -> String {
        std::iter::from_fn(|| self.next()).collect()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.0.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Its exit code once it has ended; none when a signal ended it.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        wait_for("the end of a process", || self.child.0.try_wait().unwrap()).code()
    }
}

/// A running `stanch serve`.
pub(crate) struct Server {
    pub(crate) process: Running,
    pub(crate) url: String,
}

impl Server {
    /// Starts it on a port of the kernel's choice and waits for its first line.
    pub(crate) fn start(data: &Path, more: &[&str]) -> Server {
        Server::start_with(data, more, &[])
    }

    /// As [`Server::start`], with more in its environment.
    pub(crate) fn start_with(data: &Path, more: &[&str], environment: &[(&str, PathBuf)]) -> Server {
        let mut arguments = vec!["serve", "--port", "0", "--json", "--data", data.to_str().unwrap()];
        arguments.extend(more);
        Server::of(Running::start_with(data, &arguments, environment))
    }

    /// A server that was started: waits for its first line.
    pub(crate) fn of(mut process: Running) -> Server {
        let ready: Value = serde_json::from_str(&process.line()).unwrap();
        assert_eq!(ready["pid"], process.pid());
        Server { process, url: ready["url"].as_str().unwrap().to_owned() }
    }

    /// One request of the protocol; answers status and data.
    pub(crate) fn ask(&self, kind: &str, data: &Value) -> (u64, Value) {
        let head = serde_json::json!({ "corrId": "c1", "version": "2026-04-01" });
        let body = serde_json::json!({ "kind": kind, "head": head, "data": data }).to_string();
        let (status, text) = http(&self.url, "POST", "/", &body);
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((answer["kind"].as_str(), answer["head"]["corrId"].as_str()), (Some(kind), Some("c1")), "{text}");
        assert_eq!(answer["head"]["status"], status, "{text}");
        (u64::from(status), answer["data"].take())
    }

    /// Ends it as an init system would.
    pub(crate) fn end(mut self) {
        self.process.signal(rustix::process::Signal::TERM);
        assert_eq!(self.process.ended(), Some(0), "SIGTERM is an orderly end");
    }
}

/// One HTTP request over a connection of its own.
pub(crate) fn http(url: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    try_http(url, method, path, body).unwrap()
}

/// The same of somebody who may be gone.
pub(crate) fn try_http(url: &str, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n");
    stream.write_all(format!("{head}content-type: application/json\r\n\r\n{body}").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let torn = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(torn)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(torn)?;
    Ok((status, body.to_owned()))
}

/// The processes that name `dir` in their command line or were started, however indirectly, with it as their mark.
pub(crate) fn processes_of(dir: &Path) -> Vec<(u32, String)> {
    let (named, marked) = (dir.to_str().unwrap(), format!("{MARK}={}", dir.display()));
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process that has ended has neither, and neither has one that waits to be reaped.
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let (line, environment) = (read("cmdline"), read("environ"));
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if pid != std::process::id()
            && (line.contains(named) || String::from_utf8_lossy(&environment).contains(&marked))
        {
            found.push((pid, line));
        }
    }
    found
}

/// Waits until no process is [`processes_of`] `dir` any more.
pub(crate) fn wait_until_nothing_is_left(dir: &Path) {
    wait_for(&format!("the end of {:?}", processes_of(dir)), || processes_of(dir).is_empty().then_some(()));
}

/// Steele, Lea and Flood's SplitMix64: small, and the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next number, below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// The next place in something of so many.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }
}
