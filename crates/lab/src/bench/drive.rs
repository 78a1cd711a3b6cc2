//! A closed loop on many connections from one thread: each connection asks, waits for its answer, and asks again.
//!
//! By hand over epoll, because the generator shares the machine with the server it measures: it must cost a fraction
//! of what it asks for.

use super::process;
use super::{LOAD_CONNECTIONS_MAX, clock};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long no connection may be answered.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the time is looked at while nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// LIMIT: bytes of one answer.
const ANSWER_MAX: usize = 64 << 20;
/// How much of the first wrong answer is kept.
const WRONG_SHOWN: usize = 400;

/// Writes the body of request `n` of a connection; false if that connection asks nothing more.
pub(super) type Next<'a> = &'a mut dyn FnMut(usize, u64, &mut Vec<u8>) -> bool;

/// How much, and how long.
pub(super) struct Load {
    pub(super) connections: usize,
    pub(super) warm_up: Duration,
    pub(super) window: Duration,
    pub(super) pid: Option<u32>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Of every answer within the window, in nanoseconds.
    pub(super) latencies: Vec<u32>,
    pub(super) elapsed: Duration,
    /// Processor time of the server and of this process over the window.
    pub(super) server_cpu: Option<Duration>,
    pub(super) own_cpu: Duration,
    /// Answers other than 200, and the first of them.
    pub(super) wrong: Option<(u64, String)>,
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    asked: u64,
    since: Instant,
    idle: bool,
}

/// Runs until every connection has asked all it has; the window is the whole of it.
pub(super) fn all(address: &str, connections: usize, next: Next<'_>) -> Result<Outcome> {
    Driver::connect(address, connections)?.run(None, next)
}

/// Runs for a warm-up and a measured window.
pub(super) fn window(address: &str, load: &Load, next: Next<'_>) -> Result<Outcome> {
    Driver::connect(address, load.connections)?.run(Some(load), next)
}

struct Driver {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    body: Vec<u8>,
    outcome: Outcome,
    /// Whether answers count.
    measuring: bool,
}

impl Driver {
    fn connect(address: &str, connections: usize) -> Result<Driver> {
        ensure!(connections <= LOAD_CONNECTIONS_MAX, "at most {LOAD_CONNECTIONS_MAX} connections");
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut made = Vec::with_capacity(connections);
        for number in 0..connections {
            let stream = TcpStream::connect(address).with_context(|| format!("no server at {address}"))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll::add(&epoll, &stream, epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)?;
            made.push(Connection {
                stream,
                input: Vec::with_capacity(4_096),
                output: Vec::with_capacity(4_096),
                asked: 0,
                since: clock(),
                idle: false,
            });
        }
        Ok(Driver { epoll, connections: made, body: Vec::new(), outcome: Outcome::default(), measuring: false })
    }

