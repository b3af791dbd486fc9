//! Batches, made by worker threads, in an order that does not depend on them.

use std::sync::Arc;

use crate::rng;
use crate::{BadSample, Batch, Compose, DataError, Dataset, Result, epoch_order};

mod pool;

use pool::Pool;

/// Whether a last batch that is not full is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastBatch {
    /// It is; for evaluation, where every image counts.
    Keep,
    /// It is not; for training, where every step should weigh the same.
    Drop,
}

/// What happens when a sample cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBad {
    /// The epoch ends with the error.
    Fail,
    /// The sample is left out of its batch, which lists it under [`bad`](Batch::bad). It is never replaced.
    Report,
}

/// The order in which an epoch goes through the indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As they are listed. Random transforms draw as in epoch 0.
    Sequential,
    /// As [`epoch_order`] shuffles their positions. Random transforms draw anew in each epoch.
    Shuffled {
        /// Seed of the order.
        seed: u64,
        /// Epoch, from 0.
        epoch: u64,
    },
}

/// Makes batches of the images at some indices of a data set.
///
/// The batches and their order are the same for any number of workers: what is random is keyed by seed, epoch and index
/// (see [`rng`]). The loader itself has no state; each [`epoch`](Self::epoch) starts threads of its own.
#[derive(Debug, Clone)]
pub struct Loader {
    /// Where the images come from.
    pub dataset: Arc<dyn Dataset>,
    /// Which of them, for example one part of a split.
    pub indices: Arc<[usize]>,
    /// What is done to each image.
    pub transform: Compose,
    /// Images in a batch, at least 1.
    pub batch_size: usize,
    /// Threads that make batches; 0 makes them in the caller's thread when they are asked for.
    pub workers: usize,
    /// Most batches that are under way or wait for the caller at one time; 0 counts as 1. Fewer than `workers` leaves
    /// some of these idle.
    pub prefetch: usize,
    /// Whether a last batch that is not full is used.
    pub last: LastBatch,
    /// What happens when a sample cannot be read.
    pub bad: OnBad,
    /// Seed of the random transforms.
    pub seed: u64,
}

impl Loader {
    /// Number of batches in an epoch; 0 if `batch_size` is 0.
    pub fn num_batches(&self) -> usize {
        match (self.batch_size, self.last) {
            (0, _) => 0,
            (size, LastBatch::Keep) => self.indices.len().div_ceil(size),
            (size, LastBatch::Drop) => self.indices.len() / size,
        }
    }

    /// Goes through all batches of an epoch.
    pub fn epoch(&self, order: Order) -> Epoch {
        self.epoch_from(order, 0)
    }

    /// Goes through the batches of an epoch from `first_batch` on, as [`epoch`](Self::epoch) would yield them; for
    /// resuming in the middle. What comes before is not read.
    pub fn epoch_from(&self, order: Order, first_batch: usize) -> Epoch {
        let num_batches = self.num_batches();
        let next = first_batch.min(num_batches);
        if let Err(error) = self.validate() {
            return Epoch { source: Source::Failed(Some(error)), next, num_batches: next };
        }
        let plan = Plan { loader: self.clone(), positions: self.positions(order), epoch: order.epoch() };
        let source = match self.workers {
            0 => Source::Caller(plan),
            workers => Source::Pool(Pool::start(plan, workers, next..num_batches)),
        };
        Epoch { source, next, num_batches }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if self.batch_size == 0 {
            let reason = "a batch needs at least 1 image".to_string();
            return Err(DataError::InvalidOption { option: "batch size", reason });
        }
        let len = self.dataset.len();
        if let Some(&index) = self.indices.iter().find(|index| **index >= len) {
            return Err(DataError::IndexOutOfRange { index, len });
        }
        self.transform.validate()
    }

    /// Positions in `indices` in the order of the epoch.
    pub(crate) fn positions(&self, order: Order) -> Vec<usize> {
        match order {
            Order::Sequential => (0..self.indices.len()).collect(),
            Order::Shuffled { seed, epoch } => epoch_order(seed, epoch, self.indices.len()),
        }
    }
}

impl Order {
    pub(crate) fn epoch(self) -> u64 {
        match self {
            Self::Sequential => 0,
            Self::Shuffled { epoch, .. } => epoch,
        }
    }
}

/// All that is needed to make any batch of one epoch.
#[derive(Debug)]
struct Plan {
    loader: Loader,
    positions: Vec<usize>,
    epoch: u64,
}

impl Plan {
    /// Makes one batch. `cancelled` is asked before each sample; the batch is given up with `None` when it says so.
    fn make(&self, batch_index: usize, cancelled: &dyn Fn() -> bool) -> Option<Result<Batch>> {
        let size = self.loader.batch_size;
        let start = batch_index * size;
        let positions = &self.positions[start..(start + size).min(self.positions.len())];
        let mut batch = Batch::with_capacity(positions.len());
        for &position in positions {
            if cancelled() {
                return None;
            }
            if let Err(error) = self.add(&mut batch, self.loader.indices[position], positions.len()) {
                return Some(Err(error));
            }
        }
        Some(Ok(batch))
    }

    /// Adds one sample to the batch, or notes it as bad.
    fn add(&self, batch: &mut Batch, index: usize, capacity: usize) -> Result<()> {
        let loader = &self.loader;
        let mut rng = rng::for_sample(loader.seed, self.epoch, index);
        let name = || loader.dataset.name(index);
        let read = loader.dataset.get(index).and_then(|sample| {
            let changed = loader.transform.apply(sample.image, &mut rng);
            let image = changed.map_err(|error| DataError::Sample { name: name(), source: Box::new(error) })?;
            Ok((sample.label, image))
        });
        match (read, loader.bad) {
            (Ok((label, image)), _) => batch.push(index, label, &image, capacity, name),
            (Err(error), OnBad::Fail) => Err(error),
            (Err(error), OnBad::Report) => {
                batch.bad.push(BadSample::new(&*loader.dataset, index, &error));
                Ok(())
            }
        }
    }
}

/// The batches of one epoch, in order; after an error there are no more.
///
/// Dropping it early stops the workers and waits for the sample that each has in hand.
#[derive(Debug)]
pub struct Epoch {
    source: Source,
    next: usize,
    num_batches: usize,
}

#[derive(Debug)]
enum Source {
    /// Made when asked for.
    Caller(Plan),
    /// Made ahead by threads.
    Pool(Pool),
    /// The settings were wrong, or a batch was.
    Failed(Option<DataError>),
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Source::Failed(error) = &mut self.source {
            return error.take().map(Err);
        }
        if self.next >= self.num_batches {
            return None;
        }
        let made = match &mut self.source {
            Source::Caller(plan) => plan.make(self.next, &|| false)?,
            Source::Pool(pool) => pool.take(self.next),
            Source::Failed(_) => return None,
        };
        self.next += 1;
        if made.is_err() {
            self.source = Source::Failed(None);
        }
        Some(made)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.num_batches - self.next;
        (0, Some(left.max(1)))
    }
}
