use super::*;
use crate::span::{Kind, Link, Peer, PeerKind, Status};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as otlp;
use proptest::prelude::*;
use prost::Message as _;

const TRUSTED: Options<'static> = Options { authenticated: true, dictionary: None };

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.into()))
}

fn client_span() -> otlp::Span {
    otlp::Span {
        trace_id: 7_u128.to_be_bytes().to_vec(),
        span_id: 8_u64.to_be_bytes().to_vec(),
        parent_span_id: 9_u64.to_be_bytes().to_vec(),
        trace_state: "vendor=1".into(),
        name: "POST /charge".into(),
        kind: 3,
        start_time_unix_nano: 5_000_999,
        end_time_unix_nano: 9_000_000,
        attributes: vec![text("peer.service", "payments"), attribute("http.status", any_value::Value::IntValue(-1))],
        links: vec![otlp::span::Link {
            trace_id: 1_u128.to_be_bytes().to_vec(),
            span_id: 2_u64.to_be_bytes().to_vec(),
            ..otlp::span::Link::default()
        }],
        status: Some(otlp::Status { code: 2, message: "no answer".into() }),
        ..otlp::Span::default()
    }
}

fn request(spans: Vec<otlp::Span>) -> ExportTraceServiceRequest {
    let attributes =
        vec![text("service.name", "checkout"), text("service.instance.id", "checkout@0"), text("service.version", "3")];
    let resource = Resource { attributes, ..Resource::default() };
    let scope_spans = vec![otlp::ScopeSpans { spans, schema_url: "x".into(), ..otlp::ScopeSpans::default() }];
    let found = otlp::ResourceSpans { resource: Some(resource), scope_spans, ..otlp::ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![found] }
}

fn expected() -> Span {
    Span {
        trace: 7,
        id: 8,
        parent: Some(9),
        links: vec![Link { trace: 1, id: 2 }],
        service: "checkout".into(),
        name: "POST /charge".into(),
        instance: Some("checkout@0".into()),
        generation: Some("3".into()),
        kind: Kind::Client,
        peer: Some(Peer { kind: PeerKind::Service, name: "payments".into() }),
        start_us: 5_000,
        duration_us: 3_999,
        status: Status::Error,
        authenticated: true,
    }
}

#[test]
fn protobuf_is_read_as_the_generated_code_writes_it() {
    let zero = otlp::Span { span_id: vec![0; 8], ..client_span() };
    let backwards = otlp::Span { end_time_unix_nano: 1, ..client_span() };
    let bytes = request(vec![client_span(), zero, backwards]).encode_to_vec();
    let (spans, report) = otlp_protobuf(&bytes, &TRUSTED).unwrap();
    assert_eq!(spans, [expected()]);
    assert_eq!((report.kept, report.dropped), (1, BTreeMap::from([("time", 1), ("zero id", 1)])));
    assert!(!otlp_protobuf(&bytes, &Options::default()).unwrap().0[0].authenticated);
}

#[test]
fn a_resource_may_follow_its_spans_and_unknown_fields_are_skipped() {
    let whole = request(vec![client_span()]).encode_to_vec();
    // One resource_spans field: its body is resource (1), then scope_spans (2); put them the other way round,
    // with a field of number 99 and one of fixed width between them.
    let body = request(vec![client_span()]).resource_spans.remove(0);
    let only = |resource, scope_spans| {
        otlp::ResourceSpans { resource, scope_spans, ..otlp::ResourceSpans::default() }.encode_to_vec()
    };
    let (resource, scopes) = (only(body.resource, vec![]), only(None, body.scope_spans));
    let unknown = [0x9a, 0x06, 0x01, 0xff, 0x3d, 1, 2, 3, 4];
    let turned = [scopes.as_slice(), &unknown, &resource].concat();
    let mut bytes = vec![0x0a];
    prost::encoding::encode_varint(turned.len() as u64, &mut bytes);
    bytes.extend(turned);
    assert_eq!(otlp_protobuf(&bytes, &TRUSTED).unwrap().0, otlp_protobuf(&whole, &TRUSTED).unwrap().0);
}

