use super::attributes::{Attributes, kind_number, kind_of, status_number};
use super::input::{Line, Lines, OPEN_RECORDS_MAX, Seen, too_deep, unreadable};
use super::{BATCH_BYTES_MAX, BATCH_SPANS_MAX, ImportError, Options, Report, id, malformed};
use crate::span::{LINKS_MAX, Link, Span, bounded_name, kept_name};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::io::{BufRead, Read as _};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Export<'a> {
    #[serde(borrow, default)]
    resource_spans: Vec<ResourceSpans<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    #[serde(borrow, default)]
    resource: Option<Resource<'a>>,
    #[serde(borrow, default)]
    scope_spans: Vec<ScopeSpans<'a>>,
}

#[derive(Deserialize)]
struct Resource<'a> {
    #[serde(borrow, default)]
    attributes: Vec<Attribute<'a>>,
}

#[derive(Deserialize)]
struct ScopeSpans<'a> {
    #[serde(borrow, default)]
    spans: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonSpan<'a> {
    #[serde(borrow)]
    trace_id: Cow<'a, str>,
    #[serde(borrow)]
    span_id: Cow<'a, str>,
    #[serde(borrow, default)]
    parent_span_id: Option<Cow<'a, str>>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    kind: Option<Number>,
    start_time_unix_nano: Number,
    end_time_unix_nano: Number,
    #[serde(borrow, default)]
    attributes: Vec<Attribute<'a>>,
    #[serde(borrow, default)]
    links: Vec<JsonLink<'a>>,
    #[serde(default)]
    status: Option<JsonStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonLink<'a> {
    #[serde(borrow)]
    trace_id: Cow<'a, str>,
    #[serde(borrow)]
    span_id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct JsonStatus {
    #[serde(default)]
    code: Option<Number>,
}

#[derive(Deserialize)]
struct Attribute<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(default)]
    value: Option<Any>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Any {
    #[serde(default)]
    string_value: Option<String>,
    #[serde(default)]
    bool_value: Option<bool>,
    #[serde(default)]
    int_value: Option<Number>,
}

/// A number, or a text with a number or a name in it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Unsigned(u64),
    Signed(i64),
    Text(String),
}

/// Reads what one request of an exporter carries.
pub(super) fn batch(bytes: &[u8], options: &Options<'_>, sink: &mut dyn FnMut(Span)) -> Result<Report, ImportError> {
    let mut report = Report::default();
    for export in serde_json::Deserializer::from_slice(bytes).into_iter::<Export<'_>>() {
        let export = export.map_err(|error| malformed(&error))?;
        if export.spans() > BATCH_SPANS_MAX {
            return Err(ImportError::TooLarge { limit: BATCH_SPANS_MAX, unit: "spans" });
        }
        for found in export.resource_spans {
            let resource = found.resource.map(Resource::taken).unwrap_or_default();
            for raw in found.scope_spans.iter().flat_map(|scope| &scope.spans) {
                match span(raw, &resource, options) {
                    Ok(span) => {
                        report.kept += 1;
                        sink(span);
                    }
                    Err(reason) => report.drop(reason),
                }
            }
        }
    }
    Ok(report)
}

/// Reads a file: one export a line, or one document of any size, of which one resource at a time is held.
pub(super) fn read(
    input: &mut dyn BufRead,
    options: &Options<'_>,
    sink: &mut dyn FnMut(Span),
) -> Result<Report, ImportError> {
    let mut state = Reader { options, sink, report: Report::default(), seen: Seen::new(OPEN_RECORDS_MAX) };
    let mut first = Vec::new();
    while first.trim_ascii().is_empty() {
        let most = BATCH_BYTES_MAX as u64 + 1;
        if input.take(most).read_until(b'\n', &mut first).map_err(|error| unreadable(&error))? == 0 {
            break;
        }
    }
    let whole = first.last() == Some(&b'\n') && serde_json::from_slice::<IgnoredAny>(&first).is_ok();
    let another = input.fill_buf().is_ok_and(|next| next.trim_ascii_start().starts_with(LINE_START));
    if whole || (another && first.last() == Some(&b'\n')) {
        state.lines(&first, input)?;
    } else {
        state.documents(std::io::Cursor::new(first).chain(input))?;
    }
    let Reader { mut report, seen, .. } = state;
    seen.finish(&mut report);
    Ok(report)
}

