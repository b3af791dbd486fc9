//! The learning rate as a pure function of the step.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::OptimError;
use crate::config::{fraction, non_negative, positive};

/// How the learning rate changes over a run, by name. `warmup` is the share of all steps over which it first rises
/// linearly from near 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum ScheduleConfig {
    /// The same throughout.
    Constant {
        /// Share of all steps, 0..1.
        #[serde(default)]
        warmup: f64,
    },
    /// Multiplied by `gamma` every `every_epochs` (PyTorch's `StepLR`).
    Step {
        /// Share of all steps, 0..1.
        #[serde(default)]
        warmup: f64,
        /// Epochs between two drops.
        every_epochs: usize,
        /// Factor of a drop.
        gamma: f64,
    },
    /// Half a cosine from the peak to `final_fraction` of it (Loshchilov and Hutter 2017, without restarts).
    Cosine {
        /// Share of all steps, 0..1.
        #[serde(default)]
        warmup: f64,
        /// Where it ends, as a share of the peak.
        #[serde(default)]
        final_fraction: f64,
    },
    /// Up to the peak and down again, both along cosines (Smith and Topin 2018, in PyTorch's `OneCycleLR` form).
    OneCycle {
        /// Share of all steps at which the peak stands.
        peak: f64,
        /// Peak divided by the first rate.
        initial_divisor: f64,
        /// First rate divided by the last.
        final_divisor: f64,
    },
}

impl ScheduleConfig {
    /// The names that `name` may have.
    pub const NAMES: [&str; 4] = ["constant", "step", "cosine", "one-cycle"];

    /// The schedule of that name with the defaults of its source: `StepLR` 30 epochs, 0.1 (He et al. 2016);
    /// `OneCycleLR` 0.3, 25, 1e4 (PyTorch).
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "constant" => Self::Constant { warmup: 0.0 },
            "step" => Self::Step { warmup: 0.0, every_epochs: 30, gamma: 0.1 },
            "cosine" => Self::Cosine { warmup: 0.0, final_fraction: 0.0 },
            "one-cycle" => Self::OneCycle { peak: 0.3, initial_divisor: 25.0, final_divisor: 1e4 },
            _ => return None,
        })
    }

    /// Finds a value that cannot be.
    ///
    /// # Errors
    /// Names the key and what would do.
    pub fn validate(&self) -> Result<(), OptimError> {
        fraction("schedule.warmup", self.warmup())?;
        match *self {
            Self::Constant { .. } => Ok(()),
            Self::Step { every_epochs, gamma, .. } => {
                positive("schedule.every_epochs", every_epochs as f64)?;
                positive("schedule.gamma", gamma)
            }
            Self::Cosine { final_fraction, .. } => non_negative("schedule.final_fraction", final_fraction),
            Self::OneCycle { peak, initial_divisor, final_divisor } => {
                fraction("schedule.peak", peak)?;
                positive("schedule.initial_divisor", initial_divisor)?;
                positive("schedule.final_divisor", final_divisor)
            }
        }
    }

    fn warmup(&self) -> f64 {
        match *self {
            Self::Constant { warmup } | Self::Step { warmup, .. } | Self::Cosine { warmup, .. } => warmup,
            Self::OneCycle { .. } => 0.0,
        }
    }
}

/// A [`ScheduleConfig`] over a known number of steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    config: ScheduleConfig,
    base_lr: f64,
    num_steps: u64,
    steps_per_epoch: u64,
}

impl Schedule {
    /// A schedule over `num_steps` steps of which each epoch has `steps_per_epoch`, with its peak at `base_lr`.
    ///
    /// # Errors
    /// A configuration that [`ScheduleConfig::validate`] refuses.
    pub fn new(config: ScheduleConfig, base_lr: f64, num_steps: u64, steps_per_epoch: u64) -> Result<Self, OptimError> {
        config.validate()?;
        Ok(Self { config, base_lr, num_steps: num_steps.max(1), steps_per_epoch: steps_per_epoch.max(1) })
    }

    /// The learning rate of `step`, counted from 0. Steps behind the end have the last one's.
    ///
    /// ```
    /// use taper_optim::{Schedule, ScheduleConfig};
    /// let cosine = ScheduleConfig::Cosine { warmup: 0.1, final_fraction: 0.0 };
    /// let schedule = Schedule::new(cosine, 0.4, 100, 10)?;
    /// assert_eq!(schedule.lr(9), 0.4);
    /// assert!(schedule.lr(99) < 1e-3);
    /// # Ok::<(), taper_optim::OptimError>(())
    /// ```
    pub fn lr(&self, step: u64) -> f64 {
        let step = step.min(self.num_steps - 1);
        let num_warmup = (self.config.warmup() * self.num_steps as f64).round() as u64;
        if step < num_warmup {
            return self.base_lr * (step + 1) as f64 / num_warmup as f64;
        }
        let (past, rest) = ((step - num_warmup) as f64, (self.num_steps - num_warmup).max(1) as f64);
        match self.config {
            ScheduleConfig::Constant { .. } => self.base_lr,
            ScheduleConfig::Step { every_epochs, gamma, .. } => {
                let drops = step / self.steps_per_epoch / every_epochs as u64;
                self.base_lr * gamma.powf(drops as f64)
            }
            ScheduleConfig::Cosine { final_fraction, .. } => {
                half_cosine(self.base_lr, self.base_lr * final_fraction, past / rest)
            }
            ScheduleConfig::OneCycle { peak, initial_divisor, final_divisor } => {
                self.one_cycle(step, peak, initial_divisor, final_divisor)
            }
        }
    }

    fn one_cycle(&self, step: u64, peak: f64, initial_divisor: f64, final_divisor: f64) -> f64 {
        let first = self.base_lr / initial_divisor;
        let last = first / final_divisor;
        // As PyTorch counts: the peak is at `peak · n - 1`, the end at `n - 1`.
        let (at, end) = (step as f64, (self.num_steps - 1) as f64);
        let top = (peak * self.num_steps as f64 - 1.0).max(0.0);
        if at <= top && top > 0.0 {
            half_cosine(first, self.base_lr, at / top)
        } else {
            half_cosine(self.base_lr, last, (at - top) / (end - top).max(1.0))
        }
    }
}

/// From `from` at progress 0 to `to` at progress 1 along half a cosine.
fn half_cosine(from: f64, to: f64, progress: f64) -> f64 {
    to + (from - to) * 0.5 * (1.0 + (PI * progress).cos())
}
