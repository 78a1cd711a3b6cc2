use super::attributes::{Attributes, kind_number, status_number};
use super::{BATCH_BYTES_MAX, BATCH_SPANS_MAX, ImportError, Options, Report};
use crate::span::{LINKS_MAX, Link, Span, bounded_name, kept_name};
use std::borrow::Cow;

/// Reads an export request, skipping every field that nobody here reads.
pub(super) fn read(bytes: &[u8], options: &Options<'_>) -> Result<(Vec<Span>, Report), ImportError> {
    if bytes.len() > BATCH_BYTES_MAX {
        return Err(ImportError::TooLarge { limit: BATCH_BYTES_MAX, unit: "bytes" });
    }
    let (mut spans, mut report) = (Vec::new(), Report::default());
    let request = Message { bytes, offset: 0 };
    for field in request.fields() {
        if let (1, Wire::Message(resource_spans)) = field? {
            read_resource(resource_spans, options, &mut spans, &mut report)?;
        }
    }
    report.kept = spans.len() as u64;
    Ok((spans, report))
}

fn read_resource(
    message: Message<'_>,
    options: &Options<'_>,
    spans: &mut Vec<Span>,
    report: &mut Report,
) -> Result<(), ImportError> {
    // The resource may stand behind its spans: it is read in a pass of its own.
    let mut resource = Attributes::default();
    for field in message.fields() {
        if let (1, Wire::Message(found)) = field? {
            for field in found.fields() {
                if let (1, Wire::Message(attribute)) = field? {
                    read_attribute(attribute, &mut resource)?;
                }
            }
        }
    }
    for field in message.fields() {
        let (2, Wire::Message(scope)) = field? else { continue };
        for field in scope.fields() {
            let (2, Wire::Message(span)) = field? else { continue };
            if spans.len() as u64 + report.dropped_total() >= BATCH_SPANS_MAX as u64 {
                return Err(ImportError::TooLarge { limit: BATCH_SPANS_MAX, unit: "spans" });
            }
            match read_span(span, &resource, options)? {
                Ok(span) => spans.push(span),
                Err(reason) => report.drop(reason),
            }
        }
    }
    Ok(())
}

/// A span, or why it is dropped.
fn read_span(
    message: Message<'_>,
    resource: &Attributes,
    options: &Options<'_>,
) -> Result<Result<Span, &'static str>, ImportError> {
    let mut span = Span { authenticated: options.authenticated, ..Span::default() };
    let mut own = Attributes::default();
    let (mut start, mut end) = (0, 0);
    for field in message.fields() {
        match field? {
            (1, Wire::Message(id)) => span.trace = id.id(),
            (2, Wire::Message(id)) => span.id = id.span_id(),
            (4, Wire::Message(id)) => span.parent = Some(id.span_id()).filter(|id| *id != 0),
            (5, Wire::Message(name)) => span.name = kept_name(name.str()?.to_owned()),
            (6, Wire::Number(kind)) => span.kind = kind_number(kind),
            (7, Wire::Fixed(nanos)) => start = nanos,
            (8, Wire::Fixed(nanos)) => end = nanos,
            (9, Wire::Message(attribute)) => read_attribute(attribute, &mut own)?,
            (13, Wire::Message(link)) if span.links.len() < LINKS_MAX => span.links.push(read_link(link)?),
            (15, Wire::Message(status)) => {
                for field in status.fields() {
                    if let (3, Wire::Number(code)) = field? {
                        span.status = status_number(code);
                    }
                }
            }
            _ => {}
        }
    }
    if span.trace == 0 || span.id == 0 {
        return Ok(Err("zero id"));
    }
    let Some(service) = &resource.service else { return Ok(Err("no service")) };
    if end < start {
        return Ok(Err("time"));
    }
    span.service = bounded_name(service);
    (span.instance, span.generation) = (resource.instance.clone(), resource.generation.clone());
    (span.start_us, span.duration_us) = (start / 1_000, (end - start) / 1_000);
    own.apply(&mut span);
    Ok(Ok(span))
}

