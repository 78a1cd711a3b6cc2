//! What is broken in one replica. A new process has none of it.

use axum::http::StatusCode;
use serde::Deserialize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How a replica is told to break.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Told {
    /// It takes so much longer for everything.
    slow_ms: u64,
    /// It answers every request with an error.
    errors: bool,
    /// It keeps memory of every request and never gives it back.
    leak: bool,
}

/// What is broken.
#[derive(Debug, Default)]
pub(super) struct Wounds {
    slow_ms: AtomicU64,
    errors: AtomicBool,
    leaks: AtomicBool,
    kept: Mutex<Vec<Vec<u8>>>,
}

impl Wounds {
    pub(super) fn set(&self, told: Told) {
        self.slow_ms.store(told.slow_ms, Ordering::Relaxed);
        self.errors.store(told.errors, Ordering::Relaxed);
        self.leaks.store(told.leak, Ordering::Relaxed);
    }

    /// Takes the longer time.
    pub(super) async fn delay(&self) {
        let slow_ms = self.slow_ms.load(Ordering::Relaxed);
        if slow_ms > 0 {
            tokio::time::sleep(Duration::from_millis(slow_ms)).await;
        }
    }

    /// The error that a request gets at once, if it gets one.
    pub(super) fn refusal(&self) -> Option<StatusCode> {
        if self.errors.load(Ordering::Relaxed) {
            return Some(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let full = self.leaks.load(Ordering::Relaxed) && !self.keep();
        full.then_some(StatusCode::SERVICE_UNAVAILABLE)
    }

    /// Keeps memory for ever; false once it may hold no more.
    fn keep(&self) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if (kept.len() + 1) * crate::LEAK_BYTES > crate::LEAK_BYTES_MAX {
            return false;
        }
        // Not zeros: pages that are never written to take no memory.
        kept.push(vec![0x5a; crate::LEAK_BYTES]);
        true
    }
}
