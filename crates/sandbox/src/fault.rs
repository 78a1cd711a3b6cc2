//! Breaking one replica, the way things break by themselves.

use crate::call::{client, exchange};
use crate::starts::{self, Start};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::CONTENT_TYPE;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// How a replica breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It stops answering and keeps its connections (SIGSTOP).
    Hang,
    /// It is gone (SIGKILL).
    Crash,
    /// It takes [`crate::SLOW_MS`] longer for everything.
    Slow,
}

/// What was broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Of which service.
    pub service: String,
    /// Which replica.
    pub replica: u32,
    /// Its process.
    pub pid: u32,
}

impl Fault {
    /// `hang`, `crash` or `slow`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Fault> {
        match text {
            "hang" => Some(Fault::Hang),
            "crash" => Some(Fault::Crash),
            "slow" => Some(Fault::Slow),
            _ => None,
        }
    }
}

/// Breaks the replica of a service that `seed` chooses.
///
/// # Errors
/// A service without a running replica, or a replica that could not be broken.
pub async fn inject(data: &Path, service: &str, fault: Fault, seed: u64) -> anyhow::Result<Broken> {
    let running = running(data, service)?;
    let count = u64::try_from(running.len())?;
    ensure!(count > 0, "no replica of `{service}` runs on {}", data.display());
    let chosen = running.get(usize::try_from(seed % count)?).context("a replica")?;
    match fault {
        Fault::Hang => hang(chosen)?,
        Fault::Crash => crash(chosen)?,
        Fault::Slow => slow(chosen).await?,
    }
    Ok(Broken { service: service.to_owned(), replica: chosen.replica, pid: chosen.pid })
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

/// Makes a replica take longer.
///
/// # Errors
/// A replica that does not obey.
pub async fn slow(start: &Start) -> anyhow::Result<()> {
    let body = serde_json::to_vec(&serde_json::json!({ "slow_ms": crate::SLOW_MS }))?;
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
