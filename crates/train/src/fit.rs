//! The loop.

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::Tensor;
use candle_nn::{ModuleT, VarMap};
use taper_data::Order;
use taper_metrics::{EpochRecord, Kept, RecordSink, StepRecord, Tally, Throughput};
use taper_optim::{Ema, GradientNorm, Gradients, Optimizer, Schedule};

use crate::checkpoint::remove_old;
use crate::divergence::{norms, number_or_word};
use crate::gpu_plans;
use crate::progress::Standing;
use crate::run_folder::not_finite_in;
use crate::source::Batches;
use crate::step::{Pass, PassResult, Seen, forward_backward};
use crate::weights::{all_tensors, first_not_finite};
use crate::{
    Checkpoint, DivergedBatch, Divergence, Evaluation, FitConfig, Occasion, OnNonfinite, Progress, RunFolder, Source,
    TrainError, evaluate,
};

/// A run: a model, its data, its optimizer and where it stands. [`Fit::run`] trains it.
pub struct Fit<'a> {
    /// What `train` and `val` yield in, logits `[n, classes]` out: a whole network for images, its head for features.
    pub model: &'a dyn ModuleT,
    /// All variables of the network, running statistics and frozen ones included: what is saved.
    pub vars: &'a VarMap,
    /// Training batches.
    pub train: &'a dyn Source,
    /// Validation batches.
    pub val: &'a dyn Source,
    /// Moves the parameters.
    pub optimizer: Optimizer,
    /// Learning rate by step.
    pub schedule: Schedule,
    /// Averaged weights; where there are any, they are evaluated and kept as the best.
    pub ema: Option<Ema>,
    /// The loop's settings.
    pub config: &'a FitConfig,
    /// Where weights and checkpoints go.
    pub folder: &'a RunFolder,
    /// Where records go.
    pub sink: &'a mut dyn RecordSink,
    /// Asked after each step and before each batch of an evaluation; `true` ends the run with a checkpoint.
    pub stop: &'a dyn Fn() -> bool,
    /// Where the run stands; the default at its start, a checkpoint's after [`Fit::restore`].
    pub progress: Progress,
}

/// How [`Fit::run`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs or steps are done, or patience ran out.
    Complete,
    /// `stop` asked for it; a checkpoint of this step is written.
    Stopped,
}

/// What a rollback multiplies the learning rate with.
const ROLLBACK_LR_FACTOR: f64 = 0.1;

/// Why an epoch, or its training, ended.
enum EpochEnd {
    /// All of it is done.
    Done,
    /// `stop` asked for it; a checkpoint is written.
    Stopped,
}