#[test]
fn malformed_protobuf_is_refused_whole_with_a_place() {
    let bytes = request(vec![client_span(), client_span()]).encode_to_vec();
    for cut in 1..bytes.len() {
        assert!(otlp_protobuf(&bytes[..cut], &TRUSTED).is_err(), "{cut}");
    }
    assert!(matches!(otlp_protobuf(&[0x07], &TRUSTED), Err(ImportError::MalformedBytes { offset: 1, .. })));
    let many = request(vec![otlp::Span::default(); BATCH_SPANS_MAX + 1]).encode_to_vec();
    assert!(matches!(otlp_protobuf(&many, &TRUSTED), Err(ImportError::TooLarge { .. })));
    assert_eq!(otlp_protobuf(&[], &TRUSTED).unwrap().1, Report::default());
}

#[test]
fn otlp_json_of_both_number_styles_says_the_same() {
    let json = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"checkout"}},
        {"key":"service.instance.id","value":{"stringValue":"checkout@0"}},{"key":"service.version","value":{"stringValue":"3"}}]},
        "unknown":{"a":[1]},"scopeSpans":[{"scope":{"name":"x"},"spans":[{"traceId":"00000000000000000000000000000007",
        "spanId":"0000000000000008","parentSpanId":"0000000000000009","name":"POST /charge","kind":3,
        "startTimeUnixNano":"5000999","endTimeUnixNano":9000000,"status":{"code":2},
        "links":[{"traceId":"00000000000000000000000000000001","spanId":"0000000000000002"}],
        "attributes":[{"key":"peer.service","value":{"stringValue":"payments"}},{"key":"n","value":{"intValue":"4"}}]},
        {"traceId":"07","spanId":"08","startTimeUnixNano":-1,"endTimeUnixNano":0},{"traceId":5}]}]}]}"#;
    let (found, report) = spans(json.as_bytes(), &TRUSTED).unwrap();
    assert_eq!(found, [expected()]);
    assert_eq!(report.dropped, BTreeMap::from([("malformed", 1), ("time", 1)]));
    // One export per line, as a collector writes them; and as the generated types write it.
    let twice = format!("{json}\n{json}\n");
    assert_eq!(otlp_json(twice.as_bytes(), &TRUSTED).unwrap().0.len(), 2);
    let generated = serde_json::to_vec(&request(vec![client_span()])).unwrap();
    assert_eq!(spans(&generated, &TRUSTED).unwrap().0, [expected()]);
}

#[test]
fn text_that_is_not_of_its_format_has_a_line_and_a_column() {
    let place = |bytes: &[u8]| match spans(bytes, &TRUSTED) {
        Err(ImportError::Malformed { line, column, .. }) => (line, column),
        other => panic!("{other:?}"),
    };
    assert_eq!(place(b"{\"resourceSpans\":[\n  nope]}"), (2, 4));
    assert_eq!(place(b"{\"data\":[\n{\"spans\":[]},\n7]}"), (3, 2));
    assert_eq!(place(b"{\"data\":[]} x"), (1, 13));
}

#[test]
fn jaeger_parents_kinds_and_errors() {
    let json = r#"{"data":[{"traceID":"a1","spans":[
        {"traceID":"a1","spanID":"1","operationName":"in","references":[],"startTime":10,"duration":90,"processID":"p1","tags":[{"key":"span.kind","value":"server"}]},
        {"traceID":"a1","spanID":"2","operationName":"out","startTime":20,"duration":50,"processID":"p1","parentSpanID":"1",
         "tags":[{"key":"span.kind","value":"client"},{"key":"error","value":true},{"key":"db.system","value":"redis"},{"key":"db.name","value":"carts"}]},
        {"traceID":"a1","spanID":"3","operationName":"later","startTime":30,"duration":5,"process":{"serviceName":"b"},
         "references":[{"refType":"FOLLOWS_FROM","traceID":"a1","spanID":"2","span":{"deep":[[{"spanID":"9"}]]}}]},
        {"traceID":"a1","spanID":"3","operationName":"later","startTime":30,"duration":5,"process":{"serviceName":"b"}},
        {"traceID":"a1","spanID":"4","operationName":"orphan","startTime":30,"duration":5,"processID":"p1",
         "references":[{"refType":"CHILD_OF","traceID":"a1","spanID":"77"}]},
        {"traceID":"a1","spanID":"5","operationName":"bad","startTime":30,"duration":-5,"processID":"p1"},
        {"traceID":"a1","spanID":"6","operationName":"nameless","startTime":30,"duration":5,"processID":"p9"}],
        "processes":{"p1":{"serviceName":"a","tags":[{"key":"hostname","value":"h1"}]}}}],"total":0}"#;
    let (found, report) = spans(json.as_bytes(), &TRUSTED).unwrap();
    let told: Vec<_> =
        found.iter().map(|span| (span.id, span.parent, span.links.len(), span.service.as_str(), span.kind)).collect();
    let expected = [
        (1, None, 0, "a", Kind::Server),
        (2, Some(1), 0, "a", Kind::Client),
        (3, None, 1, "b", Kind::Unknown),
        (4, Some(0x77), 0, "a", Kind::Unknown),
    ];
    assert_eq!(told, expected);
    assert_eq!(found[1].peer, Some(Peer { kind: PeerKind::Store, name: "redis:carts".into() }));
    assert_eq!((found[1].status, found[0].instance.as_deref()), (Status::Error, Some("h1")));
    assert_eq!((report.kept, report.traces, report.orphans, report.duplicates), (4, 1, 1, 1));
    assert_eq!(report.dropped, BTreeMap::from([("malformed", 1), ("no service", 1)]));
}

