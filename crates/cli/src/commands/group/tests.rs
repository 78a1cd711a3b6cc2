use super::file::{DICTIONARY_BYTES_MAX, stem};
use super::*;
use crate::args::{SourceArgs, TraceFormat};
use std::io::Write as _;
use std::path::PathBuf;

fn span(service: &str, trace: u64, id: u64, parent: &str) -> serde_json::Value {
    let nanos = |us: u64| ((1_700_000_000_000_000 + us) * 1_000).to_string();
    serde_json::json!({
        "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": service } }] },
        "scopeSpans": [{ "spans": [{
            "traceId": format!("{trace:032x}"), "spanId": format!("{id:016x}"), "parentSpanId": parent, "name": "work",
            "kind": 2, "startTimeUnixNano": nanos(trace * 1_000_000 + id), "endTimeUnixNano": nanos(trace * 1_000_000 + 100 - id),
        }] }],
    })
}

/// Requests, one a second, that `front` answers with the help of `back`.
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
    let source = SourceArgs { traces: None, server: String::new(), format, declared };
    let shown = ShownArgs { json: true, ..ShownArgs::default() };
    GroupArgs { command: None, service: Some(service.to_owned()), source, shown }
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
        let found = read(&args("back", Some(TraceFormat::OtlpJson), None).source, &path).unwrap();
        let counts = (found.snapshot.services().count(), found.snapshot.edges().len(), found.report.kept);
        assert_eq!((counts, found.covered.0 / 1_000), ((2, 1, 200), 99), "{name}");
        assert_eq!(from_file(&args("back", None, None), &path).unwrap(), 0, "{name}");
    }
    let path = write(dir.path(), "damaged.json.gz", &damaged);
    let failure = read(&args("back", None, None).source, &path).unwrap_err();
    assert!(failure.exit == 2 && failure.message.contains("damaged gzip"), "{failure:?}");
}

#[test]
fn what_cannot_be_answered_says_why_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "plain.json", &traces(1));
    let misspelt = from_file(&args("bak", None, None), &path).unwrap_err();
    assert_eq!((misspelt.exit, misspelt.next.as_deref()), (2, Some("one of: back, front")));
    assert!(misspelt.message.contains("did you mean `back`?"), "{misspelt:?}");
    let other = from_file(&args("back", Some(TraceFormat::Jaeger), None), &path).unwrap_err();
    assert!(other.exit == 2 && other.message.ends_with("is OTLP JSON"), "{other:?}");
    let missing = from_file(&args("back", None, None), &dir.path().join("none.json")).unwrap_err();
    assert!(missing.exit == 2 && missing.message.contains("none.json"), "{missing:?}");
    let declared = write(dir.path(), "stanch.toml", b"[service.front]\nnonsense = 1\n");
    let undeclared = from_file(&args("back", None, Some(declared)), &path).unwrap_err();
    assert!(undeclared.exit == 2 && undeclared.message.contains("nonsense"), "{undeclared:?}");
}

#[test]
fn what_is_too_thin_to_act_on_is_refused_and_says_how_much_there_was() {
    let dir = tempfile::tempdir().unwrap();
    let declared = write(dir.path(), "stanch.toml", b"[service.back]\n");
    let refusal = |requests, declared: Option<&PathBuf>| {
        let path = write(dir.path(), "plain.json", &traces(requests));
        from_file(&args("back", None, declared.cloned()), &path).map_err(|failure| (failure.exit, failure.message))
    };
    let short = refusal(50, None).unwrap_err();
    assert!(short.0 == 3 && short.1.contains("the spans cover 49 s"), "{short:?}");
    assert!(refusal(50, Some(&declared)).is_err(), "a declaration does not make spans older");
    let few = refusal(62, None).unwrap_err();
    assert!(few.0 == 3 && few.1.contains("62 requests were watched"), "{few:?}");
    assert_eq!(refusal(62, Some(&declared)), Ok(0), "a second source stands for trials that are missing");
    assert_eq!(refusal(70, None), Ok(0));
}

