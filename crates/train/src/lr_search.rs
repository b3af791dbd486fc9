//! A search for a learning rate (Smith 2017, §3.3): raise it from step to step and watch the loss.

use taper_data::Order;

use crate::{Fit, TrainError};

/// How much of the smoothed loss each step keeps of the one before.
const SMOOTHING: f64 = 0.9;
/// The search ends where the smoothed loss is so many times its lowest value.
const EXPLODED: f64 = 4.0;

/// The learning rates that are tried, evenly spaced in their logarithms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LrRange {
    /// Rate of the first step.
    pub from: f64,
    /// Rate of the last step.
    pub to: f64,
    /// Steps, at least 2.
    pub num_steps: u64,
}

/// One step of the search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TriedLr {
    /// The step's rate.
    pub lr: f64,
    /// Smoothed loss before the step, nats.
    pub loss: f64,
}

impl LrRange {
    fn lr(&self, step: u64) -> f64 {
        let share = step as f64 / (self.num_steps - 1) as f64;
        self.from * (self.to / self.from).powf(share)
    }

    /// Finds a range that cannot be.
    ///
    /// # Errors
    /// Names the end that is wrong.
    pub fn validate(&self) -> Result<(), TrainError> {
        let wrong = |key, value, reason| Err(TrainError::Config { key, value, reason });
        match *self {
            Self { from, .. } if !(from.is_finite() && from > 0.0) => wrong("lr-find --from", from, "must be above 0"),
            Self { from, to, .. } if !(to.is_finite() && to > from) => {
                wrong("lr-find --to", to, "must be above the rate it starts from")
            }
            Self { num_steps: ..2, .. } => wrong("lr-find --steps", self.num_steps as f64, "must be at least 2"),
            _ => Ok(()),
        }
    }
}

impl Fit<'_> {
    /// Trains at each rate of `range` for one step, until the loss explodes. The weights are of no use afterwards.
    /// `visit` sees each step as it is done.
    ///
    /// # Errors
    /// A range that cannot be; what a step fails with, divergence excepted, which ends the search.
    pub fn search_lr(&mut self, range: &LrRange, mut visit: impl FnMut(u64)) -> Result<Vec<TriedLr>, TrainError> {
        range.validate()?;
        Self::steps_per_epoch(self.train, self.config)?;
        let (train, seed) = (self.train, self.config.seed);
        let (mut tried, mut smoothed, mut lowest) = (Vec::new(), 0.0, f64::INFINITY);
        let mut epoch = 0;
        let mut batches = train.epoch_from(Order::Shuffled { seed, epoch }, 0);
        let mut batches_left = train.num_batches();
        for step in 0..range.num_steps {
            if batches_left < self.config.accumulate {
                epoch += 1;
                batches = train.epoch_from(Order::Shuffled { seed, epoch }, 0);
                batches_left = train.num_batches();
            }
            batches_left -= self.config.accumulate;
            let lr = range.lr(step);
            let loss = match self.step_at(lr, &mut batches) {
                Ok(sums) => sums.tally.loss(),
                Err(TrainError::Diverged { .. }) => break,
                Err(error) => return Err(error),
            };
            smoothed = SMOOTHING * smoothed + (1.0 - SMOOTHING) * loss;
            // The sum of the weights so far, so that the first values are not too small.
            let corrected = smoothed / (1.0 - SMOOTHING.powi(step as i32 + 1));
            lowest = f64::min(lowest, corrected);
            tried.push(TriedLr { lr, loss: corrected });
            visit(step + 1);
            if corrected > EXPLODED * lowest {
                break;
            }
        }
        Ok(tried)
    }
}

/// The rate at which the loss falls the fastest, as it is usually suggested; `None` if it never falls.
///
/// ```
/// use taper_train::{TriedLr, steepest};
///
/// let losses = [2.3, 2.3, 2.2, 1.8, 1.5, 1.4, 1.5, 9.0];
/// let tried: Vec<_> = losses.iter().zip(0..).map(|(loss, step)| TriedLr { lr: 0.001 * 2f64.powi(step), loss: *loss }).collect();
/// assert_eq!(steepest(&tried), Some(0.008));
/// ```
pub fn steepest(tried: &[TriedLr]) -> Option<f64> {
    /// What share of the search a slope is taken over, so that no single batch decides; at least three steps.
    const WINDOW: usize = 5;
    let width = (tried.len() / WINDOW).max(3);
    let falling = tried.windows(width).map(|window| (slope(window), window[width / 2].lr));
    let falling = falling.filter(|(slope, _)| *slope < 0.0);
    falling.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, lr)| lr)
}

/// How the loss changes with the logarithm of the rate: the least squares' line through the points.
fn slope(points: &[TriedLr]) -> f64 {
    let count = points.len() as f64;
    let mean_lr = points.iter().map(|point| point.lr.ln()).sum::<f64>() / count;
    let mean_loss = points.iter().map(|point| point.loss).sum::<f64>() / count;
    let (mut both, mut square) = (0.0, 0.0);
    for point in points {
        let from_mean = point.lr.ln() - mean_lr;
        both += from_mean * (point.loss - mean_loss);
        square += from_mean * from_mean;
    }
    both / square
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lucky_batch_suggests_nothing() {
        // The second loss is lower by chance; the real fall is at 1e-2.
        let loss = |step: u32| match step {
            0 => 5.6,
            30.. => 5.0 - 0.05 * f64::from(step.min(40) - 30),
            _ => 5.0,
        };
        let lr = |step: u32| 1e-5 * 10f64.powf(f64::from(step) / 10.0);
        let tried: Vec<_> = (0..50).map(|step| TriedLr { lr: lr(step), loss: loss(step) }).collect();
        let suggested = steepest(&tried).unwrap();
        assert!((1e-2..1e-1).contains(&suggested), "{suggested}");
    }

    #[test]
    fn rates_are_evenly_spaced_in_their_logarithms() {
        let range = LrRange { from: 1e-4, to: 1.0, num_steps: 5 };
        for (step, expected) in [(0, 1e-4), (1, 1e-3), (2, 1e-2), (4, 1.0)] {
            assert!((range.lr(step) / expected - 1.0).abs() < 1e-12, "{step}");
        }
        range.validate().unwrap();
        for wrong in [
            LrRange { from: 0.0, ..range },
            LrRange { to: 1e-4, ..range },
            LrRange { to: f64::NAN, ..range },
            LrRange { num_steps: 1, ..range },
        ] {
            assert!(wrong.validate().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_loss_that_only_rises_suggests_nothing() {
        let tried: Vec<_> = (1..9).map(|step| TriedLr { lr: f64::from(step), loss: f64::from(step) }).collect();
        assert_eq!(steepest(&tried), None);
        assert_eq!(steepest(&tried[..1]), None);
    }
}
