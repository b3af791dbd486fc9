//! `taper train`

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use candle_core::Device;
use candle_nn::{ModuleT, VarMap};
use taper_data::{LastBatch, Loader, Part};
use taper_metrics::{EpochRecord, RecordSink, SinkError, StepRecord};
use taper_models::seeded;
use taper_optim::{Ema, GroupRules, Optimizer, ParameterSet, Schedule};
use taper_report::JsonlSink;
use taper_train::{Checkpoint, Fit, FitConfig, ImageInput, Outcome, Progress, RunFolder};

use crate::args::{Cli, TrainArgs};
use crate::config::RunConfig;
use crate::device;
use crate::exit::{Ended, usage};
use crate::interrupt::{Interrupt, Signal};
use crate::model_card::ModelCard;
use crate::prepare::Prepared;
use crate::resolve::{Resolved, resolve, resolve_run};
use crate::run_dir::{self, Found};
use crate::terminal::{RunShape, Talk, TerminalSink, human_seconds};

/// Runs the command.
pub(crate) fn run(args: &TrainArgs, cli: &Cli) -> Result<Ended> {
    let talk = Talk::new(cli.quiet);
    if let Some(run) = &args.resume {
        run_dir::require_run(run)?;
        let resolved = resolve_run(&run.join("config.toml"), args)?;
        return resume(run, &resolved, talk);
    }
    let resolved = resolve(args)?;
    if args.print_config {
        print!("{}", resolved.to_toml());
        return Ok(Ended::Done);
    }
    let device = device::parse(&resolved.config.train.device)?;
    if args.dry_run {
        return dry_run(&resolved.config, &device);
    }
    let path = run_dir::choose(args.output.as_deref(), &resolved)?;
    if run_dir::look(&path)? == Found::Interrupted {
        let written = resolve_run(&path.join("config.toml"), &no_wishes())?;
        if written.config != resolved.config {
            let shown = path.display();
            return Err(usage(format!(
                "--output {shown}: an interrupted run with another configuration is there; use --resume {shown}, or another directory"
            )));
        }
        talk.say(format!("{}: an interrupted run with the same configuration, going on with it", path.display()));
        return resume(&path, &written, talk);
    }
    start(&path, &resolved, &device, talk)
}

fn no_wishes() -> TrainArgs {
    TrainArgs {
        data: None,
        config: None,
        set: Vec::new(),
        model: None,
        epochs: None,
        batch_size: None,
        lr: None,
        opt: None,
        sched: None,
        seed: None,
        workers: None,
        device: None,
        dtype: None,
        output: None,
        resume: None,
        dry_run: false,
        print_config: false,
    }
}

fn start(path: &Path, resolved: &Resolved, device: &Device, talk: Talk) -> Result<Ended> {
    let prepared = Prepared::fresh(&resolved.config)?;
    let job = Job::new(&resolved.config, prepared, device)?;
    run_dir::write_new(path, resolved, &job.prepared, device::name(device))?;
    job.introduce(path, talk);
    job.train(path, talk)
}

fn resume(path: &Path, resolved: &Resolved, talk: Talk) -> Result<Ended> {
    if run_dir::look(path)? == Found::Complete {
        talk.say(format!("{}: the run is complete; nothing to do", path.display()));
        return Ok(Ended::Done);
    }
    let device = device::parse(&resolved.config.train.device)?;
    let prepared = Prepared::of_run(path, &resolved.config)?;
    let job = Job::new(&resolved.config, prepared, &device)?;
    job.introduce(path, talk);
    job.train(path, talk)
}

/// Batch norm has no variance in a batch of one image, and that batch would come at the end of the first epoch.
fn refuse_single_image(num_images: usize, config: &RunConfig) -> Result<()> {
    let batch_size = config.train.batch_size;
    if batch_size == 1 {
        return Err(usage("train.batch_size = 1: batch norm needs at least two images in a batch"));
    }
    if config.last_batch() == LastBatch::Keep && num_images.checked_rem(batch_size) == Some(1) {
        return Err(usage(format!(
            "train.batch_size = {batch_size}: {num_images} training images leave a last batch of one, which batch norm \
             cannot use; change train.batch_size, or set train.drop_last = true"
        )));
    }
    Ok(())
}

/// A model and its data, before the first step.
struct Job<'a> {
    config: &'a RunConfig,
    prepared: Prepared,
    device: Device,
    vars: VarMap,
    model: Box<dyn ModuleT + Send + Sync>,
    num_steps: u64,
    steps_per_epoch: u64,
}

impl<'a> Job<'a> {
    fn new(config: &'a RunConfig, prepared: Prepared, device: &Device) -> Result<Self> {
        device::use_cpu_path(&config.train.cpu_path)?;
        let train = prepared.train_loader(config);
        refuse_single_image(train.indices.len(), config)?;
        let num_steps = Fit::num_steps(&train, &config.fit())?;
        let steps_per_epoch = Fit::steps_per_epoch(&train, &config.fit())?;
        let vars = VarMap::new();
        let num_classes = prepared.data.dataset.classes().len();
        let model = config.model.build(num_classes, seeded(&vars, config.train.seed, device))?;
        Ok(Self { config, prepared, device: device.clone(), vars, model, num_steps, steps_per_epoch })
    }

