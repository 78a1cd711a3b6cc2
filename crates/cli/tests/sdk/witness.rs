//! Stands on the wire between a program and the server, changes nothing, and counts what was answered to what.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// How many answers there were, by kind of request and status.
pub(crate) type Answers = BTreeMap<(String, u64), u64>;

/// A witness; it listens as long as the test runs.
pub(crate) struct Witness {
    pub(crate) url: String,
    answers: Arc<Mutex<Answers>>,
}

impl Witness {
    /// Starts one in front of a server.
    pub(crate) fn start(server: &str) -> Witness {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = Arc::<Mutex<Answers>>::default();
        let (address, counted) = (server.strip_prefix("http://").unwrap().to_owned(), answers.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is gone is seen by the client as one.
                let Ok(server) = TcpStream::connect(&address) else { continue };
                relay(client, server, counted.clone());
            }
        });
        Witness { url, answers }
    }

    /// What was answered so far.
    pub(crate) fn answers(&self) -> Answers {
        self.answers.lock().unwrap().clone()
    }
}

fn relay(client: TcpStream, server: TcpStream, answers: Arc<Mutex<Answers>>) {
    let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    std::thread::spawn(move || copy(from_client, to_server, |_| ()));
    std::thread::spawn(move || {
        let mut unread = Some(Vec::new());
        copy(server, client, |bytes| {
            if let Some(text) = &mut unread {
                text.extend_from_slice(bytes);
                if !count(text, &answers) {
                    unread = None;
                }
            }
        });
    });
}

/// Copies until either side has closed, and then closes both.
fn copy(mut from: TcpStream, mut to: TcpStream, mut seen: impl FnMut(&[u8])) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        seen(&bytes[..read]);
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Counts every whole answer and removes it. False: this is a stream of events, which has no end.
fn count(unread: &mut Vec<u8>, answers: &Mutex<Answers>) -> bool {
    while let Some(end) = unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&unread[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let Some(length) = length.and_then(|length| length.trim().parse::<usize>().ok()) else {
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
            *answers.lock().unwrap().entry(("poll".into(), status)).or_default() += 1;
            return false;
        };
        let whole = end + 4 + length;
        if unread.len() < whole {
            return true;
        }
        let answer: serde_json::Value = serde_json::from_slice(&unread[end + 4..whole]).unwrap_or_default();
        let kind = answer["kind"].as_str().unwrap_or("not an answer of the protocol").to_owned();
        let status = answer["head"]["status"].as_u64().unwrap_or_default();
        *answers.lock().unwrap().entry((kind, status)).or_default() += 1;
        unread.drain(..whole);
    }
    true
}

#[test]
fn answers_are_counted_however_they_are_cut_and_streams_of_events_are_left_alone() {
    let answer = |status: u64| {
        let body = format!(r#"{{"kind":"task.get","head":{{"status":{status}}}}}"#);
        format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let text = [answer(200), answer(404), answer(200)].concat();
    for cut in 1..text.len() {
        let (answers, mut unread) = (Mutex::default(), Vec::new());
        for part in text.as_bytes().chunks(cut) {
            unread.extend_from_slice(part);
            assert!(count(&mut unread, &answers));
        }
        let found = answers.into_inner().unwrap();
        assert_eq!(found, Answers::from([(("task.get".into(), 200), 2), (("task.get".into(), 404), 1)]));
    }
    let (answers, mut unread) = (Mutex::default(), b"HTTP/1.1 200 OK\r\ncontent-type: x\r\n\r\n: hello".to_vec());
    assert!(!count(&mut unread, &answers));
    assert_eq!(answers.into_inner().unwrap(), Answers::from([(("poll".into(), 200), 1)]));
}
