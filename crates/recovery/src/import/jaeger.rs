use super::attributes::Attributes;
use super::input::{OPEN_RECORDS_MAX, Seen, too_deep};
use super::{ImportError, Options, Report, id, malformed};
use crate::span::{Kind, LINKS_MAX, Link, Span, bounded_name, kept_name};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de::Error as _};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::BufRead;

/// LIMIT: spans of one trace; further ones are dropped.
pub const TRACE_SPANS_MAX: usize = 1 << 18;

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    service_name: String,
    #[serde(default)]
    tags: Option<Vec<Tag>>,
}

#[derive(Clone, Deserialize)]
struct Tag {
    key: String,
    #[serde(default)]
    value: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct JaegerSpan<'a> {
    #[serde(borrow, rename = "traceID")]
    trace: Cow<'a, str>,
    #[serde(borrow, rename = "spanID")]
    id: Cow<'a, str>,
    #[serde(borrow, default, rename = "parentSpanID")]
    parent: Option<Cow<'a, str>>,
    #[serde(default, rename = "operationName")]
    name: String,
    #[serde(borrow, default)]
    references: Option<Vec<Reference<'a>>>,
    #[serde(rename = "startTime")]
    start_us: u64,
    #[serde(rename = "duration")]
    duration_us: u64,
    #[serde(default)]
    tags: Option<Vec<Tag>>,
    #[serde(borrow, default, rename = "processID")]
    process_id: Option<Cow<'a, str>>,
    #[serde(default)]
    process: Option<Process>,
}

/// A reference; the parent span embedded in it is skipped unread.
#[derive(Deserialize)]
struct Reference<'a> {
    #[serde(borrow, default, rename = "refType")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "traceID")]
    trace: Cow<'a, str>,
    #[serde(borrow, rename = "spanID")]
    id: Cow<'a, str>,
}

/// Streams the traces of a file: of one at a time its spans are held, until its processes are known.
pub(super) fn read(
    input: &mut dyn BufRead,
    options: &Options<'_>,
    sink: &mut dyn FnMut(Span),
) -> Result<Report, ImportError> {
    let seen = Seen::new(OPEN_RECORDS_MAX);
    let mut state = Reader { options, sink, report: Report::default(), seen };
    let mut deserializer = serde_json::Deserializer::from_reader(input);
    File(&mut state).deserialize(&mut deserializer).map_err(|error| malformed(&error))?;
    deserializer.end().map_err(|error| malformed(&error))?;
    let Reader { mut report, seen, .. } = state;
    seen.finish(&mut report);
    Ok(report)
}

struct Reader<'s, 'o> {
    options: &'s Options<'o>,
    sink: &'s mut dyn FnMut(Span),
    report: Report,
    seen: Seen,
}

/// A span that waits for the processes of its trace.
struct Pending {
    span: Span,
    process: Option<String>,
    inline: Option<Process>,
}

/// The whole file: an object whose `data` holds the traces.
struct File<'r, 's, 'o>(&'r mut Reader<'s, 'o>);

/// The traces: each is handed on as soon as it is complete.
struct Traces<'r, 's, 'o>(&'r mut Reader<'s, 'o>);

/// One trace: an object with `spans` and, before or after them, `processes`.
struct Trace<'r, 's, 'o>(&'r mut Reader<'s, 'o>);

/// The spans of one trace.
struct Spans<'r, 's, 'o>(&'r mut Reader<'s, 'o>);

