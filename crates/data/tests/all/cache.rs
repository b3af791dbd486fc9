//! What is kept, what it costs, and that nobody can tell.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use taper_data::{
    CacheBudget, CachedDataset, Compose, DataError, Dataset, Glyphs, Interpolation, LastBatch, Loader, OnBad, Order,
    PadMode, Result, Sample, Transform, survey,
};

/// Counts how often images are read.
#[derive(Debug)]
struct Counted {
    inner: Glyphs,
    num_reads: AtomicUsize,
}

impl Dataset for Counted {
    fn len(&self) -> usize {
        64
    }

    fn classes(&self) -> &[String] {
        self.inner.classes()
    }

    fn label(&self, index: usize) -> u32 {
        self.inner.label(index)
    }

    fn name(&self, index: usize) -> String {
        self.inner.name(index)
    }

    fn get(&self, index: usize) -> Result<Sample> {
        self.num_reads.fetch_add(1, Ordering::Relaxed);
        if index >= 63 {
            return Err(DataError::IndexOutOfRange { index, len: 63 });
        }
        self.inner.get(index)
    }
}

fn counted() -> Arc<Counted> {
    Arc::new(Counted { inner: Glyphs::new(), num_reads: AtomicUsize::new(0) })
}

fn pipeline() -> Compose {
    Compose(vec![
        Transform::ResizeExact { size: [128, 128], interpolation: Interpolation::Bilinear },
        Transform::RandomCrop { size: [128, 128], padding: 4, mode: PadMode::Zero },
        Transform::ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 },
        Transform::HorizontalFlip { probability: 0.5 },
    ])
}

/// All batches of two epochs.
fn epochs(dataset: Arc<dyn Dataset>, transform: Compose, workers: usize) -> Vec<(Vec<u8>, Vec<usize>)> {
    let loader = Loader {
        dataset,
        indices: (0..63).collect(),
        transform,
        batch_size: 10,
        workers,
        prefetch: 4,
        last: LastBatch::Keep,
        bad: OnBad::Fail,
        seed: 5,
    };
    let epoch = |epoch| loader.epoch(Order::Shuffled { seed: 5, epoch });
    (0..2).flat_map(epoch).map(|batch| batch.unwrap()).map(|batch| (batch.images, batch.indices)).collect()
}

#[test]
fn no_limit_and_no_number_of_threads_changes_a_pixel() {
    let expected = epochs(counted(), pipeline(), 0);
    let (fixed, rest) = pipeline().split_fixed();
    assert_eq!((fixed.0.len(), rest.0.len()), (1, 3));
    // An image takes 48 KiB, so that 1 MiB holds 21 of them and 8 MiB all.
    for (mebibytes, workers, num_cached, num_reads) in
        [(0, 2, 0, 126), (1, 0, 21, 63 + 42), (1, 3, 21, 63 + 42), (8, 3, 63, 63)]
    {
        let source = counted();
        let budget = CacheBudget::mebibytes(mebibytes);
        let cached = Arc::new(CachedDataset::new(source.clone(), fixed.clone(), budget.clone()).unwrap());
        assert_eq!(epochs(cached.clone(), rest.clone(), workers), expected, "{mebibytes} MiB, {workers} workers");
        assert_eq!((cached.num_cached(), source.num_reads.load(Ordering::Relaxed)), (num_cached, num_reads));
        assert_eq!(budget.bytes_left(), (mebibytes << 20) - num_cached as u64 * 128 * 128 * 3);
    }
}

#[test]
fn a_survey_fills_the_cache_and_errors_are_not_kept() {
    let source = counted();
    let (fixed, _) = pipeline().split_fixed();
    let cached = CachedDataset::new(source.clone(), fixed.clone(), CacheBudget::mebibytes(8)).unwrap();
    let all: Vec<usize> = (0..64).collect();
    let found = survey(&cached, &all, &Compose::default()).unwrap();
    assert_eq!((found.usable, found.bad.len(), found.max_size), ((0..63).collect(), 1, [128, 128]));
    assert_eq!((cached.num_cached(), source.num_reads.load(Ordering::Relaxed)), (63, 64));
    assert!(cached.get(63).is_err() && cached.get(64).is_err());
    assert_eq!((cached.len(), cached.label(3), cached.name(3)), (64, source.label(3), source.name(3)));
    // The same figures without a cache, whose transforms are then the survey's.
    assert_eq!(survey(&*source, &all, &fixed).unwrap().stats, found.stats);
}

#[test]
fn random_transforms_are_refused() {
    let error = CachedDataset::new(counted(), pipeline(), CacheBudget::mebibytes(1)).unwrap_err();
    assert!(error.to_string().contains("random"), "{error}");
    assert!(survey(&Glyphs::new(), &[0], &pipeline()).unwrap_err().to_string().contains("fixed"));
}
