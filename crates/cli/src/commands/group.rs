//! `stanch group`: what must restart together, from a trace file or a running server.

use super::follow::connect;
use super::show::percent;
use crate::args::{GroupArgs, TraceFormat};
use crate::failure::Failure;
use base::Timestamp;
use recovery::graph::{Config, Graph, Snapshot};
use recovery::groups::{Explanation, GroupPolicy, group};
use recovery::import::{self, Format, Options, Report};
use std::io::Read as _;
use std::path::Path;

pub(crate) async fn run(args: &GroupArgs) -> Result<u8, Failure> {
    match (&args.traces, &args.server) {
        (Some(traces), _) => from_file(args, traces),
        (None, Some(server)) => from_server(args, server).await,
        (None, None) => from_server(args, "http://127.0.0.1:8001").await,
    }
}

async fn from_server(args: &GroupArgs, server: &str) -> Result<u8, Failure> {
    let answer = connect(server)?.get_bytes(&format!("/groups/{}", args.service)).await;
    let (status, bytes) = answer.map_err(|error| {
        Failure::internal(format!("no server at {server}: {error}")).next("stanch group SERVICE --traces FILE, which needs no server")
    })?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match status {
        200 => {
            let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(anyhow::Error::from)?;
            if args.json { println!("{value}") } else { print_value(&value) }
            Ok(0)
        }
        404 => Err(Failure::usage(text)),
        _ => Err(Failure { exit: 3, message: text, next: None }),
    }
}

fn from_file(args: &GroupArgs, traces: &Path) -> Result<u8, Failure> {
    let (snapshot, report) = read(args, traces)?;
    if !snapshot.contains(&args.service) {
        let near = server::incidents::nearest(&args.service, snapshot.services());
        let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        let failure = Failure::usage(format!("no service `{}` in these traces{hint}", args.service));
        return Err(failure.next(format!("one of: {}", snapshot.services().take(12).collect::<Vec<_>>().join(", "))));
    }
    let policy = GroupPolicy::at(snapshot.newest().unwrap_or(Timestamp(0)));
    let targets = [args.service.as_str()];
    let found = group(&snapshot, &targets, &policy).map_err(|error| Failure { exit: 3, message: error.to_string(), next: None })?;
    let explanation = Explanation::of(&snapshot, &targets, &found, &policy);
    let mut value = serde_json::to_value(&explanation).map_err(anyhow::Error::from)?;
    if let Some(map) = value.as_object_mut() {
        map.insert("services".into(), snapshot.services().count().into());
        map.insert("edges".into(), snapshot.edges().len().into());
        map.insert("import".into(), serde_json::to_value(&report).map_err(anyhow::Error::from)?);
    }
    if args.json { println!("{value}") } else { print_value(&value) }
    Ok(0)
}

fn read(args: &GroupArgs, traces: &Path) -> Result<(Snapshot, Report), Failure> {
    let bytes = inflated(traces)?;
    let dictionary = dictionary(traces, args.format)?;
    check_format(args.format, &bytes, traces)?;
    let options = Options { authenticated: true, dictionary: dictionary.as_deref() };
    let read = import::spans(&bytes, &options);
    let (spans, report) = read.map_err(|error| Failure::usage(format!("{}: {error}", traces.display())))?;
    // A file is past: windows that ask for fresh spans ask for the file's own last moment.
    let config = Config { fresh_after: base::Millis(0), ..Config::default() };
    let mut graph = Graph::new(&config);
    if let Some(file) = &args.declared {
        let topology = server::topology::load(file).map_err(|error| Failure::usage(error.to_string()))?;
        graph.declare(&topology).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
    }
    let mut newest = Timestamp(0);
    for span in &spans {
        let at = Timestamp(i64::try_from(span.end_us() / 1_000).unwrap_or(i64::MAX));
        newest = newest.max(at);
        graph.observe(span, newest);
    }
    // Everything has arrived: what still waits for a parent has lost it.
    graph.rotate(newest);
    graph.rotate(newest);
    Ok((graph.snapshot(newest), report))
}