impl<'de> DeserializeSeed<'de> for File<'_, '_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for File<'_, '_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with `data`")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(key) = map.next_key::<String>()? {
            if key == "data" {
                found = true;
                map.next_value_seed(Traces(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if found { Ok(()) } else { Err(A::Error::missing_field("data")) }
    }
}

impl<'de> DeserializeSeed<'de> for Traces<'_, '_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Traces<'_, '_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of traces")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Trace(self.0))?.is_some() {}
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Trace<'_, '_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Trace<'_, '_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a trace with `spans` and `processes`")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut pending = Vec::new();
        let mut processes = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "spans" => pending = map.next_value_seed(Spans(self.0))?,
                "processes" => {
                    let raw: Option<BTreeMap<String, Box<RawValue>>> = map.next_value()?;
                    processes = raw.unwrap_or_default();
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        self.0.trace(pending, &processes);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Spans<'_, '_, '_> {
    type Value = Vec<Pending>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Pending>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Spans<'_, '_, '_> {
    type Value = Vec<Pending>;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of spans")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Pending>, A::Error> {
        let mut pending = Vec::new();
        while let Some(raw) = seq.next_element::<Box<RawValue>>()? {
            match self.0.span(&raw) {
                Ok(_) if pending.len() >= TRACE_SPANS_MAX => self.0.report.drop("trace too long"),
                Ok(span) => pending.push(span),
                Err(reason) => self.0.report.drop(reason),
            }
        }
        Ok(pending)
    }
}

impl Reader<'_, '_> {
    fn trace(&mut self, pending: Vec<Pending>, processes: &BTreeMap<String, Box<RawValue>>) {
        let read = |raw: &RawValue| serde_json::from_str::<Process>(raw.get()).ok();
        let known: BTreeMap<&str, Process> =
            processes.iter().filter_map(|(name, raw)| Some((name.as_str(), read(raw)?))).collect();
        for Pending { mut span, process, inline } in pending {
            let named = process.as_deref().and_then(|name| known.get(name));
            let Some(process) = named.or(inline.as_ref()).filter(|process| !process.service_name.is_empty()) else {
                self.report.drop("no service");
                continue;
            };
            span.service = bounded_name(&process.service_name);
            let resource = attributes(process.tags.as_ref());
            (span.instance, span.generation) = (resource.instance, resource.generation);
            if self.seen.is_new((span.trace, span.id), span.parent, &mut self.report) {
                (self.sink)(span);
            }
        }
    }

    fn span(&mut self, raw: &RawValue) -> Result<Pending, &'static str> {
        if too_deep(raw.get()) {
            return Err("malformed");
        }
        let json: JaegerSpan<'_> = serde_json::from_str(raw.get()).map_err(|_| "malformed")?;
        let (trace, own) = (id(&json.trace), short(&json.id));
        if json.id.len() > 16 {
            self.report.repair("long id");
        }
        if trace == 0 || own == 0 {
            return Err("zero id");
        }
        let references = json.references.unwrap_or_default();
        let own_trace = |reference: &&Reference<'_>| id(&reference.trace) == trace;
        let child_of =
            references.iter().filter(own_trace).find(|reference| reference.kind.as_deref() != Some("FOLLOWS_FROM"));
        let legacy = json.parent.as_deref().map(short).filter(|parent| *parent != 0);
        let parent = child_of.map(|reference| short(&reference.id)).or(legacy).filter(|parent| *parent != 0);
        let others = references.iter().filter(|other| child_of.is_none_or(|parent| !std::ptr::eq(parent, *other)));
        let links = others.take(LINKS_MAX).map(|other| Link { trace: id(&other.trace), id: short(&other.id) });
        let mut span = Span {
            trace,
            id: own,
            parent,
            links: links.collect(),
            name: kept_name(json.name),
            kind: Kind::Unknown,
            start_us: json.start_us,
            duration_us: json.duration_us,
            authenticated: self.options.authenticated,
            ..Span::default()
        };
        attributes(json.tags.as_ref()).apply(&mut span);
        Ok(Pending { span, process: json.process_id.map(Cow::into_owned), inline: json.process })
    }
}

fn attributes(tags: Option<&Vec<Tag>>) -> Attributes {
    let mut attributes = Attributes::default();
    tags.into_iter().flatten().for_each(|tag| attributes.take(&tag.key, &tag.text()));
    attributes
}

/// A span id; one that is longer than 64 bits keeps its low half.
fn short(text: &str) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
    let low = id(text) as u64;
    low
}

impl Tag {
    fn text(&self) -> String {
        match &self.value {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => String::new(),
        }
    }
}
