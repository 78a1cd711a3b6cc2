//! One function per decoder that reads what others wrote. Each takes any bytes, and must return: a decoder answers a
//! value or a typed error, and what it answers survives its own rendering.

use recovery::graph::{Config, Graph, replay};
use recovery::groups::{Explanation, GroupPolicy, group, survey};
use recovery::import::{self, Format, Options};
use recovery::span::Span;
use std::path::Path;

/// A decoder under test.
pub type Decoder = fn(&[u8]);

/// All of them, by the name of their folder in the corpus.
pub const ALL: &[(&str, Decoder)] = &[
    ("wire", wire),
    ("cron", cron),
    ("otlp", otlp),
    ("traces", traces),
    ("plan_text", plan_text),
    ("plan_json", plan_json),
    ("policy", policy),
    ("topology", topology),
    ("bundle", bundle),
    ("record", record),
];

/// Stands beside every Nezha table.
const DICTIONARY: &[u8] =
    br#"{"label":"x","base_unix_us":1661212800000000,"pods":["cart-7df5d46ccd-x2v8k","front-7df5d46ccd-x2v8k"],"ops":["Get"]}"#;
/// Instants after which a cron expression is asked: an ordinary one, and the eve of a leap day.
const CRON_AFTER: [i64; 2] = [1_700_000_000_123, 1_835_308_799_999];
/// Services of one input whose group is computed.
const GROUPS: usize = 4;
/// Bytes of a trace input that are read; the rest says nothing new.
const TRACE_BYTES: usize = 256 << 10;

/// Requests, responses, messages and promise records of the protocol.
pub fn wire(bytes: &[u8]) {
    use protocol::wire;
    match wire::parse_request(bytes) {
        Ok(parsed) => {
            let refused = protocol::validate(&parsed.request);
            let written = wire::render_request(&parsed.corr_id, &parsed.request);
            match wire::parse_request(&written) {
                Ok(again) => assert_eq!((again.request, again.corr_id), (parsed.request, parsed.corr_id)),
                // An operation that is not supported is not rendered either, and numbers beyond the wire's are refused.
                Err(bad) => assert!(refused.is_some(), "{bad}"),
            }
        }
        Err(bad) => {
            let answer: serde_json::Value = serde_json::from_slice(&wire::render_bad_request(&bad)).unwrap_or_default();
            assert_eq!(answer["head"]["status"], 400, "{answer}");
        }
    }
    let _ = wire::parse_response(bytes);
    let _ = wire::parse_message(bytes);
    if let Ok(promise) = wire::parse_promise(bytes) {
        let written = wire::promise_json(&promise).to_string();
        assert!(wire::parse_promise(written.as_bytes()).is_ok_and(|again| again == promise), "{written}");
    }
}

/// Cron expressions of schedules: the instant that follows another one is after it, is named by the expression whatever
/// instant before it was asked from, and is a whole second.
pub fn cron(bytes: &[u8]) {
    use base::{Millis, Timestamp};
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let head = br#"{"kind":"schedule.create","head":{"corrId":"c","version":"2026-04-01"},"data":"#;
    let tags = serde_json::json!({ "resonate:target": "poll://any@g" });
    let data =
        serde_json::json!({ "id": "s", "cron": text, "promiseId": "p", "promiseTimeout": 1, "promiseTags": tags });
    let parsed = protocol::wire::parse_request(&[&head[..], data.to_string().as_bytes(), b"}"].concat());
    let refused = parsed.is_ok_and(|parsed| protocol::validate(&parsed.request).is_some());
    if refused {
        // What is refused at the door is not read again.
        return;
    }
    for after in CRON_AFTER {
        let read = protocol::next_firing(text, Timestamp(after));
        assert!(read.is_ok(), "accepted, and not read: {text:?}");
        let Ok(next) = read else { continue };
        if next == protocol::NEVER {
            continue;
        }
        assert!(next.0 > after && next.0 % 1_000 == 0, "{text:?} after {after}: {next:?}");
        for before in [Timestamp(next.0 - 1), Timestamp(after.midpoint(next.0))] {
            assert_eq!(protocol::next_firing(text, before), Ok(next), "{text:?} after {before:?}");
        }
        let following = protocol::next_firing(text, next);
        assert!(following.is_ok_and(|following| following >= next.plus(Millis(1_000))), "{text:?} after {next:?}");
    }
}

/// Export requests as OTLP senders write them: protobuf, and JSON of the same.
pub fn otlp(bytes: &[u8]) {
    let options = Options { authenticated: true, dictionary: None };
    for read in [import::otlp_protobuf(bytes, &options), import::otlp_json(bytes, &options)] {
        let Ok((spans, report)) = read else { continue };
        assert_eq!(report.kept, spans.len() as u64);
        let now = base::Timestamp(1_700_000_000_000);
        let mut graph = Graph::new(&Config::default());
        for span in &spans {
            graph.observe(span, now);
        }
        graph.rotate(now);
        graph.rotate(now);
        ask(&graph.snapshot(now));
    }
}