    fn introduce(&self, path: &Path, talk: Talk) {
        let dataset = &self.prepared.data.dataset;
        let cost = self.config.model.cost(dataset.classes().len());
        talk.say(format!(
            "{}: {} classes, {} training and {} validation images",
            self.config.data.location,
            dataset.classes().len(),
            self.prepared.usable.get(Part::Train).len(),
            self.prepared.usable.get(Part::Val).len(),
        ));
        talk.say(format!(
            "{} parameters, {:.3} GFLOP per training image; {} steps in {} epochs on {} ({}) with {} threads",
            cost.num_parameters,
            // A multiply-add is two operations; backward costs two forward passes.
            6.0 * cost.forward_macs as f64 / 1e9,
            self.num_steps,
            self.num_steps.div_ceil(self.steps_per_epoch),
            device::name(&self.device),
            taper_kernels::cpu_path(),
            rayon::current_num_threads(),
        ));
        talk.say(format!("run directory {}", path.display()));
    }

    fn card(&self) -> ModelCard {
        ModelCard {
            architecture: self.config.model.clone(),
            classes: self.prepared.data.dataset.classes().to_vec(),
            preprocessing: self.prepared.preprocess.clone(),
            licence: None,
            base_weights_sha256: None,
        }
    }

    /// Loaders, settings and folder, which the loop borrows.
    fn parts(&self, path: &Path) -> Result<Parts> {
        Ok(Parts {
            config: self.config.fit(),
            train: self.prepared.train_loader(self.config),
            val: self.prepared.val_loader(self.config),
            folder: RunFolder { path: path.to_owned(), metadata: self.card().to_metadata()? },
        })
    }

    fn assemble<'b>(
        &'b self,
        parts: &'b Parts,
        sink: &'b mut dyn RecordSink,
        stop: &'b dyn Fn() -> bool,
    ) -> Result<Fit<'b>> {
        let parameters = ParameterSet::new(&self.vars, &GroupRules::new(&self.config.optim))?;
        let optimizer = Optimizer::new(&self.config.optim, parameters)?;
        let ema = self.config.train.ema_decay.map(|decay| Ema::new(decay, optimizer.parameters())).transpose()?;
        let (schedule, lr) = (self.config.schedule.clone(), self.config.optim.lr());
        Ok(Fit {
            model: &*self.model,
            vars: &self.vars,
            train: &parts.train,
            val: &parts.val,
            input: ImageInput { stats: self.prepared.preprocess.stats(), device: self.device.clone() },
            optimizer,
            schedule: Schedule::new(schedule, lr, self.num_steps, self.steps_per_epoch)?,
            ema,
            config: &parts.config,
            folder: &parts.folder,
            sink,
            stop,
            progress: Progress::default(),
        })
    }

    /// Trains from the newest checkpoint, or from the start where there is none.
    fn train(&self, path: &Path, talk: Talk) -> Result<Ended> {
        let parts = self.parts(path)?;
        let mut sink = TerminalSink::new(JsonlSink::open(path)?, talk, self.shape());
        let interrupt = Interrupt::watch()?;
        let stop = || interrupt.seen().is_some();
        let mut fit = self.assemble(&parts, &mut sink, &stop)?;
        match Checkpoint::latest(&parts.folder.checkpoints())? {
            Some(checkpoint) => {
                talk.say(format!("going on from step {}", checkpoint.progress.step));
                fit.restore(&checkpoint)?;
            }
            None => fit.rewind_records()?,
        }
        let outcome = fit.run();
        let (best, step) = (fit.progress.best, fit.progress.step);
        sink.finish();
        let shown = path.display();
        if outcome? == Outcome::Stopped {
            talk.say(format!("stopped at step {step} with a checkpoint; go on with: taper train --resume {shown}"));
            return Ok(Ended::Stopped(interrupt.seen().unwrap_or(Signal::Terminate)));
        }
        if let Some(best) = best {
            println!("best val top-1 {:.4} after epoch {}; {shown}", best.val_top1, best.epoch + 1);
        }
        Ok(Ended::Done)
    }

    fn shape(&self) -> RunShape {
        RunShape {
            num_epochs: self.num_steps.div_ceil(self.steps_per_epoch) as usize,
            num_steps: self.num_steps,
            batch_size: self.config.train.batch_size,
            loss: self.config.log.loss,
        }
    }
}

/// What the loop borrows from its caller.
struct Parts {
    config: FitConfig,
    train: Loader,
    val: Loader,
    folder: RunFolder,
}

/// Everything but the run: data opened and measured, one step done, nothing written.
fn dry_run(config: &RunConfig, device: &Device) -> Result<Ended> {
    let job = Job::new(config, Prepared::fresh(config)?, device)?;
    let parts = job.parts(Path::new(""))?;
    let mut sink = NoRecords;
    let mut fit = job.assemble(&parts, &mut sink, &|| false)?;
    let started = Instant::now();
    let num_images = fit.probe()?;
    let step_seconds = started.elapsed().as_secs_f64();
    println!("configuration, data and model are in order; nothing was written");
    println!("steps               {} in {} epochs", job.num_steps, job.shape().num_epochs);
    println!("first step          {step_seconds:.2} s, {:.1} images/s", num_images as f64 / step_seconds);
    println!("training, estimated {}", human_seconds(step_seconds * job.num_steps as f64));
    if let Some(bytes) = peak_memory() {
        println!("memory at its peak  {:.0} MiB", bytes as f64 / f64::from(1 << 20));
    }
    Ok(Ended::Done)
}

/// A sink for runs that write nothing.
struct NoRecords;

impl RecordSink for NoRecords {
    fn step(&mut self, _: &StepRecord) -> Result<(), SinkError> {
        Ok(())
    }

    fn epoch(&mut self, _: &EpochRecord) -> Result<(), SinkError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn rewind(&mut self, _: u64) -> Result<(), SinkError> {
        Ok(())
    }
}

/// The most memory this process has held, where the system says.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}
