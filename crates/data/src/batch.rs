//! Samples of one size, put together.

use crate::{ChannelStats, DataError, Dataset, Image, Result};

/// Images and labels that go through a model together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Bytes of all images, `[n, height, width, 3]`.
    pub images: Vec<u8>,
    /// Class indices, `[n]`.
    pub labels: Vec<u32>,
    /// Index of each image in its data set, `[n]`.
    pub indices: Vec<usize>,
    /// Rows of each image; 0 if there is none.
    pub height: usize,
    /// Columns of each image; 0 if there is none.
    pub width: usize,
    /// Samples that were to be in this batch and could not be read; see [`OnBad::Report`](crate::OnBad::Report).
    pub bad: Vec<BadSample>,
}

/// A sample that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSample {
    /// Index in the data set.
    pub index: usize,
    /// Name in the data set.
    pub name: String,
    /// Why, with all causes, in one line.
    pub reason: String,
}

impl BadSample {
    /// Notes an image of `dataset` that could not be used.
    pub fn new(dataset: &dyn Dataset, index: usize, error: &DataError) -> Self {
        Self { index, name: dataset.name(index), reason: in_one_line(error) }
    }
}

/// An error and its causes, separated by colons.
fn in_one_line(error: &DataError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.replace('\n', " ")
}

impl Batch {
    /// Number of images, `n`.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image: every sample of it was bad.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    pub(crate) fn with_capacity(len: usize) -> Self {
        Self {
            images: Vec::new(),
            labels: Vec::with_capacity(len),
            indices: Vec::with_capacity(len),
            height: 0,
            width: 0,
            bad: Vec::new(),
        }
    }

    /// Appends an image; room for `capacity` of them is made at the first one. `name` is for the error.
    pub(crate) fn push(
        &mut self,
        index: usize,
        label: u32,
        image: &Image,
        capacity: usize,
        name: impl Fn() -> String,
    ) -> Result<()> {
        if self.is_empty() {
            [self.height, self.width] = image.size();
            self.images.reserve_exact(capacity * image.pixels().len());
        }
        let expected = [self.height, self.width];
        if image.size() != expected {
            return Err(DataError::BatchShape { name: name(), expected, found: image.size() });
        }
        self.images.extend_from_slice(image.pixels());
        self.labels.push(label);
        self.indices.push(index);
        Ok(())
    }
}

/// Scales bytes to 0..=1, subtracts the mean and divides by the standard deviation, per channel.
///
/// A channel whose standard deviation is zero is constant; it is only centred.
///
/// # Shapes
/// `batch.images` `[n, height, width, 3]` bytes · returns `[n, height, width, 3]` f32.
pub fn normalise(batch: &Batch, stats: &ChannelStats) -> Vec<f32> {
    /// Bytes that are scaled in one go: whole pixels, whole vectors.
    const RUN: usize = 48;

    let (scale, offset) = stats.scale_and_offset();
    let scales: [f32; RUN] = std::array::from_fn(|at| scale[at % 3]);
    let offsets: [f32; RUN] = std::array::from_fn(|at| offset[at % 3]);
    let mut images = vec![0.0; batch.images.len()];
    for (values, bytes) in images.chunks_mut(RUN).zip(batch.images.chunks(RUN)) {
        for ((value, byte), (scale, offset)) in values.iter_mut().zip(bytes).zip(scales.iter().zip(&offsets)) {
            *value = f32::from(*byte) * scale - offset;
        }
    }
    images
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_standard_scores() {
        let mut batch = Batch::with_capacity(1);
        batch.push(0, 0, &Image::new(1, 2, vec![0, 255, 51, 255, 0, 204]).unwrap(), 1, String::new).unwrap();
        let stats = ChannelStats { mean: [0.5, 0.0, 0.2], std: [0.5, 0.25, 0.0] };
        let expected = [-1.0, 4.0, 0.0, 1.0, 0.0, 0.6];
        for (found, expected) in normalise(&batch, &stats).into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    #[test]
    fn one_size_per_batch() {
        let mut batch = Batch::with_capacity(2);
        batch.push(0, 0, &Image::new(1, 2, vec![0; 6]).unwrap(), 2, || "odd".to_string()).unwrap();
        let error = batch.push(1, 0, &Image::new(2, 1, vec![0; 6]).unwrap(), 2, || "odd".to_string()).unwrap_err();
        assert!(matches!(error, DataError::BatchShape { expected: [1, 2], found: [2, 1], .. }));
    }
}