fn read_link(message: Message<'_>) -> Result<Link, ImportError> {
    let mut link = Link { trace: 0, id: 0 };
    for field in message.fields() {
        match field? {
            (1, Wire::Message(id)) => link.trace = id.id(),
            (2, Wire::Message(id)) => link.id = id.span_id(),
            _ => {}
        }
    }
    Ok(link)
}

fn read_attribute(message: Message<'_>, attributes: &mut Attributes) -> Result<(), ImportError> {
    let (mut key, mut value) = ("", Cow::Borrowed(""));
    for field in message.fields() {
        match field? {
            (1, Wire::Message(text)) => key = text.str()?,
            (2, Wire::Message(any)) => {
                for field in any.fields() {
                    match field? {
                        (1, Wire::Message(text)) => value = Cow::Borrowed(text.str()?),
                        (2, Wire::Number(flag)) => value = Cow::Borrowed(if flag == 0 { "false" } else { "true" }),
                        (3, Wire::Number(number)) => value = Cow::Owned(number.cast_signed().to_string()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    attributes.take(key, &value);
    Ok(())
}

/// Length-delimited bytes, with their place in the whole.
#[derive(Clone, Copy)]
struct Message<'a> {
    bytes: &'a [u8],
    offset: usize,
}

/// The value of one field.
enum Wire<'a> {
    Number(u64),
    Fixed(u64),
    Message(Message<'a>),
    Other,
}

struct Fields<'a> {
    rest: Message<'a>,
}

impl<'a> Message<'a> {
    fn fields(self) -> Fields<'a> {
        Fields { rest: self }
    }

    fn str(self) -> Result<&'a str, ImportError> {
        let why = |_| ImportError::MalformedBytes { offset: self.offset, why: "text is not UTF-8" };
        std::str::from_utf8(self.bytes).map_err(why)
    }

    /// A trace id of sixteen bytes; any other length is no id.
    fn id(self) -> u128 {
        <[u8; 16]>::try_from(self.bytes).map_or(0, u128::from_be_bytes)
    }

    fn span_id(self) -> u64 {
        <[u8; 8]>::try_from(self.bytes).map_or(0, u64::from_be_bytes)
    }
}

impl<'a> Fields<'a> {
    fn fail(&self, why: &'static str) -> ImportError {
        ImportError::MalformedBytes { offset: self.rest.offset, why }
    }

    fn take(&mut self, count: usize) -> Result<Message<'a>, ImportError> {
        let Some((head, rest)) = self.rest.bytes.split_at_checked(count) else {
            return Err(self.fail("the bytes end inside a field"));
        };
        let taken = Message { bytes: head, offset: self.rest.offset };
        self.rest = Message { bytes: rest, offset: self.rest.offset + count };
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, ImportError> {
        // Nearly all tags and lengths are one byte.
        if let Some((byte, rest)) = self.rest.bytes.split_first().filter(|(byte, _)| **byte < 0x80) {
            self.rest = Message { bytes: rest, offset: self.rest.offset + 1 };
            return Ok(u64::from(*byte));
        }
        let mut value = 0_u64;
        for index in 0..10_u32 {
            let byte = self.take(1)?.bytes.first().copied().unwrap_or(0);
            if index == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.fail("a number longer than 64 bits"))
    }

    fn field(&mut self) -> Result<(u64, Wire<'a>), ImportError> {
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 {
            return Err(self.fail("field number 0"));
        }
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Fixed(<[u8; 8]>::try_from(self.take(8)?.bytes).map_or(0, u64::from_le_bytes)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| self.fail("a length beyond the bytes"))?;
                Wire::Message(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Other
            }
            _ => return Err(self.fail("an unknown wire type")),
        };
        Ok((number, wire))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), ImportError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.bytes.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest.bytes = &[];
        }
        Some(field)
    }
}
