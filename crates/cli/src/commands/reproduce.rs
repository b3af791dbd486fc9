//! `taper reproduce`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;
use taper_train::{Checkpoint, add_gpu_plans, sha256_of_file};
use toml::Value as TomlValue;

use crate::args::{Cli, ReproduceArgs};
use crate::base_weights::BaseWeights;
use crate::commands::{finetune, train};
use crate::config::GpuPlans;
use crate::device;
use crate::exit::{Ended, bad_input, usage};
use crate::interrupt::Interrupt;
use crate::prepare::read_json;
use crate::resolve::{Resolved, resolve_again};
use crate::run_dir::{self, Found, Place};
use crate::same_data::require_unedited;
use crate::terminal::Talk;
use crate::wishes::Wish;

/// What equal runs have equal, byte for byte.
const FILES: [&str; 6] =
    ["classes.json", "split.json", "preprocess.json", "images.json", "model.safetensors", "last.safetensors"];
/// And these, without what the clock decides.
const LOGS: [&str; 2] = ["steps.jsonl", "epochs.jsonl"];

/// What is read back of `provenance.json`.
#[derive(Debug, Deserialize)]
struct Written {
    commit: String,
    cpu_path: Option<String>,
    base_weights_sha256: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: &ReproduceArgs, cli: &Cli) -> Result<Ended> {
    let (talk, interrupt) = (Talk::new(cli.quiet), Interrupt::watch()?);
    let run = &args.run;
    run_dir::require_run(run)?;
    if run_dir::look(run)? != Found::Complete {
        return Err(usage(format!("{}: the run is not complete; finish it with --resume first", run.display())));
    }
    require_unedited(run)?;
    let written: Written = read_json(&run.join("provenance.json"))?;
    let resolved = configuration(args, &written)?;
    let device = device::parse(&resolved.config.train.device)?;
    // The plans that it computed with, and so its bits.
    if resolved.config.train.gpu_plans == GpuPlans::Measured
        && let Some(checkpoint) = Checkpoint::latest(&run.join("checkpoints"))?
    {
        add_gpu_plans(&checkpoint.progress.gpu_plans);
    }
    let place = Place::Named(output(args));
    place.require_room()?;
    let ended = match &resolved.config.train.base_weights {
        None => train::start(&place, &resolved, &device, talk, &interrupt)?,
        Some(source) => {
            let base = BaseWeights::open(source, talk)?;
            if Some(&base.origin.sha256) != written.base_weights_sha256.as_ref() {
                let shown = base.file.display();
                return Err(bad_input(format!(
                    "{shown}: its SHA-256 is not that of the weights {} began with; put the file back",
                    run.display()
                )));
            }
            finetune::start(&place, &resolved, base, &device, talk, &interrupt)?
        }
    };
    match ended {
        Ended::Done => compare(run, &output(args)),
        stopped => Ok(stopped),
    }
}

fn output(args: &ReproduceArgs) -> PathBuf {
    args.output.clone().unwrap_or_else(|| {
        let mut name = args.run.file_name().unwrap_or_default().to_owned();
        name.push("-again");
        args.run.with_file_name(name)
    })
}

/// The run's own configuration, with the processor's instructions that it found.
fn configuration(args: &ReproduceArgs, written: &Written) -> Result<Resolved> {
    let text = |value: &str| TomlValue::String(value.to_owned());
    let mut wishes = Vec::new();
    if let Some(cpu_path) = &written.cpu_path {
        let source = "the run's provenance.json".to_owned();
        wishes.push(Wish { key: "train.cpu_path".into(), value: text(cpu_path), source });
    }
    if let Some(data) = &args.data {
        wishes.push(Wish { key: "data.location".into(), value: text(data), source: "--data".into() });
    }
    if written.commit != env!("TAPER_COMMIT") {
        tracing::warn!(
            "the run is of commit {}, this is {}: other code may round otherwise",
            written.commit,
            env!("TAPER_COMMIT")
        );
    }
    resolve_again(&args.run.join("config.toml"), wishes)
}

/// Prints what is equal and what is not.
fn compare(run: &Path, again: &Path) -> Result<Ended> {
    let mut different = Vec::new();
    for name in FILES.into_iter().filter(|name| run.join(name).is_file() || again.join(name).is_file()) {
        let sums = [run, again].map(|folder| sha256_of_file(&folder.join(name)).ok());
        // Where and when files were written is not their content.
        let same =
            if name == "images.json" { same_images(run, again)? } else { sums[0].is_some() && sums[0] == sums[1] };
        println!("{} {name} {}", mark(same), sums[1].as_deref().unwrap_or("missing"));
        different.extend((!same).then_some(name));
    }
    for name in LOGS {
        let same = without_times(&run.join(name))? == without_times(&again.join(name))?;
        println!("{} {name} (without times)", mark(same));
        different.extend((!same).then_some(name));
    }
    if different.is_empty() {
        println!("{} was reproduced in {}", run.display(), again.display());
        return Ok(Ended::Done);
    }
    Err(anyhow::anyhow!(
        "{} was not reproduced in {}: {} differ; see whether program, processor or data have changed",
        run.display(),
        again.display(),
        different.join(", ")
    ))
}

fn mark(same: bool) -> &'static str {
    if same { "same     " } else { "DIFFERENT" }
}

fn same_images(run: &Path, again: &Path) -> Result<bool> {
    type Images = BTreeMap<String, BTreeMap<String, Value>>;
    let read = |folder: &Path| -> Result<Images> {
        let mut images: Images = read_json(&folder.join("images.json"))?;
        images.values_mut().for_each(|image| drop(image.remove("stamp")));
        Ok(images)
    };
    Ok(read(run)? == read(again)?)
}

/// The records of a log without the fields that the clock decides.
fn without_times(path: &Path) -> Result<Vec<BTreeMap<String, Value>>> {
    let text =
        std::fs::read_to_string(path).map_err(|error| bad_input(format!("cannot read {}: {error}", path.display())))?;
    let record = |line: &str| -> Result<BTreeMap<String, Value>> {
        let mut record: BTreeMap<String, Value> = serde_json::from_str(line)
            .map_err(|error| bad_input(format!("{} cannot be understood: {error}", path.display())))?;
        record.retain(|key, _| !key.ends_with("_seconds") && !key.ends_with("_per_second"));
        Ok(record)
    };
    text.lines().map(record).collect()
}
