//! What no server of this kind can be faster than, here: the HTTP stack alone, and the disk alone.

use super::drive::{self, Load};
use super::process::{self, Own};
use super::report::{Floor, Row};
use super::{Options, WARM_UP, clock, requests};
use anyhow::{Context as _, Result};
use axum::Router;
use axum::http::header;
use axum::routing::post;
use bytes::Bytes;
use std::fs::File;
use std::io::Write as _;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What one commit of a group of some ten promises writes.
const BATCH_BYTES: usize = 4_096;

/// Serves an answer of the usual shape and length to everything, and prints where as `stanch serve --json` does.
///
/// # Errors
/// No port is free, or serving failed.
pub async fn echo(ready: impl FnOnce(&str)) -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let answer = Bytes::from(answer());
    let handler = move |body: Bytes| {
        let answer = answer.clone();
        async move {
            // The body was read whole, as it has to be by whoever answers it.
            drop(body);
            ([(header::CONTENT_TYPE, "application/json")], answer)
        }
    };
    ready(&url);
    // It ends with its process.
    server::http::serve(listener, Router::new().route("/", post(handler)), CancellationToken::new()).await;
    Ok(())
}

/// The answer to a creation.
fn answer() -> String {
    let payload = requests::PAYLOAD;
    format!(
        r#"{{"kind":"promise.create","head":{{"corrId":"b7c1f4f0a2","status":200,"version":"2026-04-01"}},"data":{{"promise":{{"id":"b0123456789abcdef-create-32.31.4096","state":"pending","param":{{"data":"{payload}"}},"value":{{}},"tags":{{"resonate:origin":"b0123456789abcdef-create-32.31.4096","resonate:scope":"global"}},"timeoutAt":{},"createdAt":{}}}}}}}"#,
        requests::FAR,
        requests::FAR
    )
}

/// Measures both, as often as there are numbers of connections.
pub(super) fn measure(options: &Options) -> Result<Floor> {
    let mut floor = Floor::default();
    for connections in &options.connections {
        let own = Own::start_with(&options.program, &["bench", "echo"], options.directory.join("echo"))?;
        let warm_up = WARM_UP.min(options.window);
        let load = Load { connections: *connections, warm_up, window: options.window, pid: Some(own.pid()) };
        let mut outcome = drive::window(&own.address, &load, &mut |connection, n, body| {
            requests::create(&format!("{}.{connection}.{n}", options.run), body);
            true
        })?;
        floor.echo.push(Row::of("echo", *connections, &mut outcome));
    }
    let (syncs, micros) = syncs(options, options.window.min(Duration::from_secs(2)))?;
    floor.sync_bytes = BATCH_BYTES;
    floor.syncs = syncs.len() as u64;
    floor.sync_p50_us = micros(&syncs, 0.5);
    floor.sync_p99_us = micros(&syncs, 0.99);
    Ok(floor)
}

type Quantile = fn(&[Duration], f64) -> f64;

/// Appends a batch and syncs, again and again; how long each took.
fn syncs(options: &Options, window: Duration) -> Result<(Vec<Duration>, Quantile)> {
    let path = options.directory.join("syncs");
    let mut file = File::create(&path).with_context(|| path.display().to_string())?;
    let batch = [0x5a_u8; BATCH_BYTES];
    let begin = clock();
    let mut took = Vec::new();
    while took.is_empty() || begin.elapsed() < window {
        let began = clock();
        file.write_all(&batch)?;
        file.sync_all()?;
        took.push(began.elapsed());
    }
    std::fs::remove_file(&path)?;
    took.sort_unstable();
    let quantile: Quantile = |sorted, part| {
        let place = super::report::place(sorted.len(), part);
        sorted.get(place).map_or(0.0, |took| took.as_secs_f64() * 1e6)
    };
    Ok((took, quantile))
}

impl Own {
    /// Starts another command of this program that says where it listens; it makes no directory.
    fn start_with(program: &std::path::Path, words: &[&str], directory: std::path::PathBuf) -> Result<Own> {
        let mut command = process::command(program);
        command.args(words);
        Own::spawn(command, directory)
    }
}
