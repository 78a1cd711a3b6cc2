use super::attributes::Attributes;
use super::{ImportError, Options, Report, id, malformed};
use crate::span::{Kind, LINKS_MAX, Link, Span, bounded_name, kept_name};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de::Error as _};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Deserialize)]
struct Trace<'a> {
    #[serde(borrow, default)]
    spans: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    processes: Option<BTreeMap<Cow<'a, str>, Process>>,
}

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

pub(super) fn read(bytes: &[u8], options: &Options<'_>, sink: &mut dyn FnMut(Span)) -> Result<Report, ImportError> {
    let mut state = Reader { options, sink, report: Report::default(), traces: BTreeSet::new() };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    File(&mut state).deserialize(&mut deserializer).map_err(|error| malformed(&error))?;
    deserializer.end().map_err(|error| malformed(&error))?;
    state.report.traces = state.traces.len() as u64;
    Ok(state.report)
}

struct Reader<'s, 'o> {
    options: &'s Options<'o>,
    sink: &'s mut dyn FnMut(Span),
    report: Report,
    traces: BTreeSet<u128>,
}

/// The whole file: an object whose `data` holds the traces.
struct File<'r, 's, 'o>(&'r mut Reader<'s, 'o>);

/// The traces: each is handed on as soon as it is complete.
struct Traces<'r, 's, 'o>(&'r mut Reader<'s, 'o>);

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
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
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
        while let Some(trace) = seq.next_element::<Trace<'de>>()? {
            self.0.trace(&trace);
        }
        Ok(())
    }
}

impl Reader<'_, '_> {
    fn trace(&mut self, trace: &Trace<'_>) {
        let mut seen: BTreeSet<(u128, u64)> = BTreeSet::new();
        let mut parents: Vec<(u128, u64)> = Vec::new();
        for raw in &trace.spans {
            match self.span(raw, trace.processes.as_ref()) {
                Ok(span) if !seen.insert((span.trace, span.id)) => self.report.duplicates += 1,
                Ok(span) => {
                    parents.extend(span.parent.map(|parent| (span.trace, parent)));
                    self.traces.insert(span.trace);
                    self.report.kept += 1;
                    (self.sink)(span);
                }
                Err(reason) => self.report.drop(reason),
            }
        }
        self.report.orphans += parents.iter().filter(|parent| !seen.contains(parent)).count() as u64;
    }

    fn span(
        &mut self,
        raw: &RawValue,
        processes: Option<&BTreeMap<Cow<'_, str>, Process>>,
    ) -> Result<Span, &'static str> {
        let json: JaegerSpan<'_> = serde_json::from_str(raw.get()).map_err(|_| "malformed")?;
        let (trace, own) = (id(&json.trace), short(&json.id));
        if json.id.len() > 16 {
            self.report.repair("long id");
        }
        if trace == 0 || own == 0 {
            return Err("zero id");
        }
        let named = json.process_id.as_ref().and_then(|name| processes?.get(name));
        let process = named.or(json.process.as_ref()).ok_or("no service")?;
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
            service: bounded_name(&process.service_name),
            name: kept_name(json.name),
            kind: Kind::Unknown,
            start_us: json.start_us,
            duration_us: json.duration_us,
            authenticated: self.options.authenticated,
            ..Span::default()
        };
        if span.service.is_empty() {
            return Err("no service");
        }
        let attributes = |tags: Option<&Vec<Tag>>| {
            let mut attributes = Attributes::default();
            tags.into_iter().flatten().for_each(|tag| attributes.take(&tag.key, &tag.text()));
            attributes
        };
        let resource = attributes(process.tags.as_ref());
        (span.instance, span.generation) = (resource.instance, resource.generation);
        attributes(json.tags.as_ref()).apply(&mut span);
        Ok(span)
    }
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
