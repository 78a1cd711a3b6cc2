//! The server's process: started, weighed, ended.

use super::clock;
use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

/// What one tick of the kernel's process times is worth: `USER_HZ`, 100 on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// A server of our own. It ends with us: its standard input is a pipe that we hold.
pub(crate) struct Own {
    child: Child,
    _lifeline: Option<ChildStdin>,
    pub(crate) address: String,
    pub(crate) directory: PathBuf,
    /// From its start until it answered.
    pub(crate) ready_after: Duration,
    keep: bool,
}

#[derive(Deserialize)]
struct Ready {
    url: String,
}

impl Own {
    /// Starts a server on an empty directory below `directory`.
    pub(crate) fn start(program: &Path, directory: &Path) -> Result<Own> {
        let free = (0..).map(|number| directory.join(format!("server-{number}"))).find(|path| !path.exists());
        Own::start_on(program, free.context("no name is free")?)
    }

    /// Starts a server on this directory.
    pub(crate) fn start_on(program: &Path, directory: PathBuf) -> Result<Own> {
        let mut command = command(program);
        command.args(["serve", "--port", "0", "--otlp-grpc", "off", "--otlp-http", "off", "--json", "--no-executor"]);
        command.args(["--lifeline", "--data"]).arg(&directory);
        Own::spawn(command, directory)
    }

    /// Starts a command that prints where it listens.
    pub(crate) fn spawn(mut command: Command, directory: PathBuf) -> Result<Own> {
        let began = clock();
        let program = command.get_program().to_owned();
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = started.with_context(|| format!("cannot start {}", program.display()))?;
        let (said, lifeline) = (child.stdout.take(), child.stdin.take());
        let address = String::new();
        let mut own = Own { child, _lifeline: lifeline, address, directory, ready_after: Duration::ZERO, keep: false };
        let mut line = String::new();
        BufReader::new(said.context("a pipe")?).read_line(&mut line)?;
        own.ready_after = clock().duration_since(began);
        let ready: Ready = serde_json::from_str(&line).context("the server did not start")?;
        own.address = ready.url.trim_start_matches("http://").to_owned();
        Ok(own)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it and removes its directory.
    pub(crate) fn end(self) {
        drop(self);
    }

    /// Kills it as a power cut would, and keeps its directory.
    pub(crate) fn kill(mut self) -> PathBuf {
        self.keep = true;
        self.directory.clone()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Nothing of it is needed any more: it need not end well, only now.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// Another process of this program.
#[expect(clippy::disallowed_methods, reason = "an experiment starts the program it is about")]
pub(crate) fn command(program: &Path) -> Command {
    Command::new(program)
}

/// The processor time a process has used, user and system together.
pub(crate) fn cpu_of(pid: Option<u32>) -> Option<Duration> {
    cpu_in(&format!("/proc/{}/stat", pid?)).ok()
}

/// The processor time this process has used.
pub(crate) fn own_cpu() -> Duration {
    cpu_in("/proc/self/stat").unwrap_or_default()
}

fn cpu_in(file: &str) -> Result<Duration> {
    let text = std::fs::read_to_string(file)?;
    // The second field is a name in parentheses that may hold anything; utime and stime are the 14th and 15th.
    let (_, rest) = text.rsplit_once(')').context("no process name")?;
    let ticks: Vec<u32> =
        rest.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>().context("no times")?;
    ensure!(ticks.len() == 2, "no times");
    Ok(ticks.into_iter().map(|ticks| TICK * ticks).sum())
}

/// The resident memory of a process, in bytes.
pub(crate) fn memory_of(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1_024)
}
