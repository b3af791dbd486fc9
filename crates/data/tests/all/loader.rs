//! The loader: one sequence of batches, whoever makes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use taper_data::{
    Batch, Compose, DataError, Dataset, Glyphs, Image, LastBatch, Loader, OnBad, Order, PadMode, Result, Sample,
    Transform,
};

fn loader(dataset: Arc<dyn Dataset>, len: usize, workers: usize) -> Loader {
    Loader {
        dataset,
        indices: (0..len).collect(),
        transform: Compose(vec![
            Transform::RandomCrop { size: [32, 32], padding: 4, mode: PadMode::Reflect },
            Transform::HorizontalFlip { probability: 0.5 },
        ]),
        batch_size: 16,
        workers,
        prefetch: 3,
        last: LastBatch::Keep,
        bad: OnBad::Fail,
        seed: 5,
    }
}

fn batches(loader: &Loader, order: Order) -> Vec<Batch> {
    loader.epoch(order).map(Result::unwrap).collect()
}

const SHUFFLED: Order = Order::Shuffled { seed: 1, epoch: 2 };

#[test]
fn any_number_of_workers_makes_the_same_batches() {
    let glyphs = Arc::new(Glyphs::new());
    for order in [Order::Sequential, SHUFFLED] {
        let expected = batches(&loader(glyphs.clone(), 200, 0), order);
        assert_eq!(expected.len(), 13);
        for workers in [1, 2, 3, 8] {
            for prefetch in [0, 1, 4, 100] {
                let loader = Loader { prefetch, ..loader(glyphs.clone(), 200, workers) };
                assert!(batches(&loader, order) == expected, "{workers} workers, prefetch {prefetch}");
            }
        }
    }
}

#[test]
fn an_epoch_can_begin_in_the_middle() {
    let glyphs = Arc::new(Glyphs::new());
    for workers in [0, 2] {
        let loader = loader(glyphs.clone(), 100, workers);
        let whole = batches(&loader, SHUFFLED);
        for first in [0, 1, 6, 7, 99] {
            let rest: Vec<Batch> = loader.epoch_from(SHUFFLED, first).map(Result::unwrap).collect();
            assert!(rest[..] == whole[first.min(whole.len())..], "{workers} workers from {first}");
        }
    }
}

#[test]
fn an_epoch_sees_every_image_once_and_in_its_own_way() {
    let loader = loader(Arc::new(Glyphs::new()), 100, 2);
    let seen = |order| -> Vec<usize> { batches(&loader, order).into_iter().flat_map(|batch| batch.indices).collect() };
    let all: Vec<usize> = (0..100).collect();
    assert_eq!(seen(Order::Sequential), all);
    let (mut second, third) = (seen(SHUFFLED), seen(Order::Shuffled { seed: 1, epoch: 3 }));
    assert_ne!(second, third);
    second.sort_unstable();
    assert_eq!(second, all);
    let images = |loader: &Loader| batches(loader, Order::Sequential)[0].images.clone();
    assert_ne!(images(&loader), images(&Loader { seed: 6, ..loader.clone() }), "the seed changes the crops");
}

#[test]
fn the_last_batch_is_kept_or_dropped() {
    for (len, last, sizes) in [
        (40, LastBatch::Keep, vec![16, 16, 8]),
        (40, LastBatch::Drop, vec![16, 16]),
        (32, LastBatch::Drop, vec![16, 16]),
        (3, LastBatch::Keep, vec![3]),
        (3, LastBatch::Drop, vec![]),
        (0, LastBatch::Keep, vec![]),
    ] {
        for workers in [0, 2] {
            let loader = Loader { last, ..loader(Arc::new(Glyphs::new()), len, workers) };
            let found: Vec<usize> = batches(&loader, SHUFFLED).iter().map(Batch::len).collect();
            assert_eq!((&found, loader.num_batches()), (&sizes, sizes.len()), "{len} {last:?}");
        }
    }
}

/// What a [`Faulty`] set does at some index.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Error,
    Panic,
    OddSize,
}

/// A set that counts its reads and misbehaves at one index.
#[derive(Debug)]
struct Faulty {
    at: usize,
    fault: Fault,
    num_reads: AtomicUsize,
    pause: Duration,
    classes: Vec<String>,
}

impl Faulty {
    fn new(at: usize, fault: Fault) -> Arc<Self> {
        let classes = vec!["only".to_string()];
        Arc::new(Self { at, fault, num_reads: AtomicUsize::new(0), pause: Duration::ZERO, classes })
    }
}

impl Dataset for Faulty {
    fn len(&self) -> usize {
        1000
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, _: usize) -> u32 {
        0
    }

    fn name(&self, index: usize) -> String {
        format!("image-{index}")
    }

    fn get(&self, index: usize) -> Result<Sample> {
        self.num_reads.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(self.pause);
        let size = match (index == self.at, self.fault) {
            (true, Fault::Error) => return Err(DataError::IndexOutOfRange { index, len: 0 }),
            (true, Fault::Panic) => panic!("the decoder broke"),
            (true, Fault::OddSize) => 33,
            (false, _) => 32,
        };
        Ok(Sample { image: Image::new(size, 32, vec![0; size * 96])?, label: 0 })
    }
}

