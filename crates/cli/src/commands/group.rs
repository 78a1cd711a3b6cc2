//! `stanch group`: what must restart together, from a trace file or a running server.

mod evaluate;
mod file;
mod list;
mod picture;
mod text;

use super::follow::connect;
use crate::args::{GraphExportArgs, GroupArgs, GroupCommand, ShownArgs};
use crate::failure::Failure;
use file::{Found, read};
use picture::Picture;
use recovery::graph::Snapshot;
use recovery::groups::{Explanation, GroupError, GroupPolicy, group, survey};
use recovery::listing::Listing;
use serde_json::Value;
use std::path::Path;
use text::Answer;

/// LIMIT: services named when the one that was asked for is unknown.
const NAMED_MAX: usize = 40;

pub(crate) async fn run(args: GroupArgs) -> Result<u8, Failure> {
    match (&args.command, &args.source.traces) {
        (Some(GroupCommand::Ls(args)), _) => list::list(args).await,
        (Some(GroupCommand::Evaluate(args)), _) => evaluate::run(args),
        (None, Some(traces)) => from_file(&args, traces),
        (None, None) => from_server(&args, &args.source.server).await,
    }
}

pub(crate) async fn export(args: &GraphExportArgs) -> Result<u8, Failure> {
    list::export(args).await
}

async fn from_server(args: &GroupArgs, server: &str) -> Result<u8, Failure> {
    let service = args.service.as_deref().unwrap_or_default();
    let answer = connect(server)?.get_bytes(&format!("/groups/{}", segment(service))).await;
    let (status, bytes) = answer.map_err(|error| {
        Failure::internal(format!("no server at {server}: {error}"))
            .next("stanch group SERVICE --traces FILE, which needs no server")
    })?;
    let text = text::plain(&String::from_utf8_lossy(&bytes));
    match status {
        200 => {
            let listing = if args.shown.is_picture() { Some(list::from_server(server).await?) } else { None };
            print(args.shown, listing.as_ref(), &serde_json::from_slice(&bytes).map_err(anyhow::Error::from)?)?;
            Ok(0)
        }
        404 => Err(Failure::usage(text)),
        _ => Err(Failure { exit: 3, message: format!("refused: {text}"), next: None }),
    }
}

fn from_file(args: &GroupArgs, traces: &Path) -> Result<u8, Failure> {
    let found = read(&args.source, traces)?;
    let snapshot = &found.snapshot;
    let service = args.service.as_deref().unwrap_or_default();
    if !snapshot.contains(service) {
        return Err(unknown(service, snapshot));
    }
    // A file is past: its last moment is now.
    let policy = GroupPolicy::at(snapshot.taken_at());
    let targets = [service];
    let refused = group(snapshot, &targets, &policy).err();
    let refusal = refused.map(|error| found.refusal(&error));
    let seen = match survey(snapshot, &targets, &policy) {
        Ok(seen) => explained(&Explanation::of(snapshot, &targets, &seen, &policy), &found, refusal.as_ref())?,
        Err(error) => serde_json::json!({ "targets": targets, "refused": error.to_string() }),
    };
    let listing = args.shown.is_picture().then(|| Listing::of(snapshot, snapshot.taken_at()));
    print(args.shown, listing.as_ref(), &seen)?;
    match refusal {
        None => Ok(0),
        Some(refusal) => {
            Err(Failure { exit: 3, message: format!("refused: {}", refusal.why), next: Some(refusal.next) })
        }
    }
}

fn print(shown: ShownArgs, listing: Option<&Listing>, value: &Value) -> Result<(), Failure> {
    if shown.json {
        out!("{value}");
    } else if value.get("restart").is_some() {
        let answer = Answer::deserialize(value)?;
        match listing.map(|listing| Picture::around(listing, answer.restart(), answer.callers())) {
            None => answer.lines().iter().for_each(|line| out!("{line}")),
            Some(picture) if shown.dot => out!("{}", picture.dot()),
            Some(picture) => out!("{}", picture.mermaid()),
        }
    }
    Ok(())
}

/// The explanation, with what is known of the file.
fn explained(explanation: &Explanation, found: &Found, refusal: Option<&Refusal>) -> Result<Value, Failure> {
    let mut value = serde_json::to_value(explanation).map_err(anyhow::Error::from)?;
    if let Some(map) = value.as_object_mut() {
        map.insert("services".into(), found.snapshot.services().count().into());
        map.insert("edges".into(), found.snapshot.edges().len().into());
        map.insert("covered_ms".into(), found.covered.0.into());
        map.insert("import".into(), serde_json::to_value(&found.report).map_err(anyhow::Error::from)?);
        map.insert("refused".into(), refusal.map(|refusal| refusal.why.clone()).into());
    }
    Ok(value)
}

/// A name as one segment of a path.
fn segment(name: &str) -> String {
    let kept = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    name.bytes().map(|byte| if kept(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn unknown(service: &str, snapshot: &Snapshot) -> Failure {
    let near = server::incidents::nearest(service, snapshot.services());
    let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    let mut names: Vec<&str> = snapshot.services().take(NAMED_MAX).collect();
    if snapshot.services().count() > NAMED_MAX {
        names.push("…");
    }
    let what = format!("no service `{service}` in these traces{hint}");
    Failure::usage(text::plain(&what)).next(text::plain(&format!("one of: {}", names.join(", "))))
}

/// Why there is no answer to act on, and what would give one.
struct Refusal {
    why: String,
    next: String,
}

impl Found {
    fn refusal(&self, error: &GroupError) -> Refusal {
        let config = self.snapshot.config();
        let more = "a trace file that covers more time and more requests".to_owned();
        let (why, next) = match error {
            GroupError::Stale { .. } => {
                let (covered, least) = (text::duration(self.covered.0), text::duration(config.fresh_after.0));
                (format!("the spans cover {covered}; an answer to act on needs at least {least}"), more)
            }
            GroupError::Blind { coverage_ppm, .. } if *coverage_ppm < config.coverage_cautious.ppm() => {
                let least = config.coverage_cautious;
                (
                    format!(
                        "{} of spans could be joined; an answer to act on needs at least {least}",
                        text::down(*coverage_ppm)
                    ),
                    "traces that were not cut or sampled by span".to_owned(),
                )
            }
            GroupError::Blind { trials, .. } => {
                let least = config.trials_min;
                (
                    format!(
                        "{trials} requests were watched; an answer to act on needs at least {least}, or --declared with a file that names the services"
                    ),
                    more,
                )
            }
            other => (other.to_string(), "docs/topology.md".to_owned()),
        };
        Refusal { why, next }
    }
}

#[cfg(test)]
mod tests;