    fn run(mut self, load: Option<&Load>, next: Next<'_>) -> Result<Outcome> {
        let (mut begin, mut cpu) = (clock(), (None, Duration::ZERO));
        self.measuring = load.is_none();
        let pid = load.and_then(|load| load.pid);
        let warm_until = load.map(|load| begin + load.warm_up);
        let mut heard = begin;
        for number in 0..self.connections.len() {
            self.ask(number, next)?;
        }
        let mut events: Vec<epoll::Event> = Vec::with_capacity(self.connections.len().max(1));
        let nap = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK_EVERY.subsec_nanos()) };
        while self.connections.iter().any(|connection| !connection.idle) {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&nap)) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let now = clock();
            if !events.is_empty() {
                heard = now;
            } else if now.duration_since(heard) > PATIENCE {
                bail!("no answer for {} s", PATIENCE.as_secs());
            }
            if let (false, Some(load), Some(until)) = (self.measuring, load, warm_until)
                && now >= until
            {
                self.measuring = true;
                (begin, cpu) = (now, (process::cpu_of(load.pid), process::own_cpu()));
            }
            if let Some(load) = load
                && self.measuring
                && now.duration_since(begin) >= load.window
            {
                break;
            }
            for event in events.drain(..) {
                let number = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
                self.hear(number, next)?;
            }
        }
        self.outcome.elapsed = clock().duration_since(begin);
        let spent = process::cpu_of(pid);
        self.outcome.server_cpu = spent.zip(cpu.0).map(|(now, then): (Duration, Duration)| now.saturating_sub(then));
        self.outcome.own_cpu = process::own_cpu().saturating_sub(cpu.1);
        Ok(self.outcome)
    }

    fn ask(&mut self, number: usize, next: Next<'_>) -> Result<()> {
        let Some(connection) = self.connections.get_mut(number) else { return Ok(()) };
        self.body.clear();
        if !next(number, connection.asked, &mut self.body) {
            connection.idle = true;
            return Ok(());
        }
        connection.asked += 1;
        connection.output.clear();
        frame(&self.body, &mut connection.output);
        connection.since = clock();
        let mut rest = connection.output.as_slice();
        while !rest.is_empty() {
            match connection.stream.write(rest) {
                Ok(0) => bail!("the server closed a connection"),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what has come; asks again once the answer is whole.
    fn hear(&mut self, number: usize, next: Next<'_>) -> Result<()> {
        let Some(connection) = self.connections.get_mut(number) else { return Ok(()) };
        let filled = connection.input.len();
        connection.input.resize(filled + 4_096, 0);
        let read = match connection.stream.read(connection.input.get_mut(filled..).unwrap_or_default()) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            Err(error) => return Err(error.into()),
        };
        connection.input.truncate(filled + read);
        let Some(answer) = parse(&connection.input)? else { return Ok(()) };
        if self.measuring {
            let nanos = clock().duration_since(connection.since).as_nanos();
            self.outcome.latencies.push(u32::try_from(nanos).unwrap_or(u32::MAX));
        }
        if answer.status != 200 {
            let body = connection.input.get(answer.head..).unwrap_or_default();
            let shown = String::from_utf8_lossy(body.get(..WRONG_SHOWN).unwrap_or(body)).into_owned();
            let wrong = self.outcome.wrong.get_or_insert_with(|| (0, format!("{}: {shown}", answer.status)));
            wrong.0 += 1;
        }
        connection.input.clear();
        self.ask(number, next)
    }
}

/// Puts a request around a body.
pub(super) fn frame(body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"POST / HTTP/1.1\r\nhost: server\r\ncontent-type: application/json\r\ncontent-length: ");
    // Writing to memory cannot fail.
    let _ = write!(out, "{}\r\n\r\n", body.len());
    out.extend_from_slice(body);
}

/// Where an answer's parts are.
pub(super) struct Answer {
    pub(super) status: u16,
    /// The length of its head.
    pub(super) head: usize,
}

/// Looks whether the answer is whole. Servers of this protocol name the length of every answer.
pub(super) fn parse(input: &[u8]) -> Result<Option<Answer>> {
    let Some(end) = find(input, b"\r\n\r\n") else {
        ensure!(input.len() < ANSWER_MAX, "an answer of more than {ANSWER_MAX} bytes");
        return Ok(None);
    };
    let head = input.get(..end).unwrap_or_default();
    let digits = |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|text| text.trim().parse::<usize>().ok());
    let status = head.get(9..12).and_then(digits).and_then(|status| u16::try_from(status).ok());
    let status = status.context("an answer that is not HTTP/1.1")?;
    let named = head.split(|byte| *byte == b'\n').find_map(|line| {
        let name = line.get(..15)?;
        if name.eq_ignore_ascii_case(b"content-length:") { line.get(15..).and_then(digits) } else { None }
    });
    let length = named.context("an answer without content-length")?;
    ensure!(length < ANSWER_MAX, "an answer of more than {ANSWER_MAX} bytes");
    Ok((input.len() >= end + 4 + length).then_some(Answer { status, head: end + 4 }))
}

fn find(input: &[u8], what: &[u8]) -> Option<usize> {
    input.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_when_it_is_whole_and_refused_beyond_its_limit() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx: y\r\n\r\n{}";
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).unwrap().is_none(), "{cut}");
        }
        let answer = parse(whole).unwrap().unwrap();
        assert_eq!((answer.status, &whole[answer.head..]), (200, &b"{}"[..]));
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        let long = format!("HTTP/1.1 200 OK\r\ncontent-length: {ANSWER_MAX}\r\n\r\n");
        assert!(parse(long.as_bytes()).is_err());
    }
}
