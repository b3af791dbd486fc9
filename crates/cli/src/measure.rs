//! What a run will take, measured on its first batches.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use taper_data::Part;
use taper_train::{Features, Source};

use crate::config::GpuPlans;
use crate::device;
use crate::job::Job;

/// What a run is expected to take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    /// What was timed.
    pub(crate) timed: Timed,
    /// Images that went through it.
    pub(crate) num_images: usize,
    /// How long that took.
    pub(crate) seconds: f64,
    /// How long the whole run takes at that pace.
    pub(crate) run_seconds: f64,
    /// The most memory this process has held, where the system says.
    pub(crate) peak_bytes: Option<u64>,
}

/// The part of a run that decides how long it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timed {
    /// A training step.
    Step,
    /// A batch on its way through the frozen backbone, which each image goes once.
    Features,
}

impl Estimate {
    /// Does the first step, or the first batch of features. The job is of no use afterwards: its weights have moved.
    pub(crate) fn measure(job: Job<'_>) -> Result<Self> {
        match job.caches_features() {
            true => Self::of_features(&job),
            false => Self::of_step(&job),
        }
    }

    fn of_step(job: &Job<'_>) -> Result<Self> {
        let parts = job.parts_with_images(Path::new(""))?;
        // Records of a probe are nobody's.
        let mut sink = ();
        let mut fit = job.assemble(&parts, &mut sink, &|| false)?;
        // Trials of plans take as long as many steps, and come once.
        device::use_plans(GpuPlans::Heuristic);
        let started = Instant::now();
        let num_images = fit.probe()?;
        let seconds = started.elapsed().as_secs_f64();
        // Evaluation is a forward pass, a third of a step.
        let val_images = job.prepared.usable.get(Part::Val).len() as f64 * job.num_epochs() as f64;
        let val_seconds = val_images * seconds / num_images as f64 / 3.0;
        let run_seconds = seconds * job.num_steps as f64 + val_seconds;
        Ok(Self { timed: Timed::Step, num_images, seconds, run_seconds, peak_bytes: peak_memory() })
    }

    fn of_features(job: &Job<'_>) -> Result<Self> {
        let mut images = job.images(Part::Train);
        let num_images = images.num_images().min(images.batch_size());
        images.loader.indices = images.loader.indices[..num_images].into();
        let started = Instant::now();
        Features::compute(&*job.network.backbone, &images, |_| ())?;
        let seconds = started.elapsed().as_secs_f64();
        let split = &job.prepared.usable;
        let run_seconds = seconds / num_images as f64 * (split.train.len() + split.val.len()) as f64;
        Ok(Self { timed: Timed::Features, num_images, seconds, run_seconds, peak_bytes: peak_memory() })
    }
}

/// The most memory this process has held, where the system says.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}
