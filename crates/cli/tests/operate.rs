//! Operating a server: it ends in order, says what it does, refuses what is dangerous, and is backed up while it runs.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::disallowed_methods, reason = "it measures how long an end takes")]

mod support;

use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{PATIENCE, Running, Server, http, program, stanch, try_http, wait_for};

const FAR: u64 = 9_000_000_000_000;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn create(id: &str) -> String {
    let head = json!({ "corrId": "c", "version": "2026-04-01" });
    let data = json!({ "id": id, "timeoutAt": FAR, "param": { "data": "x".repeat(300) }, "tags": {} });
    json!({ "kind": "promise.create", "head": head, "data": data }).to_string()
}

/// A connection on which half of a request was sent, and the other half.
fn half_a_request(url: &str, id: &str) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = create(id);
    let (first, second) = body.split_at(body.len() / 2);
    write!(stream, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{first}", body.len()).unwrap();
    (stream, second.as_bytes().to_vec())
}

/// The head of an answer.
fn head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// What is sent until the other side closes.
fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A metric without labels.
fn metric(url: &str, name: &str) -> f64 {
    let (status, page) = http(url, "GET", "/metrics", "");
    assert_eq!(status, 200, "{page}");
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map(str::to_owned).unwrap_or_default().parse().unwrap()
}

/// Stops writers when it is dropped: a test that fails does not wait for them.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes promises until the server is gone or `stop` is set; keeps the ids that were acknowledged.
fn write_on(url: &str, writer: usize, stop: &AtomicBool, acknowledged: &Mutex<Vec<String>>) {
    for number in 0.. {
        let id = format!("w{writer}-{number}");
        match try_http(url, "POST", "/", &create(&id)) {
            Ok((200, _)) => acknowledged.lock().unwrap().push(id),
            Ok((status, answer)) => assert_eq!(status, 503, "{answer}"),
            Err(_) => return,
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

fn all_there(server: &Server, ids: &[String]) {
    for id in ids {
        assert_eq!(server.ask("promise.get", &json!({ "id": id })).0, 200, "{id} was acknowledged");
    }
}

#[test]
fn a_server_that_is_told_to_end_answers_what_is_in_flight_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let url = server.url.clone();
    let (acknowledged, stop) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let mut process = server.process;
    std::thread::scope(|threads| {
        let _stopping = Stopping(&stop);
        for writer in 0..4 {
            let (url, acknowledged, stop) = (&url, &acknowledged, &stop);
            threads.spawn(move || write_on(url, writer, stop, acknowledged));
        }
        let mut events = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
        events.set_read_timeout(Some(PATIENCE)).unwrap();
        events.write_all(b"GET /poll/w/1 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        assert!(head(&mut events).starts_with("HTTP/1.1 200"), "the stream is open");
        let (mut waiting, second) = half_a_request(&url, "in-flight");
        wait_for("a request in flight and writes", || {
            let met = metric(&url, "stanch_requests_in_flight") >= 1.0;
            (met && acknowledged.lock().unwrap().len() > 50).then_some(())
        });
        let began = Instant::now();
        process.signal(Signal::TERM);
        // Workers are told at once, by the end of their stream.
        assert!(rest(&mut events).ends_with("0\r\n\r\n"));
        wait_for("no new connections", || TcpStream::connect(url.strip_prefix("http://").unwrap()).err());
        assert!(!process.is_over(), "a request is in flight");
        waiting.write_all(&second).unwrap();
        let answer = rest(&mut waiting);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
        assert_eq!(process.ended(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    });
    let server = Server::start(dir.path(), &[]);
    let mut ids = acknowledged.into_inner().unwrap();
    ids.push("in-flight".to_owned());
    all_there(&server, &ids);
    server.end();
}

#[test]
fn a_drain_is_bounded_and_a_second_signal_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let drain = |millis: &str| {
        let setting = ("STANCH__SERVER__DRAIN_MS", millis.into());
        let server = Server::start_with(dir.path(), &[], &[setting]);
        let held = half_a_request(&server.url, "never");
        wait_for("a request in flight", || (metric(&server.url, "stanch_requests_in_flight") >= 1.0).then_some(()));
        (server, held)
    };
    let (server, held) = drain("300");
    let mut process = server.process;
    let began = Instant::now();
    process.signal(Signal::TERM);
    assert_eq!(process.ended(), Some(0), "cut off, and ended in order");
    assert!(began.elapsed() >= Duration::from_millis(300));
    drop(held);

    let (server, held) = drain("600000");
    let mut process = server.process;
    process.signal(Signal::TERM);
    wait_for("the drain", || TcpStream::connect(server.url.strip_prefix("http://").unwrap()).err());
    process.signal(Signal::TERM);
    assert_eq!(process.ended(), Some(143));
    drop(held);
}

#[test]
fn an_address_that_others_reach_is_refused_unless_somebody_insists() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let refused = |ran: support::Ran| {
        let told = ran.err.contains("0.0.0.0") && ran.err.contains("--insecure") && ran.err.contains("authentication");
        assert!(ran.exit == 2 && told && ran.err.contains("try: stanch serve --bind 127.0.0.1"), "{ran:?}");
    };
    let arguments = ["serve", "--port", "0", "--data", text(&data)];
    refused(stanch(&[&arguments[..], &["--bind", "0.0.0.0"]].concat()));
    let mut environment = program(&arguments);
    environment.env("STANCH__SERVER__BIND", "0.0.0.0");
    refused(support::output(environment).into());
    assert!(!data.exists(), "nothing was made");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("config.toml"), "[server]\nbind = \"0.0.0.0\"\n").unwrap();
    refused(stanch(&arguments));
    std::fs::write(data.join("config.toml"), "[server]\nbind = \"0.0.0.0\"\ninsecure = true\n").unwrap();
    let server = Server::start(&data, &[]);
    let port = server.url.rsplit(':').next().unwrap();
    assert_eq!(http(&format!("http://127.0.0.1:{port}"), "GET", "/health", "").0, 200);
    server.end();
    let here = Server::start(dir.path(), &["--bind", "localhost"]);
    assert_eq!(http(&here.url, "GET", "/health", "").0, 200);
    here.end();
}

#[test]
fn a_log_is_lines_of_json_when_asked_and_no_level_is_a_guess() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let arguments = ["serve", "--port", "0", "--json", "--log", "warn,server=debug", "--log-format", "json", "--data"];
    let mut command = program(&[&arguments[..], &[text(&dir.path().join("data"))]].concat());
    command.stderr(Stdio::from(std::fs::File::create(&log).unwrap()));
    let server = Server::of(Running::read(command));
    assert_eq!(http(&server.url, "GET", "/version", "").0, 200);
    assert_eq!(http(&server.url, "GET", "/nowhere", "").0, 404);
    server.end();
    let written = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let request = lines.iter().find(|line| line["fields"]["path"] == "/nowhere").unwrap();
    assert_eq!((&request["level"], &request["fields"]["status"]), (&json!("DEBUG"), &json!(404)), "{request}");
    assert!(request["fields"]["micros"].is_u64() && request["fields"]["method"] == "GET", "{request}");
    for line in &lines {
        assert!(line["timestamp"].is_string() && line["target"].is_string() && line["level"].is_string(), "{line}");
    }
    for command in ["serve", "executor"] {
        let wrong = stanch(&[command, "--log", "loud"]);
        assert!(wrong.exit == 2 && wrong.err.contains("loud") && wrong.err.contains("debug"), "{wrong:?}");
    }
}

#[test]
fn a_server_says_which_it_is_and_what_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let (status, version) = http(&server.url, "GET", "/version", "");
    let version: Value = serde_json::from_str(&version).unwrap();
    assert_eq!((status, &version["name"], &version["protocol"]), (200, &json!("stanch"), &json!("2026-04-01")));
    assert!(stanch(&["--version"]).out.contains(version["version"].as_str().unwrap()));
    assert_eq!(server.ask("promise.get", &json!({ "id": "a" })).0, 404);
    let counted = "stanch_requests_total{kind=\"promise.get\",status=\"404\"}";
    assert_eq!(metric(&server.url, counted), 1.0);
    assert!(metric(&server.url, "stanch_connections") >= 1.0);
    server.end();
}