fn inflated(path: &Path) -> Result<Vec<u8>, Failure> {
    let raw = std::fs::read(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    if !raw.starts_with(&[0x1f, 0x8b]) {
        return Ok(raw);
    }
    let mut out = Vec::new();
    let read = flate2::read::GzDecoder::new(raw.as_slice()).read_to_end(&mut out);
    read.map_err(|error| Failure::usage(format!("{}: damaged gzip: {error}", path.display())))?;
    Ok(out)
}

/// The dictionary beside a Nezha table: `X.spans.csv[.gz]` → `X.dict.json`.
fn dictionary(traces: &Path, format: Option<TraceFormat>) -> Result<Option<Vec<u8>>, Failure> {
    let name = traces.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = name.strip_suffix(".gz").unwrap_or(&name).strip_suffix(".spans.csv").map(str::to_owned);
    let wanted = format == Some(TraceFormat::Nezha) || stem.is_some();
    let Some(stem) = stem.filter(|_| wanted) else { return Ok(None) };
    let path = traces.with_file_name(format!("{stem}.dict.json"));
    let read = std::fs::read(&path);
    read.map(Some).map_err(|error| Failure::usage(format!("{}: {error}; the table needs its dictionary beside it", path.display())))
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
    Err(Failure::usage(format!("{} is {is}", traces.display())).next("the same command without --format"))
}

fn print_value(value: &serde_json::Value) {
    let text = |key: &str| value.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let number = |key: &str| value.get(key).and_then(serde_json::Value::as_u64).unwrap_or(0);
    let share = |key: &str| percent(u32::try_from(number(key)).unwrap_or(1_000_000));
    let names = |key: &str| {
        let list = value.get(key).and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
        list.iter().filter_map(serde_json::Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let list = |key: &str| value.get(key).and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    let restart = names("restart");
    let coupled = if restart.len() == 1 { ", nothing coupled".to_owned() } else { format!(", {} coupled", restart.len()) };
    let waves = list("waves").len();
    println!("restart      {}   {waves} wave{}{coupled}", restart.join(", "), if waves == 1 { "" } else { "s" });
    let drains = list("drain_first");
    for drain in &drains {
        let of = |key: &str| drain.get(key).and_then(serde_json::Value::as_u64).unwrap_or(0);
        let service = drain.get("service").and_then(serde_json::Value::as_str).unwrap_or_default();
        println!("drain first  {service}   {} callers (more than {} are drained) · {} requests in flight", of("fan_in"), of("fan_in_max"), of("inflight_milli").div_ceil(1_000));
    }
    if drains.is_empty() {
        println!("drain first  nothing");
    }
    for line in list("order") {
        let of = |key: &str| line.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        let calls = line.get("calls").and_then(serde_json::Value::as_u64).unwrap_or(0);
        let ago = line.get("last_seen_ms_ago").and_then(serde_json::Value::as_u64);
        let seen = ago.map(|ms| format!(", last seen {}.{} s before the end", ms / 1_000, ms % 1_000 / 100)).unwrap_or_default();
        println!("order        {} before {}   {} {}, {calls} calls{seen}", of("first"), of("then"), of("relation"), of("hardness"));
    }
    let exact = if value.get("root_share_exact").and_then(serde_json::Value::as_bool) == Some(true) { "" } else { "at most " };
    let callers = names("hard_callers");
    let shown = if callers.is_empty() { "none".to_owned() } else { callers.join(", ") };
    println!("blast        {exact}{} of root requests · {} hard callers ({shown}) · about {} requests lost", share("root_share_ppm"), number("hard_callers_at_least"), number("loss_requests"));
    println!(
        "sure         {}: {} requests watched, {} surprises; at most {} of paths in and {} of calls out could differ (error {})",
        text("level"), number("trials"), number("surprises"), share("miss_in_ppm"), share("miss_out_ppm"), share("alpha_ppm")
    );
    let reasons = names("reasons");
    if !reasons.is_empty() {
        println!("             not full because: {}", reasons.join(", "));
    }
    println!("             {} of spans joined · declared edges seen: {} of {}", share("coverage_ppm"), number("declared_and_seen"), number("declared"));
    if let Some(services) = value.get("services") {
        println!("traces       {services} services, {} edges, {} spans", number("edges"), value.pointer("/import/kept").cloned().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests;
