//! `stanch group ls` and `stanch graph export`.

use super::picture::Picture;
use super::{file, text};
use crate::args::{GraphExportArgs, GroupListArgs, SourceArgs};
use crate::commands::follow::connect;
use crate::commands::show::table;
use crate::failure::Failure;
use recovery::listing::{Listing, ServiceLine};

pub(super) async fn list(args: &GroupListArgs) -> Result<u8, Failure> {
    let listing = listing(&args.source).await?;
    if args.json {
        out!("{}", serde_json::to_string(&listing.services).map_err(anyhow::Error::from)?);
    } else if listing.services.is_empty() {
        out!("no services: no spans have arrived, and nothing is declared");
    } else {
        let head = ["service", "callers", "calls", "watched", "unseen at most", "mature", "permission", "why not full"];
        out!("{}", table(&head, listing.services.iter().map(row).collect()));
    }
    Ok(0)
}

pub(super) async fn export(args: &GraphExportArgs) -> Result<u8, Failure> {
    let listing = listing(&args.source).await?;
    match () {
        () if args.shown.dot => out!("{}", Picture::whole(&listing).dot()),
        () if args.shown.mermaid => out!("{}", Picture::whole(&listing).mermaid()),
        () => out!("{}", serde_json::to_string(&listing).map_err(anyhow::Error::from)?),
    }
    Ok(0)
}

fn row(line: &ServiceLine) -> Vec<String> {
    vec![
        text::plain(&line.name),
        line.callers.to_string(),
        line.callees.to_string(),
        text::count(line.trials, "request"),
        text::up(line.miss_in_ppm.max(line.miss_out_ppm)),
        if line.mature { "yes" } else { "no" }.to_owned(),
        line.permission.clone(),
        text::plain(&line.reasons.join(", ")),
    ]
}

/// The whole graph of a file or of a server.
async fn listing(source: &SourceArgs) -> Result<Listing, Failure> {
    match &source.traces {
        Some(traces) => {
            let found = file::read(source, traces)?;
            // A file is past: its last moment is now.
            Ok(Listing::of(&found.snapshot, found.snapshot.taken_at()))
        }
        None => from_server(&source.server).await,
    }
}

pub(super) async fn from_server(server: &str) -> Result<Listing, Failure> {
    let answer = connect(server)?.get_bytes("/topology/graph").await;
    let (status, bytes) = answer.map_err(|error| {
        Failure::internal(format!("no server at {server}: {error}"))
            .next("the same command with --traces FILE, which needs no server")
    })?;
    if status != 200 {
        let text = text::plain(&String::from_utf8_lossy(&bytes));
        return Err(Failure::internal(format!("the server at {server} answered {status}: {text}")));
    }
    let listing = serde_json::from_slice(&bytes);
    listing.map_err(|error| Failure::internal(format!("the answer cannot be read: {error}")))
}