#[test]
fn a_backup_of_a_busy_server_holds_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    let (acknowledged, stop) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let path = |name: &str| dir.path().join(name);
    let mut before = Vec::new();
    std::thread::scope(|threads| {
        let _stopping = Stopping(&stop);
        for writer in 0..4 {
            let (url, acknowledged, stop) = (&server.url, &acknowledged, &stop);
            threads.spawn(move || write_on(url, writer, stop, acknowledged));
        }
        let written = || acknowledged.lock().unwrap().len();
        wait_for("writes", || (written() > 300).then_some(()));
        before = acknowledged.lock().unwrap().clone();
        let made = stanch(&["backup", "--data", text(&data), "--to", text(&path("a")), "--with-keys", "--json"]);
        assert!(made.exit == 0 && made.json()["promises"].as_u64().unwrap() >= before.len() as u64, "{made:?}");
        let fetched = stanch(&["backup", "--server", &server.url, "--to", text(&path("b"))]);
        assert!(fetched.exit == 0 && fetched.out.contains("--with-keys"), "{fetched:?}");
        let meanwhile = written();
        wait_for("writes after it", || (written() > meanwhile).then_some(()));
        assert!(meanwhile > before.len(), "nothing was written meanwhile");
    });
    server.end();

    for (name, keys) in [("a", true), ("b", false)] {
        let restored = path(&format!("restored-{name}"));
        let ran = stanch(&["restore", text(&path(name)), "--data", text(&restored), "--json"]);
        assert!(ran.exit == 0 && ran.json()["keys"] == keys, "{ran:?}");
        assert_eq!(restored.join("keys/root.pem").exists(), keys);
        let doctor = stanch(&["doctor", "--data", text(&restored)]);
        assert_eq!(doctor.exit, 0, "{doctor:?}");
        let twice = stanch(&["restore", text(&path(name)), "--data", text(&restored)]);
        assert!(twice.exit == 2 && twice.err.contains("not empty") && twice.err.contains("try: "), "{twice:?}");
        let server = Server::start(&restored, &[]);
        all_there(&server, &before);
        server.end();
    }
}

