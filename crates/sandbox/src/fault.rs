//! Breaking one replica, or what all replicas read, the way things break by themselves.

use crate::call::{client, exchange};
use crate::profile;
use crate::rollout;
use crate::starts::{self, Start};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::CONTENT_TYPE;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// A key that nobody made.
const MISSING_KEY: &str = "2026-12";

/// How a replica breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It stops answering and keeps its connections (SIGSTOP).
    Hang,
    /// It is gone (SIGKILL).
    Crash,
    /// It takes [`crate::SLOW_MS`] longer for everything.
    Slow,
    /// It is ready and answers every request with an error.
    Errors,
    /// It keeps [`crate::LEAK_BYTES`] of every request until it has [`crate::LEAK_BYTES_MAX`], and refuses from then on.
    Leak,
    /// Its operators roll out a configuration that names a key which does not exist: no replica can sign.
    BadConfig,
}

/// What was broken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// Of which service.
    pub service: String,
    /// Which replica; absent: all of them.
    pub replica: Option<u32>,
    /// Its process.
    pub pid: Option<u32>,
    /// The configuration that was changed.
    pub config: Option<Rollout>,
}

/// A change of configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// The object, `KIND/NS/NAME`.
    pub object: String,
    /// The revision in use before; 0 for none.
    pub before: u32,
    /// The revision in use now.
    pub now: u32,
}

impl std::fmt::Display for Broken {
    /// `payments@1 (process 8286)` or `payments (config/shop/payments revision 1 to 2)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.service)?;
        if let (Some(replica), Some(pid)) = (self.replica, self.pid) {
            write!(f, "@{replica} (process {pid})")?;
        }
        match &self.config {
            Some(config) => write!(f, " ({} revision {} to {})", config.object, config.before, config.now),
            None => Ok(()),
        }
    }
}

impl Fault {
    /// Every fault, in the order in which they are shown.
    pub const ALL: [Fault; 6] = [Fault::Hang, Fault::Crash, Fault::Slow, Fault::Errors, Fault::Leak, Fault::BadConfig];

    /// Its name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Fault::Hang => "hang",
            Fault::Crash => "crash",
            Fault::Slow => "slow",
            Fault::Errors => "errors",
            Fault::Leak => "leak",
            Fault::BadConfig => "bad-config",
        }
    }

    /// The fault of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Fault> {
        Fault::ALL.into_iter().find(|fault| fault.word() == text)
    }

    /// Whether a replica so broken fails the question whether it is ready.
    #[must_use]
    pub fn fails_probes(self) -> bool {
        matches!(self, Fault::Hang | Fault::Crash | Fault::Slow)
    }
}

/// Breaks the replica of a service that `seed` chooses, or all of them at once by what they read.
///
/// # Errors
/// A service without a running replica, or a replica that could not be broken.
pub async fn inject(data: &Path, service: &str, fault: Fault, seed: u64) -> anyhow::Result<Broken> {
    if fault == Fault::BadConfig {
        return misconfigure(data, service);
    }
    let running = running(data, service)?;
    let count = u64::try_from(running.len())?;
    ensure!(count > 0, "no replica of `{service}` runs on {}", data.display());
    let chosen = running.get(usize::try_from(seed % count)?).context("a replica")?;
    match fault {
        Fault::Hang => hang(chosen)?,
        Fault::Crash => crash(chosen)?,
        Fault::Slow => tell(chosen, &json!({ "slow_ms": crate::SLOW_MS })).await?,
        Fault::Errors => tell(chosen, &json!({ "errors": true })).await?,
        Fault::Leak => tell(chosen, &json!({ "leak": true })).await?,
        Fault::BadConfig => {}
    }
    Ok(Broken { service: service.to_owned(), replica: Some(chosen.replica), pid: Some(chosen.pid), config: None })
}

/// Rolls out a configuration with which the service cannot work.
fn misconfigure(data: &Path, service: &str) -> anyhow::Result<Broken> {
    let object = profile::named(service).and_then(|profile| profile.config);
    let object = object.with_context(|| format!("`{service}` reads no configuration"))?;
    let before = rollout::current(data, object)?.with_context(|| format!("{object} was never rolled out"))?;
    let now = rollout::roll_out(data, object, &rollout::payments(MISSING_KEY))?;
    let config = Some(Rollout { object: object.to_owned(), before, now });
    Ok(Broken { service: service.to_owned(), replica: None, pid: None, config })
}

/// The replicas of a service that run, by number: what their own start log says and `/proc` confirms.
///
/// # Errors
/// A start log that cannot be read.
pub fn running(data: &Path, service: &str) -> anyhow::Result<Vec<Start>> {
    let starts = starts::read(data, service).with_context(|| format!("cannot read the starts of `{service}`"))?;
    let newest: BTreeMap<u32, Start> = starts.into_iter().map(|start| (start.replica, start)).collect();
    let runs = |start: &Start| starts::start_time(start.pid) == Some(start.start_time);
    Ok(newest.into_values().filter(runs).collect())
}

/// Stops a replica's process; it keeps its sockets and answers nobody.
///
/// # Errors
/// A process that is gone.
pub fn hang(start: &Start) -> anyhow::Result<()> {
    signal(start, Signal::STOP)
}

/// Kills a replica's process.
///
/// # Errors
/// A process that is gone.
pub fn crash(start: &Start) -> anyhow::Result<()> {
    signal(start, Signal::KILL)
}

/// Tells a replica how to break.
async fn tell(start: &Start, how: &serde_json::Value) -> anyhow::Result<()> {
    let body = serde_json::to_vec(how)?;
    let request = Request::post(format!("http://{}/fault", start.address)).header(CONTENT_TYPE, "application/json");
    let request = request.body(Full::new(Bytes::from(body)))?;
    let answer = exchange(&client(), request, Duration::from_secs(2)).await;
    let (status, _, _) = answer.with_context(|| format!("{} does not answer", start.address))?;
    ensure!(status.is_success(), "{} answered {status}", start.address);
    Ok(())
}

fn signal(start: &Start, signal: Signal) -> anyhow::Result<()> {
    let same = starts::start_time(start.pid) == Some(start.start_time);
    ensure!(same, "process {} is gone", start.pid);
    let pid = i32::try_from(start.pid).ok().and_then(Pid::from_raw).context("a process number")?;
    Ok(kill_process(pid, signal)?)
}
