//! `taper finetune`

use std::path::Path;

use anyhow::Result;
use candle_core::Device;
use taper_hub::weights::{LoadReport, Origin as PreprocessingFrom};

use crate::args::{Cli, FinetuneArgs};
use crate::base_weights::BaseWeights;
use crate::commands::train::{dry_run, resume_run, resume_same};
use crate::device;
use crate::exit::Ended;
use crate::job::Job;
use crate::measure::{Estimate, Timed};
use crate::prepare::Prepared;
use crate::resolve::{Resolved, resolve_finetune};
use crate::run_dir;
use crate::terminal::{Talk, human_seconds};
use crate::wishes;

/// Runs the command.
pub(crate) fn run(args: &FinetuneArgs, cli: &Cli) -> Result<Ended> {
    let talk = Talk::new(cli.quiet);
    if let Some(run) = &args.resume {
        return resume_run(run, wishes::of_finetune(args)?, talk);
    }
    let base = BaseWeights::open(args.weights.as_deref().unwrap_or_default(), talk)?;
    let resolved = resolve_finetune(args, &base)?;
    if args.flags.print_config {
        print!("{}", resolved.to_toml());
        return Ok(Ended::Done);
    }
    let device = device::parse(&resolved.config.train.device)?;
    if args.flags.dry_run {
        let (job, report) = job(
            &resolved,
            Prepared::fine_tuning(&resolved.config, &base.described.card.preprocessing)?,
            &base,
            &device,
        )?;
        say_loaded(&base, &report, talk);
        return dry_run(job);
    }
    let path = run_dir::choose(args.flags.output.as_deref(), &resolved)?;
    if let Some(ended) = resume_same(&path, &resolved, talk)? {
        return Ok(ended);
    }
    start(&path, &resolved, base, &device, talk)
}

fn start(path: &Path, resolved: &Resolved, base: BaseWeights, device: &Device, talk: Talk) -> Result<Ended> {
    let prepared = Prepared::fine_tuning(&resolved.config, &base.described.card.preprocessing)?;
    let (job, report) = job(resolved, prepared, &base, device)?;
    say_loaded(&base, &report, talk);
    run_dir::write_new(path, resolved, &job.prepared, device::name(device), Some(&base.origin))?;
    job.introduce(path, talk)?;
    say_images_per_class(&job.prepared, talk);
    if talk == Talk::Normal {
        // Measuring moves the weights, so a job of its own is measured.
        say_estimate(&Estimate::measure(self::job(resolved, job.prepared.clone(), &base, device)?.0)?, talk);
    }
    // Their memory is the training's.
    drop(base);
    job.train(path, talk)
}

fn job<'a>(
    resolved: &'a Resolved,
    prepared: Prepared,
    base: &BaseWeights,
    device: &Device,
) -> Result<(Job<'a>, LoadReport)> {
    let mut job = Job::new(&resolved.config, prepared, device)?;
    let report = job.load(base)?;
    Ok((job, report))
}

fn say_loaded(base: &BaseWeights, report: &LoadReport, talk: Talk) {
    let preprocessing = match base.described.preprocessing_from {
        PreprocessingFrom::Configuration => "preprocessing as its configuration says",
        PreprocessingFrom::ImageNetDefault => "preprocessing is ImageNet's, as it names none",
    };
    talk.say(format!("{}: {}, {preprocessing}", base.file.display(), base.architecture().name()));
    talk.say(format!(
        "{} tensors loaded, {} of the head replaced ({})",
        report.loaded.len(),
        report.missing.len(),
        report.missing.join(", "),
    ));
}

/// All classes where they are few, else the smallest and the largest.
fn say_images_per_class(prepared: &Prepared, talk: Talk) {
    const MOST_LINES: usize = 12;
    let classes = prepared.data.dataset.classes();
    let mut rows: Vec<(usize, &String)> = prepared.images_per_class().into_iter().zip(classes).collect();
    talk.say("training images per class:");
    let row = |(count, class): &(usize, &String)| talk.say(format!("  {count:>6}  {class}"));
    if rows.len() <= MOST_LINES {
        return rows.iter().for_each(row);
    }
    rows.sort();
    rows[..MOST_LINES / 2].iter().for_each(row);
    talk.say(format!("     ...  {} more classes", rows.len() - MOST_LINES));
    rows[rows.len() - MOST_LINES / 2..].iter().for_each(row);
}

fn say_estimate(estimate: &Estimate, talk: Talk) {
    let pace = estimate.num_images as f64 / estimate.seconds;
    let timed = match estimate.timed {
        Timed::Step => "a training step",
        Timed::Features => "the frozen backbone, which each image passes once,",
    };
    let memory = match estimate.peak_bytes {
        Some(bytes) => format!(" and {:.0} MiB", bytes as f64 / f64::from(1 << 20)),
        None => String::new(),
    };
    talk.say(format!("estimate: {}{memory}; {timed} does {pace:.1} images/s", human_seconds(estimate.run_seconds)));
}
