//! Mean and standard deviation of the pixels.

use serde::{Deserialize, Serialize};

use crate::{DataError, Dataset, Result};

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
}

/// Measures the images at `indices` in one pass, one image in memory at a time.
///
/// Sums are kept as integers, so that the result is exact before its one rounding and does not depend on the order.
///
/// # Errors
/// An image cannot be read, or `indices` is empty.
pub fn channel_stats(dataset: &dyn Dataset, indices: &[usize]) -> Result<ChannelStats> {
    let mut sums = [0_u64; 3];
    let mut square_sums = [0_u64; 3];
    let mut num_pixels = 0_u64;
    for &index in indices {
        let image = dataset.get(index)?.image;
        for pixel in image.pixels().chunks_exact(3) {
            for channel in 0..3 {
                let value = u64::from(pixel[channel]);
                sums[channel] += value;
                square_sums[channel] += value * value;
            }
        }
        num_pixels += (image.height() * image.width()) as u64;
    }
    if num_pixels == 0 {
        let reason = "mean and standard deviation need at least one image".to_string();
        return Err(DataError::InvalidOption { option: "indices", reason });
    }
    let mean = sums.map(|sum| (sum as f64 / num_pixels as f64 / 255.0) as f32);
    let std = std::array::from_fn(|channel| {
        // n Σx² - (Σx)² is exact in u128 and never negative (Cauchy–Schwarz).
        let (n, sum) = (u128::from(num_pixels), u128::from(sums[channel]));
        let scaled = n * u128::from(square_sums[channel]) - sum * sum;
        ((scaled as f64).sqrt() / num_pixels as f64 / 255.0) as f32
    });
    Ok(ChannelStats { mean, std })
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
