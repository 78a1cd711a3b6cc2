//! One connection that asks and waits, and one worker's event stream.

use super::clock;
use super::drive;
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long an answer or an offer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A keep-alive connection.
pub(super) struct Caller {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    body: Vec<u8>,
}

impl Caller {
    pub(super) fn connect(address: &str) -> Result<Caller> {
        let stream = TcpStream::connect(address).with_context(|| format!("no server at {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Caller { stream, input: Vec::new(), output: Vec::new(), body: Vec::new() })
    }

    /// Asks, and answers the length of the answer's body; anything but 200 is an error.
    pub(super) fn ask(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<usize> {
        self.body.clear();
        write(&mut self.body);
        self.output.clear();
        drive::frame(&self.body, &mut self.output);
        self.stream.write_all(&self.output)?;
        self.input.clear();
        let mut chunk = [0_u8; 16_384];
        loop {
            let read = self.stream.read(&mut chunk)?;
            ensure!(read > 0, "the server closed a connection");
            self.input.extend_from_slice(chunk.get(..read).unwrap_or_default());
            let Some(answer) = drive::parse(&self.input)? else { continue };
            let body = self.input.get(answer.head..).unwrap_or_default();
            if answer.status != 200 {
                bail!("answered {}: {}", answer.status, String::from_utf8_lossy(body));
            }
            return Ok(body.len());
        }
    }
}

/// A task that was offered, and when.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) id: String,
    pub(super) version: u64,
    pub(super) at: Instant,
}

/// A connected worker. Dropping it drops its connection.
pub(super) struct Worker {
    stream: TcpStream,
    offers: Receiver<Offer>,
    /// When it began to connect.
    pub(super) since: Instant,
}

impl Worker {
    /// Connects; returns once the server has accepted the stream.
    pub(super) fn connect(address: &str, group: &str, id: &str) -> Result<Worker> {
        let since = clock();
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let head = format!("GET /poll/{group}/{id} HTTP/1.1\r\nhost: server\r\naccept: text/event-stream\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut reader = BufReader::with_capacity(1 << 16, stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        ensure!(line.get(9..12) == Some("200"), "the stream was refused: {line}");
        let mut is_chunked = false;
        while line.trim_end() != "" {
            line.clear();
            reader.read_line(&mut line)?;
            is_chunked |= line.to_ascii_lowercase().starts_with("transfer-encoding: chunked");
        }
        let (sender, offers) = mpsc::channel();
        std::thread::spawn(move || {
            let mut events = Events { reader, is_chunked, left: 0 };
            // It ends with the connection.
            let _ = events.read(|offer| sender.send(offer).is_ok());
        });
        Ok(Worker { stream, offers, since })
    }

    /// The next offer.
    pub(super) fn next(&self) -> Result<Offer> {
        self.within(PATIENCE)?.with_context(|| format!("no offer within {} s", PATIENCE.as_secs()))
    }

    /// The next offer, if it comes in time.
    pub(super) fn within(&self, time: Duration) -> Result<Option<Offer>> {
        match self.offers.recv_timeout(time) {
            Ok(offer) => Ok(Some(offer)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the stream ended"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// The events of a stream.
struct Events {
    reader: BufReader<TcpStream>,
    is_chunked: bool,
    /// Bytes left of the chunk at hand.
    left: usize,
}

impl Events {
    fn read(&mut self, mut tell: impl FnMut(Offer) -> bool) -> Result<()> {
        let mut line = Vec::new();
        loop {
            let byte = self.bytes(&mut line)?;
            if !byte {
                return Ok(());
            }
            while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                let rest = line.split_off(end + 1);
                if let Some(data) = line.strip_prefix(b"data: ")
                    && let Some(offer) = offer(data)
                    && !tell(offer)
                {
                    return Ok(());
                }
                line = rest;
            }
        }
    }

    /// Appends what has come; false once the stream has ended.
    fn bytes(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        if self.is_chunked && self.left == 0 {
            let mut size = String::new();
            self.reader.read_line(&mut size)?;
            if size.trim().is_empty() {
                // The line end that closes the chunk before.
                size.clear();
                self.reader.read_line(&mut size)?;
            }
            self.left = usize::from_str_radix(size.trim(), 16).context("a chunk's size")?;
            if self.left == 0 {
                return Ok(false);
            }
        }
        let come = self.reader.fill_buf()?;
        let taken = if self.is_chunked { come.len().min(self.left) } else { come.len() };
        out.extend_from_slice(come.get(..taken).unwrap_or_default());
        self.reader.consume(taken);
        self.left = self.left.saturating_sub(taken);
        Ok(taken > 0)
    }
}

fn offer(data: &[u8]) -> Option<Offer> {
    let at = clock();
    let message: Value = serde_json::from_slice(data).ok()?;
    let task = message.get("data")?.get("task")?;
    Some(Offer { id: task.get("id")?.as_str()?.to_owned(), version: task.get("version")?.as_u64()?, at })
}