#[test]
fn nezha_rows_need_their_dictionary() {
    let dictionary =
        br#"{"label":"x","base_unix_us":1000,"pods":["cart-service-7df5d46ccd-x2v8k","odd"],"ops":["Get"]}"#;
    let rows = b"trace,span,parent,pod,op,start_us,dur_us\n0,0,,0,0,0,10\n0,1,0,1,0,2,3\n0,1,0,1,0,2,3\n0,2,9,0,0,2,3\n0,3,0,7,0,1,1\n0,4,0,0,0,-2000,1\n";
    let options = Options { authenticated: true, dictionary: Some(dictionary) };
    assert_eq!(spans(rows, &TRUSTED), Err(ImportError::DictionaryMissing));
    let (found, report) = spans(rows, &options).unwrap();
    assert_eq!(
        found.iter().map(|span| span.service.as_str()).collect::<Vec<_>>(),
        ["cart-service", "odd", "cart-service"]
    );
    assert_eq!((found[1].parent, found[1].start_us, found[1].name.as_str()), (Some(1), 1_002, "Get"));
    assert_eq!((report.duplicates, report.orphans, report.dropped_total()), (1, 1, 2));
}

#[test]
fn formats_are_told_apart_and_the_unsupported_are_named() {
    for (text, format, read) in [
        ("[{\"traceId\":\"1\",\"id\":\"2\",\"localEndpoint\":{}}]", Format::ZipkinV2, true),
        ("[{\"traceId\":\"1\",\"annotations\":[{\"endpoint\":{}}],\"binaryAnnotations\":[]}]", Format::ZipkinV1, false),
        ("[{\"parent\":\"a\",\"child\":\"b\",\"callCount\":3}]", Format::EdgeList, false),
        ("traceid,timestamp,rpcid,um,rpctype,dm,interface,rt\n", Format::Alibaba2021, true),
        ("timestamp,traceid,service,rpc_id,rpctype,um,interface,dm,rt\n", Format::Alibaba2022, true),
        ("TraceID,SpanID,ParentID,PodName,OperationName\n", Format::NezhaRaw, false),
    ] {
        assert_eq!(detect(text.as_bytes()), Some(format));
        let found = spans(text.as_bytes(), &TRUSTED);
        assert_eq!(found.is_err(), !read, "{found:?}");
        if let Err(error) = found {
            assert_eq!(error, ImportError::NotSupported { format: format.name() });
        }
    }
    for text in ["", "{", "hello", "{\"x\":1}", "[1]", "\u{feff}"] {
        assert_eq!(spans(text.as_bytes(), &TRUSTED), Err(ImportError::Unrecognized), "{text}");
    }
}

#[test]
fn a_format_is_told_by_so_many_bytes_and_no_more() {
    let after = |blanks: u64| format!("{}{{\"data\":[]}}", " ".repeat(usize::try_from(blanks).unwrap()));
    // Brace, key and both its quotes take seven bytes.
    assert_eq!(spans(after(HEAD_BYTES_MAX - 7).as_bytes(), &TRUSTED), Ok((Vec::new(), Report::default())));
    assert_eq!(spans(after(HEAD_BYTES_MAX).as_bytes(), &TRUSTED), Err(ImportError::Unrecognized));
}