#[test]
fn what_cannot_be_read_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let mut cut = traces(2);
    cut.truncate(200);
    let table = &b"trace,span,parent,pod,op,start_us,dur_us\n0,0,,0,0,0,x\n"[..];
    let dictionary = &b"{\n \"label\": 7 }"[..];
    /// File, content, dictionary beside it, what is said.
    type Case<'a> = (&'a str, &'a [u8], Option<&'a [u8]>, &'a str);
    let cases: [Case<'_>; 6] = [
        ("cut.json", &cut, None, "line 1, column 200: EOF"),
        ("empty.json", b"", None, "none of the known trace formats"),
        ("none.json", b"{\"resourceSpans\": []}", None, "no spans in it"),
        ("bare.spans.csv", table, None, "bare.dict.json"),
        ("dict.spans.csv", table, Some(dictionary), "line 2, column 11: in the dictionary: invalid type"),
        (
            "rows.spans.csv",
            table,
            Some(br#"{"label":"l","base_unix_us":1,"pods":["a"],"ops":["o"]}"#),
            "1 dropped as malformed",
        ),
    ];
    for (name, bytes, beside, expected) in cases {
        let path = write(dir.path(), name, bytes);
        if let Some(beside) = beside {
            write(dir.path(), &name.replace(".spans.csv", ".dict.json"), beside);
        }
        let failure = from_file(&args("back", None, None), &path).unwrap_err();
        assert!(failure.exit == 2 && failure.message.contains(expected), "{name}: {failure:?}");
    }
}

#[test]
fn a_name_from_a_trace_cannot_command_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let spans: Vec<_> = (1..=70).map(|trace| span("evil\u{1b}[31m", trace, 1, "")).collect();
    let path = write(dir.path(), "evil.json", serde_json::json!({ "resourceSpans": spans }).to_string().as_bytes());
    let found = read(&args("x", None, None).source, &path).unwrap();
    let name = found.snapshot.services().next().unwrap().to_owned();
    let policy = GroupPolicy::at(found.snapshot.taken_at());
    let seen = survey(&found.snapshot, &[&name], &policy).unwrap();
    let value = explained(&Explanation::of(&found.snapshot, &[&name], &seen, &policy), &found, None).unwrap();
    let lines = Answer::deserialize(&value).unwrap().lines();
    assert!(lines.iter().any(|line| line.contains("evil")), "{lines:?}");
    assert!(!lines.concat().contains(char::is_control), "{lines:?}");
    assert!(!unknown("y", &found.snapshot).next.unwrap().contains(char::is_control));
}

#[test]
fn numbers_are_rounded_to_the_safe_side_and_grouped() {
    assert_eq!((text::up(7_101), text::down(7_199)), ("0.72%".to_owned(), "0.71%".to_owned()));
    assert_eq!(text::count(1, "call"), "1 call");
    assert_eq!(text::count(1_234_567, "call"), "1,234,567 calls");
    assert_eq!(
        [900, 9_990, 60_000, 150_000, 7_200_000].map(text::duration),
        ["900 ms", "9.9 s", "60 s", "2 min", "2 h"]
    );
}

#[test]
fn a_dictionary_is_read_up_to_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "t.spans.csv", b"trace,span,parent,pod,op,start_us,dur_us\n0,0,,0,0,0,1\n");
    let beside = dir.path().join("t.dict.json");
    std::fs::File::create(&beside).unwrap().set_len(DICTIONARY_BYTES_MAX + 1).unwrap();
    let over = read(&args("a", None, None).source, &path).unwrap_err();
    assert!(over.exit == 2 && over.message.contains("needs its dictionary"), "{over:?}");
    assert_eq!(stem(Path::new("/x/t.spans.csv.gz")).as_deref(), Some("t"));
}

#[test]
fn a_name_stays_one_segment_of_a_path() {
    assert_eq!(segment("cart-1.a_b~"), "cart-1.a_b~");
    assert_eq!(segment("../a b?é"), "..%2Fa%20b%3F%C3%A9");
}

#[test]
fn a_list_of_edges_is_drawn_and_never_acted_on() {
    let dir = tempfile::tempdir().unwrap();
    let list = br#"[{"parent":"front","child":"back","callCount":3}]"#;
    let path = write(dir.path(), "edges.json", list);
    let found = read(&args("back", Some(TraceFormat::Edges), None).source, &path).unwrap();
    assert_eq!((found.snapshot.services().count(), found.snapshot.edges().len()), (2, 1));
    let refused = from_file(&args("back", None, None), &path).unwrap_err();
    assert_eq!(refused.exit, 3, "{refused:?}");
}

#[test]
fn so_many_services_are_named_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let named = |count: usize| {
        let spans: Vec<_> = (0..count).map(|n| span(&format!("s{n:02}"), n as u64 + 1, 1, "")).collect();
        let path = write(dir.path(), "t.json", serde_json::json!({ "resourceSpans": spans }).to_string().as_bytes());
        unknown("y", &read(&args("x", None, None).source, &path).unwrap().snapshot).next.unwrap()
    };
    assert!(named(NAMED_MAX).ends_with(&format!("s{:02}", NAMED_MAX - 1)), "{}", named(NAMED_MAX));
    assert!(named(NAMED_MAX + 1).ends_with(&format!("s{:02}, …", NAMED_MAX - 1)), "{}", named(NAMED_MAX + 1));
}