/// A data directory whose server runs and has this many promises.
fn filled(data: &Path, promises: usize) -> Server {
    let server = Server::start(data, &[]);
    let numbers: Vec<usize> = (0..promises).collect();
    std::thread::scope(|threads| {
        // Several at once, so that they share commits.
        for mine in numbers.chunks(promises.div_ceil(8)) {
            let url = &server.url;
            let made = move |number| http(url, "POST", "/", &create(&format!("p{number}"))).0 == 200;
            threads.spawn(move || assert!(mine.iter().all(made)));
        }
    });
    server
}

/// Begins a backup and kills it as soon as it is time; whether that came before its end.
fn killed_at(data: &Path, to: &Path, is_time: impl Fn() -> bool) -> bool {
    let mut running = Running::of(program(&["backup", "--data", text(data), "--to", text(to)]), data);
    let began = Instant::now();
    while !running.is_over() {
        assert!(began.elapsed() < PATIENCE, "it goes on for ever");
        if is_time() {
            running.signal(Signal::KILL);
            return running.ended().is_none();
        }
        // Not a pause: what is waited for may be over in a millisecond.
        std::thread::yield_now();
    }
    false
}

#[test]
fn a_killed_backup_leaves_no_half_file_under_its_name() {
    /// LIMIT: how often a kill may come too late.
    const TRIES_MAX: usize = 20;
    let dir = tempfile::tempdir().unwrap();
    let (data, to, part) = (dir.path().join("data"), dir.path().join("b"), dir.path().join("b.part"));
    let server = filled(&data, 400);
    let whole = dir.path().join("whole");
    let made = stanch(&["backup", "--data", text(&data), "--to", text(&whole), "--json"]);
    assert_eq!((made.exit, made.json()["promises"].as_u64()), (0, Some(400)), "{made:?}");
    let size = std::fs::metadata(&whole).unwrap().len();
    let written = || std::fs::metadata(&part).map_or(0, |found| found.len());
    let stages: [(&str, &dyn Fn() -> bool); 4] = [
        ("at once", &|| true),
        ("begun", &|| part.exists()),
        ("partly written", &|| written() > 0),
        ("copied, not examined", &|| written() >= size),
    ];
    for (stage, is_time) in stages {
        let in_time = (0..TRIES_MAX).any(|attempt| {
            let _ = std::fs::remove_file(&part);
            let killed = killed_at(&data, &to, is_time);
            if to.exists() {
                let checked = dir.path().join(format!("checked {stage} {attempt}"));
                let restored = stanch(&["restore", text(&to), "--data", text(&checked)]);
                assert_eq!(restored.exit, 0, "{stage}: {restored:?}");
                std::fs::remove_file(&to).unwrap();
                return false;
            }
            killed
        });
        assert!(in_time, "{stage}: no kill came in time");
    }
    // What the killed ones left is in nobody's way.
    let again = stanch(&["backup", "--data", text(&data), "--to", text(&to)]);
    assert!(again.exit == 0 && to.exists() && !part.exists(), "{again:?}");
    server.end();
}

#[test]
fn nothing_but_a_backup_is_restored_and_no_file_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (data, path) = (dir.path().join("data"), |name: &str| dir.path().join(name));
    let server = filled(&data, 50);
    let backup = || stanch(&["backup", "--data", text(&data), "--to", text(&path("a"))]);
    assert_eq!(backup().exit, 0);
    let (bytes, new) = (std::fs::read(path("a")).unwrap(), path("new"));
    let again = backup();
    assert!(again.exit == 2 && again.err.contains("try: stanch backup --to FILE"), "{again:?}");
    assert!(std::fs::read(path("a")).unwrap() == bytes, "it was changed");
    server.end();
    std::fs::write(path("torn"), &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(path("text"), "not a backup").unwrap();
    for file in [path("torn"), path("text"), data.join("stanch.db"), path("none")] {
        let refused = stanch(&["restore", text(&file), "--data", text(&new)]);
        assert!([1, 2, 3].contains(&refused.exit) && refused.err.contains("try: "), "{file:?}: {refused:?}");
        assert!(!new.exists(), "{file:?}");
    }
}
