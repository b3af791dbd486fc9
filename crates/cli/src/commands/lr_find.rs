//! `taper lr-find`

use anyhow::Result;
use taper_report::LrPoint;
use taper_train::{LrRange, TriedLr, steepest};

use crate::args::{Cli, LrFindArgs};
use crate::device;
use crate::exit::{Ended, usage};
use crate::job::Job;
use crate::prepare::Prepared;
use crate::resolve::resolve;
use crate::run_dir::{self, Found, Place};
use crate::run_page::LR_FIND;
use crate::terminal::{Counter, Talk};

/// Runs the command.
pub(crate) fn run(args: &LrFindArgs, cli: &Cli) -> Result<Ended> {
    let talk = Talk::new(cli.quiet);
    if args.train.resume.is_some() || args.train.flags.dry_run {
        return Err(usage("--resume and --dry-run: a search for a learning rate keeps nothing to go on with"));
    }
    let range = LrRange { from: args.from, to: args.to, num_steps: args.steps };
    range.validate()?;
    let resolved = resolve(&args.train)?;
    if args.train.flags.print_config {
        print!("{}", resolved.to_toml());
        return Ok(Ended::Done);
    }
    let output = args.train.flags.output.clone();
    if let Some(path) = &output
        && run_dir::look(path)? != Found::Free
    {
        return Err(usage(format!("--output {}: the directory is not empty; choose another one", path.display())));
    }
    let device = device::parse(&resolved.config.train.device)?;
    let job = Job::new(&resolved.config, Prepared::fresh(&resolved.config)?, &device)?;
    let tried = search(&job, &range, talk)?;
    print(&tried);
    if let Some(path) = output {
        let (path, _lock) = Place::Named(path).claim()?;
        run_dir::write_new(&path, &resolved, &job.prepared, &device, None)?;
        let points: Vec<LrPoint> = tried.iter().map(|tried| LrPoint { lr: tried.lr, loss: tried.loss }).collect();
        run_dir::write_json(&path.join(LR_FIND), &points)?;
        println!("{0}: `taper report {0}` draws the curve", path.display());
    }
    Ok(Ended::Done)
}

fn search(job: &Job<'_>, range: &LrRange, talk: Talk) -> Result<Vec<TriedLr>> {
    let parts = job.parts_with_images(std::path::Path::new(""))?;
    // Records of a search are nobody's.
    let mut sink = ();
    let counter = Counter::of("steps", range.num_steps, talk);
    let tried = job.assemble(&parts, &mut sink, &|| false)?.search_lr(range, |done| counter.set(done));
    counter.finish();
    Ok(tried?)
}

fn print(tried: &[TriedLr]) {
    const MOST_LINES: usize = 25;
    println!("{:>12} {:>10}", "lr", "loss");
    for point in tried.iter().step_by(tried.len().div_ceil(MOST_LINES).max(1)) {
        println!("{:>12.3e} {:>10.4}", point.lr, point.loss);
    }
    match steepest(tried) {
        Some(lr) => println!("the loss falls fastest at {lr:.2e}; try --lr {lr:.1e}"),
        None => println!("the loss never fell: start lower with --from, or take more steps"),
    }
}
