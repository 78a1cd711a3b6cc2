//! What every way of sending spans has in common: bytes come in, spans go into the graph, and a count goes back.

use super::{BATCH_BYTES_MAX, Telemetry};
use crate::gzip::{self, GzipError};
use axum::body::Bytes;
use recovery::import::{self, ImportError, Options};

/// What a batch is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `ExportTraceServiceRequest` in protobuf.
    Protobuf,
    /// The same as JSON.
    Json,
}

/// Why a batch was not taken. Nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// Nothing can be made of it.
    #[error("{0}")]
    Malformed(String),
    /// It is larger than [`BATCH_BYTES_MAX`].
    #[error("{0}")]
    TooLarge(String),
    /// Too many batches are in hand; the same one may be taken in a moment.
    #[error("too many batches are being read; send it again later")]
    Busy,
}

impl Telemetry {
    /// Takes a batch; answers how many of its spans were refused.
    pub(super) async fn take(&self, body: Bytes, form: Form, is_gzip: bool) -> Result<u64, Refusal> {
        let Ok(in_hand) = self.batches.clone().try_acquire_owned() else {
            self.lock().counts.busy += 1;
            return Err(Refusal::Busy);
        };
        // What it will be once it is unpacked is known only then.
        let most = if is_gzip { BATCH_BYTES_MAX } else { body.len().min(BATCH_BYTES_MAX) };
        let kib = u32::try_from(most >> 10).unwrap_or(u32::MAX);
        let reading = self.reading.clone().acquire_many_owned(kib).await.map_err(|_| Refusal::Busy)?;
        let this = self.clone();
        let read = self.env.compute(move || {
            let _until_done = (in_hand, reading);
            this.read(&body, form, is_gzip)
        });
        read.await.map_err(|_| Refusal::Busy)?
    }

    fn read(&self, body: &[u8], form: Form, is_gzip: bool) -> Result<u64, Refusal> {
        let unpacked;
        let body = if is_gzip {
            unpacked = gzip::unpack(body, BATCH_BYTES_MAX as u64).map_err(Refusal::from)?;
            &unpacked
        } else {
            body
        };
        // The embedded server takes spans from its own host only: the source counts as authenticated.
        let options = Options { authenticated: true, dictionary: None };
        let read = match form {
            Form::Protobuf => import::otlp_protobuf(body, &options),
            Form::Json => import::otlp_json(body, &options),
        };
        let (spans, report) = read?;
        let refused = report.dropped_total();
        self.lock().counts.refused += refused;
        self.observe(spans);
        Ok(refused)
    }
}

impl From<GzipError> for Refusal {
    fn from(error: GzipError) -> Refusal {
        match error {
            GzipError::Damaged(_) => Refusal::Malformed(error.to_string()),
            GzipError::TooLarge(_) => Refusal::TooLarge(error.to_string()),
        }
    }
}

impl From<ImportError> for Refusal {
    fn from(error: ImportError) -> Refusal {
        match error {
            ImportError::TooLarge { .. } => Refusal::TooLarge(error.to_string()),
            _ => Refusal::Malformed(error.to_string()),
        }
    }
}

/// `ExportTraceServiceResponse { partial_success (1) { rejected_spans (1) } }` in protobuf; empty when 0.
pub(super) fn partial_success(refused: u64) -> Vec<u8> {
    if refused == 0 { Vec::new() } else { field(1, &number(1, refused)) }
}

/// A field with a number, in protobuf.
pub(super) fn number(tag: u8, value: u64) -> Vec<u8> {
    let mut out = vec![tag << 3];
    let mut rest = value;
    while rest >= 0x80 {
        out.push(u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap_or(0));
    out
}

/// A field with bytes of which there are fewer than 128, in protobuf.
pub(super) fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag << 3 | 2, u8::try_from(content.len()).unwrap_or(0)], content].concat()
}
