//! What a connection is doing, so that a client that is too slow can be told from one that is at work.
//!
//! WHY: a timer for each request costs more than answering it. Here a request stores two numbers, and one task looks at
//! all connections a few times a second; what it measures is therefore exact to [`LOOK_EVERY`] only.

use crate::config::ServerSettings;
use crate::limits::{Refusal, Traffic};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// How often connections are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a connection waits for. Its number stands in the upper bits of [`Line::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The next request.
    Idle,
    /// The rest of a request's head.
    Head,
    /// The rest of a request's body.
    Body,
    /// The answer, or the end of a stream: nothing that the client owes.
    Busy,
}

const PHASES: [Phase; 4] = [Phase::Idle, Phase::Head, Phase::Body, Phase::Busy];
/// Where the phase begins in [`Line::state`]; below it stands the look at which it began.
const PHASE_SHIFT: u32 = 62;

/// One connection.
#[derive(Debug)]
pub(super) struct Line {
    number: u64,
    /// How many looks there were so far, shared with all lines.
    looks: Arc<AtomicU64>,
    state: AtomicU64,
    /// The look from which on the client has read nothing of what waits for it, plus one; 0 = nothing waits.
    stalled: AtomicU64,
    end: CancellationToken,
}

/// Every connection of a listener.
#[derive(Debug)]
pub(super) struct Lines {
    traffic: Traffic,
    looks: Arc<AtomicU64>,
    lines: Mutex<(u64, HashMap<u64, Arc<Line>>)>,
}

/// A socket whose line knows what happens on it.
#[derive(Debug)]
pub(super) struct Watched {
    stream: TcpStream,
    line: Arc<Line>,
}

/// A request's body whose line knows when it is there.
#[derive(Debug)]
pub(super) struct Reading {
    body: Incoming,
    line: Arc<Line>,
}

impl Line {
    /// A request's head is there; its body is too, or is still to come.
    pub(super) fn begin(&self, has_more: bool) {
        self.enter(if has_more { Phase::Body } else { Phase::Busy });
    }

    /// The answer goes out.
    pub(super) fn end(&self) {
        self.enter(Phase::Idle);
    }

    /// Completes when the client was too slow.
    pub(super) fn ended(&self) -> WaitForCancellationFuture<'_> {
        self.end.cancelled()
    }

    fn enter(&self, phase: Phase) {
        let look = self.looks.load(Ordering::Relaxed);
        self.state.store(((phase as u64) << PHASE_SHIFT) | look, Ordering::Relaxed);
    }

    fn phase(&self) -> (Phase, u64) {
        let state = self.state.load(Ordering::Relaxed);
        let phase = PHASES.get(usize::try_from(state >> PHASE_SHIFT).unwrap_or_default());
        (phase.copied().unwrap_or(Phase::Busy), state & ((1 << PHASE_SHIFT) - 1))
    }

    /// Bytes came in.
    fn came(&self) {
        if self.phase().0 == Phase::Idle {
            self.enter(Phase::Head);
        }
    }

    /// Bytes went out, or could not.
    fn went(&self, has_room: bool) {
        if has_room {
            self.stalled.store(0, Ordering::Relaxed);
            // A long answer is read: that is no idle connection.
            if self.phase().0 == Phase::Idle {
                self.enter(Phase::Idle);
            }
        } else {
            let now = self.looks.load(Ordering::Relaxed) + 1;
            let _ = self.stalled.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether its client lets it wait longer than the settings allow.
    fn is_slow(&self, now: u64, settings: &ServerSettings) -> bool {
        let (phase, since) = self.phase();
        let allowed = match phase {
            Phase::Idle => Some(settings.idle_timeout_ms),
            Phase::Head => Some(settings.head_timeout_ms),
            Phase::Body => Some(settings.body_timeout_ms),
            Phase::Busy => None,
        };
        let has_passed = |since: u64, allowed: u64| now.saturating_sub(since) > looks_in(allowed);
        let stalled = self.stalled.load(Ordering::Relaxed);
        allowed.is_some_and(|allowed| has_passed(since, allowed))
            || (stalled > 0 && has_passed(stalled - 1, settings.write_timeout_ms))
    }

    fn is_idle(&self) -> bool {
        self.phase().0 == Phase::Idle && self.stalled.load(Ordering::Relaxed) == 0
    }
}

impl Lines {
    pub(super) fn new(traffic: Traffic) -> Arc<Lines> {
        Arc::new(Lines { traffic, looks: Arc::default(), lines: Mutex::default() })
    }

    /// A new connection.
    pub(super) fn add(&self) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.0 += 1;
        let line = Arc::new(Line {
            number: lines.0,
            looks: Arc::clone(&self.looks),
            state: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
            end: CancellationToken::new(),
        });
        // Whoever connects has something to ask.
        line.enter(Phase::Head);
        lines.1.insert(line.number, Arc::clone(&line));
        line
    }

    /// It is over.
    pub(super) fn remove(&self, line: &Line) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&line.number);
    }

    /// Ends connections whose clients are too slow, until it is aborted.
    pub(super) async fn watch(self: Arc<Lines>) {
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            every.tick().await;
            self.look();
        }
    }

    /// Ends those whose clients are too slow now.
    pub(super) fn look(&self) {
        let now = self.looks.fetch_add(1, Ordering::Relaxed) + 1;
        let settings = self.traffic.settings();
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for line in lines.1.values().filter(|line| line.is_slow(now, settings) && !line.end.is_cancelled()) {
            if !line.is_idle() {
                self.traffic.refuse(Refusal::Slow);
            }
            line.end.cancel();
        }
    }
}

#[cfg(test)]
impl Lines {
    /// How many connections are in a phase.
    pub(super) fn count(&self, phase: Phase) -> usize {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.1.values().filter(|line| line.phase().0 == phase).count()
    }

    /// Whether a client reads nothing of what waits for it.
    pub(super) fn is_stalled(&self) -> bool {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.1.values().any(|line| line.stalled.load(Ordering::Relaxed) > 0)
    }
}

/// The looks within so many milliseconds.
fn looks_in(millis: u64) -> u64 {
    millis / u64::try_from(LOOK_EVERY.as_millis()).unwrap_or(1)
}

impl Watched {
    pub(super) fn new(stream: TcpStream, line: Arc<Line>) -> Watched {
        Watched { stream, line }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.line.came();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.line.went(written.is_ready());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.line.went(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Reading {
    pub(super) fn new(body: Incoming, line: Arc<Line>) -> Reading {
        Reading { body, line }
    }
}

impl Body for Reading {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_ready() && (self.body.is_end_stream() || matches!(frame, Poll::Ready(None))) {
            self.line.begin(false);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