#[test]
fn a_bad_line_of_otlp_json_is_one_dropped_record() {
    let line = |id: u64| {
        let span = otlp::Span { span_id: id.to_be_bytes().to_vec(), parent_span_id: Vec::new(), ..client_span() };
        serde_json::to_string(&request(vec![span])).unwrap()
    };
    let cut = &line(2)[..60];
    for text in [format!("{}\n{cut}\n\n{}\n7\n", line(1), line(3)), format!("{cut}\n{}\n{}\r\n[]", line(1), line(3))] {
        let (found, report) = spans(text.as_bytes(), &TRUSTED).unwrap();
        assert_eq!(found.iter().map(|span| span.id).collect::<Vec<_>>(), [1, 3], "{text}");
        assert_eq!((report.kept, report.dropped_total() > 0), (2, true), "{report:?}");
    }
    // One document over several lines, and two of them.
    let pretty =
        |id: u64| serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(&line(id)).unwrap()).unwrap();
    let (found, report) = spans(format!("{}\n{}", pretty(1), pretty(2)).as_bytes(), &TRUSTED).unwrap();
    assert_eq!((found.len(), report.kept, report.traces), (2, 2, 1));
    let failed = spans(&pretty(1).as_bytes()[..200], &TRUSTED).unwrap_err();
    assert!(matches!(failed, ImportError::Malformed { line: 2.., .. }), "{failed}");
    let byte_order_mark = format!("\u{feff}{}", line(1));
    assert_eq!(spans(byte_order_mark.as_bytes(), &TRUSTED).unwrap().1.kept, 1);
}

#[test]
fn a_record_is_read_down_to_a_depth() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let jaeger = |depth: usize| {
        format!(
            r#"{{"data":[{{"spans":[{{"traceID":"1","spanID":"1","startTime":1,"duration":1,"process":{{"serviceName":"a"}},"x":{}}}]}}]}}"#,
            nested(depth)
        )
    };
    // The record itself is the first level.
    assert_eq!(spans(jaeger(JSON_DEPTH_MAX - 1).as_bytes(), &TRUSTED).unwrap().1.kept, 1);
    assert_eq!(
        spans(jaeger(JSON_DEPTH_MAX).as_bytes(), &TRUSTED).unwrap().1.dropped,
        BTreeMap::from([("malformed", 1)])
    );
}

#[test]
fn zipkin_halves_of_one_span_are_told_apart() {
    let json = r#"[
        {"traceId":"5","id":"1","kind":"SERVER","name":"get","timestamp":10,"duration":90,"localEndpoint":{"serviceName":"front"}},
        {"traceId":"5","parentId":"1","id":"2","kind":"CLIENT","timestamp":20,"duration":60,"localEndpoint":{"serviceName":"front"},"remoteEndpoint":{"serviceName":"back"}},
        {"traceId":"5","parentId":"1","id":"2","kind":"SERVER","shared":true,"timestamp":30,"duration":40,"localEndpoint":{"serviceName":"back"}},
        {"traceId":"5","parentId":"2","id":"3","kind":"CLIENT","localEndpoint":{"serviceName":"back"},"remoteEndpoint":{"serviceName":"db"},"tags":{"error":""}},
        {"traceId":"5","id":"4","kind":"CLIENT","timestamp":1},
        {"traceId":"5","id":7}, [{"traceId":"6","id":"1","name":"","timestamp":5,"localEndpoint":{"serviceName":"lone"}}]]"#;
    let (found, report) = spans(json.as_bytes(), &TRUSTED).unwrap();
    assert_eq!((report.kept, report.traces, report.orphans), (5, 2, 0), "{report:?}");
    assert_eq!(report.repaired, BTreeMap::from([("no timestamp", 1), ("shared id", 1)]));
    assert_eq!(report.dropped, BTreeMap::from([("malformed", 1), ("no service", 1)]));
    let of =
        |service: &str, kind: Kind| found.iter().find(|span| span.service == service && span.kind == kind).unwrap();
    let (client, server, below) = (of("front", Kind::Client), of("back", Kind::Server), of("back", Kind::Client));
    assert_eq!((server.parent, below.parent), (Some(client.id), Some(server.id)));
    assert_ne!(server.id, client.id);
    assert_eq!((below.status, below.start_us), (Status::Error, 10));
    assert_eq!(below.peer, Some(Peer { kind: PeerKind::Service, name: "db".into() }));
    assert_eq!(of("lone", Kind::Unknown).name, "unknown");
}

