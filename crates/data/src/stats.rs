//! Mean and standard deviation of the pixels.

use serde::{Deserialize, Serialize};

use crate::survey::measure;
use crate::{Compose, DataError, Dataset, Image, Result};

/// Bytes whose sums of squares fit 32 bits: 2¹⁴ pixels of at most 255².
const RUN_BYTES: usize = 3 << 14;

/// Mean and population standard deviation per channel (red, green, blue) of pixels scaled to 0..=1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelStats {
    /// Means.
    pub mean: [f32; 3],
    /// Population standard deviations.
    pub std: [f32; 3],
}

impl ChannelStats {
    /// Those of ImageNet's training images, which most pretrained weights expect.
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

    /// What takes a byte to a standard score, `byte · scale − offset`; a channel without deviation is only shifted.
    pub fn scale_and_offset(&self) -> ([f32; 3], [f32; 3]) {
        let std = self.std.map(|std| if std == 0.0 { 1.0 } else { std });
        let channels = [0, 1, 2];
        (
            channels.map(|channel| 1.0 / (255.0 * std[channel])),
            channels.map(|channel| self.mean[channel] / std[channel]),
        )
    }
}

/// Measures the images at `indices` in one pass, in parallel on rayon's threads.
///
/// Sums are kept as integers, so that the result is exact before its one rounding and does not depend on the order.
///
/// # Errors
/// An image cannot be read (the first of them is named), or `indices` is empty.
pub fn channel_stats(dataset: &dyn Dataset, indices: &[usize]) -> Result<ChannelStats> {
    let measured = measure(dataset, indices, &Compose::default());
    if let Some((_, error)) = measured.bad.into_iter().next() {
        return Err(error);
    }
    measured.sums.stats().ok_or_else(|| {
        let reason = "mean and standard deviation need at least one image".to_string();
        DataError::InvalidOption { option: "indices", reason }
    })
}

/// Sums over pixels, per channel.
#[derive(Debug, Default)]
pub(crate) struct PixelSums {
    num_pixels: u64,
    sums: [u64; 3],
    square_sums: [u64; 3],
}

impl PixelSums {
    pub(crate) fn add(&mut self, image: &Image) {
        // Sums of 32 bits vectorise better.
        for run in image.pixels().chunks(RUN_BYTES) {
            let (mut sums, mut square_sums) = ([0_u32; 3], [0_u32; 3]);
            for pixel in run.as_chunks::<3>().0 {
                for channel in 0..3 {
                    let value = u32::from(pixel[channel]);
                    sums[channel] += value;
                    square_sums[channel] += value * value;
                }
            }
            for channel in 0..3 {
                self.sums[channel] += u64::from(sums[channel]);
                self.square_sums[channel] += u64::from(square_sums[channel]);
            }
        }
        self.num_pixels += (image.height() * image.width()) as u64;
    }

    pub(crate) fn join(&mut self, other: &Self) {
        self.num_pixels += other.num_pixels;
        for channel in 0..3 {
            self.sums[channel] += other.sums[channel];
            self.square_sums[channel] += other.square_sums[channel];
        }
    }

    /// `None` without a pixel.
    pub(crate) fn stats(&self) -> Option<ChannelStats> {
        if self.num_pixels == 0 {
            return None;
        }
        let num_pixels = self.num_pixels;
        let mean = self.sums.map(|sum| (sum as f64 / num_pixels as f64 / 255.0) as f32);
        let std = std::array::from_fn(|channel| {
            // n Σx² - (Σx)² is exact in u128 and never negative (Cauchy–Schwarz).
            let (n, sum) = (u128::from(num_pixels), u128::from(self.sums[channel]));
            let scaled = n * u128::from(self.square_sums[channel]) - sum * sum;
            ((scaled as f64).sqrt() / num_pixels as f64 / 255.0) as f32
        });
        Some(ChannelStats { mean, std })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ArrayDataset;

    #[test]
    fn known_pixels_give_known_figures() {
        let pixels = vec![0, 255, 51, 255, 255, 51];
        let names = vec!["a".to_string(), "b".to_string()];
        let set = ArrayDataset::new([1, 1], pixels, vec![0, 0], names, vec!["one".to_string()]).unwrap();
        let stats = channel_stats(&set, &[0, 1]).unwrap();
        assert_eq!(stats, ChannelStats { mean: [0.5, 1.0, 0.2], std: [0.5, 0.0, 0.0] });
        assert!(channel_stats(&set, &[]).is_err());
        assert!(channel_stats(&set, &[2]).is_err());
    }
}
