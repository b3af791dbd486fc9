use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::error::KernelError;
use crate::reduce::{Lanes, sum_rows};
use crate::storage::{option_error, require_f32, require_shape, tensor, view};
use crate::update::ema_step;

/// Mean and variance of one batch, without history.
#[derive(Debug, Clone)]
pub struct BatchStatistics {
    /// Mean per channel, `[c]`.
    pub mean: Tensor,
    /// Biased variance per channel (divided by `count`), `[c]`.
    pub variance: Tensor,
    /// Values per channel.
    pub count: usize,
}

/// Running statistics, which a training pass moves towards those of its batch, in place:
/// `running = (1 − momentum) · running + momentum · batch`, with the unbiased variance, as PyTorch does.
#[derive(Debug, Clone, Copy)]
pub struct Running<'a> {
    /// Mean per channel, `[c]` f32.
    pub mean: &'a Tensor,
    /// Variance per channel, `[c]` f32.
    pub variance: &'a Tensor,
    /// Weight of the batch, `0.0..=1.0`.
    pub momentum: f64,
}

impl Running<'_> {
    pub(super) fn check(&self, op: &'static str, channels: usize) -> Result<()> {
        if !(0.0..=1.0).contains(&self.momentum) {
            return Err(option_error(op, "momentum", self.momentum, "0.0..=1.0"));
        }
        for (argument, running) in [("running_mean", self.mean), ("running_variance", self.variance)] {
            require_f32(op, argument, running)?;
            require_shape(op, argument, running, &[channels], "one value per channel of x")?;
        }
        Ok(())
    }

    /// Moves them, on the CPU.
    pub(super) fn follow(&self, batch: &BatchStatistics) -> Result<()> {
        let unbiased = batch.count as f64 / (batch.count as f64 - 1.0);
        ema_step(self.mean, &batch.mean, 1.0 - self.momentum)?;
        ema_step(self.variance, &batch.variance.affine(unbiased, 0.0)?, 1.0 - self.momentum)
    }
}

/// Count, mean and summed squared deviation per channel, in f64.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    pub(super) count: usize,
    pub(super) mean: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    /// Moments of the batch: two passes over chunks that stay in the cache, chunks merged in order
    /// (Chan, Golub and LeVeque 1979), so that a large mean costs no digits of the variance.
    pub(super) fn of(op: &'static str, x: &Tensor, channels: usize) -> Result<Self> {
        let values = view(op, "x", x)?;
        let lanes = Lanes::new(channels);
        let parts: Vec<Self> = values.par_chunks(lanes.chunk()).map(|pixels| Self::of_chunk(pixels, lanes)).collect();
        let empty = Self { count: 0, mean: vec![0.0; channels], squares: vec![0.0; channels] };
        Ok(parts.iter().fold(empty, Self::merge))
    }

    fn of_chunk(pixels: &[f32], lanes: Lanes) -> Self {
        let count = pixels.len() / lanes.channels();
        let total = count as f64;
        // Any value near the mean serves as the shift; the first pixel's does.
        let first = lanes.repeat(&pixels[..lanes.channels()]);
        let sums = sum_rows(pixels, lanes, &first, |value, shift| value - shift);
        let mean = sums.iter().zip(&first).map(|(sum, &first)| f64::from(first) + sum / total);
        let mean: Vec<f64> = mean.collect();
        let rounded: Vec<f32> = mean.iter().map(|&mean| mean as f32).collect();
        let square = |value: f32, mean: f32| (value - mean) * (value - mean);
        let mut squares = sum_rows(pixels, lanes, &lanes.repeat(&rounded), square);
        for (channel, square) in squares.iter_mut().enumerate() {
            // The squares were taken about the rounded mean, not about the mean.
            let shift = mean[channel] - f64::from(rounded[channel]);
            *square -= total * shift * shift;
        }
        Self { count, mean, squares }
    }

    fn merge(mut self, other: &Self) -> Self {
        let (own, new) = (self.count as f64, other.count as f64);
        let total = own + new;
        for channel in 0..self.mean.len() {
            let delta = other.mean[channel] - self.mean[channel];
            self.mean[channel] += delta * new / total;
            self.squares[channel] += other.squares[channel] + delta * delta * own * new / total;
        }
        self.count += other.count;
        self
    }

    /// Takes running statistics in place of a batch's.
    pub(super) fn stored(op: &'static str, mean: &Tensor, variance: &Tensor) -> Result<Self> {
        let (mean, variance) = (mean.contiguous()?, variance.contiguous()?);
        let widen = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect();
        let variance = view(op, "running_variance", &variance)?;
        let mean = widen(&view(op, "running_mean", &mean)?);
        Ok(Self { count: 1, mean, squares: widen(&variance) })
    }

    /// Biased variance of one channel.
    pub(super) fn variance(&self, channel: usize) -> f64 {
        let squares = self.squares[channel];
        // Rounding can leave a little less than nothing; a NaN must stay one.
        if squares < 0.0 { 0.0 } else { squares / self.count as f64 }
    }

    pub(super) fn to_statistics(&self) -> Result<BatchStatistics> {
        let channels = self.mean.len();
        if self.count < 2 {
            return Err(KernelError::SingleValue { found: channels.into() }.into());
        }
        let mean = self.mean.iter().map(|&mean| mean as f32).collect();
        let variance = (0..channels).map(|channel| self.variance(channel) as f32).collect();
        Ok(BatchStatistics { mean: tensor(mean, channels)?, variance: tensor(variance, channels)?, count: self.count })
    }
}
