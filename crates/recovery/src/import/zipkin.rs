use super::attributes::{Attributes, kind_of};
use super::input::{Grouped, OPEN_RECORDS_MAX, Seen, too_deep};
use super::{ImportError, Options, Report, id, malformed};
use crate::span::{Kind, Span, Status, bounded_name, kept_name};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ZipkinSpan<'a> {
    #[serde(borrow)]
    trace_id: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    parent_id: Option<Cow<'a, str>>,
    #[serde(default)]
    name: Option<String>,
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    timestamp: Option<u64>,
    #[serde(default)]
    duration: Option<u64>,
    #[serde(default)]
    shared: bool,
    #[serde(default)]
    local_endpoint: Option<Endpoint>,
    #[serde(default)]
    remote_endpoint: Option<Endpoint>,
    #[serde(default)]
    tags: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    #[serde(default)]
    service_name: Option<String>,
}

/// A span as read, and whether it shares its id with its caller's.
struct Half {
    span: Span,
    shared: bool,
    timed: bool,
}

/// Streams a list of spans, or a list of traces that are lists of spans.
pub(super) fn read(
    input: &mut dyn BufRead,
    options: &Options<'_>,
    sink: &mut dyn FnMut(Span),
) -> Result<Report, ImportError> {
    let mut state = Reader {
        options,
        sink,
        report: Report::default(),
        seen: Seen::new(OPEN_RECORDS_MAX),
        open: Grouped::new(OPEN_RECORDS_MAX),
    };
    let mut deserializer = serde_json::Deserializer::from_reader(input);
    List(&mut state).deserialize(&mut deserializer).map_err(|error| malformed(&error))?;
    deserializer.end().map_err(|error| malformed(&error))?;
    while let Some((_, halves)) = state.open.pop() {
        state.trace(halves);
    }
    let Reader { mut report, seen, .. } = state;
    seen.finish(&mut report);
    Ok(report)
}

struct Reader<'s, 'o> {
    options: &'s Options<'o>,
    sink: &'s mut dyn FnMut(Span),
    report: Report,
    seen: Seen,
    open: Grouped<Half>,
}

struct List<'r, 's, 'o>(&'r mut Reader<'s, 'o>);

impl<'de> DeserializeSeed<'de> for List<'_, '_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_, '_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of spans")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(raw) = seq.next_element::<Box<RawValue>>()? {
            self.0.element(raw.get());
        }
        Ok(())
    }
}

impl Reader<'_, '_> {
    /// One span, or one trace.
    fn element(&mut self, raw: &str) {
        if too_deep(raw) {
            return self.report.drop("malformed");
        }
        if raw.starts_with('[') {
            match serde_json::from_str::<Vec<&RawValue>>(raw) {
                Ok(spans) => spans.into_iter().for_each(|span| self.take(span.get())),
                Err(_) => self.report.drop("malformed"),
            }
        } else {
            self.take(raw);
        }
    }

    fn take(&mut self, raw: &str) {
        match half(raw, self.options) {
            Ok(half) => {
                if let Some((_, halves)) = self.open.push(half.span.trace, half) {
                    self.trace(halves);
                }
            }
            Err(reason) => self.report.drop(reason),
        }
    }

    /// A complete trace: where client and server share one id, the server's half gets its own and hangs under the
    /// client's; what was called from the server's service hangs under the server's.
    fn trace(&mut self, mut halves: Vec<Half>) {
        let ids: BTreeSet<u64> =
            halves.iter().filter(|half| half.span.kind != Kind::Server).map(|half| half.span.id).collect();
        let servers: BTreeMap<u64, String> = halves
            .iter()
            .filter(|half| half.span.kind == Kind::Server && (half.shared || ids.contains(&half.span.id)))
            .map(|half| (half.span.id, half.span.service.clone()))
            .collect();
        let earliest = halves.iter().filter(|half| half.timed).map(|half| half.span.start_us).min();
        for half in &mut halves {
            let span = &mut half.span;
            if !half.timed {
                span.start_us = earliest.unwrap_or(0);
                self.report.repair("no timestamp");
            }
            let is_server_half = span.kind == Kind::Server && servers.contains_key(&span.id);
            if is_server_half {
                span.parent = Some(span.id);
                span.id = server_id(span.id);
                self.report.repair("shared id");
            } else if let Some(parent) = span.parent.filter(|parent| servers.get(parent) == Some(&span.service)) {
                span.parent = Some(server_id(parent));
            }
        }
        for half in halves {
            // Without a time there is nothing to order by, and a graph that is asked for its age.
            if earliest.is_none() {
                self.report.drop("time");
            } else if self.seen.is_new((half.span.trace, half.span.id), half.span.parent, &mut self.report) {
                (self.sink)(half.span);
            }
        }
    }
}

fn half(raw: &str, options: &Options<'_>) -> Result<Half, &'static str> {
    let json: ZipkinSpan<'_> = serde_json::from_str(raw).map_err(|_| "malformed")?;
    let narrow = |text: &str| u64::try_from(id(text) & u128::from(u64::MAX)).unwrap_or(0);
    let (trace, own) = (id(&json.trace_id), narrow(&json.id));
    if trace == 0 || own == 0 {
        return Err("zero id");
    }
    let named = |endpoint: Option<Endpoint>| endpoint?.service_name.filter(|name| !name.is_empty());
    let service = named(json.local_endpoint).ok_or("no service")?;
    let mut span = Span {
        trace,
        id: own,
        parent: json.parent_id.as_deref().map(narrow).filter(|parent| *parent != 0),
        service: bounded_name(&service),
        name: kept_name(json.name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned())),
        kind: json.kind.and_then(|kind| kind_of(&kind.to_ascii_lowercase())).unwrap_or_default(),
        start_us: json.timestamp.unwrap_or(0),
        duration_us: json.duration.unwrap_or(0),
        authenticated: options.authenticated,
        ..Span::default()
    };
    if span.start_us.checked_add(span.duration_us).is_none() {
        return Err("time");
    }
    let mut attributes = Attributes::default();
    for (key, value) in json.tags.iter().flatten() {
        attributes.take(key, value);
        // Whatever its value, and be it empty.
        if key == "error" {
            span.status = Status::Error;
        }
    }
    if let Some(remote) = named(json.remote_endpoint) {
        attributes.take("peer.service", &remote);
    }
    attributes.apply(&mut span);
    Ok(Half { span, shared: json.shared, timed: json.timestamp.is_some_and(|at| at > 0) })
}

/// The id of the server's half of a shared span.
fn server_id(shared: u64) -> u64 {
    let digest = base::Digest::of(format!("zipkin server {shared:016x}").as_bytes());
    digest.0.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)).max(1)
}
