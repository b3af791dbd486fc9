//! `taper train`

use anyhow::Result;
use candle_core::Device;

use crate::args::{Cli, Resume, TrainArgs};
use crate::device;
use crate::exit::{Ended, usage};
use crate::interrupt::Interrupt;
use crate::job::Job;
use crate::measure::{Estimate, Timed};
use crate::memory;
use crate::prepare::Prepared;
use crate::resolve::{Resolved, resolve};
use crate::resume::{resume_run, resume_same};
use crate::run_dir::{self, Place};
use crate::terminal::{Talk, human_seconds};
use crate::wishes;

/// Runs the command.
pub(crate) fn run(args: &TrainArgs, cli: &Cli) -> Result<Ended> {
    let (talk, interrupt) = (Talk::new(cli.quiet), Interrupt::watch()?);
    if let Some(Resume::Run(run)) = &args.resume {
        if args.flags.output.is_some() {
            return Err(usage("--output: a resumed run stays where it is; leave --output out, or use --resume auto"));
        }
        return resume_run(run, wishes::of_train(args)?, talk, &interrupt);
    }
    let resolved = resolve(args)?;
    if args.flags.print_config {
        print!("{}", resolved.to_toml());
        return Ok(Ended::Done);
    }
    let device = device::parse(&resolved.config.train.device)?;
    if args.flags.dry_run {
        let job = Job::new(&resolved.config, Prepared::fresh(&resolved.config)?, &device)?;
        return dry_run(job);
    }
    let place = Place::of(args.flags.output.as_deref(), &resolved);
    if let Some(ended) = resume_same(&place, args.resume.as_ref(), &resolved, talk, &interrupt)? {
        return Ok(ended);
    }
    start(&place, &resolved, &device, talk, &interrupt)
}

/// Begins a run.
pub(crate) fn start(
    place: &Place,
    resolved: &Resolved,
    device: &Device,
    talk: Talk,
    interrupt: &Interrupt,
) -> Result<Ended> {
    let prepared = Prepared::fresh(&resolved.config)?;
    let job = Job::new(&resolved.config, prepared, device)?;
    memory::require_room(&job)?;
    let (path, _lock) = place.claim()?;
    run_dir::write_new(&path, resolved, &job.prepared, device, None)?;
    job.introduce(&path, talk)?;
    job.train(&path, None, talk, interrupt)
}

/// Everything but the run: data opened and measured, one step done, nothing written.
pub(crate) fn dry_run(job: Job<'_>) -> Result<Ended> {
    memory::require_room(&job)?;
    let (num_steps, num_epochs) = (job.num_steps, job.num_epochs());
    let room = memory::Need::of(&job)?;
    let estimate = Estimate::measure(job)?;
    let timed = match estimate.timed {
        Timed::Step => "first step         ",
        Timed::Features => "features of a batch",
    };
    println!("configuration, data and model are in order; nothing was written");
    println!("steps               {num_steps} in {num_epochs} epochs");
    println!("{timed} {:.2} s, {:.1} images/s", estimate.seconds, estimate.num_images as f64 / estimate.seconds);
    println!("training, estimated {}", human_seconds(estimate.run_seconds));
    println!("memory, estimated   {room}");
    if let Some(bytes) = estimate.peak_bytes {
        println!("memory at its peak  {:.0} MiB", bytes as f64 / f64::from(1 << 20));
    }
    Ok(Ended::Done)
}
