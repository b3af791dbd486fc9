//! A network and its data, before the first step: what every command that trains works on.

use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device};
use candle_nn::{ModuleT, VarMap};
use taper_data::{LastBatch, Part};
use taper_hub::weights::LoadReport;
use taper_metrics::RecordSink;
use taper_models::{Network, seeded_frozen};
use taper_optim::{Ema, GroupRules, Optimizer, ParameterSet, Schedule};
use taper_report::{EventSink, JsonlSink};
use taper_train::{Checkpoint, Features, Fit, FitConfig, ImageInput, Images, Outcome, Progress, RunFolder, Source};

use crate::base_weights::{BaseWeights, Origin};
use crate::config::RunConfig;
use crate::device;
use crate::exit::{Ended, usage};
use crate::interrupt::{Interrupt, Signal};
use crate::model_card::ModelCard;
use crate::prepare::Prepared;
use crate::resident;
use crate::run_page::samples;
use crate::terminal::{Counter, RunShape, Talk, TerminalSink};

/// A network and its data, before the first step.
pub(crate) struct Job<'a> {
    pub(crate) config: &'a RunConfig,
    pub(crate) prepared: Prepared,
    device: Device,
    dtype: DType,
    vars: VarMap,
    pub(crate) network: Network,
    origin: Option<Origin>,
    pub(crate) num_steps: u64,
    steps_per_epoch: u64,
}

/// What the loop borrows from its caller.
pub(crate) struct Parts {
    config: FitConfig,
    pub(crate) train: Box<dyn Source>,
    val: Box<dyn Source>,
    fed: Fed,
    folder: RunFolder,
}

/// What the batches are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fed {
    /// Images, for the whole network.
    Network,
    /// Cached features, for its head.
    Head,
}

