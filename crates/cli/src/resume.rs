//! Going on with a run that was interrupted.

use std::path::Path;

use anyhow::Result;
use candle_core::Device;
use serde::Deserialize;
use taper_train::{Checkpoint, RunFolder};

use crate::args::Resume;
use crate::base_weights::BaseWeights;
use crate::config::RunConfig;
use crate::device;
use crate::exit::{Ended, bad_input, usage};
use crate::interrupt::Interrupt;
use crate::job::Job;
use crate::lock::RunLock;
use crate::memory;
use crate::prepare::{Prepared, read_json};
use crate::resolve::{Resolved, resolve_run};
use crate::run_dir::{self, Found, Place};
use crate::terminal::Talk;
use crate::wishes::Wish;

/// Goes on with the run that `--resume` names.
pub(crate) fn resume_run(run: &Path, wishes: Vec<Wish>, talk: Talk, interrupt: &Interrupt) -> Result<Ended> {
    run_dir::require_run(run)?;
    resume(run, &resolve_run(&run.join("config.toml"), wishes)?, talk, interrupt)
}

/// Goes on with an interrupted run of the same configuration, if there is one where a new one was to be. With
/// `--resume auto`, a run that is complete leaves nothing to do.
pub(crate) fn resume_same(
    place: &Place,
    asked: Option<&Resume>,
    resolved: &Resolved,
    talk: Talk,
    interrupt: &Interrupt,
) -> Result<Option<Ended>> {
    let is_auto = asked == Some(&Resume::Auto);
    for path in if is_auto { place.earlier_runs() } else { Vec::new() } {
        let found = run_dir::look(&path)?;
        if matches!(found, Found::Interrupted | Found::Complete) {
            let written = resolve_run(&path.join("config.toml"), Vec::new())?;
            if written.config.is_same_run(&resolved.config) {
                return resume(&path, &written, talk, interrupt).map(Some);
            }
        }
    }
    place.require_room()?;
    let Place::Named(path) = place else { return Ok(None) };
    if run_dir::look(path)? != Found::Interrupted {
        return Ok(None);
    }
    let written = resolve_run(&path.join("config.toml"), Vec::new())?;
    let shown = path.display();
    if !written.config.is_same_run(&resolved.config) {
        return Err(usage(format!(
            "--output {shown}: an interrupted run with another configuration is there; use --resume {shown}, or another directory"
        )));
    }
    talk.say(format!("{shown}: an interrupted run with the same configuration, going on with it"));
    resume(path, &written, talk, interrupt).map(Some)
}

fn resume(path: &Path, resolved: &Resolved, talk: Talk, interrupt: &Interrupt) -> Result<Ended> {
    if run_dir::look(path)? == Found::Complete {
        talk.say(format!("{}: the run is complete; nothing to do", path.display()));
        return Ok(Ended::Done);
    }
    let _lock = RunLock::take(path)?;
    let config = &resolved.config;
    let device = device::parse(&config.train.device)?;
    let mut job = Job::new(config, Prepared::of_run(path, config)?, &device)?;
    memory::require_room(&job)?;
    tell_of_another_program(path, &device)?;
    job.set_origin(run_dir::origin_of(path)?);
    RunFolder::new(path, Default::default()).remove_halves()?;
    let checkpoint = Checkpoint::latest(&path.join("checkpoints"))?;
    if checkpoint.is_none() {
        talk.say(format!("{}: there is no checkpoint yet; starting from step 0", path.display()));
        load_again(&mut job, path, config, talk)?;
    }
    job.introduce(path, talk)?;
    job.train(path, checkpoint, talk, interrupt)
}

/// Another program, another kind of device, or other instructions of the processor may round otherwise.
fn tell_of_another_program(run: &Path, device: &Device) -> Result<()> {
    #[derive(Deserialize)]
    struct Written {
        commit: String,
        device: String,
        cpu_path: Option<String>,
    }
    let written: Written = read_json(&run.join("provenance.json"))?;
    let now = (env!("TAPER_COMMIT"), taper_kernels::cpu_path().to_string());
    if written.commit != now.0 {
        tracing::warn!(
            "the run was begun by commit {}, this is {}: it may end with other bits than without the interruption",
            written.commit,
            now.0
        );
    }
    let kind = device::name(device);
    if written.device != kind {
        tracing::warn!(
            "the run was begun on the device {}, this is {kind}: it will end with other bits than without the interruption",
            written.device
        );
        return Ok(());
    }
    if let Some(cpu_path) = written.cpu_path.filter(|cpu_path| device.is_cpu() && *cpu_path != now.1) {
        tracing::warn!(
            "the run was begun on the CPU path {cpu_path}, this is {}: it will end with other bits than without the \
             interruption",
            now.1
        );
    }
    Ok(())
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