impl Fit<'_> {
    /// Steps of one epoch. A last group of batches that is not full makes no step.
    ///
    /// # Errors
    /// [`TrainError::NoFullBatch`] if there is not one.
    pub fn steps_per_epoch(train: &dyn Source, config: &FitConfig) -> Result<u64, TrainError> {
        match train.num_batches() / config.accumulate.max(1) {
            0 => Err(TrainError::NoFullBatch {
                num_images: train.num_images(),
                step_images: train.batch_size() * config.accumulate,
            }),
            steps => Ok(steps as u64),
        }
    }

    /// Steps of a whole run.
    ///
    /// # Errors
    /// As [`Fit::steps_per_epoch`].
    pub fn num_steps(train: &dyn Source, config: &FitConfig) -> Result<u64, TrainError> {
        let by_epochs = Self::steps_per_epoch(train, config)? * config.epochs as u64;
        Ok(config.max_steps.map_or(by_epochs, |max_steps| max_steps.min(by_epochs)))
    }

    /// Goes back to a checkpoint: weights, optimizer, averaged weights, position and records.
    ///
    /// # Errors
    /// A checkpoint of another model or another optimizer.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        checkpoint.model.restore(self.vars, &checkpoint.folder)?;
        let part = |prefix: &str| -> BTreeMap<String, Tensor> {
            let strip =
                |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone()));
            checkpoint.state.iter().filter_map(strip).collect()
        };
        self.progress = checkpoint.progress.clone();
        gpu_plans::add_gpu_plans(&self.progress.gpu_plans);
        self.optimizer.restore(&part("optim."), self.progress.step)?;
        if let Some(ema) = &mut self.ema {
            ema.restore(&part("ema."), self.progress.step)?;
        }
        let kept = Kept { steps: self.progress.step, epochs: self.progress.epoch };
        self.sink.rewind(kept).map_err(TrainError::Sink)
    }

    /// Forgets all records: a run that was interrupted before its first checkpoint starts again.
    ///
    /// # Errors
    /// Record files that cannot be shortened.
    pub fn rewind_records(&mut self) -> Result<(), TrainError> {
        self.sink.rewind(Kept::default()).map_err(TrainError::Sink)
    }

    /// Trains until the epochs or steps are done, patience runs out, or `stop` says so.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] within the step whose loss or gradients are no numbers; unreadable images; a full disk.
    pub fn run(&mut self) -> Result<Outcome, TrainError> {
        let num_steps = Self::num_steps(self.train, self.config)?;
        let mut clock = Clock { since: Instant::now(), last_checkpoint: Instant::now() };
        if self.progress.step == 0 && self.config.on_nonfinite == OnNonfinite::Rollback {
            // There must be something to go back to.
            self.checkpoint(Occasion::Planned, &mut clock)?;
        }
        while !self.progress.is_complete {
            match self.run_epoch(num_steps, &mut clock) {
                Ok(EpochEnd::Done) => {}
                Ok(EpochEnd::Stopped) => return Ok(Outcome::Stopped),
                Err(TrainError::Diverged { found, .. }) => self.roll_back(found)?,
                Err(error) => return Err(error),
            }
        }
        // Once more, since the last one may have been cut short.
        remove_old(&*self.folder.disk, &self.folder.checkpoints(), self.config.checkpoint.keep_last)?;
        self.folder.write_weights("last.safetensors", self.vars)?;
        Ok(Outcome::Complete)
    }

    /// The rest of an epoch, and what comes at its end.
    fn run_epoch(&mut self, num_steps: u64, clock: &mut Clock) -> Result<EpochEnd, TrainError> {
        if let EpochEnd::Stopped = self.train_epoch(num_steps, clock)? {
            return Ok(EpochEnd::Stopped);
        }
        if let EpochEnd::Stopped = self.finish_epoch(num_steps, clock)? {
            return Ok(EpochEnd::Stopped);
        }
        let stopped = (self.stop)() && !self.progress.is_complete;
        Ok(if stopped { EpochEnd::Stopped } else { EpochEnd::Done })
    }

    /// Writes down how the run diverged; goes back to the newest checkpoint if it may.
    fn roll_back(&mut self, found: Box<Divergence>) -> Result<(), TrainError> {
        let dump = self.folder.write_divergence(&found)?;
        let num_rollbacks = self.progress.num_rollbacks;
        if num_rollbacks >= self.config.on_nonfinite.max_rollbacks() {
            return Err(TrainError::Diverged { found, dump: Some(dump) });
        }
        let Some(checkpoint) = Checkpoint::latest_planned(&self.folder.checkpoints())? else {
            return Err(TrainError::Diverged { found, dump: Some(dump) });
        };
        self.restore(&checkpoint)?;
        self.progress.num_rollbacks = num_rollbacks + 1;
        let (step, factor) = (self.progress.step, ROLLBACK_LR_FACTOR);
        tracing::warn!("{found}; going back to step {step}, on with {factor} of the learning rate (once)");
        Ok(())
    }

    /// Does the first step of the first epoch and writes nothing; for a look at what a step takes. Says how many images
    /// it took.
    ///
    /// # Errors
    /// As [`Fit::run`].
    pub fn probe(&mut self) -> Result<usize, TrainError> {
        Self::steps_per_epoch(self.train, self.config)?;
        let order = Order::Shuffled { seed: self.config.seed, epoch: 0 };
        let train = self.train;
        Ok(self.step(&mut train.epoch_from(order, 0))?.tally.num_images as usize)
    }

    fn train_epoch(&mut self, num_steps: u64, clock: &mut Clock) -> Result<EpochEnd, TrainError> {
        let order = Order::Shuffled { seed: self.config.seed, epoch: self.progress.epoch as u64 };
        let steps_per_epoch = Self::steps_per_epoch(self.train, self.config)?;
        let epoch_end = num_steps.min((self.progress.epoch as u64 + 1) * steps_per_epoch);
        let train = self.train;
        let mut batches = train.epoch_from(order, self.progress.batch_in_epoch);
        // Until the epoch ends, steps alone change the weights.
        let _packed = taper_kernels::keep_packed_weights();
        while self.progress.step < epoch_end {
            let started = Instant::now();
            tracing::trace!(step = self.progress.step, "step begins");
            let step = self.step(&mut batches)?;
            self.note_step(&step, started);
            if self.progress.step.is_multiple_of(self.config.log_every_steps) {
                self.log_step(&step, clock)?;
            }
            // The end of an epoch has a checkpoint of its own, after the evaluation.
            if self.progress.step < epoch_end {
                let stopped = (self.stop)();
                if self.is_checkpoint_planned() {
                    self.checkpoint(Occasion::Planned, clock)?;
                } else if stopped || self.is_checkpoint_late(clock) {
                    self.checkpoint(Occasion::Unplanned, clock)?;
                }
                if stopped {
                    return Ok(EpochEnd::Stopped);
                }
            }
        }
        Ok(EpochEnd::Done)
    }

    /// Forward, loss, backward, clip, step, on the next batches.
    fn step(&mut self, batches: &mut Batches<'_>) -> Result<StepSums, TrainError> {
        self.step_at(self.lr(self.progress.step), batches)
    }

    /// As [`Fit::step`], at this learning rate.
    pub(crate) fn step_at(&mut self, lr: f64, batches: &mut Batches<'_>) -> Result<StepSums, TrainError> {
        let (mut seen, mut waiting) = (Seen::default(), Vec::new());
        let mut sum: Option<Gradients> = None;
        for batch in batches.take(self.config.accumulate) {
            let Pass { gradients, result } = forward_backward(self.model, batch?, self.config)?;
            let gradients = Gradients::take(self.optimizer.parameters(), &gradients)?;
            match &mut sum {
                None => sum = Some(gradients),
                Some(sum) => sum.add(&gradients)?,
            }
            match result.is_here() {
                true => self.note(&mut seen, result, sum.as_ref())?,
                false => waiting.push(result),
            }
        }
        let Some(mut gradients) = sum else {
            return Err(candle_core::Error::Msg("a step without batches".into()).into());
        };
        let num_batches = seen.used.len() + waiting.len();
        if num_batches > 1 {
            gradients.scale(1.0 / num_batches as f64);
        }
        let norm = gradients.global_norm()?;
        if waiting.is_empty() {
            self.require_norm(&norm, &seen, &gradients)?;
        }
        if let Some(max_norm) = self.config.clip_norm {
            gradients.clip(&norm, max_norm);
        }
        self.optimizer.step(&gradients, lr)?;
        if let Some(ema) = &mut self.ema {
            ema.update(self.optimizer.parameters())?;
        }
        // A GPU has the whole step queued before the host waits for a number. One that is none has moved the weights by
        // then, which nobody keeps: the run ends, or goes back to a checkpoint.
        for result in waiting {
            self.note(&mut seen, result, Some(&gradients))?;
        }
        let grad_norm = self.require_norm(&norm, &seen, &gradients)?;
        Ok(StepSums { tally: seen.tally, lr, grad_norm, num_batches })
    }

    /// Adds the result of a pass; a loss that is no number ends the step.
    fn note(&self, seen: &mut Seen, result: PassResult, gradients: Option<&Gradients>) -> Result<(), TrainError> {
        let loss = seen.note(result)?;
        if loss.is_finite() { Ok(()) } else { Err(self.diverged("loss", loss, &seen.used, gradients)?) }
    }

    /// The norm of the gradients; one that is no number ends the step.
    fn require_norm(&self, norm: &GradientNorm, seen: &Seen, gradients: &Gradients) -> Result<f64, TrainError> {
        let norm = norm.wait()?;
        if norm.is_finite() {
            return Ok(norm);
        }
        Err(self.diverged("gradient norm", norm, &seen.used, Some(gradients))?)
    }

    /// Learning rate of a step: the schedule's, lowered by each rollback.
    fn lr(&self, step: u64) -> f64 {
        (0..self.progress.num_rollbacks).fold(self.schedule.lr(step), |lr, _| lr * ROLLBACK_LR_FACTOR)
    }

    /// Everything that is known of a step that went wrong.
    fn diverged(
        &self,
        what: impl Into<String>,
        value: f64,
        used: &[(Vec<usize>, f64)],
        gradients: Option<&Gradients>,
    ) -> Result<TrainError, TrainError> {
        let batch = |(indices, loss): &(Vec<usize>, f64)| DivergedBatch {
            loss: number_or_word(*loss),
            names: indices.iter().map(|index| self.train.image_name(*index)).collect(),
            indices: indices.clone(),
        };
        let norms = gradients.map(|gradients| norms(self.optimizer.parameters(), gradients)).transpose()?;
        let found = Divergence {
            epoch: self.progress.epoch,
            step: self.progress.step,
            what: what.into(),
            value: number_or_word(value),
            lr: self.lr(self.progress.step),
            num_rollbacks: self.progress.num_rollbacks,
            batches: used.iter().map(batch).collect(),
            gradient_norms: norms.unwrap_or_default(),
        };
        Ok(TrainError::Diverged { found: Box::new(found), dump: None })
    }

    /// An update can overflow though its gradient was finite; no such value may reach a file.
    fn require_finite(&self, not_finite: Option<String>) -> Result<(), TrainError> {
        match not_finite {
            None => Ok(()),
            Some(name) => Err(self.diverged(name, f64::NAN, &[], None)?),
        }
    }

    fn note_step(&mut self, step: &StepSums, started: Instant) {
        let progress = &mut self.progress;
        progress.step += 1;
        progress.batch_in_epoch += step.num_batches;
        let took = started.elapsed();
        for tally in [&mut progress.epoch_tally, &mut progress.window_tally] {
            tally.merge(&step.tally);
        }
        for throughput in [&mut progress.epoch_throughput, &mut progress.window_throughput] {
            throughput.add(step.tally.num_images as usize, took);
        }
    }

    fn log_step(&mut self, step: &StepSums, clock: &mut Clock) -> Result<(), TrainError> {
        clock.note(&mut self.progress);
        let progress = &mut self.progress;
        let record = StepRecord {
            epoch: progress.epoch,
            step: progress.step,
            lr: step.lr,
            loss: progress.window_tally.loss(),
            top1: progress.window_tally.top1(),
            grad_norm: step.grad_norm,
            images_per_second: progress.window_throughput.images_per_second(),
            elapsed_seconds: progress.elapsed_seconds,
        };
        progress.window_tally = Tally::default();
        progress.window_throughput = Throughput::default();
        self.sink.step(&record).map_err(TrainError::Sink)
    }

    /// Evaluation, record, best weights, checkpoint.
    fn finish_epoch(&mut self, num_steps: u64, clock: &mut Clock) -> Result<EpochEnd, TrainError> {
        self.require_finite(not_finite_in(self.vars)?)?;
        self.swap_ema()?;
        let Some(evaluation) = evaluate(self.model, self.val, self.stop, |_| ())? else {
            // An evaluation changes nothing, so all of it is done again when the run goes on.
            self.swap_ema()?;
            self.checkpoint(Occasion::Unplanned, clock)?;
            return Ok(EpochEnd::Stopped);
        };
        if self.progress.note_evaluation(evaluation.tally.top1()) == Standing::Best {
            self.require_finite(not_finite_in(self.vars)?)?;
            self.folder.write_weights("model.safetensors", self.vars)?;
        }
        self.swap_ema()?;
        clock.note(&mut self.progress);
        let record = self.epoch_record(&evaluation);
        self.sink.epoch(&record).map_err(TrainError::Sink)?;
        let impatient = self.config.patience.is_some_and(|patience| self.progress.epochs_without_best >= patience);
        self.progress.is_complete = impatient || self.progress.step >= num_steps;
        self.progress.next_epoch();
        self.checkpoint(Occasion::Planned, clock)?;
        Ok(EpochEnd::Done)
    }

    /// Averaged weights in, trained ones out; and back with the second call.
    fn swap_ema(&mut self) -> Result<(), TrainError> {
        match &mut self.ema {
            Some(ema) => Ok(ema.swap(self.optimizer.parameters())?),
            None => Ok(()),
        }
    }

    fn epoch_record(&self, evaluation: &Evaluation) -> EpochRecord {
        let progress = &self.progress;
        EpochRecord {
            epoch: progress.epoch,
            step: progress.step,
            lr: self.lr(progress.step.saturating_sub(1)),
            train_loss: progress.epoch_tally.loss(),
            train_top1: progress.epoch_tally.top1(),
            val_loss: evaluation.tally.loss(),
            val_top1: evaluation.tally.top1(),
            val_top5: evaluation.tally.top5(),
            images_per_second: progress.epoch_throughput.images_per_second(),
            elapsed_seconds: progress.elapsed_seconds,
        }
    }

    fn is_checkpoint_planned(&self) -> bool {
        self.config.checkpoint.every_steps.is_some_and(|every| self.progress.step.is_multiple_of(every))
    }

    fn is_checkpoint_late(&self, clock: &Clock) -> bool {
        let minutes = clock.last_checkpoint.elapsed().as_secs_f64() / 60.0;
        self.config.checkpoint.every_minutes.is_some_and(|every| minutes >= every)
    }

    /// Records first: a checkpoint relies on those up to its step.
    fn checkpoint(&mut self, occasion: Occasion, clock: &mut Clock) -> Result<(), TrainError> {
        self.sink.flush().map_err(TrainError::Sink)?;
        clock.note(&mut self.progress);
        if let Some(plans) = gpu_plans::known() {
            self.progress.gpu_plans = plans;
        }
        let mut state: BTreeMap<String, Tensor> = BTreeMap::new();
        state.extend(self.optimizer.state().into_iter().map(|(name, tensor)| (format!("optim.{name}"), tensor)));
        if let Some(ema) = &self.ema {
            state.extend(ema.state().0.iter().map(|(name, tensor)| (format!("ema.{name}"), tensor.clone())));
        }
        let model = all_tensors(self.vars)?;
        self.require_finite(first_not_finite(&model)?.or(first_not_finite(&state)?))?;
        let (disk, checkpoints) = (&*self.folder.disk, self.folder.checkpoints());
        let keep_last = self.config.checkpoint.keep_last;
        Checkpoint::save(disk, &checkpoints, (occasion, &self.progress), &model, &state, keep_last)?;
        clock.last_checkpoint = Instant::now();
        Ok(())
    }
}

/// What one step gave.
pub(crate) struct StepSums {
    pub(crate) tally: Tally,
    lr: f64,
    grad_norm: f64,
    num_batches: usize,
}

/// The time of this process, added to that of the processes before.
struct Clock {
    since: Instant,
    last_checkpoint: Instant,
}

impl Clock {
    fn note(&mut self, progress: &mut Progress) {
        let now = Instant::now();
        progress.elapsed_seconds += (now - self.since).as_secs_f64();
        self.since = now;
    }
}
