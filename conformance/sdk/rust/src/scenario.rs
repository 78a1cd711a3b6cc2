//! What a scenario works with: its server, its ledger, its own groups, and the workers that end with it.

use crate::functions::client;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;
use tokio::process::{Child, Command};

const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The lease of a worker that is told no other.
pub(crate) const TTL_MS: u64 = 20_000;

/// Whatever went wrong.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One line of the ledger.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) step: String,
    pub(crate) phase: String,
    pub(crate) pid: u64,
    pub(crate) at: f64,
}

/// One scenario.
pub(crate) struct Scenario {
    pub(crate) url: String,
    pub(crate) id: String,
    workers: Vec<Child>,
}

impl Scenario {
    pub(crate) fn new(url: &str, name: &str) -> Scenario {
        let run = format!("{:012x}", crate::functions::now_ms().to_bits() ^ u64::from(std::process::id()));
        Scenario { url: url.to_owned(), id: format!("{name}-{run}"), workers: Vec::new() }
    }

    pub(crate) fn group(&self, part: &str) -> String {
        format!("{}-{part}", self.id)
    }

    /// Starts a worker, a process of its own.
    pub(crate) fn worker(&mut self, part: &str, ttl_ms: u64) -> Result<(), Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["work", &self.url, &self.group(part), &ttl_ms.to_string()]);
        self.workers.push(command.env("SDK_RUN", &self.id).kill_on_drop(true).spawn()?);
        Ok(())
    }

    /// Kills the worker with that process number, without warning.
    pub(crate) fn kill(&mut self, pid: u64) -> Result<(), Failure> {
        let worker = self.workers.iter_mut().find(|worker| worker.id().map(u64::from) == Some(pid));
        Ok(worker.ok_or("a worker that was not started here")?.start_kill()?)
    }

    pub(crate) async fn end(&mut self) {
        for worker in &mut self.workers {
            let _ = worker.kill().await;
        }
    }

    /// This scenario's lines of the ledger, in order.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let text = std::env::var("SDK_LEDGER").map(std::fs::read_to_string);
        let text = text.expect("SDK_LEDGER names the ledger").unwrap_or_default();
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        lines
            .filter(|line| line["run"] == self.id)
            .map(|line| Line {
                step: text(&line["step"]),
                phase: text(&line["phase"]),
                pid: line["pid"].as_u64().unwrap_or_default(),
                at: line["at"].as_f64().unwrap_or_default(),
            })
            .collect()
    }

    /// The lines of one phase whose step begins so.
    pub(crate) fn found(&self, phase: &str, step: &str) -> Vec<Line> {
        self.lines().into_iter().filter(|line| line.phase == phase && line.step.starts_with(step)).collect()
    }

    /// Waits for the line of the ledger that says so for the n-th time.
    pub(crate) async fn seen(&self, phase: &str, step: &str, times: usize) -> Line {
        loop {
            if let Some(line) = self.found(phase, step).get(times - 1) {
                return line.clone();
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// How often each step began.
    pub(crate) fn ran(&self) -> BTreeMap<String, u64> {
        let mut ran = BTreeMap::new();
        for line in self.found("begin", "") {
            *ran.entry(line.step).or_default() += 1;
        }
        ran
    }

    /// Starts a root workflow in the group of the workers; what becomes of it is waited for as somebody else.
    pub(crate) fn rpc(
        &self,
        suffix: &str,
        function: &'static str,
        args: Value,
    ) -> tokio::task::JoinHandle<Result<Value, Failure>> {
        let (url, caller, group) = (self.url.clone(), self.group("caller"), self.group("w"));
        let id = format!("{}{suffix}", self.id);
        tokio::spawn(async move {
            let caller = client(&url, &caller, TTL_MS)?;
            let there = caller.rpc::<Value, Value>(&id, function, args).target(&group);
            let result = there.timeout(Duration::from_secs(120)).await;
            caller.stop().await?;
            Ok(result?)
        })
    }

    /// One request of the protocol without the SDK: somebody outside.
    pub(crate) fn ask(&self, kind: &str, data: &Value) -> Result<Value, Failure> {
        let head = json!({ "corrId": self.id, "version": "2026-04-01" });
        let body = json!({ "kind": kind, "head": head, "data": data }).to_string();
        let address = self.url.strip_prefix("http://").ok_or("not an http address")?;
        let mut stream = TcpStream::connect(address)?;
        let head = format!("POST / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json");
        stream.write_all(format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("half an answer")?;
        Ok(serde_json::from_str::<Value>(body)?["data"].take())
    }

    /// Waits until somebody outside sees the promise settled.
    pub(crate) async fn settled(&self, id: &str) -> Result<Value, Failure> {
        loop {
            let promise = self.ask("promise.get", &json!({ "id": id }))?["promise"].take();
            if promise["state"] != "pending" {
                return Ok(promise);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until somebody outside sees the task in this state.
    pub(crate) async fn task_is(&self, state: &str) -> Result<(), Failure> {
        while self.ask("task.get", &json!({ "id": self.id }))?["task"]["state"] != state {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

/// Fails unless both are the same.
pub(crate) fn equal<T: PartialEq<E> + std::fmt::Debug, E: std::fmt::Debug>(
    what: &str,
    found: T,
    expected: E,
) -> Result<(), Failure> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?}, not {expected:?}").into()) }
}