fn plain(dataset: Arc<Faulty>, workers: usize) -> Loader {
    Loader { transform: Compose(vec![]), ..loader(dataset, 1000, workers) }
}

#[test]
fn errors_and_panics_arrive_in_their_place_and_end_the_epoch() {
    for (fault, expected) in
        [(Fault::Error, "sample 40"), (Fault::Panic, "the decoder broke"), (Fault::OddSize, "image-40 is 33x32")]
    {
        for workers in [0, 1, 3] {
            if workers == 0 && matches!(fault, Fault::Panic) {
                continue; // In the caller's thread a panic is the caller's.
            }
            let mut epoch = plain(Faulty::new(40, fault), workers).epoch(Order::Sequential);
            // Index 40 lies in the third batch; those before it are whole.
            for _ in 0..2 {
                assert_eq!(epoch.next().unwrap().unwrap().len(), 16);
            }
            let message = epoch.next().unwrap().unwrap_err().to_string();
            assert!(message.contains(expected), "{fault:?} {workers}: {message}");
            assert!(epoch.next().is_none() && epoch.next().is_none());
        }
    }
}

#[test]
fn a_transform_that_does_not_work_names_the_image() {
    let crop = Transform::CenterCrop { size: [40, 40] };
    let loader = Loader { transform: Compose(vec![crop]), ..plain(Faulty::new(9999, Fault::Error), 0) };
    let error = loader.epoch(Order::Sequential).next().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "cannot use image image-0");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("40x40 does not fit"), "{cause}");
    let loader = Loader { bad: OnBad::Report, ..loader };
    let batch = &batches(&loader, Order::Sequential)[0];
    assert_eq!((batch.len(), batch.bad.len()), (0, 16));
    assert!(batch.bad[0].reason.contains("image-0: cannot crop"), "{}", batch.bad[0].reason);
}

#[test]
fn bad_samples_are_reported_and_never_replaced() {
    for workers in [0, 3] {
        let loader = Loader { bad: OnBad::Report, ..plain(Faulty::new(40, Fault::Error), workers) };
        let all = batches(&loader, Order::Sequential);
        let (good, bad): (usize, usize) =
            all.iter().fold((0, 0), |sums, batch| (sums.0 + batch.len(), sums.1 + batch.bad.len()));
        assert_eq!((good, bad), (999, 1));
        let batch = &all[2];
        assert_eq!((batch.len(), batch.images.len()), (15, 15 * 32 * 32 * 3));
        assert!(!batch.indices.contains(&40));
        assert_eq!((batch.bad[0].index, batch.bad[0].name.as_str()), (40, "image-40"));
        assert!(batch.bad[0].reason.contains("sample 40"));
    }
    let alone = Loader { indices: [40].into(), bad: OnBad::Report, ..plain(Faulty::new(40, Fault::Error), 0) };
    let batch = &batches(&alone, Order::Sequential)[0];
    assert!(batch.is_empty() && batch.images.is_empty() && batch.bad.len() == 1);
}

#[test]
fn dropping_an_epoch_stops_its_workers() {
    for taken in [0, 1, 5] {
        let dataset = Arc::new(Faulty {
            pause: Duration::from_millis(1),
            ..Arc::into_inner(Faulty::new(9999, Fault::Error)).unwrap()
        });
        let mut epoch = plain(dataset.clone(), 3).epoch(Order::Sequential);
        for _ in 0..taken {
            epoch.next().unwrap().unwrap();
        }
        let start = Instant::now();
        drop(epoch);
        assert!(start.elapsed() < Duration::from_secs(5));
        // All threads are gone: nobody else holds the set, and nobody reads any more.
        assert_eq!(Arc::strong_count(&dataset), 1);
    }
}

#[test]
fn no_more_than_the_window_is_made_ahead() {
    let dataset = Faulty::new(9999, Fault::Error);
    let loader = Loader { prefetch: 2, ..plain(dataset.clone(), 8) };
    let mut epoch = loader.epoch(Order::Sequential);
    epoch.next().unwrap().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    // One batch taken, two ahead.
    assert_eq!(dataset.num_reads.load(Ordering::SeqCst), 3 * 16);
}

#[test]
fn wrong_settings_are_the_first_item() {
    let good = loader(Arc::new(Glyphs::new()), 10, 2);
    let flip = Transform::HorizontalFlip { probability: 2.0 };
    for (loader, expected) in [
        (Loader { batch_size: 0, ..good.clone() }, "batch size"),
        (Loader { indices: [99_999].into(), ..good.clone() }, "99999"),
        (Loader { transform: Compose(vec![flip]), ..good.clone() }, "flip probability"),
    ] {
        let mut epoch = loader.epoch(Order::Sequential);
        let message = epoch.next().unwrap().unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(epoch.next().is_none());
    }
}
