//! `stanch group`: what must restart together, from a trace file or a running server.

mod text;

use super::follow::connect;
use super::{TOPOLOGY, read_file, topology};
use crate::args::{GroupArgs, TraceFormat};
use crate::failure::Failure;
use base::Millis;
use recovery::graph::{Config, Snapshot, replay};
use recovery::groups::{Explanation, GroupError, GroupPolicy, group, survey};
use recovery::import::{self, Format, Options, Report};
use serde_json::Value;
use std::path::Path;
use text::Answer;

/// LIMIT: bytes of a trace file, unpacked.
const TRACES_BYTES_MAX: u64 = 2 << 30;
/// LIMIT: bytes of the dictionary beside a table.
const DICTIONARY_BYTES_MAX: u64 = 64 << 20;
/// What to look at when a trace file cannot be read.
const FORMATS: &str = "stanch group --help, which names the formats";
/// LIMIT: services named when the one that was asked for is unknown.
const NAMED_MAX: usize = 40;

pub(crate) async fn run(args: &GroupArgs) -> Result<u8, Failure> {
    match &args.traces {
        Some(traces) => from_file(args, traces),
        None => from_server(args, &args.server).await,
    }
}

async fn from_server(args: &GroupArgs, server: &str) -> Result<u8, Failure> {
    let answer = connect(server)?.get_bytes(&format!("/groups/{}", args.service)).await;
    let (status, bytes) = answer.map_err(|error| {
        Failure::internal(format!("no server at {server}: {error}"))
            .next("stanch group SERVICE --traces FILE, which needs no server")
    })?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match status {
        200 => {
            print(args.json, &serde_json::from_slice(&bytes).map_err(anyhow::Error::from)?)?;
            Ok(0)
        }
        404 => Err(Failure::usage(text)),
        _ => Err(Failure { exit: 3, message: text, next: None }),
    }
}

fn from_file(args: &GroupArgs, traces: &Path) -> Result<u8, Failure> {
    let found = read(args, traces)?;
    let snapshot = &found.snapshot;
    if !snapshot.contains(&args.service) {
        return Err(unknown(&args.service, snapshot));
    }
    // A file is past: its last moment is now.
    let policy = GroupPolicy::at(snapshot.taken_at());
    let targets = [args.service.as_str()];
    let refused = group(snapshot, &targets, &policy).err();
    let refusal = refused.map(|error| found.refusal(&error));
    let seen = match survey(snapshot, &targets, &policy) {
        Ok(seen) => explained(&Explanation::of(snapshot, &targets, &seen, &policy), &found, refusal.as_ref())?,
        Err(error) => serde_json::json!({ "targets": targets, "refused": error.to_string() }),
    };
    print(args.json, &seen)?;
    match refusal {
        None => Ok(0),
        Some(refusal) => {
            Err(Failure { exit: 3, message: format!("refused: {}", refusal.why), next: Some(refusal.next) })
        }
    }
}

fn print(json: bool, value: &Value) -> Result<(), Failure> {
    if json {
        out!("{value}");
    } else if value.get("restart").is_some() {
        let answer = Answer::deserialize(value)?;
        answer.lines().iter().for_each(|line| out!("{line}"));
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

/// What a file held.
#[derive(Debug)]
struct Found {
    snapshot: Snapshot,
    report: Report,
    /// From the first span's end to the last one's.
    covered: Millis,
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

fn read(args: &GroupArgs, traces: &Path) -> Result<Found, Failure> {
    let bytes = inflated(traces, TRACES_BYTES_MAX)?;
    check_format(args.format, &bytes, traces)?;
    let dictionary =
        if import::detect(&bytes) == Some(Format::NezhaCompact) { Some(dictionary(traces)?) } else { None };
    let options = Options { authenticated: true, dictionary: dictionary.as_deref() };
    let read = import::spans(&bytes, &options);
    let (spans, report) = read.map_err(|error| Failure::file(traces, error).next(FORMATS))?;
    if spans.is_empty() {
        let dropped =
            report.dropped.iter().map(|(reason, count)| format!(", {count} dropped as {reason}")).collect::<String>();
        return Err(Failure::file(traces, format!("no spans in it{dropped}")).next(FORMATS));
    }
    let topology = match &args.declared {
        Some(file) => Some(topology(file)?),
        None => None,
    };
    let (graph, now) = replay(&Config::default(), topology.as_ref(), &spans)
        .map_err(|error| Failure::file(args.declared.as_deref().unwrap_or(traces), error).next(TOPOLOGY))?;
    let first = spans.iter().map(recovery::span::Span::end_us).min().unwrap_or(0);
    let last = spans.iter().map(recovery::span::Span::end_us).max().unwrap_or(0);
    Ok(Found { snapshot: graph.snapshot(now), report, covered: Millis((last - first) / 1_000) })
}

fn inflated(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Failure> {
    let raw = read_file(path, bytes_max).map_err(|failure| failure.next(FORMATS))?;
    if !raw.starts_with(&[0x1f, 0x8b]) {
        return Ok(raw);
    }
    let unpacked = server::gzip::unpack(&raw, bytes_max);
    unpacked.map_err(|error| {
        Failure::file(path, format!("{:#}", anyhow::Error::from(error)))
            .next(format!("gzip -t {}, then {FORMATS}", path.display()))
    })
}

/// The dictionary beside a Nezha table: `X.spans.csv[.gz]` → `X.dict.json`.
fn dictionary(traces: &Path) -> Result<Vec<u8>, Failure> {
    let name = traces.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = name.strip_suffix(".gz").unwrap_or(&name);
    let stem = stem.strip_suffix(".spans.csv").or_else(|| stem.strip_suffix(".csv")).unwrap_or(stem);
    let path = traces.with_file_name(format!("{stem}.dict.json"));
    let read = read_file(&path, DICTIONARY_BYTES_MAX);
    read.map_err(|failure| Failure {
        message: format!("{}; the table needs its dictionary beside it", failure.message),
        ..failure.next(FORMATS)
    })
}

fn check_format(wanted: Option<TraceFormat>, bytes: &[u8], traces: &Path) -> Result<(), Failure> {
    let Some(wanted) = wanted else { return Ok(()) };
    let found = import::detect(bytes);
    let fits = match wanted {
        TraceFormat::OtlpJson => found == Some(Format::OtlpJson),
        TraceFormat::Jaeger => found == Some(Format::JaegerJson),
        TraceFormat::Nezha => matches!(found, Some(Format::NezhaCompact | Format::NezhaRaw)),
    };
    if fits {
        return Ok(());
    }
    let is = found.map_or("none of the known formats", Format::name);
    Err(Failure::usage(format!("{} is {is}", traces.display()))
        .next("stanch group SERVICE --traces FILE, without --format"))
}

#[cfg(test)]
mod tests;