/// Trace files, to the recovery group that `stanch group` answers.
pub fn traces(bytes: &[u8]) {
    let bytes = bytes.get(..TRACE_BYTES).unwrap_or(bytes);
    let options = Options { authenticated: true, dictionary: Some(DICTIONARY) };
    if let Ok((edge, _)) = import::edge_list(&mut &*bytes) {
        let topology = recovery::topology::Topology { edge, ..recovery::topology::Topology::default() };
        let _ = Graph::new(&Config::default()).declare(&topology);
    }
    let Ok((spans, report)) = import::spans(bytes, &options) else { return };
    // Of a call graph table, what is kept are calls, and calls without a position are spans too.
    let is_table = matches!(import::detect(bytes), Some(Format::Alibaba2021 | Format::Alibaba2022));
    assert!(is_table || report.kept == spans.len() as u64, "{report:?}");
    assert!(report.kept <= spans.len() as u64, "{report:?}");
    assert!(spans.iter().all(|span| span.trace != 0 && span.id != 0 && !span.service.is_empty()));
    answer(&spans);
    // A Nezha table reads its dictionary, which others wrote too.
    let hostile = Options { authenticated: true, dictionary: Some(bytes) };
    let _ = import::spans(b"trace,span,parent,pod,op,start_us,dur_us\n0,0,,0,0,0,10\n", &hostile);
}

fn answer(spans: &[Span]) {
    let Ok((graph, now)) = replay(&Config::default(), None, spans) else { return };
    ask(&graph.snapshot(now));
}

fn ask(snapshot: &recovery::graph::Snapshot) {
    let policy = GroupPolicy::at(snapshot.taken_at());
    for service in snapshot.services().take(GROUPS) {
        let targets = [service];
        let _ = group(snapshot, &targets, &policy);
        if let Ok(seen) = survey(snapshot, &targets, &policy) {
            let explanation = Explanation::of(snapshot, &targets, &seen, &policy);
            assert!(serde_json::to_value(&explanation).is_ok());
        }
    }
}

/// Plans and conditions as text.
pub fn plan_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(steps) = recovery::text::parse(text) {
        let printed = recovery::text::steps(&steps);
        assert_eq!(recovery::text::parse(&printed).as_ref(), Ok(&steps), "{printed}");
    }
    if let Ok(predicate) = recovery::text::parse_predicate(text) {
        assert_eq!(recovery::text::parse_predicate(&predicate.to_string()).as_ref(), Ok(&predicate), "{predicate}");
    }
}

/// Plans as JSON.
pub fn plan_json(bytes: &[u8]) {
    use recovery::plan::json;
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(plan) = json::parse(text) else { return };
    let written = json::render(&plan).to_string();
    assert_eq!(json::parse(&written).map(|again| again.digest()).ok(), Some(plan.digest()), "{written}");
    let printed = recovery::text::steps(&plan.steps);
    let steps = recovery::text::parse(&printed);
    let again = steps.map(|steps| recovery::plan::Plan { steps, ..plan.clone() }.digest());
    assert_eq!(again.ok(), Some(plan.digest()), "{printed}");
}

/// Policy files.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(file) = toml::from_str::<governance::policy::PolicyFile>(text) else { return };
    let Ok(policy) = file.load() else { return };
    let _ = policy.lint();
    for (tier, class) in policy.order.iter().zip(policy.classes.keys().cycle()) {
        let _ = policy.effective(tier, class);
    }
    assert_eq!(governance::policy::Policy::from_bytes(&policy.to_bytes()).as_ref(), Ok(&policy));
}

/// Topology files.
pub fn topology(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match actuators::topology::parse(Path::new("stanch.toml"), text) {
        Ok(topology) => {
            let _ = actuators::topology::edges(&topology);
            let _ = Graph::new(&Config::default()).declare(&topology);
        }
        Err(error) => assert!(error.to_string().starts_with("stanch.toml:"), "{error}"),
    }
}

/// Evidence bundles and files of pinned keys.
pub fn bundle(bytes: &[u8]) {
    let verified = governance::bundle::verify(bytes, None);
    let records = governance::bundle::records(bytes);
    if let Ok(verified) = verified {
        assert!(records.is_ok_and(|records| records.len() as u64 >= verified.records));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = governance::bundle::Trust::parse(text);
    }
}

/// Signed records: the envelope, and the canonical bytes in it; each has one form.
pub fn record(bytes: &[u8]) {
    use governance::record::Statement;
    if let Ok(statement) = Statement::from_bytes(bytes) {
        assert_eq!(statement.to_bytes(), bytes);
        let _ = statement.render();
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(envelope) = base::Envelope::from_json(text) {
        assert_eq!(envelope.to_json(), text);
        record(&envelope.payload);
    }
    if let Some(checkpoint) = governance::log::Checkpoint::peek(text) {
        assert!(text.starts_with(&checkpoint.origin));
    }
    let _ = governance::keys::from_pem(text);
    let _ = governance::log::read_proof(text);
}
