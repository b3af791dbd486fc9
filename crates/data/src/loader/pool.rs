//! Threads that make batches ahead, a bounded number at a time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use super::Plan;
use crate::decode::panic_message;
use crate::{Batch, DataError, Result};

/// Workers and what they share. A batch is claimed in order, made by whoever claimed it, and handed over in order.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    plan: Plan,
    state: Mutex<State>,
    changed: Condvar,
    /// Beside the lock, so that a worker can look between two samples.
    stopped: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// Batches that nobody has claimed.
    unclaimed: Range<usize>,
    /// The first batch that may not be claimed yet; it moves on when the caller takes one.
    window_end: usize,
    /// Made and not taken.
    ready: BTreeMap<usize, Result<Batch>>,
}

impl Pool {
    /// Starts threads for the given batches. A thread that cannot be started is reported in place of the first batch
    /// if no other could be.
    pub(super) fn start(plan: Plan, workers: usize, batches: Range<usize>) -> Self {
        let window = plan.loader.prefetch.max(1);
        let num_threads = workers.min(window).min(batches.len());
        let first = batches.start;
        let state = State { window_end: first.saturating_add(window), unclaimed: batches, ready: BTreeMap::new() };
        let stopped = AtomicBool::new(false);
        let shared = Arc::new(Shared { plan, state: Mutex::new(state), changed: Condvar::new(), stopped });
        let mut threads = Vec::with_capacity(num_threads);
        for _ in 0..num_threads {
            let worker = shared.clone();
            match Builder::new().name("taper-data".to_string()).spawn(move || worker.work()) {
                Ok(thread) => threads.push(thread),
                Err(error) if threads.is_empty() => {
                    let failed = DataError::Worker { batch_index: first, reason: error.to_string() };
                    shared.lock().ready.insert(first, Err(failed));
                    break;
                }
                // Fewer threads make the same batches.
                Err(_) => break,
            }
        }
        Self { shared, threads }
    }

    /// Waits for the batch and takes it; the caller takes them in order.
    pub(super) fn take(&mut self, batch_index: usize) -> Result<Batch> {
        let mut state = self.shared.lock();
        loop {
            if let Some(batch) = state.ready.remove(&batch_index) {
                state.window_end += 1;
                self.shared.changed.notify_all();
                return batch;
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Set under the lock, so that no worker checks before and waits after.
        let state = self.shared.lock();
        self.shared.stopped.store(true, Ordering::Relaxed);
        drop(state);
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A worker catches its panics, and there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The lock holds plain values that are whole between any two statements, so that a panic elsewhere spoils nothing.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn work(&self) {
        while let Some(batch_index) = self.claim() {
            let make = || self.plan.make(batch_index, &|| self.is_stopped());
            let made = catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|panic| {
                Some(Err(DataError::Worker { batch_index, reason: panic_message(panic.as_ref()) }))
            });
            let Some(batch) = made else { return };
            self.lock().ready.insert(batch_index, batch);
            self.changed.notify_all();
        }
    }

    /// Waits until a batch may be made and claims it; `None` when there is nothing left to do.
    fn claim(&self) -> Option<usize> {
        let mut state = self.lock();
        loop {
            if self.is_stopped() || state.unclaimed.is_empty() {
                return None;
            }
            if state.unclaimed.start < state.window_end {
                return state.unclaimed.next();
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
