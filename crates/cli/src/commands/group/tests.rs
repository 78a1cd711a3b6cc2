use super::*;
use std::io::Write as _;
use std::path::PathBuf;

fn span(service: &str, trace: u64, id: u64, parent: &str) -> serde_json::Value {
    let nanos = |us: u64| ((1_700_000_000_000_000 + us) * 1_000).to_string();
    serde_json::json!({
        "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": service } }] },
        "scopeSpans": [{ "spans": [{
            "traceId": format!("{trace:032x}"), "spanId": format!("{id:016x}"), "parentSpanId": parent, "name": "work",
            "kind": 2, "startTimeUnixNano": nanos(trace * 1_000 + id), "endTimeUnixNano": nanos(trace * 1_000 + 100 - id),
        }] }],
    })
}

/// Requests that `front` answers with the help of `back`.
fn traces(requests: u64) -> Vec<u8> {
    let request = |trace| [span("front", trace, 1, ""), span("back", trace, 2, &format!("{:016x}", 1))];
    let spans: Vec<_> = (1..=requests).flat_map(request).collect();
    serde_json::json!({ "resourceSpans": spans }).to_string().into_bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn args(service: &str, format: Option<TraceFormat>, declared: Option<PathBuf>) -> GroupArgs {
    GroupArgs { service: service.to_owned(), traces: None, server: None, format, declared, json: true }
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_trace_file_is_read_compressed_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut damaged = gzip(&traces(100));
    damaged.truncate(damaged.len() / 2);
    for (name, bytes) in [("plain.json", traces(100)), ("packed.json.gz", gzip(&traces(100)))] {
        let path = write(dir.path(), name, &bytes);
        let (snapshot, report) = read(&args("back", Some(TraceFormat::OtlpJson), None), &path).unwrap();
        assert_eq!((snapshot.services().count(), snapshot.edges().len(), report.kept), (2, 1, 200), "{name}");
        assert_eq!(from_file(&args("back", None, None), &path).unwrap(), 0, "{name}");
    }
    let path = write(dir.path(), "damaged.json.gz", &damaged);
    let failure = read(&args("back", None, None), &path).unwrap_err();
    assert!(failure.exit == 2 && failure.message.contains("damaged gzip"), "{failure:?}");
}

#[test]
fn what_cannot_be_answered_says_why_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "plain.json", &traces(1));
    let misspelt = from_file(&args("bak", None, None), &path).unwrap_err();
    assert_eq!((misspelt.exit, misspelt.next.as_deref()), (2, Some("one of: back, front")));
    assert!(misspelt.message.contains("did you mean `back`?"), "{misspelt:?}");
    let thin = from_file(&args("back", None, None), &path).unwrap_err();
    assert!(thin.exit == 3 && thin.message.contains("too little was seen"), "{thin:?}");
    let other = from_file(&args("back", Some(TraceFormat::Jaeger), None), &path).unwrap_err();
    assert!(other.exit == 2 && other.message.ends_with("is OTLP JSON"), "{other:?}");
    let missing = from_file(&args("back", None, None), &dir.path().join("none.json")).unwrap_err();
    assert!(missing.exit == 2 && missing.message.contains("none.json"), "{missing:?}");
    let declared = write(dir.path(), "stanch.toml", b"[service.front]\nnonsense = 1\n");
    let undeclared = from_file(&args("back", None, Some(declared)), &path).unwrap_err();
    assert!(undeclared.exit == 2 && undeclared.message.contains("nonsense"), "{undeclared:?}");
}

#[test]
fn a_table_without_its_dictionary_beside_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("case.spans.csv.gz");
    let failure = dictionary(&path, None).unwrap_err();
    assert!(failure.message.contains("case.dict.json"), "{failure:?}");
    write(dir.path(), "case.dict.json", b"{}");
    assert_eq!(dictionary(&path, None).unwrap().as_deref(), Some(&b"{}"[..]));
    assert!(dictionary(&dir.path().join("other.json"), None).unwrap().is_none());
}