#[test]
fn a_list_of_edges_is_a_declaration() {
    let list = br#"[{"parent":"a","child":"b","callCount":3},{"parent":"a","child":"b"},{"parent":"a","child":"a"},{"parent":"","child":"b"},7]"#;
    let (edges, report) = edge_list(&mut &list[..]).unwrap();
    assert_eq!(edges.into_keys().collect::<Vec<_>>(), ["a->b"]);
    assert_eq!((report.kept, report.duplicates), (1, 1));
    assert_eq!(report.dropped, BTreeMap::from([("malformed", 1), ("no service", 1), ("self", 1)]));
    let many: Vec<_> = (0..=LISTED_EDGES_MAX).map(|n| format!(r#"{{"parent":"a","child":"b{n}"}}"#)).collect();
    let (edges, report) = edge_list(&mut format!("[{}]", many.join(",")).as_bytes()).unwrap();
    assert_eq!((edges.len(), report.dropped_total()), (LISTED_EDGES_MAX, 1));
    let failed = edge_list(&mut &b"[{},\n {]"[..]).unwrap_err();
    assert!(matches!(failed, ImportError::Malformed { line: 2, .. }), "{failed}");
}

#[test]
fn traces_that_are_open_at_once_are_held_up_to_a_limit() {
    let mut report = Report::default();
    let mut seen = input::Seen::new(OPEN_RECORDS_MAX.min(2));
    // The parent of the first comes when its trace has been closed for the others.
    for (trace, id, parent) in [(1, 2, Some(1)), (2, 1, None), (3, 1, None), (1, 1, None), (1, 1, None)] {
        seen.is_new((trace, id), parent, &mut report);
    }
    seen.finish(&mut report);
    assert_eq!((report.kept, report.traces, report.orphans, report.duplicates), (4, 4, 1, 1));
    let mut grouped = input::Grouped::new(2);
    assert!(grouped.push(1, 'a').is_none() && grouped.push(2, 'b').is_none());
    assert_eq!(grouped.push(2, 'c'), Some((1, vec!['a'])));
    assert_eq!((grouped.pop(), grouped.pop()), (Some((2, vec!['b', 'c'])), None));
}

#[test]
fn a_trace_has_a_limit_in_spans() {
    let span = |id: usize| format!(r#"{{"traceID":"1","spanID":"{id:x}","startTime":1,"duration":1,"processID":"p"}}"#);
    let all: Vec<String> = (1..=TRACE_SPANS_MAX + 1).map(span).collect();
    let json = format!(r#"{{"data":[{{"spans":[{}],"processes":{{"p":{{"serviceName":"a"}}}}}}]}}"#, all.join(","));
    let report = read_from(&mut json.as_bytes(), &TRUSTED, &mut |_| {}).unwrap();
    assert_eq!((report.kept, report.dropped), (TRACE_SPANS_MAX as u64, BTreeMap::from([("trace too long", 1)])));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), byte in any::<u8>(), head in 0_usize..5,
    ) {
        let _ = otlp_protobuf(&bytes, &TRUSTED);
        let mut real = request(vec![client_span()]).encode_to_vec();
        let index = at.index(real.len());
        real[index] = byte;
        let _ = otlp_protobuf(&real, &TRUSTED);
        let heads = [
            "{\"data\":[{\"spans\":[",
            "{\"resourceSpans\":[",
            nezha::HEADER,
            "[{\"traceId\":\"1\",\"id\":\"2\"},",
            "traceid,timestamp,rpcid,um,rpctype,dm,interface,rt\na,1,0.1,x,rpc,y,i,1",
        ];
        let head = heads[head];
        let dictionary = br#"{"label":"x","base_unix_us":1000,"pods":["p"],"ops":["o"]}"#;
        let text = [head.as_bytes(), b"\n", &bytes].concat();
        let _ = spans(&text, &Options { authenticated: true, dictionary: Some(dictionary) });
        let _ = edge_list(&mut &bytes[..]);
    }

    #[test]
    fn protobuf_agrees_with_the_generated_code(
        name in "\\PC{0,20}", kind in 0_i32..7, start in 0_u64..1 << 60, length in 0_u64..1 << 40, code in 0_i32..4, parent in any::<Option<u64>>(),
    ) {
        let span = otlp::Span {
            name: name.clone(), kind, start_time_unix_nano: start, end_time_unix_nano: start + length,
            parent_span_id: parent.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
            status: Some(otlp::Status { code, ..otlp::Status::default() }), ..client_span()
        };
        let (found, _) = otlp_protobuf(&request(vec![span]).encode_to_vec(), &TRUSTED).unwrap();
        prop_assert_eq!(&found[0].name, &name);
        prop_assert_eq!(found[0].start_us, start / 1_000);
        prop_assert_eq!(found[0].duration_us, length / 1_000);
        prop_assert_eq!(found[0].parent, parent.filter(|id| *id != 0));
        prop_assert_eq!(found[0].is_error(), code == 2);
    }
}

#[test]
fn a_batch_has_a_limit_in_bytes_and_in_spans() {
    // One field that nobody reads, as long as a batch may be: tag and length take five bytes.
    let mut bytes = vec![0x1a];
    prost::encoding::encode_varint((BATCH_BYTES_MAX - 5) as u64, &mut bytes);
    bytes.resize(BATCH_BYTES_MAX, 0);
    assert_eq!(otlp_protobuf(&bytes, &TRUSTED), Ok((Vec::new(), Report::default())));
    bytes.push(0);
    assert_eq!(otlp_protobuf(&bytes, &TRUSTED), Err(ImportError::TooLarge { limit: BATCH_BYTES_MAX, unit: "bytes" }));
    let json = |spans: usize| {
        let all = vec!["{}"; spans].join(",");
        otlp_json(format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{all}]}}]}}]}}"#).as_bytes(), &TRUSTED)
    };
    assert_eq!(json(BATCH_SPANS_MAX).unwrap().1.dropped_total(), BATCH_SPANS_MAX as u64);
    assert_eq!(json(BATCH_SPANS_MAX + 1), Err(ImportError::TooLarge { limit: BATCH_SPANS_MAX, unit: "spans" }));
}

