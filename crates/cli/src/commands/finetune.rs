//! `taper finetune`

use anyhow::Result;
use candle_core::Device;
use taper_hub::weights::{LoadReport, Origin as PreprocessingFrom};

use crate::args::{Cli, FinetuneArgs, Resume};
use crate::base_weights::BaseWeights;
use crate::commands::train::dry_run;
use crate::device;
use crate::exit::{Ended, usage};
use crate::interrupt::Interrupt;
use crate::job::Job;
use crate::measure::{Estimate, Timed};
use crate::memory;
use crate::prepare::Prepared;
use crate::resolve::{Resolved, resolve_finetune};
use crate::resume::{resume_run, resume_same};
use crate::run_dir::{self, Place};
use crate::same_data::{class_differences, learnt_though_kept};
use crate::terminal::{Talk, human_seconds};
use crate::wishes;

/// Runs the command.
pub(crate) fn run(args: &FinetuneArgs, cli: &Cli) -> Result<Ended> {
    let (talk, interrupt) = (Talk::new(cli.quiet), Interrupt::watch()?);
    if let Some(Resume::Run(run)) = &args.resume {
        refuse_beside_resume(args)?;
        return resume_run(run, wishes::of_finetune(args)?, talk, &interrupt);
    }
    let Some(weights) = &args.weights else {
        return Err(usage("--resume auto repeats the whole command: give DATA and --weights too"));
    };
    if args.data.is_none() {
        return Err(usage("--resume auto repeats the whole command: give DATA and --weights too"));
    }
    let base = BaseWeights::open(weights, talk)?;
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
    let place = Place::of(args.flags.output.as_deref(), &resolved);
    if let Some(ended) = resume_same(&place, args.resume.as_ref(), &resolved, talk, &interrupt)? {
        return Ok(ended);
    }
    start(&place, &resolved, base, &device, talk, &interrupt)
}

/// A run that is named knows all of these.
fn refuse_beside_resume(args: &FinetuneArgs) -> Result<()> {
    let given = [
        ("DATA", args.data.is_some()),
        ("--weights", args.weights.is_some()),
        ("--freeze", args.freeze.is_some()),
        ("--output", args.flags.output.is_some()),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((what, _)) => Err(usage(format!(
            "{what}: a resumed run keeps what it began with; leave {what} out, or use --resume auto"
        ))),
    }
}

/// Begins a run.
pub(crate) fn start(
    place: &Place,
    resolved: &Resolved,
    base: BaseWeights,
    device: &Device,
    talk: Talk,
    interrupt: &Interrupt,
) -> Result<Ended> {
    let prepared = Prepared::fine_tuning(&resolved.config, &base.described.card.preprocessing)?;
    let (job, report) = job(resolved, prepared, &base, device)?;
    memory::require_room(&job)?;
    say_loaded(&base, &report, talk);
    compare_with_base_run(&base, &job.prepared)?;
    let (path, _lock) = place.claim()?;
    run_dir::write_new(&path, resolved, &job.prepared, device, Some(&base.origin))?;
    job.introduce(&path, talk)?;
    say_images_per_class(&job.prepared, talk);
    if talk == Talk::Normal {
        // Measuring moves the weights, so a job of its own is measured.
        say_estimate(&Estimate::measure(self::job(resolved, job.prepared.clone(), &base, device)?.0)?, talk);
    }
    // Their memory is the training's.
    drop(base);
    job.train(&path, None, talk, interrupt)
}

/// Where the base weights are a run's, says how its classes differ and which of the images it had put aside are now
/// learnt from.
fn compare_with_base_run(base: &BaseWeights, prepared: &Prepared) -> Result<()> {
    let Some(run) = base.run() else { return Ok(()) };
    let shown = run.display();
    if let Some(differences) = class_differences(&base.described.card.classes, prepared.data.dataset.classes()) {
        tracing::warn!("the classes are not those of {shown}, so the new head has others: {differences}");
    }
    let learnt = learnt_though_kept(run, &prepared.data, &prepared.usable)?;
    if let Some(first) = learnt.first() {
        tracing::warn!(
            "{} images that {shown} had kept for val or test are now trained on (the first: {first}); what that run \
             measured on them does not compare with this one",
            learnt.len()
        );
    }
    Ok(())
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
