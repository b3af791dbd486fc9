//! Decoded images kept in memory from epoch to epoch.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::{Compose, DataError, Dataset, Image, Result, Sample, rng};

/// How many bytes of images may be kept, by all sets that share it.
///
/// ```
/// use taper_data::CacheBudget;
///
/// let budget = CacheBudget::mebibytes(256);
/// assert_eq!(budget.bytes_left(), 256 << 20);
/// ```
#[derive(Debug, Clone)]
pub struct CacheBudget(Arc<AtomicU64>);

impl CacheBudget {
    /// A limit in MiB; 0 keeps nothing.
    pub fn mebibytes(mebibytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(mebibytes.saturating_mul(1 << 20))))
    }

    /// What is not used yet.
    pub fn bytes_left(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A data set whose images go through fixed transforms and are then kept, until the budget is used up.
///
/// What [`get`](Dataset::get) returns never depends on what is kept. Nothing is thrown out for something newer: an epoch
/// asks for every image once, so that the share of the images that is kept is the share that is found again, while the
/// one thrown out last would always be the one asked for next. Images that cannot be read are not remembered.
///
/// ```
/// use std::sync::Arc;
/// use taper_data::{CacheBudget, CachedDataset, Compose, Dataset, Glyphs, Transform};
///
/// let half = Compose(vec![Transform::CenterCrop { size: [16, 16] }]);
/// let set = CachedDataset::new(Arc::new(Glyphs::new()), half, CacheBudget::mebibytes(1))?;
/// assert_eq!(set.get(3)?, set.get(3)?);
/// assert_eq!(set.num_cached(), 1);
/// # Ok::<(), taper_data::DataError>(())
/// ```
#[derive(Debug)]
pub struct CachedDataset {
    dataset: Arc<dyn Dataset>,
    fixed: Compose,
    budget: CacheBudget,
    kept: Vec<OnceLock<Image>>,
}

impl CachedDataset {
    /// Keeps images of `dataset` after the transforms `fixed`.
    ///
    /// # Errors
    /// [`DataError::InvalidOption`] if one of the transforms is random, or as [`Compose::validate`].
    pub fn new(dataset: Arc<dyn Dataset>, fixed: Compose, budget: CacheBudget) -> Result<Self> {
        fixed.validate()?;
        if fixed.0.iter().any(crate::Transform::is_random) {
            let reason = "a random transform gives another image in each epoch; only fixed ones can be kept";
            return Err(DataError::InvalidOption { option: "cached transforms", reason: reason.to_string() });
        }
        let kept = (0..dataset.len()).map(|_| OnceLock::new()).collect();
        Ok(Self { dataset, fixed, budget, kept })
    }

    /// Number of images that are kept.
    pub fn num_cached(&self) -> usize {
        self.kept.iter().filter(|image| image.get().is_some()).count()
    }

    fn read(&self, index: usize) -> Result<Sample> {
        let sample = self.dataset.get(index)?;
        // Fixed transforms draw nothing, so that any generator does.
        let changed = self.fixed.apply(sample.image, &mut rng::for_sample(0, 0, index));
        let image =
            changed.map_err(|error| DataError::Sample { name: self.dataset.name(index), source: Box::new(error) })?;
        Ok(Sample { image, label: sample.label })
    }

    fn keep(&self, index: usize, image: &Image) {
        let bytes = image.pixels().len() as u64;
        if let Some(slot) = self.kept.get(index)
            && slot.get().is_none()
            && self.budget.take(bytes)
            && slot.set(image.clone()).is_err()
        {
            // Another thread was faster with the same image.
            self.budget.give_back(bytes);
        }
    }
}

impl Dataset for CachedDataset {
    fn len(&self) -> usize {
        self.dataset.len()
    }

    fn classes(&self) -> &[String] {
        self.dataset.classes()
    }

    fn label(&self, index: usize) -> u32 {
        self.dataset.label(index)
    }

    fn name(&self, index: usize) -> String {
        self.dataset.name(index)
    }

    fn file(&self, index: usize) -> Option<&Path> {
        self.dataset.file(index)
    }

    fn get(&self, index: usize) -> Result<Sample> {
        if let Some(image) = self.kept.get(index).and_then(OnceLock::get) {
            return Ok(Sample { image: image.clone(), label: self.dataset.label(index) });
        }
        let sample = self.read(index)?;
        self.keep(index, &sample.image);
        Ok(sample)
    }
}
