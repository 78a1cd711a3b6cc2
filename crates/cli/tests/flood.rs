//! A flood of spans whose every name is new: what the server holds of them stays bounded, what it dropped is counted,
//! and what it knew before is still there.
//!
//! 300,000 spans unless `FLOOD_SPANS` says otherwise.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(clippy::print_stdout, reason = "sizes are part of what this test is for")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use support::{Server, http, stanch};

/// The short form.
const SPANS: u64 = 300_000;
/// Spans of one export.
const BATCH: u64 = 4_000;
/// What the server may grow by, in bytes, whatever comes: two windows of spans that wait to be joined, 65,536
/// services, spans kept for the model (64 MiB), batches being read
/// (64 MiB), and what the allocator does not give back at once.
const GROWTH_BYTES_MAX: u64 = 600 << 20;

#[expect(clippy::disallowed_methods, reason = "the long form of a test is asked for by its environment")]
fn spans() -> u64 {
    std::env::var("FLOOD_SPANS").map_or(SPANS, |text| text.parse().unwrap())
}

/// A length-delimited field of the protobuf encoding.
fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    let (mut out, mut length) = (vec![tag << 3 | 2], content.len());
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend_from_slice(content);
    out
}

/// What is new with each span.
#[derive(Clone, Copy, Debug)]
enum New {
    Service,
    Operation,
    Instance,
    /// A parent that never comes.
    Parent,
}

fn attribute(key: &str, value: &str) -> Vec<u8> {
    field(1, &[field(1, key.as_bytes()), field(2, &field(1, value.as_bytes()))].concat())
}

/// One span of its own resource, as a field of an export request.
fn span(new: New, number: u64, now_ns: u64) -> Vec<u8> {
    let named = |is_new: bool, name: &str| {
        if is_new { format!("{name}-{number:x}-{}", "n".repeat(40)) } else { name.to_owned() }
    };
    let (service, operation, instance) = match new {
        New::Service => (named(true, "service"), "operation".to_owned(), "instance".to_owned()),
        New::Operation => ("flooded".to_owned(), named(true, "operation"), "instance".to_owned()),
        New::Instance => ("flooded".to_owned(), "operation".to_owned(), named(true, "instance")),
        New::Parent => ("flooded".to_owned(), "operation".to_owned(), "instance".to_owned()),
    };
    let resource =
        field(1, &[attribute("service.name", &service), attribute("service.instance.id", &instance)].concat());
    let parent = if matches!(new, New::Parent) { field(4, &(number + 1).to_be_bytes()) } else { Vec::new() };
    let time = |tag: u8, at: u64| [&[tag << 3 | 1], &at.to_le_bytes()[..]].concat();
    let span = [
        field(1, &u128::from(number + 1).to_be_bytes()),
        field(2, &(number + 7).to_be_bytes()),
        parent,
        field(5, operation.as_bytes()),
        time(7, now_ns),
        time(8, now_ns + 1_000_000),
    ];
    field(1, &[resource, field(2, &field(2, &span.concat()))].concat())
}

/// Sends one export over a connection of its own; answers its status.
fn export(url: &str, body: &[u8]) -> u16 {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    stream.write_all(format!("{head}content-type: application/x-protobuf\r\n\r\n").as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap()
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")).unwrap();
    line.parse::<u64>().unwrap() * 1_024
}

/// A metric without labels, or with the ones given.
fn metric(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| unreachable!("no {name} in {metrics}")).parse().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "spans of now")]
fn now_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_nanos()).unwrap()
}

#[test]
fn a_flood_of_new_names_is_bounded_counted_and_displaces_nothing_that_was_known() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--no-executor"]);
    let pid = server.process.pid();
    let known: Vec<u8> = (0..10).flat_map(|number| span(New::Parent, number, now_ns())).collect();
    assert_eq!(export(&server.url, &known), 200);
    let (before, mut most) = (resident(pid), 0);
    for begin in (0..spans()).step_by(usize::try_from(BATCH).unwrap()) {
        let at = now_ns();
        let new = |number: u64| match number % 4 {
            0 => New::Operation,
            1 => New::Instance,
            2 => New::Parent,
            _ => New::Service,
        };
        let body: Vec<u8> = (begin..begin + BATCH).flat_map(|number| span(new(number), number + 100, at)).collect();
        assert_eq!(export(&server.url, &body), 200);
        most = most.max(resident(pid).saturating_sub(before));
        assert!(most <= GROWTH_BYTES_MAX, "{most} bytes more after {begin} spans");
    }
    let (_, metrics) = http(&server.url, "GET", "/metrics", "");
    let (services, edges) = (metric(&metrics, "stanch_graph_services"), metric(&metrics, "stanch_graph_edges"));
    let [received, dropped, lost] = ["received", "dropped", "lost_parent"]
        .map(|result| metric(&metrics, &format!("stanch_spans_total{{result=\"{result}\"}}")));
    println!(
        "{received} spans: {services} services, {edges} edges, {dropped} dropped, {lost} without their parent; {most} bytes more"
    );
    assert_eq!(received, spans().next_multiple_of(BATCH) + 10);
    assert!(services <= 65_536 && edges <= 1 << 20, "{services} services, {edges} edges");
    let expected = (spans() / 4).saturating_sub(65_536);
    assert!(dropped >= expected, "{dropped} dropped of {expected} services too many");
    // It still answers for what it knew.
    let group = stanch(&["group", "flooded", "--server", &server.url]);
    assert!([0, 3].contains(&group.exit), "{group:?}");
    assert!(!server.process.is_over());
    server.end();
}
