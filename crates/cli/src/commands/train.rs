//! `taper train`

use std::path::Path;

use anyhow::Result;
use candle_core::Device;
use taper_train::Checkpoint;

use crate::args::{Cli, TrainArgs};
use crate::base_weights::BaseWeights;
use crate::config::RunConfig;
use crate::device;
use crate::exit::{Ended, bad_input, usage};
use crate::job::Job;
use crate::measure::{Estimate, Timed};
use crate::prepare::Prepared;
use crate::resolve::{Resolved, resolve, resolve_run};
use crate::run_dir::{self, Found};
use crate::terminal::{Talk, human_seconds};
use crate::wishes::{self, Wish};

/// Runs the command.
pub(crate) fn run(args: &TrainArgs, cli: &Cli) -> Result<Ended> {
    let talk = Talk::new(cli.quiet);
    if let Some(run) = &args.resume {
        return resume_run(run, wishes::of_train(args)?, talk);
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
    let path = run_dir::choose(args.flags.output.as_deref(), &resolved)?;
    if let Some(ended) = resume_same(&path, &resolved, talk)? {
        return Ok(ended);
    }
    start(&path, &resolved, &device, talk)
}

fn start(path: &Path, resolved: &Resolved, device: &Device, talk: Talk) -> Result<Ended> {
    let prepared = Prepared::fresh(&resolved.config)?;
    let job = Job::new(&resolved.config, prepared, device)?;
    run_dir::write_new(path, resolved, &job.prepared, device::name(device), None)?;
    job.introduce(path, talk)?;
    job.train(path, talk)
}

/// Goes on with the run that `--resume` names.
pub(crate) fn resume_run(run: &Path, wishes: Vec<Wish>, talk: Talk) -> Result<Ended> {
    run_dir::require_run(run)?;
    resume(run, &resolve_run(&run.join("config.toml"), wishes)?, talk)
}

/// Goes on with an interrupted run of the same configuration, if there is one where a new one was to be.
pub(crate) fn resume_same(path: &Path, resolved: &Resolved, talk: Talk) -> Result<Option<Ended>> {
    if run_dir::look(path)? != Found::Interrupted {
        return Ok(None);
    }
    let written = resolve_run(&path.join("config.toml"), Vec::new())?;
    let shown = path.display();
    if written.config != resolved.config {
        return Err(usage(format!(
            "--output {shown}: an interrupted run with another configuration is there; use --resume {shown}, or another directory"
        )));
    }
    talk.say(format!("{shown}: an interrupted run with the same configuration, going on with it"));
    resume(path, &written, talk).map(Some)
}

fn resume(path: &Path, resolved: &Resolved, talk: Talk) -> Result<Ended> {
    if run_dir::look(path)? == Found::Complete {
        talk.say(format!("{}: the run is complete; nothing to do", path.display()));
        return Ok(Ended::Done);
    }
    let config = &resolved.config;
    let device = device::parse(&config.train.device)?;
    let mut job = Job::new(config, Prepared::of_run(path, config)?, &device)?;
    job.set_origin(run_dir::origin_of(path)?);
    if Checkpoint::latest(&path.join("checkpoints"))?.is_none() {
        load_again(&mut job, path, config, talk)?;
    }
    job.introduce(path, talk)?;
    job.train(path, talk)
}

/// Before the first checkpoint, a run has its base weights nowhere but where they came from.
fn load_again(job: &mut Job<'_>, path: &Path, config: &RunConfig, talk: Talk) -> Result<()> {
    let (Some(source), Some(written)) = (&config.train.base_weights, run_dir::origin_of(path)?) else {
        return Ok(());
    };
    let base = BaseWeights::open(source, talk)?;
    if base.origin.sha256 != written.sha256 {
        return Err(bad_input(format!(
            "{}: its SHA-256 is {}, the run {} began with {}; put the file back, or start a new run",
            base.file.display(),
            base.origin.sha256,
            path.display(),
            written.sha256
        )));
    }
    job.load(&base).map(|_| ())
}

/// Everything but the run: data opened and measured, one step done, nothing written.
pub(crate) fn dry_run(job: Job<'_>) -> Result<Ended> {
    let (num_steps, num_epochs) = (job.num_steps, job.num_epochs());
    let estimate = Estimate::measure(job)?;
    let timed = match estimate.timed {
        Timed::Step => "first step         ",
        Timed::Features => "features of a batch",
    };
    println!("configuration, data and model are in order; nothing was written");
    println!("steps               {num_steps} in {num_epochs} epochs");
    println!("{timed} {:.2} s, {:.1} images/s", estimate.seconds, estimate.num_images as f64 / estimate.seconds);
    println!("training, estimated {}", human_seconds(estimate.run_seconds));
    if let Some(bytes) = estimate.peak_bytes {
        println!("memory at its peak  {:.0} MiB", bytes as f64 / f64::from(1 << 20));
    }
    Ok(Ended::Done)
}
