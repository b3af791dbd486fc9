//! Random crop, flip and normalisation of 32×32 images, on one thread.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use serde_json::json;
use taper_data::{
    ArrayDataset, ChannelStats, Compose, LastBatch, Loader, OnBad, Order, PadMode, Transform, normalise, rng,
};

use crate::timing::{Size, median};
use crate::use_threads;

/// `taper-check loader`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Images in an epoch
    #[arg(long, default_value = "10000")]
    images: NonZeroUsize,
    /// Images in a batch
    #[arg(long, default_value = "128")]
    batch: NonZeroUsize,
    /// Epochs, of which the median counts; one more comes before
    #[arg(long, default_value = "5")]
    reps: NonZeroUsize,
}

/// Prints one line: the seconds of each epoch and the images a second of one core.
///
/// # Errors
/// Images that cannot be made.
pub(crate) fn run(args: &Args, size: Size) -> Result<()> {
    use_threads(1)?;
    let num_images = size.at_most(args.images.get(), 300);
    let loader = loader(num_images, args.batch.get())?;
    let mut epoch_seconds = Vec::new();
    for epoch in 0..=size.at_most(args.reps.get(), 1) {
        let started = Instant::now();
        for batch in loader.epoch(Order::Shuffled { seed: 0, epoch: epoch as u64 }) {
            black_box(normalise(&batch?, &ChannelStats::IMAGENET));
        }
        if epoch > 0 {
            epoch_seconds.push(started.elapsed().as_secs_f64());
        }
    }
    println!(
        "{}",
        json!({
            "kind": "loader",
            "images": num_images,
            "batch": args.batch,
            "threads": 1,
            "epoch_seconds": epoch_seconds,
            "images_per_second": num_images as f64 / median(&epoch_seconds),
        })
    );
    Ok(())
}

/// Noise in memory, cropped and flipped as the CIFAR recipes do, in the caller's thread.
fn loader(num_images: usize, batch_size: usize) -> Result<Loader> {
    const SIDE: usize = 32;
    let mut noise = rng::for_sample(0, 0, 0);
    let pixels = (0..num_images * SIDE * SIDE * 3 / 4).flat_map(|_| noise.next_u32().to_le_bytes()).collect();
    let names = (0..num_images).map(|index| index.to_string()).collect();
    let dataset = ArrayDataset::new([SIDE; 2], pixels, vec![0; num_images], names, vec!["noise".to_owned()])?;
    let crop = Transform::RandomCrop { size: [SIDE; 2], padding: 4, mode: PadMode::Zero };
    let flip = Transform::HorizontalFlip { probability: 0.5 };
    Ok(Loader {
        dataset: Arc::new(dataset),
        indices: (0..num_images).collect(),
        transform: Compose(vec![crop, flip]),
        batch_size,
        workers: 0,
        prefetch: 1,
        last: LastBatch::Keep,
        bad: OnBad::Fail,
        seed: 0,
    })
}