#[test]
fn a_long_line_of_a_table_is_one_dropped_record() {
    let dictionary = br#"{"label":"x","base_unix_us":1,"pods":["a"],"ops":["o"]}"#;
    let options = Options { authenticated: true, dictionary: Some(dictionary) };
    // Leading zeros are read, so the line is a good one up to its length.
    let row = |bytes: usize| format!("{}\n{}0,0,,0,0,0,1\n", nezha::HEADER, "0".repeat(bytes - 12));
    assert_eq!(spans(row(CSV_LINE_BYTES_MAX).as_bytes(), &options).unwrap().1.kept, 1);
    let report = spans(row(CSV_LINE_BYTES_MAX + 1).as_bytes(), &options).unwrap().1;
    assert_eq!((report.kept, report.dropped_total()), (0, 1));
}

#[test]
fn what_is_kept_of_a_span_is_bounded() {
    use crate::span::{LINKS_MAX, SPAN_NAME_BYTES_MAX};
    let long = "x".repeat(100_000);
    let link = otlp::span::Link { trace_id: vec![1; 16], span_id: vec![2; 8], ..otlp::span::Link::default() };
    let span = otlp::Span {
        name: long.clone(),
        attributes: vec![text("db.system", &long), text("db.name", &long)],
        links: vec![link; LINKS_MAX + 1],
        ..client_span()
    };
    let mut bytes = request(vec![span]);
    let resource = bytes.resource_spans[0].resource.as_mut().unwrap();
    resource.attributes = ["service.name", "service.instance.id", "service.version"].map(|key| text(key, &long)).into();
    let json = serde_json::to_vec(&bytes).unwrap();
    for read in [otlp_protobuf(&bytes.encode_to_vec(), &TRUSTED), spans(&json, &TRUSTED)] {
        let (found, _) = read.unwrap();
        let [span] = found.as_slice() else { panic!("{found:?}") };
        let peer = span.peer.as_ref().map(|peer| peer.name.as_str());
        let kept =
            [Some(span.name.as_str()), Some(&span.service), span.instance.as_deref(), span.generation.as_deref(), peer];
        assert_eq!(kept.map(|name| name.map(str::len)), [Some(SPAN_NAME_BYTES_MAX); 5]);
        assert_eq!(span.links.len(), LINKS_MAX);
    }
    let jaeger = serde_json::json!({ "data": [{ "spans": [{
        "traceID": "1", "spanID": "1", "operationName": long, "startTime": 1, "duration": 1, "process": { "serviceName": long },
        "references": vec![serde_json::json!({ "refType": "FOLLOWS_FROM", "traceID": "2", "spanID": "2" }); LINKS_MAX + 1],
    }] }] });
    let (found, _) = spans(jaeger.to_string().as_bytes(), &TRUSTED).unwrap();
    assert_eq!((found[0].name.len(), found[0].links.len()), (SPAN_NAME_BYTES_MAX, LINKS_MAX));
}
