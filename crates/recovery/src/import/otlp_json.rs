use super::attributes::{Attributes, kind_number, kind_of, status_number};
use super::{BATCH_SPANS_MAX, ImportError, Options, Report, id, malformed};
use crate::span::{LINKS_MAX, Link, Span, bounded_name, kept_name};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

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

pub(super) fn read(bytes: &[u8], options: &Options<'_>, sink: &mut dyn FnMut(Span)) -> Result<Report, ImportError> {
    let mut report = Report::default();
    for export in serde_json::Deserializer::from_slice(bytes).into_iter::<Export<'_>>() {
        let export = export.map_err(|error| malformed(&error))?;
        let spans = export.resource_spans.iter().flat_map(|found| &found.scope_spans).map(|scope| scope.spans.len());
        if spans.sum::<usize>() > BATCH_SPANS_MAX {
            return Err(ImportError::TooLarge { limit: BATCH_SPANS_MAX, unit: "spans" });
        }
        for found in export.resource_spans {
            let mut resource = Attributes::default();
            found.resource.into_iter().flat_map(|resource| resource.attributes).for_each(|one| one.give(&mut resource));
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

fn span(raw: &RawValue, resource: &Attributes, options: &Options<'_>) -> Result<Span, &'static str> {
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
