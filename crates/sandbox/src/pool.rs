//! A bounded pool of workers with a bounded queue in front: what saturates.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The pool of one replica.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    workers: Arc<Semaphore>,
    inside: Arc<AtomicUsize>,
    inside_max: usize,
}

/// A place in the pool: queued first, then working.
#[derive(Debug)]
pub(crate) struct Place {
    workers: Arc<Semaphore>,
    inside: Arc<AtomicUsize>,
}

/// A worker at work; free again when dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    _permit: Option<OwnedSemaphorePermit>,
    _place: Place,
}

impl Pool {
    pub(crate) fn new(workers: u32, queue_max: u32) -> Pool {
        let workers = usize::try_from(workers).unwrap_or(1);
        let inside_max = workers.saturating_add(usize::try_from(queue_max).unwrap_or(0));
        Pool { workers: Arc::new(Semaphore::new(workers)), inside: Arc::default(), inside_max }
    }

    /// A place, unless all workers are busy and the queue is full.
    pub(crate) fn enter(&self) -> Option<Place> {
        let place = Place { workers: self.workers.clone(), inside: self.inside.clone() };
        // Counted before it is judged: dropping the place takes it back.
        let before = self.inside.fetch_add(1, Ordering::SeqCst);
        (before < self.inside_max).then_some(place)
    }

    /// Requests queued or at work.
    pub(crate) fn inside(&self) -> usize {
        self.inside.load(Ordering::SeqCst)
    }
}

impl Place {
    /// Waits for a worker, first come first served.
    pub(crate) async fn work(self) -> Worker {
        let permit = self.workers.clone().acquire_owned().await.ok();
        Worker { _permit: permit, _place: self }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_is_turned_away_and_order_is_kept() {
        let pool = Pool::new(1, 1);
        let first = pool.enter().expect("a worker is free").work().await;
        let second = pool.enter().expect("the queue has room");
        assert!(pool.enter().is_none());
        assert_eq!(pool.inside(), 2);
        let mut waiting = Box::pin(second.work());
        assert!(futures_now(&mut waiting).is_none(), "the only worker is busy");
        drop(first);
        let second = waiting.await;
        assert!(pool.enter().is_some(), "room again");
        drop(second);
        assert_eq!(pool.inside(), 0);
    }

    fn futures_now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