/// How a line of a file with one export a line begins.
const LINE_START: &[u8] = b"{\"resourceSpans\"";

struct Reader<'s, 'o> {
    options: &'s Options<'o>,
    sink: &'s mut dyn FnMut(Span),
    report: Report,
    seen: Seen,
}

impl Reader<'_, '_> {
    /// One export a line; a line that is none is one bad record. The first may take several, when they are empty.
    fn lines(&mut self, first: &[u8], input: &mut dyn BufRead) -> Result<(), ImportError> {
        self.line(first.trim_ascii());
        let mut lines = Lines::new(input, BATCH_BYTES_MAX);
        while let Some(line) = lines.next()? {
            match line {
                Line::Text(line) if line.trim_ascii().is_empty() => {}
                Line::Text(line) => self.line(line),
                Line::TooLong => self.report.drop("malformed"),
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) {
        let Ok(export) = serde_json::from_slice::<Export<'_>>(line) else { return self.report.drop("malformed") };
        if export.spans() > BATCH_SPANS_MAX {
            return self.report.drop("too many spans in one export");
        }
        for found in export.resource_spans {
            let resource = found.resource.map(Resource::taken).unwrap_or_default();
            for raw in found.scope_spans.iter().flat_map(|scope| &scope.spans) {
                self.span(raw, &resource);
            }
        }
    }

    /// One document after the other.
    fn documents(&mut self, input: impl BufRead) -> Result<(), ImportError> {
        let mut deserializer = serde_json::Deserializer::from_reader(input);
        loop {
            Document(self).deserialize(&mut deserializer).map_err(|error| malformed(&error))?;
            if deserializer.end().is_ok() {
                return Ok(());
            }
        }
    }

    fn resource(&mut self, found: Held) {
        let resource =
            found.resource.and_then(|raw| Some(serde_json::from_str::<Resource<'_>>(raw.get()).ok()?.taken()));
        let resource = resource.unwrap_or_default();
        for scope in &found.scope_spans {
            scope.spans.kept.iter().for_each(|raw| self.span(raw, &resource));
            (0..scope.spans.over).for_each(|_| self.report.drop("too many spans of one resource"));
        }
    }

    fn span(&mut self, raw: &RawValue, resource: &Attributes) {
        match span(raw, resource, self.options) {
            Ok(span) => {
                if self.seen.is_new((span.trace, span.id), span.parent, &mut self.report) {
                    (self.sink)(span);
                }
            }
            Err(reason) => self.report.drop(reason),
        }
    }
}

/// The spans of one resource, as they are held until the resource is known.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Held {
    #[serde(default)]
    resource: Option<Box<RawValue>>,
    #[serde(default)]
    scope_spans: Vec<HeldScope>,
}

#[derive(Deserialize)]
struct HeldScope {
    #[serde(default)]
    spans: HeldSpans,
}

/// As many spans as one export may carry, and how many more there were.
#[derive(Default)]
struct HeldSpans {
    kept: Vec<Box<RawValue>>,
    over: u64,
}

impl<'de> Deserialize<'de> for HeldSpans {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HeldSpans, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = HeldSpans;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of spans")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<HeldSpans, A::Error> {
                let mut held = HeldSpans::default();
                while held.kept.len() < BATCH_SPANS_MAX {
                    let Some(raw) = seq.next_element()? else { return Ok(held) };
                    held.kept.push(raw);
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    held.over += 1;
                }
                Ok(held)
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// One document: an object with `resourceSpans`.
struct Document<'r, 's, 'o>(&'r mut Reader<'s, 'o>);

/// Its resources, one after the other.
struct Resources<'r, 's, 'o>(&'r mut Reader<'s, 'o>);

impl<'de> DeserializeSeed<'de> for Document<'_, '_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_, '_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with `resourceSpans`")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "resourceSpans" {
                map.next_value_seed(Resources(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Resources<'_, '_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Resources<'_, '_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of resources with their spans")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(found) = seq.next_element::<Held>()? {
            self.0.resource(found);
        }
        Ok(())
    }
}

impl Export<'_> {
    fn spans(&self) -> usize {
        self.resource_spans.iter().flat_map(|found| &found.scope_spans).map(|scope| scope.spans.len()).sum()
    }
}