impl<'a> Job<'a> {
    pub(crate) fn new(config: &'a RunConfig, prepared: Prepared, device: &Device) -> Result<Self> {
        device::use_cpu_path(&config.train.cpu_path)?;
        device::use_plans(config.train.gpu_plans);
        taper_kernels::set_recompute(config.train.recompute);
        let (vars, frozen) = (VarMap::new(), config.frozen()?);
        let num_classes = prepared.data.dataset.classes().len();
        let network = config.model.build(num_classes, seeded_frozen(&vars, config.train.seed, device, frozen))?;
        let mut job = Self {
            config,
            prepared,
            device: device.clone(),
            dtype: device::dtype("train.dtype =", &config.train.dtype, device)?,
            vars,
            network,
            origin: None,
            num_steps: 0,
            steps_per_epoch: 0,
        };
        let train = job.images(Part::Train);
        // Every mistake is found before the run directory is made.
        config.fit_for(&job.prepared.images_per_class())?;
        job.parameters()?;
        refuse_single_image(train.num_images(), config)?;
        job.num_steps = Fit::num_steps(&train, &config.fit())?;
        job.steps_per_epoch = Fit::steps_per_epoch(&train, &config.fit())?;
        Ok(job)
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Type of the activations.
    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    /// Starts from these weights, with a new head.
    pub(crate) fn load(&mut self, base: &BaseWeights) -> Result<LoadReport> {
        self.origin = Some(base.origin.clone());
        base.load_into(&self.vars)
    }

    /// Says which weights the run's checkpoints come from.
    pub(crate) fn set_origin(&mut self, origin: Option<Origin>) {
        self.origin = origin;
    }

    pub(crate) fn introduce(&self, path: &Path, talk: Talk) -> Result<()> {
        let dataset = &self.prepared.data.dataset;
        let cost = self.config.model.cost(dataset.classes().len());
        talk.say(format!(
            "{}: {} classes, {} training and {} validation images",
            self.config.data.location,
            dataset.classes().len(),
            self.prepared.usable.get(Part::Train).len(),
            self.prepared.usable.get(Part::Val).len(),
        ));
        let num_trained = self.parameters()?.num_values();
        let trained =
            if num_trained == cost.num_parameters { String::new() } else { format!(", {num_trained} trained") };
        talk.say(format!(
            "{} parameters{trained}, {:.3} GFLOP per training image; {} steps in {} epochs on {} ({}) with {} threads",
            cost.num_parameters,
            // A multiply-add is two operations; backward costs two forward passes.
            6.0 * cost.forward_macs as f64 / 1e9,
            self.num_steps,
            self.num_epochs(),
            device::name(&self.device),
            if self.device.is_cpu() { taper_kernels::cpu_path().to_string() } else { self.config.train.dtype.clone() },
            rayon::current_num_threads(),
        ));
        talk.say(format!("run directory {}", path.display()));
        Ok(())
    }

    pub(crate) fn num_epochs(&self) -> u64 {
        self.num_steps.div_ceil(self.steps_per_epoch)
    }

    /// The parameters that are trained.
    pub(crate) fn parameters(&self) -> Result<ParameterSet> {
        let layers = self.config.model.layers();
        let rules = GroupRules::by_depth(&self.config.optim, layers.as_slice());
        Ok(ParameterSet::new(&self.vars, &GroupRules { frozen: self.config.frozen()?, ..rules })?)
    }

    fn card(&self) -> ModelCard {
        ModelCard {
            architecture: self.config.model.clone(),
            classes: self.prepared.data.dataset.classes().to_vec(),
            preprocessing: self.prepared.preprocess.clone(),
            licence: self.origin.as_ref().and_then(|origin| origin.licence.clone()),
            base_weights_sha256: self.origin.as_ref().map(|origin| origin.sha256.clone()),
        }
    }

    /// The batches of a part as the whole network takes them.
    pub(crate) fn images(&self, part: Part) -> Images {
        let loader = match part {
            Part::Train => self.prepared.train_loader(self.config),
            Part::Val | Part::Test => self.prepared.val_loader(self.config),
        };
        let (stats, device) = (self.prepared.preprocess.stats(), self.device.clone());
        Images { loader, input: ImageInput { stats, device, dtype: self.dtype } }
    }

    /// Whether the head is trained on features that are computed once.
    pub(crate) fn caches_features(&self) -> bool {
        let split = &self.prepared.usable;
        self.config.caches_features(split.train.len() + split.val.len())
    }

    /// Images, settings and folder, which the loop borrows.
    pub(crate) fn parts_with_images(&self, path: &Path) -> Result<Parts> {
        let images = [Part::Train, Part::Val].map(|part| self.images(part));
        let sources = resident::sources(images, self.config.data.cache_mib)?;
        self.parts(path, sources, Fed::Network)
    }

    fn parts(&self, path: &Path, [train, val]: [Box<dyn Source>; 2], fed: Fed) -> Result<Parts> {
        Ok(Parts {
            config: self.config.fit_for(&self.prepared.images_per_class())?,
            train,
            val,
            fed,
            folder: RunFolder::new(path, self.card().to_metadata()?),
        })
    }

    /// As [`Job::parts_with_images`], with features in the images' place.
    fn parts_with_features(&self, path: &Path, talk: Talk) -> Result<Parts> {
        let [train, val] = [Part::Train, Part::Val].map(|part| self.images(part));
        let counter = Counter::new("features of", (train.num_images() + val.num_images()) as u64, talk);
        let num_train = train.num_images() as u64;
        let train = Features::compute(&*self.network.backbone, &train, |done| counter.set(done as u64))?;
        let val = Features::compute(&*self.network.backbone, &val, |done| counter.set(num_train + done as u64))?;
        counter.finish();
        self.parts(path, [Box::new(train), Box::new(val)], Fed::Head)
    }

    pub(crate) fn assemble<'b>(
        &'b self,
        parts: &'b Parts,
        sink: &'b mut dyn RecordSink,
        stop: &'b dyn Fn() -> bool,
    ) -> Result<Fit<'b>> {
        let optimizer = Optimizer::new(&self.config.optim, self.parameters()?)?;
        let ema = self.config.train.ema_decay.map(|decay| Ema::new(decay, optimizer.parameters())).transpose()?;
        let (schedule, lr) = (self.config.schedule.clone(), self.config.optim.lr());
        let model: &dyn ModuleT = match parts.fed {
            Fed::Network => &self.network,
            Fed::Head => &*self.network.head,
        };
        Ok(Fit {
            model,
            vars: &self.vars,
            train: &*parts.train,
            val: &*parts.val,
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

    /// Trains from a checkpoint, or from the start where there is none. The run directory is this process's own.
    pub(crate) fn train(
        &self,
        path: &Path,
        checkpoint: Option<Checkpoint>,
        talk: Talk,
        interrupt: &Interrupt,
    ) -> Result<Ended> {
        if let Some(checkpoint) = &checkpoint {
            // Features are those of the backbone as it was.
            checkpoint.model.restore(&self.vars, &checkpoint.folder)?;
        }
        let parts = match self.caches_features() {
            true => self.parts_with_features(path, talk)?,
            false => self.parts_with_images(path)?,
        };
        let mut sink = TerminalSink::new((JsonlSink::open(path)?, self.events(path)?), talk, self.shape());
        let stop = || interrupt.seen().is_some();
        let mut fit = self.assemble(&parts, &mut sink, &stop)?;
        match checkpoint {
            Some(checkpoint) => {
                talk.say(format!("going on from step {}", checkpoint.progress.step));
                fit.restore(&checkpoint)?;
            }
            None => fit.rewind_records()?,
        }
        interrupt.batches_begin();
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

    /// TensorBoard's file; one that is new gets the configuration and some training images.
    fn events(&self, path: &Path) -> Result<EventSink> {
        let mut events = EventSink::open(path)?;
        if !events.is_new()? {
            return Ok(events);
        }
        let config = path.join("config.toml");
        let text = std::fs::read_to_string(&config).with_context(|| format!("cannot read {}", config.display()))?;
        events.text(0, "config.toml", &format!("```toml\n{text}```\n"))?;
        let transform = self.config.train_transform(&self.prepared.preprocess);
        let (dataset, train) = (&*self.prepared.data.dataset, self.prepared.usable.get(Part::Train));
        for (number, sample) in samples(dataset, train, &transform, self.config.train.seed)?.iter().enumerate() {
            events.image(0, &format!("samples/{number}/before"), &sample.before)?;
            for (epoch, after) in sample.after.iter().enumerate() {
                events.image(0, &format!("samples/{number}/epoch-{epoch}"), after)?;
            }
        }
        Ok(events)
    }

    fn shape(&self) -> RunShape {
        RunShape {
            num_epochs: self.num_epochs() as usize,
            num_steps: self.num_steps,
            batch_size: self.config.train.batch_size,
            loss: self.config.log.loss,
        }
    }
}

/// Batch norm has no variance in a batch of one image, and that batch would come at the end of the first epoch.
fn refuse_single_image(num_images: usize, config: &RunConfig) -> Result<()> {
    let batch_size = config.train.batch_size;
    if config.caches_features(num_images) {
        return Ok(());
    }
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