impl Resource<'_> {
    fn taken(self) -> Attributes {
        let mut attributes = Attributes::default();
        self.attributes.into_iter().for_each(|one| one.give(&mut attributes));
        attributes
    }
}

fn span(raw: &RawValue, resource: &Attributes, options: &Options<'_>) -> Result<Span, &'static str> {
    if too_deep(raw.get()) {
        return Err("malformed");
    }
    let json: JsonSpan<'_> = serde_json::from_str(raw.get()).map_err(|_| "malformed")?;
    let (trace, own) = (id(&json.trace_id), span_id(&json.span_id));
    if trace == 0 || own == 0 {
        return Err("zero id");
    }
    let service = resource.service.as_ref().ok_or("no service")?;
    let (start, end) =
        (json.start_time_unix_nano.unsigned().ok_or("time")?, json.end_time_unix_nano.unsigned().ok_or("time")?);
    let links =
        json.links.iter().take(LINKS_MAX).map(|link| Link { trace: id(&link.trace_id), id: span_id(&link.span_id) });
    let mut span = Span {
        trace,
        id: own,
        parent: json.parent_span_id.as_deref().map(span_id).filter(|id| *id != 0),
        links: links.collect(),
        service: bounded_name(service),
        instance: resource.instance.clone(),
        generation: resource.generation.clone(),
        kind: json.kind.map_or(crate::span::Kind::Unknown, |kind| kind.kind()),
        start_us: start / 1_000,
        duration_us: end.checked_sub(start).ok_or("time")? / 1_000,
        status: status_number(json.status.and_then(|status| status.code).map_or(0, |code| code.status())),
        authenticated: options.authenticated,
        name: kept_name(json.name),
        peer: None,
    };
    let mut attributes = Attributes::default();
    json.attributes.into_iter().for_each(|one| one.give(&mut attributes));
    attributes.apply(&mut span);
    Ok(span)
}

fn span_id(text: &str) -> u64 {
    if text.is_empty() {
        return 0;
    }
    u64::try_from(id(text)).unwrap_or(0)
}

impl Attribute<'_> {
    fn give(self, attributes: &mut Attributes) {
        let Some(value) = self.value else { return };
        let text = value.string_value.or_else(|| value.bool_value.map(|flag| flag.to_string()));
        let text = text.or_else(|| value.int_value.map(|number| number.text()));
        attributes.take(&self.key, &text.unwrap_or_default());
    }
}

impl Number {
    fn unsigned(&self) -> Option<u64> {
        match self {
            Number::Unsigned(number) => Some(*number),
            Number::Signed(_) => None,
            Number::Text(text) => text.parse().ok(),
        }
    }

    fn text(self) -> String {
        match self {
            Number::Unsigned(number) => number.to_string(),
            Number::Signed(number) => number.to_string(),
            Number::Text(text) => text,
        }
    }

    /// Some writers put the enum's name where its number belongs.
    fn kind(&self) -> crate::span::Kind {
        let word = |text: &str| kind_of(&text.trim_start_matches("SPAN_KIND_").to_ascii_lowercase());
        match self {
            Number::Text(text) if self.unsigned().is_none() => word(text).unwrap_or_default(),
            _ => kind_number(self.unsigned().unwrap_or(0)),
        }
    }

    fn status(&self) -> u64 {
        match self {
            Number::Text(text) if text == "STATUS_CODE_ERROR" => 2,
            Number::Text(text) if text == "STATUS_CODE_OK" => 1,
            _ => self.unsigned().unwrap_or(0),
        }
    }
}
